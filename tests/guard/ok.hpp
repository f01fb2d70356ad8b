// Results in checks: doctest can't print a Result, and a failure without its text helps nobody.
#pragma once

#include <doctest/doctest.h>

#include "spilo/core/error.hpp"

namespace spilo::test {

template <class T>
bool ok(const Result<T>& result) {
  if (!result) MESSAGE(result.error().text());
  return result.has_value();
}

}  // namespace spilo::test
