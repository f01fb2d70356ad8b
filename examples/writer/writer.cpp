#include "writer.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <libpq-fe.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <memory>

namespace writer {
namespace {

volatile sig_atomic_t stop_asked = 0;

// A server that is just going down may accept a connection and never answer on it: seen here. A
// fresh one tells sooner.
constexpr std::int64_t connect_patience_ns = 250'000'000;

struct Finish {
  void operator()(PGconn* connection) const noexcept { PQfinish(connection); }
};

// One node: connects, asks whether it takes writes, writes; starts again whenever that fails.
class Session {
 public:
  Session(std::string conninfo, int index, const Options& options, int file, std::int64_t& next)
      : conninfo_(std::move(conninfo)),
        index_(index),
        options_(options),
        file_(file),
        next_(next) {}

  // What to wait for, and until when.
  pollfd interest() const {
    if (state_ == State::idle || state_ == State::ready) return {-1, 0, 0};
    short events = POLLIN;
    if (state_ == State::connecting) events = poll_ == PGRES_POLLING_READING ? POLLIN : POLLOUT;
    return {PQsocket(connection_.get()), events, 0};
  }
  std::int64_t wake_at() const { return wake_at_; }

  void step(bool socket_ready) {
    const auto now = now_ns();
    if (state_ == State::idle && now >= wake_at_) return connect(now);
    if (state_ == State::ready && now >= wake_at_) return send(now);
    if (socket_ready && state_ == State::connecting) return go_on_connecting(now);
    if (socket_ready && (state_ == State::asking || state_ == State::writing)) return receive(now);
    if (now >= wake_at_) drop(now);  // no answer in time
  }
  std::int64_t unknown() const { return unknown_; }

 private:
  enum class State { idle, connecting, ready, asking, writing };

  void wait_for(State state, std::int64_t until) {
    state_ = state;
    wake_at_ = until;
  }

  void connect(std::int64_t now) {
    connection_.reset(PQconnectStart(conninfo_.c_str()));
    poll_ = PGRES_POLLING_WRITING;
    primary_ = false;
    if (PQstatus(connection_.get()) == CONNECTION_BAD) return drop(now);
    wait_for(State::connecting, now + connect_patience_ns);
  }

  void go_on_connecting(std::int64_t now) {
    poll_ = PQconnectPoll(connection_.get());
    if (poll_ == PGRES_POLLING_FAILED) return drop(now);
    if (poll_ != PGRES_POLLING_OK) return;
    PQsetnonblocking(connection_.get(), 1);
    PQsetNoticeProcessor(
        connection_.get(), [](void*, const char*) {}, nullptr);
    wait_for(State::ready, now);
  }

  void send(std::int64_t now) {
    if (!primary_) {
      // The table comes into being with the first primary.
      sent_ = PQsendQuery(connection_.get(), "select not pg_is_in_recovery()") == 1;
      wait_for(State::asking, now + connect_patience_ns);
    } else {
      number_ = next_++;
      const auto text =
          fmt::format("insert into spilo_writes(n, node) values ({}, {})", number_, index_);
      sent_ = PQsendQuery(connection_.get(), text.c_str()) == 1;
      wait_for(State::writing, now + options_.timeout_ms * 1'000'000);
    }
    if (!sent_ || PQflush(connection_.get()) < 0) drop(now);
  }

  void receive(std::int64_t now) {
    if (PQconsumeInput(connection_.get()) == 0) return drop(now);
    if (PQisBusy(connection_.get()) != 0) return;
    bool good = false, yes = false;
    std::string state;
    while (PGresult* result = PQgetResult(connection_.get())) {
      const auto status = PQresultStatus(result);
      good = status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK;
      yes = status == PGRES_TUPLES_OK && PQntuples(result) == 1 && *PQgetvalue(result, 0, 0) == 't';
      if (const char* code = PQresultErrorField(result, PG_DIAG_SQLSTATE)) state = code;
      PQclear(result);
      if (PQisBusy(connection_.get()) != 0) return;
    }
    if (state_ == State::writing) {
      if (good) {
        acknowledged(now);
        return wait_for(State::ready, now + options_.pause_us * 1000);
      }
      // An error is an answer: that row was not written.
      if (state == "42P01" && create_table()) return wait_for(State::ready, now);
      if (PQstatus(connection_.get()) == CONNECTION_BAD || state.substr(0, 2) == "57")
        return drop(now);
      primary_ = false;
      return wait_for(State::ready, now + options_.probe_us * 1000);
    }
    if (!good) return drop(now);
    primary_ = yes;
    wait_for(State::ready, yes ? now : now + options_.probe_us * 1000);
  }

  // Blocks for once: there is nothing to measure before the table is there.
  bool create_table() {
    PQsetnonblocking(connection_.get(), 0);
    PGresult* result =
        PQexec(connection_.get(),
               "create table if not exists spilo_writes"
               "(n bigint primary key, node int, at timestamptz default clock_timestamp())");
    const bool good = PQresultStatus(result) == PGRES_COMMAND_OK;
    PQclear(result);
    PQsetnonblocking(connection_.get(), 1);
    return good;
  }

  void acknowledged(std::int64_t now) {
    const auto line = fmt::format("{} {} {}\n", number_, index_, now);
    if (::write(file_, line.data(), line.size()) < 0) {
      fmt::print(stderr, "spilo-writer: {}: {}\n", options_.file, std::strerror(errno));
      std::exit(3);
    }
  }

  void drop(std::int64_t now) {
    if (state_ == State::writing) ++unknown_;
    connection_.reset();
    primary_ = false;
    wait_for(State::idle, now + options_.probe_us * 1000);
  }

  std::string conninfo_;
  int index_;
  const Options& options_;
  int file_;
  std::int64_t& next_;
  std::unique_ptr<PGconn, Finish> connection_;
  PostgresPollingStatusType poll_ = PGRES_POLLING_WRITING;
  State state_ = State::idle;
  bool primary_ = false;
  bool sent_ = false;
  std::int64_t wake_at_ = 0;
  std::int64_t number_ = 0;
  std::int64_t unknown_ = 0;
};

}  // namespace

std::int64_t now_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_BOOTTIME, &now);
  return std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

int run(const Options& options) {
  struct sigaction stop {};
  stop.sa_handler = [](int) { stop_asked = 1; };
  ::sigaction(SIGTERM, &stop, nullptr);
  ::sigaction(SIGINT, &stop, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  const int file = ::open(options.file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (file < 0) {
    fmt::print(stderr, "spilo-writer: {}: {}\n", options.file, std::strerror(errno));
    return 3;
  }
  // Numbers of different runs do not meet: each starts where the clock stands.
  std::int64_t next = now_ns() / 1000;
  std::vector<Session> sessions;
  sessions.reserve(options.nodes.size());
  for (const auto& node : options.nodes)
    sessions.emplace_back(node, static_cast<int>(sessions.size()), options, file, next);
  const auto end =
      options.seconds > 0 ? now_ns() + static_cast<std::int64_t>(options.seconds * 1e9) : INT64_MAX;
  std::vector<pollfd> waits(sessions.size());
  while (stop_asked == 0 && now_ns() < end) {
    auto wake = end;
    for (std::size_t n = 0; n < sessions.size(); ++n) {
      waits[n] = sessions[n].interest();
      wake = std::min(wake, sessions[n].wake_at());
    }
    const auto left = std::max<std::int64_t>(0, wake - now_ns());
    const timespec patience{left / 1'000'000'000, left % 1'000'000'000};
    if (::ppoll(waits.data(), waits.size(), &patience, nullptr) < 0 && errno != EINTR) break;
    for (std::size_t n = 0; n < sessions.size(); ++n)
      sessions[n].step(waits[n].fd >= 0 && waits[n].revents != 0);
  }
  ::close(file);
  std::int64_t unknown = 0;
  for (const auto& session : sessions) unknown += session.unknown();
  fmt::print(stderr, "spilo-writer: {} rows have an unknown outcome\n", unknown);
  return 0;
}

}  // namespace writer
