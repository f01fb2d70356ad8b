#include "spilo/open_store.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <string_view>
#include <utility>
#include <vector>

#include "spilo/etcd/etcd_store.hpp"
#include "spilo/sqlite/sqlite_store.hpp"

namespace spilo {
namespace {

constexpr std::string_view known = "The stores of this program are sqlite and etcd3.";

std::string name_space_of(const json::Value& document) {
  const auto* value = document.find("namespace");
  return value && value->is_string() ? *value->as_string() : "service";
}

std::string joined(const std::vector<std::string>& problems) {
  return fmt::format("{}", fmt::join(problems, "; "));
}

Result<OpenedStore> open_sqlite(boost::asio::any_io_executor executor,
                                Clock& clock,
                                const StoreRequest& request,
                                const json::Value& section) {
  sqlite::Options options;
  options.file = section.is_string() ? *section.as_string() : section.get_string("file");
  if (options.file.empty())
    return Error(errc::invalid_argument,
                 "sqlite: `file` must be the path of the database, for example\n"
                 "sqlite:\n  file: /var/lib/spilo/cluster.db");
  if (request.must_exist && ::access(options.file.c_str(), F_OK) != 0)
    return Error(errc::not_found,
                 fmt::format("sqlite: there is no file {}. The first node of the cluster creates "
                             "it when it starts; is the path right?",
                             options.file));
  // The default namespace is left out, so that the file reads well and works without one.
  auto base = etcd::base_path(name_space_of(request.document), request.scope);
  constexpr std::string_view usual = "/service/";
  if (base.starts_with(usual)) base.erase(0, usual.size());
  while (base.ends_with('/')) base.pop_back();
  options.scope = Scope(base);
  options.log = request.log;
  OpenedStore out;
  out.description = "sqlite " + options.file;
  out.store = std::make_unique<sqlite::SqliteStore>(std::move(executor), clock, std::move(options));
  return out;
}

// "a:2379, b:2379" or a list of such texts.
std::vector<std::string> host_list(const json::Value* value) {
  std::vector<std::string> out;
  if (!value) return out;
  if (const auto* list = value->as_array()) {
    for (const auto& item : *list)
      if (const auto* text = item.as_string()) out.push_back(*text);
    return out;
  }
  const auto* text = value->as_string();
  if (!text) return out;
  std::string word;
  for (const char letter : *text + ",") {
    const bool separates = letter == ',' || letter == ' ' || letter == '\'' || letter == '"';
    if (!separates) word += letter;
    else if (!word.empty()) out.push_back(std::exchange(word, {}));
  }
  return out;
}

// host:port with the port of etcd when there is none; IPv6 in brackets.
std::string with_port(const std::string& host) {
  const auto colon = host.rfind(':');
  const bool has_port = colon != host.npos && (host.find(']') == host.npos || colon > host.find(']'));
  return has_port ? host : host + ":2379";
}

std::vector<net::Url> etcd_endpoints(const json::Value& section,
                                     std::vector<std::string>& problems) {
  std::vector<std::string> texts;
  const std::string protocol = section.get_string("protocol", "http");
  if (protocol != "http" && protocol != "https")
    problems.push_back(
        fmt::format("etcd3: `protocol` is '{}', it must be http or https", protocol));
  for (const char* key : {"hosts", "host"})
    for (const auto& host : host_list(section.find(key)))
      texts.push_back(host.find("://") != host.npos ? host : protocol + "://" + with_port(host));
  for (const char* key : {"url", "proxy"})
    if (const auto url = section.get_string(key); !url.empty()) texts.push_back(url);
  if (section.find("srv"))
    problems.push_back("etcd3: `srv` is not supported: list the servers as `hosts`");
  else if (texts.empty())
    problems.push_back("etcd3: `hosts` must list the servers, for example hosts: 10.0.0.1:2379");
  std::vector<net::Url> endpoints;
  for (const auto& text : texts) {
    auto url = net::Url::parse(text);
    if (url.has_value()) endpoints.push_back(std::move(*url));
    else problems.push_back(url.error().in("etcd3").detail());
  }
  return endpoints;
}

Result<OpenedStore> open_etcd(boost::asio::any_io_executor executor,
                              Clock& clock,
                              const StoreRequest& request,
                              const json::Value& section) {
  std::vector<std::string> problems;
  etcd::Options options;
  options.endpoints = etcd_endpoints(section, problems);
  if (!problems.empty()) return Error(errc::invalid_argument, joined(problems));
  options.base = etcd::base_path(name_space_of(request.document), request.scope);
  options.username = section.get_string("username");
  options.password = section.get_string("password");
  options.tls.ca_file = section.get_string("cacert");
  options.tls.cert_file = section.get_string("cert");
  options.tls.key_file = section.get_string("key");
  options.tls.key_password = section.get_string("key_password");
  options.tls.verify = section.get_bool("verify", true);
  options.seed = request.seed;
  options.logger = request.log;
  std::vector<std::string> origins;
  for (const auto& endpoint : options.endpoints) origins.push_back(endpoint.origin());
  OpenedStore out;
  out.description = fmt::format("etcd3 {}", fmt::join(origins, ","));
  out.store = std::make_unique<etcd::EtcdStore>(std::move(executor), clock, std::move(options));
  return out;
}

}  // namespace

Result<OpenedStore> open_store(boost::asio::any_io_executor executor,
                               Clock& clock,
                               const StoreRequest& request) {
  std::vector<std::string> found;
  for (const char* name :
       {"sqlite", "etcd3", "etcd", "consul", "zookeeper", "exhibitor", "kubernetes", "raft"})
    if (const auto* section = request.document.find(name); section && !section->is_null())
      found.push_back(name);
  if (found.empty())
    return Error(errc::invalid_argument,
                 fmt::format("no store is configured: a section such as `etcd3` is missing. {}",
                             known));
  if (found.size() > 1)
    return Error(errc::invalid_argument,
                 fmt::format("several stores are configured ({}): keep the one that the cluster "
                             "lives in",
                             fmt::join(found, ", ")));
  const auto& section = *request.document.find(found[0]);
  if (found[0] == "sqlite") return open_sqlite(std::move(executor), clock, request, section);
  if (!section.is_object())
    return Error(errc::invalid_argument,
                 fmt::format("{}: a section with keys is needed, not {}",
                             found[0],
                             section.type_name()));
  if (found[0] == "etcd3") return open_etcd(std::move(executor), clock, request, section);
  if (found[0] == "etcd")
    return Error(errc::unsupported,
                 "etcd: this section means etcd's old interface (v2), which keeps data of its own. "
                 "Name the section etcd3; a cluster that still lives in v2 must be moved first.");
  return Error(errc::unsupported,
               fmt::format("{}: this program does not speak to that store. {}", found[0], known));
}

}  // namespace spilo
