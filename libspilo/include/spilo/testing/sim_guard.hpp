// The Guard port, and the guard itself: a process of its own beside one simulated server. It goes
// on while its agent is frozen or crashed, and ends the server when its deadline passes by the
// host's boot clock.
#pragma once

#include <functional>
#include <optional>

#include "spilo/ports/guard.hpp"
#include "spilo/testing/sim_server.hpp"

namespace spilo::testing {

class SimGuard final : public Guard {
 public:
  // `agent` is the node whose clock and executor are meant. With `absent` it promises everything
  // and does nothing: what a checker must find.
  SimGuard(SimWorld& world, NodeId agent, SimServer& server, bool absent = false);
  SimGuard(const SimGuard&) = delete;
  SimGuard& operator=(const SimGuard&) = delete;

  Result<void> ensure() override;
  Result<void> hold_until(TimePoint deadline) override;
  Result<void> stand_down() override;
  bool alive() const noexcept override { return alive_; }
  void on_death(std::function<void()> wake) override { wake_ = std::move(wake); }

  // The agent is gone; the guard stays, deadline and all.
  void forget_agent() { wake_ = {}; }
  // The guard's process ends; its deadline ends with it.
  void die();
  // By the host's clock; none: standing down.
  std::optional<TimePoint> deadline() const noexcept { return deadline_; }
  Duration kill_max = std::chrono::milliseconds(150);  // how long a hard stop takes
  std::uint64_t fired() const noexcept { return fired_; }

 private:
  void cancel();

  SimWorld& world_;
  NodeId agent_;
  SimServer& server_;
  bool absent_;
  Rng rng_;
  bool alive_ = false;
  std::optional<TimePoint> deadline_;
  std::optional<SimWorld::WaitId> timer_;
  std::uint64_t fired_ = 0;
  std::function<void()> wake_;
};

}  // namespace spilo::testing
