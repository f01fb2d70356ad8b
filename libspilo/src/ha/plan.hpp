// One decision in the making: the facts, what follows from them, and the effects so far. Private to
// ha/.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "spilo/ha/machine.hpp"
#include "spilo/model/codec.hpp"

namespace spilo::ha {

using namespace std::chrono_literals;

struct Plan {
  Plan(const Identity& identity, const Facts& facts, const Memory& memory);

  const Identity& id;
  const Facts& f;
  Memory mem;
  const Timing t;
  // How long a lease is: the ttl, or less where the session was opened with a shorter one.
  const Duration lease_length;
  const TimePoint now;

  std::vector<Effect> effects;
  std::set<std::uint64_t> answered;  // requests that this decision replies to
  TimePoint wake;
  std::string_view rule;
  std::string summary;

  // ---- what follows from the facts -----------------------------------------------------------
  const ClusterView* cluster;   // null: never read
  const NodeView* node;         // null: never observed
  const DynamicConfig local;    // the defaults with the local timing
  const DynamicConfig& config;  // the store's, else local
  bool paused;
  bool lock_mine;                     // the key names us
  bool lock_held;                     // and is bound to our present session, which is valid now
  bool leader_other;                  // the key names somebody else
  bool unlocked;                      // read, and nobody holds it
  bool writable;                      // the server is, or is being made, a primary
  std::optional<TimePoint> deadline;  // guard_deadline

  bool busy(InFlight kind) const { return f.in_flight.contains(kind); }
  bool task_running(TaskKind kind) const { return f.task && f.task->task.kind == kind; }
  const Member* leader_member() const {
    return cluster != nullptr && cluster->leader ? cluster->member(cluster->leader->holder)
                                                 : nullptr;
  }
  // No leader has written anything yet: a cluster that is new to the store, or a store that was wiped.
  bool store_is_blank() const;
  // The highest timeline that the store knows a primary to have had.
  TimelineId cluster_timeline() const;
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;
  bool timeline_too_old() const;
  // For the grant that we are about to ask for: the number of the timeline that our promotion begins.
  TimelineId timeline_to_reserve() const;
  // May a server that is down be started as a primary, or a replica be promoted: the lock is ours
  // beyond doubt, for longer than this takes to go wrong, and the guard watches.
  bool may_open_for_writes() const;
  // No guard can be started: it was tried each second for a while.
  bool guard_missing() const;
  // When the heirs of who has no guard were asked last, or are to be asked now.
  TimePoint unguarded_round() const;
  // What an heir must have at least, where the log ends at `end`: maximum_lag_on_failover before it.
  Lsn within_lag_of(Lsn end) const;
  // Whether what was read is younger than the last write that ended: repeated on the same ground it fails again, as
  // fast as the store can refuse it. And not at once after a refusal that reading does not cure.
  bool may_write_again() const {
    const bool refused = f.write_refused_at != TimePoint{} && now < f.write_refused_at + t.loop_wait;
    return cluster->read_started >= f.write_ended_at && !refused;
  }
  // Is what we know of the lock younger than its last change? Only then may we try to take it.
  bool lock_view_current() const {
    return cluster != nullptr && cluster->read_started >= f.lock_changed_at;
  }
  static double seconds(Duration d) { return std::chrono::duration<double>(d).count(); }

  // ---- building the decision ------------------------------------------------------------------
  void emit(Effect effect) { effects.push_back(std::move(effect)); }
  // Emits unless one of the kind is on its way.
  void emit_once(InFlight kind, Effect effect);
  void wake_at(TimePoint at) {
    if (at > now) wake = std::min(wake, at);
  }
  void reply(std::uint64_t request, int status, std::string text) {
    answered.insert(request);
    emit(Reply{.request = request, .status = status, .text = std::move(text)});
  }
  void start(Task task);
  // A task runs, or this decision starts one.
  bool task_expected() const {
    return f.task || std::ranges::any_of(effects, [](const Effect& effect) {
             return std::holds_alternative<StartTask>(effect);
           });
  }
  void kill(std::string why);
  // Asks for the lock, with the number of the timeline that our next promotion begins. `rebind`: the key
  // that we hold, granted to us anew.
  void take_lock(std::optional<dcs::Version> rebind = {});
  // Gives the lock away, unless that is on its way or may have happened.
  void release(std::string status = {});
  template <class... Args>
  bool say(fmt::format_string<Args...> text, Args&&... args) {
    summary = fmt::format(text, std::forward<Args>(args)...);
    return true;
  }
};

// Asks every one of `who` about its state, unless an answer to a question not older than `since` is
// there.
struct Probes {
  std::vector<const PeerStatus*> answers;  // also the unreachable ones that were asked in time
  NodeName waiting_for;                    // somebody may still answer; empty: no more
};
Probes probe(Plan& plan, const std::vector<const Member*>& who, TimePoint since);
// Members of the last views except ourselves that have an api_url.
std::vector<const Member*> other_members(const Plan& plan);

// Does `peer` qualify to lead after us: reachable, in recovery, not excluded, no older timeline,
// and with everything up to `required`? Empty, or why not.
std::string cannot_lead(const Plan& plan, const PeerStatus& peer, Lsn required);
// Asks the members that may lead after us (`only`: just that one). The first that qualifies, by WAL
// position.
struct Heirs {
  const PeerStatus* best = nullptr;
  NodeName waiting_for;
  std::string problems;  // why the others do not qualify
};
Heirs find_heir(Plan& plan, const NodeName& only, Lsn required, TimePoint since);

// Whom a replica on this node follows: replicatefrom when that member exists, else the leader.
Upstream upstream_of(const Plan& plan);

// A rule decides (true, with plan.summary set) or passes.
struct RuleEntry {
  std::string_view name;
  std::string_view sentence;
  bool (*apply)(Plan&);
};
std::span<const RuleEntry> lease_rules() noexcept;
std::span<const RuleEntry> stop_rules() noexcept;
std::span<const RuleEntry> lock_rules() noexcept;
std::span<const RuleEntry> operator_rules() noexcept;
std::span<const RuleEntry> bootstrap_rules() noexcept;
std::span<const RuleEntry> crash_rules() noexcept;
std::span<const RuleEntry> primary_rules() noexcept;
std::span<const RuleEntry> race_rules() noexcept;
std::span<const RuleEntry> replica_rules() noexcept;

// Duties: done beside whatever rule decides.
void gather(Plan& plan);           // reads, observations, the guard process
void answer_failsafe(Plan& plan);  // promises to a leader without a store
void ask_failsafe(Plan& plan);     // and asking for them
void serve_requests(Plan& plan);   // refusals and replies of operators' requests
void call_back(Plan& plan);        // the operators' scripts (contract 10.1)
void publish(Plan& plan);          // our member key
void keep_books(Plan& plan);  // status, history, failsafe, config, initialize: the leader's keys

}  // namespace spilo::ha
