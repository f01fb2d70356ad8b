// The cluster-wide configuration that lives in the store below `config` (patroni-contract 7.2),
// typed and validated.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "spilo/core/json.hpp"
#include "spilo/core/time.hpp"

namespace spilo {

struct Timing {
  Duration ttl = std::chrono::seconds(10);
  Duration loop_wait = std::chrono::seconds(2);
  Duration retry_timeout = std::chrono::seconds(4);
  bool operator==(const Timing&) const = default;
};

struct DynamicConfig {
  Timing timing;
  std::int64_t maximum_lag_on_failover = 1048576;              // bytes
  Duration primary_start_timeout = std::chrono::seconds(300);  // 0: fail over at once
  Duration primary_stop_timeout{};                             // 0: wait for ever
  int max_timelines_history = 0;                               // 0: all
  bool pause = false;
  bool failsafe_mode = true;   // product.md 5: on by default
  bool check_timeline = true;  // product.md 11: on by default
  bool synchronous_mode = false;
  bool quorum_mode = false;
  bool synchronous_mode_strict = false;
  int synchronous_node_count = 1;
  Duration member_slots_ttl = std::chrono::minutes(30);
  bool use_slots = true;
  bool standby_cluster = false;  // a valid standby_cluster section exists
  json::Value document;          // the whole document; unknown keys are kept
  bool operator==(const DynamicConfig&) const = default;
};

// One thing that is wrong: where, and a sentence that names the value, the rule and the cure.
struct Violation {
  std::string path;
  std::string message;
  bool operator==(const Violation&) const = default;
};

// Every violation of a dynamic configuration document, empty when it is fine: wrong types, values
// below the floors (ttl 3 s, loop_wait 1 s, retry_timeout 1 s), and loop_wait + 2*retry_timeout <=
// ttl with the sums. Used wherever a value enters: YAML, REST, CLI. Unknown top-level keys that
// look like a misspelling of a known one are reported too; others are kept silently, as the
// contract says.
std::vector<Violation> validate_dynamic_config(const json::Value& document);
bool is_dynamic_config_key(std::string_view key) noexcept;

// Reads a document from the store. Nothing when a timing value can't be used: the last good
// configuration stays in force. Values that a Patroni cluster may have stored (loop_wait +
// 2*retry_timeout > ttl) are adjusted in memory as in contract 3.17.
std::optional<DynamicConfig> parse_dynamic_config(const json::Value& document);

// Integers with an optional unit (us ms s min h d; B kB MB GB TB), case-sensitive. A bare number
// counts in `base`.
std::optional<Duration> parse_duration(const json::Value& value,
                                       Duration base = std::chrono::seconds(1));
std::optional<std::int64_t> parse_bytes(const json::Value& value);

}  // namespace spilo
