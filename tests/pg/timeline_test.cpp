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
  ha::Task start;
  start.kind = ha::TaskKind::start;
  start.as_primary = true;
  REQUIRE_OK(a.perform(start));
  CHECK(b.observe_until([](const NodeView& v) { return v.streaming; }));
  REQUIRE_OK(b.stop());
  start.as_primary = false;
  start.upstream = a.as_upstream();
  REQUIRE_OK(b.perform(start));
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
  ha::Task start;
  start.kind = ha::TaskKind::start;
  start.as_primary = true;
  REQUIRE_OK(a.perform(start));
  CHECK(a.observe().accepts_writes());
}
