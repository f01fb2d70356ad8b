// What another node's REST endpoint says about itself (patroni-contract 5.5), as far as an election
// needs it.
#pragma once

#include <string>

#include "spilo/core/ids.hpp"
#include "spilo/core/time.hpp"

namespace spilo {

struct PeerStatus {
  NodeName node;
  bool reachable =
      false;  // it answered with an `xlog` object; a server that is down counts as unreachable
  // Its agent answered, and says that its server is no primary and is not being made one: also when
  // the server is down.
  bool answered = false;
  bool in_recovery = true;
  bool nofailover = false;
  bool watchdog_failed = false;
  int failover_priority = 1;
  TimelineId timeline{};
  Lsn lsn{};             // max(received, replayed) in recovery, else 0
  TimePoint asked_at{};  // evidence is as old as the question
  std::string problem;   // why it is not reachable
  bool operator==(const PeerStatus&) const = default;
};

// The answer to POST /failsafe.
struct FailsafeAnswer {
  NodeName node;
  bool accepted = false;
  Lsn lsn{};
  std::string problem;
  bool operator==(const FailsafeAnswer&) const = default;
};

}  // namespace spilo
