// The `tags:` of a member, as the contract reads them (patroni-contract 8.1).
#pragma once

#include "spilo/core/ids.hpp"
#include "spilo/core/json.hpp"

namespace spilo {

struct Tags {
  bool nofailover = false;    // also when failover_priority <= 0 and nofailover is absent
  int failover_priority = 1;  // higher is preferred at equal WAL position
  bool nosync = false;
  int sync_priority = 1;
  bool clonefrom = false;
  bool noloadbalance = false;
  bool nostream = false;
  NodeName replicatefrom;  // empty: follow the leader
  json::Value all;         // as written, order and types kept; published and shown
  bool operator==(const Tags&) const = default;
};

Tags parse_tags(const json::Value& object);
// What is published: false or empty clonefrom, nofailover, noloadbalance, nosync, nostream are
// dropped, except nofailover beside failover_priority and nosync beside sync_priority.
json::Value published_tags(const Tags& tags);

}  // namespace spilo
