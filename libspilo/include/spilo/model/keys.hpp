// The names below a cluster's scope (patroni-contract 1.1).
#pragma once

#include <string>

#include "spilo/core/ids.hpp"

namespace spilo::keys {

inline constexpr const char* initialize = "initialize";
inline constexpr const char* config = "config";
inline constexpr const char* leader = "leader";
inline constexpr const char* status = "status";
inline constexpr const char* optime = "optime/leader";  // legacy, read only when `status` is absent
inline constexpr const char* failover = "failover";
inline constexpr const char* history = "history";
inline constexpr const char* sync = "sync";
inline constexpr const char* failsafe = "failsafe";
inline constexpr const char* term = "term";
inline constexpr const char* members = "members/";

inline std::string member(const NodeName& name) {
  return members + name.str();
}

}  // namespace spilo::keys
