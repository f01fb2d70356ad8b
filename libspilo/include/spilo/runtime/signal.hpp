// A wake-up that is not lost: notify() before wait() makes the next wait() complete at once; several
// notifications are one.
#pragma once

#include <boost/asio/any_completion_handler.hpp>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/associated_cancellation_slot.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/system/error_code.hpp>
#include <optional>
#include <tuple>
#include <utility>

namespace spilo {

// One strand of execution, one waiter at a time. The owner keeps it alive while somebody waits, or calls abandon() first.
class Signal {
 public:
  explicit Signal(boost::asio::any_io_executor executor) : executor_(std::move(executor)) {}
  Signal(const Signal&) = delete;
  Signal& operator=(const Signal&) = delete;

  void notify() {
    if (waiter_) {
      complete({});
    } else {
      notified_ = true;
    }
  }

  // False when the wait was cancelled.
  boost::asio::awaitable<bool> wait() {
    if (std::exchange(notified_, false)) co_return true;
    constexpr auto token = boost::asio::as_tuple(boost::asio::use_awaitable);
    const auto result = co_await boost::asio::async_initiate<decltype(token),
                                                             void(boost::system::error_code)>(
        [this](auto handler) { begin(std::move(handler)); }, token);
    co_return !std::get<0>(result);
  }

  // Destroys whoever waits, coroutine frame and all: for an owner that goes away together with its waiter, which may own it in turn.
  void abandon() {
    // Moved out first: destroying a frame may come back to this object.
    const std::optional<Handler> gone(std::move(waiter_));
    waiter_.reset();
  }

 private:
  using Handler = boost::asio::any_completion_handler<void(boost::system::error_code)>;

  void begin(Handler handler) {
    // Ask the erased handler for its slot; the original's slot belongs to Asio's proxy once it is erased.
    auto slot = boost::asio::get_associated_cancellation_slot(handler);
    waiter_.emplace(std::move(handler));
    if (slot.is_connected())
      slot.assign([this](boost::asio::cancellation_type) {
        if (waiter_) complete(boost::asio::error::operation_aborted);
      });
  }

  // Posted, never inline: the caller is in the middle of something else.
  void complete(boost::system::error_code ec) {
    Handler handler(std::move(*waiter_));
    waiter_.reset();
    auto slot = boost::asio::get_associated_cancellation_slot(handler);
    if (slot.is_connected()) slot.clear();
    boost::asio::post(executor_, [handler = std::move(handler), ec]() mutable { std::move(handler)(ec); });
  }

  boost::asio::any_io_executor executor_;
  std::optional<Handler> waiter_;
  bool notified_ = false;
};

}  // namespace spilo
