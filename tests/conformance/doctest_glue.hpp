// Runs the conformance suite inside a doctest case: prints a line for each case and fails the test
// with the text of each one that failed. SPILO_CONFORMANCE_ONLY=prefix in the environment picks
// cases.
#pragma once

#include <doctest/doctest.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "spilo/testing/dcs_conformance.hpp"
#include "spilo/testing/io_subject.hpp"

namespace spilo::testing::dcs_conformance {

inline void check_conformance(Subject& subject) {
  const char* only = std::getenv("SPILO_CONFORMANCE_ONLY");
  int passed = 0;
  const auto outcomes = run_all(
      subject,
      [](const Outcome& outcome) {
        std::printf("%s\n", to_text(outcome).c_str());
        std::fflush(stdout);
      },
      only != nullptr ? only : "");
  for (const Outcome& outcome : outcomes) {
    if (outcome.verdict == Verdict::passed) ++passed;
    CHECK_MESSAGE(outcome.verdict != Verdict::failed, to_text(outcome));
  }
  // A picked case may be one that this subject skips.
  CHECK((passed > 0 || only != nullptr));
}

}  // namespace spilo::testing::dcs_conformance
