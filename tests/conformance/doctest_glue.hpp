// Runs the conformance suite inside a doctest case: prints a line for each case and fails the test
// with the text of each one that failed. SPILO_CONFORMANCE_ONLY=prefix in the environment picks
// cases.
#pragma once

#include <doctest/doctest.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <stdexcept>
#include <string>
#include <utility>

#include "spilo/runtime/system_clock.hpp"
#include "spilo/testing/dcs_conformance.hpp"

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

// A subject on a real io_context and the real clock. The clients of a derived class must be
// destroyed before this base, which the order of destruction gives by itself.
class IoSubject : public Subject {
 public:
  IoSubject() : io_(1), clock_(io_.get_executor()) {}

  Clock& clock() override { return clock_; }
  // A client's background work may keep the context busy for ever, so the end of `work` is what
  // counts.
  void run_until(boost::asio::awaitable<void> work) override {
    bool ended = false;
    std::exception_ptr failure;
    boost::asio::co_spawn(io_, std::move(work), [&](std::exception_ptr thrown) {
      failure = thrown;
      ended = true;
    });
    while (!ended) {
      if (io_.stopped()) io_.restart();
      if (io_.run_one() == 0 && !ended)
        throw std::logic_error("the case waits for something that nobody will complete");
    }
    if (failure) std::rethrow_exception(failure);
  }

 protected:
  boost::asio::io_context& io() noexcept { return io_; }
  SystemClock& system_clock() noexcept { return clock_; }

 private:
  boost::asio::io_context io_;
  SystemClock clock_;
};

}  // namespace spilo::testing::dcs_conformance
