// Configuration -> the options of the parts that a node is made of. Pure.
#pragma once

#include <string>
#include <vector>

#include "spilo/config/config.hpp"
#include "spilo/guard/device_watchdog.hpp"
#include "spilo/guard/process_guard.hpp"
#include "spilo/net/http_peers.hpp"
#include "spilo/rest/access.hpp"
#include "spilo/rest/http_server.hpp"

namespace spilo::node {

rest::HttpServerOptions server_options(const config::RestOptions& rest);
rest::AccessOptions access_options(const config::RestOptions& rest);
std::optional<rest::TlsServerOptions> tls_options(const config::RestOptions& rest);
net::HttpPeersOptions peer_options(const config::Config& config);
GuardOptions guard_options(const config::Config& config);
WatchdogOptions watchdog_options(const config::WatchdogOptions& watchdog);

// What a running node can't take over from a new configuration: the names of the keys.
std::vector<std::string> fixed_differences(const config::Config& now, const config::Config& next);

}  // namespace spilo::node
