#include "cli/edit_document.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "spilo/config/yaml.hpp"

namespace spilo::cli {
namespace {

constexpr std::string_view parameters = "postgresql.parameters.";

std::vector<std::string> split_path(std::string_view path) {
  std::vector<std::string> out;
  if (path.starts_with(parameters)) {
    out = {"postgresql", "parameters", std::string(path.substr(parameters.size()))};
    return out;
  }
  for (std::size_t from = 0; from <= path.size();) {
    const auto dot = std::min(path.find('.', from), path.size());
    out.emplace_back(path.substr(from, dot - from));
    from = dot + 1;
  }
  return out;
}

void set_at(json::Value& target, const std::vector<std::string>& path, std::size_t at,
            const json::Value& value) {
  if (at + 1 == path.size()) {
    if (value.is_null()) target.erase(path[at]);
    else target.set(path[at], value);
    return;
  }
  json::Value* child = target.find(path[at]);
  if (!child || !child->is_object()) {
    if (value.is_null()) return;
    target.set(path[at], json::Value::object());
    child = target.find(path[at]);
  }
  set_at(*child, path, at + 1, value);
  if (value.is_null() && child->as_object()->empty()) target.erase(path[at]);
}

std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> out;
  while (!text.empty()) {
    const auto end = text.find('\n');
    out.push_back(text.substr(0, end));
    text.remove_prefix(end == text.npos ? text.size() : end + 1);
  }
  return out;
}

struct Edit {
  char sign;  // ' ', '-' or '+'
  std::string_view line;
};

// The shortest list of edits, by the longest common subsequence. Configurations are short.
std::vector<Edit> edits_of(const std::vector<std::string_view>& a,
                           const std::vector<std::string_view>& b) {
  const std::size_t width = b.size() + 1;
  std::vector<std::size_t> common((a.size() + 1) * width, 0);
  for (std::size_t i = a.size(); i-- > 0;)
    for (std::size_t j = b.size(); j-- > 0;)
      common[i * width + j] =
          a[i] == b[j] ? common[(i + 1) * width + j + 1] + 1
                       : std::max(common[(i + 1) * width + j], common[i * width + j + 1]);
  std::vector<Edit> out;
  std::size_t i = 0;
  std::size_t j = 0;
  while (i < a.size() || j < b.size()) {
    const bool both = i < a.size() && j < b.size();
    if (both && a[i] == b[j]) {
      out.push_back({' ', a[i++]});
      ++j;
    } else if (i < a.size() &&
               (!both || common[(i + 1) * width + j] >= common[i * width + j + 1])) {
      out.push_back({'-', a[i++]});
    } else {
      out.push_back({'+', b[j++]});
    }
  }
  return out;
}

std::string range(std::size_t first, std::size_t count) {
  const std::size_t shown = count == 0 ? first : first + 1;
  return count == 1 ? fmt::format("{}", shown) : fmt::format("{},{}", shown, count);
}

}  // namespace

Result<void> apply_assignment(json::Value& document, std::string_view assignment, bool parameter) {
  const auto equals = assignment.find('=');
  const std::string_view key = assignment.substr(0, equals);
  if (equals == assignment.npos || key.empty())
    return Error(errc::invalid_argument,
                 fmt::format("'{}' is no change: KEY=VALUE is needed, for example ttl=20",
                             assignment));
  const auto value = config::parse_yaml_value(assignment.substr(equals + 1));
  if (value.has_error()) return value.error().in(key);
  const auto path = split_path(parameter ? std::string(parameters) + std::string(key)
                                         : std::string(key));
  if (std::any_of(path.begin(), path.end(), [](const auto& part) { return part.empty(); }))
    return Error(errc::invalid_argument,
                 fmt::format("'{}' is no key: a part between the dots is empty", key));
  if (!document.is_object()) document = json::Value::object();
  set_at(document, path, 0, *value);
  return {};
}

std::string unified_diff(std::string_view before, std::string_view after) {
  constexpr std::size_t context = 3;
  const auto edits = edits_of(lines_of(before), lines_of(after));
  // Which lines are shown: the changes and what is near them.
  std::vector<bool> shown(edits.size(), false);
  bool any = false;
  for (std::size_t at = 0; at < edits.size(); ++at) {
    if (edits[at].sign == ' ') continue;
    any = true;
    const auto from = at > context ? at - context : 0;
    for (auto near = from; near <= at + context && near < edits.size(); ++near) shown[near] = true;
  }
  if (!any) return {};
  std::string out = "---\n+++\n";
  std::size_t old_line = 0;
  std::size_t new_line = 0;
  for (std::size_t at = 0; at < edits.size();) {
    if (!shown[at]) {
      ++at, ++old_line, ++new_line;
      continue;
    }
    std::string body;
    std::size_t old_count = 0;
    std::size_t new_count = 0;
    for (; at < edits.size() && shown[at]; ++at) {
      old_count += edits[at].sign != '+';
      new_count += edits[at].sign != '-';
      body += edits[at].sign + std::string(edits[at].line) + "\n";
    }
    out += fmt::format("@@ -{} +{} @@\n", range(old_line, old_count), range(new_line, new_count)) +
           body;
    old_line += old_count;
    new_line += new_count;
  }
  return out;
}

}  // namespace spilo::cli
