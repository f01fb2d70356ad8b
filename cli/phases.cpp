#include "cli/phases.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>
#include <utility>

#include "spilo/model/codec.hpp"

namespace spilo::cli {
namespace {

// The rules that an operator's request goes through, in that order.
constexpr std::pair<std::string_view, std::string_view> phases[] = {
    {"switchover", "candidate checked"},
    {"task-running", "working"},
    {"handover-failed", "called off"},
    {"handover-release", "lock handed over"},
    {"wait-for-heir", "lock handed over"},
    {"race-by-request", "taking the lock"},
    {"acquire-lock", "taking the lock"},
    {"promote", "promoting"},
    {"keep-lock", "leading"},
    {"start-server", "rejoining"},
};

}  // namespace

std::optional<std::vector<Decision>> parse_decisions(std::string_view body) {
  const auto document = json::parse(body);
  if (document.has_error()) return std::nullopt;
  const auto* list = document->as_array();
  if (const auto* records = document->find("records")) list = records->as_array();
  if (!list) return std::nullopt;
  std::vector<Decision> out;
  for (const auto& item : *list) {
    const auto time = codec::parse_wall_time(item.get_string("time"));
    if (!time) continue;
    Decision decision;
    decision.sequence = static_cast<std::uint64_t>(item.get_int("sequence").value_or(0));
    decision.time = *time;
    decision.node = item.get_string("node");
    decision.rule = item.get_string("rule");
    decision.sentence = item.get_string("sentence");
    decision.event = item.get_string("event");
    if (const auto* inputs = item.find("inputs")) decision.inputs = *inputs;
    out.push_back(std::move(decision));
  }
  return out;
}

void sort_decisions(std::vector<Decision>& decisions) {
  std::sort(decisions.begin(), decisions.end(), [](const Decision& a, const Decision& b) {
    return std::tie(a.time, a.node, a.sequence) < std::tie(b.time, b.node, b.sequence);
  });
}

std::string_view phase_of(std::string_view rule) noexcept {
  for (const auto& [name, phase] : phases)
    if (name == rule) return phase;
  return {};
}

std::vector<std::string_view> phase_rules() {
  std::vector<std::string_view> out;
  for (const auto& [rule, phase] : phases) out.push_back(rule);
  return out;
}

std::string phase_line(const Decision& decision, WallTime start) {
  const auto since = static_cast<double>((decision.time - start).count()) / 1000.0;
  const auto phase = phase_of(decision.rule);
  return fmt::format("{:>9.3f} s  {:<12} {:<18} {}",
                     since,
                     decision.node,
                     phase.empty() ? std::string_view(decision.rule) : phase,
                     decision.sentence);
}

}  // namespace spilo::cli
