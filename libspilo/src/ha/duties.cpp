// What a node does beside whatever rule decides: looking, publishing, keeping the leader's books,
// answering.
#include "plan.hpp"
#include "spilo/model/keys.hpp"

namespace spilo::ha {
namespace {

// A watch reports every change; reading again without one is only a safety net. With the six renewals of a ttl of 30 s it
// makes less than seven calls a minute.
constexpr Duration reread_after = 90s;

bool is_transient(const Plan& plan) {
  return plan.f.task || plan.mem.handover;
}

std::string state_of(const Plan& plan) {
  if (plan.f.task) {
    switch (plan.f.task->task.kind) {
      case TaskKind::bootstrap:
        return "initializing new cluster";
      case TaskKind::clone:
        return "creating replica";
      case TaskKind::restart:
        return "restarting";
      case TaskKind::start:
      case TaskKind::rejoin:
        return "starting";
      case TaskKind::stop:
        return "stopping";
      default:
        break;
    }
  }
  if (plan.node == nullptr) return "stopped";
  switch (plan.node->process) {
    case NodeView::Process::running:
      return "running";
    case NodeView::Process::starting:
      return "starting";
    case NodeView::Process::stopping:
      return "stopping";
    case NodeView::Process::crashed:
      return "crashed";
    case NodeView::Process::hung:
      return "running";
    case NodeView::Process::stopped:
      break;
  }
  const auto& last = plan.f.last_task;
  if (last && last->failure && last->task.kind == TaskKind::bootstrap) return "initdb failed";
  if (last && last->failure && last->task.kind == TaskKind::start) return "start failed";
  return "stopped";
}

std::string role_of(const Plan& plan) {
  if (plan.node == nullptr || plan.node->data_dir != NodeView::DataDir::initialized)
    return "uninitialized";
  if (plan.node->alive()) {
    if (plan.node->role == NodeView::Role::primary)
      return plan.lock_mine || plan.paused ? "primary" : "demoted";
    return plan.task_running(TaskKind::promote) ? "promoted" : "replica";
  }
  return plan.node->role == NodeView::Role::primary ? "demoted" : "replica";
}

Member member_of(const Plan& plan) {
  Member me;
  me.name = plan.id.node;
  me.conn_url = plan.id.conn_url;
  me.api_url = plan.id.api_url;
  me.version = plan.id.version;
  me.tags = plan.id.tags;
  me.state = state_of(plan);
  me.role = role_of(plan);
  me.pause = plan.paused;
  if (plan.node == nullptr) return me;
  const auto& node = *plan.node;
  me.pending_restart = node.pending_restart;
  me.pending_restart_reason = node.pending_restart_reason;
  me.timeline = node.timeline;
  if (node.running()) {
    me.xlog_location = node.last_lsn();
    if (node.role == NodeView::Role::replica) {
      me.receive_lsn = node.received;
      me.replay_lsn = node.replayed;
      if (node.streaming)
        me.replication_state = "streaming";
      else if (!node.restore_command.empty())
        me.replication_state = "in archive recovery";
    }
  }
  if (const auto& restart = plan.mem.scheduled_restart; restart && restart->schedule) {
    me.scheduled_restart = json::Value::object();
    me.scheduled_restart.set("schedule", codec::dump_wall_time(*restart->schedule));
    if (!restart->role.empty()) me.scheduled_restart.set("role", restart->role);
    if (restart->restart_pending) me.scheduled_restart.set("restart_pending", true);
    if (!restart->postgres_version.empty())
      me.scheduled_restart.set("postgres_version", restart->postgres_version);
    me.scheduled_restart.set("postmaster_start_time", node.start_time);
  }
  return me;
}

// The same member without what changes with every write of a client.
Member without_positions(Member member) {
  member.xlog_location = member.receive_lsn = member.replay_lsn = Lsn{};
  return member;
}

void write(Plan& plan, InFlight kind, const char* key, std::string value, dcs::Version at) {
  if (!plan.may_write_again()) return;
  plan.emit_once(kind,
                 WriteKey{.kind = kind,
                          .key = key,
                          .value = std::move(value),
                          .at = at,
                          .fence = plan.cluster->leader});
}

void keep_status(Plan& plan) {
  // A hot path of nobody: at most one write a heartbeat, none while nothing moves.
  ClusterStatus status = plan.cluster->status;
  status.optime = plan.node->flushed;
  status.slots.clear();
  if (plan.config.use_slots) {
    for (const auto& sender : plan.node->wal_senders)
      if (sender.flush_lsn != Lsn{})
        status.slots[codec::slot_name(NodeName(sender.application_name))] = sender.flush_lsn;
    status.slots[codec::slot_name(plan.id.node)] = plan.node->flushed;
  }
  if (status == plan.mem.status_written || status.optime == plan.mem.status_written.optime) return;
  const auto due = plan.mem.status_at + plan.t.loop_wait;
  if (plan.mem.status_at != TimePoint{} && plan.now < due) {
    plan.wake_at(due);
    return;
  }
  plan.emit_once(InFlight::status,
                 WriteKey{.kind = InFlight::status,
                          .key = keys::status,
                          .value = codec::dump_status(status),
                          .fence = plan.cluster->leader});
}

void keep_history(Plan& plan) {
  const auto& lines = plan.node->history;
  const auto& known = plan.cluster->history;
  if (plan.node->timeline == TimelineId{1} && known && !known->empty()) {
    // What stands there is another cluster's: this one has never been promoted.
    plan.emit_once(InFlight::history,
                   WriteKey{.kind = InFlight::history,
                            .key = keys::history,
                            .value = codec::dump_history({}),
                            .fence = plan.cluster->leader});
    return;
  }
  if (plan.node->timeline <= TimelineId{1} || lines.empty()) return;
  if (known && !known->empty() && known->back().timeline == lines.back().timeline &&
      known->back().switch_lsn == lines.back().switch_lsn)
    return;
  auto next = lines;
  for (auto& line : next) {
    for (const auto& old : known ? *known : std::vector<HistoryLine>{}) {
      if (old.timeline != line.timeline || old.switch_lsn != line.switch_lsn) continue;
      line.timestamp = old.timestamp;
      line.new_leader = old.new_leader;
    }
  }
  next.back().new_leader = plan.id.node.str();
  if (next.back().timestamp.empty()) next.back().timestamp = codec::dump_wall_time(plan.f.wall);
  const auto most = static_cast<std::size_t>(std::max(plan.config.max_timelines_history, 0));
  if (most > 0 && next.size() > most)
    next.erase(next.begin(), next.end() - static_cast<std::ptrdiff_t>(most));
  plan.emit_once(InFlight::history,
                 WriteKey{.kind = InFlight::history,
                          .key = keys::history,
                          .value = codec::dump_history(next),
                          .fence = plan.cluster->leader});
}

void keep_failsafe(Plan& plan) {
  // Our own configuration of the cluster, which may say otherwise than the defaults, is on its way.
  if (!plan.cluster->config && !plan.id.bootstrap_dcs.is_null()) return;
  // Without failsafe mode the list is emptied, by the leader, who then knows that it is off: a list
  // that nobody keeps would exclude every node that joins later from leading.
  // What may or may not have been written is settled by the next write: it changes the version.
  const bool in_doubt = !plan.mem.failsafe_offered.empty();
  std::map<NodeName, std::string> members;
  if (plan.config.failsafe_mode) {
    for (const auto& member : plan.cluster->members)
      if (!member.api_url.empty()) members[member.name] = member.api_url;
    members[plan.id.node] = plan.id.api_url;
  } else if (!plan.cluster->failsafe && !in_doubt) {
    return;
  }
  if (plan.busy(InFlight::failsafe_key)) return;
  if (plan.cluster->failsafe == members && !in_doubt) return;
  // Whoever is listed newly has promised nothing: promises that outlast the lease are others'.
  if (plan.mem.failsafe_until > plan.f.session_valid_until) return;
  write(plan,
        InFlight::failsafe_key,
        keys::failsafe,
        codec::dump_failsafe(members),
        plan.cluster->failsafe_version);
  plan.mem.failsafe_offered_at = plan.cluster->failsafe_version;
  plan.mem.failsafe_offered.push_back(std::move(members));
}

void keep_slots(Plan& plan) {
  // Every node keeps a physical slot for every other member, so that the WAL they need survives a
  // failover.
  if (!plan.config.use_slots || !plan.node->running() || plan.f.task) return;
  std::vector<std::string> wanted;
  std::vector<std::pair<std::string, Lsn>> positions;
  for (const auto& [name, member] : plan.f.known_members) {
    if (name == plan.id.node || member.tags.nostream) continue;
    const auto slot = codec::slot_name(name);
    wanted.push_back(slot);
    if (plan.node->role != NodeView::Role::replica) continue;
    const auto at = plan.cluster->status.slots.find(slot);
    if (at != plan.cluster->status.slots.end()) positions.emplace_back(slot, at->second);
  }
  std::ranges::sort(wanted);
  // The same positions again would change nothing.
  const bool moved = positions != plan.mem.slots_positions && !positions.empty() &&
                     plan.now >= plan.mem.slots_at + std::max<Duration>(plan.t.loop_wait, 30s);
  const bool missing = std::ranges::any_of(
      wanted, [&](const auto& slot) { return !std::ranges::count(plan.node->slots, slot); });
  if (wanted == plan.mem.slots_wanted && !moved &&
      !(missing && plan.now >= plan.mem.slots_at + plan.t.loop_wait))
    return;
  // On the connection that looks at the server, after it: beside it a second one would be opened.
  const bool observing = plan.busy(InFlight::observe) ||
                         std::ranges::any_of(plan.effects, [](const Effect& effect) {
                           return std::holds_alternative<ObservePostgres>(effect);
                         });
  if (plan.busy(InFlight::slots) || observing) return;
  plan.mem.slots_wanted = wanted;
  plan.mem.slots_positions = positions;
  plan.mem.slots_at = plan.now;
  plan.emit(SyncSlots{.wanted = std::move(wanted), .positions = std::move(positions)});
}

void keep_config(Plan& plan) {
  const auto& cluster = *plan.cluster;
  // A running server gets it by a reload, which waits for the task that is running or about to.
  const bool postponed = plan.node->running() && plan.task_expected();
  const bool stored = cluster.config_version != dcs::Version{};
  if (cluster.config && stored && plan.mem.config_applied != cluster.config_version && !postponed) {
    plan.emit(Configure{*cluster.config});
    plan.mem.config_applied = cluster.config_version;
    if (plan.node->running())
      plan.start(Task{.kind = TaskKind::reload, .reason = "the cluster's configuration changed"});
  }
  // A new cluster begins with what its creator's file says; one whose store was emptied goes on with what it had.
  const auto& document = cluster.config ? cluster.config->document : plan.id.bootstrap_dcs;
  if (plan.lock_held && !stored && !document.is_null())
    write(plan, InFlight::config, keys::config, json::dump(document), {});
}

void keep_initialize(Plan& plan) {
  const auto& cluster = *plan.cluster;
  if (!is_valid(plan.node->system_id)) return;
  if (cluster.initialize && is_valid(SystemId(*cluster.initialize))) {
    plan.mem.bootstrapped_here = false;
    return;
  }
  write(plan,
        InFlight::initialize,
        keys::initialize,
        plan.node->system_id.str(),
        cluster.initialize_version);
}

}  // namespace

std::string member_state(const Identity& identity, const Facts& facts, const Memory& memory) {
  return state_of(Plan(identity, facts, memory));
}
std::string member_role(const Identity& identity, const Facts& facts, const Memory& memory) {
  return role_of(Plan(identity, facts, memory));
}

void gather(Plan& plan) {
  const auto& f = plan.f;
  if (!f.node_current() || plan.now >= f.node->observed_at + plan.t.loop_wait) {
    plan.emit_once(InFlight::observe, ObservePostgres{});
  } else {
    plan.wake_at(f.node->observed_at + plan.t.loop_wait);
  }
  const bool old =
      !f.cluster || plan.now >= f.cluster->read_started + std::max(reread_after, plan.t.loop_wait);
  const auto retry = f.read_failed_at + std::clamp<Duration>(plan.t.loop_wait / 4, 100ms, 1s);
  if ((f.cluster_stale || old) && (f.read_failed_at == TimePoint{} || plan.now >= retry)) {
    plan.emit_once(InFlight::read_cluster, ReadCluster{});
  } else if (f.cluster_stale || old) {
    plan.wake_at(retry);
  } else {
    plan.wake_at(f.cluster->read_started + std::max(reread_after, plan.t.loop_wait));
  }
  if (!f.guard_ready) {
    const auto again = f.guard_tried_at + 1s;
    if (f.guard_tried_at == TimePoint{} || plan.now >= again) {
      plan.emit_once(InFlight::guard, EnsureGuard{});
    } else {
      plan.wake_at(again);
    }
  }
}

void call_back(Plan& plan) {
  if (plan.node == nullptr || !plan.f.node_current() || plan.f.task) return;
  const bool running = plan.node->running();
  const std::string role = plan.node->role == NodeView::Role::primary ? "primary" : "replica";
  auto& last = plan.mem.last_callback_role;
  const auto say = [&](const char* action, const std::string& as) {
    plan.emit(RunCallback{.action = action, .role = as});
    last = as;
  };
  const auto& done = plan.f.last_task;
  if (!done || done->id == plan.mem.last_callback_task) {
    // A server that ran before the agent did is announced once.
    if (last.empty() && running) say("on_start", role);
    return;
  }
  plan.mem.last_callback_task = done->id;
  if (done->failure) return;
  switch (done->task.kind) {
    case TaskKind::stop:
      say("on_stop", last.empty() ? role : last);
      break;
    case TaskKind::restart:
      if (running) say("on_restart", role);
      break;
    case TaskKind::reload:
      if (running) say("on_reload", role);
      break;
    case TaskKind::promote:
      say("on_role_change", "primary");
      break;
    case TaskKind::start:
    case TaskKind::clone:
    case TaskKind::rejoin:
    case TaskKind::bootstrap:
      if (running) say(last.empty() || last == role ? "on_start" : "on_role_change", role);
      break;
    case TaskKind::follow:
    case TaskKind::checkpoint:
      break;
  }
}

void publish(Plan& plan) {
  if (plan.f.session.empty() || plan.node == nullptr || plan.busy(InFlight::publish)) return;
  const auto me = member_of(plan);
  auto value = codec::dump_member(me);
  const bool rebound = plan.mem.published_session != plan.f.session;
  if (!rebound && value == plan.mem.published) return;
  const auto before = codec::parse_member(plan.id.node, plan.mem.published);
  const auto after = codec::parse_member(plan.id.node, value);
  // A position alone is worth one write a heartbeat; a change of state is worth it at once.
  const bool significant = rebound || without_positions(before) != without_positions(after);
  const bool failed_lately = rebound && !plan.f.store_answers;
  const auto due = plan.mem.published_at + (failed_lately ? Duration(500ms) : plan.t.loop_wait);
  if (plan.now < due && plan.mem.published_at != TimePoint{} && (!significant || failed_lately)) {
    plan.wake_at(due);
    return;
  }
  plan.emit_once(InFlight::publish, PublishMember{std::move(value)});
}

void keep_books(Plan& plan) {
  if (plan.cluster == nullptr || plan.node == nullptr || !plan.f.node_current()) return;
  keep_config(plan);
  keep_slots(plan);
  if (!plan.lock_held || is_transient(plan) || !plan.f.store_answers || !plan.may_write_again()) return;
  // Also by a leader whose server hangs: its claim ends with its session, and then nobody would know what
  // cluster this is.
  keep_initialize(plan);
  if (!plan.node->accepts_writes()) return;
  keep_status(plan);
  keep_history(plan);
  keep_failsafe(plan);
  // Whatever request stood when we took the lock is settled by our taking it.
  const auto& request = plan.cluster->failover;
  if (request.requested() && request.version == plan.mem.served_request)
    write(plan, InFlight::failover, keys::failover, "{}", request.version);
}

}  // namespace spilo::ha
