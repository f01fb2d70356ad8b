// What the machine wants done.
//
// The shell starts the effects of a decision in order and never waits for one: it goes back to its
// mailbox, and each effect yields exactly one event when it ends. At most one of a kind is in
// flight (Facts::in_flight shows which). So a slow store delays no reaction to a dead postmaster,
// and a slow PostgreSQL delays no renewal. The order that safety needs is therefore never the order
// of a list: decide() emits an effect only when the facts already show what it depends on. The
// contract:
//  1. A task that makes PostgreSQL writable (promote, start as primary, bootstrap) only when the
//  facts show the lock held with more lease left
//     than a hard stop takes (bootstrap: the initialize key won), and the guard ready.
//  2. ReleaseLock only when PostgreSQL was observed down, or is no longer writable.
//  3. StartTask returns at once; its end arrives as TaskDone. At most one task runs; renewals go on
//  beside it.
//  4. Nothing is started after Exit.
#pragma once

#include <optional>
#include <string>
#include <variant>

#include "spilo/core/ids.hpp"
#include "spilo/ha/facts.hpp"

namespace spilo::ha {

struct ReadCluster {
  bool operator==(const ReadCluster&) const = default;
};
struct ObservePostgres {
  bool operator==(const ObservePostgres&) const = default;
};
struct ProbePeer {
  NodeName node;
  std::string api_url;
  bool operator==(const ProbePeer&) const = default;
};
// Take the lock: the leader key must be absent, or at `rebind` (ours under an older session); the
// term key must be at `term`.
struct AcquireLock {
  std::optional<dcs::Version> rebind;
  Term term;  // as read; the grant writes number + 1 with our name
  TimelineId timeline{};
  TimelineId reserved{};  // for the promotion that follows
  bool operator==(const AcquireLock&) const = default;
};
// Give the lock away, and write where the WAL ended, in one transaction that requires the lock
// still at `held`.
struct ReleaseLock {
  LeaderKey held;
  std::optional<Term> term;  // as read: marked as released, because the server is not writable
  std::string status;  // new value of `status`, empty: leave it
  bool operator==(const ReleaseLock&) const = default;
};
struct PublishMember {
  std::string value;
  bool operator==(const PublishMember&) const = default;
};
// Write one key. With `fence` the transaction requires the leader key at that version.
struct WriteKey {
  InFlight kind = InFlight::status;
  std::string key;
  std::string value;
  std::optional<dcs::Version> at;  // none: unconditional; zero version: must be absent
  std::optional<LeaderKey> fence;
  bool session_bound = false;  // dies with our session: the claim on `initialize`
  bool operator==(const WriteKey&) const = default;
};
struct EraseKey {
  InFlight kind = InFlight::initialize;
  std::string key;
  dcs::Version at;
  bool operator==(const EraseKey&) const = default;
};
struct StartTask {
  TaskId id{};
  Task task;
  bool operator==(const StartTask&) const = default;
};
struct CancelTask {
  TaskId id{};
  bool operator==(const CancelTask&) const = default;
};
// End the server now, synchronously: the lease is over.
struct KillServer {
  std::string why;
  bool operator==(const KillServer&) const = default;
};
struct AskFailsafe {
  std::map<NodeName, std::string> members;  // without ourselves
  TimePoint asked_at{};                     // promises count from here
  Duration ttl{};                           // and for so long
  bool operator==(const AskFailsafe&) const = default;
};
struct Configure {
  DynamicConfig config;
  bool operator==(const Configure&) const = default;
};
struct SyncSlots {
  std::vector<std::string> wanted;
  std::vector<std::pair<std::string, Lsn>> positions;
  bool operator==(const SyncSlots&) const = default;
};
struct EnsureGuard {
  bool operator==(const EnsureGuard&) const = default;
};
struct RunCallback {
  std::string action;
  std::string role;
  bool operator==(const RunCallback&) const = default;
};
struct Reply {
  std::uint64_t request = 0;
  int status = 200;  // as HTTP would say it
  std::string text;
  bool operator==(const Reply&) const = default;
};
struct Exit {
  int status = 0;
  std::string why;
  bool end_session = true;  // false in pause: the keys stay for the next agent, or expire
  bool operator==(const Exit&) const = default;
};
using Effect = std::variant<ReadCluster,
                            ObservePostgres,
                            ProbePeer,
                            AcquireLock,
                            ReleaseLock,
                            PublishMember,
                            WriteKey,
                            EraseKey,
                            StartTask,
                            CancelTask,
                            KillServer,
                            AskFailsafe,
                            Configure,
                            SyncSlots,
                            EnsureGuard,
                            RunCallback,
                            Reply,
                            Exit>;

// One line for logs, golden scripts and the simulator's trace.
std::string to_text(const Effect& effect);

}  // namespace spilo::ha
