// Nobody holds the lock: who may take it (contract 3.7). Every node decides for itself; the store
// lets one win.
#include <array>

#include "plan.hpp"

namespace spilo::ha {
namespace {

bool evidence_missing(Plan& plan) {
  if (!plan.unlocked) return false;
  // The picture must be younger than the loss of the leader, or positions are compared that are no
  // more.
  if (plan.node->observed_at < plan.mem.unlocked_since) {
    plan.emit_once(InFlight::observe, ObservePostgres{});
    return plan.say("nobody leads; looking at PostgreSQL before racing");
  }
  if (!plan.f.store_answers)
    return plan.say("nobody leads, and the store does not answer: {}", plan.f.store_problem);
  if (plan.f.session.empty() || plan.now + plan.t.ttl / 3 >= plan.f.session_valid_until)
    return plan.say("nobody leads; waiting for a session with the store");
  return false;
}

bool promised(Plan& plan) {
  if (!plan.unlocked || plan.now >= plan.mem.failsafe_promised_until) return false;
  plan.wake_at(plan.mem.failsafe_promised_until);
  return plan.say("not racing: {} leads without the store, and has our promise for {:.1f}s",
                  plan.mem.failsafe_promised_to.str(),
                  Plan::seconds(plan.mem.failsafe_promised_until - plan.now));
}

bool take(Plan& plan, std::string why) {
  if (!plan.lock_view_current()) return plan.say("reading the store again before taking the lock");
  plan.mem.served_request =
      plan.cluster->failover.requested() ? plan.cluster->failover.version : dcs::Version{};
  plan.emit_once(
      InFlight::acquire,
      AcquireLock{.term = plan.cluster->term,
                  .timeline = std::max(plan.node->timeline, plan.cluster->term.timeline)});
  return plan.say("taking the lock: {}", why);
}

// A request names the next leader, or the last one.
bool race_by_request(Plan& plan) {
  if (!plan.unlocked || !plan.cluster->failover.requested()) return false;
  const auto& request = plan.cluster->failover;
  if (request.candidate == plan.id.node) {
    if (plan.id.tags.nofailover) return false;
    if (plan.timeline_too_old())
      return plan.say("named to lead, but our timeline {} is older than the cluster's {}",
                      to_int(plan.node->timeline),
                      to_int(plan.cluster_timeline()));
    return take(plan, "this node was named to lead");
  }
  if (plan.paused) return plan.say("paused: only the named candidate may take the lock");
  if (!request.candidate.empty()) {
    // Leave it to the candidate while it can take it; without end if it could only be late, no.
    const auto patience = plan.mem.unlocked_since + std::clamp<Duration>(plan.t.loop_wait, 2s, 10s);
    const auto heirs = find_heir(plan, request.candidate, Lsn{}, plan.mem.unlocked_since);
    if (plan.now < patience && (heirs.best != nullptr || !heirs.waiting_for.empty())) {
      plan.wake_at(patience);
      return plan.say("leaving the lock to {}, which was named to lead", request.candidate.str());
    }
  }
  if (request.leader == plan.id.node) {
    const auto heirs = find_heir(plan, {}, Lsn{}, plan.mem.unlocked_since);
    const auto patience = plan.mem.unlocked_since + std::clamp<Duration>(plan.t.loop_wait, 2s, 10s);
    if (plan.now < patience && (heirs.best != nullptr || !heirs.waiting_for.empty())) {
      plan.wake_at(patience);
      return plan.say("leaving the lock to the others, as was asked");
    }
  }
  return false;
}

bool excluded(Plan& plan) {
  if (!plan.unlocked) return false;
  if (plan.paused) return plan.say("paused: nobody takes the lock automatically");
  if (plan.id.tags.nofailover)
    return plan.say("following a different leader because I am not allowed to promote");
  if (plan.cluster->failsafe && !plan.cluster->failsafe->empty() &&
      !plan.cluster->failsafe->contains(plan.id.node))
    return plan.say(
        "not racing: this node is not listed in failsafe, so a leader may live without asking it; if "
        "it certainly does not, name this node with `spiloctl failover --candidate {}`",
        plan.id.node.str());
  const auto back = plan.mem.promote_failed_at + plan.t.ttl;
  if (plan.mem.promote_failed_at != TimePoint{} && plan.now < back) {
    plan.wake_at(back);
    return plan.say("standing back after our promotion failed");
  }
  if (!plan.cluster->initialize || !is_valid(SystemId(*plan.cluster->initialize)))
    return plan.say(
        "waiting: the store does not know this cluster (initialize is {}), and this server is a "
        "replica. A primary "
        "restores the keys by itself; if there is none left, name one with a manual failover",
        plan.cluster->initialize ? "claimed by a node that creates one" : "missing");
  return false;
}

bool behind(Plan& plan) {
  if (!plan.unlocked) return false;
  if (plan.timeline_too_old())
    return plan.say("not racing: our timeline {} is older than the cluster's {}",
                    to_int(plan.node->timeline),
                    to_int(plan.cluster_timeline()));
  const auto last = to_int(plan.cluster->status.optime);
  const auto mine = to_int(plan.node->last_lsn());
  if (last > mine && static_cast<std::int64_t>(last - mine) > plan.config.maximum_lag_on_failover)
    return plan.say("not racing: {} bytes behind the last leader, maximum_lag_on_failover is {}",
                    last - mine,
                    plan.config.maximum_lag_on_failover);
  return false;
}

// Everyone is asked for; a fresh agent may have forgotten a promise, so it needs an answer from
// everybody who could rely on one.
bool everybody_answered(const Plan& plan, const Probes& probes, NodeName& missing) {
  if (plan.now >= plan.mem.started_at + plan.t.ttl || !plan.cluster->failsafe) return true;
  for (const auto& entry : *plan.cluster->failsafe) {
    const auto& name = entry.first;  // clang 14 can't capture a structured binding
    if (name == plan.id.node) continue;
    const bool answered = std::ranges::any_of(probes.answers, [&](const PeerStatus* peer) {
      return peer->node == name && peer->answered;
    });
    if (!answered) {
      missing = name;
      return false;
    }
  }
  return true;
}

bool race(Plan& plan) {
  if (!plan.unlocked || plan.node->role != NodeView::Role::replica) return false;
  // Answers are worth nothing once the world has moved on: ask again each heartbeat while nobody
  // leads.
  const auto round = plan.t.loop_wait;
  const auto since = plan.mem.unlocked_since + (plan.now - plan.mem.unlocked_since) / round * round;
  const auto others = other_members(plan);
  const auto probes = probe(plan, others, since);
  plan.wake_at(since + round);
  const auto mine = plan.node->last_lsn();
  for (const auto* peer : probes.answers) {
    if (!peer->reachable) continue;
    if (!peer->in_recovery)
      return plan.say("not racing: Primary ({}) is still alive", peer->node.str());
    if (peer->nofailover || peer->watchdog_failed) continue;
    // It may not race itself (`behind`): waiting for it would leave the cluster without a leader.
    if (peer->timeline != TimelineId{} && peer->timeline < plan.cluster_timeline() &&
        plan.config.check_timeline && !plan.id.plant.no_timeline_check)
      continue;
    if (peer->timeline > plan.node->timeline && plan.config.check_timeline &&
        !plan.id.plant.no_timeline_check)
      return plan.say(
          "following a different leader because i am not the healthiest node: {} is on timeline "
          "{}, we on {}",
          peer->node.str(),
          to_int(peer->timeline),
          to_int(plan.node->timeline));
    if (peer->lsn > mine)
      return plan.say(
          "following a different leader because i am not the healthiest node: Wal position of {} "
          "is ahead "
          "of my wal position",
          peer->node.str());
    if (peer->lsn == mine && peer->failover_priority > plan.id.tags.failover_priority)
      return plan.say("leaving the lock to {}: equal WAL position, higher failover_priority",
                      peer->node.str());
  }
  if (!probes.waiting_for.empty())
    return plan.say("nobody leads; asking {} for its WAL position", probes.waiting_for.str());
  NodeName missing;
  if (!everybody_answered(plan, probes, missing)) {
    plan.wake_at(plan.mem.started_at + plan.t.ttl);
    return plan.say(
        "not racing for the first ttl: {} does not answer and may lead without the store",
        missing.str());
  }
  return take(plan,
              fmt::format("the healthiest node, at {} on timeline {}",
                          spilo::to_text(mine),
                          to_int(plan.node->timeline)));
}

constexpr std::array table = {
    RuleEntry{
        "race-evidence", "Nobody races on an old picture or without a session.", evidence_missing},
    RuleEntry{"race-promised", "A promise to a leader without a store is kept.", promised},
    RuleEntry{"race-by-request", "A request names who is to take the lock.", race_by_request},
    RuleEntry{"race-excluded", "Some nodes never take the lock by themselves.", excluded},
    RuleEntry{"race-behind", "Who lacks too much does not lead.", behind},
    RuleEntry{"acquire-lock", "The healthiest node takes the lock.", race},
};

}  // namespace

std::span<const RuleEntry> race_rules() noexcept {
  return table;
}

}  // namespace spilo::ha
