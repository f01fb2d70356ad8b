// Where a node tells others what it serves, beside the store: a service catalogue such as Consul's.
// No decision depends on it.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <string>

#include "spilo/core/time.hpp"
#include "spilo/ports/async.hpp"

namespace spilo {

// What there is to tell. A class with a constructor, hence safe beside co_await.
class ServedNode {
 public:
  ServedNode() = default;
  std::string conn_url;  // "postgres://10.0.0.1:5432/postgres"
  std::string api_url;   // "http://10.0.0.1:8008/patroni"
  std::string role;      // contract 2: "primary", "replica", "standby_leader", …
  std::string state;     // contract 2: "running", "stopped", …
  Duration ttl{};
  bool operator==(const ServedNode&) const = default;
};

// One strand of execution.
class ServiceRegistry {
 public:
  virtual ~ServiceRegistry() = default;
  // The latest counts, and costs nothing when nothing has changed. Never blocks.
  virtual void show(ServedNode node) = 0;
  // Keeps the catalogue up to date, repeating what failed, until terminal cancellation. Call once.
  virtual boost::asio::awaitable<void> run() = 0;
  // Takes the node out: it has stopped for good. Success when it was not in it.
  virtual Async<void> withdraw(TimePoint deadline) = 0;
};

}  // namespace spilo
