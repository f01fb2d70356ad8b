// What is known about znodes, and how a transaction becomes operations of one multi. Pure; private.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "spilo/ports/dcs.hpp"

namespace spilo::zookeeper {

struct Node {  // what Stat says
  std::int64_t czxid = 0;
  std::int32_t version = 0;
  std::int64_t owner = 0;  // the session that it is bound to
  std::int32_t children = 0;
  bool operator==(const Node&) const = default;
};
dcs::Version version_of(const Node& node) noexcept;
SessionId session_name(std::int64_t id);

// One operation of a multi. create makes an empty znode; a set that follows gives it its value, and
// tells, in the same breath, its czxid.
struct Step {
  enum class Kind { check, create, set, erase };
  Kind kind = Kind::check;
  std::string path;
  std::string value;
  std::int32_t version = -1;  // check, set, erase; -1: any
  bool ephemeral = false;     // create
};

// The znodes of one scope, by key, as they were seen at or after the moment when the scope's own
// znode had the version `life`. Absence is never remembered.
class Known {
 public:
  std::optional<std::int32_t> life() const noexcept { return life_; }
  const Node* find(const std::string& key) const;
  // The scope's znode was seen at this version, before anything that is put in afterwards.
  void see_life(std::int32_t version);
  // The scope's znode was rewritten by a transaction of ours, from which the nodes come that are
  // put in afterwards.
  void see_own_life(std::int32_t version);
  void put(const std::string& key, const Node& node) { nodes_[key] = node; }
  void erase(const std::string& key) { nodes_.erase(key); }
  void clear();

 private:
  std::map<std::string, Node> nodes_;
  std::optional<std::int32_t> life_;
};

class Plan {
 public:
  std::vector<Step> steps;
  std::vector<std::pair<std::string, std::size_t>>
      written;  // key, and the step that gives its Node
  std::vector<std::string> erased;
  std::optional<std::size_t> life_step;  // the step that rewrites the scope's znode
  bool creates = false;
};

// The keys whose znodes have to be known before the transaction can be planned.
std::vector<std::string> unknown_keys(const dcs::Transaction& transaction, const Known& known);

// `known` holds every key that is present; with `fresh` what it does not hold is absent.
// conflict: a requirement does not hold. Nothing: something has to be looked at first.
Result<std::optional<Plan>> make_plan(const dcs::Transaction& transaction,
                                      const Known& known,
                                      bool fresh,
                                      std::string_view base,
                                      std::int64_t session);

// Every folder above the keys that the plan creates, outermost first.
std::vector<std::string> folders_of(const Plan& plan);

// Keys must be what the library takes as a path; nothing when it does.
std::optional<std::string> why_no_key(std::string_view key);

// The number of complete answers to requests in the bytes of a connection, and whether the last of
// them tells success. Events and answers to pings are none.
struct Answers {
  int count = 0;
  bool last_is_good = false;
};
Answers count_answers(std::string_view bytes);

}  // namespace spilo::zookeeper
