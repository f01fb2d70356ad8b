// The Peers port over the world's network: a question runs on the node of the one that is asked, as
// its REST handler would.
#pragma once

#include <functional>
#include <map>
#include <string>

#include "spilo/ports/peers.hpp"
#include "spilo/testing/sim_network.hpp"
#include "spilo/testing/sim_world.hpp"

namespace spilo::testing {

// Who can be asked. An agent registers when it starts and is taken out when it ends; a frozen one
// stays and does not answer.
class SimPhoneBook {
 public:
  struct Line {
    NodeId node{};
    std::size_t host = 0;
    // Both run on `node`.
    std::function<boost::asio::awaitable<PeerStatus>()> status;
    std::function<boost::asio::awaitable<FailsafeAnswer>(std::string body)> failsafe;
  };
  void enter(const NodeName& name, Line line) { lines_[name] = std::move(line); }
  void remove(const NodeName& name) { lines_.erase(name); }
  const Line* find(const NodeName& name) const {
    const auto found = lines_.find(name);
    return found == lines_.end() ? nullptr : &found->second;
  }

 private:
  std::map<NodeName, Line> lines_;
};

class SimPeers final : public Peers {
 public:
  SimPeers(SimWorld& world, SimNetwork& network, SimPhoneBook& book, NodeId node, std::size_t host)
      : world_(world), network_(network), book_(book), node_(node), host_(host) {}
  Async<PeerStatus> probe(NodeName node, std::string api_url, TimePoint deadline) override;
  Async<FailsafeAnswer> ask_failsafe(NodeName node,
                                     std::string api_url,
                                     std::string body,
                                     TimePoint deadline) override;

 private:
  template <class T>
  boost::asio::awaitable<T> ask(
      NodeName name,
      TimePoint deadline,
      std::function<boost::asio::awaitable<T>(const SimPhoneBook::Line&)> question);

  SimWorld& world_;
  SimNetwork& network_;
  SimPhoneBook& book_;
  NodeId node_;
  std::size_t host_;
};

}  // namespace spilo::testing
