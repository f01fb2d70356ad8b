// Leader election alone, on any dcs::Store: for people who want nothing else of libspilo. The
// supervisor of PostgreSQL nodes lives on the same LeaseKeeper and follows the same rule for the
// deadline.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "spilo/core/ids.hpp"
#include "spilo/ports/clock.hpp"
#include "spilo/ports/dcs.hpp"

namespace spilo {

// What is known about a lock that was given away.
enum class Released {
  yes,    // the store said so, or we did not hold it
  maybe,  // no answer: it is free at the latest when the lease ends; call resign() again to find
          // out
  no,     // certainly not done: it was refused, and nothing has changed
};

// One strand of execution: use it on the executor that run() is spawned on. Store and clock outlive
// it.
//
// The guarantee: from acquired(token) until the time that deadline() returns, nobody else is told
// acquired() by the same store, whatever this process, the network or the store do, as long as the
// rate of the clocks differs by less than `margin` over a ttl. After it, somebody may be: what must
// not happen twice has to be over by then, or has to carry the token, which grows with every grant.
class Election {
 public:
  struct Options {
    NodeName self;
    std::string key = "leader";
    Duration ttl = std::chrono::seconds(10);
    Duration margin = std::chrono::milliseconds(
        100);  // kept back of every lease, for the difference of clock rates
    // Asked before each attempt: false is "do not elect me now". Empty: always willing.
    std::function<bool()> willing;
  };
  // Called on the executor, in this order for every grant: acquired, any number of at_risk, lost
  // exactly once.
  struct Listener {
    std::function<void(std::uint64_t token)> acquired;
    // The lease was not renewed in time and ends at `deadline` unless it still is: stop what must
    // not outlive it. Comes a third of the ttl before.
    std::function<void(TimePoint deadline)> at_risk;
    std::function<void(std::uint64_t token, std::string reason)> lost;
  };

  Election(boost::asio::any_io_executor executor,
           dcs::Store& store,
           Clock& clock,
           Options options,
           Listener listener);
  ~Election();
  Election(const Election&) = delete;
  Election& operator=(const Election&) = delete;

  // Takes part until stop() or terminal cancellation; then gives up what it holds (lost is called),
  // without ending the session. Call once. Fails only with errc::invalid_argument: a listener is
  // missing, or the ttl is outside the store's limits.
  Async<void> run();
  void stop();

  // No I/O: may I act as the leader right now?
  bool still_held() const noexcept;
  // Zero when not held.
  TimePoint deadline() const noexcept;
  std::optional<std::uint64_t> token() const noexcept;
  // Who holds it, as last read; empty: nobody.
  NodeName leader() const;

  // Gives the lock away and stays away for a ttl, so that somebody else gets it. lost("resigned")
  // is called first. Idempotent.
  boost::asio::awaitable<Released> resign(TimePoint deadline);

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace spilo
