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
  if (plan.f.session.empty() || plan.now + plan.lease_length / 3 >= plan.f.session_valid_until)
    return plan.say("nobody leads; waiting for a session with the store");
  return false;
}

// Whoever took the lock without a guard would not be promoted.
bool unguarded(Plan& plan) {
  if (!plan.unlocked || plan.f.guard_ready || plan.node->role != NodeView::Role::replica) return false;
  return plan.say("not racing: the guard is not ready: {}", plan.f.guard_problem);
}

bool promised(Plan& plan) {
  if (!plan.unlocked || plan.now >= plan.mem.promise.until) return false;
  // It gave the lock back itself: it needs no promise any more. The grant requires that to be still so.
  const auto& term = plan.cluster->term;
  const auto& promise = plan.mem.promise;
  if (term.released && term.holder == promise.leader && !promise.mixed) return false;
  plan.wake_at(plan.mem.promise.until);
  return plan.say("not racing: {} leads without the store, and has our promise for {:.1f}s",
                  plan.mem.promise.leader.str(),
                  Plan::seconds(plan.mem.promise.until - plan.now));
}

bool take(Plan& plan, std::string why) {
  if (!plan.lock_view_current()) return plan.say("reading the store again before taking the lock");
  plan.mem.served_request =
      plan.cluster->failover.requested() ? plan.cluster->failover.version : dcs::Version{};
  plan.take_lock();
  return plan.say("taking the lock: {}", why);
}

Duration round_of(const Plan& plan) {
  return plan.t.loop_wait;
}

// Answers are worth nothing once the world has moved on: ask again each heartbeat while nobody leads.
TimePoint round_began(const Plan& plan) {
  const auto round = round_of(plan);
  return plan.mem.unlocked_since + (plan.now - plan.mem.unlocked_since) / round * round;
}

// Those that the last leader could live on the promises of.
std::vector<Member> listed_in_failsafe(const Plan& plan) {
  std::vector<Member> listed;
  for (const auto& [name, api_url] : *plan.cluster->failsafe) {
    if (name == plan.id.node) continue;
    Member member;
    member.name = name;
    member.api_url = api_url;
    listed.push_back(std::move(member));
  }
  return listed;
}

// The answers of this round.
Probes probe_now(Plan& plan, const std::vector<Member>& who) {
  std::vector<const Member*> asked;
  for (const auto& member : who) asked.push_back(&member);
  const auto since = round_began(plan);
  plan.wake_at(since + round_of(plan));
  return probe(plan, asked, since);
}

// A manual failover to this node, which is not listed in failsafe: an operator knows that the last leader is
// gone for good.
bool overrides_failsafe(const Plan& plan) {
  const auto& request = plan.cluster->failover;
  return plan.cluster->failsafe && !plan.cluster->failsafe->empty() && !plan.cluster->term.released &&
         !plan.cluster->failsafe->contains(plan.id.node) && request.leader.empty() &&
         request.candidate == plan.id.node;
}

// A leader may live without the store on the promises of the members listed in `failsafe`. Who is not
// listed was never asked, and a fresh agent may have forgotten its own promise: both need an answer
// from everybody who could be that leader. True: somebody is missing, and the decision is to wait.
bool may_live_elsewhere(Plan& plan) {
  if (!plan.cluster->failsafe || plan.cluster->failsafe->empty()) return false;
  if (plan.cluster->term.released) return false;  // by the last leader itself
  const bool listed = plan.cluster->failsafe->contains(plan.id.node);
  if (overrides_failsafe(plan)) return false;
  const auto remembers = plan.mem.started_at + plan.t.ttl;
  if (listed && plan.now >= remembers) return false;
  const auto others = listed_in_failsafe(plan);
  const auto probes = probe_now(plan, others);
  for (const auto& other : others) {
    const bool answered = std::ranges::any_of(probes.answers, [&](const PeerStatus* peer) {
      return peer->node == other.name && peer->answered;
    });
    if (answered) continue;
    if (listed) plan.wake_at(remembers);
    return plan.say("not racing: {} does not answer that it does not lead, and {}",
                    other.name.str(),
                    listed ? std::string("this agent has just started and may have promised it the lock")
                           : fmt::format("this node is not listed in failsafe, so nobody asked it; if {} is "
                                         "certainly gone, `spiloctl failover --candidate {}`",
                                         other.name.str(),
                                         plan.id.node.str()));
  }
  return false;
}

bool elsewhere(Plan& plan) {
  return plan.unlocked && plan.node->role == NodeView::Role::replica && plan.node->running() &&
         !plan.id.tags.nofailover && may_live_elsewhere(plan);
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
    // Unless the last leader itself says otherwise.
    if (overrides_failsafe(plan)) {
      const auto listed = listed_in_failsafe(plan);
      const auto probes = probe_now(plan, listed);
      for (const auto* peer : probes.answers)
        if (peer->reachable && !peer->in_recovery)
          return plan.say(
              "named to lead, but {} answers that it runs as the primary: it leads without the store. Stop it "
              "first",
              peer->node.str());
      if (!probes.waiting_for.empty())
        return plan.say("named to lead; asking {} whether it still leads", probes.waiting_for.str());
    }
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

// Whoever else has data must have the time to say so: the sessions of the other members may just have been
// lost with everything else that a wiped store knew, and an agent that has started since knows nobody.
bool unknown_to_store(Plan& plan) {
  if (!plan.unlocked || !plan.store_is_blank()) return false;
  const auto until = plan.mem.unlocked_since + plan.t.ttl;
  if (plan.now >= until) return false;
  plan.wake_at(until);
  return plan.say("not racing yet: the store knows nothing of a leader, and members with more than we have may "
                  "report within {:.1f}s",
                  Plan::seconds(until - plan.now));
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

// Who is not listed in failsafe can't take the lock before everybody listed has answered it. It is waited
// for, because it may have more than we, but not without end.
bool can_race(const Plan& plan, const NodeName& peer) {
  const auto& listed = plan.cluster->failsafe;
  if (!listed || listed->empty() || listed->contains(peer) || plan.cluster->term.released) return true;
  return plan.now < plan.mem.unlocked_since + plan.t.ttl * 2;
}

bool race(Plan& plan) {
  if (!plan.unlocked || plan.node->role != NodeView::Role::replica) return false;
  const auto since = round_began(plan);
  const auto others = other_members(plan);
  const auto probes = probe(plan, others, since);
  plan.wake_at(since + round_of(plan));
  const auto mine = plan.node->last_lsn();
  const bool timelines_count = plan.config.check_timeline && !plan.id.plant.no_timeline_check;
  for (const auto* peer : probes.answers) {
    if (!peer->reachable) continue;
    if (!peer->in_recovery)
      return plan.say("not racing: Primary ({}) is still alive", peer->node.str());
    if (peer->nofailover || peer->watchdog_failed) continue;
    // It stands back by itself: its log is longer, but it is another one's.
    if (timelines_count && peer->timeline != TimelineId{} &&
        peer->timeline < std::max(plan.node->timeline, plan.cluster_timeline()))
      continue;
    if (!can_race(plan, peer->node)) continue;
    if (peer->timeline > plan.node->timeline && timelines_count)
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
  return take(plan,
              fmt::format("the healthiest node, at {} on timeline {}",
                          spilo::to_text(mine),
                          to_int(plan.node->timeline)));
}

constexpr std::array table = {
    RuleEntry{
        "race-evidence", "Nobody races on an old picture or without a session.", evidence_missing},
    RuleEntry{"race-unguarded", "Who can't be fenced does not lead.", unguarded},
    RuleEntry{"race-promised", "A promise to a leader without a store is kept.", promised},
    RuleEntry{"race-elsewhere",
              "Who may have forgotten a promise, or gave none, asks everybody who may rely on one.",
              elsewhere},
    RuleEntry{"race-by-request", "A request names who is to take the lock.", race_by_request},
    RuleEntry{"race-excluded", "Some nodes never take the lock by themselves.", excluded},
    RuleEntry{"race-unknown",
              "In a store that has seen no leader yet, everybody has the time of a ttl to report.",
              unknown_to_store},
    RuleEntry{"race-behind", "Who lacks too much does not lead.", behind},
    RuleEntry{"acquire-lock", "The healthiest node takes the lock.", race},
};

}  // namespace

std::span<const RuleEntry> race_rules() noexcept {
  return table;
}

}  // namespace spilo::ha
