// Which keys exist, which type each has, and what we do with it.
#pragma once

#include "reporter.hpp"

namespace spilo::config {

// Unknown and misspelt keys, wrong types, keys without effect: everything that can be told without
// knowing what the values mean together.
void check_schema(const json::Value& document, Reporter& report);

}  // namespace spilo::config
