// The store that a measured cluster runs on, as a real server, and what it counts.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "rest_client.hpp"

namespace bench {

struct StoreCalls {
  std::map<std::string, std::int64_t> by_method;
  std::int64_t total = 0;
  std::int64_t writes = 0;
};
StoreCalls operator-(StoreCalls later, const StoreCalls& earlier);

class StoreServer {
 public:
  virtual ~StoreServer() = default;
  // The node's section of the configuration, one line.
  virtual std::string yaml() = 0;
  // Since the server's start; nothing when the store counts none.
  virtual std::optional<StoreCalls> calls(RestClient& client) = 0;
};

const std::vector<std::string>& store_names();
// Throws Failure, saying what is missing, when its server can't be started here.
void check_store(const std::string& name);
// After how many ttls it frees what a dead node holds, at the latest.
int ttls_until_free(const std::string& name);
// Starts it; everything lies below `directory`. Throws Failure.
std::unique_ptr<StoreServer> start_store(const std::string& name, const std::string& directory);

}  // namespace bench
