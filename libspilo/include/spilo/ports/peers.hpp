// Asking the other nodes of the cluster, over their REST API.
#pragma once

#include <string>

#include "spilo/model/peer_status.hpp"
#include "spilo/ports/async.hpp"

namespace spilo {

class Peers {
 public:
  virtual ~Peers() = default;
  // GET api_url. Failures are a PeerStatus with reachable == false, not an error. Several may run
  // at the same time.
  virtual Async<PeerStatus> probe(NodeName node, std::string api_url, TimePoint deadline) = 0;
  // POST <api_url base>/failsafe with that body (contract 3.9).
  virtual Async<FailsafeAnswer> ask_failsafe(NodeName node,
                                             std::string api_url,
                                             std::string body,
                                             TimePoint deadline) = 0;
};

}  // namespace spilo
