// JSON as a value that keeps the order of its keys. The same type carries YAML documents
// (config/yaml.hpp), the dynamic configuration and REST bodies. Parsing is Boost.JSON's, which no
// public header shows.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "spilo/core/error.hpp"

namespace spilo::json {

class Value;
using Array = std::vector<Value>;
using Member = std::pair<std::string, Value>;
using Object = std::vector<Member>;  // in the order of the document; keys are unique

// A class with constructors, hence safe as a temporary beside co_await.
class Value {
 public:
  Value() = default;  // null
  Value(std::nullptr_t) {}
  Value(bool value) : data_(value) {}
  Value(int value) : data_(std::int64_t{value}) {}
  Value(std::int64_t value) : data_(value) {}
  Value(std::uint64_t value) : data_(static_cast<std::int64_t>(value)) {}
  Value(double value) : data_(value) {}
  Value(const char* value) : data_(std::string(value)) {}
  Value(std::string_view value) : data_(std::string(value)) {}
  Value(std::string value) : data_(std::move(value)) {}
  Value(Array value) : data_(std::move(value)) {}
  Value(Object value) : data_(std::move(value)) {}

  static Value object() { return Value(Object{}); }
  static Value array() { return Value(Array{}); }

  bool is_null() const noexcept { return std::holds_alternative<std::monostate>(data_); }
  bool is_bool() const noexcept { return std::holds_alternative<bool>(data_); }
  bool is_int() const noexcept { return std::holds_alternative<std::int64_t>(data_); }
  bool is_double() const noexcept { return std::holds_alternative<double>(data_); }
  bool is_string() const noexcept { return std::holds_alternative<std::string>(data_); }
  bool is_array() const noexcept { return std::holds_alternative<Array>(data_); }
  bool is_object() const noexcept { return std::holds_alternative<Object>(data_); }
  std::string_view type_name() const noexcept;  // "null", "boolean", "integer", …

  // Tolerant readers: nothing when the value has another type. What comes from a store may be
  // anything.
  std::optional<bool> as_bool() const noexcept;
  std::optional<std::int64_t> as_int() const noexcept;  // integers only
  std::optional<double> as_double() const noexcept;     // integers too
  const std::string* as_string() const noexcept { return std::get_if<std::string>(&data_); }
  const Array* as_array() const noexcept { return std::get_if<Array>(&data_); }
  Array* as_array() noexcept { return std::get_if<Array>(&data_); }
  const Object* as_object() const noexcept { return std::get_if<Object>(&data_); }
  Object* as_object() noexcept { return std::get_if<Object>(&data_); }

  // The member of that name, or null when this is no object or has none. find_path takes "a.b.c".
  const Value* find(std::string_view key) const noexcept;
  Value* find(std::string_view key) noexcept;
  const Value* find_path(std::string_view dotted) const noexcept;
  // Shorthands for the common "string member or default".
  std::string get_string(std::string_view key, std::string_view otherwise = {}) const;
  std::optional<std::int64_t> get_int(std::string_view key) const noexcept;
  bool get_bool(std::string_view key, bool otherwise = false) const noexcept;

  // Replaces or appends; a null Value becomes an object first. Returns *this, so that objects can
  // be built in one expression.
  Value& set(std::string key, Value value);
  bool erase(std::string_view key);
  Value& push(Value value);  // a null Value becomes an array first

  // A scalar as Python's str() would show it ("True", "None", "1.5"); what Patroni compares changes
  // with.
  std::string scalar_text() const;

  bool operator==(const Value&) const = default;

 private:
  std::variant<std::monostate, bool, std::int64_t, double, std::string, Array, Object> data_;
};

// errc::protocol with the position when the text is not one JSON document. Depth is limited to 32;
// of duplicate keys the last one wins; integers beyond 64 bits become doubles. A double written with
// 16 or 17 digits may be read as one of its neighbours, because Boost.JSON 1.81 does not round
// correctly; with 15 digits or fewer, which is what people write into settings, it is exact.
Result<Value> parse(std::string_view text);

enum class Style {
  compact,  // {"a":1,"b":2}: what Patroni writes into the store
  spaced,   // {"a": 1, "b": 2}: what Patroni's REST API answers
  pretty,   // indented by two spaces, for people
};
// ASCII only: everything else is escaped as \uXXXX. Text that is not UTF-8 has its bad bytes
// replaced by U+FFFD.
std::string dump(const Value& value, Style style = Style::compact);

// RFC 7396 with Patroni's rule for scalars: nested objects are merged, null removes, everything
// else replaces. True when something changed; a scalar with the same text (1 and "1") is no change.
bool merge_patch(Value& target, const Value& patch);

}  // namespace spilo::json
