// Somebody else holds the lock: following it (contract 3.10 and 3.11).
#include <array>

#include "plan.hpp"

namespace spilo::ha {
namespace {

// Long enough for a new leader to end its recovery and for a WAL receiver to reconnect (it tries
// every 5 s after a failure).
constexpr Duration streaming_patience = 6s;

bool backing_off(Plan& plan) {
  if (plan.now >= plan.mem.attempt_not_before) return false;
  plan.wake_at(plan.mem.attempt_not_before);
  return true;
}

std::string endpoint(const Upstream& upstream) {
  const auto at = codec::parse_conn_url(upstream.conn_url);
  return at ? codec::to_text(*at) : "";
}

bool leader_ready(const Plan& plan) {
  const auto* leader = plan.leader_member();
  return leader != nullptr && leader->state == "running" &&
         (leader->role == "primary" || leader->role == "promoted" ||
          leader->role == "standby_leader");
}

bool follow(Plan& plan) {
  if (!plan.leader_other || plan.node->role != NodeView::Role::replica) return false;
  const auto upstream = upstream_of(plan);
  if (plan.id.tags.nostream) return false;
  if (upstream.conn_url.empty())
    return plan.say("waiting for {}, the leader, to publish its address",
                    plan.cluster->leader->holder.str());
  if (plan.node->upstream == endpoint(upstream) || backing_off(plan)) return false;
  const auto& last = plan.f.last_task;
  if (last && last->task.kind == TaskKind::follow && last->task.upstream == upstream &&
      last->failure && plan.now < last->finished + plan.t.loop_wait) {
    plan.wake_at(last->finished + plan.t.loop_wait);
    return plan.say("could not follow {}: {}", upstream.name.str(), last->failure->text());
  }
  plan.start(
      Task{.kind = TaskKind::follow, .upstream = upstream, .reason = "the leader has changed"});
  return plan.say("following {}", upstream.name.str());
}

bool rejoin(Plan& plan) {
  if (!plan.leader_other || plan.node->role != NodeView::Role::replica || plan.paused) return false;
  if (plan.node->streaming || plan.mem.not_streaming_since == TimePoint{} || !leader_ready(plan))
    return false;
  if (plan.id.tags.nostream || !plan.node->restore_command.empty()) return false;
  const auto since = plan.mem.not_streaming_since + streaming_patience;
  if (plan.now < since) {
    plan.wake_at(since);
    return false;
  }
  if (backing_off(plan)) return false;
  plan.start(Task{.kind = TaskKind::rejoin,
                  .upstream = upstream_of(plan),
                  .reason = "the server does not stream from its leader"});
  return plan.say("not streaming from {} since {:.0f}s, checking for diverged timelines",
                  plan.cluster->leader->holder.str(),
                  Plan::seconds(plan.now - plan.mem.not_streaming_since));
}

bool secondary(Plan& plan) {
  if (!plan.leader_other) return false;
  return plan.say("no action. I am ({}), a secondary, and following a leader ({})",
                  plan.id.node.str(),
                  plan.cluster->leader->holder.str());
}

constexpr std::array table = {
    RuleEntry{"follow", "A replica follows the leader, or the member it is told to.", follow},
    RuleEntry{
        "rejoin", "A replica that does not stream is checked, rewound or copied anew.", rejoin},
    RuleEntry{"secondary", "A replica that follows goes on.", secondary},
};

}  // namespace

std::span<const RuleEntry> replica_rules() noexcept {
  return table;
}

}  // namespace spilo::ha
