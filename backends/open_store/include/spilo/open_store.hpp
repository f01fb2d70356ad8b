// Opens the store that a configuration names: written once for spilod, spiloctl and everybody who
// embeds them.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <cstdint>
#include <memory>
#include <string>

#include "spilo/config/config.hpp"
#include "spilo/core/log.hpp"
#include "spilo/ports/clock.hpp"
#include "spilo/ports/dcs.hpp"
#include "spilo/ports/registry.hpp"

namespace spilo {

struct StoreRequest {
  // Its scope must not be empty. In a SQLite file the default name space, "service", adds nothing to
  // the scope.
  config::StoreOptions options;
  Logger log;
  std::uint64_t seed = 0;   // for the jitter of repeated attempts; different on every node
  std::string client;       // who asks, for people who look at the store's sessions: the node
  bool must_exist = false;  // sqlite: a missing file is an error and is not created
};

struct OpenedStore {
  std::unique_ptr<dcs::Store> store;
  // The store's catalogue of services, when the configuration wants this node (`client`) in it.
  std::unique_ptr<ServiceRegistry> registry;
  std::string description;  // "sqlite /var/lib/x.db", "etcd3 http://a:2379,http://b:2379"; no secrets
};

// Connects to nothing yet, except that must_exist looks for the file. invalid_argument: the section
// is wrong, with everything that is wrong with it. unsupported: a store that this build does not
// speak to. not_found: see must_exist. Executor and clock outlive the store.
Result<OpenedStore> open_store(boost::asio::any_io_executor executor,
                               Clock& clock,
                               const StoreRequest& request);

}  // namespace spilo
