#include "settings.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <map>

namespace spilo::pg {
namespace {

enum class Check { any_bool, only_true, at_least, wal_level, bytes_at_least };

struct Protected {
  std::string_view name;
  std::string_view fallback;
  Check check;
  std::int64_t minimum = 0;
};

// Contract 7.6. All nodes of a cluster must agree on them, so they come from the store alone.
constexpr std::array<Protected, 9> protected_parameters = {
    Protected{"wal_level", "replica", Check::wal_level},
    Protected{"hot_standby", "on", Check::only_true},
    Protected{"max_connections", "100", Check::at_least, 25},
    Protected{"max_wal_senders", "10", Check::at_least, 3},
    Protected{"max_prepared_transactions", "0", Check::at_least, 0},
    Protected{"max_locks_per_transaction", "64", Check::at_least, 32},
    Protected{"track_commit_timestamp", "off", Check::any_bool},
    Protected{"max_replication_slots", "10", Check::at_least, 4},
    Protected{"max_worker_processes", "8", Check::at_least, 2}};
constexpr Protected wal_log_hints{"wal_log_hints", "on", Check::any_bool};
constexpr Protected wal_keep_size{"wal_keep_size", "128MB", Check::bytes_at_least, 16 << 20};

constexpr std::array<std::string_view, 3> never_settable = {
    "listen_addresses", "port", "cluster_name"};

constexpr std::array<std::string_view, 14> recovery_parameters = {"archive_cleanup_command",
                                                                  "recovery_end_command",
                                                                  "restore_command",
                                                                  "recovery_min_apply_delay",
                                                                  "recovery_target",
                                                                  "recovery_target_action",
                                                                  "recovery_target_inclusive",
                                                                  "recovery_target_lsn",
                                                                  "recovery_target_name",
                                                                  "recovery_target_time",
                                                                  "recovery_target_timeline",
                                                                  "recovery_target_xid",
                                                                  "primary_conninfo",
                                                                  "primary_slot_name"};
// Names of recovery.conf that PostgreSQL 12 and later do not know any more.
constexpr std::array<std::string_view, 3> gone_recovery_parameters = {
    "standby_mode", "trigger_file", "promote_trigger_file"};

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

std::optional<bool> as_pg_bool(std::string_view text) {
  const auto word = lower(text);
  if (word == "on" || word == "true" || word == "yes" || word == "1") return true;
  if (word == "off" || word == "false" || word == "no" || word == "0") return false;
  return std::nullopt;
}

// The value to use, or nothing when it does not satisfy the rule.
std::optional<std::string> checked(const Protected& rule, const json::Value& value) {
  const auto text = parameter_text(value);
  if (!text) return std::nullopt;
  switch (rule.check) {
    case Check::any_bool:
    case Check::only_true: {
      const auto boolean = as_pg_bool(*text);
      if (!boolean || (rule.check == Check::only_true && !*boolean)) return std::nullopt;
      return *boolean ? "on" : "off";
    }
    case Check::wal_level: {
      const auto word = lower(*text);
      if (word == "hot_standby" || word == "replica") return "replica";
      if (word == "logical") return "logical";
      return std::nullopt;
    }
    case Check::at_least: {
      std::int64_t number = 0;
      const auto end = std::from_chars(text->data(), text->data() + text->size(), number);
      if (end.ec != std::errc{} || end.ptr != text->data() + text->size()) return std::nullopt;
      if (number < rule.minimum || number > 262143) return std::nullopt;
      return std::to_string(number);
    }
    case Check::bytes_at_least: {
      // A bare number counts in megabytes, as the server reads it.
      auto bytes = parse_bytes(value);
      if (bytes && text->find_first_not_of("0123456789") == std::string::npos) *bytes <<= 20;
      if (!bytes || *bytes < rule.minimum) return std::nullopt;
      return text;
    }
  }
  return std::nullopt;
}

bool is_parameter_name(std::string_view name) noexcept {
  return !name.empty() && std::all_of(name.begin(), name.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '_' || c == '.' || c == '$';
  });
}

template <class Range>
bool contains(const Range& range, std::string_view name) noexcept {
  return std::find(range.begin(), range.end(), name) != range.end();
}

bool is_protected(std::string_view name) noexcept {
  if (name == wal_log_hints.name || name == wal_keep_size.name || name == "wal_keep_segments")
    return true;
  return std::any_of(protected_parameters.begin(),
                     protected_parameters.end(),
                     [&](const Protected& rule) { return rule.name == name; });
}

// One layer of `parameters`, split by what the names mean.
struct Layers {
  std::map<std::string, std::string> plain;
  std::map<std::string, std::string> recovery;  // given among the parameters
  std::map<std::string, json::Value> guarded;   // dynamic values of protected ones
};

void add_layer(Layers& into,
               const json::Value* parameters,
               bool local,
               bool synchronous,
               std::vector<std::string>& warnings) {
  const auto* object = parameters != nullptr ? parameters->as_object() : nullptr;
  if (object == nullptr) return;
  const auto* origin = local ? "the local file" : "the dynamic configuration";
  for (const auto& entry : *object) {  // clang 14 can't capture a structured binding
    const auto& given = entry.first;
    const auto& value = entry.second;
    const auto name = lower(given);
    const auto drop = [&](std::string_view why) {
      warnings.push_back(
          fmt::format("postgresql.parameters.{} of {} is not used: {}", given, origin, why));
    };
    if (!is_parameter_name(name)) {
      drop("that is no parameter name");
    } else if (contains(never_settable, name)) {
      drop("listen, port and scope decide it");
    } else if (contains(gone_recovery_parameters, name)) {
      drop("PostgreSQL 12 and later do not know it");
    } else if (is_protected(name)) {
      if (local) {
        drop("all nodes must agree on it, so set it in the dynamic configuration");
      } else {
        into.guarded[name] = value;
      }
    } else if (name == "synchronous_standby_names" && synchronous) {
      drop("synchronous_mode decides it");
    } else if (const auto text = parameter_text(value)) {
      (is_recovery_parameter(name) ? into.recovery : into.plain)[name] = *text;
    } else if (!value.is_null()) {
      drop(fmt::format("a {} is no value of a parameter", value.type_name()));
    }
  }
}

void fix(Settings& settings, const Protected& rule, const Layers& layers, bool on_command_line) {
  std::string value(rule.fallback);
  const auto given = layers.guarded.find(std::string(rule.name));
  if (given != layers.guarded.end()) {
    if (auto good = checked(rule, given->second)) {
      value = std::move(*good);
    } else {
      settings.warnings.push_back(fmt::format("postgresql.parameters.{}: {} can't be used, {} is",
                                              rule.name,
                                              json::dump(given->second),
                                              value));
    }
  }
  auto& target = on_command_line ? settings.fixed : settings.parameters;
  target.emplace_back(std::string(rule.name), std::move(value));
}

void fix_wal_keep(Settings& settings, Layers& layers) {
  const auto segments = layers.guarded.find("wal_keep_segments");
  if (segments != layers.guarded.end() && !layers.guarded.contains("wal_keep_size")) {
    const auto count = segments->second.as_int();
    if (count && *count > 0 && *count < (1 << 24))
      layers.guarded["wal_keep_size"] = json::Value(fmt::format("{}MB", *count * 16));
  }
  fix(settings, wal_keep_size, layers, false);
}

std::vector<std::string> lines_of(const json::Value* value) {
  std::vector<std::string> out;
  const auto* array = value != nullptr ? value->as_array() : nullptr;
  if (array == nullptr) return out;
  for (const auto& item : *array)
    if (const auto* text = item.as_string()) out.push_back(*text);
  return out;
}

// A flag of the `postgresql` section: the local file wins when it has the key at all.
bool flag(const PgOptions& options, const json::Value* dynamic, std::string_view key, bool local) {
  if (options.local_document.find(key) != nullptr || dynamic == nullptr) return local;
  const auto* value = dynamic->find(key);
  return value != nullptr ? value->as_bool().value_or(local) : local;
}

void set_recovery(Settings& settings,
                  const PgOptions& options,
                  const json::Value* dynamic,
                  const Layers& layers) {
  std::map<std::string, std::string> chosen;
  const auto take = [&](const json::Value* section) {
    const auto* object = section != nullptr ? section->as_object() : nullptr;
    if (object == nullptr) return false;
    for (const auto& [name, value] : *object)
      if (const auto text = parameter_text(value)) chosen[lower(name)] = *text;
    return true;
  };
  if (!layers.recovery.empty()) {
    chosen = layers.recovery;  // contract 11.4, 37: they replace the whole section
  } else if (!take(&options.recovery_conf) && dynamic != nullptr) {
    take(dynamic->find("recovery_conf"));
  }
  for (const auto& [name, value] : chosen) {
    if (!is_recovery_parameter(name) || name.starts_with("recovery_target") ||
        name.starts_with("primary_"))
      continue;
    settings.recovery.emplace_back(name, value);
  }
}

std::string quoted(std::string_view text) {
  std::string out = "'";
  for (const char c : text) {
    if (c == '\'' || c == '\\') out += c;
    // A line break would end the value and begin another setting.
    if (c == '\n' || c == '\r') {
      out += ' ';
    } else {
      out += c;
    }
  }
  return out + "'";
}

}  // namespace

const std::string* Settings::fixed_value(std::string_view name) const noexcept {
  for (const auto& [key, value] : fixed)
    if (key == name) return &value;
  return nullptr;
}
const std::string* Settings::parameter(std::string_view name) const noexcept {
  for (const auto& [key, value] : parameters)
    if (key == name) return &value;
  return nullptr;
}

bool is_recovery_parameter(std::string_view name) noexcept {
  return contains(recovery_parameters, name);
}

std::optional<std::string> parameter_text(const json::Value& value) {
  if (const auto boolean = value.as_bool()) return *boolean ? "on" : "off";
  if (const auto* text = value.as_string()) return *text;
  if (value.is_int() || value.is_double()) return json::dump(value);
  return std::nullopt;
}

Settings effective_settings(const PgOptions& options, const DynamicConfig& dynamic, int major) {
  Settings out;
  const auto* section = dynamic.document.find("postgresql");
  Layers layers;
  // A replica that lost its upstream would otherwise wait five seconds before it looks again.
  layers.plain["wal_retrieve_retry_interval"] = "500ms";
  add_layer(layers,
            section != nullptr ? section->find("parameters") : nullptr,
            false,
            dynamic.synchronous_mode,
            out.warnings);
  add_layer(layers, &options.parameters, true, dynamic.synchronous_mode, out.warnings);
  out.fixed.emplace_back("listen_addresses", options.listen);
  out.fixed.emplace_back("port", std::to_string(options.port));
  out.fixed.emplace_back("cluster_name", options.scope.str());
  for (const auto& rule : protected_parameters) fix(out, rule, layers, true);
  fix(out, wal_log_hints, layers, true);
  for (const auto& [name, value] : layers.plain) out.parameters.emplace_back(name, value);
  if (major >= 13) fix_wal_keep(out, layers);
  std::sort(out.parameters.begin(), out.parameters.end());
  out.own_hba_file = layers.plain.contains("hba_file");
  out.own_ident_file = layers.plain.contains("ident_file");
  out.pg_hba = options.pg_hba;
  out.pg_ident = options.pg_ident;
  if (section != nullptr) {
    if (out.pg_hba.empty()) out.pg_hba = lines_of(section->find("pg_hba"));
    if (out.pg_ident.empty()) out.pg_ident = lines_of(section->find("pg_ident"));
  }
  set_recovery(out, options, section, layers);
  out.use_slots = dynamic.use_slots;
  out.use_pg_rewind = flag(options, section, "use_pg_rewind", options.use_pg_rewind);
  out.copy_on_rewind_failure = flag(options,
                                    section,
                                    "remove_data_directory_on_rewind_failure",
                                    options.remove_data_directory_on_rewind_failure);
  out.copy_on_diverged_timelines = flag(options,
                                        section,
                                        "remove_data_directory_on_diverged_timelines",
                                        options.remove_data_directory_on_diverged_timelines);
  return out;
}

std::string render_postgresql_conf(const Settings& settings,
                                   std::string_view included_file,
                                   const std::optional<Following>& following,
                                   std::string_view hba_file,
                                   std::string_view ident_file) {
  std::string out = "# Do not edit this file manually!\n# It will be overwritten by libspilo!\n";
  out += fmt::format("include {}\n\n", quoted(included_file));
  const auto line = [&](std::string_view name, std::string_view value) {
    out += fmt::format("{} = {}\n", name, quoted(value));
  };
  for (const auto& [name, value] : settings.parameters) line(name, value);
  if (!settings.own_hba_file) line("hba_file", hba_file);
  if (!settings.own_ident_file) line("ident_file", ident_file);
  if (!following) return out;
  out += "\n# recovery.conf\n";
  std::map<std::string, std::string> recovery(settings.recovery.begin(), settings.recovery.end());
  recovery["recovery_target_timeline"] = "latest";
  for (const char* name : {"recovery_target",
                           "recovery_target_name",
                           "recovery_target_time",
                           "recovery_target_xid",
                           "recovery_target_lsn"})
    recovery[name] = "";
  recovery["primary_conninfo"] = following->conninfo;
  recovery["primary_slot_name"] = following->slot;
  for (const auto& [name, value] : recovery) line(name, value);
  return out;
}

std::string render_lines(const std::vector<std::string>& lines) {
  std::string out = "# Do not edit this file manually!\n# It will be overwritten by libspilo!\n";
  for (const auto& line : lines) out += line + "\n";
  return out;
}

std::string without_recovery_parameters(std::string_view auto_conf) {
  std::string out;
  while (!auto_conf.empty()) {
    const auto end = auto_conf.find('\n');
    const auto line = auto_conf.substr(0, end);
    auto_conf.remove_prefix(end == std::string_view::npos ? auto_conf.size() : end + 1);
    const auto begin = line.find_first_not_of(" \t");
    const auto name = begin == std::string_view::npos
                          ? std::string()
                          : lower(line.substr(begin, line.find_first_of(" \t=", begin) - begin));
    if (is_recovery_parameter(name)) continue;
    out += line;
    out += '\n';
  }
  return out;
}

void drop_parameter(Settings& settings, std::string_view name) {
  const auto same = [&](const Assignment& entry) { return entry.first == name; };
  std::erase_if(settings.parameters, same);
  std::erase_if(settings.recovery, same);
}

std::vector<std::string> postmaster_arguments(const Settings& settings,
                                              const std::string& data_dir,
                                              const std::string& config_file,
                                              const std::vector<Assignment>& raised) {
  std::vector<std::string> out = {"-D", data_dir, "--config-file=" + config_file};
  for (const auto& [name, value] : settings.fixed) {
    std::string used = value;
    for (const auto& [other, higher] : raised)
      if (other == name) used = higher;
    out.push_back(fmt::format("--{}={}", name, used));
  }
  return out;
}

std::string conninfo_text(const std::vector<Assignment>& pairs) {
  std::string out;
  for (const auto& [key, value] : pairs) {
    if (!out.empty()) out += ' ';
    out += key + '=';
    const bool plain = !value.empty() && value.find_first_of(" '\\\t\n") == std::string::npos;
    if (plain) {
      out += value;
      continue;
    }
    out += '\'';
    for (const char c : value) {
      if (c == '\'' || c == '\\') out += '\\';
      out += c;
    }
    out += '\'';
  }
  return out;
}

std::string primary_conninfo(const PgOptions& options,
                             const ConnectParams& upstream,
                             const std::string& passfile,
                             int major) {
  const auto& account = options.replication;
  const auto given = [&](std::string_view key, const std::string& fallback) {
    const auto* found = upstream.find(key);
    return found != nullptr && !found->empty() ? *found : fallback;
  };
  std::vector<Assignment> pairs;
  const auto add = [&](std::string key, const std::string& value) {
    if (!value.empty()) pairs.emplace_back(std::move(key), value);
  };
  add("dbname", given("dbname", options.database));
  add("user", account.username);
  add("passfile", passfile);
  add("host", given("host", ""));
  add("port", given("port", "5432"));
  add("sslmode", account.sslmode.empty() ? "prefer" : account.sslmode);
  add("sslcert", account.sslcert);
  add("sslkey", account.sslkey);
  add("sslrootcert", account.sslrootcert);
  add("sslcrl", account.sslcrl);
  if (major >= 14) add("sslcrldir", account.sslcrldir);
  add("application_name", options.name.str());
  add("krbsrvname", options.krbsrvname);
  add("gssencmode", account.gssencmode.empty() ? "prefer" : account.gssencmode);
  add("channel_binding", account.channel_binding.empty() ? "prefer" : account.channel_binding);
  if (given("host", "").find(',') != std::string::npos) add("target_session_attrs", "read-write");
  if (major >= 17)
    add("sslnegotiation", account.sslnegotiation.empty() ? "postgres" : account.sslnegotiation);
  return conninfo_text(pairs);
}

std::string passfile_text(const PgOptions& options) {
  std::string out;
  const auto escaped = [](std::string_view text) {
    std::string escaped_text;
    for (const char c : text) {
      if (c == ':' || c == '\\') escaped_text += '\\';
      escaped_text += c;
    }
    return escaped_text;
  };
  for (const auto* account : {&options.replication, &options.rewind, &options.superuser}) {
    if (account->username.empty() || account->password.empty()) continue;
    out += fmt::format("*:*:*:{}:{}\n", escaped(account->username), escaped(account->password));
  }
  return out;
}

std::string slot_name_of(std::string_view member) {
  std::string out;
  for (std::size_t i = 0; i < member.size();) {
    const auto byte = static_cast<unsigned char>(member[i]);
    const char c = static_cast<char>(std::tolower(byte));
    if (byte < 0x80) {
      ++i;
      if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_') {
        out += c;
      } else if (c == '-' || c == '.') {
        out += '_';
      } else {
        out += fmt::format("u{:04}", static_cast<int>(byte));
      }
      continue;
    }
    // One UTF-8 sequence; a broken one counts byte by byte.
    const std::size_t length = byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : byte >= 0xC0 ? 2 : 1;
    unsigned code = length == 1 ? byte : byte & (0xFFU >> (length + 1));
    const std::size_t end = std::min(member.size(), i + length);
    for (std::size_t j = i + 1; j < end; ++j)
      code = (code << 6) | (static_cast<unsigned char>(member[j]) & 0x3FU);
    i = end;
    out += fmt::format("u{:04}", code);
  }
  return out.substr(0, 63);
}

std::string local_address(std::string_view listen_addresses) {
  std::string first;
  while (!listen_addresses.empty()) {
    const auto comma = listen_addresses.find(',');
    std::string address(listen_addresses.substr(0, comma));
    listen_addresses.remove_prefix(comma == std::string_view::npos ? listen_addresses.size()
                                                                   : comma + 1);
    address.erase(0, address.find_first_not_of(' '));
    address.erase(address.find_last_not_of(' ') + 1);
    if (address == "*" || address == "localhost" || address == "0.0.0.0" || address == "127.0.0.1")
      return "localhost";
    if (first.empty()) first = address;
  }
  if (first == "::") return "::1";
  return first.empty() ? "localhost" : first;
}

std::vector<std::string> blamed_parameters(std::string_view messages,
                                           const std::vector<Assignment>& known) {
  std::vector<std::string> out;
  for (const auto& [name, value] : known) {
    const auto quoted_name = fmt::format("parameter \"{}\"", name);
    if (messages.find(quoted_name) != std::string_view::npos) out.push_back(name);
  }
  return out;
}

}  // namespace spilo::pg
