#include <doctest/doctest.h>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <string>

#include "spilo/runtime/system_clock.hpp"
#include "spilo/runtime/with_deadline.hpp"

using namespace spilo;
using namespace std::chrono_literals;
namespace asio = boost::asio;

namespace {
Async<std::string> slow(Clock& clock, Duration wait, bool fail) {
  const bool waited = co_await sleep_until(clock, clock.now() + wait);
  if (!waited) co_return Error(errc::cancelled);
  if (fail) co_return Error(errc::not_found, "as told");
  co_return std::string("value");
}

template <class T>
Result<T> run(asio::io_context& io, Async<T> op) {
  Result<T> out = Error(errc::unsupported);
  asio::co_spawn(io, std::move(op), [&](std::exception_ptr failure, Result<T> result) {
    if (failure) std::rethrow_exception(failure);
    out = std::move(result);
  });
  io.restart();
  io.run();
  return out;
}
}  // namespace

TEST_CASE("with_deadline: value, error, timeout") {
  asio::io_context io{1};
  SystemClock clock(io.get_executor());
  auto value = run(io, with_deadline(clock, clock.now() + 5s, slow(clock, 1ms, false)));
  REQUIRE(value.has_value());
  CHECK(*value == "value");
  // An error is reported at once and not hidden behind the timer.
  const auto before = clock.now();
  auto error = run(io, with_deadline(clock, clock.now() + 20s, slow(clock, 1ms, true)));
  CHECK(error.error().is(errc::not_found));
  CHECK(clock.now() - before < 10s);
  auto late = run(io, with_deadline(clock, clock.now() + 1ms, slow(clock, 20s, false), "waiting"));
  CHECK(late.error().is(errc::timed_out));
  CHECK(late.error().detail() == "waiting");
}

// A timer that stays set for a wait that was cancelled wakes the process up for nothing.
TEST_CASE("SystemClock: a wait that was cancelled wakes nobody up") {
  asio::io_context io{1};
  SystemClock clock(io.get_executor());
  asio::cancellation_signal cancel;
  bool cancelled = false;
  bool done = false;
  const auto now = clock.now();
  clock.async_wait(now + 400ms, [&](boost::system::error_code ec) { done = !ec; });
  clock.async_wait(now + 50ms,
                   asio::bind_cancellation_slot(
                       cancel.slot(), [&](boost::system::error_code ec) { cancelled = bool(ec); }));
  cancel.emit(asio::cancellation_type::all);
  io.poll();
  CHECK(cancelled);
  REQUIRE(io.run_one() == 1);  // whatever it is that wakes first
  io.poll();
  CHECK(done);
}
