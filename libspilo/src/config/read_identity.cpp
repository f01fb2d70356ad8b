#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <set>

#include "address.hpp"
#include "readers.hpp"
#include "spilo/model/dynamic_config.hpp"
#include "spilo/model/spelling.hpp"

namespace spilo::config {
namespace {

void check_name(const std::string& name, Reporter& report) {
  if (name.empty())
    return report.error("name", "is not set; it tells this node from the others of its cluster");
  // It becomes a key of the store and an item of lists with commas.
  const auto bad = name.find_first_of("/,\"'\\ \t\n:");
  if (bad != std::string::npos)
    report.error("name",
                 fmt::format("must not contain {}, but is \"{}\"",
                             name[bad] == ' ' ? "a space" : fmt::format("'{}'", name[bad]),
                             name));
}

// The boolean and the priority contradict each other: said in Patroni's words.
void check_pair(const json::Value& tags,
                std::string_view boolean_name,
                std::string_view priority_name,
                Reporter& report) {
  const auto* boolean = tags.find(boolean_name);
  const auto* priority = tags.find(priority_name);
  if (boolean == nullptr || priority == nullptr || !boolean->is_bool() || !priority->is_int())
    return;
  if (*boolean->as_bool() != (*priority->as_int() > 0)) return;
  report.warning(
      fmt::format("tags.{}", boolean_name),
      fmt::format("Conflicting configuration between {0}: {1} and {2}: {3}. Defaulting to "
                  "{0}: {1}",
                  boolean_name,
                  boolean->scalar_text(),
                  priority_name,
                  priority->scalar_text()));
}

void check_tags(const json::Value& tags, Reporter& report) {
  if (!tags.is_object()) return;
  check_pair(tags, "nofailover", "failover_priority", report);
  check_pair(tags, "nosync", "sync_priority", report);
  for (const char* name : {"nofailover", "nosync", "clonefrom", "noloadbalance", "nostream"}) {
    const auto* value = tags.find(name);
    if (value != nullptr && !value->is_bool() && !value->is_null())
      report.error(fmt::format("tags.{}", name),
                   fmt::format("must be true or false without quotes, but {}", described(*value)));
  }
  for (const char* name : {"failover_priority", "sync_priority"}) {
    const auto* value = tags.find(name);
    if (value != nullptr && !value->is_null() && (!value->is_int() || *value->as_int() < 0))
      report.error(fmt::format("tags.{}", name),
                   fmt::format("must be a whole number, 0 or more, but {}", described(*value)));
  }
  constexpr std::array<std::string_view, 8> known = {"nofailover",
                                                     "failover_priority",
                                                     "nosync",
                                                     "sync_priority",
                                                     "clonefrom",
                                                     "noloadbalance",
                                                     "nostream",
                                                     "replicatefrom"};
  for (const auto& [name, value] : *tags.as_object())
    if (const auto meant = closest_name(name, known); !meant.empty())
      report.error("tags." + name, fmt::format("unknown tag, did you mean tags.{}?", meant));
}

// The first content of the store's `config`. Timing is written out, so that everybody sees what
// counts.
json::Value first_config(const json::Value& document, Reporter& report) {
  const Section section(document, "bootstrap");
  auto config = section.object("dcs");
  if (config.is_null()) config = json::Value::object();
  std::set<std::string> wrong;
  for (auto& violation : validate_dynamic_config(config)) {
    wrong.insert(violation.path);
    report.error(violation.path.empty() ? "bootstrap.dcs" : "bootstrap.dcs." + violation.path,
                 std::move(violation.message));
  }
  // Kept, as everywhere; but whoever writes a file should know that nobody will look at it.
  for (const auto& [key, value] : *config.as_object())
    if (!is_dynamic_config_key(key) && !key.starts_with("x-") && !wrong.contains(key))
      report.warning("bootstrap.dcs." + key, "unknown key, it has no effect");
  const Timing defaults;
  auto out = json::Value::object();
  const std::pair<const char*, Duration> timing[] = {{"ttl", defaults.ttl},
                                                     {"loop_wait", defaults.loop_wait},
                                                     {"retry_timeout", defaults.retry_timeout}};
  for (const auto& [key, value] : timing) {
    const auto* given = config.find(key);
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(value).count();
    if (given == nullptr || given->is_null()) out.set(key, std::int64_t{seconds});
  }
  for (auto& [key, value] : *config.as_object())
    if (!value.is_null()) out.set(key, std::move(value));
  return out;
}

// What a new cluster would need and we can't give it yet: better no cluster than a wrong one.
bool check_bootstrap_support(const json::Value& document,
                             const json::Value& config,
                             Reporter& report) {
  const Section section(document, "bootstrap");
  if (!section.present()) return false;
  bool able = true;
  const auto method = section.text("method", "initdb");
  if (method != "initdb") {
    report.warning(
        "bootstrap.method",
        fmt::format("{} is not supported yet: this node joins an existing cluster, but does "
                    "not create one",
                    method));
    able = false;
  }
  if (const auto* standby = config.find("standby_cluster"); standby && standby->is_object()) {
    report.warning("bootstrap.dcs.standby_cluster",
                   "is not supported yet: this node joins an existing cluster, but does not create "
                   "one");
    able = false;
  }
  return able;
}

// Silence would let people believe that their commits are safe on two nodes.
void check_not_yet(const json::Value& config, Reporter& report) {
  const auto parsed = parse_dynamic_config(config);
  if (parsed && parsed->synchronous_mode)
    report.warning("bootstrap.dcs.synchronous_mode",
                   "is not supported yet: the cluster replicates asynchronously");
  for (const char* key : {"slots", "permanent_slots", "permanent_replication_slots"})
    if (const auto* slots = config.find(key);
        slots && slots->is_object() && !slots->as_object()->empty())
      report.warning(fmt::format("bootstrap.dcs.{}", key),
                     "is not supported yet: only the members' own slots are kept");
}

void check_replica_methods(const json::Value& document, Reporter& report) {
  const Section section(document, "postgresql");
  auto methods = section.texts("create_replica_methods");
  if (methods.empty()) methods = section.texts("create_replica_method");
  const bool other =
      std::ranges::any_of(methods, [](const std::string& name) { return name != "basebackup"; });
  if (other)
    report.warning("postgresql.create_replica_methods",
                   "is not supported yet: replicas are made with pg_basebackup");
}

}  // namespace

ha::Identity read_identity(const json::Value& document,
                           const pg::PgOptions& postgresql,
                           const RestOptions& rest,
                           Reporter& report) {
  ha::Identity out;
  const Section top(document, "");
  out.node = postgresql.name;
  out.scope = postgresql.scope;
  check_name(out.node.str(), report);
  const auto tags = top.object("tags");
  check_tags(tags, report);
  out.tags = parse_tags(tags);
  if (out.tags.replicatefrom == out.node && !out.node.empty())
    report.error("tags.replicatefrom", "must be another node, but is this one");
  out.conn_url = fmt::format("postgres://{}/{}", postgresql.connect_address, postgresql.database);
  out.api_url =
      fmt::format("{}://{}/patroni", rest.tls() ? "https" : "http", to_text(rest.connect_address));
  out.bootstrap_dcs = first_config(document, report);
  if (const auto config = parse_dynamic_config(out.bootstrap_dcs)) out.timing = config->timing;
  out.can_bootstrap = check_bootstrap_support(document, out.bootstrap_dcs, report);
  check_replica_methods(document, report);
  check_not_yet(out.bootstrap_dcs, report);
  const auto* everywhere = out.bootstrap_dcs.find_path("postgresql.use_pg_rewind");
  const bool by_default =
      everywhere == nullptr ? out.use_pg_rewind : everywhere->as_bool().value_or(out.use_pg_rewind);
  out.use_pg_rewind = Section(document, "postgresql").flag("use_pg_rewind", by_default);
  return out;
}

}  // namespace spilo::config
