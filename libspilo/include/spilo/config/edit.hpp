// What `spiloctl edit-config` does to a document (patroni-contract 6.2). Pure.
#pragma once

#include <string>
#include <string_view>

#include "spilo/core/error.hpp"
#include "spilo/core/json.hpp"

namespace spilo::config {

// "a.b.c=value", as behind -s: the value is YAML, null or nothing removes the key and every object
// that is empty then, objects are made on the way, and below postgresql.parameters the rest of the
// path is one key (a parameter's name may have dots). errc::invalid_argument when there is no "=",
// an empty key or no YAML; `config` is unchanged then.
Result<void> apply_setting(json::Value& config, std::string_view assignment);

// "name=value", as behind -p: the same below postgresql.parameters.
Result<void> apply_parameter(json::Value& config, std::string_view assignment);

// The lines that differ with three lines around them, as `diff -u` shows them, without a final
// newline missing note; empty when the texts are equal. The labels follow "--- " and "+++ ".
std::string unified_diff(std::string_view before,
                         std::string_view after,
                         std::string_view before_label = {},
                         std::string_view after_label = {});

}  // namespace spilo::config
