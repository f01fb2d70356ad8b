// The store port: what libspilo needs of a consensus store, in six verbs. Adapters implement it;
// the conformance suite (spilo/testing/dcs_conformance.hpp) is its definition in code.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "spilo/core/ids.hpp"
#include "spilo/core/time.hpp"
#include "spilo/core/version.hpp"
#include "spilo/ports/async.hpp"

namespace spilo::dcs {

class Condition {
 public:
  static Condition absent() { return Condition(Kind::absent, Version{}); }
  static Condition at(Version version) { return Condition(Kind::version, version); }
  enum class Kind { absent, version };
  Kind kind() const noexcept { return kind_; }
  Version version() const noexcept { return version_; }

 private:
  Condition(Kind kind, Version version) : kind_(kind), version_(version) {}
  Kind kind_;
  Version version_;
};

enum class Binding { permanent, session };  // session: the key dies with our session
enum class Freshness {
  linearizable,
  local_replica
};  // the second may be stale; good enough for display

class Entry {
 public:
  Entry(std::string name, std::string content, Version at, SessionId bound_to = {})
      : key(std::move(name)), value(std::move(content)), version(at), owner(std::move(bound_to)) {}
  std::string key;  // relative to the scope: "leader", "members/n1"
  std::string value;
  Version version;
  SessionId owner;  // empty unless bound to a session
  bool operator==(const Entry&) const = default;
};

class Snapshot {
 public:
  Snapshot() = default;
  // Sorts the entries by key.
  Snapshot(std::vector<Entry> entries, Index index, bool atomic);
  const Entry* find(std::string_view key) const noexcept;
  std::span<const Entry> under(
      std::string_view prefix) const noexcept;  // keys that begin with prefix
  std::span<const Entry> all() const noexcept { return entries_; }
  Index index() const noexcept { return index_; }   // where changed_since() goes on from
  bool atomic() const noexcept { return atomic_; }  // false on ZooKeeper: keys were read one by one

 private:
  std::vector<Entry> entries_;
  Index index_;
  bool atomic_ = true;
};

class Lease {
 public:
  Lease() = default;
  Lease(SessionId id, TimePoint until) : session(std::move(id)), valid_until(until) {}
  SessionId session;
  // The time taken *before* the renewal was sent plus the granted ttl: until then nobody else can
  // own what is bound to it.
  TimePoint valid_until{};
};

class Committed {  // what a commit wrote
 public:
  Committed() = default;
  explicit Committed(std::vector<std::pair<std::string, Version>> versions)
      : versions_(std::move(versions)) {}
  std::optional<Version> version_of(std::string_view key) const noexcept;

 private:
  std::vector<std::pair<std::string, Version>> versions_;
};

struct Limits {  // trivially destructible, hence safe anywhere
  Duration session_ttl_min{};
  Duration session_ttl_max{};
  std::size_t value_bytes_max = 0;
};

// What a write depends on and what it does, all or nothing. A class with verbs, so it is safe
// beside co_await. Every write that a leader makes also requires("leader", at(version of the leader
// key it holds)): a fenced write, which fails with errc::conflict once somebody else leads.
class Transaction {
 public:
  struct Requirement {
    std::string key;
    Condition condition;
  };
  struct Change {
    std::string key;
    std::optional<std::string> value;  // none: erase
    Binding binding = Binding::permanent;
  };
  Transaction() = default;
  Transaction& require(std::string key, Condition condition) &;
  Transaction& put(std::string key, std::string value, Binding binding = Binding::permanent) &;
  Transaction& erase(std::string key) &;  // erasing what is not there is no error

  const std::vector<Requirement>& requirements() const noexcept { return requirements_; }
  const std::vector<Change>& changes() const noexcept { return changes_; }

 private:
  std::vector<Requirement> requirements_;
  std::vector<Change> changes_;
};

// A small, ordered key-value tree rooted at one scope, with sessions, transactions and change
// notification.
//
// One instance is used by one strand of execution; operations may overlap. Every operation obeys
// its deadline and terminal cancellation, and leaves the store usable after either. Errors mean
// what errc says; in particular a write that may have reached the server but got no answer fails
// with errc::ambiguous, and refused, reset or timed-out reads are errc::unavailable or
// errc::timed_out: "no answer with authority". Text that a server sends is never matched to decide
// more than that.
//
// Keys used with Condition::at are never deleted by us, only emptied, except the leader key, whose
// version together with its session is the fencing token: on ZooKeeper a version restarts with the
// node, so there the era (czxid) tells them apart.
class Store {
 public:
  virtual ~Store() = default;
  virtual Limits limits() const noexcept = 0;

  // Everything below the scope. Also arms change notification where the backend needs that
  // (ZooKeeper).
  virtual Async<Snapshot> read(Freshness freshness, TimePoint deadline) = 0;

  // All of it or none. conflict: a requirement did not hold, certainly not done. With
  // Binding::session the key is bound to our present session, atomically, even when it existed
  // before; session_lost when there is none or it is gone.
  virtual Async<Committed> commit(Transaction transaction, TimePoint deadline) = 0;

  // Opens the session on first use, extends it afterwards. session_lost: the old one is gone with
  // all keys bound to it, and the next call opens a new one. A different ttl than before applies
  // from the next session on, or at once where the store can. Yet a shorter one never takes back
  // what an earlier renewal has promised: the caller may die with the answer, and leave a guard that
  // believes the earlier one.
  virtual Async<Lease> renew(Duration ttl, TimePoint deadline) = 0;

  // Ends the session and deletes what is bound to it. Success when there is none.
  virtual Async<void> end_session(TimePoint deadline) = 0;

  // Returns as soon as something may have changed after `seen`, or errc::timed_out at the deadline.
  // Level-triggered: spurious returns are allowed, missed changes are not. The caller reads again.
  virtual Async<Index> changed_since(Index seen, TimePoint deadline) = 0;
};

}  // namespace spilo::dcs
