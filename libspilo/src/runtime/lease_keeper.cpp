#include "spilo/runtime/lease_keeper.hpp"

#include <algorithm>
#include <boost/asio/this_coro.hpp>

namespace spilo {

using namespace std::chrono_literals;

boost::asio::awaitable<void> LeaseKeeper::run() {
  co_await boost::asio::this_coro::throw_if_cancelled(false);
  // A store may grant less than was asked for (ZooKeeper bounds its sessions).
  Duration granted = Duration::max();
  int unanswered = 0;  // in a row
  for (int lost_in_a_row = 0;;) {
    const auto sent = clock_.now();
    // A try gets a third of the ttl. After one that was not answered every other gets half of it: a store that
    // is back answers at once, but not what was lost on the way; one that is slow needs the whole time.
    const auto period =
        std::min<Duration>(ttl_ / 3, granted / 2) / (unanswered % 2 == 1 ? 2 : 1);
    const auto deadline = sent + std::max<Duration>(period, 300ms);
    auto lease = co_await store_.renew(ttl_, deadline);
    const auto state = co_await boost::asio::this_coro::cancellation_state;
    if (state.cancelled() != boost::asio::cancellation_type::none) co_return;
    unanswered = lease.has_error() && !lease.error().is(errc::session_lost) ? unanswered + 1 : 0;
    auto next = clock_.now() + std::clamp<Duration>(ttl_ / 20, 100ms, 1s);
    if (lease.has_value()) {
      lost_in_a_row = 0;
      granted = lease->valid_until - sent;
      next = sent + std::max<Duration>(std::min<Duration>(ttl_ / 3, granted / 2), 100ms);
      listener_.renewed(std::move(*lease));
    } else if (lease.error().is(errc::session_lost)) {
      // The next call opens a new session, at once: what was bound to the old one wants to be bound
      // again.
      granted = Duration::max();
      if (++lost_in_a_row == 1) next = clock_.now();
      listener_.lost(lease.error());
    } else {
      listener_.failed(lease.error());
    }
    const bool waited = co_await sleep_until(clock_, next);
    if (!waited) co_return;
  }
}

}  // namespace spilo
