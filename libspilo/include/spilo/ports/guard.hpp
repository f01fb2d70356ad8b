// The process that ends our PostgreSQL when we no longer can (product.md, 1).
#pragma once

#include <functional>

#include "spilo/core/error.hpp"
#include "spilo/core/time.hpp"

namespace spilo {

class Guard {
 public:
  virtual ~Guard() = default;
  // Makes sure that a guard process watches this data directory; adopts the one of an earlier
  // agent, deadline and all. Called before anything becomes writable, and again after on_death.
  // Milliseconds at most.
  virtual Result<void> ensure() = 0;
  // From now on PostgreSQL ends at `deadline` (boot-time clock) unless it is moved again. Never
  // blocks.
  virtual Result<void> hold_until(TimePoint deadline) = 0;
  // PostgreSQL ends at `limit` at the latest: an earlier deadline in force stays, also one that has
  // passed.
  virtual Result<void> hold_no_longer_than(TimePoint limit) = 0;
  // PostgreSQL is no longer writable, or the lease is not ours to bound it by (pause): nothing to
  // guard.
  virtual Result<void> stand_down() = 0;
  virtual bool alive() const noexcept = 0;
  virtual void on_death(std::function<void()> wake) = 0;
};

// For `guard: off`: promises nothing and always succeeds.
class NoGuard final : public Guard {
 public:
  Result<void> ensure() override { return {}; }
  Result<void> hold_until(TimePoint) override { return {}; }
  Result<void> hold_no_longer_than(TimePoint) override { return {}; }
  Result<void> stand_down() override { return {}; }
  bool alive() const noexcept override { return true; }
  void on_death(std::function<void()>) override {}
};

// /dev/watchdog, on top of the guard, for frozen hosts (contract 3.17). Disabled: always succeeds.
class Watchdog {
 public:
  virtual ~Watchdog() = default;
  virtual Result<void> activate(Duration ttl,
                                Duration loop_wait) = 0;  // fails when the device can't be used
  virtual Result<void> keepalive() = 0;                   // after each successful renewal
  virtual void disable() = 0;
  virtual bool required() const noexcept = 0;  // mode: required; no promotion without it
};

class NoWatchdog final : public Watchdog {
 public:
  Result<void> activate(Duration, Duration) override { return {}; }
  Result<void> keepalive() override { return {}; }
  void disable() override {}
  bool required() const noexcept override { return false; }
};

}  // namespace spilo
