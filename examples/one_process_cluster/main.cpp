// one_process_cluster: a whole cluster in one process, on virtual time. No server, no port, no
// file, and a minute of the cluster's life passes in a blink.
//
//   one_process_cluster          seed 1
//   one_process_cluster 42       another seed: other delays, another order, perhaps another winner
//
// Three nodes run the real Supervisor, the code that spilod runs, over simulated stores, servers,
// guards and networks (spilo::testing). The program lets things happen to them, prints a time line,
// and says at the end whether any rule was broken. Equal seeds give equal time lines, to the last
// digit: that is how to test a program of your own that embeds libspilo.
#include <fmt/format.h>

#include <cstdlib>
#include <optional>
#include <string>

#include "spilo/testing/sim_cluster.hpp"

namespace {

using namespace spilo::testing;
using namespace std::chrono_literals;
using spilo::Duration;

class TimeLine {
 public:
  explicit TimeLine(SimCluster& cluster) : cluster_(cluster) {}

  void say(const std::string& text) {
    const std::chrono::duration<double> now = cluster_.world().now().time_since_epoch();
    fmt::print("{:8.3f} s  {}\n", now.count(), text);
  }

  // Lets the world go on and tells who leads, each time that changes, until `done`.
  template <class Condition>
  bool watch(Condition done, Duration at_most) {
    return cluster_.world().run_until(
        [&] {
          tell_leader();
          return done();
        },
        at_most);
  }

  // Until one node leads, the others stream from it and clients commit.
  bool watch_until_healthy() {
    const bool good = watch([&] { return cluster_.unhealthy().empty(); }, 120s);
    say(good ? fmt::format("healthy: {} rows committed so far",
                           cluster_.commits().acknowledged_count())
             : "still not healthy: " + cluster_.unhealthy());
    return good;
  }

 private:
  void tell_leader() {
    const auto leader = cluster_.leader();
    if (leader == last_) return;
    last_ = leader;
    if (!leader) return say("nobody leads");
    say(fmt::format("{} leads, on timeline {}",
                    cluster_.name(*leader),
                    spilo::to_int(cluster_.server(*leader).data().timeline())));
  }

  SimCluster& cluster_;
  std::optional<std::size_t> last_;
};

// Runs the cluster until somebody other than `before` leads it and all is well again.
bool recover(SimCluster& cluster, TimeLine& line, std::size_t before) {
  const auto another_leads = [&] { return cluster.leader() && cluster.leader() != before; };
  return line.watch(another_leads, 60s) && line.watch_until_healthy();
}

bool live(SimCluster& cluster, TimeLine& line) {
  line.say("three nodes start, with empty data directories");
  cluster.start_all();
  if (!line.watch_until_healthy()) return false;
  cluster.world().run_for(5s);

  auto leader = *cluster.leader();
  line.say(fmt::format("{}: power lost; it comes back after 20 s", cluster.name(leader)));
  cluster.restart_after = 20s;
  cluster.kill_host(leader);
  if (!recover(cluster, line, leader)) return false;

  leader = *cluster.leader();
  line.say(
      fmt::format("{}: its agent freezes for 20 s, its server does not", cluster.name(leader)));
  cluster.freeze_agent(leader, 20s);
  const auto ended = [&] { return !cluster.server(leader).writable(); };
  if (!line.watch(ended, 20s)) return false;
  line.say(fmt::format("{}: its guard has ended the server", cluster.name(leader)));
  if (!recover(cluster, line, leader)) return false;

  leader = *cluster.leader();
  line.say("an operator asks for a switchover");
  cluster.request_switchover(cluster.name(leader), "");
  return recover(cluster, line, leader);
}

}  // namespace

int main(int argc, char** argv) {
  SimCluster::Options options;
  options.seed = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 1;
  options.timing = {.ttl = 10s, .loop_wait = 2s, .retry_timeout = 4s};
  SimCluster cluster(options);
  TimeLine line(cluster);

  const bool good = live(cluster, line);
  const auto& broken = cluster.world().violations();
  for (const auto& rule : broken) fmt::print("broken: {}\n", rule);
  // Replication is asynchronous here: what no standby had received is lost with its only copy.
  fmt::print("seed {}: {} promotions, {} rows lost, {} rules broken, run {:016x}\n",
             options.seed,
             cluster.promotions(),
             cluster.commits().lost_count(),
             broken.size(),
             cluster.world().hash());
  return good && broken.empty() ? 0 : 1;
}
