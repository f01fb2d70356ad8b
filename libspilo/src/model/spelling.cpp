#include "spilo/model/spelling.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstddef>

namespace spilo {
namespace {

constexpr std::size_t longest_name = 48;

char folded(char letter) noexcept {
  if (letter >= 'A' && letter <= 'Z') return static_cast<char>(letter - 'A' + 'a');
  return letter == '-' ? '_' : letter;
}

// Optimal string alignment: insert, leave out, replace, swap neighbours; each costs one.
std::size_t distance(std::string_view a, std::string_view b) noexcept {
  using Row = std::array<std::size_t, longest_name + 1>;
  Row before_last{}, last{}, row{};
  for (std::size_t j = 0; j <= b.size(); ++j) last[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const bool same = folded(a[i - 1]) == folded(b[j - 1]);
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (same ? 0u : 1u)});
      if (i > 1 && j > 1 && folded(a[i - 1]) == folded(b[j - 2]) &&
          folded(a[i - 2]) == folded(b[j - 1]))
        row[j] = std::min(row[j], before_last[j - 2] + 1);
    }
    before_last = last;
    last = row;
  }
  return last[b.size()];
}

}  // namespace

std::string_view closest_name(std::string_view name,
                              std::span<const std::string_view> known) noexcept {
  if (name.size() > longest_name || std::ranges::find(known, name) != known.end()) return {};
  std::string_view best;
  std::size_t best_distance = std::min<std::size_t>(2, std::max<std::size_t>(1, name.size() / 3));
  ++best_distance;
  for (const auto candidate : known) {
    if (candidate.size() > longest_name) continue;
    const auto found = distance(name, candidate);
    if (found < best_distance) {
      best_distance = found;
      best = candidate;
    }
  }
  return best;
}

std::string described(const json::Value& value) {
  if (value.is_object()) return "is an object";
  if (value.is_array()) return "is a list";
  if (value.is_null()) return "is empty";
  if (!value.is_string()) return fmt::format("is {}", json::dump(value));
  auto text = json::dump(value);
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return fmt::format("is the text {}", text);
}

}  // namespace spilo
