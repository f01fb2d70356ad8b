// The rows of the benchmark: what was measured, and how it compares with the floor and the target.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "spilo/core/json.hpp"

namespace bench {

// What product.md asks for: at most `times_floor` floors plus `plus`; without a floor just `plus`.
struct Target {
  double times_floor = 0;
  double plus = 0;
};

struct Row {
  std::string id;
  std::string title;
  std::string unit;
  std::string floor;  // the id of the row to compare with; empty: none
  std::optional<Target> target;
  bool judged_by_maximum = false;  // else by the median
  std::vector<double> samples;
  std::vector<double> loads;  // the machine's load average at each sample

  double median() const;
  double minimum() const;
  double maximum() const;
};

class Results {
 public:
  Row& add(Row row);
  Row& at(const std::string& id);
  const Row* find(const std::string& id) const;
  const std::vector<Row>& rows() const noexcept { return rows_; }

  // For people: one line a row; rows without samples are left out.
  std::string table() const;
  spilo::json::Value as_json() const;
  // A row that safety forbids to be other than zero is not zero.
  bool unsafe() const;

 private:
  // Nothing when there is no target, or its floor was not measured.
  std::optional<double> limit(const Row& row) const;
  std::string verdict(const Row& row) const;

  std::vector<Row> rows_;
};

// What several stores took, by name, as a table in Markdown: a column each, and the floor of all of
// their runs in the first one. Rows that nothing was measured for are left out.
std::string side_by_side(const std::vector<std::pair<std::string, Results>>& stores);

// The first figure of /proc/loadavg.
double load_average();

}  // namespace bench
