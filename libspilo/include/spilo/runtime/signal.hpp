// A wake-up that is not lost: notify() before wait() makes the next wait() complete at once;
// several notifications are one.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/experimental/channel.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace spilo {

// One strand of execution, one waiter at a time. The owner keeps it alive while somebody waits.
class Signal {
 public:
  explicit Signal(boost::asio::any_io_executor executor) : channel_(std::move(executor), 1) {}
  void notify() { channel_.try_send(boost::system::error_code{}); }
  // False when the wait was cancelled.
  boost::asio::awaitable<bool> wait() {
    constexpr auto token = boost::asio::as_tuple(boost::asio::use_awaitable);
    const auto result = co_await channel_.async_receive(token);
    co_return !std::get<0>(result);
  }

 private:
  boost::asio::experimental::channel<boost::asio::any_io_executor, void(boost::system::error_code)>
      channel_;
};

}  // namespace spilo
