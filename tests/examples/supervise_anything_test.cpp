// examples/supervise_anything: a program that is not PostgreSQL runs on one node at a time,
// whatever happens to it and to its agents.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <filesystem>
#include <fstream>

#include "example.hpp"

using namespace spilo::test;
using namespace std::chrono_literals;

namespace {

struct Tick {
  std::string node;
  pid_t pid = 0;
};

// The supervised program writes a line "NODE PID" into one file for all, again and again. SIGTERM
// ends it in order.
class World {
 public:
  std::unique_ptr<Process> start_agent(const std::string& name) {
    std::filesystem::create_directory(folder_ / name);
    const auto script = fmt::format(
        "trap 'echo {0} stopped >> {1}; exit 0' TERM; "
        "while :; do echo {0} $$ >> {1}; sleep 0.02; done",
        name,
        folder_ / "ticks");
    std::vector<std::string> command = {SUPERVISE_ANYTHING_PROGRAM,
                                        "sqlite://" + folder_ / "store.db",
                                        "demo",
                                        name,
                                        folder_ / name,
                                        "/bin/sh",
                                        "-c",
                                        script};
    return std::make_unique<Process>(std::move(command), folder_ / (name + ".log"));
  }

  std::vector<Tick> ticks() const {
    std::vector<Tick> all;
    std::ifstream in(folder_ / "ticks");
    std::string node, word;
    while (in >> node >> word)
      if (word != "stopped") all.push_back({node, static_cast<pid_t>(std::stol(word))});
    return all;
  }
  Tick last() const {
    const auto all = ticks();
    return all.empty() ? Tick{} : all.back();
  }
  bool wait_for_tick_of(const std::string& node, std::chrono::seconds limit = 30s) const {
    return wait_until([&] { return last().node == node; }, limit);
  }
  // Who ran, one after the other: two that run at the same time would show as a long list.
  std::vector<std::string> order() const {
    std::vector<std::string> names;
    for (const auto& tick : ticks())
      if (names.empty() || names.back() != tick.node) names.push_back(tick.node);
    return names;
  }
  bool stopped_in_order(const std::string& node) const {
    std::ifstream in(folder_ / "ticks");
    const std::string text(std::istreambuf_iterator<char>(in), {});
    return text.find(node + " stopped\n") != std::string::npos;
  }

 private:
  TempDir folder_;
};

bool exists(pid_t pid) {
  return ::kill(pid, 0) == 0;
}

}  // namespace

TEST_CASE("supervise_anything: one node at a time runs the program") {
  World world;
  auto n1 = world.start_agent("n1");
  REQUIRE(world.wait_for_tick_of("n1"));
  wait_for_text(*n1, "reload done");
  auto n2 = world.start_agent("n2");
  wait_for_text(*n2, "a secondary, and following a leader (n1)");

  // The program is killed: it is started again, on the same node.
  const auto first = world.last();
  ::kill(first.pid, SIGKILL);
  REQUIRE(wait_until([&] { return world.last().pid != first.pid; }, 30s));
  CHECK(world.last().node == "n1");

  // Its agent is frozen: the keeper ends it before the other node may start its own.
  const auto second = world.last();
  n1->freeze();
  REQUIRE(world.wait_for_tick_of("n2"));
  CHECK_FALSE(exists(second.pid));
  n1->signal(SIGCONT);
  wait_for_text(*n1, "a secondary, and following a leader (n2)");

  // Its agent is killed: the same.
  const auto third = world.last();
  n2->end(SIGKILL);
  REQUIRE(world.wait_for_tick_of("n1"));
  CHECK_FALSE(exists(third.pid));

  // A new agent on that node joins again. The leader is stopped in order: its program ends first,
  // and the other one takes over without waiting for any lease.
  n2 = world.start_agent("n2");
  REQUIRE(wait_until(
      [&] {
        return n2->log().rfind("a secondary, and following a leader (n1)") >
               n2->log().rfind("waiting for the store");
      },
      30s));
  n1->signal(SIGTERM);
  REQUIRE(n1->wait(30s));
  CHECK(n1->status() == 0);
  CHECK(world.stopped_in_order("n1"));
  REQUIRE(world.wait_for_tick_of("n2"));
  CHECK(world.order() == std::vector<std::string>{"n1", "n2", "n1", "n2"});
  n2->signal(SIGTERM);
  REQUIRE(n2->wait(30s));
  CHECK(world.stopped_in_order("n2"));
}

TEST_CASE("supervise_anything: an agent that comes back does not run the program twice") {
  World world;
  auto agent = world.start_agent("n1");
  REQUIRE(world.wait_for_tick_of("n1"));
  wait_for_text(*agent, "reload done");  // the cluster exists
  const auto before = world.last();
  agent->end(SIGKILL);
  agent = world.start_agent("n1");
  REQUIRE(wait_until([&] { return world.last().pid != before.pid; }, 30s));
  CHECK_FALSE(exists(before.pid));
  // Never the old one again after the new one.
  std::vector<pid_t> pids;
  for (const auto& tick : world.ticks())
    if (pids.empty() || pids.back() != tick.pid) pids.push_back(tick.pid);
  CHECK(pids.size() == 2);
  agent->signal(SIGTERM);
  REQUIRE(agent->wait(30s));
  CHECK(world.stopped_in_order("n1"));
}
