#include "spilo/open_store.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "spilo/consul/consul_store.hpp"
#include "spilo/consul/service_registration.hpp"
#include "spilo/etcd/etcd_store.hpp"
#include "spilo/sqlite/sqlite_store.hpp"
#include "spilo/zookeeper/zookeeper_store.hpp"

namespace spilo {
namespace {

using boost::asio::any_io_executor;

net::TlsOptions tls_of(const config::TlsFiles& files) {
  net::TlsOptions out;
  out.ca_file = files.ca_file;
  out.cert_file = files.cert_file;
  out.key_file = files.key_file;
  out.key_password = files.key_password;
  out.verify = files.verify;
  return out;
}

Result<OpenedStore> open(any_io_executor executor,
                         Clock& clock,
                         const StoreRequest& request,
                         const config::SqliteSection& section) {
  if (section.path.empty())
    return Error(errc::invalid_argument,
                 "sqlite: `path` must name the database file, for example "
                 "/var/lib/spilo/cluster.db");
  if (request.must_exist && ::access(section.path.c_str(), F_OK) != 0)
    return Error(errc::not_found,
                 fmt::format("sqlite: there is no file {}. The first node of the cluster creates "
                             "it when it starts; is the path right?",
                             section.path));
  // The default name space is left out, so that the file reads well and works without one.
  auto base = etcd::base_path(request.options.name_space, request.options.scope);
  constexpr std::string_view usual = "/service/";
  base.erase(0, base.starts_with(usual) ? usual.size() : 1);
  while (base.ends_with('/')) base.pop_back();
  sqlite::Options options;
  options.file = section.path;
  options.scope = Scope(base);
  options.log = request.log;
  OpenedStore out;
  out.description = "sqlite " + section.path;
  out.store = std::make_unique<sqlite::SqliteStore>(std::move(executor), clock, std::move(options));
  return out;
}

Result<OpenedStore> open(any_io_executor executor,
                         Clock& clock,
                         const StoreRequest& request,
                         const config::EtcdSection& section) {
  std::vector<std::string> problems;
  std::vector<std::string> origins;
  etcd::Options options;
  for (const auto& text : section.endpoints) {
    auto url = net::Url::parse(text);
    if (url.has_error()) {
      problems.push_back(url.error().in("etcd3").detail());
      continue;
    }
    origins.push_back(url->origin());
    options.endpoints.push_back(std::move(*url));
  }
  if (section.endpoints.empty() && section.srv.empty())
    problems.push_back("etcd3: `hosts` must list the servers, for example 10.0.0.1:2379");
  if (!section.srv.empty()) origins.push_back("srv:" + section.srv);
  if (!problems.empty())
    return Error(errc::invalid_argument, fmt::format("{}", fmt::join(problems, "; ")));
  options.base = etcd::base_path(request.options.name_space, request.options.scope);
  options.srv = section.srv;
  options.srv_suffix = section.srv_suffix;
  options.use_proxies = section.use_proxies;
  options.username = section.username;
  options.password = section.password;
  options.tls = tls_of(section.tls);
  options.seed = request.seed;
  options.logger = request.log;
  OpenedStore out;
  out.description = fmt::format("etcd3 {}", fmt::join(origins, ","));
  out.store = std::make_unique<etcd::EtcdStore>(std::move(executor), clock, std::move(options));
  return out;
}

Result<OpenedStore> open(any_io_executor executor,
                         Clock& clock,
                         const StoreRequest& request,
                         const config::ConsulSection& section) {
  std::vector<std::string> problems;
  std::vector<std::string> origins;
  consul::Options options;
  for (const auto& text : section.servers) {
    auto url = net::Url::parse(text);
    if (url.has_error()) {
      problems.push_back(url.error().in("consul").detail());
      continue;
    }
    origins.push_back(url->origin());
    options.servers.push_back(std::move(*url));
  }
  if (section.servers.empty())
    problems.push_back("consul: `hosts` must list the servers, for example 127.0.0.1:8500");
  if (!problems.empty())
    return Error(errc::invalid_argument, fmt::format("{}", fmt::join(problems, "; ")));
  const auto& scope = request.options.scope.str();
  options.base = consul::base_path(request.options.name_space, request.options.scope);
  options.token = section.token;
  options.dc = section.dc;
  options.consistency = section.consistency;
  options.session_name = request.client.empty() ? scope : scope + "-" + request.client;
  options.checks = section.checks;
  options.tls = tls_of(section.tls);
  options.seed = request.seed;
  options.logger = request.log;
  OpenedStore out;
  if (section.register_service && !request.client.empty()) {
    consul::RegistrationOptions service;
    service.agent = options.servers.front();
    service.token = section.token;
    service.scope = request.options.scope;
    service.node = NodeName(request.client);
    service.tags = section.service_tags;
    service.check_interval = section.service_check_interval;
    service.check_tls_server_name = section.service_check_tls_server_name;
    service.tls = options.tls;
    service.logger = request.log;
    out.registry =
        std::make_unique<consul::ServiceRegistration>(executor, clock, std::move(service));
  }
  out.description = fmt::format("consul {}", fmt::join(origins, ","));
  out.store = std::make_unique<consul::ConsulStore>(std::move(executor), clock, std::move(options));
  return out;
}

// What the principals of set_acls may do, all problems at once. The scheme is x509 unless the
// principal names another one, as in Patroni.
std::vector<zookeeper::Acl> read_acls(const json::Value& section,
                                      std::vector<std::string>& problems) {
  using Acl = zookeeper::Acl;
  struct Known {
    std::string_view name;
    Acl::Permission permission;
  };
  constexpr std::array<Known, 6> known = {{{"READ", Acl::read},
                                           {"WRITE", Acl::write},
                                           {"CREATE", Acl::create},
                                           {"DELETE", Acl::erase},
                                           {"ADMIN", Acl::admin},
                                           {"ALL", Acl::all}}};
  std::vector<Acl> out;
  if (section.as_object() == nullptr) return out;
  for (const auto& [principal, names] : *section.as_object()) {
    const auto colon = principal.find(':');
    Acl acl;
    acl.scheme = colon == std::string::npos ? "x509" : principal.substr(0, colon);
    acl.id = colon == std::string::npos ? principal : principal.substr(colon + 1);
    acl.permissions = 0;
    const json::Array one{names};
    for (const auto& name : names.as_array() != nullptr ? *names.as_array() : one) {
      const auto text = name.scalar_text();
      const auto found = std::ranges::find(known, text, &Known::name);
      if (found != known.end())
        acl.permissions |= found->permission;
      else
        problems.push_back(
            fmt::format("zookeeper: set_acls: {}: must list READ, WRITE, CREATE, DELETE, ADMIN or "
                        "ALL, but one is \"{}\"",
                        principal,
                        text));
    }
    out.push_back(std::move(acl));
  }
  return out;
}

// A znode is written once and locked from then on: without an entry of set_acls that is about
// ourselves the first node would shut out the cluster, itself included. We have no certificate to
// show, so that x509 and its like are always somebody else.
void check_own_acls(const zookeeper::Options& options, std::vector<std::string>& problems) {
  using Acl = zookeeper::Acl;
  if (options.acls.empty()) return;
  int own = 0;
  for (const auto& acl : options.acls) {
    const bool shown = std::ranges::find(options.auths, acl.scheme, &zookeeper::Auth::scheme) !=
                       options.auths.end();
    const bool any_of_ours = acl.scheme == "auth" && !options.auths.empty();
    if (acl.scheme == "world" || acl.scheme == "ip" || shown || any_of_ours) own |= acl.permissions;
  }
  constexpr int needed = Acl::read | Acl::write | Acl::create | Acl::erase;
  if ((own & needed) == needed) return;
  problems.push_back(
      "zookeeper: set_acls would lock this node out of its own znodes: no principal that it can be "
      "has READ, WRITE, CREATE and DELETE (or ALL). It can be one of a scheme in auth_data, such as "
      "digest, or of the schemes world and ip; not one of x509, which needs TLS");
}

// "10.0.0.1:2181", "[::1]:2181": what the configuration has made of the hosts.
std::optional<zookeeper::Server> read_server(std::string_view text) {
  const auto colon = text.rfind(':');
  if (colon == std::string_view::npos || colon == 0) return {};
  zookeeper::Server out;
  auto host = text.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  out.host = std::string(host);
  const auto port = text.substr(colon + 1);
  const auto [end, failure] = std::from_chars(port.data(), port.data() + port.size(), out.port);
  if (failure != std::errc{} || end != port.data() + port.size() || out.port == 0) return {};
  return out;
}

Result<OpenedStore> open(any_io_executor executor,
                         Clock& clock,
                         const StoreRequest& request,
                         const config::ZookeeperSection& section) {
  if (section.use_ssl)
    return Error(errc::unsupported,
                 "zookeeper: `use_ssl` is on, but this build's client library speaks no TLS. Put a "
                 "TLS tunnel such as stunnel before the servers and set `use_ssl: false`, or use "
                 "digest credentials (auth_data, set_acls) on a network of your own");
  std::vector<std::string> problems;
  zookeeper::Options options;
  for (const auto& text : section.hosts) {
    const auto server = read_server(text);
    if (server)
      options.servers.push_back(*server);
    else
      problems.push_back(fmt::format(
          "zookeeper: `hosts` must list hosts such as 10.0.0.1:2181, but one is \"{}\"", text));
  }
  if (section.hosts.empty())
    problems.push_back("zookeeper: `hosts` must list the servers, for example 10.0.0.1:2181");
  options.acls = read_acls(section.set_acls, problems);
  if (const auto* auths = section.auth_data.as_object())
    for (const auto& [scheme, credential] : *auths)
      options.auths.push_back(zookeeper::Auth{scheme, credential.scalar_text()});
  if (problems.empty()) check_own_acls(options, problems);
  if (!problems.empty())
    return Error(errc::invalid_argument, fmt::format("{}", fmt::join(problems, "; ")));
  options.base =
      zookeeper::base_path(section.chroot, request.options.name_space, request.options.scope);
  options.logger = request.log;
  OpenedStore out;
  out.description = fmt::format("zookeeper {}{}{}",
                                fmt::join(section.hosts, ","),
                                section.chroot.empty() ? "" : "/",
                                section.chroot);
  out.store =
      std::make_unique<zookeeper::ZookeeperStore>(std::move(executor), clock, std::move(options));
  return out;
}

}  // namespace

Result<OpenedStore> open_store(any_io_executor executor,
                               Clock& clock,
                               const StoreRequest& request) {
  if (request.options.scope.empty())
    return Error(errc::invalid_argument, "the cluster has no name: set `scope`");
  return std::visit([&](const auto& section) { return open(executor, clock, request, section); },
                    request.options.section);
}

}  // namespace spilo
