// One member of one cluster, whole: the store, PostgreSQL, its guard, the other members, the REST
// interface and the supervisor that runs them. spilod is this class and a main(); several of them
// live in one process side by side.
//
//   boost::asio::io_context io(1);
//   spilo::SystemClock clock(io.get_executor());
//   spilo::Node node(io.get_executor(), clock, std::move(config), spilo::make_logger(config.log));
//   co_spawn(io, node.run(), …);
//   io.run();
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <functional>
#include <memory>
#include <optional>

#include "spilo/config/config.hpp"
#include "spilo/core/log.hpp"
#include "spilo/ports/clock.hpp"
#include "spilo/runtime/status_board.hpp"
#include "spilo/runtime/supervisor.hpp"

namespace spilo {

// One strand of execution, with nothing else of the library on other threads. The clock outlives
// the node; the node outlives run().
class Node {
 public:
  Node(boost::asio::any_io_executor executor, Clock& clock, config::Config config, Logger logger);
  ~Node();
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  // The whole life: opens the store and waits until it answers; looks whether a member of our name
  // runs elsewhere; binds the REST interface; then supervises until stop(), or until something ends
  // it. Returns the exit status of a daemon: 0, or 1 when it could not go on, which the log tells
  // in one line. Terminal cancellation leaves PostgreSQL and the keys as they are, as a crash
  // would: the next agent adopts them. Call once.
  Async<int> run();

  // Orderly: hands leadership over, stops PostgreSQL (in pause: leaves it running), then run()
  // completes. Any number of times.
  void stop();

  // The local configuration was read again. What can't change while running (name, scope, store,
  // data directory, REST address, log) is told in the log and stays; everything else is applied.
  void apply(config::Config config);
  // What POST /reload does; without it only PostgreSQL reloads. Set before run().
  void on_reload_asked(std::function<void()> reload);
  // Called once, when the REST interface is bound and supervision begins.
  void on_ready(std::function<void()> ready);

  const config::Config& config() const noexcept;
  // Shows nothing before on_ready.
  StatusBoard& board() noexcept;
  // Null before on_ready and after run().
  Supervisor* supervisor() noexcept;
  // The port that the REST interface is bound to; 0 before on_ready.
  std::uint16_t rest_port() const noexcept;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace spilo
