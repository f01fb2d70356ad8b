#include "spilo/core/ids.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>

namespace spilo {

std::string to_text(Lsn lsn) {
  return fmt::format("{:X}/{:X}", to_int(lsn) >> 32, to_int(lsn) & 0xffffffffu);
}

std::optional<Lsn> parse_lsn(std::string_view text) noexcept {
  const auto slash = text.find('/');
  if (slash == std::string_view::npos) return {};
  const auto half = [](std::string_view digits) -> std::optional<std::uint64_t> {
    std::uint32_t value = 0;
    const auto* end = digits.data() + digits.size();
    const auto [stop, ec] = std::from_chars(digits.data(), end, value, 16);
    if (ec != std::errc{} || stop != end) return {};
    return value;
  };
  const auto high = half(text.substr(0, slash));
  const auto low = half(text.substr(slash + 1));
  if (!high || !low) return {};
  return Lsn{(*high << 32) | *low};
}

bool is_valid(const SystemId& id) noexcept {
  const auto& text = id.str();
  return text.size() >= 10 &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

}  // namespace spilo
