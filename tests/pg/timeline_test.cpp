// The number of a promotion's timeline, and steps that come too late.
#include <algorithm>

#include "pg/node.hpp"

using namespace spilo;
using namespace spilo::test;
using namespace std::chrono_literals;

namespace {

std::vector<std::string> history_files(const Node& node) {
  std::vector<std::string> out;
  for (const auto& entry : std::filesystem::directory_iterator(node.options.data_dir + "/pg_wal")) {
    const auto name = entry.path().filename().string();
    if (name.ends_with(".history")) out.push_back(name);
  }
  std::ranges::sort(out);
  return out;
}

ha::Task promote_to(std::uint32_t timeline_min) {
  ha::Task task;
  task.kind = ha::TaskKind::promote;
  task.timeline_min = TimelineId{timeline_min};
  return task;
}

}  // namespace

TEST_CASE("a promotion skips the numbers that may have been used, and the others follow it") {
  Bench bench;
  Node a(bench, "n1");
  Node b(bench, "n2");
  Node c(bench, "n3");
  REQUIRE_OK(a.perform(ha::TaskKind::bootstrap));
  REQUIRE_OK(a.sql("CREATE TABLE t (i int)"));
  for (auto* node : {&b, &c}) {
    REQUIRE_OK(node->perform(ha::TaskKind::clone, a));
    REQUIRE(node->observe_until([](const NodeView& v) { return v.streaming; }));
  }
  REQUIRE_OK(a.stop());

  REQUIRE_OK(b.perform(promote_to(5)));
  auto view = b.observe();
  CHECK(view.accepts_writes());
  CHECK(to_int(view.timeline) == 5);
  REQUIRE(view.history.size() == 1);
  CHECK(to_int(view.history[0].timeline) == 1);
  CHECK(history_files(b).size() == 4);

  REQUIRE_OK(c.perform(ha::TaskKind::follow, b));
  REQUIRE_OK(b.sql("INSERT INTO t VALUES (1)"));
  CHECK(c.observe_until([](const NodeView& v) { return v.streaming && to_int(v.timeline) == 5; }));
  REQUIRE_OK(a.perform(ha::TaskKind::rejoin, b));
  CHECK(a.observe_until([](const NodeView& v) { return v.streaming && to_int(v.timeline) == 5; }));
  // A number that PostgreSQL would choose anyway needs nothing.
  REQUIRE_OK(b.stop());
  REQUIRE_OK(c.perform(promote_to(6)));
  CHECK(to_int(c.observe().timeline) == 6);
  REQUIRE_OK(a.perform(ha::TaskKind::follow, c));
  CHECK(a.observe_until([](const NodeView& v) { return v.streaming && to_int(v.timeline) == 6; }));
  REQUIRE_OK(a.stop());
  REQUIRE_OK(a.perform(ha::TaskKind::rejoin, c));
  CHECK(a.observe_until([](const NodeView& v) { return v.streaming && to_int(v.timeline) == 6; }));
}

TEST_CASE("who restores from the archive finds the way past numbers that nobody has used") {
  Bench bench;
  Node a(bench, "n1");
  Node b(bench, "n2");
  Node c(bench, "n3");
  const auto archive = bench.directory / "archive";
  std::filesystem::create_directory(archive);
  // It refuses what it has under that name, as a careful one does.
  for (auto* node : {&a, &b, &c}) {
    node->options.parameters.set("archive_mode", "on")
        .set("archive_command", "test ! -f " + archive + "/%f && cp %p " + archive + "/%f")
        .set("restore_command", "cp " + archive + "/%f %p");
    node->agent();
  }
  REQUIRE_OK(a.perform(ha::TaskKind::bootstrap));
  REQUIRE_OK(a.sql("CREATE TABLE t (i int)"));
  for (auto* node : {&b, &c}) {
    REQUIRE_OK(node->perform(ha::TaskKind::clone, a));
    REQUIRE(node->observe_until([](const NodeView& v) { return v.streaming; }));
  }
  REQUIRE_OK(c.stop());
  REQUIRE_OK(a.stop());
  REQUIRE_OK(b.perform(promote_to(5)));
  REQUIRE_OK(b.sql("INSERT INTO t VALUES (1)"));
  // An agent that was started meanwhile does it too.
  SUBCASE("the agent that promoted") {}
  SUBCASE("another agent") { b.agent(); }
  SUBCASE("the archive has something else under one of the names") {
    std::ofstream(archive + "/00000003.history") << "1\t0/1\tnobody saw it\n";
    // Waited out by an agent before this one: it stays so.
    std::ofstream(b.options.data_dir + "/pg_wal/archive_status/00000003.history.done") << "";
  }
  const auto archived = [&](int number) {
    return std::filesystem::exists(archive + "/0000000" + std::to_string(number) + ".history");
  };
  // The archiver looks once a minute, and whenever a segment is complete.
  CHECK(b.observe_until(
      [&](const NodeView&) {
        for (int number = 2; number < 5; ++number)
          if (archived(number) && number != 3) CHECK(archived(number + 1));
        b.sql("SELECT pg_switch_wal() FROM pg_logical_emit_message(false, '', '')");
        return archived(2) && archived(3) && archived(4) && archived(5);
      },
      30s));
  // It has the archive only: whom it would stream from is down.
  REQUIRE_OK(c.perform(ha::TaskKind::start, a));
  CHECK(c.observe_until([&](const NodeView&) { return c.value("SELECT count(*) FROM t") == "1"; }));
  CHECK(to_int(c.last.timeline) == 5);
  CHECK_FALSE(c.last.streaming);
}

TEST_CASE("a mark in the middle of a row of numbers does not keep a standby from starting") {
  Bench bench;
  Node a(bench, "n1");
  Node b(bench, "n2");
  REQUIRE_OK(a.perform(ha::TaskKind::bootstrap));
  REQUIRE_OK(b.perform(ha::TaskKind::clone, a));
  REQUIRE_OK(b.stop());
  // A fetch from the archive brought the file of 4 and was interrupted before that of 3.
  std::ofstream(b.options.data_dir + "/pg_wal/00000002.history") << "# taken: spilo\n";
  std::ofstream(b.options.data_dir + "/pg_wal/00000004.history") << "1\tF/F0000000\tfar away\n";
  REQUIRE_OK(b.perform(ha::TaskKind::start, a));
  CHECK(b.observe_until([](const NodeView& v) { return v.streaming; }));
  CHECK(history_files(b) == std::vector<std::string>{"00000004.history"});
}

TEST_CASE("a segment that nobody missed does not make a hole in the row of numbers") {
  Bench bench;
  Node a(bench, "n1");
  Node b(bench, "n2");
  REQUIRE_OK(a.perform(ha::TaskKind::bootstrap));
  REQUIRE_OK(b.perform(ha::TaskKind::clone, a));
  REQUIRE(b.observe_until([](const NodeView& v) { return v.streaming; }));
  // Without a history file: of a promotion that never came to anything, and no line of this
  // server's.
  const auto segment = b.options.data_dir + "/pg_wal/000000040000000000000001";
  std::ofstream(segment) << "";
  CHECK(to_int(b.observe().timeline) == 1);
  SUBCASE("the server has said which line it is on") {
    REQUIRE_OK(b.perform(promote_to(6)));
    CHECK(to_int(b.observe().timeline) == 6);
  }
  SUBCASE("an agent that can't know takes it for its line, and sees that the number is too low") {
    b.agent();
    const auto failed = b.perform(promote_to(6));
    REQUIRE(failed.has_error());
    CHECK(failed.error().detail().find("timeline 2") != std::string::npos);
    CHECK_FALSE(b.server_exists());
  }
}

TEST_CASE("what an interrupted promotion left behind does not keep a standby from starting") {
  Bench bench;
  Node a(bench, "n1");
  Node b(bench, "n2");
  REQUIRE_OK(a.perform(ha::TaskKind::bootstrap));
  REQUIRE_OK(b.perform(ha::TaskKind::clone, a));
  REQUIRE(b.observe_until([](const NodeView& v) { return v.streaming; }));
  std::ofstream(b.options.data_dir + "/pg_wal/00000002.history") << "# taken: spilo\n";
  // It goes on beside the mark, also when it has to look for a newer timeline.
  REQUIRE_OK(a.stop());
  REQUIRE_OK(a.start_as_primary());
  CHECK(b.observe_until([](const NodeView& v) { return v.streaming; }));
  REQUIRE_OK(b.stop());
  REQUIRE_OK(b.perform(ha::TaskKind::start, a));
  CHECK(b.observe_until([](const NodeView& v) { return v.streaming; }));
  CHECK(history_files(b).empty());
}

TEST_CASE("nothing becomes writable after the lease, whatever its task has waited for") {
  Bench bench;
  Node a(bench, "n1");
  Node b(bench, "n2");
  REQUIRE_OK(a.perform(ha::TaskKind::bootstrap));
  REQUIRE_OK(b.perform(ha::TaskKind::clone, a));
  REQUIRE(b.observe_until([](const NodeView& v) { return v.streaming; }));
  for (auto* node : {&a, &b}) node->controller->may_write_until(bench.clock.now());

  const auto promoted = b.perform(ha::TaskKind::promote);
  REQUIRE(promoted.has_error());
  CHECK(promoted.error().is(errc::session_lost));
  CHECK(b.observe().role == NodeView::Role::replica);
  const auto restarted = a.perform(ha::TaskKind::restart);
  REQUIRE(restarted.has_error());
  CHECK(restarted.error().is(errc::session_lost));
  CHECK(a.observe().down());

  for (auto* node : {&a, &b}) node->controller->may_write_until(bench.clock.now() + 1min);
  REQUIRE_OK(a.start_as_primary());
  CHECK(a.observe().accepts_writes());
}
