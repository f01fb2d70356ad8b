// Names and one-line forms, for logs, golden scripts and traces.
#include <fmt/format.h>

#include <array>

#include "spilo/ha/effect.hpp"
#include "spilo/ha/event.hpp"

namespace spilo::ha {

std::string_view to_text(TaskKind kind) noexcept {
  switch (kind) {
    case TaskKind::bootstrap:
      return "bootstrap";
    case TaskKind::clone:
      return "clone";
    case TaskKind::start:
      return "start";
    case TaskKind::stop:
      return "stop";
    case TaskKind::restart:
      return "restart";
    case TaskKind::promote:
      return "promote";
    case TaskKind::follow:
      return "follow";
    case TaskKind::rejoin:
      return "rejoin";
    case TaskKind::reload:
      return "reload";
    case TaskKind::checkpoint:
      return "checkpoint";
  }
  return "unknown";
}

namespace {

struct Text {
  std::string operator()(const ReadCluster&) { return "read-cluster"; }
  std::string operator()(const ObservePostgres&) { return "observe-postgres"; }
  std::string operator()(const ProbePeer& e) { return fmt::format("probe {}", e.node.str()); }
  std::string operator()(const AcquireLock& e) {
    return fmt::format("acquire-lock{} term={}", e.rebind ? " rebind" : "", e.term.number);
  }
  std::string operator()(const ReleaseLock& e) { return fmt::format("release-lock {}", e.status); }
  std::string operator()(const PublishMember& e) { return "publish-member " + e.value; }
  std::string operator()(const WriteKey& e) {
    return fmt::format("write {}={}{}", e.key, e.value, e.fence ? " fenced" : "");
  }
  std::string operator()(const EraseKey& e) { return fmt::format("erase {}", e.key); }
  std::string operator()(const StartTask& e) {
    const auto& task = e.task;
    auto text = fmt::format("start-task {}", to_text(task.kind));
    if (!task.upstream.name.empty()) text += " upstream=" + task.upstream.name.str();
    if (task.mode == StopMode::immediate) text += " immediate";
    if (task.as_primary) text += " as-primary";
    if (task.checkpoint_first) text += " checkpoint-first";
    if (task.force) text += " force";
    if (task.timeline_min != TimelineId{})
      text += fmt::format(" timeline-min={}", to_int(task.timeline_min));
    return text;
  }
  std::string operator()(const CancelTask&) { return "cancel-task"; }
  std::string operator()(const KillServer& e) { return "kill-server: " + e.why; }
  std::string operator()(const AskFailsafe& e) {
    std::string text = "ask-failsafe";
    for (const auto& [name, url] : e.members) text += " " + name.str();
    return text;
  }
  std::string operator()(const Configure&) { return "configure"; }
  std::string operator()(const SyncSlots& e) {
    return fmt::format("sync-slots {}", e.wanted.size());
  }
  std::string operator()(const EnsureGuard&) { return "ensure-guard"; }
  std::string operator()(const RunCallback& e) {
    return fmt::format("callback {} {}", e.action, e.role);
  }
  std::string operator()(const Reply& e) { return fmt::format("reply {} {}", e.status, e.text); }
  std::string operator()(const Exit& e) { return fmt::format("exit {}: {}", e.status, e.why); }
};

}  // namespace

std::string to_text(const Effect& effect) {
  return std::visit(Text{}, effect);
}

std::string_view name_of(const Event& event) noexcept {
  constexpr std::array<std::string_view, std::variant_size_v<Event>> names = {
      "woke",           "store-changed",     "postgres-changed",  "guard-died",
      "stop-asked",     "operator-asked",    "identity-changed",  "lease-renewed",
      "renewal-failed", "session-lost",      "failsafe-heard",    "cluster-read",
      "read-failed",    "postgres-observed", "peer-answered",     "lock-acquired",
      "lock-refused",   "lock-released",     "release-failed",    "written",
      "write-failed",   "task-done",         "failsafe-answered", "slots-synced",
      "guard-ready"};
  return names[event.index()];
}

}  // namespace spilo::ha
