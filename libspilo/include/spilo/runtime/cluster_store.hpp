// The cluster's schema over any Store: knows every key name and every JSON shape, and which writes
// are fenced. Written once.
#pragma once

#include <optional>
#include <string>
#include <utility>

#include "spilo/ha/effect.hpp"
#include "spilo/model/cluster_view.hpp"
#include "spilo/ports/clock.hpp"
#include "spilo/ports/dcs.hpp"

namespace spilo {

// References, not owners: store and clock outlive every operation. One strand of execution;
// operations may overlap.
class ClusterStore {
 public:
  ClusterStore(dcs::Store& store, Clock& clock) : store_(store), clock_(clock) {}

  dcs::Store& store() noexcept { return store_; }
  Clock& clock() noexcept { return clock_; }

  Async<ClusterView> load(dcs::Freshness freshness, TimePoint deadline);

  // One transaction: leader absent (or at `rebind`), term at `order.term.version` (absent when
  // zero) => leader = self bound to the present session, term = {number + 1, self, timeline}.
  // conflict: somebody else was faster, or led in between. ambiguous: read again before anything
  // else.
  Async<std::pair<LeaderKey, Term>> acquire_lock(NodeName self,
                                                 SessionId session,
                                                 ha::AcquireLock order,
                                                 TimePoint deadline);
  // One transaction: leader at `held` => erased, and status written when not empty. conflict: it
  // was not ours any more.
  Async<void> release_lock(ha::ReleaseLock order, TimePoint deadline);

  // members/<self>, bound to the present session.
  Async<void> publish_member(NodeName self, std::string value, TimePoint deadline);

  // at: none unconditional, zero version absent, otherwise that version. fence: also require the
  // leader key at its version.
  Async<dcs::Version> write(std::string key,
                            std::string value,
                            std::optional<dcs::Version> at,
                            std::optional<LeaderKey> fence,
                            TimePoint deadline,
                            dcs::Binding binding = dcs::Binding::permanent);
  Async<void> erase(std::string key, dcs::Version at, TimePoint deadline);
  // Everything below the scope, key by key; for `spiloctl remove`.
  Async<void> erase_all(TimePoint deadline);

 private:
  dcs::Store& store_;
  Clock& clock_;
};

// Snapshot -> values; pure.
ClusterView parse_cluster(const dcs::Snapshot& snapshot, TimePoint read_started);

}  // namespace spilo
