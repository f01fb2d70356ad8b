#include "spilo/config/edit.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "spilo/config/yaml.hpp"

namespace spilo::config {
namespace {

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

std::vector<std::string> split_path(std::string_view dotted) {
  constexpr std::string_view parameters = "postgresql.parameters.";
  std::vector<std::string> out;
  if (dotted.starts_with(parameters))
    return {"postgresql", "parameters", std::string(dotted.substr(parameters.size()))};
  for (;;) {
    const auto dot = dotted.find('.');
    out.emplace_back(dotted.substr(0, dot));
    if (dot == std::string_view::npos) return out;
    dotted.remove_prefix(dot + 1);
  }
}

void set_below(json::Value& at,
               const std::vector<std::string>& path,
               std::size_t depth,
               json::Value value) {
  const auto& key = path[depth];
  if (depth + 1 == path.size()) {
    if (value.is_null())
      at.erase(key);
    else
      at.set(key, std::move(value));
    return;
  }
  auto* next = at.find(key);
  if (next == nullptr || !next->is_object()) {
    if (value.is_null() && next == nullptr) return;  // nothing to remove
    at.set(key, json::Value::object());
    next = at.find(key);
  }
  set_below(*next, path, depth + 1, std::move(value));
  if (next->as_object()->empty()) at.erase(key);
}

// ---- the difference of two texts ----

std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> out;
  while (!text.empty()) {
    const auto end = text.find('\n');
    out.push_back(text.substr(0, end));
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  }
  return out;
}

struct Edit {
  char mark = ' ';  // ' ', '-' or '+'
  std::string_view line;
};

using Lines = std::vector<std::string_view>;

// The shortest list of removals and additions, by the table of longest common subsequences. Texts
// too large for the table (nobody edits those by hand) are replaced as a whole.
std::vector<Edit> differences(const Lines& before, const Lines& after) {
  constexpr std::size_t cells_max = 16u << 20;
  std::size_t head = 0;
  while (head < before.size() && head < after.size() && before[head] == after[head]) ++head;
  std::size_t tail = 0;
  while (tail < before.size() - head && tail < after.size() - head &&
         before[before.size() - 1 - tail] == after[after.size() - 1 - tail])
    ++tail;
  const std::size_t rows = before.size() - head - tail;
  const std::size_t columns = after.size() - head - tail;
  const bool small = (rows + 1) * (columns + 1) <= cells_max;
  std::vector<std::uint32_t> table(small ? (rows + 1) * (columns + 1) : 0);
  const auto common = [&](std::size_t i, std::size_t j) -> std::uint32_t& {
    return table[i * (columns + 1) + j];
  };
  for (std::size_t i = small ? rows : 0; i-- > 0;)
    for (std::size_t j = columns; j-- > 0;)
      common(i, j) = before[head + i] == after[head + j]
                         ? common(i + 1, j + 1) + 1
                         : std::max(common(i + 1, j), common(i, j + 1));
  std::vector<Edit> out;
  for (std::size_t i = 0; i < head; ++i) out.push_back({' ', before[i]});
  std::size_t i = 0;
  std::size_t j = 0;
  while (i < rows || j < columns) {
    if (small && i < rows && j < columns && before[head + i] == after[head + j]) {
      out.push_back({' ', before[head + i]});
      ++i;
      ++j;
    } else if (i < rows && (j == columns || !small || common(i + 1, j) >= common(i, j + 1))) {
      out.push_back({'-', before[head + i++]});
    } else {
      out.push_back({'+', after[head + j++]});
    }
  }
  for (std::size_t k = before.size() - tail; k < before.size(); ++k)
    out.push_back({' ', before[k]});
  return out;
}

// "1,4"; a single line has no count, and no line at all counts from the line before it.
std::string range(std::size_t first, std::size_t count) {
  if (count == 1) return fmt::format("{}", first);
  return fmt::format("{},{}", count == 0 ? first - 1 : first, count);
}

}  // namespace

Result<void> apply_setting(json::Value& config, std::string_view assignment) {
  const auto refuse = [&](std::string_view why) {
    return Error(errc::invalid_argument,
                 fmt::format("Invalid parameter setting {}: {}", assignment, why));
  };
  const auto equals = assignment.find('=');
  if (equals == std::string_view::npos) return refuse("there is no =; write for example ttl=30");
  const auto path = split_path(trimmed(assignment.substr(0, equals)));
  if (std::ranges::any_of(path, &std::string::empty)) return refuse("a part of the key is empty");
  auto value = parse_yaml_value(assignment.substr(equals + 1));
  if (!value) return refuse(value.error().detail());
  if (!config.is_object()) config = json::Value::object();
  set_below(config, path, 0, std::move(*value));
  return {};
}

Result<void> apply_parameter(json::Value& config, std::string_view assignment) {
  return apply_setting(config, fmt::format("postgresql.parameters.{}", trimmed(assignment)));
}

std::string unified_diff(std::string_view before,
                         std::string_view after,
                         std::string_view before_label,
                         std::string_view after_label) {
  constexpr std::size_t around = 3;
  const auto edits = differences(lines_of(before), lines_of(after));
  std::string out;
  std::size_t old_line = 1;
  std::size_t new_line = 1;
  for (std::size_t at = 0; at < edits.size();) {
    // A hunk goes on while the next change is near enough to share its surroundings.
    std::size_t change = at;
    while (change < edits.size() && edits[change].mark == ' ') ++change;
    if (change == edits.size()) break;
    const std::size_t begin = change - std::min(around, change - at);
    std::size_t last = change;
    for (std::size_t k = change; k < edits.size() && k <= last + 2 * around + 1; ++k)
      if (edits[k].mark != ' ') last = k;
    const std::size_t end = std::min(edits.size(), last + around + 1);
    old_line += begin - at;
    new_line += begin - at;
    std::size_t old_count = 0;
    std::size_t new_count = 0;
    std::string body;
    for (std::size_t k = begin; k < end; ++k) {
      old_count += edits[k].mark != '+' ? 1 : 0;
      new_count += edits[k].mark != '-' ? 1 : 0;
      body += fmt::format("{}{}\n", edits[k].mark, edits[k].line);
    }
    out += fmt::format(
        "@@ -{} +{} @@\n{}", range(old_line, old_count), range(new_line, new_count), body);
    old_line += old_count;
    new_line += new_count;
    at = end;
  }
  if (out.empty()) return out;
  return fmt::format("--- {}\n+++ {}\n", before_label, after_label) + out;
}

}  // namespace spilo::config
