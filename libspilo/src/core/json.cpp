#include "spilo/core/json.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cmath>

namespace spilo::json {
namespace {

Value from_boost(const boost::json::value& in) {
  switch (in.kind()) {
    case boost::json::kind::null:
      return {};
    case boost::json::kind::bool_:
      return in.get_bool();
    case boost::json::kind::int64:
      return in.get_int64();
    case boost::json::kind::uint64:
      return static_cast<double>(in.get_uint64());
    case boost::json::kind::double_:
      return in.get_double();
    case boost::json::kind::string:
      return std::string(in.get_string().data(), in.get_string().size());
    case boost::json::kind::array: {
      Array out;
      out.reserve(in.get_array().size());
      for (const auto& item : in.get_array()) out.push_back(from_boost(item));
      return out;
    }
    case boost::json::kind::object: {
      Object out;
      out.reserve(in.get_object().size());
      for (const auto& item : in.get_object())
        out.emplace_back(std::string(item.key()), from_boost(item.value()));
      return out;
    }
  }
  return {};
}

// Decodes one code point and advances; U+FFFD for anything that is not UTF-8.
char32_t next_code_point(std::string_view text, std::size_t& at) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(at++);
  if (lead < 0x80) return lead;
  const int more = lead >= 0xf0 && lead < 0xf5 ? 3 : lead >= 0xe0 ? 2 : lead >= 0xc2 ? 1 : 0;
  if (more == 0 || lead >= 0xf5) return 0xfffd;
  char32_t code = lead & (0x3fu >> more);
  for (int i = 0; i < more; ++i) {
    if (at >= text.size() || (byte(at) & 0xc0) != 0x80) return 0xfffd;
    code = (code << 6) | (byte(at++) & 0x3fu);
  }
  const char32_t least[] = {0, 0x80, 0x800, 0x10000};
  if (code < least[more] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) return 0xfffd;
  return code;
}

void dump_string(std::string& out, std::string_view text) {
  out += '"';
  for (std::size_t at = 0; at < text.size();) {
    const char32_t code = next_code_point(text, at);
    switch (code) {
      case '"':
        out += "\\\"";
        continue;
      case '\\':
        out += "\\\\";
        continue;
      case '\n':
        out += "\\n";
        continue;
      case '\r':
        out += "\\r";
        continue;
      case '\t':
        out += "\\t";
        continue;
      case '\b':
        out += "\\b";
        continue;
      case '\f':
        out += "\\f";
        continue;
      default:
        break;
    }
    if (code >= 0x20 && code < 0x7f) {
      out += static_cast<char>(code);
    } else if (code < 0x10000) {
      out += fmt::format("\\u{:04x}", static_cast<unsigned>(code));
    } else {
      const auto rest = static_cast<unsigned>(code - 0x10000);
      out += fmt::format("\\u{:04x}\\u{:04x}", 0xd800 + (rest >> 10), 0xdc00 + (rest & 0x3ff));
    }
  }
  out += '"';
}

void dump_to(std::string& out, const Value& value, Style style, int depth) {
  const auto newline = [&](int level) {
    if (style == Style::pretty) out.append("\n").append(static_cast<std::size_t>(level) * 2, ' ');
  };
  const char* comma = style == Style::spaced ? ", " : ",";
  const char* colon = style == Style::compact ? ":" : ": ";
  if (const auto* array = value.as_array()) {
    out += '[';
    bool first = true;
    for (const auto& item : *array) {
      if (!first) out += comma;
      first = false;
      newline(depth + 1);
      dump_to(out, item, style, depth + 1);
    }
    if (!array->empty()) newline(depth);
    out += ']';
  } else if (const auto* object = value.as_object()) {
    out += '{';
    bool first = true;
    for (const auto& [key, item] : *object) {
      if (!first) out += comma;
      first = false;
      newline(depth + 1);
      dump_string(out, key);
      out += colon;
      dump_to(out, item, style, depth + 1);
    }
    if (!object->empty()) newline(depth);
    out += '}';
  } else if (const auto* text = value.as_string()) {
    dump_string(out, *text);
  } else if (value.is_null()) {
    out += "null";
  } else if (const auto boolean = value.as_bool()) {
    out += *boolean ? "true" : "false";
  } else if (const auto integer = value.as_int()) {
    out += fmt::format("{}", *integer);
  } else if (const auto number = value.as_double()) {
    if (!std::isfinite(*number)) {
      out += "null";
      return;
    }
    auto digits = fmt::format("{}", *number);
    if (digits.find_first_of(".e") == std::string::npos) digits += ".0";
    out += digits;
  }
}

}  // namespace

std::string_view Value::type_name() const noexcept {
  constexpr std::string_view names[] = {
      "null", "boolean", "integer", "number", "text", "list", "object"};
  return names[data_.index()];
}

std::optional<bool> Value::as_bool() const noexcept {
  if (const auto* value = std::get_if<bool>(&data_)) return *value;
  return {};
}
std::optional<std::int64_t> Value::as_int() const noexcept {
  if (const auto* value = std::get_if<std::int64_t>(&data_)) return *value;
  return {};
}
std::optional<double> Value::as_double() const noexcept {
  if (const auto* value = std::get_if<double>(&data_)) return *value;
  if (const auto integer = as_int()) return static_cast<double>(*integer);
  return {};
}

const Value* Value::find(std::string_view key) const noexcept {
  const auto* object = as_object();
  if (object == nullptr) return nullptr;
  const auto at = std::ranges::find(*object, key, &Member::first);
  return at == object->end() ? nullptr : &at->second;
}
Value* Value::find(std::string_view key) noexcept {
  return const_cast<Value*>(std::as_const(*this).find(key));
}
const Value* Value::find_path(std::string_view dotted) const noexcept {
  const Value* at = this;
  while (at != nullptr) {
    const auto dot = dotted.find('.');
    at = at->find(dotted.substr(0, dot));
    if (dot == std::string_view::npos) return at;
    dotted.remove_prefix(dot + 1);
  }
  return nullptr;
}
std::string Value::get_string(std::string_view key, std::string_view otherwise) const {
  const auto* value = find(key);
  const auto* text = value != nullptr ? value->as_string() : nullptr;
  return text != nullptr ? *text : std::string(otherwise);
}
std::optional<std::int64_t> Value::get_int(std::string_view key) const noexcept {
  const auto* value = find(key);
  return value != nullptr ? value->as_int() : std::nullopt;
}
bool Value::get_bool(std::string_view key, bool otherwise) const noexcept {
  const auto* value = find(key);
  return value != nullptr ? value->as_bool().value_or(otherwise) : otherwise;
}

Value& Value::set(std::string key, Value value) {
  if (!is_object()) data_ = Object{};
  if (auto* existing = find(key)) {
    *existing = std::move(value);
  } else {
    as_object()->emplace_back(std::move(key), std::move(value));
  }
  return *this;
}
bool Value::erase(std::string_view key) {
  auto* object = as_object();
  if (object == nullptr) return false;
  return std::erase_if(*object, [&](const Member& member) { return member.first == key; }) > 0;
}
Value& Value::push(Value value) {
  if (!is_array()) data_ = Array{};
  as_array()->push_back(std::move(value));
  return *this;
}

std::string Value::scalar_text() const {
  if (is_null()) return "None";
  if (const auto boolean = as_bool()) return *boolean ? "True" : "False";
  if (const auto* text = as_string()) return *text;
  return dump(*this, Style::spaced);
}

Result<Value> parse(std::string_view text) {
  boost::json::error_code ec;
  // The parser stops at the first byte that can't belong to the document; what it consumed is the
  // position to report.
  boost::json::parse_options options;
  options.max_depth = 32;
  boost::json::stream_parser parser({}, options);
  const auto consumed = parser.write_some(text.data(), text.size(), ec);
  if (!ec && consumed < text.size()) {
    if (text.find_first_not_of(" \t\r\n", consumed) != std::string_view::npos)
      ec = boost::json::error::extra_data;
  }
  if (!ec) parser.finish(ec);
  if (ec)
    return Error(errc::protocol,
                 fmt::format("not JSON: {} at byte {} of {}", ec.message(), consumed, text.size()));
  return from_boost(parser.release());
}

std::string dump(const Value& value, Style style) {
  std::string out;
  dump_to(out, value, style, 0);
  return out;
}

bool merge_patch(Value& target, const Value& patch) {
  const auto* members = patch.as_object();
  if (members == nullptr) return false;
  bool changed = false;
  for (const auto& [key, value] : *members) {
    if (value.is_null()) {
      changed = target.erase(key) || changed;
      continue;
    }
    auto* existing = target.find(key);
    if (value.is_object() && existing != nullptr && existing->is_object()) {
      changed = merge_patch(*existing, value) || changed;
    } else if (existing == nullptr || existing->scalar_text() != value.scalar_text()) {
      Value clean;
      if (value.is_object()) {
        clean = Value::object();
        merge_patch(clean, value);  // nulls inside a new object remove nothing and are not stored
      } else {
        clean = value;
      }
      target.set(key, std::move(clean));
      changed = true;
    }
  }
  return changed;
}

}  // namespace spilo::json
