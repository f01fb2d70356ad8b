// Everything a cluster keeps in its store, as values (patroni-contract 1.1, 1.2 and 2). Read
// tolerantly: what can't be parsed counts as absent.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "spilo/core/ids.hpp"
#include "spilo/core/json.hpp"
#include "spilo/core/time.hpp"
#include "spilo/core/version.hpp"
#include "spilo/model/dynamic_config.hpp"
#include "spilo/model/tags.hpp"

namespace spilo {

// Who holds the lock, under which session. version.era is the fencing token of this grant.
struct LeaderKey {
  NodeName holder;
  dcs::Version version;
  SessionId session;
  bool operator==(const LeaderKey&) const = default;
};

struct Member {
  NodeName name;
  std::string conn_url;  // postgres://host:port/database, no credentials
  std::string api_url;   // http[s]://host:port/patroni; peers GET exactly this
  std::string state;     // "running", "starting", "stopped", … (contract 2)
  std::string role;      // "primary", "replica", "standby_leader", "demoted", "uninitialized", …
  std::string version;   // dotted integers
  std::string replication_state;  // "streaming", "in archive recovery" or empty
  Lsn xlog_location{};            // primary: flush; standby: max(received, replayed)
  Lsn receive_lsn{};
  Lsn replay_lsn{};
  TimelineId timeline{};
  bool checkpoint_after_promote =
      true;  // false: the first checkpoint after promotion is not finished
  bool pending_restart = false;
  json::Value pending_restart_reason;  // {param: {old_value, new_value}} or null
  json::Value scheduled_restart;       // object or null
  bool pause = false;                  // this member has recognised the pause
  Tags tags;
  SessionId session;  // the session its key is bound to
  bool operator==(const Member&) const = default;
};

struct FailoverRequest {  // key `failover`; cleared by writing {}
  NodeName leader;        // set: a switchover away from it
  NodeName candidate;
  std::optional<WallTime> scheduled_at;
  dcs::Version version;  // of the key, also when it holds {}
  bool requested() const noexcept { return !leader.empty() || !candidate.empty(); }
  bool operator==(const FailoverRequest&) const = default;
};

struct SyncState {  // key `sync`
  NodeName leader;  // empty: the whole state counts as empty
  std::vector<NodeName> voters;
  int quorum = 0;
  dcs::Version version;
  bool operator==(const SyncState&) const = default;
};

struct HistoryLine {  // key `history`: [timeline, lsn, reason, timestamp?, new_leader?]
  TimelineId timeline{};
  Lsn switch_lsn{};
  std::string reason;
  std::string timestamp;  // ISO 8601 or empty
  std::string new_leader;
  bool operator==(const HistoryLine&) const = default;
};

struct ClusterStatus {  // key `status`
  Lsn optime{};
  std::map<std::string, Lsn> slots;
  std::vector<std::string> retain_slots;
  bool operator==(const ClusterStatus&) const = default;
};

// Key `term`, ours: counts the grants of the lock. It is written in the same transaction that takes
// the lock and required unchanged by a running primary that takes its lost lock again, which proves
// that nobody led in between. Nodes that run Patroni ignore it.
struct Term {
  std::uint64_t number = 0;
  NodeName holder;
  TimelineId timeline{};  // the holder's timeline when it took the lock
  // The number of the timeline that the holder's promotion begins, if it is one. Never given twice,
  // also when a promotion was not seen by anybody: two histories with one number can't be told apart.
  TimelineId reserved{};
  // The holder gave the lock back while its server was not writable: what it was promised is void.
  bool released = false;
  dcs::Version version;  // zero when the key is absent
  bool operator==(const Term&) const = default;
};

struct ClusterView {
  std::optional<std::string>
      initialize;  // absent: free; "": bootstrap in progress; otherwise the system identifier
  dcs::Version initialize_version;
  SessionId initialize_session;  // whose claim it is; empty: not bound to one
  std::optional<LeaderKey> leader;
  std::vector<Member> members;          // sorted by name
  std::optional<DynamicConfig> config;  // none: absent or unusable
  dcs::Version config_version;          // zero: absent
  FailoverRequest failover;
  SyncState sync;
  std::optional<std::vector<HistoryLine>> history;
  ClusterStatus status;
  std::optional<std::map<NodeName, std::string>>
      failsafe;  // name -> api_url; none: absent or not an object
  dcs::Version failsafe_version;  // zero: absent
  Term term;
  dcs::Index index;
  TimePoint read_started{};  // evidence is as old as the start of the read

  const Member* member(const NodeName& name) const noexcept;
  // From `history`: last line's timeline + 1; 1 when it is []; 0 when absent.
  TimelineId timeline() const noexcept;
  bool operator==(const ClusterView&) const = default;
};

}  // namespace spilo
