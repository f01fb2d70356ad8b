// The only timeout combinator (Boost 1.81 has no cancel_after, and operator|| waits for the first
// *success*).
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/deferred.hpp>
#include <boost/asio/experimental/parallel_group.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <exception>
#include <string>
#include <tuple>
#include <utility>

#include "spilo/ports/async.hpp"
#include "spilo/ports/clock.hpp"

namespace spilo {

// Runs `op` until `at`. At the deadline `op` is cancelled, its unwinding is awaited, and the result
// is errc::timed_out with `what`. An error of `op` is reported at once, never hidden behind the
// timer. A terminal cancellation of the caller cancels `op` and yields errc::cancelled.
template <class T>
Async<T> with_deadline(Clock& clock, TimePoint at, Async<T> op, std::string what = {}) {
  auto executor = co_await boost::asio::this_coro::executor;
  co_await boost::asio::this_coro::throw_if_cancelled(false);
  auto group = boost::asio::experimental::make_parallel_group(
      boost::asio::co_spawn(executor, std::move(op), boost::asio::deferred),
      boost::asio::co_spawn(executor, sleep_until(clock, at), boost::asio::deferred));
  auto outcome = co_await group.async_wait(boost::asio::experimental::wait_for_one(),
                                           boost::asio::use_awaitable);
  const auto& order = std::get<0>(outcome);
  auto& failure = std::get<1>(outcome);
  auto& result = std::get<2>(outcome);
  const auto state = co_await boost::asio::this_coro::cancellation_state;
  if (order[0] == 0) {
    if (failure) {
      if (state.cancelled() != boost::asio::cancellation_type::none)
        co_return Error(errc::cancelled, std::move(what));
      std::rethrow_exception(failure);
    }
    co_return std::move(result);
  }
  if (state.cancelled() != boost::asio::cancellation_type::none)
    co_return Error(errc::cancelled, std::move(what));
  // The operation may have completed while it was being cancelled; a value must not be thrown away,
  // because it says that something was done.
  if (!failure && result.has_value()) co_return std::move(result);
  co_return Error(errc::timed_out, std::move(what));
}

}  // namespace spilo
