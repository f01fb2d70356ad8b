// What the PostgreSQL controller must know about its server: Patroni's `postgresql` and `bootstrap`
// sections (patroni-contract 7.6 and 7.9) as typed values. The config loader fills it; nothing here
// reads files or the environment.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "spilo/core/ids.hpp"
#include "spilo/core/json.hpp"
#include "spilo/core/time.hpp"

namespace spilo::pg {

// One account of `postgresql.authentication`. Empty strings are "not set".
struct Credentials {
  std::string username;
  std::string password;
  std::string sslmode;
  std::string sslcert;
  std::string sslkey;
  std::string sslpassword;
  std::string sslrootcert;
  std::string sslcrl;
  std::string sslcrldir;
  std::string gssencmode;
  std::string channel_binding;
  std::string sslnegotiation;
  bool operator==(const Credentials&) const = default;
};

// Command line options as Patroni's YAML has them: {"checkpoint", ""} is --checkpoint,
// {"max-rate", "100M"} is --max-rate=100M.
using CommandOptions = std::vector<std::pair<std::string, std::string>>;

struct PgOptions {
  // Who we are.
  NodeName name;
  Scope scope;

  // Where things are. Relative paths are resolved by the loader, against the start directory.
  std::string data_dir;
  std::string config_dir;                       // empty: data_dir
  std::string config_base_name = "postgresql";  // <config_dir>/<base>.conf and <base>.base.conf
  std::string custom_conf;                      // included instead of <base>.base.conf
  std::string bin_dir;                          // empty: found in PATH
  std::map<std::string, std::string> bin_name;  // "postgres" -> another program name
  std::string pgpass;    // file for passwords, 0600; empty: <data_dir>.pgpass
  std::string log_file;  // the server's stdout and stderr; empty: <data_dir>.log

  // How it is reached. `listen` is "host[,host]", as in listen_addresses.
  std::string listen = "localhost";
  int port = 5432;
  std::string connect_address;  // host:port, published to the others
  std::string database = "postgres";
  bool use_unix_socket = false;       // our own superuser connections
  bool use_unix_socket_repl = false;  // our own replication connections
  Credentials superuser;
  Credentials replication;
  Credentials rewind;  // without a username the superuser is used
  std::string krbsrvname;

  // Local configuration. The dynamic configuration's `postgresql` section is merged below it by the
  // controller (local wins key by key, protected parameters excepted; contract 7.1).
  json::Value parameters;     // object or null; scalars as YAML had them
  json::Value recovery_conf;  // object or null
  std::vector<std::string> pg_hba;
  std::vector<std::string> pg_ident;
  std::map<std::string, std::string> callbacks;  // on_start, … -> command line
  // Local `postgresql` keys that were given, as they were given: tells "not set here" from "set to
  // the default" when the dynamic configuration has the key too. Object or null.
  json::Value local_document;

  // Rejoin and clone.
  bool use_pg_rewind = true;
  CommandOptions rewind_options;
  bool remove_data_directory_on_rewind_failure = true;
  bool remove_data_directory_on_diverged_timelines = true;
  CommandOptions basebackup;

  // Bootstrap.
  CommandOptions initdb;
  std::vector<std::string> bootstrap_pg_hba;
  std::string post_bootstrap;  // command; a connection string is appended

  Duration pg_ctl_timeout = std::chrono::seconds(60);

  bool operator==(const PgOptions&) const = default;
};

}  // namespace spilo::pg
