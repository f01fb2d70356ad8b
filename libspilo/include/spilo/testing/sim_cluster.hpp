// A whole cluster in virtual time: for each node a host with a simulated PostgreSQL and its guard,
// and an agent that is the real Supervisor over simulated ports. Clients commit rows through
// whatever server accepts them, and the checkers watch.
//
//   SimCluster cluster(SimCluster::Options{.seed = 42, .nodes = 3});
//   cluster.start_all();
//   cluster.run_until_healthy(60s);
//   cluster.crash_agent(0);                    // kill -9 of the agent; its server and guard live
//   on cluster.world().run_for(30s); for (const auto& text : cluster.world().violations()) …
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "spilo/runtime/supervisor.hpp"
#include "spilo/testing/checkers.hpp"
#include "spilo/testing/sim_dcs.hpp"
#include "spilo/testing/sim_guard.hpp"
#include "spilo/testing/sim_network.hpp"
#include "spilo/testing/sim_peers.hpp"
#include "spilo/testing/sim_postgres.hpp"
#include "spilo/testing/sim_server.hpp"
#include "spilo/testing/sim_world.hpp"

namespace spilo::testing {

class SimCluster {
 public:
  struct Options {
    std::uint64_t seed = 1;
    std::size_t nodes = 3;
    Timing timing;
    bool failsafe = true;
    bool check_timeline = true;
    Duration primary_start_timeout = std::chrono::seconds(300);
    std::int64_t maximum_lag_on_failover = 1 << 20;
    bool wait_for_all_standbys = false;  // every commit: then none may ever be lost
    Duration commit_interval = std::chrono::milliseconds(100);  // zero: no clients
    int drift_ppm_max = 0;  // each host's clock is wrong by up to this
    bool store_ttl_is_fixed = false;
    int ttl_factor_max = 1;  // so far may an operator raise the ttl while the cluster runs
    int store_drift_ppm = 0;
    ha::Identity::Plant plant;
    bool no_guard = false;
    std::vector<int> failover_priority;  // by node; 1 where there is none
  };

  explicit SimCluster(Options options);
  ~SimCluster();
  SimCluster(const SimCluster&) = delete;
  SimCluster& operator=(const SimCluster&) = delete;

  SimWorld& world() noexcept { return world_; }
  SimDcs& dcs() noexcept { return dcs_; }
  SimNetwork& network() noexcept { return network_; }
  const Options& options() const noexcept { return options_; }
  std::size_t size() const noexcept { return hosts_.size(); }
  SimServer& server(std::size_t host) { return *hosts_.at(host)->server; }
  SimGuard& guard(std::size_t host) { return *hosts_.at(host)->guard; }
  NodeId node(std::size_t host) const { return hosts_.at(host)->node; }
  const std::string& name(std::size_t host) const { return world_.name(node(host)); }
  const Scope& scope() const noexcept { return truth_.scope; }
  Truth& truth() noexcept { return truth_; }
  LostCommitChecker& commits() noexcept { return commits_; }
  RequestChecker& requests() noexcept { return requests_; }

  // ---- agents ----
  bool agent_runs(std::size_t host) const { return hosts_.at(host)->agent != nullptr; }
  bool agent_stops() const;  // some agent was told to stop, and has not ended yet
  void start_agent(std::size_t host);
  void start_all();
  void crash_agent(std::size_t host);  // kill -9; server and guard go on
  void stop_agent(std::size_t host);   // in order, as SIGTERM asks; it ends by itself
  void freeze_agent(std::size_t host, Duration how_long) { world_.pause(node(host), how_long); }
  void kill_host(std::size_t host);  // power off: agent, server and guard at once
  // An agent that has ended, however, is started again this much later. Zero: it stays down.
  Duration restart_after = std::chrono::seconds(1);
  std::optional<int> exit_status(std::size_t host) const { return hosts_.at(host)->exit_status; }

  // ---- operators ----
  void ask(std::size_t host, ha::OperatorRequest request);
  // Writes the request into the store, as `spiloctl switchover` does. Empty candidate: anyone.
  void request_switchover(const std::string& leader, const std::string& candidate);

  // ---- how it is ----
  // The host whose server is writable and whose name the lock carries.
  std::optional<std::size_t> leader() const;
  // Empty when one node leads, all others stream from it (or from one that does) and clients
  // commit; otherwise what is missing.
  std::string unhealthy() const;
  bool run_until_healthy(Duration at_most);
  std::uint64_t steps() const noexcept { return steps_; }
  std::uint64_t rows() const noexcept { return next_row_ - 1; }
  std::uint64_t promotions() const noexcept { return counter_.writable; }
  // Every fault that was switched on through dcs(), network() and server(i).faults is taken back;
  // what is down is started.
  void heal();

 private:
  struct Agent;
  struct Host {
    NodeId node{};
    SimServer* server = nullptr;
    std::unique_ptr<SimGuard> guard;
    std::unique_ptr<Agent> agent;
    std::uint64_t life = 0;
    bool stops = false;  // the agent was told to stop
    std::optional<int> exit_status;
  };
  struct Counter final : ServerWatcher {
    void became_writable(SimServer&) override { ++writable; }
    std::uint64_t writable = 0;
  };

  ha::Identity identity(std::size_t host) const;
  void agent_ended(std::size_t host, std::uint64_t life, int status);
  void schedule_restart(std::size_t host);
  void clients();
  void after_step(std::size_t host,
                  const ha::Machine& machine,
                  std::string_view event,
                  const ha::Decision& decision);

  Options options_;
  SimWorld world_;
  SimNetwork network_;
  SimDcs dcs_;
  Truth truth_;
  SplitBrainChecker split_brain_;
  TokenChecker token_;
  PromotionChecker promotion_;
  LostCommitChecker commits_;
  DivergenceChecker divergence_;
  LeaseChecker lease_;
  FailsafeChecker failsafe_;
  RequestChecker requests_;
  Counter counter_;
  WatcherList watchers_;
  SimServers servers_;
  SimPhoneBook book_;
  std::vector<std::unique_ptr<Host>> hosts_;
  Rng rng_;
  std::uint64_t next_row_ = 1;
  std::uint64_t next_request_ = 1;
  std::uint64_t steps_ = 0;
};

}  // namespace spilo::testing
