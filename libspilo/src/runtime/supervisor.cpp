#include "spilo/runtime/supervisor.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/associated_cancellation_slot.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/this_coro.hpp>
#include <deque>
#include <map>
#include <utility>

#include "public_status.hpp"
#include "spilo/core/assert.hpp"
#include "spilo/model/codec.hpp"
#include "spilo/runtime/cluster_store.hpp"
#include "spilo/runtime/lease_keeper.hpp"
#include "spilo/runtime/operation_set.hpp"
#include "spilo/runtime/signal.hpp"
#include "spilo/runtime/with_deadline.hpp"

namespace spilo {

using namespace std::chrono_literals;
using boost::asio::awaitable;

namespace {

std::string describe(std::exception_ptr failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const std::exception& e) {
    return e.what();
  } catch (...) {
    return "an exception of an unknown type";
  }
}

}  // namespace

// An actor: events are queued and stepped one by one; every effect is an operation that posts its
// event when it ends. Nothing here waits for one of them.
struct Supervisor::Impl : std::enable_shared_from_this<Supervisor::Impl> {
  Impl(Ports p, ha::Identity identity, Logger log, std::uint64_t)
      : ports(p),
        machine(std::move(identity)),
        logger(std::move(log)),
        cluster_store(p.store, p.clock) {}

  // ---- the mailbox ------------------------------------------------------------------------------
  void post(ha::Event event) {
    if (finished) return;
    mailbox.push_back(std::move(event));
    if (!executor || draining) return;
    draining = true;
    boost::asio::post(*executor, [weak = weak_from_this()] {
      if (const auto self = weak.lock()) self->drain();
    });
  }

  void drain() {
    draining = false;
    // What a step posts comes in the next round: operations that have completed meanwhile must not starve behind it.
    for (auto left = mailbox.size(); left > 0 && !mailbox.empty() && !finished; --left) {
      auto event = std::move(mailbox.front());
      mailbox.pop_front();
      step(std::move(event));
    }
  }

  void step(ha::Event event) {
    const auto name = ha::name_of(event);
    auto decision = machine.step(ports.clock.now(), ports.clock.wall_now(), std::move(event));
    keeper->set_ttl(ha::timing(machine.identity(), machine.facts()).ttl);
    // The deadline moves before any effect starts: what is about to become writable is bounded
    // first.
    update_guard();
    if (observer) observer(machine, name, decision);
    report(name, decision);
    for (auto& effect : decision.effects) {
      if (finished) break;
      std::visit([this](auto& e) { perform(e); }, effect);
    }
    publish(decision);
    arm(decision.wake_at);
  }

  // ---- time -------------------------------------------------------------------------------------
  void arm(TimePoint at) {
    if (finished || (timer_armed && timer_at == at)) return;
    timer_at = at;
    const auto round = ++timer_round;
    timer_armed = true;
    timer_cancel.emit(boost::asio::cancellation_type::terminal);
    ports.clock.async_wait(
        at,
        boost::asio::bind_cancellation_slot(
            timer_cancel.slot(), [weak = weak_from_this(), round](boost::system::error_code ec) {
              const auto self = weak.lock();
              if (!self || ec || self->timer_round != round) return;
              self->timer_armed = false;
              self->post(ha::Woke{});
            }));
  }

  Result<void> activate_watchdog() {
    const auto& now = ha::timing(machine.identity(), machine.facts());
    return ports.watchdog.activate(now.ttl, now.loop_wait);
  }

  void update_guard() {
    const auto deadline = ha::guard_deadline(machine.identity(), machine.facts(), machine.memory());
    const auto& cluster = machine.facts().cluster;
    const bool paused = cluster && cluster->config && cluster->config->pause;
    ports.postgres.may_write_until(paused ? TimePoint::max() : deadline.value_or(TimePoint{}));
    if (!deadline) return limit_guard();
    limited.reset();
    if (deadline == guarded) return;
    const auto result =
        *deadline == TimePoint{} ? ports.guard.stand_down() : ports.guard.hold_until(*deadline);
    if (result.has_error()) {
      // Once for each deadline: a new guard is told of it anew.
      guarded = *deadline;
      if (*deadline == TimePoint{}) return;  // nothing to guard, and nobody to tell
      logger.error("guard: {}", result.error().text());
      post(ha::GuardDied{});
      return;
    }
    if (*deadline == TimePoint{}) {
      ports.watchdog.disable();
    } else if (*deadline > guarded.value_or(TimePoint{})) {
      // Also keeps it alive, and moves its timeout when the ttl has changed.
      const auto pat = activate_watchdog();
      if (pat.has_error()) logger.warning("{}", pat.error().text());
    }
    guarded = *deadline;
  }

  // The deadline of our last life stands, but no later than what we are about to bind the lock to.
  void limit_guard() {
    const auto limit = ha::guard_limit(machine.identity(), machine.facts());
    if (!limit || limit == limited) return;
    limited = limit;  // once for each limit: a new guard is told of it anew
    guarded.reset();  // whatever it was told before, it may hold less now
    const auto held = ports.guard.hold_no_longer_than(*limit);
    if (!held.has_error()) return;
    logger.error("guard: {}", held.error().text());
    post(ha::GuardDied{});
  }

  // ---- what others see --------------------------------------------------------------------------
  void report(std::string_view event, const ha::Decision& decision) {
    // Looking again before going on is no change of mind: it would fill log and ring with pairs.
    if (decision.rule == "observing") return;
    const bool changed = decision.rule != last_rule;
    if (decision.summary != last_summary) {
      const bool wants_somebody = decision.rule == "data-dir-unusable" || decision.rule == "unguarded";
      const auto level = wants_somebody ? LogLevel::error : LogLevel::info;
      if (changed || decision.rule != "keep-lock")
        logger.log(changed ? level : LogLevel::debug, "{}", decision.summary);
      last_summary = decision.summary;
    }
    if (!changed) return;
    last_rule = decision.rule;
    ports.board.record(make_record(machine, event, decision, ++sequence));
  }

  void publish(const ha::Decision& decision) {
    ports.board.publish(
        make_public_status(machine, decision, ports.postgres.progress(), ++version));
  }

  // ---- effects ----------------------------------------------------------------------------------
  OperationSet::Id start(awaitable<void> operation) {
    return operations->start(std::move(operation));
  }
  TimePoint within(Duration limit) const { return ports.clock.now() + limit; }
  Duration patience() const {
    return ha::timing(machine.identity(), machine.facts()).retry_timeout;
  }

  void perform(const ha::ReadCluster&) { start(read_cluster(within(patience()))); }
  awaitable<void> read_cluster(TimePoint deadline) {
    auto view = co_await cluster_store.load(dcs::Freshness::linearizable, deadline);
    if (view.has_value()) {
      watch_from = view->index;
      watch_ready->notify();
      post(ha::ClusterRead{std::move(*view)});
    } else {
      post(ha::ReadFailed{view.error()});
    }
  }

  void perform(const ha::ObservePostgres&) {
    const auto loop_wait = ha::timing(machine.identity(), machine.facts()).loop_wait;
    start(observe_postgres(within(std::clamp<Duration>(loop_wait / 3, 500ms, 2s))));
  }
  awaitable<void> observe_postgres(TimePoint deadline) {
    const auto began = ports.clock.now();
    auto view = co_await ports.postgres.observe(deadline);
    if (view.has_value()) {
      tell_problem(*view);
      post(ha::PostgresObserved{std::move(*view)});
      co_return;
    }
    // Cancelled, or a broken adapter: what was known stays, marked with what went wrong.
    NodeView unknown = machine.facts().node.value_or(NodeView{});
    unknown.problem = view.error().text();
    unknown.observed_at = began;
    if (unknown.alive()) unknown.process = NodeView::Process::hung;
    post(ha::PostgresObserved{std::move(unknown)});
  }

  // A server that runs, and that we can't use: said once, and when it is over.
  void tell_problem(const NodeView& view) {
    if (view.data_dir == NodeView::DataDir::unusable || !view.alive()) return;
    const bool running = view.running() || view.process == NodeView::Process::hung;
    const std::string problem = running ? view.problem : "";
    if (problem == told_problem) return;
    if (problem.empty())
      logger.info("PostgreSQL answers again");
    else
      logger.error("PostgreSQL runs, but can't be looked at: {}", problem);
    told_problem = problem;
  }

  void perform(const ha::ProbePeer& e) {
    start(probe_peer(e.node, e.api_url, within(std::min<Duration>(2s, patience()))));
  }
  awaitable<void> probe_peer(NodeName node, std::string api_url, TimePoint deadline) {
    const auto asked_at = ports.clock.now();
    auto status = co_await ports.peers.probe(node, std::move(api_url), deadline);
    PeerStatus answer;
    if (status.has_value()) {
      answer = std::move(*status);
    } else {
      answer.problem = status.error().text();
    }
    answer.node = std::move(node);
    answer.asked_at = asked_at;
    post(ha::PeerAnswered{std::move(answer)});
  }

  void perform(const ha::AcquireLock& e) { start(acquire(e, within(patience()))); }
  awaitable<void> acquire(ha::AcquireLock order, TimePoint deadline) {
    auto self = machine.identity().node;
    auto session = machine.facts().session;
    auto grant = co_await cluster_store.acquire_lock(
        std::move(self), std::move(session), std::move(order), deadline);
    if (grant.has_value()) {
      post(ha::LockAcquired{std::move(grant->first), std::move(grant->second)});
    } else {
      post(ha::LockRefused{grant.error()});
    }
  }

  void perform(const ha::ReleaseLock& e) { start(release(e, within(patience()))); }
  awaitable<void> release(ha::ReleaseLock order, TimePoint deadline) {
    auto result = co_await cluster_store.release_lock(std::move(order), deadline);
    if (result.has_value()) {
      post(ha::LockReleased{});
    } else {
      post(ha::ReleaseFailed{result.error()});
    }
  }

  void perform(const ha::PublishMember& e) { start(publish_member(e.value, within(patience()))); }
  awaitable<void> publish_member(std::string value, TimePoint deadline) {
    auto session = machine.facts().session;
    auto self = machine.identity().node;
    auto result = co_await cluster_store.publish_member(std::move(self), value, deadline);
    if (result.has_value()) {
      post(ha::Written{ha::InFlight::publish, std::move(value), std::move(session), {}});
    } else {
      post(ha::WriteFailed{ha::InFlight::publish, result.error()});
    }
  }

  void perform(const ha::WriteKey& e) { start(write_key(e, within(patience()))); }
  awaitable<void> write_key(ha::WriteKey order, TimePoint deadline) {
    const auto binding = order.session_bound ? dcs::Binding::session : dcs::Binding::permanent;
    SessionId session;
    if (order.session_bound) session = machine.facts().session;
    auto result = co_await cluster_store.write(
        order.key, order.value, order.at, order.fence, deadline, binding);
    if (result.has_value()) {
      post(ha::Written{order.kind, std::move(order.value), std::move(session), *result});
    } else {
      post(ha::WriteFailed{order.kind, result.error()});
    }
  }

  void perform(const ha::EraseKey& e) { start(erase_key(e, within(patience()))); }
  awaitable<void> erase_key(ha::EraseKey order, TimePoint deadline) {
    auto result = co_await cluster_store.erase(order.key, order.at, deadline);
    if (result.has_value()) {
      // Not the empty value that claims `initialize`: this one tells that it is gone.
      post(ha::Written{order.kind, "erased", {}, {}});
    } else {
      post(ha::WriteFailed{order.kind, result.error()});
    }
  }

  void perform(const ha::StartTask& e) {
    task_id = e.id;
    logger.info("{}{}",
                ha::to_text(ha::Effect(e)),
                e.task.reason.empty() ? "" : ", because " + e.task.reason);
    task_operation = start(run_task(e.id, e.task));
  }
  awaitable<void> run_task(ha::TaskId id, ha::Task task) {
    const auto began = ports.clock.now();
    const auto kind = task.kind;
    auto result = co_await ports.postgres.perform(std::move(task));
    std::optional<Error> failure;
    if (result.has_error()) failure = result.error();
    const auto took = std::chrono::duration<double>(ports.clock.now() - began).count();
    if (failure) {
      logger.error("{} failed after {:.3f}s: {}", ha::to_text(kind), took, failure->text());
    } else {
      logger.info("{} done in {:.3f}s", ha::to_text(kind), took);
    }
    post(ha::TaskDone{id, std::move(failure)});
  }
  void perform(const ha::CancelTask& e) {
    if (e.id == task_id) operations->cancel(task_operation);
  }

  void perform(const ha::KillServer& e) {
    logger.error("ending PostgreSQL at once: {}", e.why);
    const auto result = ports.postgres.kill_now();
    if (result.has_error()) logger.error("could not end PostgreSQL: {}", result.error().text());
    post(ha::PostgresChanged{});
  }

  void perform(const ha::AskFailsafe& e) {
    const auto& id = machine.identity();
    json::Value body = json::Value::object();
    body.set("name", id.node.str());
    body.set("conn_url", id.conn_url);
    body.set("api_url", id.api_url);
    body.set("slots", json::Value::object());
    // Not of the contract: whoever does not know it promises for a ttl of its own.
    body.set("ttl", codec::dump_promise_ttl(e.ttl));
    const auto text = json::dump(body, json::Style::spaced);
    // Until the promise would be needed, not a constant: a slow network is no reason to demote.
    const auto safe = ha::safe_until(id, machine.facts(), machine.memory());
    const auto deadline = std::clamp(safe, within(500ms), within(2s));
    for (const auto& [node, url] : e.members)
      start(ask_failsafe(node, url, text, e.asked_at, deadline));
  }
  awaitable<void> ask_failsafe(
      NodeName node, std::string url, std::string body, TimePoint asked_at, TimePoint deadline) {
    auto answer =
        co_await ports.peers.ask_failsafe(node, std::move(url), std::move(body), deadline);
    FailsafeAnswer heard;
    if (answer.has_value()) {
      heard = std::move(*answer);
    } else {
      heard.problem = answer.error().text();
    }
    heard.node = std::move(node);
    post(ha::FailsafeAnswered{std::move(heard), asked_at});
  }

  void perform(const ha::Configure& e) { ports.postgres.configure(e.config); }

  void perform(const ha::SyncSlots& e) {
    start(sync_slots(e.wanted, e.positions, within(patience())));
  }
  awaitable<void> sync_slots(std::vector<std::string> wanted,
                             std::vector<std::pair<std::string, Lsn>> positions,
                             TimePoint deadline) {
    auto result =
        co_await ports.postgres.sync_slots(std::move(wanted), std::move(positions), deadline);
    if (result.has_error()) logger.warning("replication slots: {}", result.error().text());
    post(ha::SlotsSynced{});
  }

  void perform(const ha::EnsureGuard&) {
    auto result = ports.guard.ensure();
    if (result.has_value() && ports.watchdog.required()) {
      // A device that is required and does not work makes this node no primary. Tried only: it
      // counts from the first deadline on, because nobody keeps a replica's alive.
      result = activate_watchdog();
      if (guarded.value_or(TimePoint{}) == TimePoint{}) ports.watchdog.disable();
    }
    if (result.has_error()) logger.error("guard: {}", result.error().text());
    guarded.reset();  // a new guard knows no deadline
    limited.reset();
    post(ha::GuardReady{result.has_value(), result.has_error() ? result.error().text() : ""});
  }

  void perform(const ha::RunCallback& e) { ports.postgres.run_callback(e.action, e.role); }

  void perform(const ha::Reply& e) {
    const auto pending = questions.find(e.request);
    if (pending == questions.end()) return;
    pending->second->answer = {e.status, e.text};
    pending->second->signal.notify();
    questions.erase(pending);
  }

  void perform(const ha::Exit& e) {
    logger.log(e.status == 0 ? LogLevel::info : LogLevel::critical, "exit {}: {}", e.status, e.why);
    finish(e.status, e.end_session);
  }

  // ---- the two companions
  // -------------------------------------------------------------------------
  awaitable<void> watch() {
    co_await boost::asio::this_coro::throw_if_cancelled(false);
    if (!co_await watch_ready->wait()) co_return;
    dcs::Index seen = watch_from;
    while (true) {
      const auto deadline = ports.clock.now() + 60s;
      auto changed = co_await ports.store.changed_since(seen, deadline);
      const auto state = co_await boost::asio::this_coro::cancellation_state;
      if (state.cancelled() != boost::asio::cancellation_type::none) co_return;
      Duration pause{};
      if (changed.has_value()) {
        // A return without progress says "read again"; it must not become a spin.
        if (*changed <= seen) pause = 100ms;
        // A store that was replaced counts anew: what was read of the old one is far ahead of it.
        if (*changed < seen) watch_from = *changed;
        seen = std::max(*changed, watch_from);
        post(ha::StoreChanged{});
      } else if (changed.error().is(errc::timed_out)) {
        seen = watch_from;
      } else {
        pause = std::clamp<Duration>(
            ha::timing(machine.identity(), machine.facts()).ttl / 20, 100ms, 1s);
        seen = watch_from;
        post(ha::StoreChanged{});  // something may have been missed
      }
      if (pause > Duration{} && !co_await sleep_until(ports.clock, ports.clock.now() + pause))
        co_return;
    }
  }

  void begin(boost::asio::any_io_executor ex) {
    executor = ex;
    operations = std::make_shared<OperationSet>(
        ex,
        [](std::exception_ptr failure) {
          assertion_failed("no exception crosses a port", __FILE__, __LINE__, describe(failure));
        },
        [this] {
          if (finished) done->notify();
        });
    done = std::make_unique<Signal>(ex);
    watch_ready = std::make_unique<Signal>(ex);
    keeper = std::make_unique<LeaseKeeper>(
        ports.store,
        ports.clock,
        machine.identity().timing.ttl,
        LeaseKeeper::Listener{[this](dcs::Lease lease) {
                                post(ha::LeaseRenewed{std::move(lease.session), lease.valid_until});
                              },
                              [this](Error error) { post(ha::RenewalFailed{std::move(error)}); },
                              [this](Error error) { post(ha::SessionLost{std::move(error)}); }});
    ports.postgres.on_change([weak = weak_from_this()] {
      if (const auto self = weak.lock()) self->post(ha::PostgresChanged{});
    });
    ports.guard.on_death([weak = weak_from_this()] {
      if (const auto self = weak.lock()) self->post(ha::GuardDied{});
    });
    start(keeper->run());
    start(watch());
    post(ha::Woke{});
  }

  void finish(int exit_status, bool end_session) {
    if (finished) return;
    finished = true;
    outcome = exit_status;
    must_end_session = end_session;
    for (auto& [id, question] : questions) {
      question->answer = {503, "the agent is stopping"};
      question->signal.notify();
    }
    questions.clear();
    timer_cancel.emit(boost::asio::cancellation_type::terminal);
    operations->cancel_all();
    done->notify();
  }

  Ports ports;
  ha::Machine machine;
  Logger logger;
  ClusterStore cluster_store;
  std::optional<boost::asio::any_io_executor> executor;
  std::shared_ptr<OperationSet> operations;
  std::unique_ptr<LeaseKeeper> keeper;
  std::unique_ptr<Signal> done;
  std::unique_ptr<Signal> watch_ready;
  std::deque<ha::Event> mailbox;
  bool draining = false;
  bool finished = false;
  bool must_end_session = false;
  int outcome = 0;

  boost::asio::cancellation_signal timer_cancel;
  TimePoint timer_at{};
  std::uint64_t timer_round = 0;
  bool timer_armed = false;

  std::optional<TimePoint> guarded;
  std::optional<TimePoint> limited;
  dcs::Index watch_from;
  ha::TaskId task_id{};
  OperationSet::Id task_operation = 0;
  std::string last_rule;
  std::string last_summary;
  std::string told_problem;
  std::uint64_t sequence = 0;
  std::uint64_t version = 0;
  Observer observer;

  struct Question {
    explicit Question(const boost::asio::any_io_executor& ex) : signal(ex) {}
    Signal signal;
    std::pair<int, std::string> answer{503, "the agent is stopping"};
  };
  std::map<std::uint64_t, std::shared_ptr<Question>> questions;
  std::uint64_t next_question = 0;

  std::shared_ptr<Question> ask(std::uint64_t& id) {
    id = ++next_question;
    auto question = std::make_shared<Question>(*executor);
    questions.emplace(id, question);
    return question;
  }
};

Supervisor::Supervisor(Ports ports, ha::Identity identity, Logger logger, std::uint64_t seed)
    : impl_(std::make_shared<Impl>(ports, std::move(identity), std::move(logger), seed)) {}

Supervisor::~Supervisor() {
  // run() has completed, or its frames were destroyed with the executor: nothing may call back into
  // the ports any more.
  impl_->finished = true;
  if (impl_->operations) impl_->operations->abandon();
  if (impl_->done) impl_->done->abandon();
}

void Supervisor::post(ha::Event event) {
  impl_->post(std::move(event));
}
void Supervisor::observe(Observer observer) {
  impl_->observer = std::move(observer);
}

Async<int> Supervisor::run() {
  const auto impl = impl_;
  auto executor = co_await boost::asio::this_coro::executor;
  co_await boost::asio::this_coro::throw_if_cancelled(false);
  impl->begin(executor);
  bool told = co_await impl->done->wait();
  if (!told) {
    // Cancelled from outside: the server and the keys are left as they are; whoever comes next
    // adopts them.
    impl->finish(0, false);
    co_await boost::asio::this_coro::reset_cancellation_state();
    co_await boost::asio::this_coro::throw_if_cancelled(false);
  }
  while (!impl->operations->idle()) {
    co_await impl->done->wait();
  }
  if (impl->must_end_session) {
    auto ended = co_await impl->ports.store.end_session(impl->within(2s));
    if (ended.has_error())
      impl->logger.warning("the session was not ended, it will expire: {}", ended.error().text());
  }
  co_return impl->outcome;
}

Async<std::pair<int, std::string>> Supervisor::ask(ha::OperatorRequest request) {
  const auto impl = impl_;
  if (impl->finished || !impl->executor)
    co_return Error(errc::unavailable, "the supervisor does not run");
  std::uint64_t id = 0;
  const auto question = impl->ask(id);
  request.id = id;
  impl->post(ha::OperatorAsked{std::move(request)});
  const bool answered = co_await question->signal.wait();
  if (!answered) co_return Error(errc::cancelled, "waiting for the answer to a request");
  co_return question->answer;
}

Async<std::pair<int, std::string>> Supervisor::hear_failsafe(NodeName leader,
                                                             std::string conn_url,
                                                             std::string api_url,
                                                             Duration ttl) {
  const auto impl = impl_;
  if (impl->finished || !impl->executor)
    co_return Error(errc::unavailable, "the supervisor does not run");
  std::uint64_t id = 0;
  const auto question = impl->ask(id);
  impl->post(
      ha::FailsafeHeard{std::move(leader), std::move(conn_url), std::move(api_url), id, ttl});
  const bool answered = co_await question->signal.wait();
  if (!answered) co_return Error(errc::cancelled, "waiting for the answer to a leader");
  co_return question->answer;
}

namespace {
Async<bool> wait_for_observation(std::shared_ptr<Signal> changed,
                                 StatusBoard& board,
                                 TimePoint since) {
  while (true) {
    const auto status = board.get();
    if (status->node && status->node->observed_at >= since) co_return true;
    if (!co_await changed->wait()) co_return Error(errc::cancelled);
  }
}
}  // namespace

awaitable<void> Supervisor::refresh(Duration age, TimePoint deadline) {
  const auto impl = impl_;
  const auto status = impl->ports.board.get();
  const auto now = impl->ports.clock.now();
  if (impl->finished || !impl->executor) co_return;
  if (status->node && status->node->observed_at + age >= now) co_return;
  const auto changed = std::make_shared<Signal>(*impl->executor);
  const int subscription = impl->ports.board.subscribe([changed] { changed->notify(); });
  impl->post(ha::PostgresChanged{});
  auto waiting = wait_for_observation(changed, impl->ports.board, now);
  const auto ignored = co_await with_deadline(impl->ports.clock, deadline, std::move(waiting));
  (void)ignored;
  impl->ports.board.unsubscribe(subscription);
}

}  // namespace spilo
