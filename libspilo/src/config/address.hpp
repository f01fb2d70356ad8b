// "host:port" in all the ways people write it.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "spilo/config/config.hpp"

namespace spilo::config {

// "host:port", "host", ":port", "[::1]:port", "::1"; port `otherwise` when absent. Nothing when the
// port is no number from 1 to 65535.
std::optional<Address> parse_address(std::string_view text, int otherwise);
bool is_wildcard(std::string_view host) noexcept;  // "", "*", "0.0.0.0", "::"
bool is_loopback(std::string_view host) noexcept;
// "a, b,c" -> a b c
std::vector<std::string> split_list(std::string_view text);

}  // namespace spilo::config
