// Tables as values and the four ways to print them (patroni-contract 6.4). Pure: no terminal, no
// files, no clock.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "spilo/core/json.hpp"

namespace spilo::cli {

enum class Format { pretty, topology, tsv, json, yaml };

// "pretty" (also "table"), "topology", "tsv", "json", "yaml" or "yml".
std::optional<Format> parse_format(std::string_view name) noexcept;

struct Column {
  std::string name;     // in tsv, json and yaml
  std::string heading;  // in a table for people; empty: as the name
  bool right = false;   // numbers and positions are aligned to the right
  bool machine_only = false;  // left out of a table for people, because its title says it
};

struct Table {
  std::string title;  // written over the top border; empty: none
  std::vector<Column> columns;
  std::vector<std::vector<json::Value>> rows;  // each as long as `columns`
  bool drop_empty = false;  // json and yaml leave out cells that are empty text
};

// Ends with a line feed. yaml ends with an empty line, as Patroni's does.
std::string render(const Table& table, Format format);

// A box of text cells; a cell may have several lines, and then rules separate all rows.
std::string render_box(const Table& table);

// Columns that the text takes on a terminal: code points, wide ones counted twice, combining ones
// not at all.
std::size_t display_width(std::string_view text) noexcept;

// Bytes in MiB, halves rounded to the even neighbour.
std::int64_t lag_in_mb(std::int64_t bytes) noexcept;

// "sync_standby" -> "Sync Standby".
std::string title_case(std::string_view snake);

}  // namespace spilo::cli
