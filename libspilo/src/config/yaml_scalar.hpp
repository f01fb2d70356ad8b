// What a plain scalar means in YAML 1.1, shared by reading and writing.
#pragma once

#include <string_view>

#include "spilo/core/json.hpp"

namespace spilo::config {

// The value of an unquoted scalar; text when it is nothing else.
json::Value resolve_plain(std::string_view text);

// Whether the unquoted scalar would be read as something other than this text: also dates, the
// merge key and "=", which json::Value has no type for.
bool is_ambiguous_plain(std::string_view text);

}  // namespace spilo::config
