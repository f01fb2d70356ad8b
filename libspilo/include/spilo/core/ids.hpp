// Distinct things get distinct types: a NodeName cannot be passed where a Scope is due.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace spilo {

template <class Tag>
class Name {
 public:
  Name() = default;
  explicit Name(std::string text) : text_(std::move(text)) {}
  const std::string& str() const noexcept { return text_; }
  bool empty() const noexcept { return text_.empty(); }
  auto operator<=>(const Name&) const = default;

 private:
  std::string text_;
};

using NodeName = Name<struct NodeTag>;      // a member of a cluster: unique below one scope
using Scope = Name<struct ScopeTag>;        // the name of a cluster
using SystemId = Name<struct SystemTag>;    // PostgreSQL's database system identifier, decimal
using SessionId = Name<struct SessionTag>;  // a session (etcd: lease) of a store

// A position in the write-ahead log: an absolute byte offset. Zero means "unknown".
enum class Lsn : std::uint64_t {};
// PostgreSQL's timeline; the first is 1. Zero means "unknown".
enum class TimelineId : std::uint32_t {};

constexpr std::uint64_t to_int(Lsn lsn) noexcept {
  return static_cast<std::uint64_t>(lsn);
}
constexpr std::uint32_t to_int(TimelineId timeline) noexcept {
  return static_cast<std::uint32_t>(timeline);
}

// PostgreSQL's text form, "16/B374D848". parse_lsn accepts exactly that form.
std::string to_text(Lsn lsn);
std::optional<Lsn> parse_lsn(std::string_view text) noexcept;

// A decimal number of at least ten digits, as PostgreSQL prints it; anything else is no system
// identifier.
bool is_valid(const SystemId& id) noexcept;

}  // namespace spilo

template <class Tag>
struct std::hash<spilo::Name<Tag>> {
  std::size_t operator()(const spilo::Name<Tag>& name) const noexcept {
    return std::hash<std::string>{}(name.str());
  }
};
