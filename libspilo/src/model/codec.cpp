#include "spilo/model/codec.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <limits>

namespace spilo::codec {
namespace {

// What can't be parsed counts as null, on which every getter below finds nothing.
json::Value tolerant(std::string_view text) {
  auto parsed = json::parse(text);
  return parsed ? std::move(*parsed) : json::Value();
}

std::optional<std::int64_t> digits(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\n')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\n')) text.remove_suffix(1);
  std::int64_t number = 0;
  const auto* end = text.data() + text.size();
  const auto [stop, failure] = std::from_chars(text.data(), end, number);
  if (failure != std::errc{} || stop != end) return {};
  return number;
}

// A number, also one that was written as text (Kubernetes keeps everything as text).
std::optional<std::int64_t> integer(const json::Value* value) {
  if (value == nullptr) return {};
  if (const auto number = value->as_int()) return number;
  if (const auto* text = value->as_string()) return digits(*text);
  return {};
}

Lsn lsn_of(const json::Value* value) {
  const auto number = integer(value);
  return number && *number > 0 ? Lsn{static_cast<std::uint64_t>(*number)} : Lsn{};
}

TimelineId timeline_of(const json::Value* value) {
  const auto number = integer(value);
  if (!number || *number <= 0 || *number > std::numeric_limits<std::uint32_t>::max()) return {};
  return TimelineId{static_cast<std::uint32_t>(*number)};
}

bool set_to_true(const json::Value& object, std::string_view key) {
  return object.get_bool(key);
}

json::Value number(Lsn lsn) {
  return json::Value(to_int(lsn));
}
json::Value number(TimelineId timeline) {
  return json::Value(std::int64_t{to_int(timeline)});
}

bool empty_object(const json::Value& value) {
  const auto* object = value.as_object();
  return object == nullptr || object->empty();
}

int hex_digit(char letter) {
  if (letter >= '0' && letter <= '9') return letter - '0';
  if (letter >= 'a' && letter <= 'f') return letter - 'a' + 10;
  if (letter >= 'A' && letter <= 'F') return letter - 'A' + 10;
  return -1;
}

std::string percent_decoded(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const int high = text[i] == '%' && i + 2 < text.size() ? hex_digit(text[i + 1]) : -1;
    const int low = high >= 0 ? hex_digit(text[i + 2]) : -1;
    if (low >= 0) {
      out += static_cast<char>(high * 16 + low);
      i += 2;
    } else {
      out += text[i];
    }
  }
  return out;
}

// A member key of old times: "postgres://…?application_name=<api_url>".
Member legacy_member(NodeName name, std::string_view url) {
  Member out;
  out.name = std::move(name);
  const auto question = url.find('?');
  out.conn_url = std::string(url.substr(0, question));
  constexpr std::string_view marker = "application_name=";
  if (question != std::string_view::npos) {
    auto query = url.substr(question + 1);
    if (const auto at = query.find(marker); at != std::string_view::npos) {
      query.remove_prefix(at + marker.size());
      out.api_url = percent_decoded(query.substr(0, query.find('&')));
    }
  }
  return out;
}

std::vector<NodeName> names_of(std::string_view list) {
  std::vector<NodeName> out;
  while (!list.empty()) {
    const auto comma = list.find(',');
    auto name = list.substr(0, comma);
    list.remove_prefix(comma == std::string_view::npos ? list.size() : comma + 1);
    while (!name.empty() && name.front() == ' ') name.remove_prefix(1);
    while (!name.empty() && name.back() == ' ') name.remove_suffix(1);
    if (!name.empty()) out.emplace_back(std::string(name));
  }
  return out;
}

std::optional<HistoryLine> history_line(const json::Value& row) {
  const auto* columns = row.as_array();
  if (columns == nullptr || columns->size() < 3) return {};
  HistoryLine out;
  out.timeline = timeline_of(&(*columns)[0]);
  out.switch_lsn = lsn_of(&(*columns)[1]);
  if (out.timeline == TimelineId{}) return {};
  const auto text = [&](std::size_t at) {
    const auto* value = at < columns->size() ? (*columns)[at].as_string() : nullptr;
    return value != nullptr ? *value : std::string();
  };
  out.reason = text(2);
  out.timestamp = text(3);
  out.new_leader = text(4);
  return out;
}

// Kubernetes keeps nested documents as text.
json::Value unwrapped(const json::Value* value) {
  if (value == nullptr) return {};
  if (const auto* text = value->as_string()) return tolerant(*text);
  return *value;
}

}  // namespace

Member parse_member(NodeName name, std::string_view text) {
  if (text.starts_with("postgres")) return legacy_member(std::move(name), text);
  const auto data = tolerant(text);
  Member out;
  out.name = std::move(name);
  out.conn_url = data.get_string("conn_url");
  out.api_url = data.get_string("api_url");
  out.state = data.get_string("state");
  out.role = data.get_string("role");
  if (out.role == "master") out.role = "primary";
  out.version = data.get_string("version");
  out.replication_state = data.get_string("replication_state");
  out.xlog_location = lsn_of(data.find("xlog_location"));
  out.receive_lsn = lsn_of(data.find("receive_lsn"));
  out.replay_lsn = lsn_of(data.find("replay_lsn"));
  out.timeline = timeline_of(data.find("timeline"));
  out.checkpoint_after_promote = data.get_bool("checkpoint_after_promote", true);
  out.pending_restart = set_to_true(data, "pending_restart");
  if (const auto* reason = data.find("pending_restart_reason"); reason && reason->is_object())
    out.pending_restart_reason = *reason;
  if (const auto* restart = data.find("scheduled_restart"); restart && restart->is_object())
    out.scheduled_restart = *restart;
  out.pause = set_to_true(data, "pause");
  if (const auto* tags = data.find("tags")) out.tags = parse_tags(*tags);
  return out;
}

std::string dump_member(const Member& member) {
  auto out = json::Value::object();
  out.set("conn_url", member.conn_url);
  out.set("api_url", member.api_url);
  out.set("state", member.state);
  out.set("role", member.role);
  out.set("version", member.version);
  if (!member.checkpoint_after_promote) out.set("checkpoint_after_promote", false);
  if (auto tags = published_tags(member.tags); !empty_object(tags))
    out.set("tags", std::move(tags));
  if (member.pending_restart) out.set("pending_restart", true);
  if (!empty_object(member.pending_restart_reason))
    out.set("pending_restart_reason", member.pending_restart_reason);
  if (member.xlog_location != Lsn{}) out.set("xlog_location", number(member.xlog_location));
  if (member.replay_lsn != Lsn{}) out.set("replay_lsn", number(member.replay_lsn));
  if (member.receive_lsn != Lsn{}) out.set("receive_lsn", number(member.receive_lsn));
  if (!member.replication_state.empty()) out.set("replication_state", member.replication_state);
  if (member.timeline != TimelineId{}) out.set("timeline", number(member.timeline));
  if (!empty_object(member.scheduled_restart))
    out.set("scheduled_restart", member.scheduled_restart);
  if (member.pause) out.set("pause", true);
  return json::dump(out);
}

FailoverRequest parse_failover(std::string_view text) {
  FailoverRequest out;
  const auto parsed = json::parse(text);
  if (!parsed) {
    // Text that begins like JSON is a damaged document, not the "old:new" of early versions.
    if (text.empty() || text.find_first_of("{}[]\"") != std::string_view::npos) return out;
    const auto colon = text.find(':');
    const auto old = names_of(text.substr(0, colon));
    if (!old.empty()) out.leader = old.front();
    if (colon == std::string_view::npos) return out;
    auto rest = text.substr(colon + 1);
    const auto heir = names_of(rest.substr(0, rest.find(':')));
    if (!heir.empty()) out.candidate = heir.front();
    return out;
  }
  out.leader = NodeName(parsed->get_string("leader"));
  out.candidate = NodeName(parsed->get_string("member"));
  const auto* when = parsed->find("scheduled_at");
  if (when == nullptr || when->is_null()) return out;
  const auto* when_text = when->as_string();
  if (when_text == nullptr || when_text->empty()) return out;
  out.scheduled_at = parse_wall_time(*when_text);
  // A time that can't be read must not turn "later" into "now": no request at all.
  if (!out.scheduled_at) return FailoverRequest{};
  return out;
}

std::string dump_failover(const FailoverRequest& request) {
  auto out = json::Value::object();
  if (!request.leader.empty()) out.set("leader", request.leader.str());
  if (!request.candidate.empty()) out.set("member", request.candidate.str());
  if (request.requested() && request.scheduled_at)
    out.set("scheduled_at", dump_wall_time(*request.scheduled_at));
  return json::dump(out);
}

SyncState parse_sync(std::string_view text) {
  const auto data = tolerant(text);
  SyncState out;
  out.leader = NodeName(data.get_string("leader"));
  if (out.leader.empty()) return SyncState{};
  if (const auto* standbys = data.find("sync_standby")) {
    if (const auto* list = standbys->as_string()) out.voters = names_of(*list);
    if (const auto* list = standbys->as_array()) {
      for (const auto& item : *list)
        if (const auto* name = item.as_string(); name && !name->empty())
          out.voters.emplace_back(*name);
    }
  }
  const auto quorum = integer(data.find("quorum")).value_or(0);
  out.quorum = static_cast<int>(std::clamp<std::int64_t>(quorum, 0, 1'000'000));
  return out;
}

std::string dump_sync(const SyncState& sync) {
  std::vector<std::string> names;
  for (const auto& voter : sync.voters) names.push_back(voter.str());
  std::ranges::sort(names);
  std::string joined;
  for (const auto& name : names) joined += (joined.empty() ? "" : ",") + name;
  auto out = json::Value::object();
  out.set("leader", sync.leader.empty() ? json::Value() : json::Value(sync.leader.str()));
  out.set("quorum", sync.quorum);
  out.set("sync_standby", joined.empty() ? json::Value() : json::Value(joined));
  return json::dump(out);
}

std::optional<std::vector<HistoryLine>> parse_history(std::string_view text) {
  const auto data = tolerant(text);
  const auto* rows = data.as_array();
  if (rows == nullptr) return {};
  std::vector<HistoryLine> out;
  for (const auto& row : *rows)
    if (auto line = history_line(row)) out.push_back(std::move(*line));
  // The last row says which timeline the cluster is on. Without it nothing is known.
  if (!rows->empty() && !history_line(rows->back())) return {};
  return out;
}

std::string dump_history(const std::vector<HistoryLine>& lines) {
  auto out = json::Value::array();
  for (const auto& line : lines) {
    auto row = json::Value::array();
    row.push(number(line.timeline)).push(number(line.switch_lsn)).push(line.reason);
    if (!line.timestamp.empty() || !line.new_leader.empty()) row.push(line.timestamp);
    if (!line.new_leader.empty()) row.push(line.new_leader);
    out.push(std::move(row));
  }
  return json::dump(out);
}

ClusterStatus parse_status(std::string_view text) {
  ClusterStatus out;
  const auto data = tolerant(text);
  if (!data.is_object()) {
    out.optime = lsn_of(&data);
    return out;
  }
  out.optime = lsn_of(data.find("optime"));
  const auto slots = unwrapped(data.find("slots"));
  if (const auto* items = slots.as_object()) {
    for (const auto& [name, position] : *items)
      if (const auto lsn = lsn_of(&position); lsn != Lsn{}) out.slots[name] = lsn;
  }
  const auto retained = unwrapped(data.find("retain_slots"));
  if (const auto* items = retained.as_array()) {
    for (const auto& item : *items)
      if (const auto* name = item.as_string(); name && !name->empty())
        out.retain_slots.push_back(*name);
  }
  return out;
}

std::string dump_status(const ClusterStatus& status) {
  auto out = json::Value::object();
  out.set("optime", number(status.optime));
  if (!status.slots.empty()) {
    auto slots = json::Value::object();
    for (const auto& [name, lsn] : status.slots) slots.set(name, number(lsn));
    out.set("slots", std::move(slots));
  }
  if (!status.retain_slots.empty()) {
    auto names = status.retain_slots;
    std::ranges::sort(names);
    auto list = json::Value::array();
    for (auto& name : names) list.push(std::move(name));
    out.set("retain_slots", std::move(list));
  }
  return json::dump(out);
}

std::optional<std::map<NodeName, std::string>> parse_failsafe(std::string_view text) {
  const auto data = tolerant(text);
  const auto* members = data.as_object();
  if (members == nullptr) return {};
  std::map<NodeName, std::string> out;
  // A member without a usable address stays listed: it has to be asked, and it can't agree.
  for (const auto& [name, url] : *members)
    out[NodeName(name)] = url.is_string() ? *url.as_string() : std::string();
  return out;
}

std::string dump_failsafe(const std::map<NodeName, std::string>& members) {
  auto out = json::Value::object();
  for (const auto& [name, url] : members) out.set(name.str(), url);
  return json::dump(out);
}

json::Value dump_promise_ttl(Duration ttl) {
  return json::Value(std::int64_t{std::chrono::ceil<std::chrono::seconds>(ttl).count()});
}

Duration parse_promise_ttl(const json::Value& body) {
  // No store grants a session of more than a day: a promise without end would keep the cluster without
  // a leader.
  constexpr std::int64_t longest = 86'400;
  const auto ttl = body.get_int("ttl").value_or(0);
  return std::chrono::seconds(ttl > 0 && ttl <= longest ? ttl : 0);
}

Term parse_term(std::string_view text) {
  const auto data = tolerant(text);
  Term out;
  const auto counted = integer(data.find("number")).value_or(0);
  out.number = counted > 0 ? static_cast<std::uint64_t>(counted) : 0;
  out.holder = NodeName(data.get_string("holder"));
  out.timeline = timeline_of(data.find("timeline"));
  out.reserved = timeline_of(data.find("reserved"));
  out.released = set_to_true(data, "released");
  return out;
}

std::string dump_term(const Term& term) {
  auto out = json::Value::object();
  out.set("number", json::Value(term.number));
  out.set("holder", term.holder.str());
  out.set("timeline", number(term.timeline));
  if (term.reserved != TimelineId{}) out.set("reserved", number(term.reserved));
  if (term.released) out.set("released", true);
  return json::dump(out);
}

namespace {

// A server that was a primary's counts only when it is down and nothing is being done about that: a
// leader without a store may be restarting it. Who does not know what its server is says nothing.
bool says_that_it_does_not_lead(const json::Value& answer) {
  const auto role = answer.get_string("role");
  const auto state = answer.get_string("state");
  if (role == "demoted") return state == "stopped" || state == "crashed" || state == "start failed";
  return !role.empty() && role != "primary" && role != "master" && role != "promoted" &&
         role != "uninitialized";
}

}  // namespace

PeerStatus parse_peer_status(NodeName node, std::string_view body) {
  PeerStatus out;
  out.node = std::move(node);
  const auto parsed = json::parse(body);
  if (!parsed) {
    out.problem = "its answer is " + parsed.error().detail();
    return out;
  }
  out.answered = parsed->is_object() && says_that_it_does_not_lead(*parsed);
  const auto* wal = parsed->find("wal");
  if (wal == nullptr || empty_object(*wal)) wal = parsed->find("xlog");
  if (wal == nullptr || !wal->is_object()) {
    out.problem = fmt::format("its answer shows no WAL position (state {})",
                              parsed->get_string("state", "unknown"));
    return out;
  }
  out.reachable = true;
  const auto role = parsed->get_string("role");
  const bool primary =
      lsn_of(wal->find("location")) != Lsn{} || role == "primary" || role == "master";
  out.in_recovery = !primary;
  if (out.in_recovery)
    out.lsn =
        std::max(lsn_of(wal->find("received_location")), lsn_of(wal->find("replayed_location")));
  out.timeline = timeline_of(parsed->find("timeline"));
  out.watchdog_failed = set_to_true(*parsed, "watchdog_failed");
  if (const auto* tags = parsed->find("tags")) {
    const auto read = parse_tags(*tags);
    out.nofailover = read.nofailover;
    out.failover_priority = read.failover_priority;
  }
  return out;
}

std::optional<HostPort> parse_conn_url(std::string_view url) {
  for (const std::string_view scheme : {"postgres://", "postgresql://"}) {
    if (!url.starts_with(scheme)) continue;
    url.remove_prefix(scheme.size());
    auto authority = url.substr(0, url.find_first_of("/?"));
    if (const auto at = authority.rfind('@'); at != std::string_view::npos)
      authority.remove_prefix(at + 1);
    HostPort out;
    std::string_view port;
    if (authority.starts_with('[')) {
      const auto close = authority.find(']');
      if (close == std::string_view::npos) return {};
      out.host = std::string(authority.substr(1, close - 1));
      port = authority.substr(close + 1);
      if (!port.empty() && port.front() != ':') return {};
    } else {
      const auto colon = authority.find(':');
      out.host = std::string(authority.substr(0, colon));
      port = colon == std::string_view::npos ? std::string_view() : authority.substr(colon);
    }
    if (out.host.empty()) return {};
    if (port.empty()) return out;
    const auto value = digits(port.substr(1));
    if (!value || *value < 1 || *value > 65535) return {};
    out.port = static_cast<int>(*value);
    return out;
  }
  return {};
}

std::string to_text(const HostPort& at) {
  const bool brackets = at.host.find(':') != std::string::npos && !at.host.starts_with('[');
  return brackets ? fmt::format("[{}]:{}", at.host, at.port)
                  : fmt::format("{}:{}", at.host, at.port);
}

}  // namespace spilo::codec
