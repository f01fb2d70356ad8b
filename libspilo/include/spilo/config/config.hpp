// The configuration of one node as typed values: what Patroni's YAML keys and PATRONI_* variables
// say (patroni-contract 7), with our additions. Values only; config/load.hpp makes them.
//
// Our additions: the store section `sqlite: {path}`; `consul.hosts`; `guard: on|off`; `<secret>_file` beside each
// secret (password, sslpassword, keyfile_password, key_password, token); `restapi.limits`;
// variables may begin with SPILO_ instead of PATRONI_.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "spilo/core/json.hpp"
#include "spilo/core/log.hpp"
#include "spilo/core/time.hpp"
#include "spilo/ha/facts.hpp"
#include "spilo/pg/options.hpp"

namespace spilo::config {

// A place to listen on or to connect to. An empty host or "*" means every address of the machine.
struct Address {
  std::string host;  // without brackets
  int port = 0;
  bool operator==(const Address&) const = default;
};
std::string to_text(const Address& address);  // "host:port", IPv6 in brackets

struct TlsFiles {  // of a client of the store or of the REST API
  std::string ca_file;
  std::string cert_file;
  std::string key_file;
  std::string key_password;
  bool verify = true;
  bool operator==(const TlsFiles&) const = default;
};

// ---- the store
// ----------------------------------------------------------------------------------- Names say
// what is built in elsewhere: whoever makes the store refuses what it can't make.

struct SqliteSection {  // `sqlite`
  std::string path;     // absolute
  bool operator==(const SqliteSection&) const = default;
};

struct EtcdSection {                   // `etcd3` or `etcd`; we speak v3 in both
  std::vector<std::string> endpoints;  // "http://10.0.0.1:2379"; credentials are taken out
  std::string srv;                     // domain whose SRV records name the members instead
  std::string srv_suffix;
  bool use_proxies = false;  // don't ask for the members of the cluster
  std::string username;      // empty: no authentication
  std::string password;
  TlsFiles tls;
  bool operator==(const EtcdSection&) const = default;
};

struct ConsulSection {  // `consul`
  // Agents or servers of one data centre. Patroni knows one, as `url` or `host`; ours: `hosts`.
  std::vector<std::string> servers = {"http://127.0.0.1:8500"};
  std::string token;
  std::string dc;
  std::string consistency = "default";
  std::vector<std::string> checks;
  bool register_service = false;
  std::vector<std::string> service_tags;
  std::string service_check_interval = "5s";
  std::string service_check_tls_server_name;
  TlsFiles tls;
  bool operator==(const ConsulSection&) const = default;
};

struct ZookeeperSection {  // `zookeeper`
  std::vector<std::string> hosts;
  std::string chroot;  // without slashes at its ends; comes with the hosts: 10.0.0.1:2181/chroot
  bool use_ssl = false;
  TlsFiles tls;
  json::Value set_acls;
  json::Value auth_data;
  bool operator==(const ZookeeperSection&) const = default;
};

using StoreSection = std::variant<SqliteSection, EtcdSection, ConsulSection, ZookeeperSection>;
std::string section_name(const StoreSection& section);  // "sqlite", "etcd3", …

struct StoreOptions {
  StoreSection section;
  std::string name_space = "service";  // without slashes at its ends; empty is allowed
  Scope scope;
  bool operator==(const StoreOptions&) const = default;
};

// ---- the rest
// ------------------------------------------------------------------------------------

enum class VerifyClient { none, optional, required };

struct RestOptions {  // `restapi`
  Address listen;
  Address connect_address;  // what the others use; never a wildcard
  std::string username;     // empty: no password is asked for
  std::string password;
  std::string certfile;  // empty: plain HTTP
  std::string keyfile;   // empty: in certfile
  std::string keyfile_password;
  std::string cafile;
  std::string ciphers;
  VerifyClient verify_client = VerifyClient::none;
  std::vector<std::string> allowlist;  // addresses, networks (10.0.0.0/8) and host names
  bool allowlist_include_members = false;
  std::vector<std::pair<std::string, std::string>> http_extra_headers;
  std::vector<std::pair<std::string, std::string>> https_extra_headers;
  std::string server_tokens = "original";  // original, minimal, productonly: the Server header
  // Limits, ours: `restapi.limits`.
  std::size_t body_bytes_max = 1024 * 1024;
  std::size_t connections_max = 256;
  Duration request_timeout = std::chrono::seconds(10);

  bool tls() const noexcept { return !certfile.empty(); }
  // Requests that change something are refused from other machines unless one of these is set.
  bool protected_by_something() const noexcept {
    return !username.empty() || verify_client != VerifyClient::none || !allowlist.empty() ||
           allowlist_include_members;
  }
  bool operator==(const RestOptions&) const = default;
};

struct WatchdogOptions {  // `watchdog`; the local file only
  enum class Mode { off, automatic, required };
  Mode mode = Mode::automatic;
  std::string device = "/dev/watchdog";
  int safety_margin_s = 5;  // -1: half of the ttl
  bool operator==(const WatchdogOptions&) const = default;
};

struct LogOptions {  // `log`
  bool json = false;
  LogLevel level = LogLevel::info;
  std::string dir;  // empty: stderr
  std::int64_t file_bytes = 25'000'000;
  int files = 4;
  int mode = 0;  // permissions of the files; 0: by the umask
  std::vector<std::pair<std::string, std::string>> static_fields;
  bool deduplicate_heartbeat_logs = false;
  bool operator==(const LogOptions&) const = default;
};

struct CtlOptions {  // `ctl`: how spiloctl talks to the nodes; falls back to restapi's credentials
  TlsFiles tls;      // verify = false: `insecure`
  std::string username;
  std::string password;
  bool operator==(const CtlOptions&) const = default;
};

struct Config {
  ha::Identity identity;
  StoreOptions store;
  pg::PgOptions postgresql;
  RestOptions restapi;
  bool guard = true;
  WatchdogOptions watchdog;
  LogOptions log;
  CtlOptions ctl;
  json::Value document;  // files and environment merged, secrets included: never log or publish it
  bool operator==(const Config&) const = default;
};

// What `spiloctl` needs of the same file; nothing of it is required but one store section.
struct CtlConfig {
  StoreOptions store;  // scope may be empty: then the command line has to name the cluster
  CtlOptions ctl;
  bool operator==(const CtlConfig&) const = default;
};

}  // namespace spilo::config
