// dcs::Store in one SQLite file: an embedded store for clusters whose nodes all run on one machine.
// Several processes share the file; their sessions really expire, and they wake one another through
// the kernel, without polling.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <memory>
#include <string>

#include "spilo/core/ids.hpp"
#include "spilo/core/log.hpp"
#include "spilo/ports/clock.hpp"
#include "spilo/ports/dcs.hpp"

namespace spilo::sqlite {

class Options {
 public:
  // The database. It is created when it is missing; its directory must exist, be writable and lie
  // on a local file system. SQLite puts FILE-wal and FILE-shm beside it, and this store FILE-wake,
  // which carries nothing but the news that something changed. All of them belong together: don't
  // delete or replace them while a node runs.
  std::string file;
  Scope scope;  // clusters with different scopes may share a file
  Logger log;
  // Names the machine's present boot: sessions of another boot are over. Empty: the kernel's boot
  // id. A simulation in virtual time, whose clock starts again with each run, puts something else
  // here for each run.
  std::string boot_id;
  // False: commit() does not wait for the disk, and the store needs no second thread. For tests and
  // for simulations, whose executors may not be posted to from another thread.
  bool survive_power_failure = true;
};

// Thread-safety: use one instance on the thread that runs its executor; operations may overlap. Any
// number of instances, in any number of processes of the machine, may share the file. The clock
// must be the same for all of them and must go on while the machine is suspended: SystemClock
// (CLOCK_BOOTTIME). The executor, the clock and the store outlive the operations.
//
// Sessions: a session is a row with the time at which it expires. Whoever comes first after that
// time deletes it with all keys bound to it; a waiter in changed_since() sets a timer for it. The
// holder computes valid_until from a time taken before the expiry that is stored, so it never
// believes longer than the others wait. Destroying the store does not end its session.
//
// Durability: commit() is on disk when it returns: the counter behind Version must never run twice
// through the same numbers, not even after a power failure, or an old fencing token would be valid
// again. Other clients may see the change a moment earlier. renew() and end_session() do not wait
// for the disk: no session outlives the boot in which it was opened. The waiting is done by a
// thread of the store's own that knows nothing but fdatasync() and checkpoints, so a slow disk
// delays commits, but neither the event loop nor the renewals of any process.
//
// Errors, beyond what the port says:
//   unavailable       the file was locked by another process up to the deadline (it may be frozen,
//   and the store can't work
//                     until it is thawed or killed), the directory is missing, the disk is full, or
//                     it failed before COMMIT
//   ambiguous         the disk failed in COMMIT, or did not confirm it up to the deadline
//   denied            the directory or the file may not be written
//   invalid_argument  the file is no database or another program's; a ttl or a value is beyond
//   limits() unsupported       the file was written by a newer version, or its file system can't do
//   shared memory protocol          the database is damaged
// An attempt never waits for a lock: it fails at once and is repeated after a few milliseconds, so
// the loop is not blocked.
class SqliteStore final : public dcs::Store {
 public:
  // Touches nothing yet: the first operation opens the file, and tries again each time that fails.
  SqliteStore(boost::asio::any_io_executor executor, Clock& clock, Options options);
  ~SqliteStore() override;
  SqliteStore(const SqliteStore&) = delete;
  SqliteStore& operator=(const SqliteStore&) = delete;

  dcs::Limits limits() const noexcept override;  // ttl 1 s to 24 h, values up to 1 MiB
  Async<dcs::Snapshot> read(dcs::Freshness freshness, TimePoint deadline) override;
  Async<dcs::Committed> commit(dcs::Transaction transaction, TimePoint deadline) override;
  Async<dcs::Lease> renew(Duration ttl, TimePoint deadline) override;
  Async<void> end_session(TimePoint deadline) override;
  Async<dcs::Index> changed_since(dcs::Index seen, TimePoint deadline) override;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace spilo::sqlite
