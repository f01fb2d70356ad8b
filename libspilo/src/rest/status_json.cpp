#include "spilo/rest/status_json.hpp"

#include <algorithm>

#include "spilo/model/codec.hpp"
#include "status_facts.hpp"

namespace spilo::rest {
namespace {

json::Value lsn_json(Lsn lsn) {
  return json::Value(to_int(lsn));
}

json::Value text_or_null(const std::string& text) {
  return text.empty() ? json::Value() : json::Value(text);
}

json::Value xlog_json(const NodeView& node) {
  auto out = json::Value::object();
  if (node.role == NodeView::Role::primary) {
    out.set("location", lsn_json(node.flushed));
    return out;
  }
  const Lsn received = to_int(node.received) != 0 ? node.received : node.replayed;
  out.set("received_location", lsn_json(received));
  out.set("replayed_location", lsn_json(node.replayed));
  out.set("replayed_timestamp", text_or_null(node.replayed_timestamp));
  out.set("paused", node.replay_paused);
  return out;
}

json::Value replication_json(const std::vector<WalSender>& senders) {
  auto out = json::Value::array();
  for (const auto& sender : senders) {
    auto row = json::Value::object();
    row.set("usename", sender.user);
    row.set("application_name", sender.application_name);
    row.set("client_addr", text_or_null(sender.client_addr));
    row.set("state", sender.state);
    row.set("sync_state", sender.sync_state);
    row.set("sync_priority", sender.sync_priority);
    out.push(std::move(row));
  }
  return out;
}

void set_server_part(json::Value& out, const PublicStatus& status) {
  const NodeView& node = *status.node;
  out.set("postmaster_start_time", text_or_null(node.start_time));
  out.set("role", role_of(status));
  out.set("server_version", node.server_version);
  out.set("xlog", xlog_json(node));
  if (node.role == NodeView::Role::replica) {
    const auto sync = sync_role(status, status.identity.node);
    if (!sync.empty()) out.set(std::string(sync), true);
  }
  out.set("timeline",
          to_int(node.timeline) == 0 ? json::Value()
                                     : json::Value(std::int64_t{to_int(node.timeline)}));
  const auto replication_state = replication_state_of(status);
  if (!replication_state.empty()) out.set("replication_state", replication_state);
  if (!node.wal_senders.empty()) out.set("replication", replication_json(node.wal_senders));
}

json::Value own_part(const PublicStatus& status, Instant at) {
  auto out = json::Value::object();
  out.set("rule", status.rule);
  out.set("summary", status.summary);
  if (!status.task.empty()) out.set("task", status.task);
  if (!status.store_answers && !status.store_problem.empty())
    out.set("store_problem", status.store_problem);
  if (holds_lock(status, at)) {
    out.set("token", status.token);
    const auto left = status.lock_valid_until - at.now;
    out.set("lease_ms",
            std::int64_t{std::chrono::duration_cast<std::chrono::milliseconds>(left).count()});
  }
  return out;
}

// The LSN columns of one member: "unknown" both when the member does not say.
void set_lag(json::Value& row, const char* lsn_key, const char* lag_key, Lsn lsn, Lsn optime) {
  if (to_int(lsn) == 0) {
    row.set(lsn_key, "unknown");
    row.set(lag_key, "unknown");
    return;
  }
  row.set(lsn_key, to_text(lsn));
  const auto behind = to_int(optime) > to_int(lsn) ? to_int(optime) - to_int(lsn) : 0;
  row.set(lag_key, behind);
}

json::Value member_json(const PublicStatus& status, const Member& member) {
  const ClusterView& view = *status.cluster;
  const bool leads = view.leader && view.leader->holder == member.name;
  std::string role = "replica";
  if (leads) {
    role = view.config && view.config->standby_cluster ? "standby_leader" : "leader";
  } else if (const auto sync = sync_role(status, member.name); !sync.empty()) {
    role = std::string(sync);
  }
  auto row = json::Value::object();
  row.set("name", member.name.str());
  row.set("role", role);
  const bool show_replication = role != "leader" && !member.replication_state.empty();
  row.set("state", show_replication ? member.replication_state : member.state);
  row.set("api_url", member.api_url);
  if (const auto host = codec::parse_conn_url(member.conn_url)) {
    row.set("host", host->host);
    row.set("port", host->port);
  }
  if (to_int(member.timeline) != 0) row.set("timeline", std::int64_t{to_int(member.timeline)});
  if (member.pending_restart) row.set("pending_restart", true);
  if (member.pending_restart_reason.is_object())
    row.set("pending_restart_reason", member.pending_restart_reason);
  if (member.scheduled_restart.is_object()) row.set("scheduled_restart", member.scheduled_restart);
  if (const auto* tags = member.tags.all.as_object(); tags != nullptr && !tags->empty())
    row.set("tags", member.tags.all);
  if (!leads) {
    set_lag(row, "receive_lsn", "receive_lag", member.receive_lsn, view.status.optime);
    set_lag(row, "replay_lsn", "replay_lag", member.replay_lsn, view.status.optime);
    set_lag(row, "lsn", "lag", member.xlog_location, view.status.optime);
  }
  return row;
}

}  // namespace

bool holds_lock(const PublicStatus& status, Instant at) noexcept {
  return status.holds_lock && at.now < status.lock_valid_until;
}

bool has_fresh_view(const PublicStatus& status, Instant at) noexcept {
  if (!status.cluster) return false;
  const auto* config = config_of(status);
  const Duration ttl = (config != nullptr ? config->timing : status.identity.timing).ttl;
  if (at.now < status.cluster->read_started + ttl) return true;
  // An idle cluster is not read again while its renewals and its watch say that nothing changed.
  return status.store_answers && at.wall < status.store_last_seen + ttl;
}

bool is_paused(const PublicStatus& status) noexcept {
  const auto* config = config_of(status);
  return config != nullptr && config->pause;
}

json::Value patroni_json(const PublicStatus& status, Instant at) {
  auto out = json::Value::object();
  out.set("state", state_of(status));
  if (server_answers(status)) {
    set_server_part(out, status);
  } else {
    out.set("role", role_of(status));
  }
  if (is_paused(status)) out.set("pause", true);
  if (!has_fresh_view(status, at) || !status.cluster->leader) out.set("cluster_unlocked", true);
  if (status.failsafe_active) out.set("failsafe_mode_is_active", true);
  if (status.watchdog_failed) out.set("watchdog_failed", true);
  const auto seen =
      std::chrono::duration_cast<std::chrono::seconds>(status.store_last_seen.time_since_epoch());
  out.set("dcs_last_seen", std::int64_t{seen.count()});
  const auto tags = published_tags(status.identity.tags);
  if (const auto* object = tags.as_object(); object != nullptr && !object->empty())
    out.set("tags", tags);
  if (status.node && !status.node->system_id.empty())
    out.set("database_system_identifier", status.node->system_id.str());
  if (status.node && status.node->pending_restart) {
    out.set("pending_restart", true);
    if (status.node->pending_restart_reason.is_object())
      out.set("pending_restart_reason", status.node->pending_restart_reason);
  }
  auto about = json::Value::object();
  about.set("version", status.identity.version);
  about.set("scope", status.identity.scope.str());
  about.set("name", status.identity.node.str());
  out.set("patroni", std::move(about));
  if (status.cluster) {
    const auto* self = status.cluster->member(status.identity.node);
    if (self != nullptr && self->scheduled_restart.is_object())
      out.set("scheduled_restart", self->scheduled_restart);
  }
  out.set("spilo", own_part(status, at));
  return out;
}

json::Value cluster_json(const PublicStatus& status) {
  const ClusterView& view = *status.cluster;
  std::vector<const Member*> members;
  members.reserve(view.members.size());
  for (const auto& member : view.members) members.push_back(&member);
  std::sort(members.begin(), members.end(), [](const Member* a, const Member* b) {
    return a->name < b->name;
  });
  auto rows = json::Value::array();
  for (const auto* member : members) rows.push(member_json(status, *member));
  auto out = json::Value::object();
  out.set("members", std::move(rows));
  if (is_paused(status)) out.set("pause", true);
  if (view.failover.scheduled_at) {
    auto planned = json::Value::object();
    planned.set("at", codec::dump_wall_time(*view.failover.scheduled_at));
    if (!view.failover.leader.empty()) planned.set("from", view.failover.leader.str());
    if (!view.failover.candidate.empty()) planned.set("to", view.failover.candidate.str());
    out.set("scheduled_switchover", std::move(planned));
  }
  out.set("scope", status.identity.scope.str());
  if (!status.store_answers && !status.store_problem.empty())
    out.set("store_problem", status.store_problem);
  return out;
}

json::Value history_json(const PublicStatus& status) {
  auto out = json::Value::array();
  if (!status.cluster || !status.cluster->history) return out;
  for (const auto& line : *status.cluster->history) {
    auto row = json::Value::array();
    row.push(std::int64_t{to_int(line.timeline)});
    row.push(lsn_json(line.switch_lsn));
    row.push(line.reason);
    if (!line.timestamp.empty()) row.push(line.timestamp);
    if (!line.timestamp.empty() && !line.new_leader.empty()) row.push(line.new_leader);
    out.push(std::move(row));
  }
  return out;
}

std::optional<json::Value> failsafe_json(const PublicStatus& status) {
  if (!status.cluster || !status.cluster->failsafe) return std::nullopt;
  const auto* config = config_of(status);
  if (config != nullptr && !config->failsafe_mode) return std::nullopt;
  auto out = json::Value::object();
  for (const auto& [name, url] : *status.cluster->failsafe) out.set(name.str(), url);
  return out;
}

json::Value why_json(const PublicStatus& status,
                     const std::deque<DecisionRecord>& records,
                     std::uint64_t since) {
  auto rows = json::Value::array();
  std::uint64_t last = since;
  for (const auto& record : records) {
    if (record.sequence <= since) continue;
    last = record.sequence;
    auto row = json::Value::object();
    row.set("sequence", record.sequence);
    row.set("time", codec::dump_wall_time(record.wall));
    row.set("node", record.node.str());
    row.set("rule", record.rule);
    row.set("sentence", record.sentence);
    row.set("event", record.event);
    row.set("inputs", record.inputs);
    rows.push(std::move(row));
  }
  auto out = json::Value::object();
  out.set("node", status.identity.node.str());
  out.set("scope", status.identity.scope.str());
  out.set("next", last);
  out.set("records", std::move(rows));
  return out;
}

json::Value tasks_json(const PublicStatus& status) {
  auto out = json::Value::object();
  out.set("task", status.task.empty() ? json::Value() : json::Value(status.task));
  out.set("state", state_of(status));
  out.set("role", role_of(status));
  out.set("rule", status.rule);
  out.set("summary", status.summary);
  return out;
}

}  // namespace spilo::rest
