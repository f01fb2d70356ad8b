#include "spilo/net/failover.hpp"

#include <algorithm>

namespace spilo::net {

using namespace std::chrono_literals;

std::uint64_t next_random(std::uint64_t& state) noexcept {
  std::uint64_t z = (state += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

Duration Backoff::next() {
  const auto part = static_cast<std::int64_t>(next_random(random_) % 1000);
  const Duration pause = pause_ / 2 + pause_ * part / 1000;
  pause_ = std::min<Duration>(pause_ * 2, 1s);
  return pause;
}

bool may_ask_another(const Error& error, Effect effect) noexcept {
  if (error.is(errc::unavailable)) return true;
  return effect != Effect::write &&
         (error.is(errc::timed_out) || error.is(errc::ambiguous) || error.is(errc::protocol));
}

Failover::Failover(std::string service, std::vector<Url> servers, std::uint64_t seed, Logger logger)
    : service_(std::move(service)),
      servers_(std::move(servers)),
      random_(seed),
      logger_(std::move(logger)) {
  if (!servers_.empty()) current_ = next_random(random_) % servers_.size();
}

void Failover::leave(std::size_t server, const Error& reason) {
  if (server != current_ || servers_.size() <= 1) return;
  current_ = (server + 1) % servers_.size();
  logger_.warning("{}: {}; going on with {}", service_, reason.text(), servers_[current_].origin());
}

TimePoint Failover::share_of(TimePoint now, TimePoint deadline, std::size_t servers_left) {
  const Duration left = deadline - now;
  if (servers_left <= 1) return now + std::max<Duration>(std::min<Duration>(left, 1s), left / 2);
  const Duration least = std::min<Duration>(1s, left / 2);
  return now + std::max<Duration>(left / static_cast<std::int64_t>(servers_left), least);
}

std::uint64_t Failover::random() noexcept {
  return next_random(random_);
}

}  // namespace spilo::net
