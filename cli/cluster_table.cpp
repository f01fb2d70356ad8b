#include "cli/cluster_table.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "cli/yaml_text.hpp"
#include "spilo/model/codec.hpp"

namespace spilo::cli {
namespace {

bool ends_with_leader(std::string_view role) {
  return role.ends_with("leader");
}

std::string role_of(const Member& member, const ClusterView& view) {
  if (view.leader && view.leader->holder == member.name) {
    const bool standby = member.role == "standby_leader" ||
                         (view.config && view.config->standby_cluster);
    return standby ? "standby_leader" : "leader";
  }
  const bool in_sync =
      view.config && view.config->synchronous_mode && !view.sync.leader.empty() &&
      std::find(view.sync.voters.begin(), view.sync.voters.end(), member.name) !=
          view.sync.voters.end();
  if (!in_sync) return "replica";
  return view.config->quorum_mode ? "quorum_standby" : "sync_standby";
}

void set_position(json::Value& item, const std::string& prefix, Lsn lsn, Lsn optime) {
  const std::string lsn_key = prefix.empty() ? "lsn" : prefix + "_lsn";
  const std::string lag_key = prefix.empty() ? "lag" : prefix + "_lag";
  if (lsn == Lsn{}) {
    item.set(lsn_key, "unknown").set(lag_key, "unknown");
    return;
  }
  const std::int64_t lag = static_cast<std::int64_t>(to_int(optime)) -
                           static_cast<std::int64_t>(to_int(lsn));
  item.set(lsn_key, to_text(lsn)).set(lag_key, std::max<std::int64_t>(0, lag));
}

json::Value member_document(const Member& member, const ClusterView& view) {
  json::Value item = json::Value::object();
  const std::string role = role_of(member, view);
  const bool shows_replication = role != "leader" && !member.replication_state.empty();
  item.set("name", member.name.str());
  item.set("role", role);
  item.set("state", shows_replication ? member.replication_state : member.state);
  item.set("api_url", member.api_url);
  if (const auto at = codec::parse_conn_url(member.conn_url))
    item.set("host", at->host).set("port", at->port);
  if (member.timeline != TimelineId{})
    item.set("timeline", static_cast<std::int64_t>(to_int(member.timeline)));
  if (member.pending_restart) item.set("pending_restart", true);
  if (!member.pending_restart_reason.is_null())
    item.set("pending_restart_reason", member.pending_restart_reason);
  if (!member.scheduled_restart.is_null())
    item.set("scheduled_restart", member.scheduled_restart);
  const auto* tags = member.tags.all.as_object();
  if (tags && !tags->empty()) item.set("tags", member.tags.all);
  if (!(view.leader && view.leader->holder == member.name)) {
    set_position(item, "receive", member.receive_lsn, view.status.optime);
    set_position(item, "replay", member.replay_lsn, view.status.optime);
    const Lsn last = std::max({member.receive_lsn, member.replay_lsn, member.xlog_location});
    set_position(item, "", last, view.status.optime);
  }
  return item;
}

json::Value lag_cell(const json::Value* lag) {
  const auto bytes = lag ? lag->as_int() : std::nullopt;
  return bytes ? json::Value(lag_in_mb(*bytes)) : json::Value("");
}

json::Value text_cell(const json::Value& member, std::string_view key) {
  const auto* value = member.find(key);
  return value && !value->is_null() ? *value : json::Value("");
}

// One line per parameter; long ones are hidden from people, because the table would not fit.
std::string pending_reason(const json::Value& member, const ListOptions& options) {
  const auto* reasons = member.find("pending_restart_reason");
  if (!reasons || !reasons->as_object()) return {};
  const bool for_people = options.format == Format::pretty || options.format == Format::topology;
  std::string out;
  for (const auto& [name, change] : *reasons->as_object()) {
    std::string line = fmt::format(
        "{}: {}->{}", name, change.get_string("old_value"), change.get_string("new_value"));
    if (for_people && display_width(line) > 50) line = name + ": [hidden - too long]";
    out += (out.empty() ? "" : "\n") + line;
  }
  return out;
}

std::string scheduled_restart(const json::Value& member) {
  const auto* scheduled = member.find("scheduled_restart");
  if (!scheduled || !scheduled->is_object()) return {};
  std::string out = scheduled->get_string("schedule");
  const std::string version = scheduled->get_string("postgres_version");
  return version.empty() ? out : out + " if version < " + version;
}

json::Value tags_cell(const json::Value& member, const ListOptions& options) {
  const auto* tags = member.find("tags");
  const bool any = tags && tags->as_object() && !tags->as_object()->empty();
  if (!any) return "";
  if (options.format == Format::json || options.format == Format::yaml) return *tags;
  std::string text = options.format == Format::pretty ? yaml_text(*tags) : yaml_flow(*tags);
  while (text.ends_with('\n')) text.pop_back();
  return text;
}

struct Place {
  const json::Value* member;
  std::string prefix;  // of the name, in a topology
};

// Parents first. A member whose parent is unknown, itself, or part of a circle hangs below the
// leader, so that nobody is left out.
std::vector<Place> tree(const std::vector<const json::Value*>& members) {
  const json::Value* leader = nullptr;
  std::set<std::string> replicas;
  for (const auto* member : members) {
    if (ends_with_leader(member->get_string("role"))) leader = leader ? leader : member;
    else replicas.insert(member->get_string("name"));
  }
  std::map<std::string, std::vector<const json::Value*>> children;
  const std::string root = leader ? leader->get_string("name") : std::string();
  for (const auto* member : members) {
    if (member == leader) continue;
    const auto* tags = member->find("tags");
    const std::string parent = tags ? tags->get_string("replicatefrom") : std::string();
    const bool usable = parent != member->get_string("name") && replicas.contains(parent);
    children[usable ? parent : root].push_back(member);
  }
  std::vector<Place> places;
  std::set<const json::Value*> placed;
  const auto add = [&](auto&& self, const json::Value* member, std::size_t level) -> void {
    if (!placed.insert(member).second) return;
    places.push_back({member, level == 0 ? "" : std::string(2 * (level - 1), ' ') + "+ "});
    for (const auto* child : children[member->get_string("name")]) self(self, child, level + 1);
  };
  if (leader) add(add, leader, 0);
  else
    for (const auto* child : children[root]) add(add, child, 1);
  for (const auto* member : members) add(add, member, 1);
  return places;
}

// The port is shown as soon as the host alone does not say where a member is.
bool shows_port(const std::vector<const json::Value*>& members) {
  std::set<std::string> hosts;
  for (const auto* member : members) {
    const auto host = member->get_string("host");
    if (host.empty()) continue;
    if (member->get_int("port").value_or(5432) != 5432 || !hosts.insert(host).second) return true;
  }
  return false;
}

std::string host_cell(const json::Value& member, bool with_port) {
  const std::string host = member.get_string("host");
  const auto port = member.get_int("port");
  if (!with_port || host.empty() || !port) return host;
  return codec::to_text({host, static_cast<int>(*port)});
}

struct Positions {
  json::Value receive_lsn, receive_lag, replay_lsn, replay_lag;
};

Positions positions(const json::Value& member) {
  Positions out{text_cell(member, "receive_lsn"),
                lag_cell(member.find("receive_lag")),
                text_cell(member, "replay_lsn"),
                lag_cell(member.find("replay_lag"))};
  const json::Value unknown("unknown");
  const auto missing = [&](const json::Value& lsn) {
    return lsn == unknown || lsn == json::Value("");
  };
  // A daemon that is too old to publish both positions publishes one.
  const auto lsn = text_cell(member, "lsn");
  if (missing(out.receive_lsn) && missing(out.replay_lsn) && !missing(lsn)) {
    const bool streaming = member.get_string("state") == "streaming";
    (streaming ? out.receive_lsn : out.replay_lsn) = lsn;
    (streaming ? out.receive_lag : out.replay_lag) = lag_cell(member.find("lag"));
  }
  return out;
}

}  // namespace

json::Value cluster_document(const ClusterView& view, const Scope& scope) {
  json::Value members = json::Value::array();
  for (const auto& member : view.members) members.push(member_document(member, view));
  json::Value document = json::Value::object();
  document.set("members", std::move(members));
  if (view.config && view.config->pause) document.set("pause", true);
  if (view.failover.requested() && view.failover.scheduled_at) {
    json::Value scheduled = json::Value::object();
    scheduled.set("at", codec::dump_wall_time(*view.failover.scheduled_at));
    if (!view.failover.leader.empty()) scheduled.set("from", view.failover.leader.str());
    if (!view.failover.candidate.empty()) scheduled.set("to", view.failover.candidate.str());
    document.set("scheduled_switchover", std::move(scheduled));
  }
  document.set("scope", scope.str());
  return document;
}

Table members_table(const json::Value& document,
                    const std::optional<std::string>& initialize,
                    const ListOptions& options) {
  std::vector<const json::Value*> members;
  if (const auto* list = document.find("members"); list && list->as_array())
    for (const auto& member : *list->as_array()) members.push_back(&member);
  std::sort(members.begin(), members.end(), [](const auto* a, const auto* b) {
    return a->get_string("name") < b->get_string("name");
  });

  Table table;
  const std::string scope = document.get_string("scope");
  table.title = fmt::format(" Cluster: {} ({}) ",
                            scope,
                            !initialize           ? "uninitialized"
                            : initialize->empty() ? "initializing"
                                                  : *initialize);
  table.drop_empty = true;
  table.columns = {{"Cluster", "", false, true},
                   {"Member"},
                   {"Host"},
                   {"Role"},
                   {"State"},
                   {"TL", "", true},
                   {"Receive LSN", "", true},
                   {"Receive Lag", "Lag", true},
                   {"Replay LSN", "", true},
                   {"Replay Lag", "Lag", true}};
  const auto any = [&](const char* key) {
    return std::any_of(members.begin(), members.end(), [&](const auto* member) {
      const auto* value = member->find(key);
      return value && !value->is_null() && *value != json::Value(false);
    });
  };
  const bool pending = options.extended || any("pending_restart");
  const bool reason = options.extended || any("pending_restart_reason");
  const bool scheduled = options.extended || any("scheduled_restart");
  const bool tags = options.extended || any("tags");
  if (pending) table.columns.push_back({"Pending restart"});
  if (reason) table.columns.push_back({"Pending restart reason"});
  if (scheduled) table.columns.push_back({"Scheduled restart"});
  if (tags) table.columns.push_back({"Tags"});

  const bool port = shows_port(members);
  std::vector<Place> places;
  if (options.format == Format::topology) places = tree(members);
  else
    for (const auto* member : members) places.push_back({member, ""});
  for (const auto& place : places) {
    const auto& member = *place.member;
    auto at = positions(member);
    std::vector<json::Value> row;
    row.emplace_back(scope);
    row.emplace_back(place.prefix + member.get_string("name"));
    row.emplace_back(host_cell(member, port));
    row.emplace_back(title_case(member.get_string("role")));
    row.emplace_back(member.get_string("state"));
    row.push_back(text_cell(member, "timeline"));
    row.push_back(std::move(at.receive_lsn));
    row.push_back(std::move(at.receive_lag));
    row.push_back(std::move(at.replay_lsn));
    row.push_back(std::move(at.replay_lag));
    if (pending) row.emplace_back(member.get_bool("pending_restart") ? "*" : "");
    if (reason) row.emplace_back(pending_reason(member, options));
    if (scheduled) row.emplace_back(scheduled_restart(member));
    if (tags) row.push_back(tags_cell(member, options));
    table.rows.push_back(std::move(row));
  }
  return table;
}

std::string service_info(const json::Value& document) {
  std::string out;
  if (document.get_bool("pause")) out += " Maintenance mode: on\n";
  const auto* scheduled = document.find("scheduled_switchover");
  if (!scheduled || !scheduled->is_object()) return out;
  out += " Switchover scheduled at: " + scheduled->get_string("at") + "\n";
  for (const char* key : {"from", "to"})
    if (const auto name = scheduled->get_string(key); !name.empty())
      out += fmt::format("{:>24}: {}\n", key, name);
  return out;
}

std::string render_members(const json::Value& document,
                           const std::optional<std::string>& initialize,
                           const ListOptions& options) {
  std::string out = render(members_table(document, initialize, options), options.format);
  if (options.format == Format::pretty || options.format == Format::topology)
    out += service_info(document);
  return out;
}

Table history_table(const std::vector<HistoryLine>& lines) {
  Table table;
  table.columns = {{"TL", "", true}, {"LSN", "", true}, {"Reason"}, {"Timestamp"}, {"New Leader"}};
  for (const auto& line : lines) {
    std::vector<json::Value> row;
    row.emplace_back(static_cast<std::int64_t>(to_int(line.timeline)));
    row.emplace_back(to_int(line.switch_lsn));
    row.emplace_back(line.reason);
    row.emplace_back(line.timestamp);
    row.emplace_back(line.new_leader);
    table.rows.push_back(std::move(row));
  }
  return table;
}

}  // namespace spilo::cli
