// The server is down, starting or hung (contract 3.3 and 3.6).
#include <array>

#include "plan.hpp"

namespace spilo::ha {
namespace {

constexpr int crashes_in_place = 3;  // within ten minutes; then somebody else is to try

bool was_in_production(const NodeView& node) {
  return node.role == NodeView::Role::primary &&
         (node.control_state == "in production" || node.control_state == "in crash recovery" ||
          node.control_state == "shutting down" || node.control_state == "shut down");
}

void release(Plan& plan) {
  auto status = plan.cluster->status;
  if (plan.node->checkpoint_end > status.optime) status.optime = plan.node->checkpoint_end;
  plan.release(codec::dump_status(status));
}

// How long a primary that is down, starting or hung may try before somebody else is to lead.
bool patience_over(const Plan& plan, TimePoint since) {
  return plan.mem.crash_count > crashes_in_place ||
         plan.now >= since + plan.config.primary_start_timeout;
}

bool down_while_paused(Plan& plan) {
  if (!plan.paused || !plan.node->down()) return false;
  if (plan.lock_mine) {
    release(plan);
    return plan.say("removed leader lock because postgres is not running");
  }
  return plan.say("postgres is not running");
}

// The lock is on its way to somebody else, or may be.
bool releasing(Plan& plan) {
  if (!plan.node->down()) return false;
  if (plan.busy(InFlight::release)) return plan.say("giving the lock away");
  const bool in_doubt = plan.f.lock_in_doubt && !plan.lock_view_current();
  if (!plan.lock_mine || !in_doubt || !plan.f.store_answers) return false;
  return plan.say("reading the store, to see whether the lock is still ours");
}

// The stop of a hand-over has ended: the heir must have everything before the key is given away.
bool handover_release(Plan& plan) {
  if (!plan.mem.handover || !plan.lock_mine || !plan.node->down()) return false;
  const auto& handover = *plan.mem.handover;
  const auto required = plan.node->checkpoint_end;
  const auto since = plan.f.last_task ? plan.f.last_task->finished : plan.now;
  auto heirs = find_heir(plan, handover.candidate, required, since);
  if (heirs.best != nullptr) {
    release(plan);
    return plan.say("handing the lock over: {} has everything up to {}",
                    heirs.best->node.str(),
                    spilo::to_text(required));
  }
  if (!heirs.waiting_for.empty())
    return plan.say("asking {} whether it has everything", heirs.waiting_for.str());
  const auto patience = since + std::clamp<Duration>(plan.t.loop_wait, 1s, 3s);
  if (plan.now < patience) {
    // The answers are too old now: ask again a little later.
    plan.wake_at(std::min(patience, plan.now + 50ms));
    for (const auto* member : other_members(plan)) {
      const auto answered = plan.f.peers.find(member->name);
      if ((handover.candidate.empty() || member->name == handover.candidate) &&
          !plan.f.asked.contains(member->name) && answered != plan.f.peers.end() &&
          plan.now >= answered->second.asked_at + 50ms)
        plan.emit(ProbePeer{.node = member->name, .api_url = member->api_url});
    }
    return plan.say("waiting for the heir to receive everything: {}", heirs.problems);
  }
  // Nobody has everything. Going on as the primary loses nothing; handing over would. But only for who
  // still has the lock: it may be lost by now, or given away by a release whose answer was lost.
  plan.mem.handover.reset();
  if (!plan.may_open_for_writes()) return false;
  plan.start(Task{.kind = TaskKind::start, .as_primary = true, .reason = "the hand-over failed"});
  return plan.say("hand-over failed, starting as the primary again: {}", heirs.problems);
}

bool fail_over_after_crash(Plan& plan) {
  // Without a guard it is not started as the primary, however long it is waited for.
  const bool unguarded = plan.guard_missing();
  if (!plan.lock_held || !plan.node->down()) return false;
  if (plan.mem.crashed_at == TimePoint{} && !unguarded) return false;
  if (!unguarded && !patience_over(plan, plan.mem.crashed_at)) {
    plan.wake_at(plan.mem.crashed_at + plan.config.primary_start_timeout);
    return false;
  }
  const auto last = std::max(plan.node->flushed, plan.cluster->status.optime);
  const auto since = unguarded ? plan.unguarded_round() : plan.mem.crashed_at;
  if (unguarded) plan.wake_at(since + plan.t.loop_wait);
  const auto heirs = find_heir(plan, {}, plan.within_lag_of(last), since);
  if (heirs.best != nullptr) {
    release(plan);
    return plan.say("PostgreSQL is down, giving the lock away to fail over; {} can lead",
                    heirs.best->node.str());
  }
  if (!heirs.waiting_for.empty())
    return plan.say("PostgreSQL is down, asking {} whether it can lead", heirs.waiting_for.str());
  return false;
}

bool restart_in_place(Plan& plan) {
  if (!plan.lock_held || !plan.node->down() || !was_in_production(*plan.node)) return false;
  if (plan.now < plan.mem.attempt_not_before) {
    plan.wake_at(plan.mem.attempt_not_before);
    return plan.say("waiting before starting PostgreSQL again");
  }
  if (!plan.f.guard_ready) return plan.say("waiting for the guard: {}", plan.f.guard_problem);
  if (!plan.may_open_for_writes())
    return plan.say("not starting as the primary before the lease is renewed");
  plan.start(Task{.kind = TaskKind::start,
                  .as_primary = true,
                  .timeout = plan.config.primary_start_timeout,
                  .reason = "it was down and we hold the lock"});
  return plan.say("starting primary after failure");
}

// A server whose promotion failed is ended, because it might become a primary later. Somebody else
// is to try first.
bool promotion_failed(Plan& plan) {
  const auto& last = plan.f.last_task;
  if (!plan.lock_mine || !plan.node->down() || !last || !last->failure ||
      last->task.kind != TaskKind::promote || plan.mem.promote_failed_at < plan.f.lock_changed_at)
    return false;
  plan.emit_once(InFlight::release, ReleaseLock{.held = *plan.cluster->leader});
  return plan.say("giving the lock away: the promotion failed: {}", last->failure->text());
}

bool wait_for_heir(Plan& plan) {
  // We have just given the lock away: starting again at once would only compete with whoever is to
  // take it.
  const auto until = plan.mem.released_at + std::clamp<Duration>(plan.t.loop_wait, 2s, 5s);
  if (!plan.node->down() || !plan.unlocked || plan.mem.released_at == TimePoint{} ||
      plan.now >= until)
    return false;
  plan.wake_at(until);
  return plan.say("the lock was given away, waiting for a new leader");
}

bool start_server(Plan& plan) {
  if (!plan.node->down()) return false;
  if (plan.now < plan.mem.attempt_not_before) {
    plan.wake_at(plan.mem.attempt_not_before);
    const auto& last = plan.f.last_task;
    return plan.say("waiting before the next attempt: {}",
                    last && last->failure ? last->failure->text() : "the last one failed");
  }
  const auto upstream = upstream_of(plan);
  if (!upstream.conn_url.empty()) {
    const auto* leader = plan.leader_member();
    if (leader != nullptr && leader->name == upstream.name && leader->role != "primary" &&
        leader->role != "promoted" && leader->role != "standby_leader")
      return plan.say("waiting for {}, the leader, to run as a primary", leader->name.str());
    plan.start(
        Task{.kind = TaskKind::rejoin, .upstream = upstream, .reason = "the server was down"});
    return plan.say("starting as a secondary of {}", upstream.name.str());
  }
  if (plan.leader_other)
    return plan.say("waiting for {}, the leader, to publish its address",
                    plan.cluster->leader->holder.str());
  // As a replica it could never say again that it is a cluster of its own.
  const auto& initialize = plan.cluster->initialize;
  if (plan.unlocked && plan.node->role == NodeView::Role::primary &&
      (!initialize || !is_valid(SystemId(*initialize))))
    return plan.say("waiting: this directory is a primary's, and the store does not know the cluster yet{}",
                    initialize ? ": a node has claimed to create one" : "");
  plan.start(Task{.kind = TaskKind::start,
                  .reason = plan.lock_mine ? "we hold the lock" : "nobody leads yet"});
  return plan.say("{}",
                  plan.lock_mine ? "starting as readonly because i had the session lock"
                                 : "starting as a secondary, nobody leads yet");
}

bool server_hung(Plan& plan) {
  if (plan.node->process != NodeView::Process::hung || plan.paused) return false;
  const auto since = plan.mem.hung_since;
  const auto patience = std::max(plan.config.primary_start_timeout, plan.t.retry_timeout);
  if (plan.lock_held && plan.now >= since + patience) {
    const auto heirs = find_heir(plan, {}, Lsn{}, since);
    if (heirs.best != nullptr) {
      plan.kill("it has not answered for too long");
      plan.mem.crash_count = crashes_in_place + 1;
      return plan.say(
          "PostgreSQL has not answered for {:.0f}s, ending it to fail over; {} can lead",
          Plan::seconds(plan.now - since),
          heirs.best->node.str());
    }
  }
  plan.wake_at(since + patience);
  return plan.say("PostgreSQL does not answer since {:.0f}s: {}",
                  Plan::seconds(plan.now - since),
                  plan.node->problem);
}

// A stop that nobody waits for any more, because its task gave up or the agent that began it is gone.
bool stop_stuck(Plan& plan) {
  if (plan.node->process != NodeView::Process::stopping || plan.paused) return false;
  if (plan.mem.stopping_since == TimePoint{}) return false;
  const auto patience = plan.mem.stopping_since + plan.t.retry_timeout;
  if (plan.now < patience) {
    plan.wake_at(patience);
    return false;
  }
  plan.kill("it does not come to an end of its stop");
  return plan.say("ending PostgreSQL at once: it has been stopping for {:.0f}s, and no task waits for it",
                  Plan::seconds(plan.now - plan.mem.stopping_since));
}

bool server_starting(Plan& plan) {
  if (plan.node->running()) return false;
  return plan.say(
      "PostgreSQL is {}",
      plan.node->process == NodeView::Process::stopping ? "stopping" : "still starting up");
}

constexpr std::array table = {
    RuleEntry{"down-while-paused", "Nothing is started while paused.", down_while_paused},
    RuleEntry{"releasing",
              "A server that is down stays down while its lock may be going to somebody else.",
              releasing},
    RuleEntry{"handover-release",
              "A hand-over gives the lock away once the heir has everything.",
              handover_release},
    RuleEntry{"fail-over-after-crash",
              "A primary that is down for too long gives the lock away, if somebody can lead.",
              fail_over_after_crash},
    RuleEntry{"restart-in-place",
              "A crashed primary that holds the lock is started again.",
              restart_in_place},
    RuleEntry{"promotion-failed",
              "A server that was ended because its promotion failed gives the lock away.",
              promotion_failed},
    RuleEntry{"wait-for-heir", "Who gave the lock away lets the others take it.", wait_for_heir},
    RuleEntry{"start-server", "A server that is down is started as a replica.", start_server},
    RuleEntry{"server-hung", "A primary that does not answer for too long is ended.", server_hung},
    RuleEntry{"stop-stuck",
              "A server whose stop does not end, and that nobody waits for, is ended.",
              stop_stuck},
    RuleEntry{
        "server-starting", "A server that is starting or stopping is waited for.", server_starting},
};

}  // namespace

std::span<const RuleEntry> crash_rules() noexcept {
  return table;
}

}  // namespace spilo::ha
