// etcd's JSON, without any I/O: texts in, values out, never an exception. Private to the adapter,
// and to its tests.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "spilo/core/base64.hpp"
#include "spilo/core/error.hpp"
#include "spilo/core/json.hpp"
#include "spilo/ports/dcs.hpp"

namespace spilo::etcd::wire {

using spilo::base64;
using spilo::from_base64;
// The first key after all that begin with `prefix`: its last byte plus one, with carry.
std::string prefix_end(std::string_view prefix);

// ---- requests
// ------------------------------------------------------------------------------------------------------------
std::string range_request(std::string_view base, bool serializable);
std::string term_request(
    std::string_view base);  // a linearizable read of nothing: only its header counts
// Of several changes to one key the last one counts; etcd refuses to change a key twice in one
// transaction.
std::string txn_request(std::string_view base,
                        const dcs::Transaction& transaction,
                        const SessionId& session);
std::string grant_request(std::int64_t ttl_seconds);
std::string lease_request(const SessionId& session);  // keepalive and revoke
// With `fragments` (etcd 3.4) no message of the watch is much longer than a request may be, however
// much has happened.
std::string watch_request(std::string_view base, std::uint64_t start_revision, bool fragments);
std::string authenticate_request(std::string_view user, std::string_view password);

// ---- answers
// -------------------------------------------------------------------------------------------------------------
// proto3 JSON: 64-bit numbers are texts, and members with default values are left out.
struct Header {
  std::uint64_t cluster_id = 0;
  std::uint64_t revision = 0;
  std::uint64_t raft_term = 0;
  std::uint64_t member_id = 0;
};
// A member of the cluster, as the cluster itself lists it.
class MemberInfo {
 public:
  MemberInfo() = default;
  std::uint64_t id = 0;
  bool learner = false;  // it has no vote yet and refuses what we ask for
  std::vector<std::string> client_urls;
};
struct LeaseAnswer {
  SessionId id;
  std::int64_t ttl_seconds = 0;  // 0: the lease is gone
};
struct WatchMessage {
  Header header;
  bool created = false;
  bool canceled = false;
  std::uint64_t compact_revision =
      0;                     // canceled because what it should begin with is no longer stored
  std::uint64_t newest = 0;  // the greatest revision of its events; 0: no events
  std::string reason;
};
// Version 3.4.23 as (3, 4).
struct ServerVersion {
  int major = 0;
  int minor = 0;
};

// What stands in a document that arrived with status 200, or the object below "result" when it is
// part of a stream.
const json::Value& payload(const json::Value& document) noexcept;
Header header_of(const json::Value& answer) noexcept;
// protocol: what can't be understood, and where.
Result<dcs::Snapshot> parse_range(const json::Value& answer, std::string_view base);
// conflict when a requirement did not hold.
Result<dcs::Committed> parse_txn(const json::Value& answer,
                                 std::string_view base,
                                 const dcs::Transaction& transaction);
LeaseAnswer parse_lease(const json::Value& answer);
Result<WatchMessage> parse_watch(std::string_view line);
Result<ServerVersion> parse_version(std::string_view body);
// The members that serve clients: of cluster/member/list, and of the page /members that a member
// shows at its peer address. Anything else is left out; what has no member at all gives an empty
// list.
std::vector<MemberInfo> parse_members(const json::Value& answer);
std::vector<MemberInfo> parse_peer_members(std::string_view body);
// Of maintenance/status: its id (0: not told), and whether it is a learner. No URLs.
MemberInfo parse_status(std::string_view body);

// ---- refusals
// ------------------------------------------------------------------------------------------------------------
class Refusal {
 public:
  Refusal() = default;
  Refusal(int status, int code, std::string words)
      : http_status(status), grpc_code(code), text(std::move(words)) {}
  int http_status = 0;
  int grpc_code = -1;  // -1: none, so it is not etcd itself that speaks
  std::string text;
};
Refusal parse_refusal(int http_status, std::string_view body);

enum class Kind { read, write, lease };
// What a refusal means. Only codes decide; an unknown one is "no answer with authority":
// unavailable, and ambiguous for a write.
errc meaning(const Refusal& refusal, Kind kind) noexcept;
// True when a new authentication may help.
bool wants_authentication(const Refusal& refusal) noexcept;

}  // namespace spilo::etcd::wire
