#include "spilo/core/assert.hpp"

#include <cstdio>
#include <cstdlib>

namespace spilo {
void assertion_failed(const char* expression,
                      const char* file,
                      int line,
                      const std::string& message) {
  std::fprintf(
      stderr, "spilo: broken invariant %s at %s:%d: %s\n", expression, file, line, message.c_str());
  std::abort();
}
}  // namespace spilo
