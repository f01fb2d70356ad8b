// Which simulated hosts can reach which, one direction at a time, and how long a message takes.
#pragma once

#include <cstddef>
#include <set>
#include <utility>

#include "spilo/testing/sim_world.hpp"

namespace spilo::testing {

// Hosts are numbered by whoever uses this (SimCluster: in the order of the nodes).
class SimNetwork {
 public:
  explicit SimNetwork(SimWorld& world) : rng_(world.rng().fork("network")) {}

  bool reaches(std::size_t from, std::size_t to) const { return !cut_.contains({from, to}); }
  // What TCP needs.
  bool connected(std::size_t a, std::size_t b) const { return reaches(a, b) && reaches(b, a); }
  void cut(std::size_t from, std::size_t to) { cut_.insert({from, to}); }
  void cut_both(std::size_t a, std::size_t b) {
    cut(a, b);
    cut(b, a);
  }
  void heal() { cut_.clear(); }
  bool whole() const noexcept { return cut_.empty(); }

  Duration latency_min = std::chrono::microseconds(100);
  Duration latency_max = std::chrono::milliseconds(2);
  Duration delay() { return rng_.between(latency_min, latency_max); }

 private:
  Rng rng_;
  std::set<std::pair<std::size_t, std::size_t>> cut_;
};

}  // namespace spilo::testing
