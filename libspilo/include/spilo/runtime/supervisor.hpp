// Runs a Machine over ports: one node of one cluster.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <functional>
#include <memory>
#include <string>

#include "spilo/core/log.hpp"
#include "spilo/ha/machine.hpp"
#include "spilo/ports/clock.hpp"
#include "spilo/ports/dcs.hpp"
#include "spilo/ports/guard.hpp"
#include "spilo/ports/peers.hpp"
#include "spilo/ports/postgres.hpp"
#include "spilo/runtime/status_board.hpp"

namespace spilo {

// References, not owners: the caller keeps every port alive until run() has completed.
struct Ports {
  Clock& clock;
  dcs::Store& store;
  Postgres& postgres;
  Peers& peers;
  Guard& guard;
  Watchdog& watchdog;
  StatusBoard& board;
};

// One strand of execution: use it on the executor that run() is spawned on.
class Supervisor {
 public:
  Supervisor(Ports ports, ha::Identity identity, Logger logger = {}, std::uint64_t seed = 1);
  ~Supervisor();
  Supervisor(const Supervisor&) = delete;
  Supervisor& operator=(const Supervisor&) = delete;

  // Runs until the machine wants to exit or terminal cancellation; returns the exit status. Call
  // once. Does not complete before every operation that it started has completed.
  Async<int> run();

  // Queues an event; it is stepped on the executor, soon. Signal and REST handlers use this.
  void post(ha::Event event);
  // Queues a request and completes with its Reply: an HTTP-like status and a sentence. Cancellable;
  // exactly one answer.
  Async<std::pair<int, std::string>> ask(ha::OperatorRequest request);

  // POST /failsafe: completes with 200 `Accepted`, or 500 and why not. The promise holds for our own
  // ttl or the sender's, whichever is longer (zero: the sender did not say).
  Async<std::pair<int, std::string>> hear_failsafe(NodeName leader,
                                                   std::string conn_url,
                                                   std::string api_url,
                                                   Duration ttl = {});
  // Completes once the board shows an observation of PostgreSQL not older than `age`, or at the
  // deadline: peers that compare WAL positions must not be answered from a picture of the last
  // heartbeat.
  boost::asio::awaitable<void> refresh(Duration age, TimePoint deadline);

  // Called after every step, before the effects start: for the simulator's checkers and for golden
  // traces.
  using Observer =
      std::function<void(const ha::Machine&, std::string_view event, const ha::Decision&)>;
  void observe(Observer observer);

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace spilo
