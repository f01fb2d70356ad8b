// Three members: what one of them does must not become a fault of ours.
#include <doctest/doctest.h>

#include "etcd/etcd_world.hpp"

using namespace spilo;
using namespace spilo::test;
using namespace std::chrono_literals;

namespace {
const auto no_etcd = doctest::skip(!have_etcd());
}  // namespace

TEST_CASE("unreachable and silent endpoints in the list: found once, then avoided" * no_etcd) {
  EtcdCluster etcd;
  EtcdWorld w;
  FlakyProxy silent(w.io, etcd[0].port());
  silent.freeze();
  std::vector<net::Url> urls;
  urls.push_back(net::Url("127.0.0.1", free_port()));
  urls.push_back(net::Url("127.0.0.1", silent.port()));
  urls.push_back(etcd[0].url());
  for (const std::uint64_t seed :
       {1u, 2u, 3u, 4u, 5u, 6u}) {  // each endpoint is the first for some
    etcd::Options options;
    options.seed = seed;
    auto& store = w.store(urls, options);
    auto began = w.clock.now();
    REQUIRE(w.put(store, "config", "1", 4s).has_value());
    CHECK(w.clock.now() - began < 3s);
    began = w.clock.now();
    CHECK(w.read(store, 4s).has_value());
    CHECK(w.renew(store, 5s, 4s).has_value());
    CHECK(w.clock.now() - began < 1s);
  }
}

TEST_CASE("the leader is killed, a member is frozen: the lease is kept, nothing is lost" *
          no_etcd) {
  EtcdCluster etcd(3);
  EtcdWorld w;
  std::size_t leader = leader_of(w, etcd);
  auto& store = w.store(etcd.urls());
  const auto lease = w.renew(store, 10s, 8s);
  REQUIRE_MESSAGE(lease.has_value(), lease.error().text());
  REQUIRE(w.put(store, "leader", "n1", 5s, dcs::Binding::session).has_value());
  const auto version = w.read(store)->find("leader")->version;
  const auto seen = w.read(store)->index();
  CHECK(w.changed(store, seen, 50ms).error().is(errc::timed_out));

  SUBCASE("killed") {
    etcd[leader].process().end(SIGKILL);
  }
  SUBCASE("frozen") {
    etcd[leader].process().freeze();
  }
  const auto renewed = w.renew(store, 10s, 8s);
  REQUIRE_MESSAGE(renewed.has_value(), renewed.error().text());
  CHECK(renewed->session == lease->session);
  CHECK(renewed->valid_until > lease->valid_until);
  const auto snapshot = w.read(store, 8s);
  REQUIRE_MESSAGE(snapshot.has_value(), snapshot.error().text());
  CHECK(snapshot->find("leader")->version == version);
  REQUIRE(w.put(store, "status", "1", 8s).has_value());
  const auto changed = w.changed(store, seen, 8s);
  CHECK_MESSAGE(changed.has_value(), changed.error().text());

  // Back again: it is followed, and what was learnt is not unlearnt.
  etcd[leader].process().signal(SIGCONT);
  if (!etcd[leader].process().running()) etcd[leader].restart();
  for (int i = 0; i < 10; ++i) REQUIRE(w.renew(store, 10s, 8s).has_value());
  CHECK(w.read(store, 8s)->find("status")->value == "1");
}

TEST_CASE("without a quorum nothing has authority" * no_etcd) {
  EtcdCluster etcd(3);
  EtcdWorld w;
  auto& store = w.store(etcd.urls());
  REQUIRE(w.put(store, "config", "1", 8s).has_value());
  etcd[0].process().end(SIGKILL);
  etcd[1].process().end(SIGKILL);
  const auto read = w.read(store, 2s);
  REQUIRE(read.has_error());
  CHECK_MESSAGE((read.error().is(errc::unavailable) || read.error().is(errc::timed_out)),
                read.error().text());
  const auto put = w.put(store, "config", "2", 2s);
  REQUIRE(put.has_error());
  CHECK_MESSAGE((put.error().is(errc::ambiguous) || put.error().is(errc::unavailable)),
                put.error().text());
  const auto renewed = w.renew(store, 5s, 2s);
  REQUIRE(renewed.has_error());
  CHECK_FALSE(renewed.error().is(errc::session_lost));
  // For display the one that is left will do.
  const auto local = w.read(store, 4s, dcs::Freshness::local_replica);
  REQUIRE_MESSAGE(local.has_value(), local.error().text());
  CHECK(local->find("config")->value == "1");
}
