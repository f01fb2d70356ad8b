#include "spilo/model/tags.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

namespace spilo {
namespace {

// A tag counts as set when it is neither null, false, 0 nor empty: what every node of a mixed
// cluster has to agree on, hence no cleverness about texts such as "false".
bool truthy(const json::Value* value) noexcept {
  if (value == nullptr || value->is_null()) return false;
  if (const auto boolean = value->as_bool()) return *boolean;
  if (const auto number = value->as_double()) return *number != 0;
  if (const auto* text = value->as_string()) return !text->empty();
  if (const auto* array = value->as_array()) return !array->empty();
  const auto* object = value->as_object();
  return object != nullptr && !object->empty();
}

std::optional<int> whole_number(const json::Value* value) noexcept {
  if (value == nullptr) return {};
  const auto bounded = [](double number) {
    constexpr double limit = std::numeric_limits<int>::max();
    return static_cast<int>(std::clamp(number, -limit, limit));
  };
  if (const auto number = value->as_double())
    return std::isfinite(*number) ? std::optional(bounded(std::round(*number))) : std::nullopt;
  const auto* text = value->as_string();
  if (text == nullptr || text->empty() || text->size() > 10) return {};
  const bool negative = text->front() == '-';
  double number = 0;
  for (const char digit : std::string_view(*text).substr(negative ? 1 : 0)) {
    if (digit < '0' || digit > '9') return {};
    number = number * 10 + (digit - '0');
  }
  if (negative && text->size() == 1) return {};
  return bounded(negative ? -number : number);
}

// nofailover beside failover_priority, nosync beside sync_priority: the boolean wins.
struct Eligibility {
  bool excluded = false;
  int priority = 1;
};
Eligibility eligibility(const json::Value& tags,
                        std::string_view boolean_name,
                        std::string_view priority_name) {
  Eligibility out;
  const auto* boolean = tags.find(boolean_name);
  const auto priority = whole_number(tags.find(priority_name));
  out.priority = priority.value_or(1);
  if (boolean != nullptr && !boolean->is_null()) {
    out.excluded = truthy(boolean);
    if (out.excluded) out.priority = 0;
  } else {
    out.excluded = priority && *priority <= 0;
  }
  return out;
}

}  // namespace

Tags parse_tags(const json::Value& object) {
  Tags out;
  if (!object.is_object()) return out;
  out.all = object;
  const auto failover = eligibility(object, "nofailover", "failover_priority");
  out.nofailover = failover.excluded;
  out.failover_priority = failover.priority;
  const auto sync = eligibility(object, "nosync", "sync_priority");
  out.nosync = sync.excluded;
  out.sync_priority = sync.priority;
  out.clonefrom = truthy(object.find("clonefrom"));
  out.noloadbalance = truthy(object.find("noloadbalance"));
  out.nostream = truthy(object.find("nostream"));
  if (const auto* from = object.find("replicatefrom")) {
    if (from->is_string() || from->is_int()) out.replicatefrom = NodeName(from->scalar_text());
  }
  return out;
}

json::Value published_tags(const Tags& tags) {
  static constexpr std::array<std::string_view, 5> dropped_when_unset = {
      "clonefrom", "nofailover", "noloadbalance", "nosync", "nostream"};
  json::Value out = json::Value::object();
  const auto* all = tags.all.as_object();
  if (all == nullptr) return out;
  for (const auto& [name, value] : *all) {
    const bool beside_priority =
        (name == "nofailover" && tags.all.find("failover_priority") != nullptr) ||
        (name == "nosync" && tags.all.find("sync_priority") != nullptr);
    const bool droppable = std::ranges::find(dropped_when_unset, name) != dropped_when_unset.end();
    if (droppable && !beside_priority && !truthy(&value)) continue;
    out.as_object()->emplace_back(name, value);
  }
  return out;
}

}  // namespace spilo
