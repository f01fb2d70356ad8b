#include "parts.hpp"

#include <fmt/format.h>

#include <utility>

namespace spilo::node {

std::optional<rest::TlsServerOptions> tls_options(const config::RestOptions& rest) {
  if (!rest.tls()) return std::nullopt;
  rest::TlsServerOptions out;
  out.cert_file = rest.certfile;
  out.key_file = rest.keyfile;
  out.key_password = rest.keyfile_password;
  out.ca_file = rest.cafile;
  out.ciphers = rest.ciphers;
  switch (rest.verify_client) {
    case config::VerifyClient::none:
      out.client_certificates = rest::ClientCertificates::none;
      break;
    case config::VerifyClient::optional:
      out.client_certificates = rest::ClientCertificates::optional;
      break;
    case config::VerifyClient::required:
      out.client_certificates = rest::ClientCertificates::required;
      break;
  }
  return out;
}

rest::HttpServerOptions server_options(const config::RestOptions& rest) {
  rest::HttpServerOptions out;
  out.address = rest.listen.host;
  out.port = static_cast<std::uint16_t>(rest.listen.port);
  out.tls = tls_options(rest);
  out.body_bytes_max = rest.body_bytes_max;
  out.connections_max = rest.connections_max;
  out.body_timeout = rest.request_timeout;
  for (const auto& header : rest.http_extra_headers) out.extra_headers.push_back(header);
  if (rest.tls())
    for (const auto& header : rest.https_extra_headers) out.extra_headers.push_back(header);
  return out;
}

rest::AccessOptions access_options(const config::RestOptions& rest) {
  rest::AccessOptions out;
  out.user = rest.username;
  out.password = rest.password;
  out.allowlist = rest.allowlist;
  out.allowlist_include_members = rest.allowlist_include_members;
  if (const auto tls = tls_options(rest)) out.client_certificates = tls->client_certificates;
  return out;
}

net::HttpPeersOptions peer_options(const config::Config& config) {
  net::HttpPeersOptions out;
  const auto& tls = config.ctl.tls;
  out.http.tls.ca_file = tls.ca_file;
  out.http.tls.cert_file = tls.cert_file;
  out.http.tls.key_file = tls.key_file;
  out.http.tls.key_password = tls.key_password;
  // Members of a cluster are compared by what they say about themselves, and a cluster without an
  // authority of its own would not find a leader at all. With one it is used.
  out.http.tls.verify = tls.verify && (!tls.ca_file.empty() || !tls.cert_file.empty());
  const bool own = !config.ctl.username.empty();
  out.user = own ? config.ctl.username : config.restapi.username;
  out.password = own ? config.ctl.password : config.restapi.password;
  return out;
}

GuardOptions guard_options(const config::Config& config) {
  GuardOptions out;
  out.data_dir = config.postgresql.data_dir;
  return out;
}

WatchdogOptions watchdog_options(const config::WatchdogOptions& watchdog) {
  WatchdogOptions out;
  switch (watchdog.mode) {
    case config::WatchdogOptions::Mode::off:
      out.mode = WatchdogOptions::Mode::off;
      break;
    case config::WatchdogOptions::Mode::automatic:
      out.mode = WatchdogOptions::Mode::automatic;
      break;
    case config::WatchdogOptions::Mode::required:
      out.mode = WatchdogOptions::Mode::required;
      break;
  }
  out.device = watchdog.device;
  out.safety_margin = watchdog.safety_margin_s;
  return out;
}

std::vector<std::string> fixed_differences(const config::Config& now, const config::Config& next) {
  std::vector<std::string> out;
  const auto compare = [&out](bool same, const char* key) {
    if (!same) out.emplace_back(key);
  };
  compare(now.identity.node == next.identity.node, "name");
  compare(now.identity.scope == next.identity.scope, "scope");
  compare(now.store == next.store, "the store's section");
  compare(now.postgresql.data_dir == next.postgresql.data_dir, "postgresql.data_dir");
  compare(now.postgresql.config_dir == next.postgresql.config_dir, "postgresql.config_dir");
  compare(now.restapi.listen == next.restapi.listen, "restapi.listen");
  compare(now.restapi.tls() == next.restapi.tls(), "restapi.certfile (plain HTTP or TLS)");
  compare(now.guard == next.guard, "guard");
  compare(now.watchdog == next.watchdog, "watchdog");
  compare(now.log == next.log, "log");
  return out;
}

}  // namespace spilo::node
