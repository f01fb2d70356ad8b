// A simulated consensus store: one linearizable server (SimDcs) and one client for each simulated
// process (SimStore, which implements dcs::Store), with a network between them that can be told to
// misbehave.
//
//   SimDcs dcs(world);
//   SimStore store(dcs, n1, Scope("batman"));
//   dcs.link(n1).lose_answer_permille = 100;   // every tenth write is applied but never answered
//   dcs.set_down(SimDcs::Down::refusing);
//
// Sessions really expire, by the server's own clock; eras and counts grow with one revision, as in
// etcd. The server knows the truth: peek(), session_expires() and the lease rule, which is checked
// with each renewal and reported as a violation of the world.
//
// SimDcs must outlive the world's use of it, a SimStore every operation started on it.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "spilo/core/ids.hpp"
#include "spilo/ports/dcs.hpp"
#include "spilo/testing/sim_world.hpp"

namespace spilo::testing {

// How the network between one node and the store behaves. Changed at any time; applies to what is
// sent from then on, and `cut` also to what is on its way.
struct StoreLink {
  Duration latency_min = std::chrono::microseconds(200);  // one way
  Duration latency_max = std::chrono::milliseconds(3);
  unsigned slow_permille =
      0;  // this many messages in a thousand take up to slow_max longer; they may be overtaken
  Duration slow_max{};
  unsigned refuse_permille = 0;  // errc::unavailable
  unsigned lose_request_permille =
      0;  // never arrives: a write is errc::ambiguous at its deadline, and was not done
  unsigned lose_answer_permille =
      0;  // applied, unanswered: a write is errc::ambiguous at its deadline, and was done
  unsigned stale_permille = 0;  // of the reads that allow local_replica
  Duration stale_max{};         // how old such a read is at most
  bool cut = false;             // a partition: nothing gets through, nothing is refused
};

class SimDcs {
 public:
  struct Options {
    Duration session_ttl_min = std::chrono::seconds(1);
    Duration session_ttl_max = std::chrono::hours(24);
    std::size_t value_bytes_max = 1 << 20;
    // As on etcd, Consul and ZooKeeper: another ttl than that of the session counts from the next on.
    bool session_ttl_is_fixed = false;
    int clock_drift_ppm = 0;  // of the server: positive expires sessions early by true time
    // The rule that is checked: a lease may outlive its session by no more than this part of the
    // ttl (both clocks' drift).
    int drift_allowance_ppm = 0;
  };

  SimDcs(SimWorld& world, Options options);
  explicit SimDcs(SimWorld& world) : SimDcs(world, Options{}) {}
  SimDcs(const SimDcs&) = delete;
  SimDcs& operator=(const SimDcs&) = delete;

  // ---- faults ----
  StoreLink& link(NodeId node);
  void heal_links();                         // every link as new
  enum class Down { no, refusing, silent };  // silent: requests are swallowed
  void set_down(Down how);
  Down down() const noexcept { return down_; }
  // Everything is gone, sessions too. With `forget_revision` the store also counts from 1 again, as
  // a new installation does.
  void wipe(bool forget_revision);
  void expire_sessions(NodeId node);  // now, whatever was promised
  void linger(Duration at_most);  // sessions that run out from now on live up to this much longer

  // ---- the truth ----
  std::optional<dcs::Entry> peek(const Scope& scope, const std::string& key) const;
  dcs::Snapshot snapshot(const Scope& scope) const;
  bool has_session(const SessionId& session) const { return sessions_.contains(session); }
  // When it really ends unless it is renewed; none when it is gone.
  std::optional<TimePoint> session_expires(const SessionId& session) const;
  std::uint64_t revision() const noexcept { return revision_; }
  // Called after every change of a scope, at once, with its name.
  void on_change(std::function<void(const Scope&)> changed) { on_change_ = std::move(changed); }
  // How many requests arrived, by verb: "read", "commit", "renew", "end_session", "changed_since".
  const std::map<std::string, std::uint64_t>& requests() const noexcept { return requests_; }

  // Someone who is no node writes, as an administrator would.
  void put(const Scope& scope, const std::string& key, std::string value);
  void erase(const Scope& scope, const std::string& key);

 private:
  friend class SimStore;
  struct Item {
    std::string value;
    dcs::Version version;
    SessionId owner;
  };
  using Tree = std::map<std::string, Item>;
  struct Space {  // of one scope
    Tree tree;
    std::uint64_t changed = 1;
    std::deque<std::pair<TimePoint, dcs::Snapshot>>
        past;  // states that ended at that time, for stale reads
  };
  struct Session {
    NodeId node{};
    Duration ttl{};
    TimePoint expires{};
    SimWorld::WaitId expiry{};
  };
  struct Watch {
    std::string scope;
    std::uint64_t seen = 0;
    NodeId node{};
    std::weak_ptr<SimAnswer<Result<dcs::Index>>> answer;
  };

  template <class T>
  void carry(NodeId node,
             std::string verb,
             std::shared_ptr<SimAnswer<Result<T>>> answer,
             std::function<Result<T>()> serve);
  Duration delay(NodeId node);
  Space& space(const std::string& scope);
  dcs::Snapshot snapshot_of(const Space& space) const;
  dcs::Snapshot stale_snapshot(const Space& space, NodeId node);
  void remember(Space& space);
  void changed(const std::string& scope);
  void notify(std::size_t watch_id);
  void refuse_watch(const Watch& watch);
  void forget_session(const SessionId& session);
  void schedule_expiry(const SessionId& id);
  Duration by_server_clock(Duration span) const;

  Result<dcs::Snapshot> serve_read(const std::string& scope, dcs::Freshness freshness, NodeId node);
  Result<dcs::Committed> serve_commit(const std::string& scope,
                                      const dcs::Transaction& transaction,
                                      const SessionId& session);
  Result<SessionId> serve_renew(NodeId node, const SessionId& session, Duration ttl);
  Result<void> serve_end(const SessionId& session);
  void check_lease(NodeId node, const dcs::Lease& lease, Duration ttl);

  SimWorld& world_;
  Options options_;
  Rng rng_;
  Down down_ = Down::no;
  Duration linger_{};
  std::uint64_t revision_ = 1;
  std::uint64_t next_session_ = 1;
  std::map<std::string, Space> spaces_;
  std::map<SessionId, Session> sessions_;
  std::map<NodeId, StoreLink> links_;
  std::map<std::size_t, Watch> watches_;
  std::size_t next_watch_ = 0;
  std::map<std::string, std::uint64_t> requests_;
  std::function<void(const Scope&)> on_change_;
};

// A node's client. Keeps its session as any client does: a crash of the process loses the session's
// name, not the session.
class SimStore final : public dcs::Store {
 public:
  SimStore(SimDcs& server, NodeId node, Scope scope)
      : server_(server), node_(node), scope_(std::move(scope)) {}
  SimStore(const SimStore&) = delete;
  SimStore& operator=(const SimStore&) = delete;

  dcs::Limits limits() const noexcept override;
  Async<dcs::Snapshot> read(dcs::Freshness freshness, TimePoint deadline) override;
  Async<dcs::Committed> commit(dcs::Transaction transaction, TimePoint deadline) override;
  Async<dcs::Lease> renew(Duration ttl, TimePoint deadline) override;
  Async<void> end_session(TimePoint deadline) override;
  Async<dcs::Index> changed_since(dcs::Index seen, TimePoint deadline) override;

  const SessionId& session() const noexcept { return session_; }

 private:
  Error failed(Waited how, bool write, const char* verb) const;

  SimDcs& server_;
  NodeId node_;
  Scope scope_;
  SessionId session_;
};

}  // namespace spilo::testing
