// The rules that no run may break, each an object of its own that knows the truth: what servers
// really acknowledged, who really held the lock, and when sessions really ended. Nothing here asks
// the code under test what it believes, except where a belief itself is the rule (LeaseChecker).
//
// A broken rule becomes a violation of the world.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "spilo/ha/machine.hpp"
#include "spilo/testing/sim_dcs.hpp"
#include "spilo/testing/sim_guard.hpp"
#include "spilo/testing/sim_server.hpp"

namespace spilo::testing {

// What all checkers look at.
struct Truth {
  SimWorld& world;
  SimDcs& dcs;
  Scope scope;
  // Until then the store's promises are known to be broken (a session ended early, everything
  // wiped): two nodes may both rightly believe that they lead.
  TimePoint promises_broken_until{};

  bool promises_hold() const { return world.now() >= promises_broken_until; }
  std::string holder() const {  // of the leader key; empty: nobody
    const auto key = dcs.peek(scope, "leader");
    return key ? key->value : std::string();
  }
};

// One writable primary at any time, and an old one acknowledges nothing after a newer one became
// writable or the lock has another holder.
class SplitBrainChecker final : public ServerWatcher {
 public:
  explicit SplitBrainChecker(Truth& truth) : truth_(truth) {}
  void became_writable(SimServer& server) override;
  void no_longer_writable(SimServer& server) override;
  void acknowledged(SimServer& server, std::uint64_t row) override;

 private:
  Truth& truth_;
  std::map<std::string, std::uint64_t> writable_;  // name -> period
  std::uint64_t newest_period_ = 0;
  std::string newest_;
};

// A primary that another one has followed is never granted the lock again: not even a store that broke its
// promise excuses that, because the token of the leadership tells. Only a store that was wiped has none.
class TokenChecker final : public ServerWatcher {
 public:
  explicit TokenChecker(Truth& truth) : truth_(truth) {}
  void became_writable(SimServer& server) override;
  // After each change of the store, with the server of the lock's holder if there is one.
  void store_changed(const SimServer* holder);

 private:
  Truth& truth_;
  std::string last_holder_;
  std::uint64_t newest_period_ = 0;
  std::string newest_;
};

// Who lives on promises has them: every member that it counts on really holds the lock back until then.
// An agent that has started since has forgotten its promise; others must answer it before it may race.
// Called after each decision.
class FailsafeChecker {
 public:
  FailsafeChecker(Truth& truth, Duration drift_allowance)
      : truth_(truth), allowance_(drift_allowance) {}
  void agent_started(const NodeName& node);
  void after_step(NodeId node, const ha::Machine& machine);
  // Does that node live on promises just now?
  bool lives_on_promises(const std::string& name) const;

 private:
  struct Belief {
    TimePoint started{};         // of its agent's present life
    NodeName promised_to;        // its own promise
    TimePoint promised_until{};  // by the world's clock, like all of these
    TimePoint lives_until{};     // on the promises of the others
  };
  Truth& truth_;
  Duration allowance_;
  std::map<NodeName, Belief> beliefs_;
};

// A promotion needs the lock, and never leads back to an older timeline than the store has seen. Only
// who lives on promises may start its own primary again without it, while nobody else has it.
class PromotionChecker final : public ServerWatcher {
 public:
  PromotionChecker(Truth& truth, const FailsafeChecker& failsafe)
      : truth_(truth), failsafe_(failsafe) {}
  void promotion_began(SimServer& server) override;

 private:
  Truth& truth_;
  const FailsafeChecker& failsafe_;
};

// Commits that were acknowledged are there on the next primary: always when `none_may_be_lost`
// (every commit waited for all standbys), and for a switchover between expect_all() and the next
// promotion.
class LostCommitChecker final : public ServerWatcher {
 public:
  LostCommitChecker(Truth& truth, bool none_may_be_lost)
      : truth_(truth), none_may_be_lost_(none_may_be_lost) {}
  void became_writable(SimServer& server) override;
  void acknowledged(SimServer& server, std::uint64_t row) override;
  // From here on nothing that `primary` has may be lost. What it does not have was lost before, by the
  // failovers until now.
  void expect_all(const SimServer& primary);
  std::uint64_t acknowledged_count() const noexcept { return acknowledged_.size(); }
  std::uint64_t lost_count() const noexcept { return lost_; }
  TimePoint last_acknowledged() const noexcept { return last_; }

 private:
  // Stops expecting what the server lacks, and says how much that is. `example`: one of the rows.
  std::uint64_t forget_missing(const SimServer& server, std::uint64_t& example);

  Truth& truth_;
  bool none_may_be_lost_;
  bool expect_all_ = false;
  std::vector<std::uint64_t> acknowledged_;  // still expected to be somewhere
  std::uint64_t lost_ = 0;
  TimePoint last_{};
};

// A standby never applies a log that differs from its own.
class DivergenceChecker final : public ServerWatcher {
 public:
  explicit DivergenceChecker(Truth& truth) : truth_(truth) {}
  void diverged_unnoticed(SimServer& standby, SimServer& upstream) override;

 private:
  Truth& truth_;
  std::set<std::pair<std::string, std::string>> told_;
};

// No node believes in its session, and no guard in its deadline, beyond the session's true end.
// Called after each decision.
class LeaseChecker {
 public:
  LeaseChecker(Truth& truth, Duration drift_allowance)
      : truth_(truth), allowance_(drift_allowance) {}
  void after_step(NodeId node, const ha::Machine& machine, const SimGuard& guard);

 private:
  Truth& truth_;
  Duration allowance_;
  std::map<NodeId, TimePoint> promised_;  // by the node's clock
};

// Each request of an operator is answered exactly once, unless its agent ended first.
class RequestChecker {
 public:
  explicit RequestChecker(Truth& truth) : truth_(truth) {}
  std::uint64_t asked(NodeId node);
  void answered(std::uint64_t request, int status);
  void agent_ended(NodeId node);
  std::size_t open() const noexcept;
  std::uint64_t answered_count() const noexcept { return answered_; }
  // To be called once everything has had time to be answered.
  void check_all_answered();

 private:
  struct Request {
    NodeId node{};
    int answers = 0;
    bool void_ = false;
  };
  Truth& truth_;
  std::vector<Request> requests_;
  std::uint64_t answered_ = 0;
};

// All of the above that watch servers, as one.
class WatcherList final : public ServerWatcher {
 public:
  void add(ServerWatcher& watcher) { list_.push_back(&watcher); }
  void promotion_began(SimServer& server) override {
    for (auto* one : list_) one->promotion_began(server);
  }
  void became_writable(SimServer& server) override {
    for (auto* one : list_) one->became_writable(server);
  }
  void no_longer_writable(SimServer& server) override {
    for (auto* one : list_) one->no_longer_writable(server);
  }
  void acknowledged(SimServer& server, std::uint64_t row) override {
    for (auto* one : list_) one->acknowledged(server, row);
  }
  void diverged_unnoticed(SimServer& standby, SimServer& upstream) override {
    for (auto* one : list_) one->diverged_unnoticed(standby, upstream);
  }

 private:
  std::vector<ServerWatcher*> list_;
};

}  // namespace spilo::testing
