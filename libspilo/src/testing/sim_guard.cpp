#include "spilo/testing/sim_guard.hpp"

#include <fmt/format.h>

#include <boost/asio/post.hpp>

namespace spilo::testing {

SimGuard::SimGuard(SimWorld& world, NodeId agent, SimServer& server, bool absent)
    : world_(world),
      agent_(agent),
      server_(server),
      absent_(absent),
      rng_(world.rng().fork("guard")) {}

Result<void> SimGuard::ensure() {
  alive_ = true;
  return {};
}

Result<void> SimGuard::hold_until(TimePoint deadline) {
  if (!alive_) return Error(errc::command_failed, "simulated guard: it is dead");
  cancel();
  deadline_ = deadline;
  if (absent_) return {};
  // The kill begins at the deadline and takes its time.
  const auto ends = world_.clock(agent_).to_world(deadline) + rng_.between(Duration(0), kill_max);
  timer_ = world_.at(ends, [this] {
    timer_.reset();
    deadline_.reset();
    if (server_.down()) return;
    ++fired_;
    server_.kill("by its guard, at the deadline");
  });
  return {};
}

Result<void> SimGuard::stand_down() {
  if (!alive_) return Error(errc::command_failed, "simulated guard: it is dead");
  cancel();
  return {};
}

void SimGuard::die() {
  if (!alive_) return;
  alive_ = false;
  cancel();
  world_.trace(server_.name(), "its guard dies");
  if (wake_) boost::asio::post(world_.executor(agent_), wake_);
}

void SimGuard::cancel() {
  if (timer_) world_.cancel(*timer_);
  timer_.reset();
  deadline_.reset();
}

}  // namespace spilo::testing
