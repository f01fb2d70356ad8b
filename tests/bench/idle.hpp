// What an idle node takes.
#pragma once

#include <chrono>
#include <optional>
#include <vector>

#include "cluster.hpp"

namespace bench {

struct NodeFootprint {
  bool leads = false;
  double rss_mib = 0;
  double pss_mib = 0;
  int processes = 0;
  int threads = 0;
  double cpu_ms_per_minute = 0;
};

struct IdleFigures {
  std::vector<NodeFootprint> nodes;
  // Of all nodes together in the window; nothing when the store counts none.
  std::optional<StoreCalls> calls;
  double minutes = 0;
};

// Waits until the cluster writes no WAL any more, then looks on for that long.
IdleFigures watch_idle(Cluster& cluster, std::chrono::seconds window);

}  // namespace bench
