#include "spilo/pg/command.hpp"

#include <doctest/doctest.h>

#include "pg/node.hpp"

using namespace spilo;
using namespace spilo::test;
using namespace std::chrono_literals;

TEST_CASE("run_program: status, output, limits, deadline") {
  Bench bench;
  const auto shell = [&](const std::string& script, Duration limit) {
    pg::Command command("sh");
    command.arg("-c").arg(script);
    return run(bench.io, pg::run_program(bench.clock, command, bench.clock.now() + limit));
  };
  // Nothing of the output may be lost, however the end and the last words race.
  for (int i = 0; i < 100; ++i) {
    const auto outcome = shell("echo first; echo last >&2; exit 3", 30s);
    REQUIRE(outcome.has_value());
    REQUIRE(outcome->how() == "exit status 3");
    REQUIRE(outcome->output == "first\nlast\n");
  }
  const auto large = shell("head -c 1000000 /dev/zero | tr '\\0' x; echo; echo end", 30s);
  REQUIRE(large.has_value());
  CHECK(large->output.size() < 200'000);
  CHECK(large->last_words() == "end");
  // The whole tree ends with it, and the deadline holds.
  const auto begin = steady();
  const auto late = shell("echo begun; sleep 100 & sleep 100", 300ms);
  REQUIRE(late.has_error());
  CHECK(late.error().is(errc::timed_out));
  CHECK(late.error().text().find("begun") != std::string::npos);
  CHECK(ms_since(begin) < 5000);
  // A grandchild that keeps the pipe open does not keep us.
  const auto daemon = shell("sleep 100 & exit 0", 30s);
  REQUIRE(daemon.has_value());
  CHECK(ms_since(begin) < 20'000);
  pg::Command missing("/nowhere/program");
  const auto failed = run(bench.io, pg::run_program(bench.clock, missing, bench.clock.now() + 5s));
  CHECK(failed.error().is(errc::command_failed));
}

TEST_CASE("split_command_line") {
  const auto split = [](const char* text) { return *pg::split_command_line(text); };
  CHECK(split("a  'b c' \"d \\\" e\" f\\ g ''") ==
        std::vector<std::string>{"a", "b c", "d \" e", "f g", ""});
  CHECK(split("").empty());
  CHECK_FALSE(pg::split_command_line("a 'b").has_value());
}
