// Text <-> value for each key of the store (patroni-contract 1.2 and 2). Readers tolerate anything;
// writers are exact.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "spilo/model/cluster_view.hpp"
#include "spilo/model/peer_status.hpp"

namespace spilo::codec {

Member parse_member(NodeName name, std::string_view text);
std::string dump_member(const Member& member);

FailoverRequest parse_failover(std::string_view text);      // also the legacy "old:new"
std::string dump_failover(const FailoverRequest& request);  // {} when nothing is requested

SyncState parse_sync(std::string_view text);
std::string dump_sync(const SyncState& sync);

std::optional<std::vector<HistoryLine>> parse_history(std::string_view text);
std::string dump_history(const std::vector<HistoryLine>& lines);

ClusterStatus parse_status(std::string_view text);  // also a bare integer (legacy)
std::string dump_status(const ClusterStatus& status);

std::optional<std::map<NodeName, std::string>> parse_failsafe(std::string_view text);
std::string dump_failsafe(const std::map<NodeName, std::string>& members);
// `ttl` in the body of POST /failsafe, in whole seconds and never less than it is. Zero: not there, or
// none that a store grants.
json::Value dump_promise_ttl(Duration ttl);
Duration parse_promise_ttl(const json::Value& body);

Term parse_term(std::string_view text);
std::string dump_term(const Term& term);

// The body of GET api_url (contract 5.5): unreachable without an `xlog` (or `wal`) object.
PeerStatus parse_peer_status(NodeName node, std::string_view body);

// ISO 8601 with an offset; the form that Patroni writes.
std::optional<WallTime> parse_wall_time(std::string_view text);
std::string dump_wall_time(
    WallTime time);  // 2026-05-06T07:08:09.123000+00:00, no fraction when zero

// postgres://host:port/database -> host, port (5432 when absent). Nothing when it is not of that
// form.
struct HostPort {
  std::string host;
  int port = 5432;
  bool operator==(const HostPort&) const = default;
};
std::optional<HostPort> parse_conn_url(std::string_view url);
std::string to_text(const HostPort& at);  // "host:port", IPv6 in brackets

// The slot name of a member (contract 8.2).
std::string slot_name(const NodeName& member);

}  // namespace spilo::codec
