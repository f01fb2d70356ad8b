// Where the cluster is and how its members are talked to: from a YAML file (ours, Patroni's, or that
// of a daemon), the environment, and the command line.
#pragma once

#include <string>

#include "cli/app.hpp"
#include "spilo/config/load.hpp"
#include "spilo/net/http.hpp"

namespace spilo::cli {

struct Settings {
  std::string source;          // what they were read from, for messages
  config::StoreOptions store;  // its scope may be empty; not looked at with --node
  std::string user;            // for requests that change something; empty: none
  std::string password;
  net::TlsOptions tls;
};

// Stop with everything that is wrong, at once.
Settings load_settings(const App& app);

}  // namespace spilo::cli
