// "Did you mean …?": finds the known name that a misspelt one was probably meant to be.
#pragma once

#include <span>
#include <string_view>

namespace spilo {

// The nearest of `known` when it is near enough to be a slip of the fingers (at most two letters
// inserted, left out, replaced or swapped, and no more than a third of the name); case and the
// difference of '-' and '_' do not count. Empty when nothing is near, or when `name` is known.
std::string_view closest_name(std::string_view name,
                              std::span<const std::string_view> known) noexcept;

}  // namespace spilo
