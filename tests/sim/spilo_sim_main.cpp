// spilo-sim: real supervisors over simulated everything else, on virtual time, disturbed at random.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "spilo/testing/sim_swarm.hpp"

using namespace spilo;
using namespace spilo::testing;

namespace {

struct Arguments {
  std::uint64_t seeds = 2000;
  std::uint64_t first = 1;
  std::string plant = "none";
  std::size_t nodes = 0;
  std::vector<std::string> expect;
  bool trace = false;
  bool verbose = false;
  bool keep_going = false;
};

struct Totals {
  std::uint64_t runs = 0, failed = 0, steps = 0, faults = 0, promotions = 0, rows = 0, lost = 0,
                fired = 0, requests = 0;
  Duration virtual_time{}, slowest_recovery{};
  std::uint64_t hash = 0xcbf29ce484222325u;

  void add(const SwarmReport& report) {
    ++runs;
    failed += report.failed() ? 1 : 0;
    steps += report.steps;
    faults += report.faults;
    promotions += report.promotions;
    rows += report.acknowledged;
    lost += report.lost;
    fired += report.guard_fired;
    requests += report.requests;
    virtual_time += report.virtual_time;
    slowest_recovery = std::max(slowest_recovery, report.recovery);
    hash = (hash ^ report.hash) * 0x100000001b3u;
  }
};

void print_failure(const SwarmPlan& plan, const SwarmReport& report, const Arguments& args) {
  if (!args.trace)
    for (const auto& line : report.last_lines) fmt::print("{}\n", line);
  fmt::print("FAILED {}\n", plan.text());
  for (const auto& text : report.violations) fmt::print("  {}\n", text);
  fmt::print("  to see all of it: spilo-sim --seeds 1 --seed {} --trace{}{}\n",
             plan.cluster.seed,
             args.nodes != 0 ? fmt::format(" --nodes {}", args.nodes) : "",
             args.plant != "none" ? " --plant " + args.plant : "");
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "Runs clusters of real supervisors over a simulated store, PostgreSQL, network and clocks, "
      "with faults drawn from a "
      "seed, and checks that no rule is broken. Equal seeds give equal runs. Exit status: 0 when "
      "nothing was found, 1 when "
      "something was, 2 for bad arguments."};
  Arguments args;
  app.add_option("--seeds", args.seeds, "How many seeds to run")->capture_default_str();
  app.add_option("--seed", args.first, "The first seed")->capture_default_str();
  app.add_option("--nodes", args.nodes, "Nodes of each cluster; drawn from the seed when absent")
      ->check(CLI::Range(1, 9));
  app.add_option(
         "--plant",
         args.plant,
         "A mistake to put in: no-guard, no-lease-margin, no-token-check, no-timeline-check")
      ->check([](const std::string& text) {
        return parse_plant(text) ? std::string() : "there is no plant named " + text;
      });
  app.add_flag("--trace", args.trace, "Print everything that happens");
  app.add_flag("--verbose", args.verbose, "Print each seed's options and result");
  app.add_option("--expect",
                 args.expect,
                 "For --plant: exit with 0 only if the first violation that is found contains this "
                 "text (any, when given more than once), with 1 if another one or none is found");
  app.add_flag("--keep-going", args.keep_going, "Go on after a failure");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }

  std::setvbuf(stdout, nullptr, _IOLBF, 1 << 16);
  const auto started = std::chrono::steady_clock::now();
  const auto plant = *parse_plant(args.plant);
  Totals totals;
  bool found_expected = false;
  for (std::uint64_t seed = args.first; seed < args.first + args.seeds; ++seed) {
    const auto plan =
        draw_plan(seed, args.nodes != 0 ? std::optional(args.nodes) : std::nullopt, plant);
    if (args.verbose || args.trace) fmt::print("{}\n", plan.text());
    std::function<void(std::string_view)> sink;
    if (args.trace) sink = [](std::string_view line) { fmt::print("{}\n", line); };
    const auto report = run_swarm(plan, sink);
    totals.add(report);
    if (args.verbose)
      fmt::print("  {} steps, {} faults, {} promotions, {} rows, recovery {:.1f}s, hash {:016x}\n",
                 report.steps,
                 report.faults,
                 report.promotions,
                 report.acknowledged,
                 std::chrono::duration<double>(report.recovery).count(),
                 report.hash);
    if (!report.failed()) continue;
    if (!args.expect.empty()) {
      const auto& first = report.violations.front();
      found_expected = std::ranges::any_of(args.expect, [&](const std::string& text) {
        return first.find(text) != std::string::npos;
      });
      fmt::print("{} with seed {}: {}\n",
                 found_expected ? "found" : "found something else",
                 seed,
                 first);
      break;
    }
    print_failure(plan, report, args);
    std::fflush(stdout);
    if (!args.keep_going) break;
  }
  const auto took =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  fmt::print(
      "{} seeds from {} in {:.1f}s: {} failed; {:.1f} virtual hours, {} decisions, {} faults, {} "
      "promotions, {} commits "
      "acknowledged ({} lost where none was promised), {} guards fired, {} requests answered, "
      "slowest recovery {:.1f}s; "
      "hash {:016x}\n",
      totals.runs,
      args.first,
      took,
      totals.failed,
      std::chrono::duration<double>(totals.virtual_time).count() / 3600,
      totals.steps,
      totals.faults,
      totals.promotions,
      totals.rows,
      totals.lost,
      totals.fired,
      totals.requests,
      std::chrono::duration<double>(totals.slowest_recovery).count(),
      totals.hash);
  if (!args.expect.empty()) return found_expected ? 0 : 1;
  return totals.failed == 0 ? 0 : 1;
}
