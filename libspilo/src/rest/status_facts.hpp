// What several answers derive from a picture. Private to rest.
#pragma once

#include <algorithm>
#include <cctype>
#include <string>
#include <string_view>

#include "spilo/rest/status_json.hpp"

namespace spilo::rest {

inline const DynamicConfig* config_of(const PublicStatus& status) noexcept {
  return status.cluster && status.cluster->config ? &*status.cluster->config : nullptr;
}

// The server answered the last observation: what it says about itself can be shown.
inline bool server_answers(const PublicStatus& status) noexcept {
  return status.node && status.node->running();
}

inline std::string state_of(const PublicStatus& status) {
  if (status.state.empty()) return "unknown";
  if (status.state == "running" && !server_answers(status)) return "unknown";
  return status.state;
}

// As SQL says it while the server answers; only the machine knows which replica is a standby
// leader.
inline std::string role_of(const PublicStatus& status) {
  if (!server_answers(status)) return status.role.empty() ? "uninitialized" : status.role;
  if (status.node->role == NodeView::Role::primary) return "primary";
  return status.role == "standby_leader" ? "standby_leader" : "replica";
}

inline std::string replication_state_of(const PublicStatus& status) {
  if (!server_answers(status) || status.node->role != NodeView::Role::replica) return {};
  if (status.node->streaming) return "streaming";
  return status.node->restore_command.empty() ? std::string() : "in archive recovery";
}

inline bool same_name(std::string_view a, std::string_view b) noexcept {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](unsigned char x, unsigned char y) {
    return std::tolower(x) == std::tolower(y);
  });
}

inline bool in_sync_state(const ClusterView& view, const NodeName& name) noexcept {
  if (view.sync.leader.empty()) return false;
  return std::any_of(view.sync.voters.begin(), view.sync.voters.end(), [&](const NodeName& voter) {
    return same_name(voter.str(), name.str());
  });
}

// "sync_standby", "quorum_standby" or nothing: what the store's sync state makes of that member.
inline std::string_view sync_role(const PublicStatus& status, const NodeName& name) noexcept {
  const auto* config = config_of(status);
  if (config == nullptr || !(config->synchronous_mode || config->quorum_mode)) return {};
  if (!in_sync_state(*status.cluster, name)) return {};
  return config->quorum_mode ? "quorum_standby" : "sync_standby";
}

}  // namespace spilo::rest
