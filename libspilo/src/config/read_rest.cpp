#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "address.hpp"
#include "readers.hpp"
#include "spilo/model/dynamic_config.hpp"
#include "spilo/model/spelling.hpp"

namespace spilo::config {
namespace {

std::vector<std::pair<std::string, std::string>> pairs(const Section& section,
                                                       std::string_view key) {
  std::vector<std::pair<std::string, std::string>> out;
  const auto object = section.object(key);
  if (const auto* members = object.as_object())
    for (const auto& [name, value] : *members)
      if (!value.is_null()) out.emplace_back(name, value.scalar_text());
  return out;
}

void read_credentials(const Section& section,
                      std::string& username,
                      std::string& password,
                      Reporter& report) {
  if (!section.present()) return;
  username = section.text("username");
  password = section.text("password");
  if (username.empty() != password.empty())
    report.error(section.path_of(username.empty() ? "username" : "password"),
                 fmt::format("is not set, but {} is; both are needed",
                             username.empty() ? "password" : "username"));
}

void read_tls(const Section& section, RestOptions& out, Reporter& report) {
  out.certfile = absolute_path(section.text("certfile"));
  out.keyfile = absolute_path(section.text("keyfile"));
  out.keyfile_password = section.text("keyfile_password");
  out.cafile = absolute_path(section.text("cafile"));
  out.ciphers = section.text("ciphers");
  const auto verify = section.text("verify_client", "none");
  if (verify == "required")
    out.verify_client = VerifyClient::required;
  else if (verify == "optional")
    out.verify_client = VerifyClient::optional;
  else if (verify != "none")
    report.error("restapi.verify_client",
                 fmt::format("must be none, optional or required, but is \"{}\"", verify));
  if (out.certfile.empty() && !out.keyfile.empty())
    report.error("restapi.certfile", "is not set, but keyfile is; TLS needs the certificate too");
  if (out.verify_client == VerifyClient::none) return;
  if (out.certfile.empty())
    report.error("restapi.certfile",
                 "is not set, but verify_client is: client certificates need TLS");
  if (out.cafile.empty())
    report.error("restapi.cafile",
                 "is not set; it says which authority signs the clients' certificates");
}

void read_limits(RestOptions& out, const json::Value& document, Reporter& report) {
  const Section limits(document, "restapi.limits");
  const auto bounded =
      [&](std::string_view key, std::int64_t otherwise, std::int64_t least, std::int64_t most) {
        const auto value = limits.integer(key, otherwise);
        if (value >= least && value <= most) return static_cast<std::size_t>(value);
        report.error(limits.path_of(key),
                     fmt::format("must be from {} to {}, but is {}", least, most, value));
        return static_cast<std::size_t>(otherwise);
      };
  out.body_bytes_max =
      bounded("body_bytes", static_cast<std::int64_t>(out.body_bytes_max), 1024, 64 << 20);
  out.connections_max =
      bounded("connections", static_cast<std::int64_t>(out.connections_max), 4, 65536);
  if (const auto* timeout = limits.find("timeout")) {
    const auto time = parse_duration(*timeout);
    if (time && *time >= std::chrono::milliseconds(100) && *time <= std::chrono::hours(1))
      out.request_timeout = *time;
    else
      report.error(
          "restapi.limits.timeout",
          fmt::format("must be a time from 100ms to 1h such as 10s, but {}", described(*timeout)));
  }
}

}  // namespace

RestOptions read_rest(const json::Value& document, Reporter& report) {
  RestOptions out;
  const Section section(document, "restapi");
  if (const auto listen = read_address(section, "listen", 0, report))
    out.listen = *listen;
  else if (section.find("listen") == nullptr)
    report.error("restapi.listen",
                 "is not set; the other nodes ask there, for example 0.0.0.0:8008");
  out.connect_address = out.listen;
  if (const auto address = read_address(section, "connect_address", out.listen.port, report))
    out.connect_address = *address;
  if (is_wildcard(out.connect_address.host) && out.connect_address.port != 0)
    report.error("restapi.connect_address",
                 "must be the address under which the other nodes reach this one, for example "
                 "10.0.0.1:8008; a wildcard is none");
  read_credentials(Section(document, "restapi.authentication"), out.username, out.password, report);
  read_tls(section, out, report);
  out.allowlist = section.texts("allowlist");
  out.allowlist_include_members = section.flag("allowlist_include_members", false);
  out.http_extra_headers = pairs(section, "http_extra_headers");
  out.https_extra_headers = pairs(section, "https_extra_headers");
  out.server_tokens = section.text("server_tokens", "original");
  read_limits(out, document, report);
  const bool remote = !is_loopback(out.listen.host) && out.listen.port != 0;
  if (remote && !out.protected_by_something())
    report.warning("restapi",
                   "requests that change something will be refused from other machines; set "
                   "authentication, verify_client or allowlist to allow them");
  return out;
}

WatchdogOptions read_watchdog(const json::Value& document, Reporter& report) {
  WatchdogOptions out;
  const Section section(document, "watchdog");
  if (const auto* mode = section.find("mode")) {
    // An unquoted off is false.
    const auto text = mode->as_bool() == false ? "off" : mode->scalar_text();
    if (text == "off")
      out.mode = WatchdogOptions::Mode::off;
    else if (text == "required")
      out.mode = WatchdogOptions::Mode::required;
    else if (text != "automatic")
      report.error("watchdog.mode",
                   fmt::format("must be off, automatic or required, but {}", described(*mode)));
  }
  out.device = section.text("device", out.device);
  const auto margin = section.integer("safety_margin", out.safety_margin_s);
  if (margin < -1 || margin > 3600)
    report.error(
        "watchdog.safety_margin",
        fmt::format("must be -1 (half of the ttl) or seconds up to 3600, but is {}", margin));
  else
    out.safety_margin_s = static_cast<int>(margin);
  return out;
}

LogOptions read_log(const json::Value& document, Reporter& report) {
  LogOptions out;
  const Section section(document, "log");
  const auto type = section.text("type", "plain");
  if (type != "plain" && type != "json")
    report.error("log.type", fmt::format("must be plain or json, but is \"{}\"", type));
  out.json = type == "json";
  struct Level {
    std::string_view name;
    LogLevel level;
  };
  constexpr std::array<Level, 8> levels = {{{"DEBUG", LogLevel::debug},
                                            {"INFO", LogLevel::info},
                                            {"WARNING", LogLevel::warning},
                                            {"WARN", LogLevel::warning},
                                            {"ERROR", LogLevel::error},
                                            {"CRITICAL", LogLevel::critical},
                                            {"FATAL", LogLevel::critical},
                                            {"NOTSET", LogLevel::debug}}};
  auto level = section.text("level", "INFO");
  std::ranges::transform(level, level.begin(), [](char letter) {
    return letter >= 'a' && letter <= 'z' ? static_cast<char>(letter - 'a' + 'A') : letter;
  });
  if (const auto found = std::ranges::find(levels, level, &Level::name); found != levels.end())
    out.level = found->level;
  else
    report.error(
        "log.level",
        fmt::format("must be DEBUG, INFO, WARNING, ERROR or CRITICAL, but is \"{}\"", level));
  out.dir = absolute_path(section.text("dir"));
  const auto bounded =
      [&](std::string_view key, std::int64_t otherwise, std::int64_t least, std::int64_t most) {
        const auto value = section.integer(key, otherwise);
        if (value >= least && value <= most) return value;
        report.error(section.path_of(key),
                     fmt::format("must be from {} to {}, but is {}", least, most, value));
        return otherwise;
      };
  out.file_bytes = bounded("file_size", out.file_bytes, 1024, std::int64_t{1} << 40);
  out.files = static_cast<int>(bounded("file_num", out.files, 0, 10'000));
  out.mode = static_cast<int>(bounded("mode", out.mode, 0, 0777));
  out.static_fields = pairs(section, "static_fields");
  out.deduplicate_heartbeat_logs = section.flag("deduplicate_heartbeat_logs", false);
  return out;
}

CtlOptions read_ctl(const json::Value& document) {
  CtlOptions out;
  const Section section(document, "ctl");
  const Section rest(document, "restapi");
  out.tls.ca_file = absolute_path(section.text("cacert", rest.text("cafile")));
  out.tls.cert_file = absolute_path(section.text("certfile"));
  out.tls.key_file = absolute_path(section.text("keyfile"));
  out.tls.key_password = section.text("keyfile_password");
  out.tls.verify = !section.flag("insecure", false);
  const Section login(document, "ctl.authentication");
  const Section fallback(document, "restapi.authentication");
  const auto& source = login.present() ? login : fallback;
  out.username = source.text("username");
  out.password = source.text("password");
  return out;
}

}  // namespace spilo::config
