// Everything a decision may look at, and everything it remembers. Values: copy them, print them,
// compare them. No pointers, no callbacks, no clock.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "spilo/core/error.hpp"
#include "spilo/ha/task.hpp"
#include "spilo/model/cluster_view.hpp"
#include "spilo/model/node_view.hpp"
#include "spilo/model/peer_status.hpp"

namespace spilo::ha {

// What this node is and what its local configuration says. Changes only by a reload.
struct Identity {
  NodeName node;
  Scope scope;
  Tags tags;
  std::string conn_url;  // published
  std::string api_url;   // published
  std::string version =
      "4.1.4";                // published protocol version: what Patroni nodes compare (contract 2)
  bool can_bootstrap = true;  // the local file has a `bootstrap` section
  json::Value bootstrap_dcs;  // first content of `config`
  bool use_pg_rewind = true;
  Timing timing;  // until the store's configuration is known
  // How long a hard stop (SIGKILL of every process of the server) may take: the guard's deadline is
  // the lease's end less this and drift.
  Duration hard_stop = std::chrono::milliseconds(200);
  // Test switches, so that the simulator can prove that it finds what each of them breaks. Never
  // set by a program.
  struct Plant {
    bool no_lease_margin = false;
    bool no_token_check = false;
    bool no_timeline_check = false;
    bool operator==(const Plant&) const = default;
  } plant;
  bool operator==(const Identity&) const = default;
};

// What is on its way: at most one of each kind, so that a slow store or server delays nothing else.
enum class InFlight {
  read_cluster,
  observe,
  acquire,
  release,
  publish,
  status,
  config,
  history,
  initialize,
  failover,
  failsafe_key,
  slots,
  guard,
};

struct RunningTask {
  TaskId id{};
  Task task;
  TimePoint started{};
  bool operator==(const RunningTask&) const = default;
};

struct FinishedTask {
  TaskId id{};
  Task task;
  TimePoint started{};
  TimePoint finished{};
  std::optional<Error> failure;
  bool operator==(const FinishedTask&) const = default;
};

// A request of an operator that the machine itself carries out; switchovers travel through the
// store.
struct OperatorRequest {
  enum class Kind { restart, reinitialize, reload, cancel_restart };  // the scheduled one
  std::uint64_t id = 0;  // answered by Reply{id, …} exactly once
  Kind kind = Kind::reload;
  std::string role;                  // restart: only when this is my role
  std::string postgres_version;      // restart: only when the server is older
  bool restart_pending = false;      // restart: only when a restart is pending
  bool force = false;                // reinitialize: even when a task runs
  std::optional<WallTime> schedule;  // restart: at that time
  Duration timeout{};
  bool operator==(const OperatorRequest&) const = default;
};

struct FailsafeQuestion {
  std::uint64_t request = 0;
  NodeName leader;
  Duration ttl{};  // the leader's own; zero: it did not say
  bool operator==(const FailsafeQuestion&) const = default;
};

struct Facts {
  TimePoint now{};
  WallTime wall{};

  // The store.
  std::optional<ClusterView> cluster;  // the last successful read, with our own grants applied
  bool cluster_stale = true;           // something may have changed since
  bool store_answers = false;          // the last operation got an answer with authority
  std::string store_problem;           // why not
  TimePoint read_failed_at{};          // last failed read; zero after a good one
  TimePoint
      lock_changed_at{};  // the leader key changed then: older reads say nothing about it
  // A change of the lock that we asked for got no answer, or was refused for a reason that we have not
  // read yet: until a younger read the lock counts as not held.
  bool lock_in_doubt = false;
  // A write that was built on what had been read ended then, well or not: only a younger read is ground for
  // the next.
  TimePoint write_ended_at{};
  // The store refused a write for a reason that reading does not cure, such as missing rights: paced.
  TimePoint write_refused_at{};
  SessionId session;      // our present session; empty: none
  TimePoint session_valid_until{};
  // What the store grants the session at a renewal, less the time that its answer took; zero: not
  // known yet. It stays what it was where a configured ttl counts from the next session on (etcd,
  // Consul, ZooKeeper).
  Duration session_granted{};
  // Members keep taking part in a race for a while after their key has expired.
  std::map<NodeName, Member> known_members;

  // PostgreSQL.
  std::optional<NodeView> node;  // the last observation
  TimePoint node_changed_at{};   // something happened then: older observations do not show it
  std::optional<RunningTask> task;
  std::optional<FinishedTask> last_task;

  bool node_current() const noexcept { return node && node->observed_at >= node_changed_at; }

  // The guard.
  bool guard_ready = false;  // a guard process watches, or is not wanted
  std::string guard_problem;
  TimePoint guard_tried_at{};  // tries are paced, however they end
  TimePoint guard_lost_at{};   // there was one, or should have been one, and there is none since then; else zero

  // The others.
  std::map<NodeName, PeerStatus> peers;                 // last answers
  std::map<NodeName, TimePoint> asked;                  // open questions
  std::map<NodeName, FailsafeAnswer> failsafe_answers;  // to the round of memory.failsafe_asked_at
  std::vector<FailsafeQuestion> failsafe_questions;     // POST /failsafe, to be answered

  // Our own process.
  std::vector<OperatorRequest> requests;
  bool stop_requested = false;
  std::set<InFlight> in_flight;

  bool operator==(const Facts&) const = default;
};

// A switchover, manual failover or orderly stop that this primary is carrying out.
struct Handover {
  NodeName candidate;  // empty: whoever is best
  TimePoint started{};
  bool operator==(const Handover&) const = default;
};

// Our promise to leave the lock alone until then: that leader is alive without a store.
struct FailsafePromise {
  NodeName leader;
  TimePoint given{};
  TimePoint until{};
  std::uint64_t term = 0;  // the last that we had read then
  // Given while one to another leader still held: one of the two asks late, and nobody can tell which. Only
  // time ends it.
  bool mixed = false;
  bool operator==(const FailsafePromise&) const = default;
};

struct Memory {
  TimePoint started_at{};  // first step of this life
  TaskId last_task_id{};

  // The lock.
  TimePoint unlocked_since{};  // zero: locked, as far as we know
  NodeName last_leader;        // the last other node that held the lock
  bool was_primary =
      false;       // the server was writable under our lock and has not been seen down since
  Term last_term;  // of our last grant in this life
  TimePoint reclaim_until{};  // a running primary whose key vanished may take it again until then
  TimePoint released_at{};    // we gave the lock away then: stand back for a while
  // A release of the lock at this version got no answer, so it may still take effect: the lock counts
  // again only once it is bound anew, at another version.
  dcs::Version release_unanswered;
  TimePoint promote_failed_at{};
  std::optional<Handover> handover;

  // A store outage.
  TimePoint failsafe_asked_at{};  // zero: no round is open
  Duration failsafe_asked_ttl{};  // for how long that round's promises were asked
  TimePoint failsafe_until{};     // every listed member promised not to take the lock until then
  // Lists that were written to `failsafe` in place of the one at that version, without that we have read
  // since what stands there: any of them may be the one that the members go by.
  std::vector<std::map<NodeName, std::string>> failsafe_offered;
  dcs::Version failsafe_offered_at;
  FailsafePromise promise;  // our own, to a leader

  // The server.
  TimePoint killed_at{};  // when we last ended it at once
  TimePoint crashed_at{};  // when it was first seen down after it ran; zero: not crashed
  int crash_count = 0;     // within the last ten minutes
  TimePoint crash_window{};
  TimePoint hung_since{};
  TimePoint stopping_since{};  // it stops, and no task of ours does that
  TimePoint not_streaming_since{};  // a running replica without a stream, since
  TimePoint attempt_not_before{};   // back-off after a failed start, clone or rejoin
  int attempt_failures = 0;
  bool bootstrapped_here = false;  // this node won `initialize` and has not finished
  SessionId claim_session;         // the session that its claim is bound to
  TimePoint claim_written_at{};    // when `initialize` was last written by us: older reads don't show it
  TimePoint claim_failed_at{};
  dcs::Version config_applied;     // version of `config` that the server runs with

  // What we have written.
  std::string published;
  SessionId published_session;
  TimePoint published_at{};
  ClusterStatus status_written;
  TimePoint status_at{};
  std::vector<std::string> slots_wanted;
  std::vector<std::pair<std::string, Lsn>> slots_positions;
  TimePoint slots_at{};

  // Operators.
  std::optional<OperatorRequest> serving;  // the request whose task is running
  std::optional<OperatorRequest> scheduled_restart;
  TimePoint request_seen_at{};  // when the present content of `failover` was first seen
  dcs::Version request_version;
  dcs::Version
      served_request;  // the request that stood when we raced for the lock: our grant settles it
  std::string last_callback_role;  // of the last callback; empty: none was called yet
  TaskId last_callback_task{};

  bool operator==(const Memory&) const = default;
};

}  // namespace spilo::ha
