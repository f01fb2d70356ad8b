#include <algorithm>
#include <limits>

#include "spilo/rest/status_json.hpp"
#include "status_facts.hpp"

namespace spilo::rest {
namespace {

constexpr std::int64_t unlimited = std::numeric_limits<std::int64_t>::max();

bool contains(std::string_view text, std::string_view part) noexcept {
  return text.find(part) != std::string_view::npos;
}

// Contract: a lag that can't be read does not limit.
std::int64_t lag_limit(const Target& target, std::int64_t otherwise) {
  const auto text = target.find("lag");
  if (!text) return otherwise;
  return parse_bytes(json::Value(*text)).value_or(unlimited);
}

// The most that we know the primary to have written: what it told the store, and what it has sent
// us.
Lsn leader_lsn(const PublicStatus& status) noexcept {
  const Lsn optime = status.cluster ? status.cluster->status.optime : Lsn{};
  const Lsn received = status.node ? status.node->received : Lsn{};
  return std::max(optime, received);
}

bool lags(Lsn leader, Lsn have, std::int64_t limit) noexcept {
  if (to_int(leader) <= to_int(have)) return false;
  const auto behind = to_int(leader) - to_int(have);
  return limit < 0 || behind > static_cast<std::uint64_t>(limit);
}

bool replica_ok(const PublicStatus& status, const Target& target) {
  if (role_of(status) != "replica" || state_of(status) != "running") return false;
  if (status.identity.tags.noloadbalance) return false;
  if (lags(leader_lsn(status), status.node->replayed, lag_limit(target, unlimited))) return false;
  const auto wanted = target.find("replication_state");
  return !wanted || *wanted == replication_state_of(status);
}

// Text tags are compared as they are, everything else as lower-case text ("true", "1").
std::string tag_text(const json::Value& value) {
  if (const auto* text = value.as_string()) return *text;
  std::string out = value.scalar_text();
  std::transform(out.begin(), out.end(), out.begin(), [](unsigned char c) {
    return static_cast<char>(std::tolower(c));
  });
  return out;
}

bool tags_match(const PublicStatus& status, const Target& target) {
  for (const auto& [name, wanted] : target.parameters()) {
    if (name.rfind("tag_", 0) != 0) continue;
    const auto* value = status.identity.tags.all.find(std::string_view(name).substr(4));
    if (value == nullptr || tag_text(*value) != wanted) return false;
  }
  return true;
}

struct Roles {
  bool leader = false;
  bool primary = false;
  bool standby_leader = false;
};

Roles roles_of(const PublicStatus& status, Instant at) {
  Roles out;
  const auto role = role_of(status);
  if (holds_lock(status, at)) {
    out.leader = true;
    const auto* config = config_of(status);
    const bool standby = config != nullptr && config->standby_cluster;
    out.primary = !standby;
    out.standby_leader = standby && (role == "replica" || role == "standby_leader");
  } else if (!has_fresh_view(status, at) && is_paused(status)) {
    // Nobody is demoted in pause, so without a store the role is all there is to go by.
    out.primary = role == "primary";
    out.standby_leader = role == "standby_leader";
    out.leader = out.primary || out.standby_leader;
  }
  return out;
}

struct Verdict {
  bool ok = false;
  bool by_lock = false;  // asks who leads: tag filters don't apply
};

// The rules in the contract's order; the first that matches the path wins.
Verdict judge(const PublicStatus& status, Instant at, const Target& target) {
  const std::string_view path = target.path();
  const Roles roles = roles_of(status, at);
  if (contains(path, "standby_leader") || contains(path, "standby-leader"))
    return {roles.standby_leader, true};
  if (contains(path, "leader")) return {roles.leader, true};
  if (contains(path, "master") || contains(path, "primary") || contains(path, "read-write") ||
      path == "/")
    return {roles.primary, true};
  if (contains(path, "replica")) return {replica_ok(status, target)};
  const bool leads = roles.primary || roles.standby_leader;
  if (contains(path, "read-only") && !contains(path, "sync") && !contains(path, "quorum"))
    return {leads || replica_ok(status, target)};
  if (contains(path, "health")) return {state_of(status) == "running"};
  if (!has_fresh_view(status, at)) return {};
  const auto sync = sync_role(status, status.identity.node);
  const bool replica = replica_ok(status, target);
  if (path == "/sync" || path == "/synchronous") return {sync == "sync_standby" && replica};
  if (path == "/quorum") return {sync == "quorum_standby" && replica};
  if (path == "/async" || path == "/asynchronous") return {sync.empty() && replica};
  if (path == "/read-only-quorum") return {leads || (sync == "quorum_standby" && replica)};
  if (path == "/read-only-sync" || path == "/read-only-synchronous")
    return {leads || (sync == "sync_standby" && replica)};
  return {};
}

}  // namespace

int health_status(const PublicStatus& status, Instant at, const Target& target) {
  const Verdict verdict = judge(status, at, target);
  return verdict.ok && (verdict.by_lock || tags_match(status, target)) ? 200 : 503;
}

int liveness_status(const PublicStatus& status, Instant at) noexcept {
  return is_paused(status) || at.now < status.alive_until ? 200 : 503;
}

int readiness_status(const PublicStatus& status, Instant at, const Target& target) {
  if (holds_lock(status, at)) return 200;
  const Lsn leader = leader_lsn(status);
  if (!has_fresh_view(status, at) && to_int(leader) == 0) return status.failsafe_active ? 200 : 503;
  if (state_of(status) != "running" || replication_state_of(status) != "streaming") return 503;
  const auto* config = config_of(status);
  const std::int64_t otherwise =
      config != nullptr ? config->maximum_lag_on_failover : DynamicConfig().maximum_lag_on_failover;
  const bool written = target.find("mode") == std::string_view("write");
  const Lsn have = written ? status.node->received : status.node->replayed;
  return lags(leader, have, lag_limit(target, otherwise)) ? 503 : 200;
}

}  // namespace spilo::rest
