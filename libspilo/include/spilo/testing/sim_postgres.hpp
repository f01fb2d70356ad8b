// The Postgres port over a SimServer: one for each life of an agent. What the agent itself has to
// do step by step (the ladder of a rejoin, say) happens on its node and stops when it is frozen or
// crashes; what the server does goes on without it.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "spilo/ports/postgres.hpp"
#include "spilo/testing/sim_server.hpp"

namespace spilo::testing {

class SimPostgres final : public Postgres {
 public:
  // Destroy it only after the node has crashed or everything started on it has completed.
  SimPostgres(SimWorld& world, NodeId node, SimServers& servers, SimServer& server);
  ~SimPostgres() override;
  SimPostgres(const SimPostgres&) = delete;
  SimPostgres& operator=(const SimPostgres&) = delete;

  Async<NodeView> observe(TimePoint deadline) override;
  Async<void> perform(ha::Task task) override;
  Async<void> sync_slots(std::vector<std::string> wanted,
                         std::vector<std::pair<std::string, Lsn>> positions,
                         TimePoint deadline) override;
  void configure(const DynamicConfig& config) override { config_ = config; }
  void may_write_until(TimePoint until) override { may_write_until_ = until; }
  Result<void> kill_now() override;
  void on_change(std::function<void()> wake) override;
  std::string progress() const override { return doing_; }
  void run_callback(std::string action, std::string role) override;

  const DynamicConfig& config() const noexcept { return config_; }

 private:
  using Step = std::function<void(SimServer::Done)>;
  Async<void> step(Step begin, Duration limit, std::string what);
  Async<void> perform_unguarded(ha::Task task);
  Async<void> bootstrap();
  Async<void> copy(ha::Task task);
  Async<void> start(ha::Task task);
  Async<void> stop(ha::Task task);
  Async<void> restart(ha::Task task);
  Async<void> rejoin(ha::Task task);
  Async<void> launch_standby(ha::Task task);
  Async<void> launch_primary(Duration limit, std::string what);
  Result<void> may_write(std::string_view what) const;
  SimServer* upstream(const ha::Task& task) const;

  SimWorld& world_;
  NodeId node_;
  SimServers& servers_;
  SimServer& server_;
  Rng rng_;
  DynamicConfig config_;
  std::string doing_;
  bool busy_ = false;
  TimePoint may_write_until_ = TimePoint::max();
};

}  // namespace spilo::testing
