// Three servers: what happens to one of them must not become a fault of ours.
#include <doctest/doctest.h>

#include "zookeeper/zookeeper_world.hpp"

using namespace spilo;
using namespace spilo::test;
using namespace std::chrono_literals;

namespace {
const auto no_zookeeper = doctest::skip(!have_zookeeper());

// The member that the store has said last it is connected to.
std::size_t server_of(const ZookeeperWorld& w, ZookeeperEnsemble& ensemble) {
  const std::string_view said = "connected to 127.0.0.1:";
  const auto at = w.log.rfind(said);
  for (std::size_t i = 0; at != std::string::npos && i < ensemble.size(); ++i)
    if (w.log.substr(at + said.size()).starts_with(fmt::format("{},", ensemble[i].port())))
      return i;
  return ensemble.size();
}
}  // namespace

TEST_CASE("three servers: a cut-off follower renews nobody, a silent server is left, no quorum" *
          no_zookeeper) {
  ZookeeperEnsemble ensemble(3);
  ZookeeperWorld w;

  {  // The server that we are connected to stops: another one goes on with the session.
    std::vector<zookeeper::Server> servers = ZookeeperWorld::servers(ensemble);
    auto& store = w.store(servers);
    const auto lease = w.renew(store, 9s, 8s);
    REQUIRE_MESSAGE(lease.has_value(), lease.error().text());
    REQUIRE(w.put(store, "leader", "n1", 5s, dcs::Binding::session).has_value());
    const auto connected = server_of(w, ensemble);
    REQUIRE(connected < 3);
    ensemble[connected].process().freeze();
    // As a leader renews: each attempt with a third of the timeout.
    const auto limit = w.in(7s);
    auto renewed = w.renew(store, 9s, 3s);
    while (renewed.has_error() && w.clock.now() < limit) renewed = w.renew(store, 9s, 3s);
    REQUIRE_MESSAGE(renewed.has_value(), renewed.error().text());
    CHECK(renewed->session == lease->session);
    const auto seen = w.read(store, 8s);
    REQUIRE_MESSAGE(seen.has_value(), seen.error().text());
    REQUIRE(seen->find("leader") != nullptr);
    CHECK(seen->find("leader")->owner == lease->session);
    CHECK(server_of(w, ensemble) != connected);
    ensemble[connected].process().signal(SIGCONT);
    const auto ended = w.end_session(store, 8s);
    REQUIRE_MESSAGE(ended.has_value(), ended.error().text());
  }

  {  // A follower that lost its leader answers pings and reads for a while: it renews nobody.
    // An election may still be going on: the roles are those that everybody agrees on.
    std::size_t leader = 3;
    REQUIRE(wait_until(
        [&] {
          leader = ensemble.leader();
          for (std::size_t i = 0; i < 3; ++i)
            if (ensemble[i].mode() != (i == leader ? "leader" : "follower")) return false;
          return true;
        },
        20s));
    const auto follower = (leader + 1) % 3;
    auto& store = w.store({ZookeeperWorld::at(ensemble[follower].port())});
    const auto ready = w.renew(store, 9s, 8s);
    REQUIRE_MESSAGE(ready.has_value(), ready.error().text());
    REQUIRE(w.put(store, "config", "{}", 8s).has_value());
    ensemble[leader].process().freeze();
    const auto renewed = w.renew(store, 9s, 800ms);
    const auto fresh = w.read(store, 500ms);
    // On a busy machine the role may have moved on just before; then the two others are a quorum.
    const bool another_leads = ensemble[follower].mode() == "leader" ||
                               ensemble[(leader + 2) % 3].mode() == "leader";
    CHECK_MESSAGE((renewed.has_error() || another_leads), "a renewal without the leader");
    CHECK_MESSAGE((fresh.has_error() || another_leads), "a linearizable read without the leader");
    ensemble[leader].process().signal(SIGCONT);
    // It may have been voted out meanwhile.
    CHECK(w.put(store, "config", "again", 15s).has_value());
  }

  auto& store = w.store(ZookeeperWorld::servers(ensemble));
  REQUIRE(w.put(store, "config", "1", 15s).has_value());
  const auto last = ensemble.leader();
  ensemble[last].process().end(SIGKILL);
  ensemble[(last + 1) % 3].process().end(SIGKILL);
  const auto read = w.read(store, 1500ms);
  REQUIRE(read.has_error());
  CHECK_MESSAGE((read.error().is(errc::unavailable) || read.error().is(errc::timed_out)),
                read.error().text());
  const auto put = w.put(store, "config", "2", 1500ms);
  REQUIRE(put.has_error());
  CHECK_MESSAGE((put.error().is(errc::ambiguous) || put.error().is(errc::unavailable)),
                put.error().text());
  const auto renewed = w.renew(store, 5s, 1s);
  REQUIRE(renewed.has_error());
  CHECK_FALSE(renewed.error().is(errc::session_lost));
}
