#include <fmt/format.h>
#include <signal.h>

#include <algorithm>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <optional>
#include <sstream>
#include <vector>

#include "pg/node.hpp"

using namespace spilo;
using namespace spilo::test;
using namespace std::chrono_literals;
using State = NodeView::Process;
using Role = NodeView::Role;

namespace {

// As ps shows it; '?': there is no such process.
char state_of(int pid) {
  const auto stat = slurp(fmt::format("/proc/{}/stat", pid));
  const auto name_end = stat.rfind(')');
  return name_end == std::string::npos ? '?' : stat[name_end + 2];
}

bool has_old_directory(const Node& node) {
  const auto parent = std::filesystem::path(node.options.data_dir).parent_path();
  for (const auto& entry : std::filesystem::directory_iterator(parent))
    if (entry.path().string().starts_with(node.options.data_dir + ".old-")) return true;
  return false;
}

// Two nodes: a primary with a table, and its streaming replica.
struct Pair {
  explicit Pair(Bench& bench) : a(bench, "n1"), b(bench, "n-2") {
    REQUIRE_OK(a.perform(ha::TaskKind::bootstrap));
    REQUIRE_OK(a.sql("CREATE TABLE t (i int)"));
    REQUIRE_OK(b.perform(ha::TaskKind::clone, a));
    REQUIRE(b.observe_until([](const NodeView& v) { return v.streaming; }));
  }
  // The replica has everything that is on the primary now.
  void catch_up() {
    const auto target = a.observe().flushed;
    REQUIRE(b.observe_until([&](const NodeView& v) { return v.replayed >= target; }));
  }
  // The primary dies, and the replica has every byte of WAL that it ever wrote. What writes WAL by
  // itself (snapshots of running transactions, page images for a hint of a reader, a checkpoint,
  // autovacuum) stands still before the last row comes, and nobody asks the primary anything after
  // it.
  void crash_without_a_loss() {
    for (int row = 1; row <= 5; ++row) {
      const auto stopped = stop_own_writers();
      const auto inserted = a.sql(fmt::format("INSERT INTO t VALUES ({})", row));
      if (inserted.has_value()) {
        const auto seen = fmt::format("SELECT count(*) FROM t WHERE i = {}", row);
        REQUIRE(b.observe_until([&](const NodeView&) { return b.value(seen) == "1"; }));
        REQUIRE(a.controller->kill_now().has_value());
        return;
      }
      // One of them was stopped while it held what an insertion needs.
      for (const auto pid : stopped) ::kill(pid, SIGCONT);
      REQUIRE_OK(a.sql("TRUNCATE t"));
    }
    FAIL("the primary takes no row while its own processes stand still");
  }
  // All children of the primary's postmaster but those that send WAL.
  std::vector<int> stop_own_writers() const {
    const auto postmaster = guard::postmaster_pid(a.options.data_dir.c_str());
    REQUIRE(postmaster > 0);
    std::vector<int> stopped;
    for (bool found = true; found;) {  // the postmaster may have started one more meanwhile
      found = false;
      std::istringstream children(slurp(fmt::format("/proc/{0}/task/{0}/children", postmaster)));
      for (int pid = 0; children >> pid;) {
        if (std::ranges::find(stopped, pid) != stopped.end()) continue;
        const auto title = slurp(fmt::format("/proc/{}/cmdline", pid));
        if (title.find("walsender") != std::string::npos || ::kill(pid, SIGSTOP) != 0) continue;
        stopped.push_back(pid);
        found = true;
      }
    }
    REQUIRE(stopped.size() >= 4);
    for (const auto pid : stopped)  // also one that had ended, like the session that came before
      REQUIRE(wait_until(
          [&] { return std::string_view("TZX?").find(state_of(pid)) != std::string_view::npos; },
          10s));
    return stopped;
  }
  Node a;
  Node b;
};

}  // namespace

TEST_CASE("clone, stream, switch over, follow, rejoin without a copy") {
  Bench bench;
  Pair pair(bench);
  auto& a = pair.a;
  auto& b = pair.b;
  CHECK(b.last.role == Role::replica);
  CHECK(b.last.upstream == a.options.connect_address);
  CHECK(a.observe().slots == std::vector<std::string>{"n_2"});
  REQUIRE(a.observe().wal_senders.size() == 1);
  CHECK(a.observe().wal_senders[0].application_name == "n-2");
  CHECK(b.value("SHOW primary_conninfo").find("secret") == std::string::npos);

  // A lost WAL receiver is told at once.
  b.changes = 0;
  const auto receiver = std::stoi(b.value("SELECT pid FROM pg_stat_wal_receiver"));
  REQUIRE(::kill(receiver, SIGTERM) == 0);
  CHECK(run_until(
      bench.io, [&] { return b.changes > 0; }, 2000ms));
  REQUIRE(b.observe_until([](const NodeView& v) { return v.streaming; }));

  // A third node follows the first, then the second: by reload, the same server goes on.
  Node c(bench, "n3");
  REQUIRE_OK(c.perform(ha::TaskKind::clone, a));
  REQUIRE(c.observe_until([](const NodeView& v) { return v.streaming; }));
  const auto postmaster_of_c = c.last.postmaster_pid;

  pair.catch_up();
  ha::Task stop;
  stop.kind = ha::TaskKind::stop;
  stop.checkpoint_first = true;
  const auto begin = steady();
  REQUIRE_OK(a.perform(stop));
  const auto stopped = ms_since(begin);
  const auto down = a.observe();
  CHECK(down.process == State::stopped);
  // The replica has received exactly up to the end of the shutdown checkpoint.
  REQUIRE(b.observe_until([&](const NodeView& v) { return v.received >= down.checkpoint_end; }));
  CHECK(b.last.received == down.checkpoint_end);

  const auto promoting = steady();
  REQUIRE_OK(b.perform(ha::TaskKind::promote));
  std::printf("fast stop %.1f ms, promotion %.1f ms\n", stopped, ms_since(promoting));
  REQUIRE_OK(b.sql("INSERT INTO t VALUES (1)"));
  auto view = b.observe();
  CHECK(view.accepts_writes());
  CHECK(to_int(view.timeline) == 2);
  // The recovery targets leave the files of a primary; that asks for no restart.
  REQUIRE_OK(b.perform(ha::TaskKind::reload));
  CHECK(b.observe_until([&](const NodeView&) {
    return b.value("SELECT count(*) > 0 FROM pg_settings WHERE pending_restart") == "t";
  }));
  b.agent();
  CHECK(json::dump(b.observe().pending_restart_reason) == "null");
  REQUIRE(view.history.size() == 1);
  CHECK(to_int(view.history[0].timeline) == 1);
  CHECK(view.history[0].switch_lsn >= down.checkpoint_end);
  CHECK(view.history[0].reason == "no recovery target specified");
  CHECK(view.history[0].timestamp.size() > 20);
  CHECK(b.observe_until([](const NodeView& v) { return to_int(v.control_timeline) == 2; }));

  REQUIRE_OK(c.perform(ha::TaskKind::follow, b));
  CHECK(c.observe_until([&](const NodeView& v) {
    return v.streaming && v.upstream == b.options.connect_address && to_int(v.timeline) == 2;
  }));
  CHECK(c.last.postmaster_pid == postmaster_of_c);
  // Its timeline is known also without a WAL receiver, and to an agent that has just started; the
  // control file says 1 until something is flushed.
  const auto receiver_of_c = std::stoi(c.value("SELECT pid FROM pg_stat_wal_receiver"));
  const auto postmaster_of_b = b.observe().postmaster_pid;
  ::kill(postmaster_of_b, SIGSTOP);  // nobody can connect to it
  ::kill(receiver_of_c, SIGTERM);
  CHECK(c.observe_until([](const NodeView& v) { return !v.streaming; }));
  CHECK(to_int(c.observe().timeline) == 2);
  c.agent();
  CHECK(to_int(c.observe().timeline) == 2);
  CHECK_FALSE(c.observe().streaming);
  ::kill(postmaster_of_b, SIGCONT);

  const auto rejoining = steady();
  REQUIRE_OK(a.perform(ha::TaskKind::rejoin, b));
  std::printf("rejoin by following took %.1f ms\n", ms_since(rejoining));
  CHECK(a.logged.find("rejoin n-2: follow") != std::string::npos);
  CHECK(a.observe_until([](const NodeView& v) { return v.streaming; }));
  CHECK(a.observe_until([&](const NodeView&) { return a.value("SELECT count(*) FROM t") == "1"; }));
  CHECK_FALSE(has_old_directory(a));

  // A standby whose upstream is gone still knows which timeline it is on, although it has made no
  // restartpoint there, and a new agent finds it out too.
  REQUIRE(b.controller->kill_now().has_value());
  REQUIRE(c.observe_until([](const NodeView& v) { return !v.streaming; }));
  CHECK(to_int(c.last.control_timeline) == 1);
  CHECK(to_int(c.last.timeline) == 2);
  c.agent();
  CHECK(to_int(c.observe().timeline) == 2);
}

TEST_CASE("a promotion does not wait for the next try to reach the old primary") {
  Bench bench;
  Pair pair(bench);
  auto& b = pair.b;
  // So long that the promotion fails if it is waited for.
  REQUIRE_OK(b.sql("ALTER SYSTEM SET wal_retrieve_retry_interval = '10min'"));
  REQUIRE_OK(b.sql("SELECT pg_reload_conf()"));
  // The WAL receiver is lost, and the promotion comes before the next one runs. In that moment
  // PostgreSQL notes it and goes to sleep. A postmaster that stands still makes the moment long.
  const auto receiver = std::stoi(b.value("SELECT pid FROM pg_stat_wal_receiver"));
  const auto postmaster = b.observe().postmaster_pid;
  REQUIRE(::kill(postmaster, SIGSTOP) == 0);
  REQUIRE(::kill(receiver, SIGTERM) == 0);
  REQUIRE(b.observe_until([](const NodeView& v) { return !v.streaming; }));
  ha::Task promote;
  promote.kind = ha::TaskKind::promote;
  promote.timeout = 20s;
  std::optional<Result<void>> outcome;
  boost::asio::co_spawn(bench.io,
                        b.controller->perform(promote),
                        [&](std::exception_ptr failure, Result<void> result) {
                          if (failure) std::rethrow_exception(failure);
                          outcome = std::move(result);
                        });
  CHECK(run_until(
      bench.io, [&] { return std::filesystem::exists(b.options.data_dir + "/promote"); }, 10s));
  REQUIRE(::kill(postmaster, SIGCONT) == 0);
  REQUIRE(run_until(
      bench.io, [&] { return outcome.has_value(); }, 40s));
  CHECK_MESSAGE(outcome->has_value(), outcome->error().text());
}

TEST_CASE("a standby whose upstream is out of reach is not stopped by a rejoin") {
  Bench bench;
  Pair pair(bench);
  const auto before = pair.b.observe().postmaster_pid;
  REQUIRE(before != 0);
  REQUIRE_OK(pair.a.stop(ha::StopMode::immediate));
  for (int round = 0; round < 2; ++round) {
    const auto refused = pair.b.perform(ha::TaskKind::rejoin, pair.a);
    REQUIRE(refused.has_error());
    CHECK(refused.error().detail().find("n1") != std::string::npos);
    CHECK(pair.b.observe().postmaster_pid == before);
    CHECK(pair.b.value("SELECT count(*) FROM t") == "0");
  }
}

TEST_CASE("a diverged primary comes back by pg_rewind, and by a copy when that is not allowed") {
  Bench bench;
  Pair pair(bench);
  auto& a = pair.a;
  auto& b = pair.b;
  SUBCASE("pg_rewind") {}
  SUBCASE("full copy") {
    a.options.use_pg_rewind = false;
    a.agent();
    REQUIRE(a.observe().running());
  }
  pair.catch_up();
  // The replica goes away, the primary writes on and crashes.
  REQUIRE_OK(b.stop());
  REQUIRE_OK(a.sql("INSERT INTO t SELECT generate_series(1, 1000)"));
  REQUIRE(a.controller->kill_now().has_value());
  REQUIRE_OK(b.perform(ha::TaskKind::start));
  CHECK_FALSE(b.observe().streaming);
  REQUIRE_OK(b.perform(ha::TaskKind::promote));
  REQUIRE_OK(b.sql("INSERT INTO t VALUES (7)"));

  const auto begin = steady();
  REQUIRE_OK(a.perform(ha::TaskKind::rejoin, b));
  std::printf("rejoin of a diverged primary took %.1f ms\n", ms_since(begin));
  const bool copied = !a.options.use_pg_rewind;
  CHECK((a.logged.find("rejoin n-2: full copy") != std::string::npos) == copied);
  CHECK((a.logged.find("rejoin n-2: rewind") != std::string::npos) == !copied);
  CHECK(a.observe_until([](const NodeView& v) { return v.streaming; }));
  CHECK(a.observe_until([&](const NodeView&) { return a.value("SELECT count(*) FROM t") == "1"; }));
  // What the copy replaced goes once the new one streams.
  CHECK(a.observe_until([&](const NodeView&) { return !has_old_directory(a); }));
}

TEST_CASE("a crashed primary that lost nothing follows without a rewind") {
  Bench bench;
  Pair pair(bench);
  auto& a = pair.a;
  auto& b = pair.b;
  pair.crash_without_a_loss();
  REQUIRE_OK(b.perform(ha::TaskKind::promote));
  REQUIRE_OK(a.perform(ha::TaskKind::rejoin, b));
  CHECK(a.logged.find("rejoin n-2: follow") != std::string::npos);
  // For a moment it streams the end of timeline 1, until its upstream says that there is no more of it.
  CHECK(a.observe_until([](const NodeView& v) { return v.streaming && to_int(v.timeline) == 2; }));
}

TEST_CASE(
    "an interrupted copy leaves nothing in the way, an interrupted pg_rewind is not started") {
  Bench bench;
  Pair pair(bench);
  auto& a = pair.a;
  auto& b = pair.b;
  REQUIRE_OK(b.stop());
  const auto before = b.observe();
  // The copy is slow enough to be cancelled in its middle.
  b.options.basebackup = {{"max-rate", "1M"}};
  b.agent();
  ha::Task reinit;
  reinit.kind = ha::TaskKind::rejoin;
  reinit.force = true;
  reinit.upstream = a.as_upstream();
  boost::asio::cancellation_signal signal;
  std::optional<Result<void>> outcome;
  boost::asio::co_spawn(bench.io,
                        b.controller->perform(reinit),
                        boost::asio::bind_cancellation_slot(
                            signal.slot(), [&](std::exception_ptr failure, Result<void> result) {
                              if (failure) std::rethrow_exception(failure);
                              outcome = std::move(result);
                            }));
  CHECK(run_until(
      bench.io,
      [&] {
        return b.controller->progress().find("copying") == 0 &&
               std::filesystem::exists(b.options.data_dir + ".new/PG_VERSION");
      },
      20s));
  signal.emit(boost::asio::cancellation_type::terminal);
  REQUIRE(run_until(
      bench.io, [&] { return outcome.has_value(); }, 10s));
  CHECK(outcome->has_error());
  CHECK(outcome->error().is(errc::cancelled));
  // The data directory is as it was.
  CHECK(b.observe().checkpoint_lsn == before.checkpoint_lsn);
  CHECK_FALSE(has_old_directory(b));

  std::ofstream(b.options.data_dir + ".rewinding") << "x";
  CHECK(b.perform(ha::TaskKind::start).has_error());
  b.options.basebackup.clear();
  b.agent();
  REQUIRE_OK(b.perform(ha::TaskKind::rejoin, a));
  CHECK(b.logged.find("rejoin n1: full copy") != std::string::npos);
  CHECK_FALSE(std::filesystem::exists(b.options.data_dir + ".rewinding"));
  CHECK_FALSE(std::filesystem::exists(b.options.data_dir + ".new"));
  CHECK(b.observe_until([&](const NodeView& v) { return v.streaming && !has_old_directory(b); }));
}

TEST_CASE("a data directory of another cluster is never overwritten") {
  Bench bench;
  Node a(bench, "n1");
  Node b(bench, "n2");
  REQUIRE_OK(a.perform(ha::TaskKind::bootstrap));
  REQUIRE_OK(b.perform(ha::TaskKind::bootstrap));
  REQUIRE_OK(b.sql("CREATE TABLE precious ()"));
  REQUIRE_OK(b.stop());
  const auto refused = b.perform(ha::TaskKind::rejoin, a);
  REQUIRE(refused.has_error());
  CHECK(refused.error().text().find("another cluster") != std::string::npos);
  REQUIRE_OK(b.start_as_primary());
  CHECK(b.value("SELECT count(*) FROM precious") == "0");
}
