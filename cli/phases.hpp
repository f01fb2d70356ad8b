// What happened during an operation, from the rings of decisions that the nodes keep (GET /why).
// Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "spilo/core/json.hpp"
#include "spilo/core/time.hpp"

namespace spilo::cli {

// One change of decision of one node.
struct Decision {
  std::uint64_t sequence = 0;
  WallTime time{};
  std::string node;
  std::string rule;
  std::string sentence;
  std::string event;
  json::Value inputs;
  bool operator==(const Decision&) const = default;
};

// The body of GET /why: a list, or an object with the list as "records". Nothing when it is neither;
// entries that can't be read are left out.
std::optional<std::vector<Decision>> parse_decisions(std::string_view body);

// By time, then node and sequence.
void sort_decisions(std::vector<Decision>& decisions);

// What a rule means to somebody who waits for a switchover; empty: it is no phase of one.
std::string_view phase_of(std::string_view rule) noexcept;
// The rules that have a phase.
std::vector<std::string_view> phase_rules();

// "  0.012 s  n1        checkpoint      sentence", counted from `start`.
std::string phase_line(const Decision& decision, WallTime start);

}  // namespace spilo::cli
