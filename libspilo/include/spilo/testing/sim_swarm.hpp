// One randomly disturbed run of a simulated cluster. Everything is drawn from the seed, the options
// and the kinds of faults too (so that some runs suffer much of one thing and nothing of another).
// First comes a time of faults, in which only safety counts; then everything is healed, and the
// cluster must become healthy, stay so, and carry out a switchover without losing a commit.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "spilo/testing/sim_cluster.hpp"

namespace spilo::testing {

// A known mistake, put in on purpose: a simulator that does not find it is worth nothing.
enum class Plant { none, no_guard, no_lease_margin, no_token_check, no_timeline_check };
std::string_view to_text(Plant plant) noexcept;
std::optional<Plant> parse_plant(std::string_view text) noexcept;

// Kinds of faults. The weight says how often one is chosen among all; zero means never.
struct SwarmWeights {
  unsigned crash_agent = 0;
  unsigned freeze_agent = 0;
  unsigned kill_server = 0;
  unsigned hang_server = 0;
  unsigned kill_host = 0;
  unsigned stop_agent = 0;
  unsigned cut_store = 0;  // one host from the store
  unsigned cut_hosts = 0;  // hosts from one another, symmetrically or not
  unsigned isolate = 0;    // one host from everything
  unsigned store_down = 0;
  unsigned store_flaky = 0;
  unsigned guard_dies = 0;
  unsigned step_wall = 0;
  unsigned bad_server = 0;  // promote, rewind, copy, start fail; stops are slow
  unsigned lag = 0;
  unsigned lose_data = 0;
  unsigned switchover = 0;
  unsigned request = 0;       // restart, reinitialize, reload
  unsigned expire_early = 0;  // the store breaks its promise
  unsigned wipe_store = 0;
  unsigned change_ttl = 0;  // an operator edits the configuration while the cluster runs
};

struct SwarmPlan {
  SimCluster::Options cluster;
  SwarmWeights weights;
  Duration fault_phase{};
  Duration fault_gap_max{};
  Duration fault_length_max{};
  Duration linger_max{};  // sessions live up to this much longer than promised
  Plant plant = Plant::none;
  std::string text() const;  // one line for people
};

SwarmPlan draw_plan(std::uint64_t seed, std::optional<std::size_t> nodes, Plant plant);

struct SwarmReport {
  std::vector<std::string> violations;  // empty: all is well
  std::vector<std::string> last_lines;
  std::uint64_t hash = 0;
  std::uint64_t steps = 0;
  std::uint64_t faults = 0;
  std::uint64_t promotions = 0;
  std::uint64_t rows = 0;
  std::uint64_t acknowledged = 0;
  std::uint64_t lost = 0;  // where losing is allowed
  std::uint64_t guard_fired = 0;
  std::uint64_t requests = 0;
  Duration virtual_time{};
  Duration recovery{};  // from healing to healthy
  bool failed() const noexcept { return !violations.empty(); }
};

// `trace` gets every line of the record.
SwarmReport run_swarm(const SwarmPlan& plan, std::function<void(std::string_view)> trace = {});

}  // namespace spilo::testing
