#include "schema.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <span>

#include "sources.hpp"
#include "spilo/model/spelling.hpp"

namespace spilo::config {
namespace {

enum class Kind {
  any,
  text,
  name,  // text, or a number meant as text
  integer,
  boolean,
  list,
  texts,  // a list of texts, or one text with commas
  lines,  // a list of texts
  object,
  options,  // a list of command line options, or an object of them
};

// What is done with a key that is there and well-formed.
enum class Use {
  used,
  ignored,       // means nothing here, and nobody misses it
  not_yet,       // would mean something that libspilo does not do yet: a warning
  cluster_wide,  // counts only in the store: a warning
};

struct Key {
  std::string_view name;
  Kind kind = Kind::text;
  Use use = Use::used;
  std::span<const Key> below = {};  // of an object whose keys are all known
};

constexpr Key login[] = {{"username"}, {"password"}};
constexpr Key limits[] = {
    {"body_bytes", Kind::integer}, {"connections", Kind::integer}, {"timeout", Kind::any}};
constexpr Key restapi[] = {{"listen"},
                           {"connect_address"},
                           {"authentication", Kind::object, Use::used, login},
                           {"certfile"},
                           {"keyfile"},
                           {"keyfile_password"},
                           {"cafile"},
                           {"ciphers"},
                           {"verify_client"},
                           {"allowlist", Kind::texts},
                           {"allowlist_include_members", Kind::boolean},
                           {"http_extra_headers", Kind::object},
                           {"https_extra_headers", Kind::object},
                           {"request_queue_size", Kind::integer, Use::ignored},
                           {"thread_pool_size", Kind::integer, Use::ignored},
                           {"server_tokens"},
                           {"limits", Kind::object, Use::used, limits}};
constexpr Key ctl[] = {{"insecure", Kind::boolean},
                       {"cacert"},
                       {"certfile"},
                       {"keyfile"},
                       {"keyfile_password"},
                       {"authentication", Kind::object, Use::used, login}};
constexpr Key watchdog[] = {{"mode", Kind::any},
                            {"device"},
                            {"driver", Kind::text, Use::ignored},
                            {"safety_margin", Kind::integer}};
constexpr Key log[] = {{"type"},
                       {"level"},
                       {"traceback_level", Kind::text, Use::ignored},
                       {"format", Kind::any, Use::ignored},
                       {"dateformat", Kind::text, Use::ignored},
                       {"static_fields", Kind::object},
                       {"max_queue_size", Kind::integer, Use::ignored},
                       {"dir"},
                       {"mode", Kind::integer},
                       {"file_size", Kind::integer},
                       {"file_num", Kind::integer},
                       {"loggers", Kind::object, Use::ignored},
                       {"deduplicate_heartbeat_logs", Kind::boolean}};
constexpr Key account[] = {{"username"},
                           {"password"},
                           {"sslmode"},
                           {"sslcert"},
                           {"sslkey"},
                           {"sslpassword"},
                           {"sslrootcert"},
                           {"sslcrl"},
                           {"sslcrldir"},
                           {"gssencmode"},
                           {"channel_binding"},
                           {"sslnegotiation"}};
constexpr Key accounts[] = {{"superuser", Kind::object, Use::used, account},
                            {"replication", Kind::object, Use::used, account},
                            {"rewind", Kind::object, Use::used, account}};
constexpr Key programs[] = {{"pg_ctl"},
                            {"initdb"},
                            {"pg_controldata"},
                            {"pg_basebackup"},
                            {"postgres"},
                            {"pg_isready"},
                            {"pg_rewind"}};
constexpr Key callbacks[] = {
    {"on_reload"}, {"on_restart"}, {"on_role_change"}, {"on_start"}, {"on_stop"}};
constexpr Key postgresql[] = {
    {"listen"},
    {"connect_address"},
    {"proxy_address", Kind::text, Use::not_yet},
    {"data_dir"},
    {"config_dir"},
    {"bin_dir"},
    {"bin_name", Kind::object, Use::used, programs},
    {"pgpass"},
    {"database"},
    {"config_base_name"},
    {"authentication", Kind::object, Use::used, accounts},
    {"use_unix_socket", Kind::boolean},
    {"use_unix_socket_repl", Kind::boolean},
    {"pg_ctl_timeout", Kind::integer},
    {"use_pg_rewind", Kind::boolean},
    {"use_slots", Kind::boolean, Use::cluster_wide},
    {"rewind", Kind::options},
    {"remove_data_directory_on_rewind_failure", Kind::boolean},
    {"remove_data_directory_on_diverged_timelines", Kind::boolean},
    {"basebackup", Kind::options},
    {"create_replica_methods", Kind::texts},
    {"create_replica_method", Kind::texts},
    {"callbacks", Kind::object, Use::used, callbacks},
    {"pre_promote", Kind::text, Use::not_yet},
    {"before_stop", Kind::text, Use::not_yet},
    {"krbsrvname"},
    {"custom_conf"},
    {"pg_hba", Kind::lines},
    {"pg_ident", Kind::lines},
    {"parameters", Kind::object},
    {"parameters_primary", Kind::object, Use::not_yet},
    {"parameters_replica", Kind::object, Use::not_yet},
    {"parameters_standby_leader", Kind::object, Use::not_yet},
    {"pg_hba_primary", Kind::lines, Use::not_yet},
    {"pg_hba_replica", Kind::lines, Use::not_yet},
    {"pg_hba_standby_leader", Kind::lines, Use::not_yet},
    {"pg_ident_primary", Kind::lines, Use::not_yet},
    {"pg_ident_replica", Kind::lines, Use::not_yet},
    {"pg_ident_standby_leader", Kind::lines, Use::not_yet},
    {"recovery_conf", Kind::object},
    {"pg_rewind", Kind::object, Use::used, account},  // old layout: accounts stood here
    {"replication", Kind::object, Use::used, account},
    {"superuser", Kind::object, Use::used, account},
    {"name", Kind::name, Use::ignored},
    {"scope", Kind::name, Use::ignored}};
constexpr Key bootstrap[] = {{"dcs", Kind::object},
                             {"initdb", Kind::options},
                             {"method"},
                             {"pg_hba", Kind::lines},
                             {"post_bootstrap"},
                             {"post_init"},
                             {"users", Kind::object, Use::not_yet}};
constexpr Key sqlite[] = {{"path"}};
constexpr Key etcd[] = {{"host"},
                        {"hosts", Kind::texts},
                        {"port", Kind::integer},
                        {"url"},
                        {"proxy"},
                        {"srv"},
                        {"srv_suffix"},
                        {"protocol"},
                        {"use_proxies", Kind::boolean},
                        {"username"},
                        {"password"},
                        {"cacert"},
                        {"cert"},
                        {"key"},
                        {"key_password"},
                        {"verify", Kind::boolean}};
constexpr Key consul[] = {{"host"},
                          {"hosts", Kind::texts},
                          {"port", Kind::integer},
                          {"url"},
                          {"scheme"},
                          {"token"},
                          {"verify", Kind::boolean},
                          {"cacert"},
                          {"cert"},
                          {"key"},
                          {"key_password"},
                          {"dc"},
                          {"consistency"},
                          {"checks", Kind::texts},
                          {"register_service", Kind::boolean},
                          {"service_tags", Kind::texts},
                          {"service_check_interval", Kind::any},
                          {"service_check_tls_server_name"}};
constexpr Key zookeeper[] = {{"hosts", Kind::texts},
                             {"use_ssl", Kind::boolean},
                             {"cacert"},
                             {"cert"},
                             {"key"},
                             {"key_password"},
                             {"verify", Kind::boolean},
                             {"set_acls", Kind::object},
                             {"auth_data", Kind::object}};
constexpr Key root[] = {{"scope", Kind::name},
                        {"name", Kind::name},
                        {"namespace", Kind::name},
                        {"guard", Kind::boolean},
                        {"thread_pool_size", Kind::integer, Use::ignored},
                        {"thread_stack_size", Kind::any, Use::ignored},
                        {"log", Kind::object, Use::used, log},
                        {"restapi", Kind::object, Use::used, restapi},
                        {"ctl", Kind::object, Use::used, ctl},
                        {"watchdog", Kind::object, Use::used, watchdog},
                        {"tags", Kind::object},
                        {"bootstrap", Kind::object},
                        {"postgresql", Kind::object},
                        {"sqlite", Kind::object, Use::used, sqlite},
                        {"etcd", Kind::object, Use::used, etcd},
                        {"etcd3", Kind::object, Use::used, etcd},
                        {"consul", Kind::object, Use::used, consul},
                        {"zookeeper", Kind::object, Use::used, zookeeper},
                        {"exhibitor", Kind::object},
                        {"kubernetes", Kind::object},
                        {"raft", Kind::object},
                        {"citus", Kind::object, Use::not_yet},
                        {"ttl", Kind::any, Use::cluster_wide},
                        {"loop_wait", Kind::any, Use::cluster_wide},
                        {"retry_timeout", Kind::any, Use::cluster_wide},
                        {"maximum_lag_on_failover", Kind::any, Use::cluster_wide},
                        {"maximum_lag_on_syncnode", Kind::any, Use::cluster_wide},
                        {"max_timelines_history", Kind::any, Use::cluster_wide},
                        {"primary_start_timeout", Kind::any, Use::cluster_wide},
                        {"primary_stop_timeout", Kind::any, Use::cluster_wide},
                        {"master_start_timeout", Kind::any, Use::cluster_wide},
                        {"master_stop_timeout", Kind::any, Use::cluster_wide},
                        {"synchronous_mode", Kind::any, Use::cluster_wide},
                        {"synchronous_mode_strict", Kind::any, Use::cluster_wide},
                        {"synchronous_node_count", Kind::any, Use::cluster_wide},
                        {"failsafe_mode", Kind::any, Use::cluster_wide},
                        {"check_timeline", Kind::any, Use::cluster_wide},
                        {"member_slots_ttl", Kind::any, Use::cluster_wide},
                        {"slots", Kind::any, Use::cluster_wide},
                        {"permanent_slots", Kind::any, Use::cluster_wide},
                        {"ignore_slots", Kind::any, Use::cluster_wide},
                        {"standby_cluster", Kind::any, Use::cluster_wide}};

// Parameters that the server gets on its command line, from the cluster's configuration only.
constexpr std::array<std::string_view, 12> cluster_wide_parameters = {"wal_level",
                                                                      "hot_standby",
                                                                      "max_connections",
                                                                      "max_wal_senders",
                                                                      "wal_keep_segments",
                                                                      "wal_keep_size",
                                                                      "max_prepared_transactions",
                                                                      "max_locks_per_transaction",
                                                                      "track_commit_timestamp",
                                                                      "max_replication_slots",
                                                                      "max_worker_processes",
                                                                      "wal_log_hints"};

bool all_texts(const json::Value& value) {
  const auto* items = value.as_array();
  return items != nullptr &&
         std::ranges::all_of(*items, [](const json::Value& item) { return item.is_string(); });
}

bool fits(Kind kind, const json::Value& value) {
  switch (kind) {
    case Kind::any:
      return true;
    case Kind::text:
      return value.is_string();
    case Kind::name:
      return value.is_string() || value.is_int();
    case Kind::integer:
      return value.is_int();
    case Kind::boolean:
      return value.is_bool();
    case Kind::list:
      return value.is_array();
    case Kind::texts:
      return value.is_string() || all_texts(value);
    case Kind::lines:
      return all_texts(value);
    case Kind::object:
      return value.is_object();
    case Kind::options:
      return value.is_array() || value.is_object();
  }
  return true;
}

std::string_view wanted(Kind kind) {
  switch (kind) {
    case Kind::any:
      return "anything";
    case Kind::text:
    case Kind::name:
      return "text (put it in quotes)";
    case Kind::integer:
      return "a whole number";
    case Kind::boolean:
      return "true or false";
    case Kind::list:
      return "a list";
    case Kind::texts:
      return "a list of texts, or one text with commas";
    case Kind::lines:
      return "a list of texts";
    case Kind::object:
      return "an object with keys and values";
    case Kind::options:
      return "a list of options such as [data-checksums, {encoding: UTF8}]";
  }
  return "";
}

class Walker {
 public:
  explicit Walker(Reporter& report) : report_(report) {}

  // `own`: keys of the user's choice that are no mistakes.
  void section(const json::Value& value,
               const std::string& prefix,
               std::span<const Key> known,
               const std::vector<std::string>& own = {}) {
    const auto* members = value.as_object();
    if (members == nullptr) return;
    for (const auto& [name, item] : *members) {
      const auto path = prefix + name;
      const auto key = std::ranges::find(known, name, &Key::name);
      if (key != known.end())
        member(*key, path, item);
      else if (!name.starts_with("x-") && std::ranges::find(own, name) == own.end())
        unknown(path, name, prefix, known);
    }
  }

 private:
  void member(const Key& key, const std::string& path, const json::Value& value) {
    if (value.is_null()) return;  // "key:" with nothing behind it is a key that is not there
    if (!fits(key.kind, value)) {
      const auto has = is_secret(key.name)
                           ? fmt::format("is {} {}", article(value), value.type_name())
                           : described(value);
      report_.error(path, fmt::format("must be {}, but {}", wanted(key.kind), has));
      return;
    }
    if (key.use == Use::not_yet) report_.warning(path, "is not supported yet and has no effect");
    if (key.use == Use::cluster_wide)
      report_.warning(
          path,
          "has no effect in this file: it counts for the whole cluster; change it with "
          "spiloctl edit-config (bootstrap.dcs sets it for a cluster that does not exist "
          "yet)");
    if (!key.below.empty()) section(value, path + ".", key.below);
  }

  static std::string_view article(const json::Value& value) {
    return value.is_int() || value.is_object() ? "an" : "a";
  }

  void unknown(const std::string& path,
               const std::string& name,
               const std::string& prefix,
               std::span<const Key> known) {
    std::vector<std::string_view> names;
    for (const auto& key : known) names.push_back(key.name);
    if (const auto meant = closest_name(name, names); !meant.empty())
      report_.error(path, fmt::format("unknown key, did you mean {}{}?", prefix, meant));
    else
      report_.error(path,
                    fmt::format("unknown key; remove it, or let its name begin with x- if only you "
                                "use it"));
  }

  Reporter& report_;
};

// Names that a list of methods declares as sections beside it.
std::vector<std::string> methods_of(const json::Value& section) {
  std::vector<std::string> out;
  for (const char* key : {"create_replica_methods", "create_replica_method", "method"}) {
    const auto* value = section.find(key);
    if (value == nullptr) continue;
    if (const auto* text = value->as_string()) out.push_back(*text);
    if (const auto* items = value->as_array())
      for (const auto& item : *items)
        if (const auto* text = item.as_string()) out.push_back(*text);
  }
  return out;
}

void check_parameters(const json::Value& document, Reporter& report) {
  const auto* parameters = document.find_path("postgresql.parameters");
  const auto* members = parameters == nullptr ? nullptr : parameters->as_object();
  if (members == nullptr) return;
  for (const auto& [name, value] : *members) {
    const auto path = "postgresql.parameters." + name;
    if (value.is_array() || value.is_object())
      report.error(path, fmt::format("must be one value, but {}", described(value)));
    if (name == "listen_addresses" || name == "port")
      report.warning(path, "has no effect; set postgresql.listen");
    if (name == "cluster_name")
      report.warning(path, "has no effect; the scope is the cluster's name");
    if (std::ranges::find(cluster_wide_parameters, name) != cluster_wide_parameters.end())
      report.warning(
          path,
          "has no effect in this file: all nodes must agree on it; change it with spiloctl "
          "edit-config -p (bootstrap.dcs.postgresql.parameters sets it for a cluster that "
          "does not exist yet)");
  }
}

}  // namespace

void check_schema(const json::Value& document, Reporter& report) {
  Walker walker(report);
  walker.section(document, "", root);
  if (const auto* section = document.find("postgresql"))
    walker.section(*section, "postgresql.", postgresql, methods_of(*section));
  if (const auto* section = document.find("bootstrap"))
    walker.section(*section, "bootstrap.", bootstrap, methods_of(*section));
  check_parameters(document, report);
}

}  // namespace spilo::config
