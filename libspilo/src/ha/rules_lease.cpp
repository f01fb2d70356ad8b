// Keeping, losing and releasing the lock: the rules that come before everything else.
#include <array>

#include "plan.hpp"
#include "spilo/model/keys.hpp"

namespace spilo::ha {
namespace {

// ---- safety ------------------------------------------------------------------------------------

bool lock_taken(Plan& plan) {
  if (!plan.leader_other || !plan.writable || plan.paused) return false;
  plan.kill("another node leads");
  return plan.say(
      "ending PostgreSQL at once: {} holds the lock, and this server is still a primary",
      plan.cluster->leader->holder.str());
}

bool lease_over(Plan& plan) {
  if (!plan.writable || plan.paused || !plan.deadline || *plan.deadline == TimePoint{})
    return false;
  if (plan.now < *plan.deadline) return false;
  plan.kill("the lease is over");
  return plan.say("ending PostgreSQL at once: the lease is over and was not renewed ({})",
                  plan.f.store_problem.empty() ? "this process was held up" : plan.f.store_problem);
}

bool lease_expiring(Plan& plan) {
  if (!plan.writable || plan.paused || !plan.deadline || *plan.deadline == TimePoint{})
    return false;
  // A key or a session that has vanished is being taken again, within a grace that is all there is.
  const bool vanished = !plan.lock_mine || plan.cluster->leader->session != plan.f.session;
  if (vanished && plan.mem.reclaim_until != TimePoint{}) return false;
  const auto soft = std::clamp<Duration>(plan.t.ttl / 10, 200ms, 1s);
  if (plan.now < *plan.deadline - soft) {
    plan.wake_at(*plan.deadline - soft);
    return false;
  }
  const auto& last = plan.f.last_task;
  if (!plan.f.task && last && last->task.kind == TaskKind::stop && !last->failure &&
      plan.node != nullptr && plan.node->observed_at < last->finished)
    return plan.say("demoted self because the lease was running out; looking at PostgreSQL");
  if (plan.f.task && plan.f.task->task.kind != TaskKind::stop)
    plan.emit(CancelTask{plan.f.task->id});
  plan.start(Task{.kind = TaskKind::stop, .reason = "the lease is running out"});
  return plan.say(
      "demoting self because the lease ends in {:.1f}s and the store does not answer ({})",
      Plan::seconds(*plan.deadline - plan.now),
      plan.f.store_problem);
}

// ---- an orderly stop ---------------------------------------------------------------------------

bool stop_leaving_server(Plan& plan) {
  if (!plan.f.stop_requested || !plan.paused) return false;
  plan.emit(Exit{.status = 0, .why = "told to stop while paused", .end_session = false});
  return plan.say(
      "stopping; the cluster is paused, so PostgreSQL and the lock are left as they are");
}

bool stop_after_task(Plan& plan) {
  if (!plan.f.stop_requested || !plan.f.task) return false;
  const auto kind = plan.f.task->task.kind;
  if (kind != TaskKind::stop && kind != TaskKind::promote) plan.emit(CancelTask{plan.f.task->id});
  return plan.say("stopping; waiting for {} to end", to_text(kind));
}

bool stop_server(Plan& plan) {
  if (!plan.f.stop_requested) return false;
  if (!plan.f.node_current()) return plan.say("stopping; looking at PostgreSQL");
  if (plan.node->down()) return false;
  const auto& last = plan.f.last_task;
  if (last && last->task.kind == TaskKind::stop && last->failure) {
    plan.kill("it did not stop in order");
    return plan.say("stopping; PostgreSQL did not stop in order ({}), ending it at once",
                    last->failure->text());
  }
  const bool primary = plan.node->role == NodeView::Role::primary;
  plan.start(
      Task{.kind = TaskKind::stop, .checkpoint_first = primary, .reason = "the agent stops"});
  return plan.say("stopping PostgreSQL, because the agent was told to stop");
}

ClusterStatus status_after(const Plan& plan) {
  auto status = plan.cluster->status;
  if (plan.node->checkpoint_end > status.optime) status.optime = plan.node->checkpoint_end;
  return status;
}

bool stop_release(Plan& plan) {
  if (!plan.f.stop_requested || !plan.lock_mine || plan.node == nullptr) return false;
  // A store that does not answer keeps nobody from stopping: the key then expires by itself.
  if (!plan.f.store_answers && !plan.busy(InFlight::release)) return false;
  plan.release(codec::dump_status(status_after(plan)));
  return plan.say("PostgreSQL is down, giving the lock away");
}

bool stop_exit(Plan& plan) {
  if (!plan.f.stop_requested) return false;
  plan.emit(Exit{.status = 0, .why = "told to stop"});
  return plan.say("stopped");
}

// ---- what can't be decided yet, and the lock that is ours
// ----------------------------------------

bool observing(Plan& plan) {
  if (plan.f.node_current()) return false;
  return plan.say("looking at PostgreSQL");
}

bool waiting_for_store(Plan& plan) {
  if (plan.cluster != nullptr) return false;
  // Without a lease that we know of nothing may stay writable for long. What an earlier agent left
  // behind is bounded by its guard.
  if (plan.writable && plan.now >= plan.mem.started_at + plan.t.retry_timeout) {
    plan.kill("no lease is known and the store does not answer");
    return plan.say(
        "ending PostgreSQL: it is a primary, no lease is known, and the store does not answer ({})",
        plan.f.store_problem);
  }
  if (plan.writable) plan.wake_at(plan.mem.started_at + plan.t.retry_timeout);
  return plan.say("waiting for the store: {}",
                  plan.f.store_problem.empty() ? "not read yet" : plan.f.store_problem);
}

bool system_id_mismatch(Plan& plan) {
  if (!plan.cluster->initialize) return false;
  const SystemId theirs(*plan.cluster->initialize);
  if (!is_valid(theirs) || !is_valid(plan.node->system_id) || theirs == plan.node->system_id)
    return false;
  if (plan.paused) {
    if (plan.lock_mine) plan.release();
    return plan.say(
        "system ID mismatch, but paused: {} != {}", theirs.str(), plan.node->system_id.str());
  }
  auto why = fmt::format(
      "system ID mismatch, node {} belongs to a different cluster: {} != {}; the data directory "
      "was not touched. "
      "Point this node at the right scope, or move its data directory away to let it clone the "
      "cluster",
      plan.id.node.str(),
      theirs.str(),
      plan.node->system_id.str());
  plan.emit(Exit{.status = 1, .why = why});
  return plan.say("{}", why);
}

bool rebind_lock(Plan& plan) {
  if (!plan.lock_mine || plan.busy(InFlight::release)) return false;
  const auto& held = *plan.cluster->leader;
  // Not while we still want to give it away: then the release is just repeated.
  const bool release_may_follow =
      plan.f.lock_in_doubt && held.version == plan.mem.release_unanswered && !plan.mem.handover;
  if (held.session == plan.f.session && !release_may_follow) return false;
  if (plan.node->data_dir != NodeView::DataDir::initialized) return false;
  plan.take_lock(held.version);
  return release_may_follow
             ? plan.say("binding our lock anew: a release of it was not answered, and may still come")
             : plan.say("binding our lock to our present session");
}

bool nobody_led_since(const Plan& plan) {
  if (plan.id.plant.no_token_check) return true;
  const auto& term = plan.cluster->term;
  return term.version == plan.mem.last_term.version || term.version == dcs::Version{};
}

bool reclaim_lock(Plan& plan) {
  if (!plan.unlocked || !plan.writable || !plan.mem.was_primary) return false;
  if (plan.now >= plan.deadline.value_or(TimePoint{}) && !plan.paused) return false;
  if (!nobody_led_since(plan)) {
    plan.kill("somebody else has led since");
    return plan.say("ending PostgreSQL at once: the lock was granted to {} after us",
                    plan.cluster->term.holder.str());
  }
  plan.take_lock();
  return plan.say("our key has vanished from the store, taking it again; nobody else has held it");
}

// A primary that runs without a lock right after the agent's start: it missed its lease, or it
// comes from before there was a cluster.
bool adopt_primary(Plan& plan) {
  if (!plan.unlocked || !plan.writable || plan.mem.was_primary || plan.f.task) return false;
  if (plan.mem.bootstrapped_here) {
    plan.take_lock();
    return plan.say("the new cluster is created, taking the lock");
  }
  const bool foreign_claim =
      plan.cluster->initialize && !is_valid(SystemId(*plan.cluster->initialize));
  if (foreign_claim) return plan.say("waiting: another node is creating the cluster");
  if (!plan.cluster->initialize && is_valid(plan.node->system_id)) {
    plan.emit_once(InFlight::initialize,
                   WriteKey{.kind = InFlight::initialize,
                            .key = keys::initialize,
                            .value = plan.node->system_id.str(),
                            .at = dcs::Version{}});
    return plan.say("claiming the cluster for the primary that runs here already");
  }
  if (plan.paused) {
    plan.take_lock();
    return plan.say("taking the lock for the primary that runs here, paused");
  }
  if (plan.cluster->term.version == dcs::Version{} && !plan.timeline_too_old()) {
    const auto probes = probe(plan, other_members(plan), plan.mem.started_at);
    for (const auto* peer : probes.answers)
      if (peer->reachable && !peer->in_recovery) {
        plan.kill("another primary runs");
        return plan.say("ending PostgreSQL: {} runs as a primary too", peer->node.str());
      }
    if (!probes.waiting_for.empty())
      return plan.say("asking {} before taking the lock", probes.waiting_for.str());
    plan.take_lock();
    return plan.say("taking the lock for the primary that runs here already");
  }
  plan.start(Task{.kind = TaskKind::stop, .reason = "it missed its lease"});
  return plan.say(
      "stopping PostgreSQL: it ran as a primary without the lock, and comes back as a replica");
}

constexpr std::array lease_table = {
    RuleEntry{
        "lock-taken", "A primary ends at once when somebody else holds the lock.", lock_taken},
    RuleEntry{"lease-over", "A primary ends at once when its lease is over.", lease_over},
    RuleEntry{"lease-expiring",
              "A primary stops in order just before its lease ends without a renewal.",
              lease_expiring},
};
constexpr std::array stop_table = {
    RuleEntry{"stop-paused",
              "Told to stop while paused: leave everything as it is.",
              stop_leaving_server},
    RuleEntry{"stop-after-task", "Told to stop: end the running task first.", stop_after_task},
    RuleEntry{"stop-server", "Told to stop: stop PostgreSQL in order.", stop_server},
    RuleEntry{
        "stop-release", "Told to stop, PostgreSQL is down: give the lock away.", stop_release},
    RuleEntry{"stop-exit", "Told to stop, and nothing is left to do.", stop_exit},
};
constexpr std::array lock_table = {
    RuleEntry{"observing", "Nothing is decided on an outdated picture of PostgreSQL.", observing},
    RuleEntry{"waiting-for-store",
              "Nothing is started before the store was read once.",
              waiting_for_store},
    RuleEntry{"system-id-mismatch",
              "A data directory of another cluster is left alone, and the agent ends.",
              system_id_mismatch},
    RuleEntry{
        "rebind-lock", "Our lock of an earlier session is bound to the present one.", rebind_lock},
    RuleEntry{"reclaim-lock",
              "A running primary takes its vanished key again, if nobody led in between.",
              reclaim_lock},
    RuleEntry{"adopt-primary",
              "A primary found without a lock is adopted if it is the only history, else stopped.",
              adopt_primary},
};

}  // namespace

std::span<const RuleEntry> lease_rules() noexcept {
  return lease_table;
}
std::span<const RuleEntry> stop_rules() noexcept {
  return stop_table;
}
std::span<const RuleEntry> lock_rules() noexcept {
  return lock_table;
}

}  // namespace spilo::ha
