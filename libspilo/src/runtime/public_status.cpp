#include "public_status.hpp"

#include <chrono>

namespace spilo {

std::shared_ptr<const PublicStatus> make_public_status(const ha::Machine& machine,
                                                       const ha::Decision& decision,
                                                       std::string progress,
                                                       std::uint64_t version) {
  const auto& identity = machine.identity();
  const auto& facts = machine.facts();
  const auto& memory = machine.memory();
  auto status = std::make_shared<PublicStatus>();
  status->identity = identity;
  status->node = facts.node;
  status->cluster = facts.cluster;
  status->store_answers = facts.store_answers;
  status->store_problem = facts.store_problem;
  if (facts.cluster) {
    // Shown on the wall clock, kept on the monotonic one.
    const auto age = facts.now - facts.cluster->read_started;
    status->store_last_seen = facts.wall - std::chrono::duration_cast<std::chrono::milliseconds>(
                                               facts.store_answers ? Duration{} : age);
  }
  status->holds_lock =
      facts.cluster && facts.cluster->leader && facts.cluster->leader->holder == identity.node;
  if (status->holds_lock) {
    status->lock_valid_until = ha::safe_until(identity, facts, memory);
    status->token = facts.cluster->leader->version.era;
  }
  status->failsafe_active = memory.failsafe_until > facts.now;
  status->watchdog_failed = !facts.guard_ready && facts.guard_lost_at != TimePoint{};
  if (facts.task) {
    status->task = std::string(ha::to_text(facts.task->task.kind));
    if (!progress.empty()) status->task += ": " + progress;
  }
  status->state = ha::member_state(identity, facts, memory);
  status->role = ha::member_role(identity, facts, memory);
  status->rule = decision.rule;
  status->summary = decision.summary;
  const auto& timing = ha::timing(identity, facts);
  const bool primary = facts.node && facts.node->accepts_writes();
  status->alive_until = decision.wake_at + (primary ? timing.ttl : 2 * timing.ttl);
  status->version = version;
  return status;
}

DecisionRecord make_record(const ha::Machine& machine,
                           std::string_view event,
                           const ha::Decision& decision,
                           std::uint64_t sequence) {
  const auto& facts = machine.facts();
  DecisionRecord record;
  record.sequence = sequence;
  record.wall = facts.wall;
  record.at = facts.now;
  record.node = machine.identity().node;
  record.rule = decision.rule;
  record.sentence = decision.summary;
  record.event = event;
  auto inputs = json::Value::object();
  inputs.set("store_answers", facts.store_answers);
  if (!facts.store_problem.empty()) inputs.set("store_problem", facts.store_problem);
  if (facts.cluster) {
    inputs.set("leader", facts.cluster->leader ? facts.cluster->leader->holder.str() : "");
    if (facts.cluster->leader) inputs.set("token", facts.cluster->leader->version.era);
  }
  const auto safe = ha::safe_until(machine.identity(), facts, machine.memory());
  if (safe != TimePoint{})
    inputs.set("lease_left_ms",
               std::chrono::duration_cast<std::chrono::milliseconds>(safe - facts.now).count());
  if (facts.node) {
    inputs.set("role", ha::member_role(machine.identity(), facts, machine.memory()));
    inputs.set("state", ha::member_state(machine.identity(), facts, machine.memory()));
    inputs.set("timeline", static_cast<std::int64_t>(to_int(facts.node->timeline)));
    inputs.set("lsn", to_text(facts.node->last_lsn()));
  }
  if (facts.task) inputs.set("task", std::string(ha::to_text(facts.task->task.kind)));
  record.inputs = std::move(inputs);
  return record;
}

}  // namespace spilo
