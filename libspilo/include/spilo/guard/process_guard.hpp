// The guard as a process of its own: fencing that needs no device (product.md, 1).
//
// A tiny program, spilo-guard, runs beside each data directory and holds one deadline on the
// boot-time clock. The agent moves it after every renewal of its lease, by a store into shared
// memory: no system call, no wake-up. If the deadline passes, because the agent was killed, frozen
// or swapped out, the guard ends that PostgreSQL with all its processes. An agent that comes back
// before that adopts the guard, deadline and all.
//
// Guards are found by looking at the processes of our own user, so there is no file to go stale and
// nothing to clean up. Needs Linux 5.9 or newer. Under systemd, `KillMode=mixed` or `process` lets
// PostgreSQL and its guard outlive a crash of the agent; with the default both end with it, which
// is safe too.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <functional>
#include <memory>
#include <string>

#include "spilo/core/log.hpp"
#include "spilo/ports/guard.hpp"

namespace spilo {

struct GuardOptions {
  // Absolute. It need not exist yet: the guard looks at it when it has to.
  std::string data_dir;
  // The program; empty: find_guard_program().
  std::string program;
  // Where the guard writes a line when it ended a server; empty: <data_dir>.guard.log. It also
  // tells the system's log.
  std::string log_file;
};

// Where spilo-guard is: $SPILO_GUARD_PATH; beside the running program; ../libexec/spilo/ from
// there; the same from where this library was loaded, when it is a shared one; where this library
// was configured to be installed. not_found names all the places.
Result<std::string> find_guard_program();

// One strand of execution, on the executor it was made with; destroy it before that executor's
// context. Destroying it leaves the guard at its work: with a deadline it goes on until it fires or
// is adopted, without one it ends.
class ProcessGuard final : public Guard {
 public:
  ProcessGuard(boost::asio::any_io_executor executor, GuardOptions options, Logger logger = {});
  ~ProcessGuard() override;
  ProcessGuard(const ProcessGuard&) = delete;
  ProcessGuard& operator=(const ProcessGuard&) = delete;

  // not_found      there is no guard program
  // conflict       a guard is there and belongs to another agent that runs: two agents on one
  //                data directory
  // command_failed the program did not start
  // After the guard died, the one that is started takes over the deadline that was in force.
  Result<void> ensure() override;
  // unavailable    no guard is alive: PostgreSQL is not guarded, call ensure()
  Result<void> hold_until(TimePoint deadline) override;
  Result<void> hold_no_longer_than(TimePoint limit) override;  // likewise
  // Succeeds when there is no guard.
  Result<void> stand_down() override;
  bool alive() const noexcept override;
  // Replaces the function that was there. Called once for each guard that died.
  void on_death(std::function<void()> wake) override;

  // For people, tests and status pages. 0: no guard.
  int pid() const noexcept;
  // How often this guard has ended a server.
  unsigned fired() const noexcept;
  // What it would do now: the deadline in force, or zero.
  TimePoint deadline() const noexcept;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace spilo
