#include "service_wire.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "consul_wire.hpp"
#include "spilo/core/json.hpp"

namespace spilo::consul::wire {
namespace {

constexpr std::size_t name_length_max = 230;

// The code point that begins here, and how many bytes it has; a broken one counts as one byte.
std::pair<char32_t, std::size_t> code_point(std::string_view text) {
  const auto byte = [&](std::size_t at) { return static_cast<unsigned char>(text[at]); };
  const std::size_t length = byte(0) < 0xc0 ? 1 : byte(0) < 0xe0 ? 2 : byte(0) < 0xf0 ? 3 : 4;
  if (length == 1 || length > text.size()) return {byte(0), 1};
  char32_t out = byte(0) & (0x7fu >> length);
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return {byte(0), 1};
    out = out << 6 | (byte(i) & 0x3f);
  }
  return {out, length};
}

}  // namespace

std::string service_name(std::string_view scope) {
  std::string out;
  while (!scope.empty() && out.size() < name_length_max) {
    const auto [point, length] = code_point(scope);
    scope.remove_prefix(length);
    if (point >= 'A' && point <= 'Z') {
      out += static_cast<char>(point - 'A' + 'a');
    } else if ((point >= 'a' && point <= 'z') || (point >= '0' && point <= '9') || point == '-') {
      out += static_cast<char>(point);
    } else if (point == '.' || point == '_' || point == ' ') {
      out += '-';
    } else {
      out += fmt::format("u{:04}", static_cast<std::uint32_t>(point));
    }
  }
  return out.substr(0, name_length_max);
}

std::string service_id(const RegistrationOptions& options) {
  return options.scope.str() + "/" + options.node.str();
}

Result<std::string> service_request(const RegistrationOptions& options, const ServedNode& node) {
  const auto scheme = node.conn_url.find("://");
  const auto server =
      net::Url::parse(scheme == std::string::npos ? "" : "http" + node.conn_url.substr(scheme));
  if (server.has_error())
    return Error(errc::invalid_argument,
                 fmt::format("the connection address \"{}\" has no host", node.conn_url));
  const auto api = net::Url::parse(node.api_url);
  if (api.has_error()) return api.error().in("the address of the REST interface");
  std::string role = node.role;
  std::ranges::replace(role, '_', '-');
  auto tags = json::Value::array();
  for (const auto& tag : options.tags) tags.push(tag);
  tags.push(role);
  if (role == "primary") tags.push("master");
  auto check = json::Value::object();
  check.set("HTTP", api->origin() + "/" + role)
      .set("Interval", options.check_interval)
      .set("DeregisterCriticalServiceAfter", duration_text(5 * node.ttl));
  if (!options.check_tls_server_name.empty())
    check.set("TLSServerName", options.check_tls_server_name);
  auto request = json::Value::object();
  request.set("ID", service_id(options))
      .set("Name", service_name(options.scope.str()))
      .set("Address", server->host())
      .set("Port", static_cast<int>(server->port()))
      .set("Tags", std::move(tags))
      .set("Check", std::move(check))
      .set("EnableTagOverride", true);
  return json::dump(request);
}

}  // namespace spilo::consul::wire
