// Holding the lock: switchover and manual failover, keeping, promoting (contract 3.8, 3.13
// and 3.14).
#include <array>

#include "plan.hpp"
#include "spilo/model/keys.hpp"

namespace spilo::ha {
namespace {

void clear_request(Plan& plan) {
  if (!plan.may_write_again()) return;
  plan.emit_once(InFlight::failover,
                 WriteKey{.kind = InFlight::failover,
                          .key = keys::failover,
                          .value = "{}",
                          .at = plan.cluster->failover.version,
                          .fence = plan.cluster->leader});
}

bool refuse(Plan& plan, std::string why) {
  clear_request(plan);
  return plan.say("switchover refused: {}", why);
}

// Is the request due? True: go on with it.
bool due(Plan& plan, bool& decided) {
  const auto& request = plan.cluster->failover;
  decided = false;
  if (!request.scheduled_at) return true;
  if (plan.paused) return false;
  const Duration left = *request.scheduled_at - plan.f.wall;
  if (left > Duration{}) {
    plan.wake_at(plan.now + left);
    return false;
  }
  if (-left <= plan.t.loop_wait * 3 / 2) return true;
  decided = refuse(plan, fmt::format("it was scheduled for {:.0f}s ago", Plan::seconds(-left)));
  return false;
}

// To the candidate, or, where none is named, to whoever has everything once the server has stopped.
void hand_over(Plan& plan, const NodeName& candidate, const PeerStatus& heir) {
  plan.mem.handover = Handover{.candidate = candidate, .started = plan.now};
  plan.start(Task{.kind = TaskKind::stop,
                  .checkpoint_first = true,
                  .reason = fmt::format("the lock is handed over to {}", heir.node.str())});
}

bool switchover(Plan& plan) {
  const auto& request = plan.cluster->failover;
  if (!plan.lock_held || !plan.node->accepts_writes() || !request.requested() || plan.mem.handover)
    return false;
  if (request.version == plan.mem.served_request) return false;  // settled by our own grant
  bool decided = false;
  if (!due(plan, decided)) return decided;
  if (!request.leader.empty() && request.leader != plan.id.node)
    return refuse(plan, fmt::format("{} does not lead, this node does", request.leader.str()));
  if (request.candidate == plan.id.node) return refuse(plan, "this node is the leader already");
  if (request.candidate.empty() && plan.paused)
    return refuse(plan, "paused, and no candidate is named");

  const auto since = std::max(plan.mem.request_seen_at, plan.mem.started_at);
  const auto heirs =
      find_heir(plan, request.candidate, plan.within_lag_of(plan.node->flushed), since);
  if (heirs.best == nullptr) {
    if (!heirs.waiting_for.empty())
      return plan.say("switchover: asking {} whether it can lead", heirs.waiting_for.str());
    return refuse(plan, heirs.problems);
  }
  hand_over(plan, request.candidate, *heirs.best);
  return plan.say("{}: demoting myself, {} can lead",
                  request.leader.empty() ? "manual failover" : "switchover",
                  heirs.best->node.str());
}

// The stop of a hand-over failed, and the server still runs as a primary under our lock.
bool handover_failed(Plan& plan) {
  if (!plan.mem.handover || !plan.lock_held || plan.node->down()) return false;
  const auto& last = plan.f.last_task;
  plan.mem.handover.reset();
  auto why = last && last->failure ? "PostgreSQL did not stop: " + last->failure->text()
                                   : std::string("PostgreSQL is running again");
  if (!plan.cluster->failover.requested()) return plan.say("not handing the lock over: {}", why);
  return refuse(plan, std::move(why));
}

// A primary without a guard is fenced by nobody if its agent stands still: somebody who has one takes
// over. Where nobody can, a cluster that works is not ended for it.
bool unguarded(Plan& plan) {
  if (!plan.guard_missing() || plan.paused || plan.mem.handover) return false;
  if (!plan.lock_held || !plan.node->accepts_writes()) return false;
  const auto since = plan.unguarded_round();
  plan.wake_at(since + plan.t.loop_wait);
  const auto heirs = find_heir(plan, {}, plan.within_lag_of(plan.node->flushed), since);
  if (heirs.best == nullptr)
    return plan.say("leading without a guard, so nothing ends PostgreSQL in time if this agent stands still ({}); {}",
                    plan.f.guard_problem,
                    heirs.waiting_for.empty()
                        ? "nobody else can lead: " + heirs.problems
                        : fmt::format("asking {} whether it can lead", heirs.waiting_for.str()));
  hand_over(plan, {}, *heirs.best);
  return plan.say("demoting myself, no guard can be started here ({}); {} can lead",
                  plan.f.guard_problem,
                  heirs.best->node.str());
}

bool keep_lock(Plan& plan) {
  if (!plan.lock_held || !plan.node->accepts_writes()) return false;
  return plan.say("no action. I am ({}), the leader with the lock", plan.id.node.str());
}

// The key names us and the server is a primary, but the session has run out and the store has not
// said so yet: lease-expiring and lease-over watch the time.
bool keep_without_store(Plan& plan) {
  if (!plan.lock_mine || !plan.node->accepts_writes()) return false;
  if (plan.mem.failsafe_until > plan.now)
    return plan.say(
        "continue to run as a leader because failsafe mode is enabled and all members are "
        "accessible");
  return plan.say("leading on what is left of the lease, {:.1f}s: {}",
                  plan.deadline ? Plan::seconds(*plan.deadline - plan.now) : 0.0,
                  plan.f.store_problem);
}

bool give_back(Plan& plan) {
  if (!plan.lock_mine || plan.node->role != NodeView::Role::replica) return false;
  if (plan.paused && plan.cluster->failover.candidate != plan.id.node) {
    plan.release();
    return plan.say("removed leader lock because postgres is not running as primary");
  }
  const auto& last = plan.f.last_task;
  const bool failed = last && last->failure && last->task.kind == TaskKind::promote &&
                      plan.mem.promote_failed_at >= plan.f.lock_changed_at;
  if (plan.guard_missing()) {
    plan.release();
    return plan.say("giving the lock away: no guard can be started here: {}", plan.f.guard_problem);
  }
  if (!failed && !plan.timeline_too_old()) return false;
  if (plan.timeline_too_old()) plan.mem.promote_failed_at = plan.now;
  plan.release();
  return failed ? plan.say("giving the lock away: the promotion failed: {}", last->failure->text())
                : plan.say("giving the lock away: our timeline {} is older than the cluster's {}",
                           to_int(plan.node->timeline),
                           to_int(plan.cluster_timeline()));
}

bool promote(Plan& plan) {
  if (!plan.lock_held || plan.node->role != NodeView::Role::replica) return false;
  if (!plan.f.guard_ready)
    return plan.say("not promoting yet, the guard is not ready: {}", plan.f.guard_problem);
  if (!plan.may_open_for_writes())
    return plan.say("not promoting before the lease is renewed");
  const auto reserved = plan.cluster->term.reserved;
  // The number that came with the lock is used up: an earlier promotion under this grant began it. A
  // grant of its own for each promotion, or who leads after us might take the number once more.
  if (reserved <= plan.node->timeline) {
    plan.take_lock(plan.cluster->leader->version);
    return plan.say("reserving a timeline for our promotion");
  }
  // Only where PostgreSQL's own choice would be too low.
  const bool raised = to_int(reserved) > to_int(plan.node->timeline) + 1;
  plan.start(Task{.kind = TaskKind::promote,
                  .timeline_min = raised ? reserved : TimelineId{},
                  .reason = "we hold the lock"});
  return plan.say("promoting self to leader, we hold the lock (token {})",
                  plan.cluster->leader->version.era);
}

bool lock_without_lease(Plan& plan) {
  if (!plan.lock_mine) return false;
  return plan.say("the lock names us, waiting for the store to confirm it");
}

constexpr std::array table = {
    RuleEntry{"handover-failed", "A hand-over whose stop failed is called off.", handover_failed},
    RuleEntry{
        "switchover",
        "A requested switchover begins once an heir is known to qualify, and is refused otherwise.",
        switchover},
    RuleEntry{"unguarded", "A primary that can't be fenced hands over, if somebody can lead.", unguarded},
    RuleEntry{"keep-lock", "The leader with the lock goes on.", keep_lock},
    RuleEntry{"keep-without-store",
              "A leader whose store is silent goes on for as long as nobody else can lead.",
              keep_without_store},
    RuleEntry{"give-back", "Who holds the lock and can't lead gives it back.", give_back},
    RuleEntry{"promote", "A replica that holds the lock is promoted.", promote},
    RuleEntry{"lock-without-lease",
              "Nothing is promoted on a lease that is not valid.",
              lock_without_lease},
};

}  // namespace

std::span<const RuleEntry> primary_rules() noexcept {
  return table;
}

}  // namespace spilo::ha
