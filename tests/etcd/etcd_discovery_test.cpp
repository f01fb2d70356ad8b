// Finding the members: SRV records, the cluster's own list, learners.
#include <doctest/doctest.h>

#include <algorithm>

#include "etcd/etcd_world.hpp"
#include "srv_lookup.hpp"
#include "support/fake_dns.hpp"

using namespace spilo;
using namespace spilo::test;
using namespace std::chrono_literals;

namespace {
const auto no_etcd = doctest::skip(!have_etcd());

std::vector<std::string> names_of(const std::string& suffix) {
  std::vector<std::string> out;
  for (const auto& one : etcd::srv_names("example.com", suffix))
    out.push_back(one.name + (one.tls ? " tls" : "") + (one.peers ? " peers" : ""));
  return out;
}

Result<etcd::SrvRecords> find(EtcdWorld& w, FakeDns& dns, Duration limit = 5s) {
  return run(
      w.io,
      etcd::find_srv(w.io.get_executor(), w.clock, "example.com", "", dns.address(), w.in(limit)));
}

etcd::Options by_srv(const FakeDns& dns) {
  etcd::Options options;
  options.srv = "example.com";
  options.name_server = dns.address();
  return options;
}

// A query as the resolver writes it, of which the answers below are made.
const std::string query("\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01z\x00\x00\x21\x00\x01",
                        19);

Result<std::vector<etcd::SrvTarget>> parsed(const std::string& bytes) {
  return etcd::parse_srv_answer(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
}
}  // namespace

TEST_CASE("the names of SRV records, in Patroni's order") {
  CHECK(names_of("") == std::vector<std::string>{"_etcd-client-ssl._tcp.example.com tls",
                                                 "_etcd-client._tcp.example.com",
                                                 "_etcd-ssl._tcp.example.com tls",
                                                 "_etcd._tcp.example.com",
                                                 "_etcd-server-ssl._tcp.example.com tls peers",
                                                 "_etcd-server._tcp.example.com peers"});
  CHECK(names_of("blue")[0] == "_etcd-client-ssl-blue._tcp.example.com tls");
  CHECK(names_of("blue")[3] == "_etcd-blue._tcp.example.com");
}

TEST_CASE("answers of name servers: sorted, and whatever is cut off or wrong is an error") {
  std::vector<FakeDns::Srv> records;
  records.push_back({"c.example.com", 3, 20, 0});
  records.push_back({"a.example.com", 1, 10, 1});
  records.push_back({"b.example.com", 2, 10, 5});
  records.push_back({".", 9, 0, 0});  // "decidedly not available"
  const auto whole = FakeDns::answer(query, records, 0);
  const auto good = parsed(whole);
  REQUIRE_MESSAGE(good.has_value(), good.error().text());
  REQUIRE(good->size() == 3);
  CHECK((*good)[0].host == "b.example.com");
  CHECK((*good)[0].port == 2);
  CHECK((*good)[1].host == "a.example.com");
  CHECK((*good)[2].host == "c.example.com");
  CHECK(parsed(FakeDns::answer(query, {}, 0))->empty());
  for (std::size_t size = 0; size < whole.size(); ++size)
    CHECK(parsed(whole.substr(0, size)).has_error());
  // A record of six bytes has no room for a host, and a name must not point to itself.
  auto wrong = FakeDns::answer(query, {{"a", 1, 0, 0}}, 0);
  wrong[wrong.size() - 9 - 1] = 6;
  CHECK(parsed(wrong).has_error());
  wrong = FakeDns::answer(query, {{"aa", 1, 0, 0}}, 0);
  wrong[wrong.size() - 4] = static_cast<char>(0xc0);
  wrong[wrong.size() - 3] = static_cast<char>(wrong.size() - 4);
  CHECK(parsed(wrong).has_error());
}

TEST_CASE("the first name that has records counts; errors say what was asked") {
  EtcdWorld w;
  FakeDns dns(w.io);
  dns.records["_etcd-server._tcp.example.com"].push_back({"peer.example.com", 2380, 0, 0});
  dns.records["_etcd-ssl._tcp.example.com"].push_back({"tls.example.com", 2379, 0, 0});
  dns.records["_etcd-client._tcp.example.com"] = {};  // a name without records is none
  const auto found = find(w, dns);
  REQUIRE_MESSAGE(found.has_value(), found.error().text());
  CHECK(found->name == "_etcd-ssl._tcp.example.com");
  CHECK(found->tls);
  CHECK_FALSE(found->peers);
  REQUIRE(found->targets.size() == 1);
  CHECK(found->targets[0].host == "tls.example.com");
  CHECK(dns.questions == std::vector<std::string>{"_etcd-client-ssl._tcp.example.com",
                                                  "_etcd-client._tcp.example.com",
                                                  "_etcd-ssl._tcp.example.com"});
  dns.records.clear();
  const auto none = find(w, dns);
  REQUIRE(none.has_error());
  CHECK(none.error().is(errc::unavailable));
  CHECK_MESSAGE(
      none.error().detail().find("_etcd-client-ssl._tcp.example.com") != std::string::npos,
      none.error().text());
  dns.code = 2;  // SERVFAIL
  const auto failed = find(w, dns);
  REQUIRE(failed.has_error());
  CHECK_MESSAGE(
      failed.error().detail().find("_etcd-client-ssl._tcp.example.com: ") != std::string::npos,
      failed.error().text());
}

TEST_CASE("a name server that is silent blocks nobody, and whoever asked may leave") {
  EtcdWorld w;
  FakeDns dns(w.io);
  dns.silent = true;
  int ticks = 0;
  boost::asio::steady_timer timer(w.io);
  std::function<void(boost::system::error_code)> tick = [&](boost::system::error_code ec) {
    if (ec) return;
    ++ticks;
    timer.expires_after(5ms);
    timer.async_wait(tick);
  };
  tick({});
  const auto began = w.clock.now();
  const auto found = find(w, dns, 500ms);
  REQUIRE(found.has_error());
  CHECK(found.error().is(errc::unavailable));
  CHECK(w.clock.now() - began < 2s);
  CHECK(ticks > 20);
  timer.cancel();
  auto& store = w.store({}, by_srv(dns));
  const auto read = w.read(store, 400ms);
  REQUIRE(read.has_error());
  CHECK(read.error().is(errc::unavailable));
  CHECK_MESSAGE(read.error().detail().find("example.com") != std::string::npos,
                read.error().text());
}

TEST_CASE("a cluster that is found by SRV records, and found again where it moves to" * no_etcd) {
  EtcdWorld w;
  FakeDns dns(w.io);
  auto& store = w.store({}, by_srv(dns));
  const auto nobody = w.put(store, "config", "1", 300ms);
  REQUIRE(nobody.has_error());
  CHECK(nobody.error().is(errc::unavailable));
  auto etcd = std::make_unique<EtcdCluster>();
  dns.records["_etcd-client._tcp.example.com"].push_back({"127.0.0.1", (*etcd)[0].port(), 0, 0});
  const auto put = w.put(store, "config", "1", 10s);
  REQUIRE_MESSAGE(put.has_value(), put.error().text());
  // Another cluster at another address: believed, because we hold no lease.
  etcd = std::make_unique<EtcdCluster>();
  dns.records["_etcd-client._tcp.example.com"] = {{"127.0.0.1", (*etcd)[0].port(), 0, 0}};
  const auto moved = w.read(store, 20s);
  REQUIRE_MESSAGE(moved.has_value(), moved.error().text());
  CHECK(moved->all().empty());
  CHECK(w.put(store, "config", "2").has_value());
}

TEST_CASE("SRV records of the peers' addresses lead to the clients' addresses" * no_etcd) {
  EtcdWorld w;
  FakeDns dns(w.io);
  EtcdCluster etcd(3);
  leader_of(w, etcd);
  dns.records["_etcd-server._tcp.example.com"].push_back({"127.0.0.1", free_port(), 0, 0});
  dns.records["_etcd-server._tcp.example.com"].push_back({"127.0.0.1", etcd[1].peer_port(), 1, 0});
  auto& store = w.store({}, by_srv(dns));
  const auto put = w.put(store, "config", "1", 10s);
  REQUIRE_MESSAGE(put.has_value(), put.error().text());
  etcd[1].process().end(SIGKILL);
  const auto again = w.read(store, 10s);
  REQUIRE_MESSAGE(again.has_value(), again.error().text());
}

TEST_CASE("the cluster's own list: one endpoint is enough to survive its death" * no_etcd) {
  EtcdCluster etcd(3);
  EtcdWorld w;
  leader_of(w, etcd);
  std::vector<net::Url> one(1, etcd[0].url());
  etcd::Options with_proxies;
  with_proxies.use_proxies = true;
  auto& learning = w.store(one);
  auto& trusting = w.store(one, with_proxies);
  for (auto* store : {&learning, &trusting}) {
    REQUIRE(w.put(*store, "config", "1", 10s).has_value());
    const auto seen = w.read(*store)->index();
    CHECK(w.changed(*store, seen, 200ms).error().is(errc::timed_out));
  }
  etcd[0].process().end(SIGKILL);
  const auto read = w.read(learning, 10s);
  REQUIRE_MESSAGE(read.has_value(), read.error().text());
  CHECK(read->find("config")->value == "1");
  CHECK(w.read(trusting, 1s).error().is(errc::unavailable));
}

TEST_CASE("a learner is passed over until it is promoted" * no_etcd) {
  EtcdCluster etcd(1);
  EtcdWorld w;
  const auto client = free_port();
  const auto peer = free_port();
  const auto added = json::parse(
      w.call(etcd[0].url(),
             "/v3/cluster/member/add",
             fmt::format(R"({{"peerURLs":["http://127.0.0.1:{}"],"isLearner":true}})", peer)));
  REQUIRE(added.has_value());
  const auto id = added->find_path("member.ID")->scalar_text();
  EtcdMember learner(
      etcd.dir(),
      "m1",
      client,
      peer,
      fmt::format("m0=http://127.0.0.1:{},m1=http://127.0.0.1:{}", etcd[0].peer_port(), peer),
      {"--initial-cluster-state", "existing"});
  REQUIRE(learner.wait_ready());
  std::vector<net::Url> urls(1, learner.url());
  urls.push_back(etcd[0].url());
  for (const std::uint64_t seed : {1u, 2u, 3u, 4u}) {  // each of them is the first for some
    etcd::Options options;
    options.seed = seed;
    auto& store = w.store(urls, options);
    const auto put = w.put(store, "status", std::to_string(seed), 5s);
    CHECK_MESSAGE(put.has_value(), put.error().text());
  }
  auto& only = w.store(std::vector<net::Url>(1, learner.url()));
  const auto refused = w.put(only, "status", "x", 500ms);
  REQUIRE(refused.has_error());
  CHECK_MESSAGE(refused.error().is(errc::unavailable), refused.error().text());
  CHECK(refused.error().detail().find("learner") != std::string::npos);
  const auto promoted = wait_until(
      [&] {
        try {
          w.call(etcd[0].url(), "/v3/cluster/member/promote", R"({"ID":")" + id + R"("})");
          return true;
        } catch (const std::runtime_error&) {  // it has not caught up yet
          return false;
        }
      },
      20s);
  REQUIRE(promoted);
  const auto put = w.put(only, "status", "after", 5s);
  CHECK_MESSAGE(put.has_value(), put.error().text());
}
