#include "spilo/net/http.hpp"

#include <doctest/doctest.h>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <functional>

#include "spilo/runtime/system_clock.hpp"
#include "support/flaky_proxy.hpp"
#include "support/process.hpp"
#include "support/run.hpp"

using namespace spilo;
using namespace spilo::net;
using namespace spilo::test;
using namespace std::chrono_literals;
namespace asio = boost::asio;
using asio::ip::tcp;

namespace {

// A server that reads one head at a time and answers what it was told to, byte for byte.
class Server {
 public:
  struct Answer {
    std::string text;
    bool close = false;
  };
  explicit Server(asio::io_context& io)
      : acceptor_(io, tcp::endpoint(asio::ip::address_v4::loopback(), 0)) {
    accept();
  }
  Url url() const { return Url("127.0.0.1", acceptor_.local_endpoint().port()); }
  std::vector<Answer> answers;  // the last one is repeated
  std::vector<std::string> heads;
  std::size_t connections = 0;

  void accept() {
    acceptor_.async_accept([this](auto ec, tcp::socket socket) {
      if (ec) return;
      ++connections;
      links_.push_back(std::make_shared<tcp::socket>(std::move(socket)));
      read(links_.back());
      accept();
    });
  }
  void close_connections() { links_.clear_sockets(); }

 private:
  struct Links : std::vector<std::shared_ptr<tcp::socket>> {
    void clear_sockets() {
      boost::system::error_code ignored;
      for (auto& link : *this) link->close(ignored);
      clear();
    }
  };
  void read(std::shared_ptr<tcp::socket> link) {
    auto buffer = std::make_shared<std::string>();
    asio::async_read_until(
        *link, asio::dynamic_buffer(*buffer), "\r\n\r\n", [=, this](auto ec, std::size_t) {
          if (ec) return;
          heads.push_back(*buffer);
          if (answers.empty()) return;  // silence
          auto answer = std::make_shared<Answer>(answers.front());
          if (answers.size() > 1) answers.erase(answers.begin());
          asio::async_write(*link, asio::buffer(answer->text), [=, this](auto, std::size_t) {
            boost::system::error_code ignored;
            if (answer->close) {
              link->close(ignored);
            } else {
              read(link);
            }
          });
        });
  }
  tcp::acceptor acceptor_;
  Links links_;
};

struct World {
  asio::io_context io{1};
  SystemClock clock{io.get_executor()};
  HttpClient client{io.get_executor(), clock, HttpClientOptions{}};
  Server server{io};

  ~World() {
    io.restart();
    io.poll();
  }
  Result<HttpResponse> get(Duration time = 5s) {
    return run(io, client.request(server.url(), HttpRequest("GET", "/"), clock.now() + time));
  }
  Result<HttpResponse> post(Effect effect, Duration time = 5s) {
    HttpRequest request("POST", "/", "body");
    request.effect(effect);
    return run(io, client.request(server.url(), request, clock.now() + time));
  }
};

const std::string hello = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Thing: some\r\n\r\nhello";

}  // namespace

TEST_CASE("URLs: parts, defaults and reasons for refusal") {
  const auto url = Url::parse("https://us%40er:p%3Aw@[::1]:2380/a/b?c=d");
  REQUIRE(url.has_value());
  CHECK(url->tls());
  CHECK(url->host() == "::1");
  CHECK(url->port() == 2380);
  CHECK(url->user() == "us@er");
  CHECK(url->password() == "p:w");
  CHECK(url->target() == "/a/b?c=d");
  CHECK(url->origin() == "https://[::1]:2380");
  CHECK(Url::parse("http://node1")->port() == 80);
  CHECK(Url::parse("https://node1")->port() == 443);
  CHECK(Url::parse("http://node1:8008")->target() == "/");
  CHECK(Url::parse("http://node1?x=1")->target() == "/?x=1");
  for (const auto* bad : {"",
                          "node1:2379",
                          "ftp://node1",
                          "http://",
                          "http://node1:99999",
                          "http://a b/",
                          "http://a%20b/",
                          "http://a%0d%0aX:%201/"}) {
    CAPTURE(std::string(bad));
    const auto refused = Url::parse(bad);
    REQUIRE(refused.has_error());
    CHECK(refused.error().is(errc::invalid_argument));
  }
  CHECK(basic_authorization("user", "pass") == "Basic dXNlcjpwYXNz");
  CHECK(basic_authorization("a", "") == "Basic YTo=");
}

TEST_CASE("a request: what is sent, what comes back, and the connection is kept") {
  World w;
  w.server.answers = {{hello}};
  const auto first = w.get();
  REQUIRE(first.has_value());
  CHECK(first->status() == 200);
  CHECK(first->body() == "hello");
  CHECK(first->header("x-thing") == "some");
  CHECK(w.server.heads[0].starts_with("GET / HTTP/1.1\r\nHost: 127.0.0.1:"));
  REQUIRE(w.get().has_value());
  CHECK(w.server.connections == 1);
}

TEST_CASE("answers in chunks, without length, and with an error status are values") {
  World w;
  w.server.answers = {{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n "
                       "world\r\n0\r\nTr: x\r\n\r\n"},
                      {"HTTP/1.1 503 Oh\r\nContent-Length: 0\r\n\r\n"},
                      {"HTTP/1.0 200 OK\r\n\r\nuntil the end", true}};
  CHECK(w.get()->body() == "hello world");
  CHECK(w.get()->status() == 503);
  CHECK(w.get()->body() == "until the end");
  w.server.answers = {{"HTTP/1.1 204 No Content\r\n\r\n"}};
  CHECK(w.get()->status() == 204);
}

TEST_CASE("refused: certainly not sent") {
  World w;
  const Url nobody("127.0.0.1", free_port());
  HttpRequest request("POST", "/", "x");
  const auto result = run(w.io, w.client.request(nobody, request, w.clock.now() + 5s));
  CHECK(result.error().is(errc::unavailable));
  CHECK(result.error().detail().find("Connection refused") != std::string::npos);
}

TEST_CASE("silence: what it means depends on the effect") {
  World w;
  CHECK(w.get(30ms).error().is(errc::timed_out));
  CHECK(w.post(Effect::write, 30ms).error().is(errc::ambiguous));
  CHECK(w.post(Effect::repeatable_write, 30ms).error().is(errc::ambiguous));
  CHECK(w.post(Effect::read, 30ms).error().is(errc::timed_out));
  CHECK(w.post(Effect::write, -1ms).error().is(errc::unavailable));
}

TEST_CASE("an answer that is cut") {
  for (const std::size_t bytes : {0u, 1u, 20u, 56u}) {
    CAPTURE(bytes);
    World w;
    w.server.answers = {{hello.substr(0, bytes), true}};
    CHECK(w.get().error().is(errc::unavailable));
    CHECK(w.post(Effect::write).error().is(errc::ambiguous));
  }
}

TEST_CASE("a kept connection that the server closes on the next request") {
  World w;
  // The server answers once; the connection's next request is met with an end of the stream.
  w.server.answers = {{hello}, {"", true}, {hello}};
  REQUIRE(w.get().has_value());
  CHECK(w.get().has_value());  // repeated on a fresh connection
  CHECK(w.server.heads.size() == 3);
  w.server.answers = {{"", true}, {hello}};
  CHECK(w.post(Effect::write).error().is(errc::ambiguous));  // a write is not
  CHECK(w.server.heads.size() == 4);
}

TEST_CASE("a kept connection that was closed meanwhile is not used: no ambiguity") {
  World w;
  w.server.answers = {{hello}};
  REQUIRE(w.get().has_value());
  w.server.close_connections();
  CHECK(w.post(Effect::write).has_value());
  CHECK(w.server.connections == 2);
}

TEST_CASE("no HTTP, too long") {
  World w;
  w.server.answers = {{"SSH-2.0-OpenSSH_9\r\n\r\n", true}};
  CHECK(w.get().error().is(errc::protocol));
  w.server.answers = {{"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n"}};
  CHECK(w.get().error().is(errc::protocol));
  HttpRequest bad("GET", "/");
  bad.header("X", "a\r\nY: b");
  CHECK(run(w.io, w.client.request(w.server.url(), bad, w.clock.now() + 5s))
            .error()
            .is(errc::invalid_argument));
}

TEST_CASE("cancellation ends a request at once") {
  World w;
  asio::cancellation_signal signal;
  std::optional<Result<HttpResponse>> result;
  auto done = [&](std::exception_ptr failure, Result<HttpResponse> value) {
    REQUIRE(!failure);
    result = std::move(value);
  };
  asio::co_spawn(w.io,
                 w.client.request(w.server.url(), HttpRequest("GET", "/"), w.clock.now() + 60s),
                 asio::bind_cancellation_slot(signal.slot(), done));
  REQUIRE(run_until(
      w.io, [&] { return !w.server.heads.empty(); }, 5s));
  signal.emit(asio::cancellation_type::terminal);
  REQUIRE(run_until(
      w.io, [&] { return result.has_value(); }, 5s));
  CHECK(result->error().is(errc::cancelled));
  w.server.answers = {{hello}};
  CHECK(w.get().has_value());
}

TEST_CASE("a host name goes through the resolver, within the deadline") {
  World w;
  w.server.answers = {{hello}};
  const Url local("localhost", w.server.url().port());
  CHECK(
      run(w.io, w.client.request(local, HttpRequest("GET", "/"), w.clock.now() + 5s)).has_value());
  const Url nowhere("no-such-host.invalid", 1);
  const auto result =
      run(w.io, w.client.request(nowhere, HttpRequest("GET", "/"), w.clock.now() + 5s));
  CHECK(result.error().is(errc::unavailable));
  CHECK(result.error().detail().find("no-such-host.invalid") != std::string::npos);
}

TEST_CASE("a stream of lines: lines across chunks, deadlines that lose nothing, the end") {
  World w;
  FlakyProxy proxy(w.io, w.server.url().port());
  w.server.answers = {
      {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
       "4\r\none\n\r\n5\r\ntwo\nt\r\n3\r\nhre\r\n"}};
  const Url url("127.0.0.1", proxy.port());
  auto opened = run(w.io, w.client.open_lines(url, HttpRequest("GET", "/"), w.clock.now() + 5s));
  REQUIRE(opened.has_value());
  auto& stream = **opened;
  CHECK(stream.status() == 200);
  const auto next = [&](Duration time) {
    return run(w.io, stream.next_line(w.clock.now() + time));
  };
  CHECK(*next(5s) == "one");
  CHECK(*next(5s) == "two");
  CHECK(next(20ms).error().is(errc::timed_out));
  CHECK(next(20ms).error().is(errc::timed_out));
  proxy.drop_connections();
  CHECK(*next(5s) == "thre");  // what has come is not thrown away
  CHECK(next(5s).error().is(errc::unavailable));
  CHECK(next(5s).error().is(errc::unavailable));
}

TEST_CASE("a stream that the server refuses shows its status and text") {
  World w;
  w.server.answers = {{"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnope"}};
  auto opened =
      run(w.io, w.client.open_lines(w.server.url(), HttpRequest("GET", "/"), w.clock.now() + 5s));
  REQUIRE(opened.has_value());
  CHECK((*opened)->status() == 404);
  CHECK(*run(w.io, (*opened)->next_line(w.clock.now() + 5s)) == "nope");
  CHECK(run(w.io, (*opened)->next_line(w.clock.now() + 5s)).error().is(errc::unavailable));
}
