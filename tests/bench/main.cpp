// spilo-bench: the numbers that libspilo is to beat, measured on this machine, now.
//
//   spilo-bench --store etcd --rounds 5 --json figures.json
//   spilo-bench --store sqlite --only switchover,postmaster-kill
//   spilo-bench --store all        four stores one after the other, and a table of them in Markdown
//
// Starts everything itself, three nodes and the store's server, and measures what a client sees:
// the time between the last row that the old primary acknowledged and the first that the new one
// did. Absolute times drift on shared machines, so the floor is measured in the same run:
// PostgreSQL alone, without an agent, switched over and failed over by hand.
#include <fmt/format.h>
#include <stdlib.h>
#include <unistd.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <thread>

#include "bench.hpp"
#include "client.hpp"
#include "cluster.hpp"
#include "idle.hpp"
#include "postgres_alone.hpp"
#include "results.hpp"
#include "store_server.hpp"
#include "support/postgres.hpp"

namespace {

using namespace bench;
using spilo::json::Value;

struct Arguments {
  std::vector<std::string> stores = {"etcd"};
  int rounds = 5;
  int idle_seconds = 120;
  std::string json_file;
  std::vector<std::string> only;
  bool keep = false;
};

constexpr Timing default_timing{10, 2, 4};
constexpr Timing shortest_timing{3, 1, 1};
// A fresh cluster is not idle while autovacuum looks at its catalogs for the first time.
constexpr Timing idle_timing{30, 10, 10, false};

// What can be done to a node, and what is asked of the result.
struct Fault {
  const char* id;
  const char* title;
  const char* floor;  // empty: the target stands alone
  Target target;
  Timing timing;
  bool agent_ends;
  bool two_primaries_possible;  // the server outlives its agent for a while
  void (*inject)(Cluster&, int leader);
};

const std::vector<Fault>& faults() {
  static const std::vector<Fault> all = {
      {"switchover",
       "switchover",
       "floor-switchover",
       {2, 0},
       default_timing,
       false,
       false,
       [](Cluster& cluster, int leader) { cluster.switch_over(leader); }},
      {"orderly-stop",
       "agent of the primary stopped (SIGTERM)",
       "floor-switchover",
       {2, 0},
       default_timing,
       true,
       false,
       [](Cluster& cluster, int leader) { cluster.signal_agent(leader, SIGTERM); }},
      {"postmaster-kill",
       "postmaster killed, primary_start_timeout 0",
       "floor-postmaster-kill",
       {1, 250},
       default_timing,
       false,
       false,
       [](Cluster& cluster, int leader) { cluster.kill_postmaster(leader); }},
      {"node-kill-default",
       "node killed, ttl 10",
       "",
       {0, 10'300},
       default_timing,
       true,
       false,
       [](Cluster& cluster, int leader) { cluster.kill_node(leader); }},
      {"node-kill",
       "node killed, ttl 3",
       "",
       {0, 3'300},
       shortest_timing,
       true,
       false,
       [](Cluster& cluster, int leader) { cluster.kill_node(leader); }},
      {"agent-freeze",
       "agent frozen, server alive, ttl 3",
       "",
       {0, 3'300},
       shortest_timing,
       false,
       true,
       [](Cluster& cluster, int leader) { cluster.signal_agent(leader, SIGSTOP); }},
      {"agent-kill",
       "agent killed, server alive, ttl 3",
       "",
       {0, 3'300},
       shortest_timing,
       true,
       true,
       [](Cluster& cluster, int leader) { cluster.signal_agent(leader, SIGKILL); }},
  };
  return all;
}

std::vector<std::string> row_ids() {
  std::vector<std::string> out = {"floor-switchover", "floor-postmaster-kill"};
  for (const auto& fault : faults()) out.emplace_back(fault.id);
  out.emplace_back("idle");
  return out;
}

class Bench {
 public:
  Bench(const Arguments& arguments, std::string store, std::string programs, std::string directory)
      : arguments_(arguments),
        store_(std::move(store)),
        programs_(std::move(programs)),
        directory_(std::move(directory)) {
    declare_rows();
  }

  void run() {
    for (const auto& timing : {default_timing, shortest_timing}) measure_outages(timing);
    if (wanted("idle")) measure_idle();
  }
  const std::string& store() const noexcept { return store_; }
  const Results& results() const noexcept { return results_; }

 private:
  // A row that is compared with a floor needs it.
  bool wanted(const std::string& id) const {
    if (arguments_.only.empty()) return true;
    return std::any_of(arguments_.only.begin(), arguments_.only.end(), [&](const auto& name) {
      const auto fault = std::find_if(
          faults().begin(), faults().end(), [&](const Fault& f) { return name == f.id; });
      return name == id || (fault != faults().end() && fault->floor == id);
    });
  }

  void declare_rows() {
    results_.add({.id = "floor-switchover",
                  .title = "floor: PostgreSQL alone, fast stop and promotion",
                  .unit = "ms"});
    results_.add({.id = "floor-postmaster-kill",
                  .title = "floor: PostgreSQL alone, kill and promotion",
                  .unit = "ms"});
    for (const auto& fault : faults())
      results_.add({.id = fault.id,
                    .title = fault.title,
                    .unit = "ms",
                    .floor = fault.floor,
                    .target = target_of(fault)});
    for (const auto& fault : faults()) {
      const std::string id = fault.id;
      if (fault.two_primaries_possible)
        results_.add({.id = id + "-stale",
                      .title = "  " + id + ": rows by the old primary after",
                      .unit = "rows",
                      .target = Target{0, 0},
                      .judged_by_maximum = true});
      results_.add(
          {.id = id + "-lost",
           .title = "  " + id + ": acknowledged rows lost",
           .unit = "rows",
           .target = fault.two_primaries_possible || std::string(fault.floor) == "floor-switchover"
                         ? std::optional(Target{0, 0})
                         : std::nullopt,
           .judged_by_maximum = true});
    }
    const auto idle =
        [&](const char* id, const char* title, const char* unit, std::optional<double> most) {
          results_.add({.id = id,
                        .title = title,
                        .unit = unit,
                        .target = most ? std::optional(Target{0, *most}) : std::nullopt,
                        .judged_by_maximum = true});
        };
    idle("rss", "resident memory a node (RSS), guard included", "MiB", 12);
    idle("pss", "proportional memory a node (PSS)", "MiB", 7);
    idle("processes", "processes a node", "", 2);
    idle("threads", "threads a node, in all", "", 3);
    idle("cpu-leader", "CPU of the leader an idle minute, loop_wait 10", "ms", 10);
    idle("cpu-replica", "CPU of a replica an idle minute", "ms", 10);
    idle("store-calls", "store calls a node and idle minute, ttl 30", "", 7);
    idle("store-writes", "  of them writes", "", 0);
  }

  // A node that died with its lock is missed when the store says so: a Consul takes two ttls.
  Target target_of(const Fault& fault) const {
    auto target = fault.target;
    if (!fault.floor[0]) target.plus += (ttls_until_free(store_) - 1) * fault.timing.ttl * 1000.0;
    return target;
  }

  void note(const std::string& id, double value) {
    auto& row = results_.at(id);
    row.samples.push_back(value);
    row.loads.push_back(load_average());
  }

  void tell(const std::string& what, int round, const Outage& outage) const {
    std::fprintf(stderr,
                 "%s",
                 fmt::format("{:<24} {}/{}: {:.0f} ms{}{}\n",
                             what,
                             round,
                             arguments_.rounds,
                             outage.ms,
                             outage.lost > 0 ? fmt::format(", {} rows lost", outage.lost) : "",
                             outage.stale > 0 ? fmt::format(", {} STALE rows", outage.stale) : "")
                     .c_str());
  }

  void floor_round(PostgresAlone& alone,
                   const char* id,
                   void (PostgresAlone::*fail_over)(),
                   int round) {
    Client client(programs_ + "/spilo-writer", directory_, alone.conninfos());
    const int old = client.primary();
    (alone.*fail_over)();
    client.await_successor(old, std::chrono::seconds(60));
    const auto outage = client.outage(old);
    note(id, outage.ms);
    tell(id, round, outage);
    alone.rebuild();
  }

  void fault_round(Cluster& cluster, const Fault& fault, int round) {
    const std::string id = fault.id;
    int old = 0;
    {
      Client client(programs_ + "/spilo-writer", directory_, cluster.conninfos());
      old = client.primary();
      fault.inject(cluster, old);
      client.await_successor(old, std::chrono::seconds(60));
      const auto outage = client.outage(old);
      note(id, outage.ms);
      if (fault.two_primaries_possible) note(id + "-stale", static_cast<double>(outage.stale));
      note(id + "-lost", static_cast<double>(outage.lost));
      tell(id, round, outage);
    }
    cluster.repair(old, fault.agent_ends);
  }

  void measure_outages(const Timing& timing) {
    std::vector<Fault> chosen;
    bool floors = false;
    for (const auto& fault : faults()) {
      if (fault.timing.ttl != timing.ttl || !wanted(fault.id)) continue;
      chosen.push_back(fault);
    }
    const bool floor_switch = timing.ttl == default_timing.ttl && wanted("floor-switchover");
    const bool floor_kill = timing.ttl == default_timing.ttl && wanted("floor-postmaster-kill");
    floors = floor_switch || floor_kill;
    if (chosen.empty() && !floors) return;
    std::unique_ptr<PostgresAlone> alone;
    if (floors) alone = std::make_unique<PostgresAlone>(directory_ + "/alone");
    std::unique_ptr<Cluster> cluster;
    if (!chosen.empty()) cluster = make_cluster(timing);
    showing_logs(cluster.get(), [&] {
      for (int round = 1; round <= arguments_.rounds; ++round) {
        if (floor_switch)
          floor_round(*alone, "floor-switchover", &PostgresAlone::switch_over, round);
        if (floor_kill)
          floor_round(*alone, "floor-postmaster-kill", &PostgresAlone::kill_and_promote, round);
        for (const auto& fault : chosen) fault_round(*cluster, fault, round);
      }
    });
  }

  void measure_idle() {
    const auto cluster = make_cluster(idle_timing);
    std::fprintf(stderr, "idle: waiting for quiet, then %d s\n", arguments_.idle_seconds);
    showing_logs(cluster.get(), [&] {
      const auto figures = watch_idle(*cluster, std::chrono::seconds(arguments_.idle_seconds));
      for (const auto& node : figures.nodes) {
        note("rss", node.rss_mib);
        note("pss", node.pss_mib);
        note("processes", node.processes);
        note("threads", node.threads);
        note(node.leads ? "cpu-leader" : "cpu-replica", node.cpu_ms_per_minute);
      }
      if (!figures.calls) {
        std::fprintf(stderr, "idle: %s counts no calls\n", store_.c_str());
        return;
      }
      const auto per_node = [&](std::int64_t count) {
        return static_cast<double>(count) / 3 / figures.minutes;
      };
      note("store-calls", per_node(figures.calls->total));
      note("store-writes", per_node(figures.calls->writes));
      for (const auto& [method, count] : figures.calls->by_method)
        std::fprintf(stderr, "idle: %s %.1f a node and minute\n", method.c_str(), per_node(count));
    });
  }

  std::unique_ptr<Cluster> make_cluster(const Timing& timing) const {
    return std::make_unique<Cluster>(
        programs_, fmt::format("{}/ttl{}", directory_, timing.ttl), store_, timing);
  }

  // While the files are still there.
  template <class Work>
  void showing_logs(const Cluster* cluster, Work work) const {
    try {
      work();
    } catch (const Failure&) {
      if (cluster != nullptr && stop_asked == 0)
        std::fprintf(stderr, "%s", cluster->logs().c_str());
      throw;
    }
  }

  const Arguments& arguments_;
  std::string store_;
  std::string programs_;
  std::string directory_;
  Results results_;
};

std::string own_directory() {
  return std::filesystem::read_symlink("/proc/self/exe").parent_path().string();
}

void check_programs(const std::string& programs) {
  for (const char* name : {"spilod", "spilo-guard", "spilo-writer"})
    if (::access((programs + "/" + name).c_str(), X_OK) != 0)
      throw Failure(
          fmt::format("{}/{} can't be run by user id {}: build it (target spilo_bench), "
                      "in a directory that PostgreSQL's user may read",
                      programs,
                      name,
                      ::geteuid()));
}

Value as_json(const Arguments& arguments, const Bench& bench, double load_before) {
  auto document = Value::object();
  document.set("store", bench.store());
  document.set("rounds", arguments.rounds);
  document.set("idle_seconds", arguments.idle_seconds);
  document.set("cores", static_cast<int>(std::thread::hardware_concurrency()));
  document.set("load_before", load_before);
  document.set("load_after", load_average());
  document.set("rows", bench.results().as_json());
  return document;
}

// Whether it came to its end; else it was interrupted, and what it has is worth showing.
bool run_whole(Bench& bench) {
  try {
    bench.run();
    return true;
  } catch (const std::exception&) {
    // A terminal interrupts the client too, and that may be noticed first.
    if (stop_asked == 0) throw;
  } catch (const Interrupted&) {
  }
  return false;
}

int measure(const Arguments& arguments, std::ofstream& json) {
  const auto programs = own_directory();
  check_programs(programs);
  for (const auto& store : arguments.stores) check_store(store);
  std::string directory = "/tmp/spilo-bench-XXXXXX";
  if (::mkdtemp(directory.data()) == nullptr) throw Failure("no directory can be made in /tmp");
  // Removed after everything that lives in it has ended.
  const std::unique_ptr<std::string, std::function<void(std::string*)>> removal(
      &directory, [&](std::string* path) {
        std::error_code ignored;
        if (!arguments.keep) std::filesystem::remove_all(*path, ignored);
      });
  if (arguments.keep) std::fprintf(stderr, "everything is kept in %s\n", directory.c_str());
  std::vector<std::pair<std::string, Results>> measured;
  auto documents = Value::array();
  bool whole = true;
  for (std::size_t i = 0; i < arguments.stores.size() && whole; ++i) {
    const auto load_before = load_average();
    Bench bench(arguments, arguments.stores[i], programs, directory + "/" + arguments.stores[i]);
    whole = run_whole(bench);
    std::printf("three nodes on %s, %d rounds, %u cores, load %.2f before and %.2f after\n\n%s\n",
                bench.store().c_str(),
                arguments.rounds,
                std::thread::hardware_concurrency(),
                load_before,
                load_average(),
                bench.results().table().c_str());
    std::fflush(stdout);
    documents.push(as_json(arguments, bench, load_before));
    measured.emplace_back(bench.store(), bench.results());
  }
  if (measured.size() > 1) std::printf("%s", side_by_side(measured).c_str());
  if (json.is_open()) {
    const auto& all = *documents.as_array();
    const auto text = all.size() == 1 ? spilo::json::dump(all.front(), spilo::json::Style::pretty)
                                      : spilo::json::dump(documents, spilo::json::Style::pretty);
    json << text << "\n";
  }
  if (!whole) throw Interrupted();
  if (std::none_of(
          measured.begin(), measured.end(), [](const auto& one) { return one.second.unsafe(); }))
    return 0;
  std::fprintf(stderr, "spilo-bench: two primaries acknowledged rows\n");
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app(
      "Measures what a client of a three-node cluster notices of switchovers and failures, and "
      "what "
      "an idle node takes, beside the floor of PostgreSQL alone in the same run.",
      "spilo-bench");
  app.footer(
      "Exit status: 0 measured, whatever the figures; 1 something could not be measured; 2 two "
      "primaries acknowledged rows; 130 interrupted.");
  Arguments arguments;
  auto known = store_names();
  known.emplace_back("all");
  app.add_option("--store", arguments.stores, "The store that the nodes use; several: one by one")
      ->delimiter(',')
      ->check(CLI::IsMember(known))
      ->capture_default_str();
  app.add_option("--rounds", arguments.rounds, "How often each outage is measured")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--idle-seconds", arguments.idle_seconds, "How long the idle nodes are watched")
      ->check(CLI::Range(1, 86'400))
      ->capture_default_str();
  app.add_option("--json", arguments.json_file, "Also write every sample to this file");
  app.add_option("--only", arguments.only, "Rows to measure, with the floor they need")
      ->delimiter(',')
      ->check(CLI::IsMember(row_ids()));
  app.add_flag("--keep", arguments.keep, "Keep logs and data directories");
  CLI11_PARSE(app, argc, argv);
  if (std::ranges::find(arguments.stores, "all") != arguments.stores.end())
    arguments.stores = store_names();

  struct sigaction stop {};
  stop.sa_handler = [](int) { stop_asked = 1; };
  ::sigaction(SIGTERM, &stop, nullptr);
  ::sigaction(SIGINT, &stop, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  spilo::test::logs_with_exceptions = false;
  try {
    // Opened as whoever called us, who may not be PostgreSQL's user.
    std::ofstream json;
    if (!arguments.json_file.empty()) json.open(arguments.json_file);
    if (!arguments.json_file.empty() && !json) throw Failure("can't write " + arguments.json_file);
    if (!spilo::test::become_unprivileged())
      throw Failure("running as root, and neither user postgres nor nobody can be taken on");
    return measure(arguments, json);
  } catch (const Interrupted&) {
    std::fprintf(stderr, "spilo-bench: interrupted\n");
    return 130;
  } catch (const std::exception& problem) {
    std::fprintf(stderr, "spilo-bench: %s\n", problem.what());
    return 1;
  }
}
