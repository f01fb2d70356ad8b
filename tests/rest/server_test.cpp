// The real server on a free port of this machine, against clients that behave badly.
#include "spilo/rest/http_server.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/connect.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <string>

#include "spilo/runtime/system_clock.hpp"
#include "support/run.hpp"

using namespace spilo;
using namespace spilo::rest;
using namespace std::chrono_literals;
namespace asio = boost::asio;
using tcp = asio::ip::tcp;

namespace {

constexpr auto as_result = asio::as_tuple(asio::use_awaitable);

asio::awaitable<net::HttpResponse> echo(Request request) {
  net::HttpHeaders headers;
  headers.emplace_back("X-Evil", "a\r\nInjected: yes");
  co_return net::HttpResponse(200,
                              std::move(headers),
                              request.method() + " " + request.target() + " " + request.body() +
                                  (request.client_certificate() ? " certified" : "") + " from " +
                                  request.peer());
}

struct TestHandler final : HttpHandler {
  asio::awaitable<net::HttpResponse> admit(Request head) override {
    ++admitted;
    if (head.target() == "/forbidden") co_return net::HttpResponse(403, net::HttpHeaders(), "no");
    co_return net::HttpResponse();
  }
  asio::awaitable<net::HttpResponse> handle(Request request) override {
    ++handled;
    return answer(std::move(request));
  }
  std::function<asio::awaitable<net::HttpResponse>(Request)> answer = echo;
  int admitted = 0;
  int handled = 0;
};

struct Fixture {
  explicit Fixture(HttpServerOptions options = {}) {
    options.port = 0;
    auto made = HttpServer::listen(io.get_executor(), clock, std::move(options), handler);
    REQUIRE(made.has_value());
    server = std::move(*made);
    asio::co_spawn(io, server->run(), [this](std::exception_ptr failure) {
      ended = true;
      if (failure) std::rethrow_exception(failure);
    });
  }
  ~Fixture() {
    if (!ended) server->stop(0ms);
    CHECK(test::run_until(
        io, [this] { return ended; }, 10s));
    CHECK(server->connections() == 0);
  }
  // Sends that text, then reads to the end of the stream.
  std::string talk(std::string text) {
    auto outcome = test::run(io, conversation(std::move(text)), 20s);
    REQUIRE(outcome.has_value());
    return *outcome;
  }
  Async<std::string> conversation(std::string text) {
    tcp::socket socket(io);
    auto connected = co_await socket.async_connect(endpoint(), as_result);
    if (std::get<0>(connected)) co_return Error(errc::unavailable, "connect");
    // A server that has refused already may reset the rest of what we send.
    co_await asio::async_write(socket, asio::buffer(text), as_result);
    std::string out;
    co_await asio::async_read(socket, asio::dynamic_buffer(out), as_result);
    co_return out;
  }
  tcp::endpoint endpoint() const {
    return tcp::endpoint(asio::ip::address_v4::loopback(), server->port());
  }
  tcp::socket connect() {
    tcp::socket socket(io);
    socket.connect(endpoint());
    return socket;
  }

  asio::io_context io{1};
  SystemClock clock{io.get_executor()};
  TestHandler handler;
  std::unique_ptr<HttpServer> server;
  bool ended = false;
};

bool has(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}
std::size_t count(const std::string& text, std::string_view part) {
  std::size_t n = 0;
  for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

}  // namespace

TEST_CASE("rest server: keep-alive, pipelining, and no header injection") {
  Fixture f;
  const auto text = f.talk(
      "GET /one HTTP/1.1\r\nHost: x\r\n\r\n"
      "POST /two HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody"
      "PUT /three HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
      "GET /four HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  CHECK(count(text, "HTTP/1.1 200 OK\r\n") == 4);
  CHECK(has(text, "GET /one  from 127.0.0.1"));
  CHECK(has(text, "POST /two body from"));
  CHECK(has(text, "PUT /three abcde from"));
  CHECK(has(text, "GET /four"));
  CHECK(count(text, "Connection: close\r\n") == 1);
  CHECK(!has(text, "\r\nInjected:"));
  CHECK(has(text, " GMT\r\n"));
}

TEST_CASE("rest server: HTTP/1.0 ends with its answer; HEAD has no body") {
  Fixture f;
  const auto old = f.talk("GET /old HTTP/1.0\r\n\r\n");
  CHECK(has(old, "GET /old"));
  CHECK(has(old, "Connection: close"));
  const auto head = f.talk("HEAD /x HTTP/1.1\r\nConnection: close\r\n\r\n");
  CHECK(has(head, "HTTP/1.1 200 OK\r\n"));
  CHECK(head.substr(head.size() - 4) == "\r\n\r\n");
}

TEST_CASE("rest server: what is no request is refused") {
  Fixture f;
  CHECK(has(f.talk("hello\r\n\r\n"), "HTTP/1.1 400 "));
  CHECK(has(f.talk("GET / HTTP/3.0\r\n\r\n"), "HTTP/1.1 505 "));
  CHECK(has(f.talk("POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n"), "HTTP/1.1 400 "));
  CHECK(f.handler.handled == 0);
}

TEST_CASE("rest server: limits on bytes") {
  HttpServerOptions options;
  options.header_bytes_max = 1024;
  options.body_bytes_max = 2000;
  options.idle_timeout = 200ms;
  Fixture f(options);
  const auto header = f.talk("GET / HTTP/1.1\r\nX: " + std::string(5000, 'x') + "\r\n\r\n");
  CHECK(has(header, "HTTP/1.1 431 "));
  CHECK(has(header, "1024 bytes"));
  const auto body =
      f.talk("POST / HTTP/1.1\r\nContent-Length: 500000\r\n\r\n" + std::string(500000, 'x'));
  CHECK(has(body, "HTTP/1.1 413 "));
  CHECK(has(body, "2000 bytes"));
  std::string chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (int i = 0; i < 30; ++i) chunked += "64\r\n" + std::string(100, 'c') + "\r\n";
  CHECK(has(f.talk(chunked + "0\r\n\r\n"), "HTTP/1.1 413 "));
  CHECK(f.handler.handled == 0);
  const auto fits = f.talk("POST / HTTP/1.1\r\nConnection: close\r\nContent-Length: 2000\r\n\r\n" +
                           std::string(2000, 'x'));
  CHECK(has(fits, "HTTP/1.1 200 "));
}

TEST_CASE("rest server: limits on time") {
  HttpServerOptions options;
  options.head_timeout = 100ms;
  options.body_timeout = 100ms;
  options.idle_timeout = 100ms;
  Fixture f(options);
  const auto head = f.talk("GET / HTTP/1.1\r\nHost: slo");
  CHECK(has(head, "HTTP/1.1 408 "));
  CHECK(has(head, "head did not arrive within 0.1 s"));
  const auto body = f.talk("POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nslow");
  CHECK(has(body, "HTTP/1.1 408 "));
  CHECK(has(body, "body did not arrive"));
  // Who says nothing gets nothing, and is closed all the same.
  CHECK(f.talk("").empty());
  const auto once = f.talk("GET / HTTP/1.1\r\n\r\n");
  CHECK(count(once, "HTTP/1.1") == 1);
  CHECK(f.handler.handled == 1);
}

TEST_CASE("rest server: a body that may not be sent is not read") {
  HttpServerOptions options;
  options.idle_timeout = 200ms;
  Fixture f(options);
  const auto refused = f.talk("POST /forbidden HTTP/1.1\r\nContent-Length: 100000\r\n\r\n");
  CHECK(has(refused, "HTTP/1.1 403 "));
  CHECK(has(refused, "Connection: close"));
  CHECK(f.handler.handled == 0);
  const auto waits =
      f.talk("POST /ok HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi");
  CHECK(waits.find("HTTP/1.1 100 Continue\r\n\r\n") == 0);
  CHECK(has(waits, "POST /ok hi"));
}

TEST_CASE("rest server: a full house sends idle guests home first") {
  HttpServerOptions options;
  options.connections_max = 2;
  Fixture f(options);
  auto first = f.connect();
  auto second = f.connect();
  REQUIRE(test::run_until(
      f.io, [&] { return f.server->connections() == 2; }, 5s));
  CHECK(has(f.talk("GET /third HTTP/1.1\r\nConnection: close\r\n\r\n"), "GET /third"));
  // The first, idle longest, had to go; now both that are left are busy.
  bool release = false;
  f.handler.answer = [&](Request) -> asio::awaitable<net::HttpResponse> {
    while (!release) co_await sleep_until(f.clock, f.clock.now() + 5ms);
    co_return net::HttpResponse(200, net::HttpHeaders(), "late");
  };
  auto busy = f.connect();
  asio::write(second, asio::buffer(std::string("GET / HTTP/1.1\r\n\r\n")));
  asio::write(busy, asio::buffer(std::string("GET / HTTP/1.1\r\n\r\n")));
  REQUIRE(test::run_until(
      f.io, [&] { return f.handler.handled == 3; }, 5s));
  CHECK(has(f.talk("GET /fourth HTTP/1.1\r\n\r\n"), "HTTP/1.1 503 "));
  release = true;
}

TEST_CASE("rest server: a handler that throws costs one answer, not the server") {
  Fixture f;
  f.handler.answer = [](Request) -> asio::awaitable<net::HttpResponse> {
    throw std::runtime_error("as told");
    co_return net::HttpResponse();
  };
  CHECK(has(f.talk("GET / HTTP/1.1\r\nConnection: close\r\n\r\n"), "HTTP/1.1 500 "));
  f.handler.answer = echo;
  CHECK(has(f.talk("GET / HTTP/1.1\r\nConnection: close\r\n\r\n"), "HTTP/1.1 200 "));
}

TEST_CASE("rest server: stopping lets requests in flight end") {
  Fixture f;
  bool release = false;
  f.handler.answer = [&](Request) -> asio::awaitable<net::HttpResponse> {
    while (!release) co_await sleep_until(f.clock, f.clock.now() + 5ms);
    co_return net::HttpResponse(200, net::HttpHeaders(), "the last word");
  };
  auto idle = f.connect();
  std::string text;
  asio::co_spawn(f.io,
                 f.conversation("GET / HTTP/1.1\r\n\r\n"),
                 [&](std::exception_ptr, Result<std::string> said) { text = *said; });
  REQUIRE(test::run_until(
      f.io, [&] { return f.handler.handled == 1; }, 5s));
  f.server->stop(30s);
  const auto port = f.server->port();
  REQUIRE(test::run_until(
      f.io, [&] { return f.server->connections() == 1; }, 5s));
  // The port is free at once: a successor may listen while we finish.
  HttpServerOptions options;
  options.port = port;
  CHECK(HttpServer::listen(f.io.get_executor(), f.clock, options, f.handler).has_value());
  CHECK(!f.ended);
  release = true;
  CHECK(test::run_until(
      f.io, [&] { return f.ended && !text.empty(); }, 5s));
  CHECK(has(text, "the last word"));
  CHECK(has(text, "Connection: close"));
}

TEST_CASE("rest server: stopping cancels what does not end in time") {
  Fixture f;
  bool cancelled = false;
  f.handler.answer = [&](Request) -> asio::awaitable<net::HttpResponse> {
    const bool waited = co_await sleep_until(f.clock, f.clock.now() + 1h);
    cancelled = !waited;
    co_return net::HttpResponse(200, net::HttpHeaders(), "never seen");
  };
  std::string text = "?";
  asio::co_spawn(f.io,
                 f.conversation("GET / HTTP/1.1\r\n\r\n"),
                 [&](std::exception_ptr, Result<std::string> said) { text = *said; });
  REQUIRE(test::run_until(
      f.io, [&] { return f.handler.handled == 1; }, 5s));
  f.server->stop(50ms);
  CHECK(test::run_until(
      f.io, [&] { return f.ended && text != "?"; }, 5s));
  CHECK(cancelled);
  CHECK(text.empty());
}

TEST_CASE("rest server: a taken port is said before anything else") {
  Fixture f;
  HttpServerOptions options;
  options.port = f.server->port();
  const auto second = HttpServer::listen(f.io.get_executor(), f.clock, options, f.handler);
  REQUIRE(!second.has_value());
  CHECK(second.error().is(errc::unavailable));
  CHECK(has(second.error().detail(), "is taken by another process"));
  CHECK(has(second.error().detail(), std::to_string(options.port)));
  options.address = "192.0.2.1";
  const auto foreign = HttpServer::listen(f.io.get_executor(), f.clock, options, f.handler);
  REQUIRE(!foreign.has_value());
  CHECK(has(foreign.error().detail(), "no address of this machine"));
}

TEST_CASE("rest server: a postmaster does not inherit the sockets") {
  Fixture f;
  const auto guest = f.connect();
  REQUIRE(test::run_until(
      f.io, [&] { return f.server->connections() == 1; }, 5s));
  int sockets = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    const int fd = std::atoi(entry.path().filename().c_str());
    sockaddr_storage name{};
    socklen_t size = sizeof name;
    if (::getsockname(fd, reinterpret_cast<sockaddr*>(&name), &size) != 0) continue;
    if (name.ss_family != AF_INET || fd == const_cast<tcp::socket&>(guest).native_handle())
      continue;
    ++sockets;
    CHECK((::fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
  }
  CHECK(sockets == 2);
}

namespace {

// An authority, a server certificate for 127.0.0.1 and a client certificate, made by openssl.
struct Certificates {
  Certificates() {
    std::string pattern = "/tmp/spilo-rest-XXXXXX";
    REQUIRE(::mkdtemp(pattern.data()) != nullptr);
    dir = pattern;
    authority("ca");
    authority("foreign");
    issue("server", "ca", "subjectAltName=IP:127.0.0.1");
    issue("client", "ca", "basicConstraints=CA:FALSE");
    issue("stranger", "foreign", "basicConstraints=CA:FALSE");
  }
  ~Certificates() { std::filesystem::remove_all(dir); }
  void sh(const std::string& command) {
    CAPTURE(command);
    REQUIRE(std::system(("cd " + dir + " && " + command + " >log 2>&1").c_str()) == 0);
  }
  void authority(const std::string& name) {
    sh("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj "
       "/CN=" +
       name + " -keyout " + name + ".key -out " + name + ".pem");
  }
  void issue(const std::string& name, const std::string& by, const std::string& extension) {
    sh("openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=" + name +
       " -keyout " + name + ".key -out " + name + ".csr && printf '" + extension +
       "' > ext && openssl x509 -req -days 2 -in " + name + ".csr -CA " + by + ".pem -CAkey " + by +
       ".key -CAcreateserial -extfile ext -out " + name + ".pem");
  }
  std::string operator()(const char* file) const { return dir + "/" + file; }
  std::string dir;
};

Result<net::HttpResponse> https(Fixture& f, const Certificates& files, const char* certificate) {
  net::HttpClientOptions options;
  options.tls.ca_file = files("ca.pem");
  if (certificate != nullptr) {
    options.tls.cert_file = files((std::string(certificate) + ".pem").c_str());
    options.tls.key_file = files((std::string(certificate) + ".key").c_str());
  }
  net::HttpClient client(f.io.get_executor(), f.clock, options);
  return test::run(f.io,
                   client.request(net::Url("127.0.0.1", f.server->port(), true),
                                  net::HttpRequest("GET", "/tls"),
                                  f.clock.now() + 10s),
                   20s);
}

}  // namespace

TEST_CASE("rest server: TLS and client certificates") {
  const Certificates files;
  HttpServerOptions options;
  options.tls = TlsServerOptions();
  options.tls->cert_file = files("server.pem");
  options.tls->key_file = files("server.key");
  SUBCASE("none") {
    Fixture f(options);
    const auto answer = https(f, files, nullptr);
    REQUIRE(answer.has_value());
    CHECK(answer->body() == "GET /tls  from 127.0.0.1");
    // Plain text at a TLS port ends the connection and nothing else.
    CHECK(!has(f.talk("GET / HTTP/1.1\r\n\r\n"), "200"));
    CHECK(https(f, files, nullptr).has_value());
  }
  options.tls->ca_file = files("ca.pem");
  SUBCASE("optional") {
    options.tls->client_certificates = ClientCertificates::optional;
    Fixture f(options);
    CHECK(https(f, files, nullptr)->body() == "GET /tls  from 127.0.0.1");
    CHECK(https(f, files, "client")->body() == "GET /tls  certified from 127.0.0.1");
    CHECK(!https(f, files, "stranger").has_value());
  }
  SUBCASE("required") {
    options.tls->client_certificates = ClientCertificates::required;
    Fixture f(options);
    CHECK(!https(f, files, nullptr).has_value());
    CHECK(https(f, files, "client")->body() == "GET /tls  certified from 127.0.0.1");
    CHECK(!https(f, files, "stranger").has_value());
    CHECK(f.handler.handled == 1);
  }
  SUBCASE("reload: a bad certificate leaves the old one in use") {
    Fixture f(options);
    auto broken = *options.tls;
    broken.key_file = files("client.key");
    const auto refused = f.server->reload_tls(broken);
    REQUIRE(!refused.has_value());
    CHECK(has(refused.error().detail(), "client.key"));
    CHECK(https(f, files, nullptr).has_value());
    auto strict = *options.tls;
    strict.client_certificates = ClientCertificates::required;
    REQUIRE(f.server->reload_tls(strict).has_value());
    CHECK(!https(f, files, nullptr).has_value());
  }
  SUBCASE("unusable files are named") {
    asio::io_context io;
    SystemClock clock(io.get_executor());
    TestHandler handler;
    options.port = 0;
    options.tls->cert_file = files("none.pem");
    const auto missing = HttpServer::listen(io.get_executor(), clock, options, handler);
    REQUIRE(!missing.has_value());
    CHECK(missing.error().is(errc::invalid_argument));
    CHECK(has(missing.error().detail(), "none.pem"));
    options.tls->ca_file.clear();
    options.tls->client_certificates = ClientCertificates::optional;
    const auto no_authority = HttpServer::listen(io.get_executor(), clock, options, handler);
    REQUIRE(!no_authority.has_value());
    CHECK(has(no_authority.error().detail(), "cafile"));
  }
}
