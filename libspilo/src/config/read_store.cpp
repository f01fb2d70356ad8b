#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "address.hpp"
#include "readers.hpp"

namespace spilo::config {
namespace {

constexpr std::array<std::string_view, 5> ours = {"sqlite", "etcd3", "etcd", "consul", "zookeeper"};
constexpr std::array<std::string_view, 3> theirs = {"exhibitor", "kubernetes", "raft"};

std::string trimmed_slashes(std::string_view text) {
  while (text.starts_with('/')) text.remove_prefix(1);
  while (text.ends_with('/')) text.remove_suffix(1);
  std::string out;
  for (const char letter : text)
    if (letter != '/' || out.empty() || out.back() != '/') out += letter;
  return out;
}

TlsFiles read_tls(const Section& section, bool verify) {
  TlsFiles out;
  out.ca_file = absolute_path(section.text("cacert"));
  out.cert_file = absolute_path(section.text("cert"));
  out.key_file = absolute_path(section.text("key"));
  out.key_password = section.text("key_password");
  out.verify = section.flag("verify", verify);
  return out;
}

// Somebody who names certificates believes that the connection is encrypted.
void warn_of_plain_text(const Section& section, std::string_view cure, Reporter& report) {
  for (const char* key : {"cacert", "cert", "key"}) {
    if (section.find(key) == nullptr) continue;
    report.warning(section.path_of(key),
                   fmt::format("has no effect: the connection is not encrypted; set {}", cure));
    return;
  }
}
bool encrypted(const std::vector<std::string>& urls) {
  return std::ranges::any_of(urls, [](const auto& url) { return url.starts_with("https:"); });
}

SqliteSection read_sqlite(const Section& section, Reporter& report) {
  SqliteSection out;
  const auto path = section.text("path");
  if (path.empty())
    report.error("sqlite.path",
                 "is not set; give the file that all nodes of this machine share, for example "
                 "/var/lib/spilo/store.db");
  else if (path == ":memory:")
    report.error("sqlite.path", "must be a file: the nodes are processes of their own");
  else
    out.path = absolute_path(path);
  return out;
}

EtcdSection read_etcd(const Section& section, Reporter& report) {
  EtcdSection out;
  out.tls = read_tls(section, true);
  out.username = section.text("username");
  out.password = section.text("password");
  out.use_proxies = section.flag("use_proxies", false);
  out.srv = section.text("srv");
  out.srv_suffix = section.text("srv_suffix");
  const auto protocol = section.text("protocol", "http");
  if (protocol != "http" && protocol != "https")
    report.error(section.path_of("protocol"),
                 fmt::format("must be http or https, but is \"{}\"", protocol));
  const int port =
      static_cast<int>(std::clamp<std::int64_t>(section.integer("port", 2379), 0, 65536));
  bool given = false;
  for (const char* key : {"proxy", "url", "hosts", "host"}) {
    given = given || section.find(key) != nullptr;
    for (const auto& text : section.texts(key)) {
      auto endpoint = endpoint_url(text, protocol, port, &out.username, &out.password);
      if (endpoint)
        out.endpoints.push_back(std::move(*endpoint));
      else
        report.error(section.path_of(key),
                     "must be a host such as 10.0.0.1:2379 or a URL such as http://10.0.0.1:2379; "
                     "the value given is neither");
    }
    // The most specific key counts, as in Patroni: a proxy before everything else.
    if (!out.endpoints.empty()) {
      out.use_proxies = out.use_proxies || std::string_view(key) == "proxy";
      break;
    }
  }
  if (!out.username.empty() && out.password.empty())
    report.error(section.path_of("password"),
                 "is not set, but username is; etcd asks for both (password or password_file)");
  if (!given && out.srv.empty())
    report.error(section.path(),
                 "names no server; set hosts, for example [10.0.0.1:2379, 10.0.0.2:2379]");
  // The records of a domain say by themselves whether its members speak TLS.
  if (!out.endpoints.empty() && !encrypted(out.endpoints))
    warn_of_plain_text(section, "protocol: https", report);
  return out;
}

ConsulSection read_consul(const Section& section, Reporter& report) {
  ConsulSection out;
  out.tls = read_tls(section, true);
  const auto scheme = section.text("scheme", "http");
  const int port =
      static_cast<int>(std::clamp<std::int64_t>(section.integer("port", 8500), 0, 65536));
  if (scheme != "http" && scheme != "https")
    report.error(section.path_of("scheme"),
                 fmt::format("must be http or https, but is \"{}\"", scheme));
  // The most specific key counts; without any of them it is the agent of this machine.
  out.servers = {fmt::format("{}://127.0.0.1:{}", scheme, port)};
  for (const char* key : {"url", "hosts", "host"}) {
    if (section.find(key) == nullptr) continue;
    out.servers.clear();
    for (const auto& text : section.texts(key)) {
      if (auto url = endpoint_url(text, scheme, port, nullptr, nullptr))
        out.servers.push_back(std::move(*url));
      else
        report.error(section.path_of(key),
                     "must be a host such as 127.0.0.1:8500 or a URL such as "
                     "http://127.0.0.1:8500; the value given is neither");
    }
    break;
  }
  if (!out.servers.empty() && !encrypted(out.servers))
    warn_of_plain_text(section, "scheme: https", report);
  out.token = section.text("token");
  out.dc = section.text("dc");
  out.consistency = section.text("consistency", "default");
  if (out.consistency != "default" && out.consistency != "consistent" && out.consistency != "stale")
    report.error(
        "consul.consistency",
        fmt::format("must be default, consistent or stale, but is \"{}\"", out.consistency));
  out.checks = section.texts("checks");
  out.register_service = section.flag("register_service", false);
  out.service_tags = section.texts("service_tags");
  out.service_check_interval = section.text("service_check_interval", "5s");
  out.service_check_tls_server_name = section.text("service_check_tls_server_name");
  return out;
}

ZookeeperSection read_zookeeper(const Section& section, Reporter& report) {
  ZookeeperSection out;
  out.tls = read_tls(section, true);
  out.use_ssl = section.flag("use_ssl", false);
  if (!out.use_ssl) warn_of_plain_text(section, "use_ssl: true", report);
  out.set_acls = section.object("set_acls");
  out.auth_data = section.object("auth_data");
  for (const auto& whole : section.texts("hosts")) {
    // The connection string of ZooKeeper's clients: what comes after a host is a path for all
    // hosts.
    const auto slash = std::min(whole.find('/'), whole.size());
    const auto text = whole.substr(0, slash);
    const auto chroot = trimmed_slashes(std::string_view(whole).substr(slash));
    if (!chroot.empty() && !out.chroot.empty() && chroot != out.chroot)
      report.error("zookeeper.hosts",
                   fmt::format("must name one path for all hosts, but names \"/{}\" and \"/{}\"",
                               out.chroot,
                               chroot));
    if (!chroot.empty()) out.chroot = chroot;
    if (const auto address = parse_address(text, 2181); address && !address->host.empty())
      out.hosts.push_back(to_text(*address));
    else
      report.error("zookeeper.hosts",
                   fmt::format("must be hosts such as 10.0.0.1:2181, but one is \"{}\"", whole));
  }
  if (section.texts("hosts").empty())
    report.error("zookeeper.hosts", "is not set; for example [10.0.0.1:2181, 10.0.0.2:2181]");
  return out;
}

StoreSection read_section(const json::Value& document, Reporter& report) {
  std::vector<std::string_view> found;
  for (const auto name : ours)
    if (Section(document, std::string(name)).present()) found.push_back(name);
  std::vector<std::string_view> foreign;
  for (const auto name : theirs)
    if (Section(document, std::string(name)).present()) foreign.push_back(name);
  if (found.empty()) {
    if (foreign.empty())
      report.error("",
                   "no store is configured; add one section: sqlite (all nodes on this machine), "
                   "etcd3, consul or zookeeper");
    else
      report.error(std::string(foreign.front()),
                   "is not supported; use one of sqlite, etcd3, consul or zookeeper");
    return {};
  }
  if (found.size() + foreign.size() > 1) {
    found.insert(found.end(), foreign.begin(), foreign.end());
    report.error(std::string(found[1]),
                 fmt::format("a second store beside {}: the nodes must agree on one; remove {}",
                             found[0],
                             fmt::join(found.begin() + 1, found.end(), " and ")));
    return {};
  }
  const Section section(document, std::string(found.front()));
  if (found.front() == "sqlite") return read_sqlite(section, report);
  if (found.front() == "consul") return read_consul(section, report);
  if (found.front() == "zookeeper") return read_zookeeper(section, report);
  return read_etcd(section, report);
}

}  // namespace

std::optional<std::string> endpoint_url(std::string_view text,
                                        std::string_view protocol,
                                        int port,
                                        std::string* username,
                                        std::string* password) {
  std::string scheme(protocol);
  if (const auto colon = text.find("://"); colon != std::string_view::npos) {
    scheme = std::string(text.substr(0, colon));
    text.remove_prefix(colon + 3);
    text = text.substr(0, text.find('/'));
  }
  if (scheme != "http" && scheme != "https") return {};
  if (const auto at = text.rfind('@'); at != std::string_view::npos) {
    const auto credentials = text.substr(0, at);
    const auto colon = credentials.find(':');
    if (username != nullptr && username->empty()) {
      *username = std::string(credentials.substr(0, colon));
      if (colon != std::string_view::npos) *password = std::string(credentials.substr(colon + 1));
    }
    text.remove_prefix(at + 1);
  }
  const auto address = parse_address(text, port);
  if (!address || address->host.empty() || address->port > 65535) return {};
  return fmt::format("{}://{}", scheme, to_text(*address));
}

std::string section_name(const StoreSection& section) {
  constexpr std::array<const char*, 4> names = {"sqlite", "etcd3", "consul", "zookeeper"};
  return names[section.index()];
}

StoreOptions read_store(const json::Value& document, bool scope_required, Reporter& report) {
  StoreOptions out;
  const Section top(document, "");
  out.scope = Scope(top.text("scope"));
  if (const auto* name_space = top.find("namespace"); name_space != nullptr)
    out.name_space = trimmed_slashes(top.text("namespace"));
  if (out.scope.empty() && scope_required)
    report.error("scope", "is not set; it names the cluster, the same on all of its nodes");
  if (out.scope.str().find('/') != std::string::npos)
    report.error("scope", fmt::format("must not contain a slash, but is \"{}\"", out.scope.str()));
  out.section = read_section(document, report);
  return out;
}

Result<StoreOptions> parse_store_url(std::string_view url) {
  const auto refuse = [&](std::string_view why) {
    return Error(errc::invalid_argument, fmt::format("the store's address {}: {}", url, why));
  };
  StoreOptions out;
  std::string_view scheme;
  auto rest = url;
  if (const auto colon = url.find("://"); colon != std::string_view::npos) {
    scheme = url.substr(0, colon);
    rest = url.substr(colon + 3);
  }
  if (scheme == "sqlite") {
    if (rest.empty()) return refuse("names no file; for example sqlite:///var/lib/spilo/store.db");
    SqliteSection section;
    section.path = absolute_path(std::string(rest));
    out.section = std::move(section);
    return out;
  }
  const auto slash = rest.find('/');
  if (slash != std::string_view::npos) out.name_space = trimmed_slashes(rest.substr(slash));
  if (out.name_space.empty()) out.name_space = "service";
  const auto host = rest.substr(0, slash);
  struct Known {
    std::string_view scheme;
    int port;
  };
  constexpr std::array<Known, 4> known = {
      {{"etcd", 2379}, {"etcd3", 2379}, {"consul", 8500}, {"zookeeper", 2181}}};
  const auto address = parse_address(host.empty() ? "localhost" : host, 0);
  const auto bare = parse_address(host.empty() ? "localhost" : host, 2379);
  if (!bare) return refuse("is no host with a port");
  if (scheme.empty()) {
    // The port decides.
    scheme = "etcd";
    for (const auto& one : known)
      if (address && one.port == address->port) scheme = one.scheme;
  }
  const auto kind = std::ranges::find(known, scheme, &Known::scheme);
  if (kind == known.end())
    return refuse("the scheme must be sqlite, etcd3, etcd, consul or zookeeper");
  auto place = *bare;
  if (!address) place.port = kind->port;
  if (scheme == "consul") {
    ConsulSection section;
    section.servers.assign(1, "http://" + to_text(place));
    out.section = std::move(section);
  } else if (scheme == "zookeeper") {
    ZookeeperSection section;
    section.hosts.push_back(to_text(place));
    out.section = std::move(section);
  } else {
    EtcdSection section;
    section.endpoints.push_back("http://" + to_text(place));
    out.section = std::move(section);
  }
  return out;
}

}  // namespace spilo::config
