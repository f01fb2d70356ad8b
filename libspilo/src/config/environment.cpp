// PATRONI_* and SPILO_* variables (patroni-contract 7.3).
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "sources.hpp"
#include "spilo/config/yaml.hpp"
#include "spilo/model/spelling.hpp"

namespace spilo::config {
namespace {

enum class Kind { text, boolean, integer, list, dictionary };

struct Suffix {
  std::string_view name;
  Kind kind = Kind::text;
};

// PREFIX_SUFFIX -> section.suffix in lower case.
struct Group {
  std::string_view prefix;
  std::string_view section;
  std::span<const Suffix> suffixes;
};

constexpr Suffix top[] = {{"NAME"},
                          {"NAMESPACE"},
                          {"SCOPE"},
                          {"THREAD_POOL_SIZE", Kind::integer},
                          {"THREAD_STACK_SIZE", Kind::integer},
                          {"GUARD", Kind::boolean}};
constexpr Suffix restapi[] = {{"LISTEN"},
                              {"CONNECT_ADDRESS"},
                              {"CERTFILE"},
                              {"KEYFILE"},
                              {"KEYFILE_PASSWORD"},
                              {"KEYFILE_PASSWORD_FILE"},
                              {"CAFILE"},
                              {"CIPHERS"},
                              {"VERIFY_CLIENT"},
                              {"HTTP_EXTRA_HEADERS", Kind::dictionary},
                              {"HTTPS_EXTRA_HEADERS", Kind::dictionary},
                              {"ALLOWLIST", Kind::list},
                              {"ALLOWLIST_INCLUDE_MEMBERS", Kind::boolean},
                              {"REQUEST_QUEUE_SIZE", Kind::integer},
                              {"SERVER_TOKENS"}};
constexpr Suffix ctl[] = {{"INSECURE", Kind::boolean},
                          {"CACERT"},
                          {"CERTFILE"},
                          {"KEYFILE"},
                          {"KEYFILE_PASSWORD"},
                          {"KEYFILE_PASSWORD_FILE"}};
constexpr Suffix login[] = {{"USERNAME"}, {"PASSWORD"}, {"PASSWORD_FILE"}};
constexpr Suffix postgresql[] = {{"LISTEN"},
                                 {"CONNECT_ADDRESS"},
                                 {"PROXY_ADDRESS"},
                                 {"CONFIG_DIR"},
                                 {"DATA_DIR"},
                                 {"PGPASS"},
                                 {"BIN_DIR"}};
constexpr Suffix programs[] = {{"PG_CTL"},
                               {"INITDB"},
                               {"PG_CONTROLDATA"},
                               {"PG_BASEBACKUP"},
                               {"POSTGRES"},
                               {"PG_ISREADY"},
                               {"PG_REWIND"}};
constexpr Suffix log[] = {{"TYPE"},
                          {"LEVEL"},
                          {"TRACEBACK_LEVEL"},
                          {"FORMAT"},
                          {"DATEFORMAT"},
                          {"STATIC_FIELDS", Kind::dictionary},
                          {"MAX_QUEUE_SIZE", Kind::integer},
                          {"DIR"},
                          {"MODE", Kind::integer},
                          {"FILE_SIZE", Kind::integer},
                          {"FILE_NUM", Kind::integer},
                          {"LOGGERS", Kind::dictionary},
                          {"DEDUPLICATE_HEARTBEAT_LOGS", Kind::boolean}};
constexpr Suffix account[] = {{"USERNAME"},
                              {"PASSWORD"},
                              {"PASSWORD_FILE"},
                              {"SSLMODE"},
                              {"SSLCERT"},
                              {"SSLKEY"},
                              {"SSLPASSWORD"},
                              {"SSLPASSWORD_FILE"},
                              {"SSLROOTCERT"},
                              {"SSLCRL"},
                              {"SSLCRLDIR"},
                              {"GSSENCMODE"},
                              {"CHANNEL_BINDING"},
                              {"SSLNEGOTIATION"}};
constexpr Suffix store[] = {{"HOST"},
                            {"HOSTS", Kind::list},
                            {"PORT", Kind::integer},
                            {"PROTOCOL"},
                            {"SRV"},
                            {"SRV_SUFFIX"},
                            {"URL"},
                            {"PROXY"},
                            {"USE_PROXIES", Kind::boolean},
                            {"CACERT"},
                            {"CERT"},
                            {"KEY"},
                            {"KEY_PASSWORD"},
                            {"KEY_PASSWORD_FILE"},
                            {"VERIFY", Kind::boolean},
                            {"USERNAME"},
                            {"PASSWORD"},
                            {"PASSWORD_FILE"},
                            {"TOKEN"},
                            {"TOKEN_FILE"},
                            {"CHECKS", Kind::list},
                            {"DC"},
                            {"CONSISTENCY"},
                            {"REGISTER_SERVICE", Kind::boolean},
                            {"SERVICE_CHECK_INTERVAL"},
                            {"SERVICE_CHECK_TLS_SERVER_NAME"},
                            {"SERVICE_TAGS", Kind::list},
                            {"USE_SSL", Kind::boolean},
                            {"SET_ACLS", Kind::dictionary},
                            {"AUTH_DATA", Kind::dictionary}};
constexpr Suffix sqlite[] = {{"PATH"}};

constexpr Group groups[] = {
    {"", "", top},
    {"RESTAPI_", "restapi.", restapi},
    {"RESTAPI_", "restapi.authentication.", login},
    {"CTL_", "ctl.", ctl},
    {"CTL_", "ctl.authentication.", login},
    {"POSTGRESQL_", "postgresql.", postgresql},
    {"POSTGRESQL_BIN_", "postgresql.bin_name.", programs},
    {"LOG_", "log.", log},
    {"REPLICATION_", "postgresql.authentication.replication.", account},
    {"SUPERUSER_", "postgresql.authentication.superuser.", account},
    {"REWIND_", "postgresql.authentication.rewind.", account},
    {"ETCD_", "etcd.", store},
    {"ETCD3_", "etcd3.", store},
    {"CONSUL_", "consul.", store},
    {"ZOOKEEPER_", "zookeeper.", store},
    {"SQLITE_", "sqlite.", sqlite},
};
constexpr std::array<std::pair<std::string_view, std::string_view>, 3> old_names = {
    {{"LOGLEVEL", "log.level"}, {"LOGFORMAT", "log.format"}, {"LOG_DATEFMT", "log.dateformat"}}};
constexpr std::array<std::string_view, 5> not_ours = {
    "KUBERNETES_", "RAFT_", "CITUS_", "EXHIBITOR_", "VERSION"};

std::string lower(std::string_view text) {
  std::string out(text);
  std::ranges::transform(out, out.begin(), [](char letter) {
    return letter >= 'A' && letter <= 'Z' ? static_cast<char>(letter - 'A' + 'a') : letter;
  });
  return out;
}

// Lists may come without brackets, dictionaries without braces.
std::optional<json::Value> converted(Kind kind, const std::string& text) {
  if (kind == Kind::text) return json::Value(text);
  auto yaml = text;
  const auto first = text.find_first_not_of(" \n");
  const char begin = first == std::string::npos ? ' ' : text[first];
  if (kind == Kind::list && begin != '-' && text.find('[') == std::string::npos)
    yaml = "[" + text + "]";
  if (kind == Kind::dictionary && begin != '{') yaml = "{" + text + "}";
  auto value = parse_yaml_value(yaml);
  if (!value) return {};
  const bool fits =
      (kind == Kind::boolean && value->is_bool()) || (kind == Kind::integer && value->is_int()) ||
      (kind == Kind::list && value->is_array()) || (kind == Kind::dictionary && value->is_object());
  return fits ? std::optional(std::move(*value)) : std::nullopt;
}

std::string_view wanted(Kind kind) {
  switch (kind) {
    case Kind::text:
      return "text";
    case Kind::boolean:
      return "on or off";
    case Kind::integer:
      return "a whole number";
    case Kind::list:
      return "a list such as a,b";
    case Kind::dictionary:
      return "pairs such as a: 1, b: 2";
  }
  return "";
}

// The variable that counts, with its full name; none when neither is set.
std::optional<std::pair<std::string, std::string>> lookup(const Environment& environment,
                                                          const std::string& name) {
  for (const char* prefix : {"SPILO_", "PATRONI_"}) {
    const auto found = environment.find(prefix + name);
    if (found != environment.end() && !found->second.empty())
      return std::pair(found->first, found->second);
  }
  return {};
}

void apply_one(json::Value& document,
               const Environment& environment,
               const std::string& name,
               const std::string& path,
               Kind kind,
               Reporter& report) {
  const auto variable = lookup(environment, name);
  if (!variable) return;
  auto value = converted(kind, variable->second);
  if (!value)
    return report.error(
        variable->first,
        fmt::format("must be {}, but {}", wanted(kind), described(json::Value(variable->second))));
  // A secret given one way replaces the same secret given the other way in a file.
  constexpr std::string_view reference = "_file";
  const auto twin = path.ends_with(reference) ? path.substr(0, path.size() - reference.size())
                                              : path + std::string(reference);
  const auto dot = twin.rfind('.');
  if (dot != std::string::npos &&
      is_secret(path.ends_with(reference) ? twin.substr(dot + 1) : path.substr(dot + 1))) {
    auto* section = const_cast<json::Value*>(document.find_path(twin.substr(0, dot)));
    if (section != nullptr) section->erase(twin.substr(dot + 1));
  }
  report.place(path, Reporter::Place{variable->first, 0});
  set_path(document, path, std::move(*value));
}

// A variable that nobody reads is a misspelling more often than not.
void report_unknown(const Environment& environment,
                    const std::vector<std::string>& known,
                    Reporter& report) {
  const std::vector<std::string_view> names(known.begin(), known.end());
  for (const auto& [name, value] : environment) {
    const std::string_view prefix = name.starts_with("SPILO_")     ? "SPILO_"
                                    : name.starts_with("PATRONI_") ? "PATRONI_"
                                                                   : "";
    if (prefix.empty()) continue;
    const auto rest = std::string_view(name).substr(prefix.size());
    if (std::ranges::any_of(not_ours, [&](auto begin) { return rest.starts_with(begin); }))
      continue;
    if (const auto meant = closest_name(rest, names); !meant.empty())
      report.warning(name, fmt::format("unknown variable, did you mean {}{}?", prefix, meant));
  }
}

}  // namespace

void apply_environment(json::Value& document, const Environment& environment, Reporter& report) {
  std::vector<std::string> known = {"CONFIGURATION"};
  for (const auto& [name, path] : old_names) {
    apply_one(document, environment, std::string(name), std::string(path), Kind::text, report);
    known.emplace_back(name);
  }
  for (const auto& group : groups) {
    for (const auto& suffix : group.suffixes) {
      const auto name = fmt::format("{}{}", group.prefix, suffix.name);
      const auto path = fmt::format("{}{}", group.section, lower(suffix.name));
      apply_one(document, environment, name, path, suffix.kind, report);
      known.push_back(name);
    }
  }
  report_unknown(environment, known, report);
}

}  // namespace spilo::config
