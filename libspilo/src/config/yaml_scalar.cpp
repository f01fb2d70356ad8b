#include "yaml_scalar.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>

namespace spilo::config {
namespace {

constexpr bool is_digit(char letter) noexcept {
  return letter >= '0' && letter <= '9';
}
bool consists_of(std::string_view text, std::string_view letters) {
  return !text.empty() && text.find_first_not_of(letters) == std::string_view::npos;
}

std::optional<bool> as_boolean(std::string_view text) {
  static constexpr std::array<std::string_view, 9> truths = {
      "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"};
  static constexpr std::array<std::string_view, 9> lies = {
      "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"};
  if (std::ranges::find(truths, text) != truths.end()) return true;
  if (std::ranges::find(lies, text) != lies.end()) return false;
  return {};
}

bool is_null(std::string_view text) {
  return text.empty() || text == "~" || text == "null" || text == "Null" || text == "NULL";
}

std::string without_underscores(std::string_view text) {
  std::string out(text);
  std::erase(out, '_');
  return out;
}

std::optional<std::int64_t> in_base(std::string_view digits, int base, bool negative) {
  const auto clean = (negative ? "-" : "") + without_underscores(digits);
  std::int64_t value = 0;
  const auto* end = clean.data() + clean.size();
  const auto [stop, failure] = std::from_chars(clean.data(), end, value, base);
  if (failure != std::errc{} || stop != end) return {};
  return value;
}

// 1:30:00, base 60; every part after the first has one or two digits and is below 60.
std::optional<std::int64_t> sexagesimal(std::string_view text, bool negative) {
  constexpr std::int64_t limit = std::numeric_limits<std::int64_t>::max() / 64;
  std::int64_t total = 0;
  for (bool first = true; !text.empty(); first = false) {
    const auto colon = text.find(':');
    const auto part = text.substr(0, colon);
    if (!consists_of(part, first ? "0123456789_" : "0123456789")) return {};
    const auto value = in_base(part, 10, false);
    if (!value || total > limit) return {};
    if (!first && (part.size() > 2 || *value > 59)) return {};
    total = total * 60 + *value;
    if (colon == std::string_view::npos) break;
    text.remove_prefix(colon + 1);
    if (text.empty()) return {};
  }
  return negative ? -total : total;
}

// Nothing when the text has not the form of an integer; text when it has, but 64 bits are too few.
std::optional<json::Value> as_integer(std::string_view text) {
  const std::string_view whole = text;
  const bool negative = text.starts_with('-');
  if (negative || text.starts_with('+')) text.remove_prefix(1);
  if (text.empty() || !is_digit(text.front())) return {};
  std::optional<std::int64_t> value;
  if (text.starts_with("0b")) {
    if (!consists_of(text.substr(2), "01_")) return {};
    value = in_base(text.substr(2), 2, negative);
  } else if (text.starts_with("0x")) {
    if (!consists_of(text.substr(2), "0123456789abcdefABCDEF_")) return {};
    value = in_base(text.substr(2), 16, negative);
  } else if (text.size() > 1 && text.front() == '0') {
    if (!consists_of(text, "01234567_")) return {};
    value = in_base(text, 8, negative);
  } else if (text.find(':') != std::string_view::npos) {
    value = sexagesimal(text, negative);
    if (!value) return {};
  } else {
    if (!consists_of(text, "0123456789_")) return {};
    value = in_base(text, 10, negative);
  }
  return value ? json::Value(*value) : json::Value(whole);
}

// A point is what makes a number a float; an exponent needs its sign. 1e3 is text.
std::optional<double> as_float(std::string_view text) {
  const bool negative = text.starts_with('-');
  auto body = text;
  if (negative || body.starts_with('+')) body.remove_prefix(1);
  const auto point = body.find('.');
  if (point == std::string_view::npos) return {};
  const auto before = body.substr(0, point);
  auto after = body.substr(point + 1);
  std::string exponent;
  if (const auto e = after.find_first_of("eE"); e != std::string_view::npos) {
    const auto tail = after.substr(e + 1);
    if (tail.size() < 2 || (tail[0] != '+' && tail[0] != '-') ||
        !consists_of(tail.substr(1), "0123456789"))
      return {};
    exponent = "e" + std::string(tail);
    after = after.substr(0, e);
  }
  if (!after.empty() && !consists_of(after, "0123456789_")) return {};
  if (before.empty()) {
    if (after.empty() || !is_digit(after.front()) || body.size() != text.size()) return {};
  } else if (!is_digit(before.front()) || !consists_of(before, "0123456789_")) {
    return {};
  }
  const auto clean = (negative ? "-0" : "0") + without_underscores(before) + "." +
                     without_underscores(after) + "0" + exponent;
  double value = 0;
  const auto [stop, failure] = std::from_chars(clean.data(), clean.data() + clean.size(), value);
  if (failure != std::errc{} || stop != clean.data() + clean.size()) return {};
  return value;
}

// 2026-01-01, and with a time: a date for other readers.
bool looks_like_date(std::string_view text) {
  return text.size() >= 8 && std::ranges::all_of(text.substr(0, 4), is_digit) && text[4] == '-' &&
         is_digit(text[5]);
}

}  // namespace

json::Value resolve_plain(std::string_view text) {
  if (is_null(text)) return {};
  if (const auto boolean = as_boolean(text)) return *boolean;
  if (auto integer = as_integer(text)) return std::move(*integer);
  if (const auto number = as_float(text)) return *number;
  return text;
}

bool is_ambiguous_plain(std::string_view text) {
  static constexpr std::array<std::string_view, 9> special = {
      "<<", "=", ".inf", ".Inf", ".INF", "-.inf", "+.inf", ".nan", ".NaN"};
  return !resolve_plain(text).is_string() || as_integer(text).has_value() ||
         looks_like_date(text) || std::ranges::find(special, text) != special.end();
}

}  // namespace spilo::config
