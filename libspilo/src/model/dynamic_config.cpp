#include "spilo/model/dynamic_config.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>

namespace spilo {
namespace {

using std::chrono::seconds;

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

struct Quantity {
  std::int64_t count = 0;
  std::string_view unit;  // empty: none; a view into the value
};

// "30", "30min", "30 min", 30. A number with a fraction is none.
std::optional<Quantity> quantity(const json::Value& value) {
  Quantity out;
  if (const auto number = value.as_int()) {
    out.count = *number;
    return out;
  }
  if (const auto number = value.as_double()) {
    if (std::trunc(*number) != *number || std::abs(*number) > 9e15) return {};
    out.count = static_cast<std::int64_t>(*number);
    return out;
  }
  const auto* text = value.as_string();
  if (text == nullptr) return {};
  const auto body = trimmed(*text);
  const auto* end = body.data() + body.size();
  const auto [stop, failure] = std::from_chars(body.data(), end, out.count);
  if (failure != std::errc{}) return {};
  out.unit = trimmed(std::string_view(stop, static_cast<std::size_t>(end - stop)));
  return out;
}

std::optional<std::int64_t> plain_integer(const json::Value& value) {
  const auto found = quantity(value);
  if (!found || !found->unit.empty()) return {};
  return found->count;
}

std::optional<std::int64_t> scaled(std::int64_t count, std::int64_t factor) {
  constexpr auto limit = std::numeric_limits<std::int64_t>::max();
  if (count > limit / factor || count < -(limit / factor)) return {};
  return count * factor;
}

// What Patroni takes for a boolean: also texts and 0 or 1.
std::optional<bool> lenient_bool(const json::Value& value) {
  if (const auto boolean = value.as_bool()) return boolean;
  if (const auto number = value.as_int()) {
    if (*number == 0 || *number == 1) return *number == 1;
    return {};
  }
  const auto* text = value.as_string();
  if (text == nullptr) return {};
  std::string lower(*text);
  std::ranges::transform(lower, lower.begin(), [](char letter) {
    return letter >= 'A' && letter <= 'Z' ? static_cast<char>(letter - 'A' + 'a') : letter;
  });
  for (const char* word : {"on", "true", "yes", "1"})
    if (lower == word) return true;
  for (const char* word : {"off", "false", "no", "0"})
    if (lower == word) return false;
  return {};
}

bool is_quorum(const json::Value& value) {
  const auto* text = value.as_string();
  if (text == nullptr || text->size() != 6) return false;
  constexpr std::string_view word = "quorum";
  return std::ranges::equal(*text, word, [](char a, char b) {
    return a == b || (a >= 'A' && a <= 'Z' && a - 'A' + 'a' == b);
  });
}

const json::Value* present(const json::Value& document, std::string_view key) {
  const auto* value = document.find(key);
  return value == nullptr || value->is_null() ? nullptr : value;
}
const json::Value* present(const json::Value& document,
                           std::string_view key,
                           std::string_view old_name) {
  const auto* value = present(document, key);
  return value != nullptr ? value : present(document, old_name);
}

bool flag(const json::Value& document, std::string_view key, bool otherwise) {
  const auto* value = present(document, key);
  return value == nullptr ? otherwise : lenient_bool(*value).value_or(otherwise);
}

Duration duration_or(const json::Value* value, Duration otherwise) {
  if (value == nullptr) return otherwise;
  const auto found = parse_duration(*value);
  return found && found->count() >= 0 ? *found : otherwise;
}

bool is_standby_cluster(const json::Value& document) {
  const auto* section = present(document, "standby_cluster");
  if (section == nullptr) return false;
  for (const char* key : {"host", "port", "restore_command"}) {
    const auto* value = present(*section, key);
    if (value == nullptr) continue;
    const auto* text = value->as_string();
    if (text == nullptr || !text->empty()) return true;
  }
  return false;
}

// Reads one of the three; false when it is there and can't be used.
bool read_seconds(const json::Value& document, std::string_view key, Duration& into) {
  const auto* value = present(document, key);
  if (value == nullptr) return true;
  const auto count = plain_integer(*value);
  if (!count || *count > 365 * 86400) return false;
  into = seconds(*count);
  return true;
}

// The contract's rule for sums that a Patroni cluster may have stored: ttl stays, the others give
// way.
void adjust(Timing& timing) {
  timing.ttl = std::max<Duration>(timing.ttl, seconds(3));
  timing.loop_wait = std::max<Duration>(timing.loop_wait, seconds(1));
  timing.retry_timeout = std::max<Duration>(timing.retry_timeout, seconds(1));
  if (timing.loop_wait + 2 * timing.retry_timeout <= timing.ttl) return;
  if (seconds(1) + 2 * timing.retry_timeout > timing.ttl) {
    timing.loop_wait = seconds(1);
    timing.retry_timeout = std::chrono::duration_cast<seconds>((timing.ttl - seconds(1)) / 2);
  } else {
    timing.loop_wait = timing.ttl - 2 * timing.retry_timeout;
  }
}

}  // namespace

std::optional<Duration> parse_duration(const json::Value& value, Duration base) {
  const auto found = quantity(value);
  if (!found) return {};
  struct Unit {
    std::string_view name;
    std::int64_t nanoseconds;
  };
  static constexpr std::array<Unit, 6> units = {{{"us", 1'000},
                                                 {"ms", 1'000'000},
                                                 {"s", 1'000'000'000},
                                                 {"min", 60'000'000'000},
                                                 {"h", 3'600'000'000'000},
                                                 {"d", 86'400'000'000'000}}};
  std::int64_t factor = base.count();
  if (!found->unit.empty()) {
    const auto unit = std::ranges::find(units, found->unit, &Unit::name);
    if (unit == units.end()) return {};
    factor = unit->nanoseconds;
  }
  const auto total = scaled(found->count, factor);
  return total ? std::optional(Duration(*total)) : std::nullopt;
}

std::optional<std::int64_t> parse_bytes(const json::Value& value) {
  const auto found = quantity(value);
  if (!found) return {};
  if (found->unit.empty() || found->unit == "B") return found->count;
  std::int64_t factor = 1;
  for (const std::string_view unit : {"kB", "MB", "GB", "TB"}) {
    factor *= 1024;
    if (found->unit == unit) return scaled(found->count, factor);
  }
  return {};
}

std::optional<DynamicConfig> parse_dynamic_config(const json::Value& document) {
  if (!document.is_object()) return {};
  DynamicConfig out;
  if (!read_seconds(document, "ttl", out.timing.ttl) ||
      !read_seconds(document, "loop_wait", out.timing.loop_wait) ||
      !read_seconds(document, "retry_timeout", out.timing.retry_timeout))
    return {};
  adjust(out.timing);
  const auto integer = [&](std::string_view key, std::int64_t otherwise) {
    const auto* value = present(document, key);
    return value == nullptr ? otherwise : plain_integer(*value).value_or(otherwise);
  };
  const auto small = [](std::int64_t value, std::int64_t least) {
    return static_cast<int>(std::clamp<std::int64_t>(value, least, 1'000'000'000));
  };
  out.maximum_lag_on_failover =
      std::max<std::int64_t>(0, integer("maximum_lag_on_failover", out.maximum_lag_on_failover));
  out.primary_start_timeout =
      duration_or(present(document, "primary_start_timeout", "master_start_timeout"),
                  out.primary_start_timeout);
  out.primary_stop_timeout = duration_or(
      present(document, "primary_stop_timeout", "master_stop_timeout"), out.primary_stop_timeout);
  out.max_timelines_history = small(integer("max_timelines_history", 0), 0);
  out.pause = flag(document, "pause", out.pause);
  out.failsafe_mode = flag(document, "failsafe_mode", out.failsafe_mode);
  out.check_timeline = flag(document, "check_timeline", out.check_timeline);
  out.standby_cluster = is_standby_cluster(document);
  if (const auto* mode = present(document, "synchronous_mode"); mode && !out.standby_cluster) {
    out.quorum_mode = is_quorum(*mode);
    out.synchronous_mode = out.quorum_mode || lenient_bool(*mode).value_or(false);
  }
  out.synchronous_mode_strict = flag(document, "synchronous_mode_strict", false);
  out.synchronous_node_count = small(integer("synchronous_node_count", 1), 1);
  out.member_slots_ttl = duration_or(present(document, "member_slots_ttl"), out.member_slots_ttl);
  if (const auto* postgresql = document.find("postgresql"))
    out.use_slots = flag(*postgresql, "use_slots", out.use_slots);
  out.document = document;
  return out;
}

}  // namespace spilo
