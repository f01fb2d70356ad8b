// One service behind several addresses: which server to ask, for how long, and when to ask the
// next one. No I/O; the stores that speak HTTP share it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "spilo/core/error.hpp"
#include "spilo/core/log.hpp"
#include "spilo/core/time.hpp"
#include "spilo/net/http.hpp"

namespace spilo::net {

// splitmix64: enough for jitter, and eight bytes of state.
std::uint64_t next_random(std::uint64_t& state) noexcept;

// Growing pauses with jitter; the first one is short, because most faults are.
class Backoff {
 public:
  explicit Backoff(std::uint64_t& random) : random_(random) {}
  Duration next();
  void reset() noexcept { pause_ = first; }  // after a success

 private:
  static constexpr Duration first = std::chrono::milliseconds(20);
  std::uint64_t& random_;
  Duration pause_ = first;
};

// Whether the next server may be asked after this failure: a write only when it certainly was not
// carried out.
bool may_ask_another(const Error& error, Effect effect) noexcept;

class Failover {
 public:
  // `service` begins the log lines: "etcd". Nodes with the same list but another seed begin at
  // different servers.
  Failover(std::string service, std::vector<Url> servers, std::uint64_t seed, Logger logger);

  std::size_t size() const noexcept { return servers_.size(); }
  const Url& operator[](std::size_t server) const noexcept { return servers_[server]; }
  std::size_t current() const noexcept { return current_; }
  void answered(std::size_t server) noexcept { current_ = server; }
  // This server has failed somebody: the next call begins with another one.
  void leave(std::size_t server, const Error& reason);

  // A frozen server must not eat the whole deadline: its part of what is left, but time enough for
  // a slow one. Also the last of them gets no more than half, because behind one address there may
  // be several servers, and another connection may find another one.
  static TimePoint share_of(TimePoint now, TimePoint deadline, std::size_t servers_left);

  Backoff backoff() noexcept { return Backoff(random_); }
  std::uint64_t random() noexcept;  // also for other jitter of the same store
  const Logger& logger() const noexcept { return logger_; }

 private:
  std::string service_;
  std::vector<Url> servers_;
  std::size_t current_ = 0;
  std::uint64_t random_;
  Logger logger_;
};

}  // namespace spilo::net
