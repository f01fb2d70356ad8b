// Answers that must not be believed, from servers that only look like etcd.
#include <doctest/doctest.h>

#include <boost/asio/read.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/streambuf.hpp>
#include <functional>

#include "etcd/etcd_world.hpp"

using namespace spilo;
using namespace spilo::test;
using namespace std::chrono_literals;
namespace asio = boost::asio;
using asio::ip::tcp;

namespace {

// Speaks HTTP as far as needed: one answer for each request, chosen by its path.
class FakeEtcd {
 public:
  explicit FakeEtcd(asio::io_context& io)
      : acceptor_(io, tcp::endpoint(asio::ip::address_v4::loopback(), 0)) {
    accept();
  }
  net::Url url() const { return net::Url("127.0.0.1", acceptor_.local_endpoint().port()); }
  std::string version = R"({"etcdserver":"3.4.23"})";
  int status = 200;
  std::string cluster = "1";
  int term = 5;
  int revision = 100;
  std::string more;  // members of the answer beside the header
  std::vector<std::string> requests;

 private:
  void accept() {
    acceptor_.async_accept([this](auto ec, tcp::socket socket) {
      if (ec) return;
      read(std::make_shared<tcp::socket>(std::move(socket)));
      accept();
    });
  }
  void read(std::shared_ptr<tcp::socket> link) {
    auto head = std::make_shared<asio::streambuf>();
    asio::async_read_until(*link, *head, "\r\n\r\n", [=, this](auto ec, std::size_t size) {
      if (ec) return;
      std::string text(asio::buffers_begin(head->data()), asio::buffers_end(head->data()));
      const auto length = text.find("Content-Length: ");
      const auto body = length < size ? std::stoul(text.substr(length + 16)) : 0;
      const auto have = text.size() - size;
      asio::async_read(*link,
                       *head,
                       asio::transfer_exactly(body - std::min(body, have)),
                       [=, this](auto failed, std::size_t) {
                         if (!failed) answer(link, text.substr(0, text.find("\r\n")));
                       });
    });
  }
  void answer(std::shared_ptr<tcp::socket> link, const std::string& request) {
    requests.push_back(request);
    const bool asks_version = request.starts_with("GET /version");
    const auto body = asks_version
                          ? version
                          : R"({"header":{"cluster_id":")" + cluster + R"(","revision":")" +
                                std::to_string(revision) + R"(","raft_term":")" +
                                std::to_string(term) + "\"}" + more + "}";
    auto text =
        std::make_shared<std::string>(fmt::format("HTTP/1.1 {} X\r\nContent-Length: {}\r\n\r\n{}",
                                                  asks_version ? 200 : status,
                                                  body.size(),
                                                  body));
    asio::async_write(*link, asio::buffer(*text), [=, this](auto ec, std::size_t) {
      if (!ec) read(link);
    });
  }
  tcp::acceptor acceptor_;
};

const std::string lease = R"(,"ID":"7","TTL":"10")";

}  // namespace

TEST_CASE("a member of an older term, an older revision or another cluster is passed over") {
  EtcdWorld w;
  FakeEtcd one(w.io);
  FakeEtcd two(w.io);
  auto& store = w.store({one.url(), two.url()});
  one.more = two.more = lease;
  REQUIRE(w.renew(store, 10s).has_value());  // with a lease nobody can talk us into another history
  one.more = two.more = "";
  REQUIRE(w.read(store).has_value());

  // Whichever of them is asked first: the one that lags is passed over, the other one's answer
  // counts.
  FakeEtcd* stale = &one;
  FakeEtcd* good = &two;
  SUBCASE("") {}
  SUBCASE("the other way round") {
    std::swap(stale, good);
  }
  good->revision = 200;
  good->term = 6;
  stale->status = 503;
  REQUIRE(w.read(store)->index().value == 200);
  stale->status = 200;
  good->status = 503;
  const auto refused_for = [&](const char* why) {
    const auto refused = w.read(store, 300ms);
    REQUIRE(refused.has_error());
    CHECK(refused.error().is(errc::unavailable));
    CHECK_MESSAGE(w.log.find(why) != std::string::npos, w.log);
  };
  refused_for("stale: its term 5 is before 6");
  stale->term = 6;
  refused_for("stale: its revision 100 is before 200");
  stale->revision = 300;
  stale->cluster = "2";
  refused_for("it belongs to cluster 2, not to 1");
  good->status = 200;
  CHECK(w.read(store)->index().value == 200);

  // A renewal by such a member does not count either; the lease is not lost by it.
  stale->more = good->more = lease;
  good->status = 503;
  const auto renewed = w.renew(store, 10s, 300ms);
  REQUIRE(renewed.has_error());
  CHECK_FALSE(renewed.error().is(errc::session_lost));
  // A commit that the wrong cluster carried out: nobody knows what that means for ours.
  stale->more = R"(,"succeeded":true)";
  const auto put = w.put(store, "status", "x", 300ms);
  REQUIRE(put.has_error());
  CHECK(put.error().is(errc::ambiguous));
}

TEST_CASE("a commit is never sent twice, except when it certainly was not done") {
  EtcdWorld w;
  FakeEtcd one(w.io);
  FakeEtcd two(w.io);
  auto& store = w.store({one.url(), two.url()});
  const auto commits = [&] {
    int sum = 0;
    for (const auto* server : {&one, &two})
      for (const auto& request : server->requests)
        sum += request.find("/kv/txn") != std::string::npos;
    return sum;
  };
  one.status = two.status = 503;
  one.more = two.more = R"(,"error":"etcdserver: leader changed","code":14)";
  CHECK(w.put(store, "status", "x", 500ms).error().is(errc::ambiguous));
  CHECK(commits() == 1);
  one.more = two.more = R"(,"error":"something new","code":2)";
  CHECK(w.put(store, "status", "x", 500ms).error().is(errc::ambiguous));
  CHECK(commits() == 2);
  one.more = two.more = R"(,"error":"etcdserver: mvcc: database space exceeded","code":8)";
  CHECK(w.put(store, "status", "x", 500ms).error().is(errc::unavailable));
  CHECK(commits() > 4);
}

TEST_CASE("servers that are too old, or no etcd") {
  EtcdWorld w;
  FakeEtcd server(w.io);
  server.version = R"({"etcdserver":"3.2.32"})";
  const auto old = w.read(w.store({server.url()}), 300ms);
  CHECK(old.error().is(errc::unsupported));
  CHECK(old.error().detail().find("3.2 is too old") != std::string::npos);
  server.version = R"({"etcdserver":"3.3.27"})";
  CHECK(w.read(w.store({server.url()})).has_value());
  CHECK(server.requests.back().starts_with("POST /v3beta/kv/range"));
  server.version = "<html>It works!</html>";
  const auto other = w.put(w.store({server.url()}), "status", "x", 300ms);
  CHECK(other.error().is(errc::unavailable));
  CHECK(other.error().detail().find("is this an etcd server?") != std::string::npos);
  CHECK(w.read(w.store({}), 300ms).error().is(errc::invalid_argument));
}
