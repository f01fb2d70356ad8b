#include "config/address.hpp"
#include "fuzz/targets.hpp"
#include "spilo/config/load.hpp"
#include "spilo/net/http.hpp"

namespace spilo::fuzz {

void url(std::string_view bytes) {
  if (const auto url = net::Url::parse(bytes); url.has_value()) {
    must(!url->host().empty() && url->port() != 0, "a URL leads somewhere");
    // (A zone is written as %25 in a URL and as % in what we show.)
    const auto again = net::Url::parse(url->origin());
    const bool zone = url->host().find('%') != std::string::npos;
    must(again.has_value() || zone, "an origin is a URL");
    must(zone || (again->host() == url->host() && again->port() == url->port() &&
                  again->tls() == url->tls()),
         "an origin leads to the same place");
    must(url->target().starts_with('/'), "a target begins with a slash");
  }
  if (const auto address = config::parse_address(bytes, 2379)) {
    must(address->port >= 0 && address->port <= 65535, "a port is one");
    static_cast<void>(config::is_wildcard(address->host));
    static_cast<void>(config::is_loopback(address->host));
  }
  for (const auto& one : config::split_list(bytes))
    must(!one.empty(), "no item of a list is empty");
  static_cast<void>(config::parse_store_url(bytes));
}

}  // namespace spilo::fuzz
