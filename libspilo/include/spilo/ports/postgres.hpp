// The hands: one PostgreSQL server on this node.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "spilo/core/json.hpp"
#include "spilo/ha/task.hpp"
#include "spilo/model/dynamic_config.hpp"
#include "spilo/model/node_view.hpp"
#include "spilo/ports/async.hpp"

namespace spilo {

// One strand of execution. observe() may overlap with a running perform(); nothing blocks the loop.
class Postgres {
 public:
  virtual ~Postgres() = default;

  // One round trip: control file, postmaster and one SQL query. A server that does not answer by
  // the deadline is reported as hung or starting, with what the data directory shows; the error
  // case is left for a broken adapter. Never longer than the deadline.
  virtual Async<NodeView> observe(TimePoint deadline) = 0;

  // Runs one task to its end. The task's own result decides; cancellation ends child programs
  // (pg_basebackup, pg_rewind, initdb) and leaves a state from which the same task can be started
  // again. Never called twice at the same time.
  //   command_failed   the step that failed, its program's last words, and what was kept
  //   timed_out        a step reached its deadline
  virtual Async<void> perform(ha::Task task) = 0;

  // Makes exactly these physical slots exist (besides slots of other kinds, which are left alone),
  // and advances the inactive ones of a replica to `positions`. Best effort, short.
  virtual Async<void> sync_slots(std::vector<std::string> wanted,
                                 std::vector<std::pair<std::string, Lsn>> positions,
                                 TimePoint deadline) = 0;

  // The cluster-wide configuration from now on. Applied to files at the next start or
  // TaskKind::reload.
  virtual void configure(const DynamicConfig& config) = 0;

  // Until when the server may be made writable (boot-time clock). A task has several steps, and the
  // process may be frozen between any two of them: a step that would make the server writable (its start
  // as a primary, pg_promote()) does not begin after that, and its task fails with errc::session_lost.
  // Told before each task and whenever the lease moves; before the first call, and with
  // TimePoint::max() (pause), there is no bound. Never blocks.
  virtual void may_write_until(TimePoint until) = 0;

  // Ends the server at once, with all its processes, without asking it: SIGKILL. Synchronous and
  // short (milliseconds). For fencing.
  virtual Result<void> kill_now() = 0;

  // Called on the executor when something happened that an observation would show: the postmaster
  // ended, the WAL receiver ended.
  virtual void on_change(std::function<void()> wake) = 0;

  // What the running task is doing, for people: "copying 1.2 of 3.4 GB". Empty when idle.
  virtual std::string progress() const = 0;

  // Runs the callbacks of contract 10.1, asynchronously. `action`: on_start, on_stop, on_restart,
  // on_reload, on_role_change.
  virtual void run_callback(std::string action, std::string role) = 0;
};

}  // namespace spilo
