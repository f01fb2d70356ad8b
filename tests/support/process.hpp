// Child processes for doctest programs: what child.hpp has, and the log of a child is printed when
// the test case in progress has failed.
#pragma once

#include <doctest/doctest.h>

#include "support/child.hpp"

namespace spilo::test {

// Knows whether a check of the test case in progress has failed, which doctest tells only to its
// listeners.
struct FailureListener : doctest::IReporter {
  static inline bool& failed = something_failed;
  explicit FailureListener(const doctest::ContextOptions&) {}
  void report_query(const doctest::QueryData&) override {}
  void test_run_start() override {}
  void test_run_end(const doctest::TestRunStats&) override {}
  void test_case_start(const doctest::TestCaseData&) override { failed = false; }
  void test_case_reenter(const doctest::TestCaseData&) override {}
  void test_case_end(const doctest::CurrentTestCaseStats&) override {}
  void test_case_exception(const doctest::TestCaseException&) override { failed = true; }
  void subcase_start(const doctest::SubcaseSignature&) override {}
  void subcase_end() override {}
  void log_assert(const doctest::AssertData& data) override { failed = failed || data.m_failed; }
  void log_message(const doctest::MessageData&) override {}
  void test_case_skipped(const doctest::TestCaseData&) override {}
};
inline const int failure_listener = doctest::registerReporter<FailureListener>("spilo", 1, false);

}  // namespace spilo::test
