// Whole clusters of real supervisors: the stories that the random runs are made of, and proof that
// the random runs find mistakes.
#include "spilo/testing/sim_cluster.hpp"

#include <doctest/doctest.h>

#include "spilo/core/json.hpp"
#include "spilo/model/keys.hpp"
#include "spilo/testing/sim_swarm.hpp"

using namespace spilo;
using namespace spilo::testing;
using namespace std::chrono_literals;

namespace {

SimCluster::Options options(std::uint64_t seed) {
  SimCluster::Options chosen;
  chosen.seed = seed;
  chosen.timing = Timing{.ttl = 10s, .loop_wait = 2s, .retry_timeout = 4s};
  return chosen;
}

void check_clean(SimCluster& cluster) {
  for (const auto& text : cluster.world().violations()) FAIL_CHECK(text);
}

// Waits until a host other than `before` leads.
bool new_leader(SimCluster& cluster, std::size_t before, Duration at_most) {
  return cluster.world().run_until(
      [&] {
        const auto leader = cluster.leader();
        return leader && *leader != before;
      },
      at_most);
}

}  // namespace

TEST_CASE("cluster: three empty nodes become one primary and two standbys") {
  SimCluster cluster(options(1));
  cluster.start_all();
  CHECK_MESSAGE(cluster.run_until_healthy(30s), cluster.unhealthy());
  const auto promotions = cluster.promotions();
  cluster.world().run_for(60s);
  CHECK(cluster.unhealthy().empty());
  CHECK(cluster.promotions() == promotions);
  CHECK(cluster.commits().acknowledged_count() > 300);
  check_clean(cluster);
}

TEST_CASE("cluster: a frozen agent's server ends before another node leads, and rejoins") {
  SimCluster cluster(options(2));
  cluster.start_all();
  REQUIRE(cluster.run_until_healthy(30s));
  const auto old = *cluster.leader();
  cluster.freeze_agent(old, 60s);
  CHECK(new_leader(cluster, old, 20s));
  CHECK(cluster.guard(old).fired() == 1);
  CHECK(cluster.server(old).down());
  cluster.world().run_for(60s);
  CHECK_MESSAGE(cluster.run_until_healthy(30s), cluster.unhealthy());
  check_clean(cluster);
}

TEST_CASE("cluster: without its guard a frozen agent's server goes on, and the checker says so") {
  auto chosen = options(2);
  chosen.no_guard = true;
  SimCluster cluster(chosen);
  cluster.start_all();
  REQUIRE(cluster.run_until_healthy(30s));
  cluster.freeze_agent(*cluster.leader(), 60s);
  cluster.world().run_for(30s);
  REQUIRE(!cluster.world().violations().empty());
  CHECK(cluster.world().violations().front().find("while") != std::string::npos);
}

TEST_CASE("cluster: a primary whose guard can't be started again hands over to who has one") {
  SimCluster cluster(options(8));
  cluster.start_all();
  REQUIRE(cluster.run_until_healthy(30s));
  const auto old = *cluster.leader();
  const auto best = (old + 1) % cluster.size();
  cluster.guard((old + 2) % cluster.size()).broken = true;
  cluster.guard((old + 2) % cluster.size()).die();
  cluster.world().run_for(5s);
  cluster.commits().expect_all(cluster.server(old));
  cluster.guard(old).broken = true;
  cluster.guard(old).die();
  CHECK(cluster.world().run_until([&] { return cluster.leader() == best; }, 10s));
  cluster.world().run_for(60s);
  CHECK(cluster.leader() == best);
  CHECK_MESSAGE(cluster.unhealthy().empty(), cluster.unhealthy());
  check_clean(cluster);
}

TEST_CASE("cluster: where no guard starts anywhere, the primary goes on, and nobody takes over after it") {
  SimCluster cluster(options(9));
  cluster.start_all();
  REQUIRE(cluster.run_until_healthy(30s));
  const auto old = *cluster.leader();
  const auto promotions = cluster.promotions();
  for (std::size_t host = 0; host < cluster.size(); ++host) {
    cluster.guard(host).broken = true;
    cluster.guard(host).die();
  }
  cluster.world().run_for(2min);
  CHECK(cluster.leader() == old);
  CHECK(cluster.promotions() == promotions);
  // Not even a crash makes one without a guard the primary.
  cluster.server(old).kill("kill -9");
  cluster.world().run_for(60s);
  CHECK(!cluster.leader());
  CHECK(cluster.promotions() == promotions);
  cluster.heal();
  CHECK_MESSAGE(cluster.run_until_healthy(60s), cluster.unhealthy());
  check_clean(cluster);
}

TEST_CASE("cluster: an agent that is killed and comes back in time adopts the running server") {
  SimCluster cluster(options(3));
  cluster.start_all();
  REQUIRE(cluster.run_until_healthy(30s));
  const auto old = *cluster.leader();
  const auto promotions = cluster.promotions();
  cluster.restart_after = 1s;
  cluster.crash_agent(old);
  cluster.world().run_for(60s);
  CHECK(cluster.leader() == old);
  CHECK(cluster.promotions() == promotions);
  CHECK(cluster.guard(old).fired() == 0);
  CHECK(cluster.unhealthy().empty());
  check_clean(cluster);
}

TEST_CASE(
    "cluster: a store outage shorter than the lease costs nothing, a longer one only writes") {
  auto chosen = options(4);
  chosen.failsafe = false;
  SimCluster cluster(chosen);
  cluster.start_all();
  REQUIRE(cluster.run_until_healthy(30s));
  const auto promotions = cluster.promotions();
  cluster.dcs().set_down(SimDcs::Down::refusing);
  cluster.world().run_for(3s);
  cluster.dcs().set_down(SimDcs::Down::no);
  cluster.world().run_for(30s);
  CHECK(cluster.promotions() == promotions);
  CHECK(cluster.unhealthy().empty());
  cluster.dcs().set_down(SimDcs::Down::silent);
  cluster.world().run_for(30s);
  CHECK(!cluster.leader());
  cluster.dcs().set_down(SimDcs::Down::no);
  CHECK_MESSAGE(cluster.run_until_healthy(60s), cluster.unhealthy());
  check_clean(cluster);
}

TEST_CASE("cluster: with failsafe a store outage of two minutes leaves the primary alone") {
  SimCluster cluster(options(5));
  cluster.start_all();
  REQUIRE(cluster.run_until_healthy(30s));
  cluster.world().run_for(10s);
  const auto promotions = cluster.promotions();
  cluster.dcs().set_down(SimDcs::Down::refusing);
  cluster.world().run_for(2min);
  cluster.dcs().set_down(SimDcs::Down::no);
  CHECK_MESSAGE(cluster.run_until_healthy(60s), cluster.unhealthy());
  CHECK(cluster.promotions() == promotions);
  check_clean(cluster);
}

TEST_CASE("cluster: a raised ttl binds a member that has not read it, when it promises") {
  SimCluster cluster(options(7));
  cluster.start_all();
  REQUIRE(cluster.run_until_healthy(30s));
  cluster.world().run_for(10s);
  const auto first = *cluster.leader();
  const auto stale = (first + 1) % cluster.size();
  const auto promotions = cluster.promotions();
  // Listed in `failsafe` still, when the store goes silent for everybody.
  cluster.dcs().link(cluster.node(stale)).cut = true;
  auto config = *json::parse(cluster.dcs().peek(cluster.scope(), keys::config)->value);
  config.set("ttl", 30);
  cluster.dcs().put(cluster.scope(), keys::config, json::dump(config));
  cluster.world().run_for(2s);
  cluster.dcs().set_down(SimDcs::Down::silent);
  cluster.world().run_for(2min);
  CHECK(cluster.server(first).writable());
  check_clean(cluster);
  cluster.heal();
  CHECK_MESSAGE(cluster.run_until_healthy(60s), cluster.unhealthy());
  CHECK(cluster.promotions() == promotions);
  check_clean(cluster);
}

TEST_CASE("cluster: an operator restarts a primary that lives on promises, and it stays the primary") {
  SimCluster cluster(options(6));
  cluster.start_all();
  REQUIRE(cluster.run_until_healthy(30s));
  cluster.world().run_for(10s);
  const auto leader = *cluster.leader();
  cluster.dcs().set_down(SimDcs::Down::refusing);
  cluster.world().run_for(30s);
  ha::OperatorRequest restart;
  restart.kind = ha::OperatorRequest::Kind::restart;
  cluster.ask(leader, restart);
  cluster.world().run_for(30s);
  CHECK(cluster.server(leader).writable());
  CHECK(cluster.requests().answered_count() == 1);
  cluster.dcs().set_down(SimDcs::Down::no);
  CHECK_MESSAGE(cluster.run_until_healthy(60s), cluster.unhealthy());
  CHECK(cluster.leader() == leader);
  check_clean(cluster);
}

TEST_CASE("cluster: a promotion that nobody saw keeps its timeline's number to itself") {
  auto chosen = options(7);
  chosen.failsafe = false;
  SimCluster cluster(chosen);
  cluster.start_all();
  REQUIRE(cluster.run_until_healthy(30s));
  const auto first = *cluster.leader();
  cluster.restart_after = 0s;
  cluster.kill_host(first);
  // The moment the next one is promoted it is gone, before anybody has anything of its timeline.
  REQUIRE(new_leader(cluster, first, 60s));
  const auto second = *cluster.leader();
  const auto number = cluster.server(second).data().timeline();
  cluster.kill_host(second);
  const auto third = 3 - first - second;
  REQUIRE(cluster.world().run_until([&] { return cluster.leader() == third; }, 60s));
  CHECK(cluster.server(third).data().timeline() > number);
  cluster.restart_after = 1s;
  cluster.start_all();
  CHECK_MESSAGE(cluster.run_until_healthy(60s), cluster.unhealthy());
  check_clean(cluster);
}

// The leader's key is deleted by hand while the leader cannot hear the store; somebody else leads and falls.
// When the leader hears the store again there is no key, its session and its lease are good, and only the
// token tells that it is history.
std::vector<std::string> usurped(bool no_token_check) {
  auto chosen = options(8);
  chosen.timing = Timing{.ttl = 20s, .loop_wait = 1s, .retry_timeout = 8s};
  chosen.failsafe = false;
  chosen.plant.no_token_check = no_token_check;
  SimCluster cluster(chosen);
  cluster.start_all();
  REQUIRE(cluster.run_until_healthy(30s));
  const auto first = *cluster.leader();
  cluster.restart_after = 0s;
  cluster.truth().promises_broken_until = cluster.world().now() + 60s;
  cluster.dcs().link(cluster.node(first)).cut = true;
  for (std::size_t other = 0; other < cluster.size(); ++other)
    if (other != first) cluster.network().cut_both(first, other);
  cluster.dcs().erase(cluster.scope(), "leader");
  REQUIRE(new_leader(cluster, first, 10s));
  const auto second = *cluster.leader();
  cluster.crash_agent(3 - first - second);
  cluster.kill_host(second);
  cluster.dcs().expire_sessions(cluster.node(second));
  REQUIRE(cluster.server(first).writable());
  cluster.dcs().link(cluster.node(first)).cut = false;
  // Sound, it ends at once; neither its lease nor its guard has to do that.
  const auto period = cluster.server(first).period();
  cluster.world().run_for(1s);
  CHECK((cluster.server(first).period() == period) == no_token_check);
  CHECK(cluster.guard(first).fired() == 0);
  return cluster.world().violations();
}

TEST_CASE("plant no-token-check: an old primary takes the lock again after another one has led") {
  const auto sound = usurped(false);
  for (const auto& text : sound) FAIL_CHECK(text);
  const auto found = usurped(true);
  REQUIRE(!found.empty());
  CHECK_MESSAGE(found.front().starts_with("token: "), found.front());
}

TEST_CASE("swarm: a seed decides everything") {
  for (const std::uint64_t seed : {1u, 2u, 3u}) {
    const auto plan = draw_plan(seed, {}, Plant::none);
    const auto first = run_swarm(plan);
    CHECK(run_swarm(plan).hash == first.hash);
    std::size_t lines = 0;
    CHECK(run_swarm(plan, [&](std::string_view) { ++lines; }).hash == first.hash);
    CHECK(lines > 1000);
  }
}

TEST_CASE("swarm: some seeds, no violation") {
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    const auto plan = draw_plan(seed, {}, Plant::none);
    const auto report = run_swarm(plan);
    if (!report.failed()) continue;
    for (const auto& line : report.last_lines) MESSAGE(line);
    FAIL_CHECK(plan.text() << ": " << report.violations.front());
  }
}
