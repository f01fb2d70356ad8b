// What a node shows to the outside: an immutable picture that the supervisor replaces after every
// step. REST handlers read it without touching the machine, so health checks answer whatever the
// store or PostgreSQL are doing.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "spilo/ha/facts.hpp"

namespace spilo {

// One change of decision: why did it do that?
struct DecisionRecord {
  std::uint64_t sequence = 0;
  WallTime wall{};
  TimePoint at{};
  NodeName node;
  std::string rule;
  std::string sentence;  // what the node did and why
  std::string event;     // what made it decide
  json::Value inputs;  // the facts it was decided on: role, lease left, leader, timeline, positions
};

struct PublicStatus {
  ha::Identity identity;
  std::optional<NodeView> node;
  std::optional<ClusterView> cluster;  // last successful read
  bool store_answers = false;
  std::string store_problem;
  WallTime store_last_seen{};  // last answer with authority
  bool holds_lock =
      false;  // as of this picture; compare lock_valid_until with the clock when it is read
  TimePoint lock_valid_until{};  // safe_until of the decision: /primary is 200 only before it
  std::uint64_t token = 0;       // fencing token of our grant, 0 without the lock
  bool failsafe_active = false;
  bool watchdog_failed = false;  // no guard, or no device that is required: this node can't lead
  std::string task;   // what the running task is and how far, empty when idle
  std::string state;  // contract 2: "running", "creating replica", …
  std::string role;   // contract 2: "primary", "replica", "demoted", …
  std::string rule;
  std::string summary;
  TimePoint alive_until{};    // /liveness: the machine stepped recently enough
  std::uint64_t version = 0;  // counts the pictures
};

// One strand of execution.
class StatusBoard {
 public:
  explicit StatusBoard(std::size_t ring = 200) : ring_(ring) {}
  std::shared_ptr<const PublicStatus> get() const noexcept { return status_; }
  void publish(std::shared_ptr<const PublicStatus> status);
  void record(DecisionRecord record);
  const std::deque<DecisionRecord>& records() const noexcept { return records_; }
  // Called after every publish, on the executor; returns an id for unsubscribe(). For waiting
  // operations.
  int subscribe(std::function<void()> changed);
  void unsubscribe(int id);

 private:
  std::size_t ring_;
  std::shared_ptr<const PublicStatus> status_ = std::make_shared<PublicStatus>();
  std::deque<DecisionRecord> records_;
  std::vector<std::pair<int, std::function<void()>>> listeners_;
  int next_id_ = 1;
};

}  // namespace spilo
