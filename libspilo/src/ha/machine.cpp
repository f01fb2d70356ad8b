#include "spilo/ha/machine.hpp"

#include <algorithm>
#include <utility>
#include <variant>

#include "plan.hpp"

namespace spilo::ha {
namespace {

constexpr Duration reclaim_grace = std::chrono::seconds(1);

// Folds one event into facts and memory. Nothing is decided here: every consequence is left to the
// rules.
class Fold {
 public:
  Fold(Identity& identity, Facts& facts, Memory& memory) : id_(identity), f_(facts), m_(memory) {}

  void operator()(Woke&) {}
  void operator()(StoreChanged&) { f_.cluster_stale = true; }
  void operator()(PostgresChanged&) { f_.node_changed_at = f_.now; }
  void operator()(GuardDied&) {
    f_.guard_ready = false;
    if (f_.guard_lost_at == TimePoint{}) f_.guard_lost_at = f_.now;
  }
  void operator()(StopAsked&) { f_.stop_requested = true; }
  void operator()(OperatorAsked& event) { f_.requests.push_back(std::move(event.request)); }
  void operator()(IdentityChanged& event) { id_ = std::move(event.identity); }

  void operator()(LeaseRenewed& event) {
    f_.store_answers = true;
    f_.store_problem.clear();
    const auto granted = event.valid_until - f_.now;
    f_.session_granted =
        f_.session == event.session ? std::max(f_.session_granted, granted) : granted;
    f_.session = std::move(event.session);
    f_.session_valid_until = event.valid_until;
  }
  void operator()(RenewalFailed& event) { store_failed(event.error); }
  void operator()(SessionLost& event) {
    // The store has spoken: what was bound to the session is gone, and somebody else may take the
    // lock from now on.
    f_.store_answers = true;
    f_.store_problem = event.error.text();
    may_reclaim();
    f_.session = SessionId{};
    f_.session_valid_until = TimePoint{};
    f_.session_granted = Duration{};
    f_.cluster_stale = true;
  }
  void operator()(FailsafeHeard& event) {
    f_.failsafe_questions.push_back(FailsafeQuestion{event.request, std::move(event.leader), event.ttl});
  }

  void operator()(ClusterRead& event) {
    f_.in_flight.erase(InFlight::read_cluster);
    f_.store_answers = true;
    f_.store_problem.clear();
    f_.read_failed_at = TimePoint{};
    auto& view = event.view;
    if (view.read_started < f_.lock_changed_at || f_.in_flight.contains(InFlight::acquire) ||
        f_.in_flight.contains(InFlight::release)) {
      // Begun before our own last change of the lock: it may show the world before it.
      f_.cluster_stale = true;
      if (f_.cluster) return;
    }
    // A release that was not answered may be on its way even now: see rebind_lock.
    f_.lock_in_doubt = view.leader && view.leader->holder == id_.node &&
                       m_.release_unanswered != dcs::Version{} &&
                       view.leader->version == m_.release_unanswered;
    // Our claim on the cluster may have been written although its answer was lost.
    if (!m_.bootstrapped_here && view.initialize && view.initialize->empty() && !f_.session.empty() &&
        view.initialize_session == f_.session && view.read_started >= m_.claim_written_at &&
        !f_.in_flight.contains(InFlight::initialize)) {
      m_.bootstrapped_here = true;
      m_.claim_session = f_.session;
    }
    // The server that we were creating has ended with our claim: it is a data directory like any other now.
    if (m_.bootstrapped_here && f_.session != m_.claim_session && !f_.task && f_.node &&
        f_.node->down())
      m_.bootstrapped_here = false;
    const bool held = f_.cluster && f_.cluster->leader && f_.cluster->leader->holder == id_.node;
    if (held && !view.leader) may_reclaim();
    if (view.leader) {
      m_.unlocked_since = TimePoint{};
      if (view.leader->holder != id_.node) m_.last_leader = view.leader->holder;
    } else if (m_.unlocked_since == TimePoint{}) {
      m_.unlocked_since = f_.now;
    }
    if (view.leader) f_.known_members.clear();
    for (const auto& member : view.members) f_.known_members[member.name] = member;
    if (!view.failover.requested()) {
      m_.request_seen_at = TimePoint{};
    } else if (m_.request_seen_at == TimePoint{} || m_.request_version != view.failover.version) {
      m_.request_seen_at = f_.now;
    }
    m_.request_version = view.failover.version;
    // Somebody else has led since: whoever takes the lock has no promise in its way, its own neither, and
    // then that leader counts on none.
    if (!m_.promise.mixed && view.read_started >= m_.promise.given && view.term.number > m_.promise.term &&
        view.term.holder != m_.promise.leader)
      m_.promise = FailsafePromise{};
    // Each was to replace the list at that version only: what stands now is what was read.
    if (view.failsafe_version != m_.failsafe_offered_at) m_.failsafe_offered.clear();
    // A store that has lost the configuration, or holds one that can't be read: the last good one stays in force.
    if (!view.config && f_.cluster) view.config = std::move(f_.cluster->config);
    f_.cluster = std::move(view);
  }
  void operator()(ReadFailed& event) {
    f_.in_flight.erase(InFlight::read_cluster);
    f_.read_failed_at = f_.now;
    store_failed(event.error);
  }

  void operator()(PostgresObserved& event) {
    f_.in_flight.erase(InFlight::observe);
    const auto& view = event.view;
    if (f_.node && f_.node->alive() && view.down() && !f_.task && !stopped_by_us()) note_crash();
    if (view.accepts_writes() && holds_lock(id_, f_)) m_.was_primary = true;
    if (view.down() || view.role == NodeView::Role::replica) {
      m_.was_primary = false;
      m_.reclaim_until = TimePoint{};
      // The members' promise outlasts a restart that is going on: it is made to this node, and only the
      // running task makes use of it.
      if (!f_.task || f_.task->task.kind != TaskKind::restart)
        m_.failsafe_until = m_.failsafe_asked_at = TimePoint{};
    }
    if (view.running()) {
      m_.hung_since = TimePoint{};
      m_.crashed_at = TimePoint{};
    }
    if (view.process == NodeView::Process::hung && m_.hung_since == TimePoint{})
      m_.hung_since = f_.now;
    if (view.process != NodeView::Process::stopping || f_.task) {
      m_.stopping_since = TimePoint{};
    } else if (m_.stopping_since == TimePoint{}) {
      m_.stopping_since = f_.now;
    }
    const bool should_stream =
        view.running() && view.role == NodeView::Role::replica && !view.upstream.empty();
    const bool streams = view.streaming && !behind_the_leader(view);
    // What came already is replayed before more is asked for, perhaps for hours.
    const bool replays =
        f_.node && view.replayed < view.received && f_.node->replayed < view.replayed;
    if (!should_stream || streams || replays) {
      m_.not_streaming_since = TimePoint{};
      if (streams) m_.attempt_failures = 0;
    } else if (m_.not_streaming_since == TimePoint{}) {
      m_.not_streaming_since = f_.now;
    }
    f_.node = std::move(event.view);
  }
  void operator()(PeerAnswered& event) {
    f_.asked.erase(event.status.node);
    f_.peers[event.status.node] = std::move(event.status);
  }

  void operator()(LockAcquired& event) {
    f_.in_flight.erase(InFlight::acquire);
    f_.store_answers = true;
    f_.lock_changed_at = f_.now;
    f_.lock_in_doubt = false;
    m_.last_term = event.term;
    m_.unlocked_since = TimePoint{};
    m_.reclaim_until = TimePoint{};
    m_.released_at = TimePoint{};
    m_.failsafe_offered.clear();  // they required the lock as it was
    if (f_.cluster) {
      f_.cluster->leader = std::move(event.leader);
      f_.cluster->term = std::move(event.term);
    }
    f_.cluster_stale = true;
  }
  void operator()(LockRefused& event) {
    f_.in_flight.erase(InFlight::acquire);
    f_.cluster_stale = true;
    f_.lock_changed_at = f_.now;  // by somebody else, or perhaps by us: what was read before is no ground to try again
    f_.lock_in_doubt = true;
    if (event.error.is(errc::session_lost)) {
      f_.session = SessionId{};
    } else if (!event.error.is(errc::conflict)) {
      store_failed(event.error);
    }
  }
  void operator()(LockReleased&) {
    f_.in_flight.erase(InFlight::release);
    f_.store_answers = true;
    f_.lock_changed_at = f_.now;
    f_.lock_in_doubt = false;
    f_.cluster_stale = true;
    m_.released_at = f_.now;
    m_.reclaim_until = TimePoint{};
    m_.handover.reset();
    if (f_.cluster) f_.cluster->leader.reset();
    m_.unlocked_since = f_.now;
  }
  void operator()(ReleaseFailed& event) {
    f_.in_flight.erase(InFlight::release);
    f_.cluster_stale = true;
    if (!event.error.is(errc::unavailable)) {
      // It is gone already, or it may be: what was read before says nothing about it any more.
      f_.lock_changed_at = f_.now;
      f_.lock_in_doubt = true;
      if (!is_certain(event.error) && f_.cluster && f_.cluster->leader)
        m_.release_unanswered = f_.cluster->leader->version;
    }
    if (!event.error.is(errc::conflict)) store_failed(event.error);
  }
  void operator()(Written& event) {
    f_.in_flight.erase(event.kind);
    f_.store_answers = true;
    switch (event.kind) {
      case InFlight::publish:
        m_.published = std::move(event.value);
        m_.published_session = std::move(event.session);
        m_.published_at = f_.now;
        break;
      case InFlight::status:
        m_.status_written = codec::parse_status(event.value);
        m_.status_at = f_.now;
        break;
      case InFlight::initialize:
        m_.claim_written_at = f_.now;
        if (event.value.empty()) {
          m_.bootstrapped_here = true;
          m_.claim_session = event.session;
          // How an earlier attempt ended says nothing about this one.
          if (f_.last_task && f_.last_task->task.kind == TaskKind::bootstrap) f_.last_task.reset();
        }
        f_.cluster_stale = true;
        break;
      default:
        f_.write_ended_at = f_.now;
        f_.cluster_stale = true;
    }
  }
  void operator()(WriteFailed& event) {
    f_.in_flight.erase(event.kind);
    if (event.kind == InFlight::publish) {
      m_.published_session = SessionId{};
      m_.published_at = f_.now;
    }
    const auto& error = event.error;
    if (error.is(errc::denied) || error.is(errc::invalid_argument) || error.is(errc::unsupported))
      f_.write_refused_at = f_.now;
    if (event.kind == InFlight::status) m_.status_at = f_.now;
    if (event.kind != InFlight::status && event.kind != InFlight::publish) f_.write_ended_at = f_.now;
    if (event.kind == InFlight::initialize) m_.claim_written_at = m_.claim_failed_at = f_.now;
    if (event.kind == InFlight::failsafe_key && is_certain(event.error) && !m_.failsafe_offered.empty())
      m_.failsafe_offered.pop_back();
    f_.cluster_stale = true;
    if (!is_certain(event.error)) store_failed(event.error);
  }
  void operator()(TaskDone& event) {
    if (!f_.task || f_.task->id != event.id) return;
    const auto kind = f_.task->task.kind;
    f_.last_task = FinishedTask{.id = f_.task->id,
                                .task = f_.task->task,
                                .started = f_.task->started,
                                .finished = f_.now,
                                .failure = std::move(event.failure)};
    f_.task.reset();
    f_.node_changed_at = f_.now;
    const bool attempt =
        kind == TaskKind::start || kind == TaskKind::clone || kind == TaskKind::rejoin;
    if (f_.last_task->failure && kind == TaskKind::promote) m_.promote_failed_at = f_.now;
    if (f_.last_task->failure && (attempt || kind == TaskKind::bootstrap)) {
      m_.attempt_failures = std::min(m_.attempt_failures + 1, 6);
      m_.attempt_not_before = f_.now + std::chrono::seconds(1) * (1 << (m_.attempt_failures - 1));
    }
    if (!f_.last_task->failure && attempt) m_.not_streaming_since = TimePoint{};
  }
  void operator()(FailsafeAnswered& event) {
    // A promise given to an earlier round ends earlier: it does not count for this one.
    if (event.asked_at == m_.failsafe_asked_at)
      f_.failsafe_answers[event.answer.node] = std::move(event.answer);
  }
  void operator()(SlotsSynced&) { f_.in_flight.erase(InFlight::slots); }
  void operator()(GuardReady& event) {
    f_.in_flight.erase(InFlight::guard);
    f_.guard_ready = event.ready;
    if (event.ready) {
      f_.guard_lost_at = TimePoint{};
    } else if (f_.guard_lost_at == TimePoint{}) {
      f_.guard_lost_at = f_.now;
    }
    f_.guard_problem = std::move(event.problem);
  }

 private:
  void store_failed(const Error& error) {
    f_.store_answers = false;
    f_.store_problem = error.text();
  }

  // A diverged replica streams for a moment too, again and again: the end of its old timeline, which
  // its new leader has as well. Who follows another replica gets its timeline when that one has it.
  bool behind_the_leader(const NodeView& view) const {
    if (!f_.cluster || !f_.cluster->leader || !id_.tags.replicatefrom.empty()) return false;
    const auto* leader = f_.cluster->member(f_.cluster->leader->holder);
    return leader != nullptr && leader->name != id_.node && view.timeline < leader->timeline;
  }

  // Our key is gone although our own time has not run out. A running primary may take it again, for
  // as long as nobody else can have been promoted meanwhile: never longer than its own lease, and
  // not for long.
  void may_reclaim() {
    if (!m_.was_primary || m_.reclaim_until != TimePoint{}) return;
    m_.reclaim_until = std::min(f_.session_valid_until, f_.now + reclaim_grace);
  }

  bool stopped_by_us() const {
    return f_.last_task && f_.last_task->task.kind == TaskKind::stop &&
           f_.last_task->finished >= f_.node->observed_at;
  }

  void note_crash() {
    if (f_.now - m_.crash_window > std::chrono::minutes(10)) {
      m_.crash_window = f_.now;
      m_.crash_count = 0;
    }
    ++m_.crash_count;
    m_.crashed_at = f_.now;
  }

  Identity& id_;
  Facts& f_;
  Memory& m_;
};

}  // namespace

Decision Machine::step(TimePoint now, WallTime wall, Event event) {
  facts_.now = now;
  facts_.wall = wall;
  if (memory_.started_at == TimePoint{}) memory_.started_at = now;
  std::visit(Fold(identity_, facts_, memory_), event);
  auto decision = decide(identity_, facts_, memory_);
  memory_ = decision.memory;
  mark_started(decision.effects);
  return decision;
}

void Machine::mark_started(const std::vector<Effect>& effects) {
  for (const auto& effect : effects) {
    if (std::holds_alternative<ReadCluster>(effect)) {
      facts_.in_flight.insert(InFlight::read_cluster);
      facts_.cluster_stale = false;  // what changes from here on makes it stale again
    } else if (std::holds_alternative<ObservePostgres>(effect)) {
      facts_.in_flight.insert(InFlight::observe);
    } else if (const auto* ask = std::get_if<ProbePeer>(&effect)) {
      facts_.asked[ask->node] = facts_.now;
    } else if (std::holds_alternative<AcquireLock>(effect)) {
      facts_.in_flight.insert(InFlight::acquire);
    } else if (std::holds_alternative<ReleaseLock>(effect)) {
      facts_.in_flight.insert(InFlight::release);
    } else if (std::holds_alternative<PublishMember>(effect)) {
      facts_.in_flight.insert(InFlight::publish);
    } else if (const auto* write = std::get_if<WriteKey>(&effect)) {
      facts_.in_flight.insert(write->kind);
    } else if (const auto* erase = std::get_if<EraseKey>(&effect)) {
      facts_.in_flight.insert(erase->kind);
    } else if (std::holds_alternative<SyncSlots>(effect)) {
      facts_.in_flight.insert(InFlight::slots);
    } else if (std::holds_alternative<EnsureGuard>(effect)) {
      facts_.in_flight.insert(InFlight::guard);
      facts_.guard_tried_at = facts_.now;
    } else if (const auto* start = std::get_if<StartTask>(&effect)) {
      facts_.task = RunningTask{.id = start->id, .task = start->task, .started = facts_.now};
    } else if (std::holds_alternative<KillServer>(effect)) {
      facts_.node_changed_at = facts_.now;
    } else if (std::holds_alternative<AskFailsafe>(effect)) {
      facts_.failsafe_answers.clear();
    } else if (const auto* reply = std::get_if<Reply>(&effect)) {
      std::erase_if(facts_.requests, [&](const auto& r) { return r.id == reply->request; });
      std::erase_if(facts_.failsafe_questions,
                    [&](const auto& q) { return q.request == reply->request; });
    }
  }
}

}  // namespace spilo::ha
