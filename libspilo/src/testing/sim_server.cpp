#include "spilo/testing/sim_server.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "spilo/core/assert.hpp"

namespace spilo::testing {
namespace {

using Process = NodeView::Process;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Duration receiver_timeout = seconds(6);  // a standby notices a silent upstream
constexpr Duration sender_timeout = seconds(6);    // a stopping primary gives a silent standby up
constexpr Duration receiver_retry = milliseconds(500);
constexpr Duration receiver_heartbeat = seconds(1);
constexpr std::uint64_t record_bytes = 256;

// The last point that both histories share, as pg_rewind finds it.
Lsn common_ancestor(const SimDataDir& a, const SimDataDir& b) {
  const auto end_of = [](const SimDataDir& dir, std::size_t i) {
    return i + 1 < dir.history.size() ? dir.history[i + 1].begin : dir.end();
  };
  Lsn shared{};
  for (std::size_t i = 0; i < a.history.size() && i < b.history.size(); ++i) {
    if (a.history[i] != b.history[i]) break;
    shared = std::min(end_of(a, i), end_of(b, i));
  }
  return shared;
}

// Does `other` begin with all of `dir`? The truth, which PostgreSQL can't see.
bool is_prefix(const SimDataDir& dir, const SimDataDir& other) {
  if (dir.wal.size() > other.wal.size()) return false;
  return dir.wal.empty() || other.wal[dir.wal.size() - 1].id == dir.wal.back().id;
}

}  // namespace

bool SimDataDir::has_row(std::uint64_t row) const noexcept {
  return std::ranges::any_of(wal, [&](const WalRecord& record) { return record.row == row; });
}

SimServer::SimServer(SimServers& group, std::size_t host, std::string name)
    : group_(group),
      world_(group.world_),
      network_(group.network_),
      watcher_(group.watcher_),
      host_(host),
      name_(std::move(name)),
      rng_(world_.rng().fork("server")) {}

SimServer& SimServers::add(std::string name) {
  owned_.push_back(std::make_unique<SimServer>(*this, owned_.size(), std::move(name)));
  list_.push_back(owned_.back().get());
  return *list_.back();
}

SimServer* SimServers::find(std::string_view name) noexcept {
  for (auto* server : list_)
    if (server->name() == name) return server;
  return nullptr;
}

Error SimServer::failed(std::string_view what) const {
  return Error(errc::command_failed, fmt::format("simulated PostgreSQL of {}: {}", name_, what));
}

void SimServer::later(Duration delay, std::function<void()> continuation) {
  world_.after(delay, [this, epoch = epoch_, continuation = std::move(continuation)] {
    if (epoch_ == epoch) continuation();
  });
}

// Every change of the process voids what was begun before it.
void SimServer::enter(Process process) {
  ++epoch_;
  heard_later_ = {};
  process_ = process;
  if (process != Process::running) {
    announce_not_writable();
    unacknowledged_.clear();
  }
  world_.trace(name_ + "/pg",
               fmt::format("{} timeline {} at {}{}",
                           process == Process::running
                               ? (in_recovery_ ? "runs as standby" : "runs as primary")
                           : process == Process::starting ? "starts"
                           : process == Process::stopping ? "stops"
                           : process == Process::crashed  ? "is killed"
                                                          : "is stopped",
                           to_int(data_.timeline()),
                           to_text(data_.end()),
                           hung_ ? " (hung)" : ""));
  if (down()) {
    stop_streaming();
    hung_ = false;
    wake_downstreams();
  }
  if (wake_) wake_();
}

void SimServer::announce_writable() {
  writable_announced_ = true;
  period_ = group_.next_period_++;
  watcher_.became_writable(*this);
}

void SimServer::announce_not_writable() {
  if (!writable_announced_) return;
  writable_announced_ = false;
  watcher_.no_longer_writable(*this);
}

bool SimServer::serves() const noexcept {
  return (process_ == Process::running || process_ == Process::stopping) && !hung_;
}

void SimServer::append(std::uint64_t row) {
  WalRecord record;
  record.end = Lsn{to_int(data_.end()) + record_bytes};
  record.id = group_.next_record_++;
  record.row = row;
  data_.wal.push_back(record);
  wake_downstreams();
}

void SimServer::wake_downstreams() {
  for (auto* other : group_.all())
    if (other->upstream_ == this && other->streaming_)
      other->schedule_pull(network_.delay() + other->faults.replication_lag);
}

// ---- clients -----------------------------------------------------------------------------------

void SimServer::commit(std::uint64_t row) {
  if (!writable()) return;
  append(row);
  const auto end = data_.end();
  later(rng_.between(milliseconds(1), milliseconds(4)),
        [this, row, end, epoch = epoch_] { acknowledge(row, end, epoch); });
}

bool SimServer::flushed_by_standbys(Lsn end) const {
  std::size_t count = 0;
  for (const auto* other : group_.all())
    if (other->upstream_ == this && other->streaming_ && other->data_.end() >= end) ++count;
  return count >= standbys_required_;
}

void SimServer::acknowledge(std::uint64_t row, Lsn end, std::uint64_t epoch) {
  if (epoch != epoch_ || !writable()) return;
  if (flushed_by_standbys(end)) {
    watcher_.acknowledged(*this, row);
  } else {
    unacknowledged_.push_back({row, end});
  }
}

// ---- replication -------------------------------------------------------------------------------

bool SimServer::can_follow(const SimServer& upstream) const {
  const auto& theirs = upstream.data_;
  if (data_.system_id != theirs.system_id) return false;
  return data_.end() <= common_ancestor(data_, theirs);
}

void SimServer::stop_streaming() {
  if (!streaming_) return;
  streaming_ = false;
  if (wake_) wake_();
}

void SimServer::schedule_pull(Duration delay) {
  const auto when = world_.now() + delay;
  if (pull_ && pull_at_ <= when) return;
  if (pull_) world_.cancel(*pull_);
  pull_at_ = when;
  pull_ = world_.at(when, [this] {
    pull_.reset();
    pull();
  });
}

void SimServer::pull() {
  if (process_ != Process::running || !in_recovery_ || upstream_ == nullptr) return;
  auto& up = *upstream_;
  if (!network_.connected(host_, up.host_)) {
    if (world_.now() - last_contact_ > receiver_timeout) stop_streaming();
    schedule_pull(milliseconds(200));
    return;
  }
  // What PostgreSQL looks at: its own timeline in the other's history, and that the other has come
  // as far.
  const auto known =
      std::ranges::find(up.data_.history, data_.timeline(), &TimelineStart::timeline);
  bool follows =
      up.serves() && data_.system_id == up.data_.system_id && known != up.data_.history.end();
  if (follows) {
    const auto next = known + 1;
    follows = data_.end() <= (next == up.data_.history.end() ? up.data_.end() : next->begin);
  }
  if (!follows) {
    stop_streaming();
    schedule_pull(receiver_retry);
    return;
  }
  if (!is_prefix(data_, up.data_)) {
    watcher_.diverged_unnoticed(*this, up);
    stop_streaming();
    schedule_pull(receiver_retry);
    return;
  }
  last_contact_ = world_.now();
  const bool news = data_.wal.size() != up.data_.wal.size();
  data_.wal.insert(data_.wal.end(),
                   up.data_.wal.begin() + static_cast<std::ptrdiff_t>(data_.wal.size()),
                   up.data_.wal.end());
  data_.history = up.data_.history;
  data_.newest_seen = std::max(data_.newest_seen, up.data_.newest_seen);
  if (!streaming_) {
    streaming_ = true;
    if (wake_) wake_();
  }
  if (news) {
    wake_downstreams();
    if (!up.unacknowledged_.empty()) {
      world_.after(network_.delay(), [&up, epoch = up.epoch_] {
        if (up.epoch_ != epoch) return;
        const auto waiting = std::exchange(up.unacknowledged_, {});
        for (const auto& one : waiting) up.acknowledge(one.row, one.end, epoch);
      });
    }
  }
  schedule_pull(receiver_heartbeat);
}

void SimServer::follow(SimServer* upstream) {
  SPILO_ASSERT(upstream != this, name_ + " can't follow itself");
  if (upstream_ == upstream) return;
  upstream_ = upstream;
  stop_streaming();
  if (process_ == Process::running && in_recovery_ && upstream_ != nullptr)
    schedule_pull(rng_.between(milliseconds(5), milliseconds(30)));
}

// ---- the agent's commands ----------------------------------------------------------------------

void SimServer::init(Child done, std::string system_id) {
  world_.after(rng_.between(milliseconds(300), seconds(2)),
               [this, done, id = std::move(system_id)] {
                 const auto waiting = done.lock();
                 if (!waiting) return;
                 data_ = SimDataDir{};
                 data_.initialized = data_.being_created = true;
                 data_.system_id = SystemId(id);
                 data_.history.push_back({TimelineId{1}, data_.end()});
                 data_.newest_seen = TimelineId{1};
                 WalRecord first;
                 first.end = Lsn{to_int(data_.end()) + record_bytes};
                 first.id = group_.next_record_++;
                 data_.wal.push_back(first);
                 data_.checkpoint = data_.end();
                 data_.checkpoint_end = data_.end();
                 waiting->set({});
               });
}

void SimServer::created(bool well) {
  if (well) {
    data_.being_created = false;
    return;
  }
  kill("its creation did not end well, its directory is set aside");
  data_ = SimDataDir{};
  process_ = Process::stopped;
}

void SimServer::copy_from(SimServer& source, Child done) {
  const auto takes = rng_.between(milliseconds(200), faults.copy_max);
  const bool fails = rng_.chance(faults.copy_fails_permille);
  world_.after(takes, [this, &source, done, fails] {
    const auto waiting = done.lock();
    if (!waiting) return;
    if (!network_.connected(host_, source.host_) || !source.serves() ||
        source.process_ != Process::running) {
      waiting->set(failed(fmt::format("pg_basebackup: lost the connection to {}", source.name_)));
    } else if (fails) {
      waiting->set(failed("pg_basebackup: no space left on device (planned)"));
    } else if (!down()) {
      waiting->set(failed("a full copy can't replace the directory of a running server"));
    } else {
      data_ = source.data_;
      data_.standby = true;
      data_.being_created = false;
      data_.control_state = "in archive recovery";
      waiting->set({});
    }
  });
}

void SimServer::rewind_from(SimServer& source, Child done) {
  const auto takes = rng_.between(milliseconds(100), faults.copy_max);
  const bool fails = rng_.chance(faults.rewind_fails_permille);
  const auto usable = [this, &source] {
    return network_.connected(host_, source.host_) && source.process_ == Process::running &&
           !source.hung_ && !source.in_recovery_ && down() && data_.initialized &&
           source.data_.system_id == data_.system_id;
  };
  if (!usable()) {
    if (const auto waiting = done.lock())
      waiting->set(failed(fmt::format("pg_rewind: can't use {} as a source", source.name_)));
    return;
  }
  if (fails) {
    world_.after(takes / 2, [this, done] {
      if (const auto waiting = done.lock())
        waiting->set(failed("pg_rewind: could not find the common ancestor (planned)"));
    });
    return;
  }
  // From the moment it writes until it has finished the directory is neither the old nor the new
  // one.
  world_.after(takes / 2, [this, done] {
    if (!done.expired()) data_.torn = true;
  });
  world_.after(takes, [this, &source, done, usable] {
    const auto waiting = done.lock();
    if (!waiting) return;
    if (!usable()) {
      waiting->set(failed(fmt::format("pg_rewind: lost the connection to {}", source.name_)));
      return;
    }
    // It then needs the source's log up to here before it is consistent; taken as a whole.
    data_ = source.data_;
    data_.standby = true;
    data_.torn = false;
    data_.control_state = "in archive recovery";
    waiting->set({});
  });
}

void SimServer::launch(bool as_primary, Done done) {
  const auto refuse = [&](std::string_view why) { done->set(failed(why)); };
  if (!down()) return refuse("a server is running in this directory already");
  if (!data_.initialized) return refuse("the data directory is empty");
  if (data_.torn) return refuse("the directory is inconsistent after an interrupted pg_rewind");
  const bool crashed = process_ == Process::crashed;
  if (as_primary) watcher_.promotion_began(*this);
  ++pid_;
  in_recovery_ = true;
  enter(Process::starting);
  data_.standby = !as_primary;
  const auto takes =
      rng_.between(milliseconds(50), crashed ? faults.recovery_max : Duration(milliseconds(400)));
  if (rng_.chance(faults.start_fails_permille)) {
    later(takes, [this, done] {
      enter(Process::crashed);
      done->set(failed("the server did not start (planned)"));
    });
    return;
  }
  later(takes, [this, as_primary, done] {
    in_recovery_ = !as_primary;
    data_.control_state = as_primary ? "in production" : "in archive recovery";
    data_.checkpoint_end = Lsn{};
    if (as_primary) append(0);
    enter(Process::running);
    if (as_primary) {
      announce_writable();
    } else if (upstream_ != nullptr) {
      last_contact_ = world_.now();
      schedule_pull(rng_.between(milliseconds(5), milliseconds(50)));
    }
    done->set({});
  });
}

void SimServer::stop(ha::StopMode mode, Done done) {
  if (down()) {
    done->set({});
    return;
  }
  if (mode == ha::StopMode::immediate) {
    enter(Process::stopping);
    later(rng_.between(milliseconds(20), milliseconds(200)), [this, done] {
      kill("immediate stop");
      done->set({});
    });
    return;
  }
  const bool was_starting = process_ == Process::starting;
  if (process_ != Process::stopping) enter(Process::stopping);
  // A hung server hears a request to stop once it goes on, or never: a process of it may be stuck.
  if (hung_) {
    if (rng_.chance(500)) heard_later_ = [this, was_starting, done] { stop_now(was_starting, done); };
    return;
  }
  stop_now(was_starting, done);
}

void SimServer::stop_now(bool was_starting, Done done) {
  auto takes = rng_.between(milliseconds(20), milliseconds(300));
  if (rng_.chance(faults.slow_stop_permille))
    takes = rng_.between(seconds(3), faults.slow_stop_max);
  if (was_starting) in_recovery_ = true;
  later(takes, [this, done] {
    // Standbys get the shutdown checkpoint too; those that are silent are given up.
    if (!in_recovery_) append(0);
    settle_stop(world_.now() + sender_timeout, epoch_, done);
  });
}

void SimServer::settle_stop(TimePoint give_up, std::uint64_t epoch, Done done) {
  if (epoch != epoch_) return;
  const bool settled = std::ranges::none_of(group_.all(), [&](const SimServer* other) {
    return other->upstream_ == this && other->streaming_ && other->data_.end() < data_.end();
  });
  if (settled || world_.now() >= give_up) {
    finish_stop(done);
    return;
  }
  world_.after(milliseconds(10),
               [this, give_up, epoch, done] { settle_stop(give_up, epoch, done); });
}

void SimServer::finish_stop(Done done) {
  data_.control_state = in_recovery_ ? "shut down in recovery" : "shut down";
  data_.checkpoint = data_.end();
  data_.checkpoint_end = in_recovery_ ? Lsn{} : data_.end();
  enter(Process::stopped);
  done->set({});
}

void SimServer::promote(TimelineId timeline_min, Done done) {
  if (!running() || !in_recovery_ || hung_) {
    done->set(failed("pg_promote(): not a running standby"));
    return;
  }
  watcher_.promotion_began(*this);
  const auto takes = rng_.between(milliseconds(20), faults.promote_max);
  if (rng_.chance(faults.promote_fails_permille)) {
    later(takes, [this, done] { done->set(failed("pg_promote() returned false (planned)")); });
    return;
  }
  later(takes, [this, timeline_min, done] { finish_promotion(timeline_min, done); });
}

void SimServer::finish_promotion(TimelineId timeline_min, Done done) {
  if (!in_recovery_) {
    done->set({});
    return;
  }
  stop_streaming();
  const auto own_choice = TimelineId{to_int(std::max(data_.newest_seen, data_.timeline())) + 1};
  const auto next = std::max(own_choice, timeline_min);
  data_.history.push_back({next, data_.end()});
  data_.newest_seen = next;
  data_.standby = false;
  data_.control_state = "in production";
  upstream_ = nullptr;
  in_recovery_ = false;
  append(0);
  // The process stays the same, so its epoch does; only its role has changed.
  world_.trace(name_ + "/pg",
               fmt::format("is promoted to timeline {} at {}", to_int(next), to_text(data_.end())));
  announce_writable();
  if (wake_) wake_();
  done->set({});
}

void SimServer::checkpoint(Done done) {
  if (hung_ || !running()) return;  // no answer
  later(rng_.between(milliseconds(5), milliseconds(100)), [this, done] {
    data_.checkpoint = data_.end();
    done->set({});
  });
}

void SimServer::kill(std::string_view why) {
  if (down()) return;
  world_.trace(name_ + "/pg", fmt::format("killed: {}", why));
  enter(Process::crashed);
}

// ---- faults ------------------------------------------------------------------------------------

void SimServer::hang(Duration how_long) {
  if (down()) return;
  hung_ = true;
  world_.after(how_long, [this, round = ++hang_round_] {
    if (hang_round_ == round) hang_no_more();
  });
}

void SimServer::hang_no_more() {
  hung_ = false;
  if (const auto heard = std::exchange(heard_later_, {})) heard();
}

void SimServer::lose_data() {
  kill("its disk is replaced by an empty one");
  data_ = SimDataDir{};
  process_ = Process::stopped;
}

// ---- what an observer sees ---------------------------------------------------------------------

NodeView SimServer::view() const {
  NodeView v;
  v.data_dir = data_.initialized ? NodeView::DataDir::initialized : NodeView::DataDir::empty;
  v.process = process();
  v.postmaster_pid = down() ? 0 : static_cast<int>(pid_);
  v.can_rewind = true;
  if (!data_.initialized) return v;
  v.system_id = data_.system_id;
  v.timeline = data_.timeline();
  v.control_timeline = data_.timeline();
  v.control_state = data_.control_state;
  v.checkpoint_lsn = data_.checkpoint;
  v.checkpoint_end = process_ == Process::stopped ? data_.checkpoint_end : Lsn{};
  v.slots = slots_;
  if (upstream_ != nullptr) v.upstream = upstream_->name_ + ":5432";
  // A server that is starting says nothing yet: then, as when it is down, the directory tells what it
  // will be. Crash recovery ends in a primary.
  const bool standby = running() ? in_recovery_ : data_.standby;
  v.role = standby ? NodeView::Role::replica : NodeView::Role::primary;
  if (!running() || hung_) return v;
  v.server_version = 150004;
  v.start_time = fmt::format("2026-01-01 00:00:00.{:06}+00", pid_);
  if (standby) {
    v.received = data_.end();
    v.replayed = data_.end();
    v.streaming = streaming_;
  } else {
    v.flushed = data_.end();
    for (std::size_t i = 1; i < data_.history.size(); ++i) {
      HistoryLine line;
      line.timeline = data_.history[i - 1].timeline;
      line.switch_lsn = data_.history[i].begin;
      line.reason = "no recovery target specified";
      v.history.push_back(std::move(line));
    }
  }
  for (const auto* other : group_.all()) {
    if (other->upstream_ != this || !other->streaming_) continue;
    WalSender sender;
    sender.application_name = other->name_;
    sender.state = "streaming";
    sender.sync_state = "async";
    sender.write_lsn = sender.flush_lsn = sender.replay_lsn = other->data_.end();
    v.wal_senders.push_back(std::move(sender));
  }
  return v;
}

}  // namespace spilo::testing
