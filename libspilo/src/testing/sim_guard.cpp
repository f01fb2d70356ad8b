#include "spilo/testing/sim_guard.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/post.hpp>

namespace spilo::testing {
namespace {
constexpr Duration look_again = std::chrono::milliseconds(100);
}

SimGuard::SimGuard(SimWorld& world, NodeId agent, SimServer& server, bool absent)
    : world_(world),
      agent_(agent),
      server_(server),
      absent_(absent),
      rng_(world.rng().fork("guard")) {}

Result<void> SimGuard::ensure() {
  orphan_ = false;
  if (alive_) return {};
  if (broken) return Error(errc::command_failed, "simulated guard: it does not start");
  alive_ = true;
  // The deadline of the one that died is still in force.
  if (deadline_) arm();
  return {};
}

Result<void> SimGuard::hold_until(TimePoint deadline) {
  if (!alive_) return Error(errc::command_failed, "simulated guard: it is dead");
  cancel();
  deadline_ = deadline;
  arm();
  return {};
}

Result<void> SimGuard::hold_no_longer_than(TimePoint limit) {
  return !deadline_ || *deadline_ > limit ? hold_until(limit) : Result<void>();
}

bool SimGuard::server_lives() const {
  return !server_.down();
}

void SimGuard::arm() {
  if (absent_ || suspended_) return;
  // The kill begins at the deadline and takes its time.
  const auto due = std::max(world_.now(), world_.clock(agent_).to_world(*deadline_));
  timer_ = world_.at(due + rng_.between(Duration(0), kill_max), [this] {
    timer_.reset();
    fire();
  });
}

void SimGuard::fire() {
  if (!server_.down()) {
    ++fired_;
    server_.kill("by its guard, at the deadline");
  }
  if (orphan_) {
    alive_ = false;
    deadline_.reset();
    return;
  }
  timer_ = world_.after(look_again, [this] {
    timer_.reset();
    fire();
  });
}

Result<void> SimGuard::stand_down() {
  if (!alive_) return Error(errc::command_failed, "simulated guard: it is dead");
  cancel();
  deadline_.reset();
  return {};
}

void SimGuard::forget_agent() {
  wake_ = {};
  orphan_ = true;
  if (!alive_) {
    // Both are gone, and with them the deadline.
    deadline_.reset();
  } else if (!deadline_) {
    alive_ = false;
  }
}

void SimGuard::die() {
  if (!alive_) return;
  alive_ = false;
  cancel();
  if (orphan_) deadline_.reset();
  world_.trace(server_.name(), "its guard dies");
  if (wake_) boost::asio::post(world_.executor(agent_), wake_);
}

void SimGuard::suspend() {
  suspended_ = true;
  cancel();
}

void SimGuard::wake_up() {
  suspended_ = false;
  if (!alive_ || !deadline_ || absent_) return;
  timer_ = world_.after(rng_.between(Duration(0), wake_up_max), [this] {
    timer_.reset();
    arm();
  });
}

void SimGuard::cancel() {
  if (timer_) world_.cancel(*timer_);
  timer_.reset();
}

}  // namespace spilo::testing
