// Writes numbered rows through every node that takes them, and remembers which were acknowledged.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace writer {

// CLOCK_BOOTTIME, so that all clients and agents of the machine count alike.
std::int64_t now_ns();

struct Options {
  std::vector<std::string> nodes;  // connection strings, one for each node
  std::string file;                // acknowledged rows: "NUMBER NODE NANOSECONDS", one a line
  std::int64_t pause_us = 1000;    // between an answer and the next row, on each connection
  std::int64_t timeout_ms = 2000;  // a connection that does not answer for so long is dropped
  std::int64_t probe_us = 5000;    // how often a node that takes no writes is asked again
  double seconds = 0;              // 0: until SIGTERM or SIGINT
};

// Runs until it is told to stop. One connection a node, all in one thread and without waiting for
// any: a frozen node delays nothing. Each node is written to for as long as it takes writes, so
// that two nodes that acknowledge rows at the same time are both caught.
int run(const Options& options);

struct ReportOptions {
  std::vector<std::string> nodes;  // where to look for the rows; empty: don't
  std::string file;
  std::int64_t since_ns = 0;
  std::int64_t until_ns = INT64_MAX;
  double gap_ms = 50;  // shorter pauses are not listed
  bool as_json = false;
};

struct Ack {  // one row that was acknowledged
  std::int64_t number = 0;
  int node = 0;         // an index into Options::nodes
  std::int64_t at = 0;  // on the clock of now_ns()
};

struct Gap {
  double ms = 0;
  std::int64_t from = 0;  // the acknowledgement before it
  int before = 0;
  int after = 0;
};

struct Findings {
  std::size_t acknowledged = 0;
  double longest_ms = 0;
  std::vector<Gap> gaps;
  // How often two nodes acknowledged a row within a moment.
  std::size_t side_by_side = 0;
  std::vector<Ack> missing;  // acknowledged, and not there
  bool looked = false;       // whether `missing` says anything
};

// What `run` noted within the options' times, in the order of the acknowledgements.
std::vector<Ack> read_acks(const ReportOptions& options);
// Outages of at least `gap_ms` and rows side by side. Nothing is asked of a server.
Findings examine(const std::vector<Ack>& acks, double gap_ms);
// Looks for the rows on whichever node is a primary. False: none shows them.
bool find_missing(const std::vector<Ack>& acks,
                  const std::vector<std::string>& nodes,
                  Findings& found);

// Status 0: every acknowledged row is there and no two nodes acknowledged rows side by side.
// 1: rows are missing. 2: two nodes acknowledged side by side. 3: the rows could not be read.
int report(const ReportOptions& options);

}  // namespace writer
