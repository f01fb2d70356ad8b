#include "address.hpp"

#include <fmt/format.h>

#include <charconv>

namespace spilo::config {
namespace {

std::optional<int> port_number(std::string_view text) {
  int port = 0;
  const auto* end = text.data() + text.size();
  const auto [stop, failure] = std::from_chars(text.data(), end, port);
  if (failure != std::errc{} || stop != end || port < 1 || port > 65535) return {};
  return port;
}

}  // namespace

std::string to_text(const Address& address) {
  if (address.host.find(':') != std::string::npos)
    return fmt::format("[{}]:{}", address.host, address.port);
  return fmt::format("{}:{}", address.host, address.port);
}

std::optional<Address> parse_address(std::string_view text, int otherwise) {
  Address out;
  out.port = otherwise;
  std::string_view port;
  if (text.starts_with('[')) {
    const auto close = text.find(']');
    if (close == std::string_view::npos) return {};
    out.host = std::string(text.substr(1, close - 1));
    port = text.substr(close + 1);
    if (!port.empty() && port.front() != ':') return {};
    if (out.host.empty()) return {};
  } else if (const auto colon = text.rfind(':');
             colon != std::string_view::npos && text.find(':') == colon) {
    out.host = std::string(text.substr(0, colon));
    port = text.substr(colon);
  } else {
    out.host = std::string(text);  // no port, or an IPv6 address without brackets
  }
  if (out.host.find_first_of(" /@") != std::string::npos) return {};
  if (port.empty()) return out.port > 0 ? std::optional(out) : std::nullopt;
  const auto number = port_number(port.substr(1));
  if (!number) return {};
  out.port = *number;
  return out;
}

bool is_wildcard(std::string_view host) noexcept {
  return host.empty() || host == "*" || host == "0.0.0.0" || host == "::";
}

bool is_loopback(std::string_view host) noexcept {
  return host == "localhost" || host == "::1" || host.starts_with("127.");
}

std::vector<std::string> split_list(std::string_view text) {
  std::vector<std::string> out;
  while (!text.empty()) {
    const auto comma = text.find(',');
    auto item = text.substr(0, comma);
    text.remove_prefix(comma == std::string_view::npos ? text.size() : comma + 1);
    while (!item.empty() && item.front() == ' ') item.remove_prefix(1);
    while (!item.empty() && item.back() == ' ') item.remove_suffix(1);
    if (!item.empty()) out.emplace_back(item);
  }
  return out;
}

}  // namespace spilo::config
