// YAML text <-> json::Value, by the rules of YAML 1.1 that Patroni's files are written for: on,
// off, yes and no are booleans, 010 is 8, 0x1F is 31, 1:30 is 90, 1_000 is 1000, 1e3 is text, dates
// are text. Quoted scalars stay text. Free functions without state.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "spilo/core/error.hpp"
#include "spilo/core/json.hpp"

namespace spilo::config {

struct YamlDocument {
  struct Duplicate {
    std::string path;  // "postgresql.parameters.work_mem"
    int line = 0;
    int first_line = 0;
  };
  json::Value value;                  // null for an empty document; keys in the file's order
  std::map<std::string, int> lines;   // dotted path of each key -> its line, from 1
  std::vector<Duplicate> duplicates;  // keys given twice in one mapping; the last one is in `value`
};

// One document with anchors, aliases and merge keys (<<) resolved. errc::invalid_argument with line
// and column for what is no YAML, holds several documents, nests deeper than 64, grows beyond
// 100,000 values by its aliases, or uses tags of a program.
Result<YamlDocument> parse_yaml(std::string_view text);

// One value as it could stand after "key: ": what `edit-config -s key=value` takes. Empty text is
// null.
Result<json::Value> parse_yaml_value(std::string_view text);

enum class KeyOrder { as_is, sorted };
// Block style, lists not indented, text quoted exactly where YAML 1.1 would read something else:
// what `show-config` prints. Reads back as the same value.
std::string dump_yaml(const json::Value& value, KeyOrder order = KeyOrder::sorted);

}  // namespace spilo::config
