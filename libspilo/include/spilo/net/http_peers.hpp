// The Peers port over the REST interface of the other nodes, ours or Patroni's.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <string>

#include "spilo/net/http.hpp"
#include "spilo/ports/peers.hpp"

namespace spilo::net {

struct HttpPeersOptions {
  TlsOptions tls;        // for https api_urls; with our certificate where they ask for one
  std::string username;  // what the cluster's restapi.authentication says; empty: none
  std::string password;
};

// One strand of execution; destroy it after its operations have completed.
class HttpPeers final : public Peers {
 public:
  HttpPeers(boost::asio::any_io_executor executor, Clock& clock, HttpPeersOptions options);

  Async<PeerStatus> probe(NodeName node, std::string api_url, TimePoint deadline) override;
  // One repetition when the connection was lost before an answer, as the contract has it: to
  // promise twice is to promise once.
  Async<FailsafeAnswer> ask_failsafe(NodeName node,
                                     std::string api_url,
                                     std::string body,
                                     TimePoint deadline) override;

 private:
  Clock& clock_;
  std::string authorization_;
  HttpClient client_;
};

}  // namespace spilo::net
