// The measured cluster: three spilod nodes on one store.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "rest_client.hpp"
#include "store_server.hpp"
#include "support/child.hpp"

namespace bench {

struct Timing {
  int ttl = 10;
  int loop_wait = 2;
  int retry_timeout = 4;
  bool autovacuum = true;  // off: what nobody asked for writes no WAL
};

class Cluster {
 public:
  // Starts it and waits until two replicas stream. `programs` is where spilod is.
  Cluster(const std::string& programs,
          const std::string& directory,
          const std::string& store,
          Timing timing);
  ~Cluster();

  std::vector<std::string> conninfos() const;  // for a client; the order of the nodes
  int leader();                                // waits for one
  // Every replica streams from the leader, whose last checkpoint is fresh.
  void settle();

  // ---- what can happen to a node ----------------------------------------------------------------
  void switch_over(int leader);  // returns when the REST interface has answered
  void kill_postmaster(int node) const;
  void signal_agent(int node, int signal) const;
  void kill_node(int node) const;  // agent, guard and server at once
  // Waits until an agent that is to end has ended and starts it again, or lets a frozen one go on.
  // Returns when the cluster is whole and the agent may lead like any other.
  void repair(int node, bool ended);

  // ---- what a node takes ------------------------------------------------------------------------
  std::vector<pid_t> agent_and_guard(int node) const;
  StoreServer& store() noexcept { return *store_; }
  RestClient& rest_client() noexcept { return rest_; }
  std::string conninfo(int node) const;
  // The last lines of each node's log.
  std::string logs() const;

 private:
  struct Node {
    std::string name;
    std::string directory;
    std::string data_dir;
    std::uint16_t rest_port = 0;
    std::uint16_t pg_port = 0;
    std::unique_ptr<spilo::test::Process> agent;
  };
  std::string yaml(const Node& node) const;
  const Node& at(int node) const { return nodes_[static_cast<std::size_t>(node)]; }
  void end(Node& node) const;

  std::string programs_;
  std::string directory_;
  Timing timing_;
  std::unique_ptr<StoreServer> store_;
  std::array<Node, 3> nodes_;
  RestClient rest_;
};

}  // namespace bench
