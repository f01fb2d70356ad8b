// Consul's HTTP interface as texts, without any I/O: values in, texts out and back, never an
// exception. Private to the adapter, and to its tests.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "spilo/core/base64.hpp"
#include "spilo/core/error.hpp"
#include "spilo/core/json.hpp"
#include "spilo/ports/dcs.hpp"

namespace spilo::consul::wire {

// ---- addresses and durations
// ---------------------------------------------------------------------------------------------
// Everything but letters, digits, "-._~" and slashes is escaped.
std::string escaped(std::string_view path);
// "/v1/kv/service/batman/?recurse&consistent&dc=east": a path and what is not empty of the query.
std::string target(std::string_view path, const std::vector<std::string>& query);
// As Go reads it: "30s", "1500ms".
std::string duration_text(Duration duration);
// As Go writes it: "10s", "24h0m0s", "1.5s", "500ms". Nothing when it is none.
std::optional<Duration> parse_duration(std::string_view text);

// ---- sessions
// ------------------------------------------------------------------------------------------------------------
// Without checks nobody but the ttl ends it: a flapping health check of the agent's node must not.
// The delay after the loss of a lock is zero, because the lease rule makes it superfluous.
std::string session_request(std::string_view name,
                            Duration ttl,
                            const std::vector<std::string>& checks);
// The ID of a session that was created.
Result<SessionId> parse_session(std::string_view body);
// Whether /v1/session/info lists it.
Result<bool> parse_session_info(std::string_view body, const SessionId& session);
// The least ttl in a refusal ("…must be between [10s=24h0m0s]"). A hint: whatever it says is
// tried, and the server's acceptance counts.
std::optional<Duration> ttl_min_hint(std::string_view refusal);
// Of /v1/agent/self.
std::optional<Duration> parse_ttl_min(std::string_view body);

// ---- reading
// -------------------------------------------------------------------------------------------------------------
// X-Consul-Index; nothing when it is missing or no number, so that it was not Consul that spoke.
std::optional<std::uint64_t> parse_index(std::string_view header);
// protocol: what can't be understood, and where.
Result<dcs::Snapshot> parse_list(std::string_view body, std::string_view base, std::uint64_t index);

// ---- transactions
// -----------------------------------------------------------------------------------------------------
// Which session each existing key is bound to, as far as we have seen; an empty one for none. A
// transaction verifies what it believes, so an outdated map costs an attempt and nothing else.
using Owners = std::map<std::string, SessionId, std::less<>>;
Owners owners_of(const dcs::Snapshot& snapshot);

// Whether plan() has to know the owners: a permanent put must take a key out of its session, and
// Consul's "set" would leave it there.
bool needs_owners(const dcs::Transaction& transaction) noexcept;

class Plan {
 public:
  enum class Part {
    requirement,  // what the caller requires
    belief,       // what the map of owners says
    lock,         // binds to our session
    other,        // can't fail by itself
  };
  std::string body;
  std::vector<Part> parts;  // of each operation
};
// Of several changes to one key the last one counts. `flags` gives a number for each write: Consul
// skips a write that changes nothing, and a put has to give a new version.
Plan plan(const dcs::Transaction& transaction,
          std::string_view base,
          const SessionId& session,
          const Owners& owners,
          const std::function<std::uint64_t()>& flags);

// What a transaction wrote. Its new owners are noted in the map.
Result<dcs::Committed> parse_txn(std::string_view body,
                                 std::string_view base,
                                 const dcs::Transaction& transaction,
                                 Owners& owners);

// Why nothing of a transaction was done.
class Refusal {
 public:
  enum class Why {
    not_understood,  // no answer of Consul's
    requirement,     // a requirement did not hold
    belief,          // a key is not bound as we believed: look again
    lock,            // our session is gone, somebody else holds the key, or its lock-delay runs
    denied,          // the token may not
  };
  Why why = Why::not_understood;
  std::string text;
};
Refusal parse_refusal(std::string_view body, const Plan& plan);

// ---- statuses
// -------------------------------------------------------------------------------------------------------------
enum class Kind {
  read,
  session,  // create, renew, destroy: may be repeated
  write,
};
// What a status means that is not an answer in itself. Only the number counts: an unknown one is
// "no answer with authority", and ambiguous for what changes something.
errc meaning(int status, Kind kind) noexcept;

}  // namespace spilo::consul::wire
