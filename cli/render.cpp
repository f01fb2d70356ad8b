#include "cli/render.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "cli/yaml_text.hpp"

namespace spilo::cli {
namespace {

std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  std::size_t from = 0;
  for (std::size_t at = text.find('\n'); at != text.npos; at = text.find('\n', from)) {
    lines.push_back(text.substr(from, at - from));
    from = at + 1;
  }
  lines.push_back(text.substr(from));
  return lines;
}

// Scalars as text; what has a structure of its own as JSON, which no column of ours needs.
std::string cell_text(const json::Value& cell) {
  if (cell.is_null()) return {};
  if (cell.is_array() || cell.is_object()) return json::dump(cell, json::Style::spaced);
  return cell.scalar_text();
}

std::string padded(std::string_view text, std::size_t width, bool right) {
  const std::size_t used = display_width(text);
  const std::string fill(width > used ? width - used : 0, ' ');
  return right ? fill + std::string(text) : std::string(text) + fill;
}

struct Box {
  std::vector<bool> right;
  std::vector<std::size_t> widths;

  std::string rule() const {
    std::string out = "+";
    for (const auto width : widths) out += std::string(width + 2, '-') + "+";
    return out + "\n";
  }
  std::string line(const std::vector<std::string>& cells) const {
    std::vector<std::vector<std::string_view>> split;
    std::size_t height = 1;
    for (const auto& cell : cells) {
      split.push_back(lines_of(cell));
      height = std::max(height, split.back().size());
    }
    std::string out;
    for (std::size_t row = 0; row < height; ++row) {
      out += "|";
      for (std::size_t i = 0; i < split.size(); ++i) {
        const auto text = row < split[i].size() ? split[i][row] : std::string_view();
        out += " " + padded(text, widths[i], right[i]) + " |";
      }
      out += "\n";
    }
    return out;
  }
};

// The title replaces the border from its second column on; both corners stay.
std::string with_title(std::string rule, std::string_view title) {
  const std::size_t border = rule.size() - 1;
  if (title.empty() || border < 2) return rule;
  const std::size_t room = border - 2;
  std::string shown(title);
  while (display_width(shown) > room) {
    do shown.pop_back();
    while (!shown.empty() && (static_cast<unsigned char>(shown.back()) & 0xc0) == 0x80);
  }
  return "+" + shown + rule.substr(1 + display_width(shown));
}

json::Value as_objects(const Table& table) {
  json::Value list = json::Value::array();
  for (const auto& row : table.rows) {
    json::Value item = json::Value::object();
    for (std::size_t i = 0; i < row.size(); ++i) {
      if (table.drop_empty && row[i] == json::Value("")) continue;
      item.set(table.columns[i].name, row[i]);
    }
    list.push(std::move(item));
  }
  return list;
}

std::string render_tsv(const Table& table) {
  std::string out;
  const auto add = [&](std::string text, bool last) {
    // A cell must not end the row or the column; the order of replacements does not matter.
    std::replace(text.begin(), text.end(), '\n', ' ');
    std::replace(text.begin(), text.end(), '\t', ' ');
    out += text + (last ? "\n" : "\t");
  };
  for (std::size_t i = 0; i < table.columns.size(); ++i)
    add(table.columns[i].name, i + 1 == table.columns.size());
  for (const auto& row : table.rows)
    for (std::size_t i = 0; i < row.size(); ++i) add(cell_text(row[i]), i + 1 == row.size());
  return out;
}

}  // namespace

std::optional<Format> parse_format(std::string_view name) noexcept {
  if (name == "pretty" || name == "table") return Format::pretty;
  if (name == "topology") return Format::topology;
  if (name == "tsv") return Format::tsv;
  if (name == "json") return Format::json;
  if (name == "yaml" || name == "yml") return Format::yaml;
  return std::nullopt;
}

std::size_t display_width(std::string_view text) noexcept {
  std::size_t width = 0;
  for (std::size_t at = 0; at < text.size();) {
    const auto lead = static_cast<unsigned char>(text[at]);
    const std::size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : lead >= 0xc0 ? 2 : 1;
    char32_t code = length == 1 ? lead : lead & (0x7fu >> length);
    for (std::size_t i = 1; i < length && at + i < text.size(); ++i)
      code = (code << 6) | (static_cast<unsigned char>(text[at + i]) & 0x3f);
    at += length;
    const bool combining = (code >= 0x300 && code <= 0x36f) || code == 0x200d || code == 0xfe0f;
    const bool wide = (code >= 0x1100 && code <= 0x115f) || (code >= 0x2e80 && code <= 0xa4cf) ||
                      (code >= 0xac00 && code <= 0xd7a3) || (code >= 0xf900 && code <= 0xfaff) ||
                      (code >= 0xfe30 && code <= 0xfe6f) || (code >= 0xff00 && code <= 0xff60) ||
                      (code >= 0xffe0 && code <= 0xffe6) || (code >= 0x1f300 && code <= 0x1faff) ||
                      (code >= 0x20000 && code <= 0x3fffd);
    width += combining ? 0 : wide ? 2 : 1;
  }
  return width;
}

std::int64_t lag_in_mb(std::int64_t bytes) noexcept {
  constexpr std::int64_t mib = 1024 * 1024;
  const std::int64_t whole = bytes / mib;
  const std::int64_t twice_rest = 2 * (bytes % mib);
  if (twice_rest > mib || (twice_rest == mib && whole % 2 != 0)) return whole + 1;
  return whole;
}

std::string title_case(std::string_view snake) {
  std::string out;
  bool start = true;
  for (const char letter : snake) {
    const char shown = letter == '_' ? ' ' : letter;
    const bool lower = shown >= 'a' && shown <= 'z';
    out += start && lower ? static_cast<char>(shown - 'a' + 'A') : shown;
    start = shown == ' ';
  }
  return out;
}

std::string render_box(const Table& table) {
  std::vector<std::size_t> shown;
  for (std::size_t i = 0; i < table.columns.size(); ++i)
    if (!table.columns[i].machine_only) shown.push_back(i);

  Box box;
  std::vector<std::string> headings;
  for (const auto i : shown) {
    const auto& column = table.columns[i];
    headings.push_back(column.heading.empty() ? column.name : column.heading);
    box.right.push_back(column.right);
    box.widths.push_back(display_width(headings.back()));
  }
  std::vector<std::vector<std::string>> rows;
  bool tall = false;
  for (const auto& row : table.rows) {
    auto& cells = rows.emplace_back();
    for (std::size_t at = 0; at < shown.size(); ++at) {
      cells.push_back(cell_text(row[shown[at]]));
      for (const auto line : lines_of(cells.back()))
        box.widths[at] = std::max(box.widths[at], display_width(line));
      tall = tall || cells.back().find('\n') != std::string::npos;
    }
  }
  std::string out = with_title(box.rule(), table.title) + box.line(headings) + box.rule();
  for (std::size_t i = 0; i < rows.size(); ++i) {
    out += box.line(rows[i]);
    if (tall && i + 1 < rows.size()) out += box.rule();
  }
  return out + box.rule();
}

std::string render(const Table& table, Format format) {
  switch (format) {
    case Format::pretty:
    case Format::topology:
      return render_box(table);
    case Format::tsv:
      return render_tsv(table);
    case Format::json:
      return json::dump(as_objects(table), json::Style::spaced) + "\n";
    case Format::yaml:
      return yaml_text(as_objects(table)) + "\n";
  }
  return {};
}

}  // namespace spilo::cli
