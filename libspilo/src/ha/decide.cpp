// The rule order, on one screen.
#include <array>
#include <vector>

#include "plan.hpp"

namespace spilo::ha {
namespace {

// Safety first: what must happen whatever else is going on. Then an orderly stop; then what can't
// be decided yet; then the lock; then running work and operators; then the life of the server by
// the role it has.
const std::array tables = {
    &lease_rules,      // somebody else leads; the lease is over, or nearly
    &stop_rules,       // we were told to stop
    &lock_rules,       // waiting for facts; the wrong cluster; taking our own lock again
    &operator_rules,   // a task is running; restart and reinitialize
    &bootstrap_rules,  // an empty data directory; a cluster that does not exist yet
    &crash_rules,      // the server is down or hung
    &primary_rules,    // holding the lock: switchover, keeping, promoting
    &race_rules,       // nobody holds it
    &replica_rules,    // somebody else holds it
};

}  // namespace

Decision decide(const Identity& identity, const Facts& facts, const Memory& memory) {
  Plan plan(identity, facts, memory);
  gather(plan);
  answer_failsafe(plan);
  serve_requests(plan);
  ask_failsafe(plan);

  bool decided = false;
  for (const auto& table : tables) {
    for (const auto& entry : (*table)()) {
      if (!entry.apply(plan)) continue;
      plan.rule = entry.name;
      decided = true;
      break;
    }
    if (decided) break;
  }
  if (!decided) {
    plan.rule = "waiting";
    plan.summary = "waiting for the next event";
  }

  call_back(plan);
  keep_books(plan);
  publish(plan);
  if (plan.deadline && *plan.deadline != TimePoint{}) plan.wake_at(*plan.deadline);
  return Decision{.effects = std::move(plan.effects),
                  .memory = std::move(plan.mem),
                  .wake_at = plan.wake,
                  .rule = plan.rule,
                  .summary = std::move(plan.summary)};
}

std::span<const NamedRule> rules() noexcept {
  static const auto all = [] {
    std::vector<NamedRule> named;
    for (const auto& table : tables)
      for (const auto& entry : (*table)()) named.push_back({entry.name, entry.sentence});
    return named;
  }();
  return all;
}

}  // namespace spilo::ha
