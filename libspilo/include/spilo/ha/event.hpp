// What can happen to a node. Each effect yields exactly one of these when it ends; the rest comes
// from outside.
#pragma once

#include <optional>
#include <string>
#include <variant>

#include "spilo/core/error.hpp"
#include "spilo/ha/effect.hpp"
#include "spilo/ha/facts.hpp"

namespace spilo::ha {

// From outside.
struct Woke {};             // the clock reached wake_at
struct StoreChanged {};     // changed_since() returned
struct PostgresChanged {};  // postmaster or WAL receiver ended
struct GuardDied {};
struct StopAsked {};
struct OperatorAsked {
  OperatorRequest request;
};
struct IdentityChanged {
  Identity identity;
};  // reload of the local configuration
struct LeaseRenewed {
  SessionId session;
  TimePoint valid_until;
};
struct RenewalFailed {
  Error error;
};  // no answer with authority: the lease we have runs on
struct SessionLost {
  Error error;
};  // the store says so: what was bound to it is gone
struct FailsafeHeard {
  NodeName leader;
  std::string conn_url;
  std::string api_url;
  // Answered by Reply{request, …}: 200 is a promise not to take the lock for a ttl. Only the
  // machine can give it, because it alone knows whether it is taking the lock just now.
  std::uint64_t request = 0;
  Duration ttl{};  // for how long the leader counts on the promise; zero: it did not say
};  // POST /failsafe was accepted
// Ends of effects.
struct ClusterRead {
  ClusterView view;
};
struct ReadFailed {
  Error error;
};
struct PostgresObserved {
  NodeView view;
};
struct PeerAnswered {
  PeerStatus status;
};
struct LockAcquired {
  LeaderKey leader;
  Term term;
};
struct LockRefused {
  Error error;
};  // conflict: certainly not ours. Otherwise unknown: read again
struct LockReleased {};
struct ReleaseFailed {
  Error error;
};
struct Written {
  InFlight kind;
  std::string value;
  SessionId session;
  dcs::Version version;
};  // publish: under which session
struct WriteFailed {
  InFlight kind;
  Error error;
};
struct TaskDone {
  TaskId id;
  std::optional<Error> failure;
};
struct FailsafeAnswered {
  FailsafeAnswer answer;
  TimePoint asked_at{};  // of the round that it answers
};
struct SlotsSynced {};
struct GuardReady {
  bool ready;
  std::string problem;
};

using Event = std::variant<Woke,
                           StoreChanged,
                           PostgresChanged,
                           GuardDied,
                           StopAsked,
                           OperatorAsked,
                           IdentityChanged,
                           LeaseRenewed,
                           RenewalFailed,
                           SessionLost,
                           FailsafeHeard,
                           ClusterRead,
                           ReadFailed,
                           PostgresObserved,
                           PeerAnswered,
                           LockAcquired,
                           LockRefused,
                           LockReleased,
                           ReleaseFailed,
                           Written,
                           WriteFailed,
                           TaskDone,
                           FailsafeAnswered,
                           SlotsSynced,
                           GuardReady>;

std::string_view name_of(const Event& event) noexcept;

}  // namespace spilo::ha
