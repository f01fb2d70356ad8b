// What the REST interface answers, as pure functions of the node's published picture
// (patroni-contract 5.3 and 5.5 to 5.7). No I/O and no clock: the caller says when the picture is
// read.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>

#include "spilo/core/json.hpp"
#include "spilo/core/time.hpp"
#include "spilo/rest/target.hpp"
#include "spilo/runtime/status_board.hpp"

namespace spilo::rest {

// When a picture is read: on the clock that leases count on, and on the wall for what is shown.
struct Instant {
  TimePoint now{};
  WallTime wall{};
};

// The lock is ours at this moment: said by the picture and not run out since it was taken.
bool holds_lock(const PublicStatus& status, Instant at) noexcept;

// The picture shows the cluster as the store knew it at most one ttl ago.
bool has_fresh_view(const PublicStatus& status, Instant at) noexcept;

bool is_paused(const PublicStatus& status) noexcept;

// GET /patroni, and the body of every health check (contract 5.5). Patroni's keys in Patroni's
// order; ours follow below "spilo": rule, summary, task, token, lease_ms.
json::Value patroni_json(const PublicStatus& status, Instant at);

// GET /cluster (contract 5.6). Call it with a view in the picture. While the store does not answer,
// "store_problem" is added: the view is then the last one seen.
json::Value cluster_json(const PublicStatus& status);

// GET /history: the list of contract 1.2; [] when there is none.
json::Value history_json(const PublicStatus& status);

// GET /failsafe: name -> api_url; nothing when failsafe_mode is off or the key is unusable.
std::optional<json::Value> failsafe_json(const PublicStatus& status);

// GET /why: the ring of changes of decision after `since`, oldest first, and how to ask for the
// next ones.
json::Value why_json(const PublicStatus& status,
                     const std::deque<DecisionRecord>& records,
                     std::uint64_t since);

// GET /tasks: what is running on PostgreSQL and how far it is.
json::Value tasks_json(const PublicStatus& status);

// GET /metrics: Prometheus text (contract 5.7).
std::string metrics_text(const PublicStatus& status, Instant at);

// The status code of a health check, 200 or 503, for any path: unknown ones are 503 (contract 5.3).
int health_status(const PublicStatus& status, Instant at, const Target& target);
int liveness_status(const PublicStatus& status, Instant at) noexcept;
int readiness_status(const PublicStatus& status, Instant at, const Target& target);

}  // namespace spilo::rest
