// Changes of a configuration document: single keys as `edit-config -s` takes them, and the
// difference of two texts. Pure.
#pragma once

#include <string>
#include <string_view>

#include "spilo/core/json.hpp"

namespace spilo::cli {

// "a.b.c=VALUE": the value is YAML. null removes the key, and parents that are empty then. What
// follows postgresql.parameters. is one key, dots and all. With `parameter` the path is below
// postgresql.parameters. invalid_argument with the reason; the document is then unchanged.
Result<void> apply_assignment(json::Value& document, std::string_view assignment, bool parameter);

// Unified, with three lines of context. Empty when there is no difference.
std::string unified_diff(std::string_view before, std::string_view after);

}  // namespace spilo::cli
