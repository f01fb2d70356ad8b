// What users of the installed library might write first: an election on the simulated store, a
// write to a real one, and a node. The simplest needs the least of the library, the last one all of
// it.
#include <fmt/format.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <exception>
#include <string>

#include "spilo/config/load.hpp"
#include "spilo/guard/process_guard.hpp"
#include "spilo/node/node.hpp"
#include "spilo/open_store.hpp"
#include "spilo/runtime/election.hpp"
#include "spilo/runtime/system_clock.hpp"
#include "spilo/testing/sim_dcs.hpp"

using namespace spilo;
using namespace std::chrono_literals;

namespace {

void rethrow(std::exception_ptr failure) {
  if (failure) std::rethrow_exception(failure);
}

std::string elect() {
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
  boost::asio::co_spawn(world.executor(node),
                        election.run(),
                        [](std::exception_ptr failure, Result<void>) { rethrow(failure); });
  world.run_until([&] { return won; }, 30s);
  world.crash(node);
  return won ? "n1 leads with a token" : "nobody leads";
}

boost::asio::awaitable<void> write_and_read(dcs::Store& store, Clock& clock, std::string& text) {
  dcs::Transaction change;
  change.require("config", dcs::Condition::absent()).put("config", "{}");
  const auto written = co_await store.commit(std::move(change), clock.now() + 10s);
  const auto seen = co_await store.read(dcs::Freshness::linearizable, clock.now() + 10s);
  text = written.has_error()                   ? written.error().text()
         : seen.has_error()                    ? seen.error().text()
         : seen->find("config")->value == "{}" ? "wrote and read"
                                               : "read something else";
}

std::string use_store(const std::string& file) {
  boost::asio::io_context io(1);
  SystemClock clock(io.get_executor());
  StoreRequest request;
  request.options = *config::parse_store_url("sqlite://" + file);
  request.options.scope = Scope("demo");
  auto opened = open_store(io.get_executor(), clock, request);
  if (opened.has_error()) return opened.error().text();
  std::string text;
  boost::asio::co_spawn(io, write_and_read(*opened->store, clock, text), rethrow);
  io.run();
  return text;
}

std::string make_node() {
  boost::asio::io_context io(1);
  SystemClock clock(io.get_executor());
  config::Config configuration;
  configuration.identity.node = NodeName("n1");
  Node node(io.get_executor(), clock, std::move(configuration), Logger());
  return "a node named " + node.config().identity.node.str();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const auto guard = find_guard_program();
  fmt::print("{}\nsqlite: {}\n{}\nguard: {}\n",
             elect(),
             use_store(argv[1]),
             make_node(),
             guard.has_value() ? *guard : guard.error().text());
  return 0;
}
