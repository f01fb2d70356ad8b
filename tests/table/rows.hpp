// Rows of decision tables, and what is checked of each.
#pragma once

#include <doctest/doctest.h>

#include <functional>
#include <string>
#include <vector>

#include "healthy.hpp"

namespace spilo::tables {

struct Row {
  const char* sentence;
  std::function<void(Case&)> delta;
  const char* rule;
  std::vector<std::string> effects;
};

inline std::vector<std::string> texts(const ha::Decision& decision) {
  std::vector<std::string> out;
  for (const auto& effect : decision.effects)
    if (!std::holds_alternative<ha::PublishMember>(effect)) out.push_back(ha::to_text(effect));
  return out;
}

inline void check(const std::vector<Row>& rows) {
  for (const auto& row : rows) {
    CAPTURE(row.sentence);
    auto c = healthy();
    row.delta(c);
    const auto decision = ha::decide(c.id, c.facts, c.memory);
    CAPTURE(decision.summary);
    CHECK(decision.rule == row.rule);
    CHECK(texts(decision) == row.effects);
    CHECK(decision.wake_at > c.facts.now);
    // Pure: the same again gives the same again.
    CHECK(ha::decide(c.id, c.facts, c.memory) == decision);
  }
}

}  // namespace spilo::tables
