#include "spilo/runtime/system_clock.hpp"

#include <fmt/format.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <boost/asio/associated_cancellation_slot.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <cerrno>
#include <ctime>
#include <map>
#include <system_error>
#include <utility>

namespace spilo {
namespace {

TimePoint boot_time() noexcept {
  timespec ts{};
  ::clock_gettime(CLOCK_BOOTTIME, &ts);
  return TimePoint(std::chrono::seconds(ts.tv_sec) + std::chrono::nanoseconds(ts.tv_nsec));
}

int make_timer() {
  const int fd = ::timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK | TFD_CLOEXEC);
  if (fd < 0) throw std::system_error(errno, std::generic_category(), "timerfd_create");
  return fd;
}

}  // namespace

struct SystemClock::State : std::enable_shared_from_this<SystemClock::State> {
  using Handler = boost::asio::any_completion_handler<void(boost::system::error_code)>;
  // The second half of the key keeps equal times in the order of their arrival.
  using Key = std::pair<TimePoint, std::uint64_t>;

  explicit State(const boost::asio::any_io_executor& ex) : executor(ex), timer(ex, make_timer()) {}

  void complete(std::map<Key, Handler>::iterator at, boost::system::error_code ec) {
    Handler handler = std::move(at->second);
    waits.erase(at);
    auto slot = boost::asio::get_associated_cancellation_slot(handler);
    if (slot.is_connected()) slot.clear();
    // Posted, never inline: cancellation may be emitted from inside the code that is being
    // cancelled.
    boost::asio::post(executor,
                      [handler = std::move(handler), ec]() mutable { std::move(handler)(ec); });
    // An idle clock must not keep its io_context busy.
    boost::system::error_code ignored;
    if (waits.empty() && listening) timer.cancel(ignored);
  }

  void fire_due() {
    const auto now = boot_time();
    while (!waits.empty() && waits.begin()->first.first <= now) complete(waits.begin(), {});
  }

  void arm() {
    if (waits.empty() || closed) return;
    const auto first = waits.begin()->first.first;
    if (listening && armed_for == first) return;
    armed_for = first;
    // An all-zero value would disarm the timer, so a time in the past becomes the first nanosecond.
    const auto ns = std::max<Duration>(first.time_since_epoch(), Duration(1));
    itimerspec spec{};
    spec.it_value.tv_sec = std::chrono::duration_cast<std::chrono::seconds>(ns).count();
    spec.it_value.tv_nsec = (ns % std::chrono::seconds(1)).count();
    ::timerfd_settime(timer.native_handle(), TFD_TIMER_ABSTIME, &spec, nullptr);
    if (listening) return;
    listening = true;
    timer.async_wait(boost::asio::posix::stream_descriptor::wait_read,
                     [self = weak_from_this()](boost::system::error_code ec) {
                       const auto state = self.lock();
                       if (!state) return;
                       state->listening = false;
                       if (state->closed) return;
                       if (!ec) {
                         std::uint64_t expirations = 0;
                         [[maybe_unused]] const auto n =
                             ::read(state->timer.native_handle(), &expirations, sizeof expirations);
                       }
                       // Also after a cancellation: a new wait may have come before this handler
                       // ran.
                       state->fire_due();
                       state->arm();
                     });
  }

  boost::asio::any_io_executor executor;
  boost::asio::posix::stream_descriptor timer;
  std::map<Key, Handler> waits;
  std::uint64_t sequence = 0;
  TimePoint armed_for{};
  bool listening = false;
  bool closed = false;
};

SystemClock::SystemClock(boost::asio::any_io_executor executor)
    : state_(std::make_shared<State>(executor)) {}

SystemClock::~SystemClock() {
  state_->closed = true;
  boost::system::error_code ignored;
  state_->timer.cancel(ignored);
  // Destroying a handler may destroy a coroutine frame that waits again on its way out: drain until
  // nothing is left.
  while (!state_->waits.empty()) {
    auto waits = std::exchange(state_->waits, {});
    waits.clear();
  }
}

TimePoint SystemClock::now() const noexcept {
  return boot_time();
}

WallTime SystemClock::wall_now() const noexcept {
  return std::chrono::floor<std::chrono::milliseconds>(std::chrono::system_clock::now());
}

void SystemClock::async_wait(
    TimePoint at, boost::asio::any_completion_handler<void(boost::system::error_code)> done) {
  const State::Key key{at, state_->sequence++};
  // Ask the erased handler for its slot; the original's slot belongs to Asio's proxy once it is
  // erased.
  auto slot = boost::asio::get_associated_cancellation_slot(done);
  state_->waits.emplace(key, std::move(done));
  if (slot.is_connected()) {
    slot.assign([weak = state_->weak_from_this(), key](boost::asio::cancellation_type) {
      const auto state = weak.lock();
      if (!state) return;
      const auto wait = state->waits.find(key);
      if (wait == state->waits.end()) return;
      state->complete(wait, boost::asio::error::operation_aborted);
      // Most deadlines are never reached; an idle process is not woken up for them.
      state->arm();
    });
  }
  state_->arm();
}

}  // namespace spilo
