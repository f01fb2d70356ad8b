#include "spilo/testing/sim_postgres.hpp"

#include <fmt/format.h>

#include <boost/asio/post.hpp>
#include <boost/asio/this_coro.hpp>
#include <utility>

namespace spilo::testing {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// Long enough for anything that works; what takes longer is stuck.
constexpr Duration step_limit = seconds(60);

Duration limit_of(const ha::Task& task) {
  return task.timeout > Duration(0) ? task.timeout : step_limit;
}

// Marks the port as busy for the life of one task, however that ends.
class Busy {
 public:
  Busy(bool& busy, std::string& doing, std::string what) : busy_(busy), doing_(doing) {
    busy_ = true;
    doing_ = std::move(what);
  }
  ~Busy() {
    busy_ = false;
    doing_.clear();
  }
  Busy(const Busy&) = delete;
  Busy& operator=(const Busy&) = delete;

 private:
  bool& busy_;
  std::string& doing_;
};

}  // namespace

SimPostgres::SimPostgres(SimWorld& world, NodeId node, SimServers& servers, SimServer& server)
    : world_(world),
      node_(node),
      servers_(servers),
      server_(server),
      rng_(world.rng().fork("postgres")) {}

SimPostgres::~SimPostgres() {
  server_.on_change({});
}

void SimPostgres::on_change(std::function<void()> wake) {
  server_.on_change(
      [this, wake = std::move(wake)] { boost::asio::post(world_.executor(node_), wake); });
}

Async<NodeView> SimPostgres::observe(TimePoint deadline) {
  co_await boost::asio::this_coro::throw_if_cancelled(false);  // a port never throws
  const auto began = world_.clock(node_).now();
  // What an earlier agent began to create has never been anybody's.
  if (!busy_ && server_.data().being_created) server_.created(false);
  auto answer = std::make_shared<SimAnswer<NodeView>>(world_, node_);
  const auto look = [&server = server_, answer] {
    if (server.process() != NodeView::Process::hung) answer->set(server.view());
  };
  const std::function<void()> erased(look);
  world_.after(rng_.between(milliseconds(1), milliseconds(15)), erased);
  const auto how = co_await await_answer(answer, deadline);
  if (how == Waited::cancelled) co_return Error(errc::cancelled, "simulated PostgreSQL: observe");
  NodeView view = how == Waited::answered ? answer->take() : server_.view();
  if (how == Waited::timed_out && server_.process() == NodeView::Process::hung)
    view.problem = "no answer by the deadline";
  view.observed_at = began;
  co_return view;
}

Result<void> SimPostgres::kill_now() {
  server_.kill("by its agent");
  return {};
}

void SimPostgres::run_callback(std::string action, std::string role) {
  world_.trace(world_.name(node_), fmt::format("callback {} {}", action, role));
}

Async<void> SimPostgres::sync_slots(std::vector<std::string> wanted,
                                    std::vector<std::pair<std::string, Lsn>>,
                                    TimePoint deadline) {
  co_await boost::asio::this_coro::throw_if_cancelled(false);  // a port never throws
  auto answer = std::make_shared<SimAnswer<Result<void>>>(world_, node_);
  const auto set = [&server = server_, answer, wanted] {
    if (server.process() != NodeView::Process::running) return;
    server.set_slots(wanted);
    answer->set({});
  };
  const std::function<void()> erased(set);
  world_.after(rng_.between(milliseconds(1), milliseconds(10)), erased);
  const auto how = co_await await_answer(answer, deadline);
  if (how == Waited::answered) co_return answer->take();
  co_return Error(how == Waited::cancelled ? errc::cancelled : errc::timed_out,
                  "simulated PostgreSQL: slots");
}

Async<void> SimPostgres::step(Step begin, Duration limit, std::string what) {
  doing_ = what;
  auto answer = std::make_shared<SimAnswer<Result<void>>>(world_, node_);
  begin(answer);
  const auto deadline = world_.clock(node_).now() + limit;
  const auto how = co_await await_answer(answer, deadline);
  if (how == Waited::answered) co_return answer->take();
  co_return Error(how == Waited::cancelled ? errc::cancelled : errc::timed_out,
                  fmt::format("simulated PostgreSQL of {}: {}", server_.name(), what));
}

Async<void> SimPostgres::perform(ha::Task task) {
  co_await boost::asio::this_coro::throw_if_cancelled(false);  // a port never throws
  if (busy_)
    world_.violation(fmt::format(
        "{} is told to {} while it does: {}", server_.name(), ha::to_text(task.kind), doing_));
  const Busy busy(busy_, doing_, std::string(ha::to_text(task.kind)));
  world_.trace(
      server_.name(),
      fmt::format(
          "task {} of {}: {}", ha::to_text(task.kind), task.upstream.name.str(), task.reason));
  auto result = co_await perform_unguarded(task);
  world_.trace(server_.name(),
               fmt::format("task {} ends: {}",
                           ha::to_text(task.kind),
                           result.has_value() ? "done" : result.error().text()));
  co_return result;
}

Async<void> SimPostgres::perform_unguarded(ha::Task task) {
  switch (task.kind) {
    case ha::TaskKind::bootstrap: {
      auto made = co_await bootstrap();
      if (server_.data().being_created) server_.created(made.has_value());
      co_return made;
    }
    case ha::TaskKind::clone:
      co_return co_await copy(task);
    case ha::TaskKind::start:
      co_return co_await start(task);
    case ha::TaskKind::stop:
      co_return co_await stop(task);
    case ha::TaskKind::restart:
      co_return co_await restart(task);
    case ha::TaskKind::rejoin:
      co_return co_await rejoin(task);
    case ha::TaskKind::follow: {
      server_.follow(upstream(task));
      co_return Result<void>();
    }
    case ha::TaskKind::promote: {
      const auto allowed = may_write("promote");
      if (!allowed.has_value()) co_return allowed.error();
      const auto begin = [this, floor = task.timeline_min](SimServer::Done done) {
        server_.promote(floor, std::move(done));
      };
      const Step erased(begin);
      co_return co_await step(erased, limit_of(task), "promote");
    }
    case ha::TaskKind::checkpoint: {
      const auto begin = [this](SimServer::Done done) { server_.checkpoint(std::move(done)); };
      const Step erased(begin);
      co_return co_await step(erased, step_limit, "checkpoint");
    }
    case ha::TaskKind::reload:
      co_return Result<void>();
  }
  co_return Error(errc::unsupported, "simulated PostgreSQL: unknown task");
}

SimServer* SimPostgres::upstream(const ha::Task& task) const {
  return task.upstream.name.empty() ? nullptr : servers_.find(task.upstream.name.str());
}

Async<void> SimPostgres::bootstrap() {
  // Unique even when two nodes bootstrap at once: that is what a checker looks for.
  const auto id = fmt::format("70000{:015}", world_.rng().below(1'000'000'000));
  const auto init = [this, &id](SimServer::Done done) { server_.init(done, id); };
  const Step first(init);
  auto made = co_await step(first, step_limit, "initdb");
  if (!made.has_value()) co_return made;
  co_return co_await launch_primary(step_limit, "first start");
}

Result<void> SimPostgres::may_write(std::string_view what) const {
  if (world_.clock(node_).now() < may_write_until_) return {};
  return Error(errc::session_lost,
               fmt::format("simulated PostgreSQL of {}: {}: the lease is over by now",
                           server_.name(),
                           what));
}

Async<void> SimPostgres::launch_primary(Duration limit, std::string what) {
  const auto allowed = may_write(what);
  if (!allowed.has_value()) co_return allowed.error();
  const auto launch = [this](SimServer::Done done) { server_.launch(true, std::move(done)); };
  const Step erased(launch);
  co_return co_await step(erased, limit, std::move(what));
}

Async<void> SimPostgres::launch_standby(ha::Task task) {
  server_.follow(upstream(task));
  const auto launch = [this](SimServer::Done done) { server_.launch(false, std::move(done)); };
  const Step erased(launch);
  co_return co_await step(erased, limit_of(task), "start as standby");
}

Async<void> SimPostgres::copy(ha::Task task) {
  auto* source = upstream(task);
  if (source == nullptr)
    co_return Error(errc::invalid_argument, "simulated PostgreSQL: a clone without an upstream");
  if (!server_.down()) {
    ha::Task stopping;
    stopping.mode = ha::StopMode::fast;
    auto stopped = co_await stop(stopping);
    if (!stopped.has_value()) co_return stopped;
  }
  const auto begin = [this, source](SimServer::Done done) { server_.copy_from(*source, done); };
  const Step erased(begin);
  auto copied = co_await step(erased, step_limit, "full copy");
  if (!copied.has_value()) co_return copied;
  co_return co_await launch_standby(task);
}

Async<void> SimPostgres::start(ha::Task task) {
  if (!task.as_primary) co_return co_await launch_standby(task);
  server_.follow(nullptr);
  co_return co_await launch_primary(limit_of(task), "start as primary");
}

Async<void> SimPostgres::stop(ha::Task task) {
  if (task.checkpoint_first && server_.running()) {
    const auto begin = [this](SimServer::Done done) { server_.checkpoint(std::move(done)); };
    const Step erased(begin);
    // As good as none: the stop writes its own.
    (void)co_await step(erased, seconds(5), "checkpoint before the stop");
  }
  const auto begin = [this, mode = task.mode](SimServer::Done done) {
    server_.stop(mode, std::move(done));
  };
  const Step erased(begin);
  co_return co_await step(erased, limit_of(task), "stop");
}

Async<void> SimPostgres::restart(ha::Task task) {
  const bool was_primary = !server_.in_recovery();
  ha::Task stopping = task;
  stopping.checkpoint_first = false;
  stopping.mode = ha::StopMode::fast;
  auto stopped = co_await stop(stopping);
  if (!stopped.has_value()) co_return stopped;
  if (was_primary) co_return co_await launch_primary(limit_of(task), "start again");
  const auto launch = [this](SimServer::Done done) { server_.launch(false, std::move(done)); };
  const Step erased(launch);
  co_return co_await step(erased, limit_of(task), "start again");
}

Async<void> SimPostgres::rejoin(ha::Task task) {
  auto* source = upstream(task);
  if (source == nullptr)
    co_return Error(errc::invalid_argument, "simulated PostgreSQL: a rejoin without an upstream");
  if (!server_.down()) {
    ha::Task stopping;
    stopping.mode = ha::StopMode::fast;
    stopping.timeout = seconds(20);
    auto stopped = co_await stop(stopping);
    if (!stopped.has_value()) {
      stopping.mode = ha::StopMode::immediate;
      stopped = co_await stop(stopping);
      if (!stopped.has_value()) co_return stopped;
    }
  }
  if (!task.force && !server_.data().torn && server_.data().initialized) {
    if (server_.can_follow(*source)) co_return co_await launch_standby(task);
    const auto begin = [this, source](SimServer::Done done) { server_.rewind_from(*source, done); };
    const Step erased(begin);
    auto rewound = co_await step(erased, step_limit, "pg_rewind");
    if (rewound.has_value()) co_return co_await launch_standby(task);
    if (rewound.error().is(errc::cancelled)) co_return rewound;
    world_.trace(server_.name(), "rejoin: " + rewound.error().text() + "; now a full copy");
  }
  co_return co_await copy(task);
}

}  // namespace spilo::testing
