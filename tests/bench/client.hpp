// The client whose outage counts: spilo-writer as a process of its own, and what it saw.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "support/child.hpp"
#include "writer.hpp"

namespace bench {

struct Outage {
  double ms = 0;  // between the last row that the old primary acknowledged and the first of the new
  std::size_t stale = 0;  // rows that the old one acknowledged after the new one's first
  std::size_t lost = 0;   // rows that were acknowledged and are not on the new one
};

// Writes from construction to destruction.
class Client {
 public:
  // `program` is spilo-writer, `nodes` are connection strings.
  Client(const std::string& program, const std::string& directory, std::vector<std::string> nodes);

  // Which node takes the rows; waits until it has taken some more.
  int primary();
  // Waits until a node other than `old` takes rows, and has taken some.
  void await_successor(int old, std::chrono::seconds limit);
  // Stops, and tells what a failover from `old` cost. Throws Failure when there was none.
  Outage outage(int old);

 private:
  void read_more();

  std::vector<std::string> nodes_;
  std::string file_;
  std::unique_ptr<spilo::test::Process> process_;
  std::string rest_;  // of a line that is not complete yet
  std::streamoff read_ = 0;
  std::vector<writer::Ack> acks_;
};

}  // namespace bench
