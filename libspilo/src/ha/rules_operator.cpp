// Running tasks, and what operators ask of this node.
#include <array>
#include <charconv>

#include "plan.hpp"

namespace spilo::ha {
namespace {

using Kind = OperatorRequest::Kind;

const char* verb(Kind kind) {
  return kind == Kind::restart ? "restart" : "reinitialize";
}

int server_version_number(std::string_view text) {
  // "15.4" -> 150004, as the server counts.
  int major = 0;
  int minor = 0;
  const auto dot = text.find('.');
  std::from_chars(text.data(), text.data() + std::min(dot, text.size()), major);
  if (dot != std::string_view::npos)
    std::from_chars(text.data() + dot + 1, text.data() + text.size(), minor);
  return major * 10000 + minor;
}

bool restart_matches(const Plan& plan, const OperatorRequest& request) {
  if (plan.node == nullptr) return false;
  const std::string role = plan.node->role == NodeView::Role::primary ? "primary" : "replica";
  if (!request.role.empty() && request.role != role) return false;
  if (!request.postgres_version.empty() &&
      server_version_number(request.postgres_version) <= plan.node->server_version)
    return false;
  return !request.restart_pending || plan.node->pending_restart;
}

// Why this request can't be served, or nothing.
struct Refusal {
  int status;
  std::string text;
};
std::optional<Refusal> refusal(const Plan& plan, const OperatorRequest& request) {
  if (plan.f.stop_requested) return Refusal{503, "the agent is stopping"};
  // A reload takes a moment and is nobody's business: the request waits for its end.
  const bool busy = plan.f.task && plan.f.task->task.kind != TaskKind::reload;
  if (busy && !(request.kind == Kind::reinitialize && request.force))
    return Refusal{503, fmt::format("{} already in progress", to_text(plan.f.task->task.kind))};
  if (request.kind == Kind::restart) {
    if (!restart_matches(plan, request))
      return Refusal{503, "restart conditions are not satisfied"};
    if (plan.mem.handover) return Refusal{503, "switchover already in progress"};
    // A restart keeps the role, and the directory of a server that is down may be an old primary's: only the lock says what
    // it may be started as.
    if (plan.node != nullptr && plan.node->down())
      return Refusal{503, "PostgreSQL is not running, there is nothing to restart"};
    return {};
  }
  if (plan.lock_mine) return Refusal{503, "I am the leader, can not reinitialize"};
  if (plan.cluster == nullptr || !plan.cluster->leader)
    return Refusal{503, "Cluster has no leader, can not reinitialize"};
  if (upstream_of(plan).conn_url.empty())
    return Refusal{503, "The leader has no member key, can not reinitialize"};
  return {};
}

bool schedule_restart(Plan& plan, const OperatorRequest& request) {
  if (!request.schedule || *request.schedule <= plan.f.wall) return false;
  if (plan.mem.scheduled_restart) {
    plan.reply(request.id, 409, "Another restart is already scheduled");
  } else {
    plan.mem.scheduled_restart = request;
    plan.mem.scheduled_restart->id = 0;
    plan.reply(request.id, 202, "Restart scheduled");
  }
  return true;
}

void cancel_restart(Plan& plan, const OperatorRequest& request) {
  const bool scheduled = plan.mem.scheduled_restart.has_value();
  plan.mem.scheduled_restart.reset();
  plan.reply(request.id,
             scheduled ? 200 : 404,
             scheduled ? "scheduled restart deleted" : "no restarts are scheduled");
}

bool task_running(Plan& plan) {
  if (!plan.f.task) return false;
  const auto& running = *plan.f.task;
  // A forced reinitialize takes the place of whatever replica work is going on.
  for (const auto& request : plan.f.requests)
    if (request.kind == Kind::reinitialize && request.force && !refusal(plan, request) &&
        !(plan.mem.serving && plan.mem.serving->id == request.id)) {
      plan.emit(CancelTask{running.id});
      return plan.say("cancelling {} to reinitialize", to_text(running.task.kind));
    }
  // Small work on a server that has died meanwhile only delays what has to be done about that.
  const bool needs_server = running.task.kind == TaskKind::reload ||
                            running.task.kind == TaskKind::follow ||
                            running.task.kind == TaskKind::checkpoint;
  if (needs_server && plan.node->down() && plan.node->observed_at > running.started) {
    plan.emit(CancelTask{running.id});
    return plan.say("cancelling {}, the server is down", to_text(running.task.kind));
  }
  return plan.say("{} in progress{}",
                  to_text(running.task.kind),
                  running.task.reason.empty() ? "" : ", because " + running.task.reason);
}

bool restart(Plan& plan) {
  for (const auto& request : plan.f.requests) {
    if (request.kind != Kind::restart || plan.mem.serving || plan.answered.contains(request.id))
      continue;
    plan.mem.serving = request;
    plan.start(
        Task{.kind = TaskKind::restart, .timeout = request.timeout, .reason = "an operator asked"});
    return plan.say("restarting PostgreSQL on an operator's request");
  }
  auto& scheduled = plan.mem.scheduled_restart;
  if (!scheduled || plan.paused || plan.mem.serving || plan.mem.handover) return false;
  const Duration left = *scheduled->schedule - plan.f.wall;
  if (left > Duration{}) {
    plan.wake_at(plan.now + left);
    return false;
  }
  const auto due = *std::exchange(scheduled, std::nullopt);
  if (-left > plan.t.loop_wait * 3 / 2 || !restart_matches(plan, due) || plan.node->down())
    return false;
  plan.start(Task{.kind = TaskKind::restart, .timeout = due.timeout, .reason = "it was scheduled"});
  return plan.say("restarting PostgreSQL as scheduled");
}

bool reinitialize(Plan& plan) {
  for (const auto& request : plan.f.requests) {
    if (request.kind != Kind::reinitialize || plan.mem.serving ||
        plan.answered.contains(request.id))
      continue;
    plan.mem.serving = request;
    const bool empty = plan.node->data_dir == NodeView::DataDir::empty;
    plan.start(Task{.kind = empty ? TaskKind::clone : TaskKind::rejoin,
                    .upstream = upstream_of(plan),
                    .force = true,
                    .reason = "an operator asked to reinitialize"});
    return plan.say("building a new copy from {} on an operator's request",
                    upstream_of(plan).name.str());
  }
  return false;
}

constexpr std::array table = {
    RuleEntry{"task-running", "At most one task runs; renewals go on beside it.", task_running},
    RuleEntry{"restart", "An operator asked for a restart, now or scheduled.", restart},
    RuleEntry{"reinitialize", "An operator asked for a new copy of the data.", reinitialize},
};

}  // namespace

void serve_requests(Plan& plan) {
  if (plan.mem.serving && !plan.f.task && plan.f.last_task &&
      (plan.f.last_task->task.kind == TaskKind::restart || plan.f.last_task->task.force)) {
    const auto& request = *plan.mem.serving;
    const auto& failure = plan.f.last_task->failure;
    const auto done =
        request.kind == Kind::restart ? "restarted successfully" : "reinitialized successfully";
    plan.reply(request.id,
               failure ? 503 : 200,
               failure ? fmt::format("{} failed: {}", verb(request.kind), failure->text()) : done);
    plan.mem.serving.reset();
  }
  for (const auto& request : plan.f.requests) {
    if (plan.mem.serving && plan.mem.serving->id == request.id) continue;
    if (request.kind == Kind::reload) {
      plan.start(Task{.kind = TaskKind::reload, .reason = "an operator asked"});
      plan.reply(request.id, 202, "reload scheduled");
    } else if (request.kind == Kind::cancel_restart) {
      cancel_restart(plan, request);
    } else if (request.kind == Kind::restart && schedule_restart(plan, request)) {
      continue;
    } else if (auto why = refusal(plan, request)) {
      plan.reply(request.id, why->status, std::move(why->text));
    } else if (plan.mem.serving) {
      plan.reply(
          request.id, 503, fmt::format("{} already in progress", verb(plan.mem.serving->kind)));
    }
  }
}

std::span<const RuleEntry> operator_rules() noexcept {
  return table;
}

}  // namespace spilo::ha
