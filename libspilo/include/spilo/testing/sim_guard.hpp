// The Guard port, and the guard itself: a process of its own beside one simulated server. It goes
// on while its agent is frozen or crashed, and ends the server when its deadline passes by the
// host's boot clock; after that it goes on looking, and ends what is started, until its deadline is
// moved. One that has no agent leaves when there is nothing left to do, as the real one does.
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
  Result<void> hold_no_longer_than(TimePoint limit) override;
  Result<void> stand_down() override;
  bool alive() const noexcept override { return alive_; }
  void on_death(std::function<void()> wake) override { wake_ = std::move(wake); }

  // The agent is gone; the guard stays, deadline and all.
  void forget_agent();
  // The guard's process ends. Its agent, if it is there, has the deadline too and gives it to the next.
  void die();
  // The whole host is suspended, or was: meanwhile it does nothing, and its clock goes on.
  void suspend();
  void wake_up();
  // By the host's clock; none: standing down.
  std::optional<TimePoint> deadline() const noexcept { return deadline_; }
  bool server_lives() const;
  bool broken = false;  // none can be started
  Duration kill_max = std::chrono::milliseconds(150);  // how long a hard stop takes
  // After it was frozen with its host: a realtime process that finds its timer due.
  Duration wake_up_max = std::chrono::milliseconds(10);
  std::uint64_t fired() const noexcept { return fired_; }

 private:
  void cancel();
  void arm();
  void fire();

  SimWorld& world_;
  NodeId agent_;
  SimServer& server_;
  bool absent_;
  Rng rng_;
  bool alive_ = false;
  bool orphan_ = true;
  bool suspended_ = false;
  std::optional<TimePoint> deadline_;
  std::optional<SimWorld::WaitId> timer_;
  std::uint64_t fired_ = 0;
  std::function<void()> wake_;
};

}  // namespace spilo::testing
