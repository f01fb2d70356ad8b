#include "plan.hpp"

namespace spilo::ha {
namespace {

DynamicConfig local_config(const Identity& identity) {
  DynamicConfig config;
  config.timing = identity.timing;
  return config;
}

// Is the server a primary, or may a running task make it one at any moment?
bool may_be_writable(const Facts& facts) noexcept {
  if (facts.task) {
    const auto& task = facts.task->task;
    if (task.kind == TaskKind::promote || task.kind == TaskKind::bootstrap) return true;
    if (task.kind == TaskKind::start && task.as_primary) return true;
    if (task.kind == TaskKind::restart && facts.node && facts.node->role == NodeView::Role::primary)
      return true;
  }
  return facts.node && facts.node->alive() && facts.node->role == NodeView::Role::primary;
}

// A new cluster is created before there is a lock to hold: the claim on `initialize` stands in for
// it.
bool creating_cluster(const Identity& identity, const Facts& facts, const Memory& memory) noexcept {
  return memory.bootstrapped_here && !(facts.cluster && facts.cluster->leader &&
                                       facts.cluster->leader->holder == identity.node);
}

bool is_paused(const Facts& facts) noexcept {
  return facts.cluster && facts.cluster->config && facts.cluster->config->pause;
}

// What the guard keeps back of a lease: the difference of clock rates, and the time that a hard
// stop takes.
Duration margin(const Identity& identity, const Facts& facts) noexcept {
  // A session that was opened with a longer ttl drifts by more.
  const auto ttl = std::max(timing(identity, facts).ttl, facts.session_granted);
  if (identity.plant.no_lease_margin) return -ttl;
  return ttl / 200 + identity.hard_stop;
}

}  // namespace

const Timing& timing(const Identity& identity, const Facts& facts) noexcept {
  return facts.cluster && facts.cluster->config ? facts.cluster->config->timing : identity.timing;
}

bool holds_lock(const Identity& identity, const Facts& facts) noexcept {
  return !facts.lock_in_doubt && !facts.in_flight.contains(InFlight::release) && facts.cluster &&
         facts.cluster->leader && facts.cluster->leader->holder == identity.node &&
         !facts.session.empty() && facts.cluster->leader->session == facts.session &&
         facts.now < facts.session_valid_until;
}

TimePoint safe_until(const Identity& identity, const Facts& facts, const Memory& memory) noexcept {
  // A lock that is being taken back ends with the session that it is bound to, and it may be bound already
  // where no answer came.
  const auto reclaim = facts.session.empty()
                           ? memory.reclaim_until
                           : std::min(memory.reclaim_until, facts.session_valid_until);
  TimePoint safe = std::max(reclaim, memory.failsafe_until);
  if (facts.cluster && facts.cluster->leader && facts.cluster->leader->holder == identity.node &&
      !facts.session.empty() && facts.cluster->leader->session == facts.session)
    safe = std::max(safe, facts.session_valid_until);
  return safe;
}

std::optional<TimePoint> guard_deadline(const Identity& identity,
                                        const Facts& facts,
                                        const Memory& memory) noexcept {
  if (is_paused(facts)) return TimePoint{};
  if (creating_cluster(identity, facts, memory)) {
    // The claim's session stands in for the lease: once it is over, somebody else may create the
    // cluster.
    if (facts.session != memory.claim_session) return TimePoint(Duration(1));
    return facts.session_valid_until - margin(identity, facts);
  }
  if (!facts.node) return std::nullopt;
  const bool lock_mine =
      facts.cluster && facts.cluster->leader && facts.cluster->leader->holder == identity.node;
  const auto safe = safe_until(identity, facts, memory);
  if (may_be_writable(facts))
    return safe == TimePoint{} ? std::nullopt : std::optional(safe - margin(identity, facts));
  // A replica that holds the lock is about to be promoted: armed before, not after. Once the lease
  // is over nothing will be, and what is no primary may run.
  if (lock_mine && facts.now < safe - margin(identity, facts))
    return safe - margin(identity, facts);
  // An old picture is no ground to stand down: a task may have made it a primary since.
  return facts.node_current() ? std::optional(TimePoint{}) : std::nullopt;
}

std::optional<TimePoint> guard_limit(const Identity& identity, const Facts& facts) noexcept {
  if (!may_be_writable(facts) || is_paused(facts) || facts.session.empty() ||
      !facts.in_flight.contains(InFlight::acquire))
    return std::nullopt;
  return facts.session_valid_until - margin(identity, facts);
}

Plan::Plan(const Identity& identity, const Facts& facts, const Memory& memory)
    : id(identity),
      f(facts),
      mem(memory),
      t(timing(identity, facts)),
      lease_length(facts.session_granted > Duration{} ? std::min(t.ttl, facts.session_granted)
                                                      : t.ttl),
      now(facts.now),
      wake(facts.now + t.loop_wait),
      cluster(facts.cluster ? &*facts.cluster : nullptr),
      node(facts.node ? &*facts.node : nullptr),
      local(local_config(identity)),
      config(facts.cluster && facts.cluster->config ? *facts.cluster->config : local),
      paused(is_paused(facts)),
      lock_mine(cluster != nullptr && cluster->leader && cluster->leader->holder == identity.node),
      lock_held(holds_lock(identity, facts)),
      leader_other(cluster != nullptr && cluster->leader && !lock_mine),
      unlocked(cluster != nullptr && !cluster->leader),
      writable(may_be_writable(facts)),
      deadline(guard_deadline(identity, facts, memory)) {}

bool Plan::store_is_blank() const {
  return cluster != nullptr && cluster->config_version == dcs::Version{} &&
         cluster->term.version == dcs::Version{};
}

TimelineId Plan::cluster_timeline() const {
  if (cluster == nullptr) return TimelineId{};
  return std::max(cluster->timeline(), cluster->term.timeline);
}

TimelineId Plan::timeline_to_reserve() const {
  const auto highest = std::max({cluster_timeline(), cluster->term.reserved, node->timeline});
  if (writable) return highest;
  if (!store_is_blank()) return TimelineId{to_int(highest) + 1};
  // It has forgotten what numbers it gave, and a node that is away may have begun some of them:
  // those are left out.
  constexpr std::uint32_t forgotten = 16;
  auto seen = highest;
  for (const auto& [name, member] : f.known_members) seen = std::max(seen, member.timeline);
  return TimelineId{to_int(seen) + forgotten};
}

bool Plan::may_open_for_writes() const {
  return lock_held && f.guard_ready && deadline && now + lease_length / 10 < *deadline;
}

bool Plan::guard_missing() const {
  constexpr Duration patience = 3s;
  return !f.guard_ready && f.guard_lost_at != TimePoint{} && now >= f.guard_lost_at + patience;
}

TimePoint Plan::unguarded_round() const {
  return f.guard_lost_at + (now - f.guard_lost_at) / t.loop_wait * t.loop_wait;
}

Lsn Plan::within_lag_of(Lsn end) const {
  const auto lag =
      static_cast<std::uint64_t>(std::max<std::int64_t>(config.maximum_lag_on_failover, 0));
  return Lsn{to_int(end) > lag ? to_int(end) - lag : 0};
}

void Plan::take_lock(std::optional<dcs::Version> rebind) {
  if (f.session.empty() || !lock_view_current()) return;
  emit_once(InFlight::acquire,
            AcquireLock{.rebind = rebind,
                        .term = cluster->term,
                        .timeline = std::max(node->timeline, cluster->term.timeline),
                        .reserved = timeline_to_reserve()});
}

void Plan::release(std::string status) {
  // The next read shows whether there is anything left to give away.
  if (f.lock_in_doubt && !lock_view_current()) return;
  const bool harmless = node != nullptr && (node->down() || node->role == NodeView::Role::replica);
  emit_once(InFlight::release,
            ReleaseLock{.held = *cluster->leader,
                        .term = harmless ? std::optional(cluster->term) : std::nullopt,
                        .status = std::move(status)});
}

bool Plan::timeline_too_old() const {
  return config.check_timeline && !id.plant.no_timeline_check && node != nullptr &&
         node->timeline < cluster_timeline();
}

void Plan::emit_once(InFlight kind, Effect effect) {
  if (!busy(kind)) emit(std::move(effect));
}

void Plan::start(Task task) {
  if (task_expected()) return;  // at most one
  mem.last_task_id = TaskId{static_cast<std::uint64_t>(mem.last_task_id) + 1};
  emit(StartTask{.id = mem.last_task_id, .task = std::move(task)});
}

void Plan::kill(std::string why) {
  // Once for each picture of the server: the next one shows whether it is gone.
  constexpr Duration pace = 100ms;
  const bool waiting_for_picture =
      node != nullptr && mem.killed_at != TimePoint{} &&
      (node->observed_at < mem.killed_at || now < mem.killed_at + pace);
  if (waiting_for_picture) {
    wake_at(mem.killed_at + pace);
    return;
  }
  mem.killed_at = now;
  if (f.task) emit(CancelTask{f.task->id});
  emit(KillServer{std::move(why)});
}

std::vector<const Member*> other_members(const Plan& plan) {
  std::vector<const Member*> others;
  for (const auto& [name, member] : plan.f.known_members)
    if (name != plan.id.node && !member.api_url.empty()) others.push_back(&member);
  return others;
}

Probes probe(Plan& plan, const std::vector<const Member*>& who, TimePoint since) {
  Probes probes;
  for (const auto* member : who) {
    const auto open = plan.f.asked.find(member->name);
    const auto answered = plan.f.peers.find(member->name);
    if (answered != plan.f.peers.end() && answered->second.asked_at >= since) {
      probes.answers.push_back(&answered->second);
      continue;
    }
    if (open == plan.f.asked.end()) {
      plan.emit(ProbePeer{.node = member->name, .api_url = member->api_url});
      probes.waiting_for = member->name;
      continue;
    }
    // A node that has lost the lock has most likely lost more than that: the others are not kept
    // waiting for it.
    const Duration patience = member->name == plan.mem.last_leader ? 200ms : 1s;
    const auto until = std::max(open->second, since) + patience;
    if (plan.now < until) {
      probes.waiting_for = member->name;
      plan.wake_at(until);
    }
  }
  return probes;
}

std::string cannot_lead(const Plan& plan, const PeerStatus& peer, Lsn required) {
  if (!peer.reachable)
    return fmt::format("{} is not reachable ({})", peer.node.str(), peer.problem);
  if (peer.nofailover) return fmt::format("{} is tagged nofailover", peer.node.str());
  if (peer.watchdog_failed) return fmt::format("the watchdog of {} does not work", peer.node.str());
  if (!peer.in_recovery) return fmt::format("{} runs as a primary", peer.node.str());
  if (peer.lsn < required)
    return fmt::format("{} is at {}, {} bytes behind what it needs",
                       peer.node.str(),
                       spilo::to_text(peer.lsn),
                       to_int(required) - to_int(peer.lsn));
  if (plan.config.check_timeline && peer.timeline < plan.cluster_timeline())
    return fmt::format("{} is on timeline {}, the cluster on {}",
                       peer.node.str(),
                       to_int(peer.timeline),
                       to_int(plan.cluster_timeline()));
  return {};
}

Heirs find_heir(Plan& plan, const NodeName& only, Lsn required, TimePoint since) {
  std::vector<const Member*> who;
  for (const auto* member : other_members(plan))
    if (!member->tags.nofailover && (only.empty() || member->name == only)) who.push_back(member);
  const auto probes = probe(plan, who, since);
  Heirs heirs;
  heirs.waiting_for = probes.waiting_for;
  for (const auto* peer : probes.answers) {
    const auto problem = cannot_lead(plan, *peer, required);
    if (!problem.empty()) {
      heirs.problems += (heirs.problems.empty() ? "" : "; ") + problem;
    } else if (heirs.best == nullptr || peer->lsn > heirs.best->lsn) {
      heirs.best = peer;
    }
  }
  if (heirs.best == nullptr && heirs.waiting_for.empty() && heirs.problems.empty())
    heirs.problems = only.empty() ? "no other member may lead" : only.str() + " is no member";
  return heirs;
}

Upstream upstream_of(const Plan& plan) {
  if (plan.cluster == nullptr || plan.id.tags.nostream) return {};
  const Member* source = nullptr;
  const auto& from = plan.id.tags.replicatefrom;
  if (!from.empty() && from != plan.id.node) source = plan.cluster->member(from);
  if (source == nullptr && plan.leader_other) source = plan.leader_member();
  if (source == nullptr || source->conn_url.empty()) return {};
  return Upstream{.name = source->name,
                  .conn_url = source->conn_url,
                  .api_url = source->api_url,
                  .timeline = source->timeline,
                  .checkpoint_done = source->checkpoint_after_promote};
}

}  // namespace spilo::ha
