// Long work on PostgreSQL. At most one task runs at a time; renewals go on beside it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "spilo/core/ids.hpp"
#include "spilo/core/time.hpp"

namespace spilo::ha {

enum class TaskId : std::uint64_t {};

enum class TaskKind {
  bootstrap,  // create a new cluster in the empty data directory, start it as a primary, create the
              // users
  clone,  // full copy from `upstream` into a sibling directory, swapped in by rename once complete;
          // then start as its replica
  start,  // start what is there: as a primary (only after a crash with the lock held), else as a
          // replica of `upstream` (may be none)
  stop,   // `mode`; with checkpoint_first a CHECKPOINT while still serving. Done when no process of
          // the server is left
  restart,  // stop fast and start in the same role
  promote,  // pg_promote(); done when the server accepts writes
  follow,   // make a running replica follow `upstream`: rewrite and reload, no restart
  rejoin,   // the ladder for a server that is down or has diverged: follow, pg_rewind, full copy;
            // ends running as a replica
  reload,   // apply the configuration (local and dynamic) and reload
  checkpoint,  // CHECKPOINT, while serving
};
std::string_view to_text(TaskKind kind) noexcept;

enum class StopMode {
  fast,       // disconnect clients, write a shutdown checkpoint, let the replicas have everything
  immediate,  // SIGQUIT, then SIGKILL to every process: crash recovery at the next start
};

// Where a replica gets its WAL from.
struct Upstream {
  NodeName name;
  std::string conn_url;  // empty: none, recovery without a WAL receiver
  std::string api_url;
  TimelineId timeline{};  // what it publishes, 0 unknown
  bool checkpoint_done =
      true;  // false: wait for its first checkpoint after promotion before pg_rewind
  bool operator==(const Upstream&) const = default;
};

struct Task {
  TaskKind kind = TaskKind::reload;
  Upstream upstream;
  StopMode mode = StopMode::fast;
  bool as_primary = false;        // start
  bool checkpoint_first = false;  // stop
  bool force = false;  // rejoin: full copy at once (reinitialize); the old directory is kept until
                       // the new one streams
  // promote: the new timeline gets at least this number, because lower ones may have been used where
  // nobody saw it. 0: whatever PostgreSQL chooses.
  TimelineId timeline_min{};
  Duration timeout{};  // stop, start, restart: 0 is the adapter's default
  std::string reason;  // shown in logs and status
  bool operator==(const Task&) const = default;
};

}  // namespace spilo::ha
