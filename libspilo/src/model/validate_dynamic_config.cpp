// What is wrong with a dynamic configuration document: said where it enters, all of it at once.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>

#include "spilo/model/dynamic_config.hpp"
#include "spilo/model/postgresql_keys.hpp"
#include "spilo/model/spelling.hpp"

namespace spilo {
namespace {

using std::chrono::seconds;

constexpr std::array<std::string_view, 26> known_keys = {"ttl",
                                                         "loop_wait",
                                                         "retry_timeout",
                                                         "maximum_lag_on_failover",
                                                         "maximum_lag_on_syncnode",
                                                         "max_timelines_history",
                                                         "primary_start_timeout",
                                                         "primary_stop_timeout",
                                                         "primary_race_backoff",
                                                         "master_start_timeout",
                                                         "master_stop_timeout",
                                                         "synchronous_mode",
                                                         "synchronous_mode_strict",
                                                         "synchronous_node_count",
                                                         "failsafe_mode",
                                                         "check_timeline",
                                                         "pause",
                                                         "member_slots_ttl",
                                                         "permanent_replication_slots",
                                                         "permanent_slots",
                                                         "slots",
                                                         "ignore_slots",
                                                         "standby_cluster",
                                                         "postgresql",
                                                         "tags",
                                                         "citus"};
constexpr std::array<std::string_view, 7> standby_keys = {"host",
                                                          "port",
                                                          "primary_slot_name",
                                                          "create_replica_methods",
                                                          "restore_command",
                                                          "archive_cleanup_command",
                                                          "recovery_min_apply_delay"};

class Checker {
 public:
  explicit Checker(const json::Value& document) : document_(document) {}

  std::vector<Violation> take() { return std::move(found_); }
  std::size_t count() const noexcept { return found_.size(); }

  void say(std::string path, std::string message) {
    found_.push_back(Violation{std::move(path), std::move(message)});
  }

  const json::Value* get(std::string_view key) const {
    const auto* value = document_.find(key);
    return value == nullptr || value->is_null() ? nullptr : value;
  }

  // A whole number without a unit, also as text; what every node of a mixed cluster can read.
  std::optional<std::int64_t> whole(std::string_view key,
                                    std::string_view what,
                                    std::int64_t least) {
    const auto* value = get(key);
    if (value == nullptr) return {};
    const auto count = parse_bytes(*value);
    const auto* text = value->as_string();
    const bool unit =
        text != nullptr && text->find_first_not_of(" -+0123456789") != std::string::npos;
    if (!count || unit || value->is_double()) {
      say(std::string(key),
          fmt::format(
              "must be a whole number of {} without a unit, but {}; write for example \"{}: {}\"",
              what,
              described(*value),
              key,
              std::max<std::int64_t>(least, 1)));
      return {};
    }
    if (*count < least) {
      say(std::string(key), fmt::format("must be at least {} {}, but is {}", least, what, *count));
      return {};
    }
    return count;
  }

  void boolean(std::string_view key) { boolean_in(document_, "", key); }
  void boolean_in(const json::Value& section, std::string_view prefix, std::string_view key) {
    const auto* value = section.find(key);
    if (value == nullptr || value->is_null() || value->is_bool() || is_boolean_text(*value)) return;
    say(fmt::format("{}{}", prefix, key),
        fmt::format("must be true or false, but {}", described(*value)));
  }

  static bool is_boolean_text(const json::Value& value) {
    if (const auto number = value.as_int()) return *number == 0 || *number == 1;
    const auto* text = value.as_string();
    if (text == nullptr) return false;
    for (const char* word : {"on", "off", "true", "false", "yes", "no", "True", "False", "0", "1"})
      if (*text == word) return true;
    return false;
  }

  void misspelt(const json::Value& section,
                std::string_view prefix,
                std::span<const std::string_view> known) {
    const auto* members = section.as_object();
    if (members == nullptr) return;
    for (const auto& [key, value] : *members) {
      const auto meant = closest_name(key, known);
      if (meant.empty() || is_replica_method(section, key)) continue;
      say(fmt::format("{}{}", prefix, key),
          fmt::format("unknown key, did you mean {}{}?", prefix, meant));
    }
  }

 private:
  // create_replica_methods names sections of the user's own beside it.
  static bool is_replica_method(const json::Value& section, std::string_view key) {
    const auto* methods = section.find("create_replica_methods");
    const auto* names = methods == nullptr ? nullptr : methods->as_array();
    return names != nullptr && std::ranges::any_of(*names, [&](const json::Value& name) {
             return name.is_string() && *name.as_string() == key;
           });
  }

  const json::Value& document_;
  std::vector<Violation> found_;
};

void check_timing(Checker& check) {
  const Timing defaults;
  const auto seconds_of = [](Duration time) {
    return std::chrono::duration_cast<seconds>(time).count();
  };
  const auto problems = check.count();
  const auto ttl = check.whole("ttl", "seconds", 3);
  const auto loop_wait = check.whole("loop_wait", "seconds", 1);
  const auto retry_timeout = check.whole("retry_timeout", "seconds", 1);
  if (check.count() != problems) return;
  const auto t = ttl.value_or(seconds_of(defaults.ttl));
  const auto l = loop_wait.value_or(seconds_of(defaults.loop_wait));
  const auto r = retry_timeout.value_or(seconds_of(defaults.retry_timeout));
  constexpr std::int64_t year = 365 * 86400;
  for (const auto& [key, value] : {std::pair("ttl", t), {"loop_wait", l}, {"retry_timeout", r}}) {
    if (value <= year) continue;
    check.say(key, fmt::format("must be at most {} seconds, but is {}", year, value));
    return;
  }
  if (l + 2 * r <= t) return;
  const auto origin = [](bool given) { return given ? "" : " (default)"; };
  std::string cure = fmt::format("set ttl to at least {}", l + 2 * r);
  if (t >= 3 && l + 2 <= t)
    cure += fmt::format(", or retry_timeout to at most {}", (t - l) / 2);
  else
    cure += ", or lower loop_wait and retry_timeout";
  check.say(
      "ttl",
      fmt::format("loop_wait + 2*retry_timeout = {}{} + 2*{}{} = {} seconds must not be more "
                  "than ttl = {}{}: a store that is slow for that long would cost the primary "
                  "its lock; {}",
                  l,
                  origin(loop_wait.has_value()),
                  r,
                  origin(retry_timeout.has_value()),
                  l + 2 * r,
                  t,
                  origin(ttl.has_value()),
                  cure));
}

void check_numbers(Checker& check) {
  check.whole("maximum_lag_on_failover", "bytes", 0);
  check.whole("maximum_lag_on_syncnode", "bytes", -1);
  check.whole("max_timelines_history", "lines", 0);
  for (const char* key : {"primary_start_timeout",
                          "primary_stop_timeout",
                          "master_start_timeout",
                          "master_stop_timeout",
                          "primary_race_backoff"})
    check.whole(key, "seconds", 0);
  check.whole("synchronous_node_count", "nodes", 1);
  if (const auto* value = check.get("member_slots_ttl")) {
    const auto time = parse_duration(*value);
    if (!time || time->count() < 0)
      check.say("member_slots_ttl",
                fmt::format("must be a time such as 1800, 30min or 2h (units, in exactly this "
                            "spelling: us ms s min h d), but {}",
                            described(*value)));
  }
}

void check_flags(Checker& check) {
  for (const char* key : {"failsafe_mode", "check_timeline", "pause", "synchronous_mode_strict"})
    check.boolean(key);
  const auto* mode = check.get("synchronous_mode");
  if (mode == nullptr || mode->is_bool() || Checker::is_boolean_text(*mode)) return;
  if (mode->is_string() && (*mode->as_string() == "quorum")) return;
  check.say("synchronous_mode", fmt::format("must be on, off or quorum, but {}", described(*mode)));
}

void check_slots(Checker& check) {
  for (const char* key : {"permanent_replication_slots", "permanent_slots", "slots"}) {
    const auto* section = check.get(key);
    if (section == nullptr) continue;
    const auto* slots = section->as_object();
    if (slots == nullptr) {
      check.say(key, fmt::format("must be an object of slot names, but {}", described(*section)));
      continue;
    }
    for (const auto& [name, value] : *slots) {
      const auto path = fmt::format("{}.{}", key, name);
      const bool spelled =
          !name.empty() && name.size() <= 63 &&
          name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_") == std::string::npos;
      if (!spelled)
        check.say(path,
                  "is no slot name: only lower-case letters, digits and underscores, at most 63");
      if (!value.is_null() && !value.is_object())
        check.say(
            path,
            fmt::format("must be an object such as {{type: physical}}, but {}", described(value)));
    }
  }
  if (const auto* list = check.get("ignore_slots"); list && !list->is_array())
    check.say("ignore_slots",
              fmt::format("must be a list of matchers such as {{name: x, type: logical}}, but {}",
                          described(*list)));
}

void check_standby_cluster(Checker& check) {
  const auto* section = check.get("standby_cluster");
  if (section == nullptr) return;
  if (!section->is_object()) {
    check.say("standby_cluster",
              fmt::format("must be an object with host, port or restore_command, but {}",
                          described(*section)));
    return;
  }
  check.misspelt(*section, "standby_cluster.", standby_keys);
}

// Parameters that all nodes must agree on: below the least, a node would silently use its default.
void check_parameters(Checker& check, const json::Value& parameters) {
  struct Least {
    std::string_view name;
    std::int64_t value;
  };
  static constexpr std::array<Least, 6> least = {{{"max_connections", 25},
                                                  {"max_wal_senders", 3},
                                                  {"max_prepared_transactions", 0},
                                                  {"max_locks_per_transaction", 32},
                                                  {"max_replication_slots", 4},
                                                  {"max_worker_processes", 2}}};
  for (const auto& [name, minimum] : least) {
    const auto* value = parameters.find(name);
    if (value == nullptr || value->is_null()) continue;
    const auto count = parse_bytes(*value);
    if (!count || *count < minimum)
      check.say(
          fmt::format("postgresql.parameters.{}", name),
          fmt::format("must be a whole number, at least {}, but {}", minimum, described(*value)));
  }
  const auto* level = parameters.find("wal_level");
  if (level != nullptr && !level->is_null()) {
    const auto* text = level->as_string();
    if (text == nullptr || (*text != "replica" && *text != "logical" && *text != "hot_standby"))
      check.say("postgresql.parameters.wal_level",
                fmt::format("must be replica or logical, or nobody can follow, but {}",
                            described(*level)));
  }
  for (const auto& [name, value] : *parameters.as_object())
    if (value.is_object() || value.is_array())
      check.say(fmt::format("postgresql.parameters.{}", name),
                fmt::format("must be one value, but {}", described(value)));
}

void check_postgresql(Checker& check) {
  const auto* section = check.get("postgresql");
  if (section == nullptr) return;
  if (!section->is_object()) {
    check.say("postgresql", fmt::format("must be an object, but {}", described(*section)));
    return;
  }
  check.misspelt(*section, "postgresql.", postgresql_keys);
  for (const char* key : {"use_slots", "use_pg_rewind"})
    check.boolean_in(*section, "postgresql.", key);
  for (const char* key : {"pg_hba", "pg_ident"}) {
    const auto* list = section->find(key);
    if (list != nullptr && !list->is_null() && !list->is_array())
      check.say(fmt::format("postgresql.{}", key),
                fmt::format("must be a list of lines, but {}", described(*list)));
  }
  const auto* parameters = section->find("parameters");
  if (parameters == nullptr || parameters->is_null()) return;
  if (!parameters->is_object()) {
    check.say("postgresql.parameters",
              fmt::format("must be an object such as {{max_connections: 200}}, but {}",
                          described(*parameters)));
    return;
  }
  check_parameters(check, *parameters);
}

}  // namespace

bool is_dynamic_config_key(std::string_view key) noexcept {
  return std::find(known_keys.begin(), known_keys.end(), key) != known_keys.end();
}

std::vector<Violation> validate_dynamic_config(const json::Value& document) {
  Checker check(document);
  if (!document.is_object()) {
    check.say("", fmt::format("the configuration must be an object, but {}", described(document)));
    return check.take();
  }
  check.misspelt(document, "", known_keys);
  check_timing(check);
  check_numbers(check);
  check_flags(check);
  check_slots(check);
  check_standby_cluster(check);
  check_postgresql(check);
  return check.take();
}

}  // namespace spilo
