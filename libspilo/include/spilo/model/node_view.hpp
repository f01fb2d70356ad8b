// What the local PostgreSQL says and what its data directory shows: the result of one observation.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "spilo/core/ids.hpp"
#include "spilo/core/json.hpp"
#include "spilo/core/time.hpp"
#include "spilo/model/cluster_view.hpp"

namespace spilo {

struct WalSender {  // one row of pg_stat_replication on a primary or cascading standby
  std::string application_name;
  std::string user;
  std::string client_addr;
  std::string state;       // "streaming", "catchup", …
  std::string sync_state;  // "async", "sync", "quorum", …
  int sync_priority = 0;
  Lsn write_lsn{};
  Lsn flush_lsn{};
  Lsn replay_lsn{};
  bool operator==(const WalSender&) const = default;
};

struct NodeView {
  enum class DataDir {
    empty,
    initialized,
    unusable
  };  // unusable: unreadable, foreign or broken; see problem
  // stopped: no postmaster, orderly or never started by us. crashed: no postmaster, and it did not
  // shut down. starting: a postmaster that does not accept connections yet. hung: a postmaster that
  // does not answer at all.
  enum class Process { stopped, crashed, starting, running, stopping, hung };
  enum class Role { unknown, primary, replica };

  DataDir data_dir = DataDir::empty;
  std::string problem;  // why data_dir is unusable or the query failed
  Process process = Process::stopped;
  int postmaster_pid = 0;  // 0: none. Identifies the incarnation together with start_time
  Role role =
      Role::unknown;   // as the running server says; when it is down, as the data directory looks
  SystemId system_id;  // empty: unknown
  TimelineId timeline{};  // primary: current WAL file; replica: received, else the control file's
  Lsn flushed{};          // primary: flush position
  Lsn received{};         // replica: max(received, written)
  Lsn replayed{};         // replica
  bool replay_paused = false;
  std::string replayed_timestamp;
  bool streaming = false;  // replica: the WAL receiver is streaming
  std::string upstream;    // replica: "host:port" its configuration follows, empty for none
  std::string restore_command;
  int server_version = 0;  // 150004
  std::string start_time;  // of the postmaster, text as in contract 5.5
  bool pending_restart = false;
  json::Value pending_restart_reason;
  std::vector<WalSender> wal_senders;
  std::vector<std::string> slots;  // physical slots that exist
  // From the control file; valid whenever the data directory is initialised.
  std::string control_state;  // "in production", "shut down", "shut down in recovery", "in archive
                              // recovery", …
  Lsn checkpoint_lsn{};       // start of the latest checkpoint record
  Lsn checkpoint_end{};  // shut down: one past the shutdown checkpoint record, what a follower must
                         // have; else 0
  TimelineId control_timeline{};
  std::vector<HistoryLine> history;      // primary: the lines of the current timeline's history file
  bool can_rewind = false;  // checksums or wal_log_hints, and the program exists
  TimePoint observed_at{};  // when the observation began

  bool accepts_writes() const noexcept { return running() && role == Role::primary; }
  bool running() const noexcept { return process == Process::running; }
  bool down() const noexcept { return process == Process::stopped || process == Process::crashed; }
  // A postmaster exists: it may hold sockets, locks and unfinished commits, whatever it answers.
  bool alive() const noexcept { return !down(); }
  // The last position this node could serve from: flush on a primary, max(received, replayed) on a
  // replica.
  Lsn last_lsn() const noexcept {
    if (role == Role::primary) return flushed;
    return received > replayed ? received : replayed;
  }
  bool operator==(const NodeView&) const = default;
};

}  // namespace spilo
