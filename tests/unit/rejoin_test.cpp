#include "spilo/pg/rejoin.hpp"

#include <doctest/doctest.h>

#include <functional>

using namespace spilo;
using namespace spilo::pg;

namespace {

// A former primary of timeline 1, cleanly shut down: its last record is at 0x1000 and ends at
// 0x1078. The upstream is on timeline 2, which began exactly there.
RejoinFacts healthy() {
  RejoinFacts facts;
  facts.local.system_id = SystemId("7000000000000000001");
  facts.local.state = "shut down";
  facts.local.checkpoint = Lsn{0x1000};
  facts.local.timeline = TimelineId{1};
  facts.upstream_system_id = facts.local.system_id;
  facts.upstream_timeline = TimelineId{2};
  facts.upstream_flush = Lsn{0x9000};
  facts.upstream_history = {{TimelineId{1}, Lsn{0x1078}}};
  facts.rewind_possible = true;
  return facts;
}

struct RejoinRow {
  const char* name;
  std::function<void(RejoinFacts&)> change;
  RejoinStep step;
};

void as_standby(RejoinFacts& facts, std::uint64_t end, std::uint32_t timeline = 1) {
  facts.local.state = "in archive recovery";
  facts.local.min_recovery_point = Lsn{end};
  facts.local.min_recovery_timeline = TimelineId{timeline};
}
void as_crashed(RejoinFacts& facts) {
  facts.local.state = "in production";
}

const std::vector<RejoinRow> rows = {
    {"a clean former primary whose last record the new one had",
     [](RejoinFacts&) {},
     RejoinStep::follow},
    {"the new primary lacks the shutdown checkpoint",
     [](RejoinFacts& f) { f.upstream_history[0].end = Lsn{0x1000}; },
     RejoinStep::rewind},
    {"the new primary left earlier",
     [](RejoinFacts& f) { f.upstream_history[0].end = Lsn{0x800}; },
     RejoinStep::rewind},
    {"the new timeline began behind our end: not our successor",
     [](RejoinFacts& f) { f.upstream_history[0].end = Lsn{0x2000}; },
     RejoinStep::rewind},
    {"without pg_rewind everything is copied",
     [](RejoinFacts& f) {
       f.upstream_history[0].end = Lsn{0x800};
       f.rewind_possible = false;
     },
     RejoinStep::full_copy},
    {"without pg_rewind and without leave to copy",
     [](RejoinFacts& f) {
       f.upstream_history[0].end = Lsn{0x800};
       f.rewind_possible = false;
       f.copy_allowed = false;
     },
     RejoinStep::refuse},
    {"same timeline",
     [](RejoinFacts& f) {
       f.upstream_timeline = TimelineId{1};
       f.upstream_history.clear();
     },
     RejoinStep::follow},
    {"same timeline, but the upstream has lost WAL that we have",
     [](RejoinFacts& f) {
       f.upstream_timeline = TimelineId{1};
       f.upstream_history.clear();
       f.upstream_flush = Lsn{0x900};
     },
     RejoinStep::full_copy},
    {"same timeline, and a cascading upstream that is behind for a moment",
     [](RejoinFacts& f) {
       f.upstream_timeline = TimelineId{1};
       f.upstream_history.clear();
       f.upstream_flush = Lsn{0x900};
       f.upstream_in_recovery = true;
     },
     RejoinStep::follow},
    {"a standby before the switch",
     [](RejoinFacts& f) { as_standby(f, 0x1078); },
     RejoinStep::follow},
    {"a standby behind the switch",
     [](RejoinFacts& f) { as_standby(f, 0x1080); },
     RejoinStep::rewind},
    {"a standby that was shut down",
     [](RejoinFacts& f) {
       as_standby(f, 0x900);
       f.local.state = "shut down in recovery";
     },
     RejoinStep::follow},
    {"a standby without a minimum recovery point counts from its checkpoint",
     [](RejoinFacts& f) { as_standby(f, 0); },
     RejoinStep::follow},
    {"a crashed primary with an unknown end",
     [](RejoinFacts& f) { as_crashed(f); },
     RejoinStep::recover_first},
    {"a crashed primary that lost nothing",
     [](RejoinFacts& f) {
       as_crashed(f);
       f.local_wal_end = Lsn{0x1078};
     },
     RejoinStep::follow},
    {"a crashed primary with WAL that nobody else has",
     [](RejoinFacts& f) {
       as_crashed(f);
       f.local_wal_end = Lsn{0x1080};
     },
     RejoinStep::recover_first},
    {"the same without pg_rewind",
     [](RejoinFacts& f) {
       as_crashed(f);
       f.local_wal_end = Lsn{0x1080};
       f.rewind_possible = false;
     },
     RejoinStep::full_copy},
    {"both promoted to timeline 2, at different places",
     [](RejoinFacts& f) {
       f.local.timeline = TimelineId{2};
       f.local_history = {{TimelineId{1}, Lsn{0x700}}};
     },
     RejoinStep::rewind},
    {"we are on a later timeline than the upstream",
     [](RejoinFacts& f) {
       f.local.timeline = TimelineId{3};
       f.local_history = {{TimelineId{1}, Lsn{0x1078}}, {TimelineId{2}, Lsn{0xF00}}};
     },
     RejoinStep::rewind},
    {"two timelines behind, all in common",
     [](RejoinFacts& f) {
       f.upstream_timeline = TimelineId{3};
       f.upstream_history = {{TimelineId{1}, Lsn{0x1078}}, {TimelineId{2}, Lsn{0x4000}}};
     },
     RejoinStep::follow},
    {"a standby on timeline 2 without its history file",
     [](RejoinFacts& f) {
       as_standby(f, 0x3000, 2);
       f.local.timeline = TimelineId{2};
     },
     RejoinStep::follow},
    {"no common timeline",
     [](RejoinFacts& f) {
       as_standby(f, 0x3000, 5);
       f.local.timeline = TimelineId{5};
     },
     RejoinStep::rewind},
    {"another cluster",
     [](RejoinFacts& f) { f.upstream_system_id = SystemId("7000000000000000002"); },
     RejoinStep::refuse},
    {"an operator wants a copy, whatever is there",
     [](RejoinFacts& f) {
       f.upstream_system_id = SystemId("7000000000000000002");
       f.full_copy_wanted = true;
     },
     RejoinStep::full_copy},
    {"an interrupted pg_rewind",
     [](RejoinFacts& f) { f.unfinished_rewind = true; },
     RejoinStep::full_copy},
    {"an interrupted pg_rewind of another cluster's directory",
     [](RejoinFacts& f) {
       f.unfinished_rewind = true;
       f.upstream_system_id = SystemId("7000000000000000002");
     },
     RejoinStep::refuse},
};

}  // namespace

TEST_CASE("rejoin: which rung of the ladder") {
  for (const auto& row : rows) {
    CAPTURE(row.name);
    auto facts = healthy();
    row.change(facts);
    const auto decision = decide_rejoin(facts);
    CAPTURE(decision.why);
    CHECK(to_text(decision.step) == to_text(row.step));
    CHECK_FALSE(decision.why.empty());
  }
}

TEST_CASE("rejoin: timeline history files") {
  const auto history = parse_timeline_history(
      "# comment\n1\t0/1078\tno recovery target specified\n\n2\t1/A0\tx\nodd\n3 odd\n");
  CHECK(history ==
        std::vector<TimelineEnd>{{TimelineId{1}, Lsn{0x1078}}, {TimelineId{2}, Lsn{0x1000000A0}}});
  CHECK(parse_timeline_history("").empty());
  const auto lines = parse_history_lines("1\t0/1078\tno recovery target specified \n2\t0/2000\n");
  REQUIRE(lines.size() == 2);
  CHECK(lines[0].reason == "no recovery target specified");
  CHECK(lines[0].switch_lsn == Lsn{0x1078});
  CHECK(lines[1].timeline == TimelineId{2});
  CHECK(lines[1].reason.empty());
}

TEST_CASE("control file: checksum, and the end of a checkpoint record across pages") {
  CHECK(crc32c("123456789") == 0xE3069283U);
  CHECK(parse_control_file("short").error().is(errc::protocol));
  std::string other(8192, '\0');
  CHECK(parse_control_file(other).error().is(errc::unsupported));
  other[8] = 0x14;
  other[9] = 0x05;  // version 1300
  CHECK(parse_control_file(other).error().is(errc::protocol));
  ControlData data;
  data.checkpoint = Lsn{0x1000028};
  CHECK(checkpoint_record_end(data) == Lsn{0x10000A0});
  data.checkpoint = Lsn{0x1001FF0};  // 16 bytes before the end of a page: a header of 24 comes in
  CHECK(checkpoint_record_end(data) == Lsn{0x1001FF0 + 120 + 24});
  data.checkpoint = Lsn{0x1FFFFF0};  // before the end of a segment: a header of 40
  CHECK(checkpoint_record_end(data) == Lsn{0x1FFFFF0 + 120 + 40});
  data.checkpoint = Lsn{};
  CHECK(checkpoint_record_end(data) == Lsn{});
}
