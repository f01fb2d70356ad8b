// Keeps a session with the store alive: the renewal path of its own that waits for no SQL, no disk
// and no child process.
#pragma once

#include <functional>

#include "spilo/ports/clock.hpp"
#include "spilo/ports/dcs.hpp"

namespace spilo {

// One strand of execution. Renews every ttl/3, or sooner when the store grants less than that is good for, measured
// from when the last renewal was sent; after
// a failure again after ttl/20 (100 ms to 1 s). Supervisor and Election both live on it.
class LeaseKeeper {
 public:
  struct Listener {
    std::function<void(dcs::Lease)>
        renewed;  // nobody else can own what is bound to the session before valid_until
    std::function<void(Error)> failed;  // no answer with authority: the last lease runs on
    std::function<void(Error)>
        lost;  // the session is gone with all that was bound to it; a new one is opened next
  };
  LeaseKeeper(dcs::Store& store, Clock& clock, Duration ttl, Listener listener)
      : store_(store), clock_(clock), ttl_(ttl), listener_(std::move(listener)) {}

  // Until terminal cancellation. Does not end the session. The keeper outlives the run.
  boost::asio::awaitable<void> run();
  // From the next renewal on.
  void set_ttl(Duration ttl) noexcept { ttl_ = ttl; }

 private:
  dcs::Store& store_;
  Clock& clock_;
  Duration ttl_;
  Listener listener_;
};

}  // namespace spilo
