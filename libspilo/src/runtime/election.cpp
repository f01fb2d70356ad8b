#include "spilo/runtime/election.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/this_coro.hpp>
#include <exception>
#include <utility>

#include "spilo/core/assert.hpp"
#include "spilo/runtime/lease_keeper.hpp"
#include "spilo/runtime/operation_set.hpp"
#include "spilo/runtime/signal.hpp"
#include "spilo/runtime/with_deadline.hpp"

namespace spilo {

using namespace std::chrono_literals;
using boost::asio::awaitable;

struct Election::Impl : std::enable_shared_from_this<Election::Impl> {
  Impl(boost::asio::any_io_executor ex, dcs::Store& s, Clock& c, Options o, Listener l)
      : executor(std::move(ex)),
        store(s),
        clock(c),
        options(std::move(o)),
        listener(std::move(l)),
        wake(executor),
        keeper(store,
               clock,
               options.ttl,
               LeaseKeeper::Listener{[this](dcs::Lease renewed) {
                                       lease = std::move(renewed);
                                       if (held && lease.session == held_session)
                                         at_risk_told = false;
                                       wake.notify();
                                     },
                                     [this](Error) { wake.notify(); },
                                     [this](Error error) {
                                       lease = dcs::Lease();
                                       lose("the session is gone: " + error.text());
                                       wake.notify();
                                     }}),
        operations(std::make_shared<OperationSet>(
            executor,
            [](std::exception_ptr) {
              assertion_failed("no exception crosses a port", __FILE__, __LINE__, "in an election");
            },
            [this] { wake.notify(); })) {}

  TimePoint deadline() const noexcept {
    if (!held || lease.session != held_session) return TimePoint{};
    return lease.valid_until - options.margin;
  }
  bool still_held() const noexcept { return held && clock.now() < deadline(); }

  void lose(std::string reason) {
    if (!held) return;
    const auto token = held->era;
    held.reset();
    at_risk_told = false;
    look_again = true;
    listener.lost(token, std::move(reason));
  }

  void win(dcs::Version version, SessionId session) {
    held = version;
    held_session = std::move(session);
    holder = options.self;
    at_risk_told = false;
    // The answer may have come so late that nothing is left of the lease.
    if (clock.now() >= deadline()) {
      held.reset();
      return;
    }
    last_token = version.era;
    listener.acquired(version.era);
  }

  // Pushes what has become of the deadline; returns when to look again.
  TimePoint check_deadline() {
    if (!held) return clock.now() + 60s;
    const auto end = deadline();
    const auto now = clock.now();
    if (now >= end) {
      lose("the lease ran out without a renewal");
      return now + 60s;
    }
    const auto risk = end - options.ttl / 3;
    if (now < risk) return risk;
    if (!at_risk_told) {
      at_risk_told = true;
      listener.at_risk(end);
    }
    return end;
  }

  // Waits for a wake-up or until `at`; false when cancelled or stopped.
  awaitable<bool> pause(TimePoint at) {
    auto waiting = wait_for_wake();
    const auto result = co_await with_deadline(clock, at, std::move(waiting));
    co_return !stopping && !(result.has_error() && result.error().is(errc::cancelled));
  }
  Async<bool> wait_for_wake() {
    const bool woken = co_await wake.wait();
    if (!woken) co_return Error(errc::cancelled);
    co_return true;
  }

  // Watching and campaigning need answers from the store, so they run beside the deadline, which
  // needs none.
  awaitable<void> campaign() {
    co_await boost::asio::this_coro::throw_if_cancelled(false);
    while (true) {
      const auto deadline = clock.now() + options.ttl;
      auto snapshot = co_await store.read(dcs::Freshness::linearizable, deadline);
      if (co_await cancelled()) co_return;
      Duration nap{};
      dcs::Index seen;
      if (snapshot.has_value()) {
        seen = snapshot->index();
        nap = co_await look(*snapshot);
        if (co_await cancelled()) co_return;
      } else {
        nap = retry_after();
      }
      if (nap > Duration{}) {
        if (!co_await sleep_until(clock, clock.now() + nap)) co_return;
        continue;
      }
      const auto until = clock.now() + 60s;
      auto news = co_await store.changed_since(seen, until);
      if (co_await cancelled()) co_return;
      if (news.has_error() && !news.error().is(errc::timed_out)) {
        if (!co_await sleep_until(clock, clock.now() + retry_after())) co_return;
      }
    }
  }

  static awaitable<bool> cancelled() {
    const auto state = co_await boost::asio::this_coro::cancellation_state;
    co_return state.cancelled() != boost::asio::cancellation_type::none;
  }
  Duration retry_after() const { return std::clamp<Duration>(options.ttl / 20, 100ms, 1s); }

  // One look at the key: take it if it is free (or ours from an earlier session). Zero: wait for
  // news. Otherwise look again after that long.
  awaitable<Duration> look(const dcs::Snapshot& snapshot) {
    const auto* entry = snapshot.find(options.key);
    holder = entry != nullptr ? NodeName(entry->value) : NodeName();
    if (held) {
      if (entry == nullptr || entry->version.era != held->era)
        lose(entry == nullptr ? "the key has vanished"
                              : "somebody else holds the key: " + entry->value);
      else if (entry->version != *held && holder != options.self)
        lose("somebody else holds the key: " + entry->value);
      else
        co_return Duration{};
    }
    const bool ours = entry != nullptr && holder == options.self;
    if (entry != nullptr && !ours) co_return Duration{};
    if (clock.now() < stand_back_until) co_return stand_back_until - clock.now();
    if (options.willing && !options.willing()) co_return retry_after();
    const auto session = lease.session;
    if (session.empty() || clock.now() + options.ttl / 3 >= lease.valid_until) co_return 50ms;
    const auto until = clock.now() + options.ttl / 3;
    if (ours && entry->version.era <= last_token) {
      // Ours from a grant that was declared lost: the next one must carry a greater token, so it
      // begins with a new key.
      dcs::Transaction drop;
      drop.require(options.key, dcs::Condition::at(entry->version));
      drop.erase(options.key);
      auto dropped = co_await store.commit(std::move(drop), until);
      co_return dropped.has_value() ? 1ms : retry_after();
    }
    dcs::Transaction take;
    take.require(options.key, ours ? dcs::Condition::at(entry->version) : dcs::Condition::absent());
    take.put(options.key, options.self.str(), dcs::Binding::session);
    auto committed = co_await store.commit(std::move(take), until);
    if (committed.has_error()) co_return committed.error().is(errc::conflict) ? 1ms : retry_after();
    const auto version = committed->version_of(options.key);
    // A session that changed while the answer was on its way carries the key no more: look again.
    if (version && session == lease.session) {
      win(*version, session);
      wake.notify();
    }
    co_return Duration(1ms);
  }

  boost::asio::any_io_executor executor;
  dcs::Store& store;
  Clock& clock;
  Options options;
  Listener listener;
  Signal wake;
  dcs::Lease lease;
  std::optional<dcs::Version> held;
  SessionId held_session;
  std::uint64_t last_token = 0;
  NodeName holder;
  TimePoint stand_back_until{};
  bool at_risk_told = false;
  bool look_again = false;
  bool stopping = false;
  LeaseKeeper keeper;
  std::shared_ptr<OperationSet> operations;
};

Election::Election(boost::asio::any_io_executor executor,
                   dcs::Store& store,
                   Clock& clock,
                   Options options,
                   Listener listener)
    : impl_(std::make_shared<Impl>(
          std::move(executor), store, clock, std::move(options), std::move(listener))) {}

Election::~Election() {
  impl_->stopping = true;
  impl_->operations->abandon();
  impl_->wake.abandon();
}

bool Election::still_held() const noexcept {
  return impl_->still_held();
}
TimePoint Election::deadline() const noexcept {
  return impl_->deadline();
}
std::optional<std::uint64_t> Election::token() const noexcept {
  if (!impl_->held) return {};
  return impl_->held->era;
}
NodeName Election::leader() const {
  return impl_->holder;
}

void Election::stop() {
  impl_->stopping = true;
  impl_->wake.notify();
}

Async<void> Election::run() {
  const auto impl = impl_;
  co_await boost::asio::this_coro::throw_if_cancelled(false);
  const auto limits = impl->store.limits();
  const auto ttl = impl->options.ttl;
  if (!impl->listener.acquired || !impl->listener.at_risk || !impl->listener.lost)
    co_return Error(errc::invalid_argument,
                    "an election needs all three listeners: acquired, at_risk, lost");
  if (ttl < limits.session_ttl_min || ttl > limits.session_ttl_max) {
    const auto ms = [](Duration d) {
      return std::chrono::duration_cast<std::chrono::milliseconds>(d).count();
    };
    co_return Error(errc::invalid_argument,
                    fmt::format("ttl {} ms is outside the store's limits, {} to {} ms",
                                ms(ttl),
                                ms(limits.session_ttl_min),
                                ms(limits.session_ttl_max)));
  }
  impl->operations->start(impl->keeper.run());
  auto campaign = impl->operations->start(impl->campaign());
  bool going = true;
  while (going) {
    const auto next = impl->check_deadline();
    if (std::exchange(impl->look_again, false)) {
      // It may be waiting for news of a key that it believed to be held: the loss is the news.
      impl->operations->cancel(campaign);
      campaign = impl->operations->start(impl->campaign());
    }
    going = co_await impl->pause(next);
  }
  impl->lose("the election was left");
  impl->operations->cancel_all();
  co_await boost::asio::this_coro::reset_cancellation_state();
  co_await boost::asio::this_coro::throw_if_cancelled(false);
  while (!impl->operations->idle()) {
    co_await impl->wake.wait();
  }
  co_return Result<void>();
}

awaitable<Released> Election::resign(TimePoint deadline) {
  const auto impl = impl_;
  const auto self = impl->options.self;
  impl->stand_back_until = impl->clock.now() + impl->options.ttl;
  impl->lose("resigned");
  auto snapshot = co_await impl->store.read(dcs::Freshness::linearizable, deadline);
  if (snapshot.has_error()) co_return Released::maybe;
  const auto* entry = snapshot->find(impl->options.key);
  if (entry == nullptr || entry->value != self.str()) co_return Released::yes;
  dcs::Transaction give;
  give.require(impl->options.key, dcs::Condition::at(entry->version));
  give.erase(impl->options.key);
  auto committed = co_await impl->store.commit(std::move(give), deadline);
  if (committed.has_value()) co_return Released::yes;
  if (committed.error().is(errc::conflict)) co_return Released::maybe;
  co_return is_certain(committed.error()) ? Released::no : Released::maybe;
}

}  // namespace spilo
