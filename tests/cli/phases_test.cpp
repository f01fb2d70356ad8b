#include "cli/phases.hpp"

#include <doctest/doctest.h>

#include <algorithm>

#include "spilo/ha/machine.hpp"

using namespace spilo;
using namespace spilo::cli;

namespace {

constexpr const char* ring = R"({"node": "n1", "scope": "demo", "next": 8, "records": [
    {"sequence": 7, "time": "2026-05-06T07:08:09.100000+00:00", "node": "n1", "rule": "switchover",
     "sentence": "switchover: demoting myself, n2 can lead", "event": "cluster read",
     "inputs": {"role": "primary"}},
    {"sequence": 8, "time": "2026-05-06T07:08:09.250000+00:00", "node": "n1",
     "rule": "handover-release", "sentence": "n2 has everything", "event": "task done"},
    {"sequence": 9, "time": "not a time", "node": "n1", "rule": "x", "sentence": "y"}]})";

}  // namespace

TEST_CASE("the ring of a node is read, unusable entries are left out") {
  const auto decisions = parse_decisions(ring);
  REQUIRE(decisions.has_value());
  REQUIRE(decisions->size() == 2);
  CHECK(decisions->front().sequence == 7);
  CHECK(decisions->front().node == "n1");
  CHECK(decisions->front().inputs.get_string("role") == "primary");
  CHECK(decisions->back().event == "task done");
  CHECK(parse_decisions("[]")->empty());
  CHECK_FALSE(parse_decisions("<html>not found</html>").has_value());
  CHECK_FALSE(parse_decisions(R"({"state": "running"})").has_value());
}

TEST_CASE("stories are told in the order of time, whoever tells them") {
  auto decisions = *parse_decisions(ring);
  Decision other = decisions[0];
  other.node = "n2";
  other.time += std::chrono::milliseconds(50);
  decisions.push_back(other);
  sort_decisions(decisions);
  CHECK(decisions[0].node == "n1");
  CHECK(decisions[1].node == "n2");
  CHECK(decisions[2].rule == "handover-release");
}

TEST_CASE("a phase is shown with its time since the first one") {
  const auto decisions = *parse_decisions(ring);
  CHECK(phase_line(decisions[1], decisions[0].time) ==
        "    0.150 s  n1           lock handed over   n2 has everything");
}

TEST_CASE("every rule that is called a phase exists") {
  const auto rules = ha::rules();
  for (const auto& name : phase_rules()) {
    CAPTURE(name);
    CHECK(std::any_of(rules.begin(), rules.end(), [&](const auto& r) { return r.name == name; }));
  }
}
