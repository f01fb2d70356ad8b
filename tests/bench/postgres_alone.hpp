// The floor: PostgreSQL's own replication, one primary and two standbys, no agent. What a failover
// costs when somebody with perfect knowledge does it by hand.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "support/child.hpp"

namespace bench {

class PostgresAlone {
 public:
  // Everything lies below `directory`.
  explicit PostgresAlone(const std::string& directory);
  ~PostgresAlone();

  std::vector<std::string> conninfos() const;  // for a client; the order of the nodes
  int primary() const noexcept { return primary_; }

  // CHECKPOINT while serving, fast stop, promotion of a standby that has everything.
  void switch_over();
  // SIGKILL for the postmaster, promotion of a standby at once.
  void kill_and_promote();
  // Two fresh standbys of whoever is the primary now.
  void rebuild();

 private:
  struct Server {
    std::string data_dir;
    std::uint16_t port = 0;
    std::unique_ptr<spilo::test::Process> process;
  };
  std::string conninfo(int node) const;
  void configure(const Server& server) const;
  void start(Server& server);
  void await_answers(int node);
  void end(Server& server);
  void promote_after(int signal, bool wait_for_end);

  std::string directory_;
  std::array<Server, 3> servers_;
  int primary_ = 0;
};

}  // namespace bench
