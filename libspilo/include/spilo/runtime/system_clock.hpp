// The real clock: CLOCK_BOOTTIME, which goes on while the machine is suspended, so that a lease
// does not outlive a nap.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <memory>

#include "spilo/ports/clock.hpp"

namespace spilo {

// One timerfd serves all waits. Use it on the executor it was made with; destroy it before that
// executor's context.
class SystemClock final : public Clock {
 public:
  explicit SystemClock(boost::asio::any_io_executor executor);
  ~SystemClock() override;
  SystemClock(const SystemClock&) = delete;
  SystemClock& operator=(const SystemClock&) = delete;

  TimePoint now() const noexcept override;
  WallTime wall_now() const noexcept override;
  void async_wait(
      TimePoint at,
      boost::asio::any_completion_handler<void(boost::system::error_code)> done) override;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace spilo
