#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "spilo/config/yaml.hpp"
#include "yaml_scalar.hpp"

namespace spilo::config {
namespace {

bool has_control(std::string_view text) {
  return std::ranges::any_of(text, [](char letter) {
    const auto byte = static_cast<unsigned char>(letter);
    return byte < 0x20 || byte == 0x7f;
  });
}

// Whether the text may stand unquoted in block style, apart from what it would be taken for.
bool fits_plain(std::string_view text) {
  constexpr std::string_view never_first = "#,[]{}&*!|>'\"%@`";
  if (text.empty() || text.front() == ' ' || text.back() == ' ') return false;
  if (text.starts_with("---") || text.starts_with("...")) return false;
  if (never_first.find(text.front()) != std::string_view::npos) return false;
  const bool lone_indicator = text.size() == 1 || text[1] == ' ';
  if ((text.front() == '-' || text.front() == '?' || text.front() == ':') && lone_indicator)
    return false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == ':' && (i + 1 == text.size() || text[i + 1] == ' ')) return false;
    if (text[i] == '#' && i > 0 && text[i - 1] == ' ') return false;
  }
  return true;
}

std::string quoted(std::string_view text) {
  if (!has_control(text)) {
    std::string out = "'";
    for (const char letter : text) {
      if (letter == '\'') out += '\'';
      out += letter;
    }
    return out + "'";
  }
  std::string out = "\"";
  for (const char letter : text) {
    switch (letter) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\t':
        out += "\\t";
        break;
      case '\r':
        out += "\\r";
        break;
      default: {
        const auto byte = static_cast<unsigned char>(letter);
        if (byte < 0x20 || byte == 0x7f)
          out += fmt::format("\\x{:02x}", byte);
        else
          out += letter;
      }
    }
  }
  return out + "\"";
}

std::string text_scalar(std::string_view text) {
  const bool plain = fits_plain(text) && !has_control(text) && !is_ambiguous_plain(text);
  return plain ? std::string(text) : quoted(text);
}

std::string number_scalar(double number) {
  if (std::isnan(number)) return ".nan";
  if (std::isinf(number)) return number > 0 ? ".inf" : "-.inf";
  auto digits = fmt::format("{}", number);
  if (const auto e = digits.find('e'); digits.find('.') == std::string::npos) {
    // Without a point it would be read as text or as an integer.
    digits.insert(e == std::string::npos ? digits.size() : e, ".0");
  }
  return digits;
}

class Writer {
 public:
  explicit Writer(KeyOrder order) : order_(order) {}

  void root(const json::Value& value) {
    if (is_block(value))
      block(value, 0);
    else
      out_ += flat(value) + "\n";
  }
  std::string take() { return std::move(out_); }

 private:
  static bool is_block(const json::Value& value) {
    if (const auto* array = value.as_array()) return !array->empty();
    const auto* object = value.as_object();
    return object != nullptr && !object->empty();
  }

  static std::string flat(const json::Value& value) {
    if (value.is_null()) return "null";
    if (const auto boolean = value.as_bool()) return *boolean ? "true" : "false";
    if (const auto integer = value.as_int()) return fmt::format("{}", *integer);
    if (const auto number = value.as_double()) return number_scalar(*number);
    if (const auto* text = value.as_string()) return text_scalar(*text);
    return value.is_array() ? "[]" : "{}";
  }

  // Writes lines that begin at `indent`; the caller has put the cursor there.
  void block(const json::Value& value, std::size_t indent) {
    if (const auto* array = value.as_array())
      sequence(*array, indent);
    else
      mapping(*value.as_object(), indent);
  }

  void sequence(const json::Array& items, std::size_t indent) {
    bool first = true;
    for (const auto& item : items) {
      if (!first) out_.append(indent, ' ');
      first = false;
      out_ += "- ";
      if (is_block(item))
        block(item, indent + 2);
      else
        out_ += flat(item) + "\n";
    }
  }

  void mapping(const json::Object& members, std::size_t indent) {
    std::vector<const json::Member*> sorted;
    for (const auto& member : members) sorted.push_back(&member);
    if (order_ == KeyOrder::sorted)
      std::ranges::stable_sort(sorted, {}, [](const json::Member* member) -> const std::string& {
        return member->first;
      });
    bool first = true;
    for (const auto* member : sorted) {
      if (!first) out_.append(indent, ' ');
      first = false;
      const auto& [key, value] = *member;
      const auto name = text_scalar(key);
      // Within 1,024 characters a reader finds out by itself that this is a key.
      const bool is_long = name.size() > 1000;
      if (is_long) {
        out_ += "? " + name + "\n";
        out_.append(indent, ' ');
        out_ += ":";
      } else {
        out_ += name + ":";
      }
      if (!is_block(value)) {
        out_ += " " + flat(value) + "\n";
        continue;
      }
      // A list stands under its key without an indent of its own.
      const auto below = value.is_array() && !is_long ? indent : indent + 2;
      out_ += "\n";
      out_.append(below, ' ');
      block(value, below);
    }
  }

  KeyOrder order_;
  std::string out_;
};

}  // namespace

std::string dump_yaml(const json::Value& value, KeyOrder order) {
  Writer writer(order);
  writer.root(value);
  return writer.take();
}

}  // namespace spilo::config
