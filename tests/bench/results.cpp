#include "results.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include "bench.hpp"

namespace bench {

using spilo::json::Value;

double load_average() {
  return std::strtod(slurp("/proc/loadavg").c_str(), nullptr);
}

double Row::median() const {
  auto sorted = samples;
  std::sort(sorted.begin(), sorted.end());
  const auto middle = sorted.size() / 2;
  return sorted.size() % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
double Row::minimum() const {
  return *std::min_element(samples.begin(), samples.end());
}
double Row::maximum() const {
  return *std::max_element(samples.begin(), samples.end());
}

Row& Results::add(Row row) {
  rows_.push_back(std::move(row));
  return rows_.back();
}

Row& Results::at(const std::string& id) {
  for (auto& row : rows_)
    if (row.id == id) return row;
  throw Failure("no row is named " + id);
}

const Row* Results::find(const std::string& id) const {
  for (const auto& row : rows_)
    if (row.id == id && !row.samples.empty()) return &row;
  return nullptr;
}

std::optional<double> Results::limit(const Row& row) const {
  if (!row.target) return std::nullopt;
  if (row.target->times_floor == 0) return row.target->plus;
  const auto* floor = find(row.floor);
  if (floor == nullptr) return std::nullopt;
  return row.target->times_floor * floor->median() + row.target->plus;
}

std::string Results::verdict(const Row& row) const {
  const auto most = limit(row);
  if (!most) return "";
  const auto value = row.judged_by_maximum ? row.maximum() : row.median();
  return value <= *most ? "met" : "MISSED";
}

namespace {

std::string figure(double value, const std::string& unit) {
  if (unit == "ms" && value >= 20) return fmt::format("{:.0f}", value);
  return fmt::format(
      "{:.{}f}", value, value == static_cast<double>(static_cast<long>(value)) ? 0 : 1);
}

std::string describe(const Target& target, const std::string& unit) {
  if (target.times_floor == 0) return figure(target.plus, unit);
  auto text = target.times_floor == 1 ? std::string("floor")
                                      : fmt::format("{:g} x floor", target.times_floor);
  if (target.plus != 0) text += " + " + figure(target.plus, unit);
  return text;
}

}  // namespace

std::string Results::table() const {
  std::string out = fmt::format("{:<46} {:>8} {:>8} {:>8}  {:<7} {:>7}  {:<16} {}\n",
                                "",
                                "median",
                                "min",
                                "max",
                                "unit",
                                "ratio",
                                "target",
                                "");
  for (const auto& row : rows_) {
    if (row.samples.empty()) continue;
    const auto* floor = find(row.floor);
    const auto ratio = floor ? fmt::format("{:.2f}", row.median() / floor->median()) : "";
    auto line = fmt::format("{:<46} {:>8} {:>8} {:>8}  {:<7} {:>7}  {:<16} {}",
                            row.title,
                            figure(row.median(), row.unit),
                            figure(row.minimum(), row.unit),
                            figure(row.maximum(), row.unit),
                            row.unit,
                            ratio,
                            row.target ? "<= " + describe(*row.target, row.unit) : "",
                            verdict(row));
    out += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
  }
  return out;
}

Value Results::as_json() const {
  auto out = Value::array();
  for (const auto& row : rows_) {
    if (row.samples.empty()) continue;
    auto entry = Value::object();
    auto samples = Value::array();
    for (const auto sample : row.samples) samples.push(sample);
    auto loads = Value::array();
    for (const auto load : row.loads) loads.push(load);
    entry.set("id", row.id).set("title", row.title).set("unit", row.unit);
    entry.set("median", row.median()).set("min", row.minimum()).set("max", row.maximum());
    entry.set("samples", std::move(samples)).set("load", std::move(loads));
    if (const auto* floor = find(row.floor))
      entry.set("floor", floor->id).set("ratio", row.median() / floor->median());
    if (const auto most = limit(row)) entry.set("target", *most).set("met", verdict(row) == "met");
    out.push(std::move(entry));
  }
  return out;
}

bool Results::unsafe() const {
  return std::any_of(rows_.begin(), rows_.end(), [](const Row& row) {
    return row.id.ends_with("-stale") && !row.samples.empty() && row.maximum() > 0;
  });
}

namespace {

std::string cell(const Results& results, const Row* row) {
  if (row == nullptr) return "-";  // not measured, or the store counts none
  const auto low = figure(row->minimum(), row->unit);
  const auto high = figure(row->maximum(), row->unit);
  auto out = figure(row->median(), row->unit);
  if (low != high) out += fmt::format(" ({} to {})", low, high);
  const auto* floor = results.find(row->floor);
  if (floor != nullptr) out += fmt::format("; {:.1f}", row->median() / floor->median());
  return out;
}

// The samples of that floor in all runs, as one row.
std::string floor_cell(const std::vector<std::pair<std::string, Results>>& stores,
                       const std::string& id) {
  Row all;
  all.unit = "ms";
  for (const auto& [name, results] : stores)
    if (const auto* row = results.find(id))
      all.samples.insert(all.samples.end(), row->samples.begin(), row->samples.end());
  return all.samples.empty() ? "" : cell(Results(), &all);
}

}  // namespace

std::string side_by_side(const std::vector<std::pair<std::string, Results>>& stores) {
  if (stores.empty()) return {};
  std::string out = "| median (min to max); ratio to the floor of the same run | floor |";
  std::string rule = "|---|---|";
  for (const auto& [name, results] : stores) {
    out += fmt::format(" {} |", name);
    rule += "---|";
  }
  out += "\n" + rule + "\n";
  for (const auto& row : stores.front().second.rows()) {
    const bool measured = std::any_of(stores.begin(), stores.end(), [&](const auto& one) {
      return one.second.find(row.id) != nullptr;
    });
    if (!measured || row.id.starts_with("floor-")) continue;
    const auto title = row.title.substr(row.title.find_first_not_of(' '));
    out += fmt::format("| {}{} | {} |",
                       title,
                       row.unit.empty() ? "" : ", " + row.unit,
                       row.floor.empty() ? "" : floor_cell(stores, row.floor));
    for (const auto& [name, results] : stores)
      out += fmt::format(" {} |", cell(results, results.find(row.id)));
    out += "\n";
  }
  return out;
}

}  // namespace bench
