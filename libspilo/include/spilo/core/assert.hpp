// Assertions stay on in every build: a node that has lost its invariants must stop, and its guard
// ends PostgreSQL in time.
#pragma once

#include <string>

namespace spilo {
// Prints expression, place and message to standard error and aborts.
[[noreturn]] void assertion_failed(const char* expression,
                                   const char* file,
                                   int line,
                                   const std::string& message);
}  // namespace spilo

// SPILO_ASSERT(condition, "both sides, formatted with fmt::format by the caller")
#define SPILO_ASSERT(condition, message) \
  (static_cast<bool>(condition)          \
       ? void(0)                         \
       : ::spilo::assertion_failed(#condition, __FILE__, __LINE__, (message)))
