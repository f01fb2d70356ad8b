// YAML as Patroni's tools write it: keys sorted, block style, lines up to 200 columns, text quoted
// when YAML 1.1 would read it as something else.
#pragma once

#include <string>

#include "spilo/core/json.hpp"

namespace spilo::cli {

std::string yaml_text(const json::Value& value);  // block style, ends with a line feed
std::string yaml_flow(const json::Value& value);  // {a: b}

}  // namespace spilo::cli
