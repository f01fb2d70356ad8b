// What a user of the installed library might write first: an election on the simulated store.
#include <boost/asio/co_spawn.hpp>
#include <cstdio>
#include <exception>

#include "spilo/runtime/election.hpp"
#include "spilo/testing/sim_dcs.hpp"

int main() {
  using namespace spilo;
  testing::SimWorld world(1);
  const auto node = world.add_node("n1");
  testing::SimDcs dcs(world);
  testing::SimStore store(dcs, node, Scope("demo"));
  Election::Options options;
  options.self = NodeName("n1");
  Election::Listener listener;
  bool won = false;
  listener.acquired = [&](std::uint64_t token) { won = token > 0; };
  listener.at_risk = [](TimePoint) {};
  listener.lost = [](std::uint64_t, std::string) {};
  Election election(world.executor(node), store, world.clock(node), options, listener);
  boost::asio::co_spawn(world.executor(node), election.run(), [](std::exception_ptr failure, Result<void>) {
    if (failure) std::rethrow_exception(failure);
  });
  world.run_until([&] { return won; }, std::chrono::seconds(30));
  world.crash(node);
  std::puts(won ? "n1 leads with a token" : "nobody leads");
  return won ? 0 : 1;
}
