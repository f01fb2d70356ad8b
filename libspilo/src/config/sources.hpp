// Files, directories and variables -> one document.
#pragma once

#include <string>
#include <vector>

#include "reporter.hpp"

namespace spilo::config {

enum class Purpose { node, ctl };  // ctl: the secrets of PostgreSQL's accounts are left alone

// Everything merged, secret files read in. Problems go to the reporter; the document is as complete
// as it can be, so that the rest can be checked too.
json::Value gather(const std::vector<std::string>& paths,
                   const Environment& environment,
                   Purpose purpose,
                   Reporter& report);

// Sets "a.b.c", making objects on the way.
void set_path(json::Value& document, std::string_view dotted, json::Value value);

// The variables of contract 7.3 over the document.
void apply_environment(json::Value& document, const Environment& environment, Reporter& report);

// SPILO_<name>, else PATRONI_<name>; empty values count as not set.
const std::string* find_variable(const Environment& environment, std::string_view name);

// A secret, by the name of its key; its value is never shown.
bool is_secret(std::string_view key) noexcept;

}  // namespace spilo::config
