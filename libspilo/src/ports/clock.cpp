#include "spilo/ports/clock.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace spilo {

boost::asio::awaitable<bool> sleep_until(Clock& clock, TimePoint at) {
  constexpr auto token = boost::asio::as_tuple(boost::asio::use_awaitable);
  const auto [ec] =
      co_await boost::asio::async_initiate<decltype(token), void(boost::system::error_code)>(
          [&clock, at](auto handler) { clock.async_wait(at, std::move(handler)); }, token);
  co_return !ec;
}

}  // namespace spilo
