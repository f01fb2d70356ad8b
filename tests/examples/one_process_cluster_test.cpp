// examples/one_process_cluster: the same time line again and again, and what has to be in it.
#include <doctest/doctest.h>

#include "example.hpp"

using namespace spilo::test;

namespace {

std::string run_with_seed(const TempDir& folder, const std::string& seed) {
  static int runs = 0;
  return run_command({ONE_PROCESS_CLUSTER_PROGRAM, seed}, folder / std::to_string(++runs));
}

}  // namespace

TEST_CASE("one_process_cluster: every seed tells the whole story, and no rule is broken") {
  TempDir folder;
  for (int seed = 1; seed <= 20; ++seed) {
    const auto text = run_with_seed(folder, std::to_string(seed));
    CAPTURE(text);
    CHECK(in_order(text,
                   {"three nodes start",
                    "leads, on timeline 1",
                    "healthy: ",
                    "power lost",
                    "nobody leads",
                    "leads, on timeline 2",
                    "healthy: ",
                    "its agent freezes",
                    "its guard has ended the server",
                    "leads, on timeline 3",
                    "healthy: ",
                    "an operator asks for a switchover",
                    "leads, on timeline 4",
                    "healthy: ",
                    "4 promotions, 0 rows lost, 0 rules broken"}));
  }
}

TEST_CASE("one_process_cluster: equal seeds give equal time lines, to the last digit") {
  TempDir folder;
  const auto first = run_with_seed(folder, "42");
  CHECK(run_with_seed(folder, "42") == first);
  CHECK(run_with_seed(folder, "43") != first);
}
