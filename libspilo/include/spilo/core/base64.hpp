// Base64 with padding (RFC 4648), as the JSON interfaces of etcd and Consul carry keys and values.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace spilo {

std::string base64(std::string_view bytes);
std::optional<std::string> from_base64(std::string_view text);

}  // namespace spilo
