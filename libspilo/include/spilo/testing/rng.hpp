// The only source of chance in a simulation: small, seeded, and the same on every compiler and
// platform (the distributions of <random> are not).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "spilo/core/time.hpp"

namespace spilo::testing {

// SplitMix64. A value: copy it to fork it. Not for cryptography.
class Rng {
 public:
  explicit Rng(std::uint64_t seed) : state_(seed) {}

  std::uint64_t next() noexcept {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  // 0 … n-1; 0 when n is 0. The bias of the remainder is of no interest below 2^32.
  std::uint64_t below(std::uint64_t n) noexcept { return n == 0 ? 0 : next() % n; }
  // first … last, both included.
  std::int64_t between(std::int64_t first, std::int64_t last) noexcept {
    return last <= first
               ? first
               : first +
                     static_cast<std::int64_t>(below(static_cast<std::uint64_t>(last - first) + 1));
  }
  Duration between(Duration first, Duration last) noexcept {
    return Duration(between(first.count(), last.count()));
  }
  bool chance(unsigned permille) noexcept { return below(1000) < permille; }
  template <class T>
  const T& pick(const std::vector<T>& choices) noexcept {
    return choices[static_cast<std::size_t>(below(choices.size()))];
  }
  // An independent stream for one purpose, so that a draw more in one place doesn't change every
  // other place.
  Rng fork(std::string_view purpose) noexcept {
    std::uint64_t hash = 0xcbf29ce484222325u;
    for (const char c : purpose) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
    return Rng(next() ^ hash);
  }

 private:
  std::uint64_t state_;
};

}  // namespace spilo::testing
