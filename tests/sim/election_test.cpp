#include "spilo/runtime/election.hpp"

#include <doctest/doctest.h>

#include <boost/asio/co_spawn.hpp>
#include <memory>
#include <vector>

#include "spilo/testing/sim_dcs.hpp"

using namespace spilo;
using namespace spilo::testing;
using namespace std::chrono_literals;
namespace asio = boost::asio;

namespace {

// One candidate: its election on its own simulated process, and what it was told, in order.
struct Candidate {
  Candidate(SimWorld& world, SimDcs& dcs, const std::string& name, NodeId id)
      : node(id), store(dcs, id, Scope("batman")) {
    Election::Options options;
    options.self = NodeName(name);
    options.ttl = 6s;
    Election::Listener listener;
    listener.acquired = [this](std::uint64_t token) {
      CHECK_FALSE(leading);  // every grant is lost before the next
      CHECK(token > last_token);
      leading = true;
      last_token = token;
      told.push_back("acquired");
    };
    listener.at_risk = [this](TimePoint) {
      CHECK(leading);
      told.push_back("at_risk");
    };
    listener.lost = [this](std::uint64_t token, std::string) {
      CHECK(leading);
      CHECK(token == last_token);
      leading = false;
      told.push_back("lost");
    };
    election =
        std::make_unique<Election>(world.executor(id), store, world.clock(id), options, listener);
    asio::co_spawn(world.executor(id),
                   election->run(),
                   [this](std::exception_ptr failure, Result<void> result) {
                     if (failure) std::rethrow_exception(failure);
                     CHECK(result.has_value());
                     ended = true;
                   });
  }
  NodeId node;
  SimStore store;
  std::unique_ptr<Election> election;
  std::vector<std::string> told;
  std::uint64_t last_token = 0;
  bool leading = false;
  bool ended = false;
};

struct World {
  explicit World(std::uint64_t seed, int size = 3) : world(seed), dcs(world, drifting()) {
    for (int i = 1; i <= size; ++i) {
      const auto name = "n" + std::to_string(i);
      nodes.push_back(world.add_node(name));
    }
    for (std::size_t i = 0; i < nodes.size(); ++i)
      candidates.push_back(
          std::make_unique<Candidate>(world, dcs, "n" + std::to_string(i + 1), nodes[i]));
  }
  ~World() {
    for (const auto node : nodes) world.crash(node);
  }
  static SimDcs::Options drifting() {
    SimDcs::Options options;
    options.drift_allowance_ppm = 5000;  // well below the election's margin: 100 ms of 6 s
    return options;
  }
  // Asked without I/O, by each process's own clock: also by one that is frozen just now.
  std::size_t holders() const {
    std::size_t count = 0;
    for (const auto& candidate : candidates) count += candidate->election->still_held() ? 1 : 0;
    return count;
  }
  Candidate* leader() const {
    for (const auto& candidate : candidates)
      if (candidate->election->still_held()) return candidate.get();
    return nullptr;
  }
  bool settle(Duration at_most = 60s) {
    return world.run_until([&] { return holders() == 1; }, at_most);
  }
  SimWorld world;
  SimDcs dcs;
  std::vector<NodeId> nodes;
  std::vector<std::unique_ptr<Candidate>> candidates;
};

}  // namespace

TEST_CASE("election: one leads, and a frozen leader is followed within its ttl and a bit") {
  World w(1);
  REQUIRE(w.settle());
  auto* first = w.leader();
  w.world.pause(first->node, 60s);
  const auto frozen = w.world.now();
  REQUIRE(w.world.run_until([&] { return w.leader() != nullptr && w.leader() != first; }, 30s));
  CHECK(w.world.now() - frozen <= 6s + 1s);
  // It finds out by itself when it wakes, before it could be asked anything else.
  CHECK_FALSE(first->election->still_held());
  w.world.run_for(90s);
  CHECK(first->told.back() == "lost");
  CHECK(w.holders() == 1);
}

TEST_CASE("election: a lease that is not renewed is announced before it ends") {
  World w(2);
  REQUIRE(w.settle());
  auto* leader = w.leader();
  w.dcs.set_down(SimDcs::Down::silent);
  const auto deadline = leader->election->deadline();
  REQUIRE(w.world.run_until([&] { return leader->told.back() == "at_risk"; }, 10s));
  CHECK(w.world.now() < deadline);
  REQUIRE(w.world.run_until([&] { return leader->told.back() == "lost"; }, 10s));
  w.dcs.set_down(SimDcs::Down::no);
  CHECK(w.settle());
}

TEST_CASE("election: resigning frees the key at once, is idempotent, and keeps away for a while") {
  World w(3);
  REQUIRE(w.settle());
  auto* leader = w.leader();
  const auto token = leader->last_token;
  std::vector<Released> answers;
  const auto resign = [&] {
    asio::co_spawn(w.world.executor(leader->node),
                   leader->election->resign(w.world.now() + 2s),
                   [&](std::exception_ptr failure, Released released) {
                     if (failure) std::rethrow_exception(failure);
                     answers.push_back(released);
                   });
  };
  resign();
  REQUIRE(w.world.run_until([&] { return answers.size() == 1; }, 5s));
  CHECK(answers[0] == Released::yes);
  CHECK(leader->told.back() == "lost");
  REQUIRE(w.settle(3s));
  CHECK(w.leader() != leader);
  CHECK(w.leader()->last_token > token);
  resign();
  REQUIRE(w.world.run_until([&] { return answers.size() == 2; }, 5s));
  CHECK(answers[1] == Released::yes);
  w.dcs.set_down(SimDcs::Down::silent);
  resign();
  REQUIRE(w.world.run_until([&] { return answers.size() == 3; }, 5s));
  CHECK(answers[2] == Released::maybe);
}

TEST_CASE("election: a ttl outside the store's limits is refused with both limits") {
  SimWorld world(4);
  const auto node = world.add_node("n1");
  SimDcs dcs(world);
  SimStore store(dcs, node, Scope("batman"));
  Election::Options options;
  options.self = NodeName("n1");
  options.ttl = 10ms;
  Election::Listener listener;
  listener.acquired = [](std::uint64_t) {};
  listener.at_risk = [](TimePoint) {};
  listener.lost = [](std::uint64_t, std::string) {};
  Election election(world.executor(node), store, world.clock(node), options, listener);
  std::optional<Result<void>> result;
  asio::co_spawn(world.executor(node), election.run(), [&](std::exception_ptr, Result<void> r) {
    result = r;
  });
  world.run_for(1s);
  REQUIRE(result.has_value());
  CHECK(result->error().is(errc::invalid_argument));
  CHECK(result->error().detail().find("10 ms") != std::string::npos);
}

TEST_CASE("election: never two at a time, whatever happens; and one again after it is over") {
  for (std::uint64_t seed = 100; seed < 160; ++seed) {
    CAPTURE(seed);
    World w(seed);
    auto& rng = w.world.rng();
    for (const auto node : w.nodes)
      w.world.clock(node).set_drift(static_cast<int>(rng.below(4000)) - 2000);
    const auto end = w.world.now() + 10min;
    auto next_fault = w.world.now() + 5s;
    while (w.world.now() < end && w.world.step()) {
      REQUIRE(w.holders() <= 1);
      if (w.world.now() < next_fault) continue;
      next_fault = w.world.now() + std::chrono::milliseconds(500 + rng.below(8000));
      const auto node = w.nodes[rng.below(w.nodes.size())];
      switch (rng.below(7)) {
        case 0:
          w.world.pause(node, std::chrono::milliseconds(rng.below(15000)));
          break;
        case 1:
          w.dcs.link(node).cut = true;
          break;
        case 2:
          w.dcs.link(node).lose_answer_permille = 300;
          break;
        case 3:
          w.dcs.link(node).refuse_permille = 300;
          break;
        case 4:
          w.dcs.set_down(rng.below(2) == 0 ? SimDcs::Down::silent : SimDcs::Down::refusing);
          break;
        default:
          w.dcs.heal_links();
          w.dcs.set_down(SimDcs::Down::no);
      }
    }
    w.dcs.heal_links();
    w.dcs.set_down(SimDcs::Down::no);
    for (const auto node : w.nodes) w.world.resume(node);
    REQUIRE(w.settle(30s));
    REQUIRE(w.world.violations().empty());
  }
}
