#include "spilo/ports/dcs.hpp"

#include <algorithm>

namespace spilo::dcs {

Snapshot::Snapshot(std::vector<Entry> entries, Index index, bool atomic)
    : entries_(std::move(entries)), index_(index), atomic_(atomic) {
  std::ranges::sort(entries_, {}, &Entry::key);
}

const Entry* Snapshot::find(std::string_view key) const noexcept {
  const auto at = std::ranges::lower_bound(entries_, key, {}, &Entry::key);
  return at != entries_.end() && at->key == key ? &*at : nullptr;
}

std::span<const Entry> Snapshot::under(std::string_view prefix) const noexcept {
  const auto first = std::ranges::lower_bound(entries_, prefix, {}, &Entry::key);
  const auto last = std::find_if_not(
      first, entries_.end(), [&](const Entry& entry) { return entry.key.starts_with(prefix); });
  return {first, last};
}

std::optional<Version> Committed::version_of(std::string_view key) const noexcept {
  for (const auto& [name, version] : versions_)
    if (name == key) return version;
  return {};
}

Transaction& Transaction::require(std::string key, Condition condition) & {
  requirements_.push_back(Requirement{std::move(key), condition});
  return *this;
}
Transaction& Transaction::put(std::string key, std::string value, Binding binding) & {
  changes_.push_back(Change{std::move(key), std::move(value), binding});
  return *this;
}
Transaction& Transaction::erase(std::string key) & {
  changes_.push_back(Change{std::move(key), std::nullopt, Binding::permanent});
  return *this;
}

}  // namespace spilo::dcs
