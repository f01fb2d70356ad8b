// Words for messages about configuration: "did you mean …?", and what a value is.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "spilo/core/json.hpp"

namespace spilo {

// The nearest of `known` when it is near enough to be a slip of the fingers (at most two letters
// inserted, left out, replaced or swapped, and no more than a third of the name); case and the
// difference of '-' and '_' do not count. Empty when nothing is near, or when `name` is known.
std::string_view closest_name(std::string_view name,
                              std::span<const std::string_view> known) noexcept;

// "is the text \"10s\"", "is a list", "is empty": names a value without pouring out documents. Not
// for secrets.
std::string described(const json::Value& value);

}  // namespace spilo
