// The only way in for time.
#pragma once

#include <boost/asio/any_completion_handler.hpp>
#include <boost/system/error_code.hpp>

#include "spilo/core/time.hpp"
#include "spilo/ports/async.hpp"

namespace spilo {

class Clock {
 public:
  virtual ~Clock() = default;
  virtual TimePoint now() const noexcept = 0;
  virtual WallTime wall_now() const noexcept = 0;
  // Completes at or after `at`, or early with operation_aborted when cancelled. Never completes
  // inline.
  virtual void async_wait(
      TimePoint at, boost::asio::any_completion_handler<void(boost::system::error_code)> done) = 0;
};

// Waits until `at`; false when the wait was cancelled.
boost::asio::awaitable<bool> sleep_until(Clock& clock, TimePoint at);

}  // namespace spilo
