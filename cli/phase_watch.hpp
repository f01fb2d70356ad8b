// Prints the phases of an operation while it goes on, from the rings of the nodes that take part.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "cli/cluster.hpp"
#include "cli/phases.hpp"

namespace spilo::cli {

// The decisions that one member remembers, after `since`. unsupported: it keeps none (Patroni).
Async<std::vector<Decision>> read_decisions(Cluster& cluster,
                                            Member member,
                                            std::uint64_t since,
                                            TimePoint deadline);

class PhaseWatch {
 public:
  enum class Shows { phases, everything };
  PhaseWatch(Cluster& cluster, std::vector<Member> members, Shows shows = Shows::phases);
  // Notes where each ring stands. Nodes that don't answer are asked again later.
  void begin();
  // Prints what is new; waits for no node longer than `limit`.
  void print_new(Duration limit);

 private:
  struct Ring {
    Member member;
    bool supported = true;
    std::uint64_t next = 0;
  };
  Cluster& cluster_;
  Shows shows_;
  std::vector<Ring> rings_;
  std::optional<WallTime> start_;  // of the first phase
};

}  // namespace spilo::cli
