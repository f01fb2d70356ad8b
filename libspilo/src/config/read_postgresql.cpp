#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "address.hpp"
#include "readers.hpp"
#include "spilo/model/spelling.hpp"

namespace spilo::config {
namespace {

pg::Credentials read_account(const Section& section) {
  pg::Credentials out;
  out.username = section.text("username");
  out.password = section.text("password");
  out.sslmode = section.text("sslmode");
  out.sslcert = absolute_path(section.text("sslcert"));
  out.sslkey = absolute_path(section.text("sslkey"));
  out.sslpassword = section.text("sslpassword");
  out.sslrootcert = section.text("sslrootcert");
  if (out.sslrootcert != "system") out.sslrootcert = absolute_path(out.sslrootcert);
  out.sslcrl = absolute_path(section.text("sslcrl"));
  out.sslcrldir = absolute_path(section.text("sslcrldir"));
  out.gssencmode = section.text("gssencmode");
  out.channel_binding = section.text("channel_binding");
  out.sslnegotiation = section.text("sslnegotiation");
  return out;
}

// `authentication`, or the old layout with the accounts directly below postgresql.
void read_accounts(const json::Value& document, pg::PgOptions& out, Reporter& report) {
  const auto account = [&](std::string_view name, std::string_view old_name) {
    const Section now(document, fmt::format("postgresql.authentication.{}", name));
    if (now.present()) return read_account(now);
    return read_account(Section(document, fmt::format("postgresql.{}", old_name)));
  };
  out.superuser = account("superuser", "superuser");
  out.replication = account("replication", "replication");
  out.rewind = account("rewind", "pg_rewind");
  for (const auto& [name, user] :
       {std::pair("superuser", &out.superuser), {"replication", &out.replication}})
    if (user->username.empty())
      report.error(
          fmt::format("postgresql.authentication.{}.username", name),
          fmt::format("is not set; the {} account is created when the cluster is, and used "
                      "afterwards",
                      name));
}

// Items "name", {name: value} or "name=value"; or one object.
pg::CommandOptions read_options(const Section& section, std::string_view key, Reporter& report) {
  pg::CommandOptions out;
  const auto* value = section.find(key);
  if (value == nullptr) return out;
  const auto add_object = [&](const json::Value& object) {
    for (const auto& [name, setting] : *object.as_object()) {
      const bool given = setting.as_bool() == true || setting.is_null();
      if (setting.as_bool() != false) out.emplace_back(name, given ? "" : setting.scalar_text());
    }
  };
  if (value->is_object()) add_object(*value);
  if (const auto* items = value->as_array()) {
    for (const auto& item : *items) {
      if (item.is_object())
        add_object(item);
      else if (const auto* name = item.as_string(); name != nullptr && !name->empty()) {
        const auto equals = name->find('=');
        out.emplace_back(name->substr(0, equals),
                         equals == std::string::npos ? "" : name->substr(equals + 1));
      } else {
        report.error(section.path_of(key),
                     fmt::format("must be a list of options such as [data-checksums, {{encoding: "
                                 "UTF8}}], but one {}",
                                 described(item)));
      }
    }
  }
  for (auto& [name, setting] : out) {
    while (name.starts_with('-')) name.erase(0, 1);
  }
  return out;
}

void refuse_options(const pg::CommandOptions& options,
                    std::initializer_list<std::string_view> forbidden,
                    const std::string& path,
                    Reporter& report) {
  for (const auto& [name, value] : options)
    if (std::ranges::find(forbidden, name) != forbidden.end())
      report.error(path, fmt::format("must not contain {}: it is decided here; remove it", name));
}

// "host[,host][:port]"; what is left of the last colon may be IPv6 addresses.
void read_listen(const Section& section, pg::PgOptions& out, Reporter& report) {
  const auto text = section.text("listen");
  if (text.empty()) {
    if (section.find("listen") == nullptr)
      report.error("postgresql.listen",
                   "is not set; PostgreSQL listens there, for example 0.0.0.0:5432");
    return;
  }
  const auto colon = text.rfind(':');
  const auto last = colon == std::string::npos ? text : text.substr(colon);
  std::string hosts = text;
  if (last.find_first_of("],") == std::string::npos && colon != std::string::npos) {
    hosts = text.substr(0, colon);
    const auto port = parse_address("x" + last, 0);
    if (!port) {
      report.error(
          "postgresql.listen",
          fmt::format("must be addresses and a port such as 127.0.0.1,10.0.0.1:5432, but is "
                      "\"{}\"",
                      text));
      return;
    }
    out.port = port->port;
  }
  std::string joined;
  for (auto host : split_list(hosts)) {
    if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
    joined += (joined.empty() ? "" : ",") + host;
  }
  out.listen = joined.empty() ? "*" : joined;
}

void read_connect_address(const Section& section, pg::PgOptions& out, Reporter& report) {
  Address address;
  const auto hosts = split_list(out.listen);
  if (hosts.size() == 1) address.host = hosts.front();
  address.port = out.port;
  if (section.find("connect_address") != nullptr) {
    const auto given = read_address(section, "connect_address", out.port, report);
    if (!given) return;
    address = *given;
  }
  if (is_wildcard(address.host)) {
    if (section.find("listen") != nullptr)
      report.error(
          "postgresql.connect_address",
          fmt::format("must be the address under which the other nodes reach this server, "
                      "for example 10.0.0.1:{}{}",
                      out.port,
                      section.find("connect_address") == nullptr ? "; it is not set" : ""));
    return;
  }
  out.connect_address = to_text(address);
}

void read_local_settings(const Section& section, pg::PgOptions& out) {
  out.parameters = section.object("parameters");
  out.recovery_conf = section.object("recovery_conf");
  out.pg_hba = section.texts("pg_hba");
  out.pg_ident = section.texts("pg_ident");
  const auto callbacks = section.object("callbacks");
  if (const auto* members = callbacks.as_object())
    for (const auto& [name, command] : *members)
      if (const auto* text = command.as_string(); text && !text->empty())
        out.callbacks[name] = *text;
  auto local = json::Value::object();
  if (!section.present()) return;
  for (const auto& [name, value] : *section.self()->as_object()) {
    const bool secret = name == "authentication" || name == "superuser" || name == "replication" ||
                        name == "pg_rewind" || name == "pgpass";
    if (!secret && !value.is_null()) local.set(name, value);
  }
  out.local_document = std::move(local);
}

void read_bootstrap(const json::Value& document, pg::PgOptions& out, Reporter& report) {
  const Section section(document, "bootstrap");
  out.initdb = read_options(section, "initdb", report);
  refuse_options(out.initdb,
                 {"pgdata", "nosync", "no-sync", "pwfile", "sync-only", "version", "D"},
                 "bootstrap.initdb",
                 report);
  out.bootstrap_pg_hba = section.texts("pg_hba");
  out.post_bootstrap = section.text("post_bootstrap", section.text("post_init"));
}

}  // namespace

pg::PgOptions read_postgresql(const json::Value& document, Reporter& report) {
  pg::PgOptions out;
  const Section top(document, "");
  const Section section(document, "postgresql");
  out.name = NodeName(top.text("name"));
  out.scope = Scope(top.text("scope"));
  out.data_dir = absolute_path(section.text("data_dir"));
  if (out.data_dir.empty())
    report.error(
        "postgresql.data_dir",
        "is not set; PostgreSQL's files go there, for example /var/lib/postgresql/15/main");
  out.config_dir = absolute_path(section.text("config_dir"));
  out.config_base_name = section.text("config_base_name", out.config_base_name);
  out.custom_conf = section.text("custom_conf");
  out.bin_dir = absolute_path(section.text("bin_dir"));
  const auto programs = section.object("bin_name");
  if (const auto* members = programs.as_object())
    for (const auto& [name, program] : *members)
      if (const auto* text = program.as_string()) out.bin_name[name] = *text;
  out.pgpass = absolute_path(section.text("pgpass"));
  read_listen(section, out, report);
  read_connect_address(section, out, report);
  out.database = section.text("database", out.database);
  out.use_unix_socket = section.flag("use_unix_socket", false);
  out.use_unix_socket_repl = section.flag("use_unix_socket_repl", false);
  read_accounts(document, out, report);
  out.krbsrvname = section.text("krbsrvname");
  read_local_settings(section, out);
  out.use_pg_rewind = section.flag("use_pg_rewind", out.use_pg_rewind);
  out.rewind_options = read_options(section, "rewind", report);
  out.remove_data_directory_on_rewind_failure = section.flag(
      "remove_data_directory_on_rewind_failure", out.remove_data_directory_on_rewind_failure);
  out.remove_data_directory_on_diverged_timelines =
      section.flag("remove_data_directory_on_diverged_timelines",
                   out.remove_data_directory_on_diverged_timelines);
  out.basebackup = read_options(section, "basebackup", report);
  refuse_options(out.basebackup,
                 {"pgdata",
                  "format",
                  "wal-method",
                  "xlog-method",
                  "gzip",
                  "version",
                  "dbname",
                  "host",
                  "port",
                  "username",
                  "password"},
                 "postgresql.basebackup",
                 report);
  read_bootstrap(document, out, report);
  const auto timeout = section.integer("pg_ctl_timeout", 60);
  if (timeout < 1 || timeout > 86400)
    report.error("postgresql.pg_ctl_timeout",
                 fmt::format("must be seconds from 1 to 86400, but is {}", timeout));
  else
    out.pg_ctl_timeout = std::chrono::seconds(timeout);
  return out;
}

}  // namespace spilo::config
