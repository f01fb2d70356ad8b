// A simulated PostgreSQL server with its data directory: one for each host. It is part of the
// environment: it goes on while the agent beside it is frozen, crashed or restarted. SimPostgres
// (sim_postgres.hpp) is the agent's port to it.
//
// What is real about it: the write-ahead log is a list of records, timelines fork where a server is
// promoted, a standby can follow only an upstream whose history contains its own position, a new
// timeline's number is one more than the largest that the directory has ever seen, pg_rewind goes
// back to the last common ancestor, and a fast stop waits for the standbys that stream. What
// PostgreSQL does not notice, it does not notice either: that two timelines with the same number
// differ. The checkers know, because every record and every promotion has an identity of its own.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "spilo/ha/task.hpp"
#include "spilo/model/node_view.hpp"
#include "spilo/testing/sim_network.hpp"
#include "spilo/testing/sim_world.hpp"

namespace spilo::testing {

class SimServer;
class SimServers;

// Told what the servers really do. Methods run inside the world's events: record, compare, report;
// don't change anything.
class ServerWatcher {
 public:
  virtual ~ServerWatcher() = default;
  // It was told to become writable: by pg_promote(), or by a start as a primary.
  virtual void promotion_began(SimServer&) {}
  virtual void became_writable(SimServer&) {}
  virtual void no_longer_writable(SimServer&) {}
  virtual void acknowledged(SimServer&, std::uint64_t /*row*/) {}
  // A standby was about to apply the log of an upstream that differs from its own, and PostgreSQL
  // would not see it.
  virtual void diverged_unnoticed(SimServer& /*standby*/, SimServer& /*upstream*/) {}
};

struct WalRecord {
  Lsn end{};
  std::uint64_t id = 0;   // unique in the world
  std::uint64_t row = 0;  // 0: not a client's commit
};
struct TimelineStart {
  TimelineId timeline{};
  Lsn begin{};
  bool operator==(const TimelineStart&) const = default;
};

// What survives on disk.
struct SimDataDir {
  bool initialized = false;
  bool torn = false;  // an interrupted pg_rewind: can't be started
  bool being_created = false;  // by a bootstrap that has not ended
  bool standby = false;
  SystemId system_id;
  std::vector<WalRecord> wal;
  std::vector<TimelineStart> history;
  TimelineId newest_seen{};  // of the history files it has
  std::string control_state = "shut down";
  Lsn checkpoint{};
  Lsn checkpoint_end{};

  Lsn end() const noexcept { return wal.empty() ? Lsn{0x1000000} : wal.back().end; }
  TimelineId timeline() const noexcept {
    return history.empty() ? TimelineId{} : history.back().timeline;
  }
  bool has_row(std::uint64_t row) const noexcept;
};

// How likely things go wrong and how long they take. Changed at any time.
struct ServerFaults {
  unsigned start_fails_permille = 0;
  unsigned promote_fails_permille = 0;
  unsigned rewind_fails_permille = 0;
  unsigned copy_fails_permille = 0;
  unsigned slow_stop_permille = 0;
  Duration recovery_max = std::chrono::seconds(1);
  Duration copy_max = std::chrono::seconds(3);
  Duration promote_max = std::chrono::milliseconds(500);
  Duration slow_stop_max = std::chrono::seconds(60);
  Duration replication_lag{};  // what arrives from the upstream arrives this much later
};

class SimServer {
 public:
  using Done = std::shared_ptr<SimAnswer<Result<void>>>;
  using Child = std::weak_ptr<SimAnswer<Result<void>>>;  // a child program of the agent: dies with
                                                         // the waiting operation

  // Made by SimServers::add().
  SimServer(SimServers& group, std::size_t host, std::string name);
  SimServer(const SimServer&) = delete;
  SimServer& operator=(const SimServer&) = delete;

  // ---- what it is ----
  const std::string& name() const noexcept { return name_; }
  std::size_t host() const noexcept { return host_; }
  const SimDataDir& data() const noexcept { return data_; }
  NodeView::Process process() const noexcept { return hung_ ? NodeView::Process::hung : process_; }
  bool down() const noexcept {
    return process_ == NodeView::Process::stopped || process_ == NodeView::Process::crashed;
  }
  bool running() const noexcept { return process_ == NodeView::Process::running; }
  bool streaming() const noexcept { return streaming_; }
  const SimServer* upstream() const noexcept { return upstream_; }
  bool in_recovery() const noexcept { return in_recovery_; }
  // Would acknowledge a commit now.
  bool writable() const noexcept { return running() && !in_recovery_ && !hung_; }
  // Counts the times it became writable, over all servers of the world; 0 while it is not.
  std::uint64_t period() const noexcept { return writable_announced_ ? period_ : 0; }
  NodeView view() const;

  // ---- what clients do ----
  // Commits a row if the server is writable. The watcher hears of the acknowledgement, if there is
  // one.
  void commit(std::uint64_t row);
  // Acknowledge only what that many standbys have flushed.
  void require_standbys(std::size_t count) noexcept { standbys_required_ = count; }

  // ---- what the agent does; the answer may be set long after the agent is gone ----
  void init(Child done, std::string system_id);
  // The bootstrap has ended: the directory stays, or is set aside.
  void created(bool well);
  void copy_from(SimServer& source, Child done);
  void rewind_from(SimServer& source, Child done);
  void launch(bool as_primary, Done done);
  void stop(ha::StopMode mode, Done done);
  void promote(TimelineId timeline_min, Done done);
  void checkpoint(Done done);
  void follow(SimServer* upstream);
  void set_slots(std::vector<std::string> names) { slots_ = std::move(names); }
  // Nothing is left of it, at once.
  void kill(std::string_view why);
  // Would this directory follow that server without a rewind, as PostgreSQL's rules (and a careful
  // comparison of the two histories) say?
  bool can_follow(const SimServer& upstream) const;

  // ---- faults ----
  ServerFaults faults;
  void hang(Duration how_long);  // answers nothing and commits nothing, but is there
  void hang_no_more();
  void lose_data();              // an empty disk; the server is killed
  void on_change(std::function<void()> wake) { wake_ = std::move(wake); }

 private:
  void enter(NodeView::Process process);
  void announce_writable();
  void announce_not_writable();
  void append(std::uint64_t row);
  void wake_downstreams();
  void schedule_pull(Duration delay);
  void pull();
  bool serves() const noexcept;
  void stop_streaming();
  void settle_stop(TimePoint give_up, std::uint64_t epoch, Done done);
  void finish_stop(Done done);
  void finish_promotion(TimelineId timeline_min, Done done);
  void stop_now(bool was_starting, Done done);
  void acknowledge(std::uint64_t row, Lsn end, std::uint64_t epoch);
  bool flushed_by_standbys(Lsn end) const;
  void later(Duration delay, std::function<void()> continuation);  // unless the process ends first
  Error failed(std::string_view what) const;

  SimServers& group_;
  SimWorld& world_;
  SimNetwork& network_;
  ServerWatcher& watcher_;
  std::size_t host_;
  std::string name_;
  Rng rng_;
  SimDataDir data_;
  NodeView::Process process_ = NodeView::Process::stopped;
  bool in_recovery_ = true;
  bool hung_ = false;
  std::uint64_t hang_round_ = 0;
  std::function<void()> heard_later_;  // a request to stop that waits until it hangs no more
  std::uint64_t epoch_ = 0;  // grows whenever the process changes: what was begun before is void
  std::uint64_t pid_ = 0;
  bool writable_announced_ = false;
  std::uint64_t period_ = 0;
  SimServer* upstream_ = nullptr;
  bool streaming_ = false;
  TimePoint last_contact_{};
  std::optional<SimWorld::WaitId> pull_;
  TimePoint pull_at_{};
  std::size_t standbys_required_ = 0;
  std::vector<std::string> slots_;
  std::function<void()> wake_;
  struct Waiting {
    std::uint64_t row;
    Lsn end;
  };
  std::vector<Waiting> unacknowledged_;
};

// All servers of one world: they find one another here, and identities are drawn here.
class SimServers {
 public:
  SimServers(SimWorld& world, SimNetwork& network, ServerWatcher& watcher)
      : world_(world), network_(network), watcher_(watcher) {}
  SimServer& add(std::string name);
  SimServer* find(std::string_view name) noexcept;
  const std::vector<SimServer*>& all() const noexcept { return list_; }

 private:
  friend class SimServer;
  SimWorld& world_;
  SimNetwork& network_;
  ServerWatcher& watcher_;
  std::vector<std::unique_ptr<SimServer>> owned_;
  std::vector<SimServer*> list_;
  std::uint64_t next_record_ = 1;
  std::uint64_t next_period_ = 1;
};

}  // namespace spilo::testing
