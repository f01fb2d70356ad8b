// The Peers port over the other nodes' REST interface.
#pragma once

#include <memory>
#include <string>

#include "spilo/net/http.hpp"
#include "spilo/ports/peers.hpp"

namespace spilo::net {

struct HttpPeersOptions {
  // For members whose api_url is https. Patroni checks a member's certificate only when it has a
  // client certificate of its own (ctl.certfile); the caller decides by tls.verify.
  HttpClientOptions http;
  std::string user;  // basic authentication (ctl.authentication, else restapi's); empty: none
  std::string password;
};

// One strand of execution. Connections to the members are kept alive between questions.
class HttpPeers final : public Peers {
 public:
  HttpPeers(boost::asio::any_io_executor executor, Clock& clock, HttpPeersOptions options);

  Async<PeerStatus> probe(NodeName node, std::string api_url, TimePoint deadline) override;
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
