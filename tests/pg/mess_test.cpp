// Copies and rewinds in the surroundings that people have: parts of the data directory elsewhere,
// disks that are full, programs that fail in their middle.
#include <fmt/format.h>
#include <sys/stat.h>

#include "pg/node.hpp"

using namespace spilo;
using namespace spilo::test;
using namespace std::chrono_literals;

namespace fs = std::filesystem;

namespace {

bool has_sibling(const std::string& path, const std::string& suffix) {
  for (const auto& entry : fs::directory_iterator(fs::path(path).parent_path()))
    if (entry.path().string().starts_with(path + suffix)) return true;
  return false;
}

// A program in the place of one of PostgreSQL's; "$real" is that one.
std::string stand_in(const Bench& bench, const std::string& name, const std::string& body) {
  const auto path = bench.directory / name;
  std::ofstream(path) << "#!/bin/sh\nreal=" << programs_directory() << "/" << name << "\n" << body;
  REQUIRE(::chmod(path.c_str(), 0700) == 0);
  return path;
}

ha::Task reinit_from(const Node& node) {
  ha::Task task;
  task.kind = ha::TaskKind::rejoin;
  task.force = true;
  task.upstream = node.as_upstream();
  return task;
}

bool streams(const NodeView& view) {
  return view.streaming;
}

}  // namespace

TEST_CASE(
    "copies with a tablespace and pg_wal elsewhere: nothing is left, nobody else's is touched") {
  Bench bench;
  Node a(bench, "n1");
  Node b(bench, "n2");
  const auto space = bench.directory / "space";
  const auto wal = bench.directory / "wal";
  fs::create_directory(space);
  b.options.basebackup = {{"waldir", wal}};
  b.agent();
  REQUIRE_OK(a.perform(ha::TaskKind::bootstrap));
  REQUIRE_OK(a.sql("CREATE TABLESPACE s LOCATION '" + space + "'"));
  REQUIRE_OK(a.sql("CREATE TABLE t TABLESPACE s AS SELECT 1 AS i"));
  REQUIRE_OK(b.perform(ha::TaskKind::clone, a));
  REQUIRE(b.observe_until(streams));
  CHECK(fs::read_symlink(b.options.data_dir + "/pg_wal") == wal);
  std::string place;  // of the tablespace, as this copy has it
  const auto look = [&] {
    place = b.value("SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 's'");
    CHECK(place.starts_with(space + ".spilo-"));
    CHECK(place.rfind(".spilo-") == space.size());  // once, however often
    CHECK(b.observe_until([&](const NodeView& v) {
      return v.streaming && b.value("SELECT i FROM t") == "1" &&
             !has_sibling(b.options.data_dir, ".old-");
    }));
  };
  look();
  // A second, where its place on the disk is taken by the first, and a third.
  for (const char* which : {"second", "third"}) {
    CAPTURE(which);
    const auto before = place;
    const auto wal_before = fs::read_symlink(b.options.data_dir + "/pg_wal").string();
    // The places are named by the second.
    const auto second = std::time(nullptr);
    run_until(bench.io, [&] { return std::time(nullptr) > second; }, 5s);
    REQUIRE_OK(b.perform(reinit_from(a)));
    REQUIRE(b.observe_until(streams));
    look();
    CHECK(place != before);
    CHECK(fs::read_symlink(b.options.data_dir + "/pg_wal") != wal_before);
    CHECK_FALSE(fs::exists(before));
    // The place that was configured is told, not emptied.
    CHECK(fs::exists(wal_before) == (wal_before == wal));
  }
  CHECK(b.logged.find("but what it has in " + wal + " is left") != std::string::npos);
  CHECK(a.value("SELECT i FROM t") == "1");
}

TEST_CASE("a rewind keeps the tablespace and the pg_wal that are elsewhere") {
  Bench bench;
  Node a(bench, "n1");
  Node b(bench, "n2");
  const auto space = bench.directory / "space";
  fs::create_directory(space);
  b.options.basebackup = {{"waldir", bench.directory / "wal"}};
  b.agent();
  REQUIRE_OK(a.perform(ha::TaskKind::bootstrap));
  REQUIRE_OK(a.sql("CREATE TABLESPACE s LOCATION '" + space + "'"));
  REQUIRE_OK(a.sql("CREATE TABLE t TABLESPACE s AS SELECT 1 AS i"));
  REQUIRE_OK(b.perform(ha::TaskKind::clone, a));
  REQUIRE(b.observe_until(streams));
  REQUIRE_OK(a.stop());
  REQUIRE_OK(b.perform(ha::TaskKind::promote));
  REQUIRE_OK(a.perform(ha::TaskKind::rejoin, b));
  REQUIRE(a.observe_until(streams));
  // What it writes while the other is away is lost.
  REQUIRE_OK(a.stop());
  REQUIRE_OK(b.sql("INSERT INTO t SELECT generate_series(2, 500)"));
  REQUIRE(b.controller->kill_now().has_value());
  REQUIRE_OK(a.perform(ha::TaskKind::start));
  REQUIRE_OK(a.perform(ha::TaskKind::promote));
  REQUIRE_OK(a.sql("INSERT INTO t SELECT generate_series(2, 1000)"));
  const auto link = fs::read_symlink(b.options.data_dir + "/pg_wal");
  SUBCASE("it ends well") {
    REQUIRE_OK(b.perform(ha::TaskKind::rejoin, a));
    CHECK(b.logged.find("rejoin n1: rewind") != std::string::npos);
    CHECK(fs::read_symlink(b.options.data_dir + "/pg_wal") == link);
  }
  SUBCASE("it fails in its middle") {
    b.options.bin_name["pg_rewind"] =
        stand_in(bench,
                 "pg_rewind",
                 "case \"$*\" in *--dry-run*|*--version*) exec $real \"$@\";; esac\n"
                 "rm -rf \"$2/base/1\"; echo 'no space left' >&2; exit 1\n");
    b.agent();
    const auto failed = b.perform(ha::TaskKind::rejoin, a);
    // Mixed files are never started; the next attempt copies everything.
    if (failed.has_error()) {
      CHECK(failed.error().text().find("no space left") != std::string::npos);
      CHECK(fs::exists(b.options.data_dir + ".rewinding"));
      REQUIRE_OK(b.perform(ha::TaskKind::rejoin, a));
    }
    CHECK(b.logged.find("copying everything") != std::string::npos);
    CHECK_FALSE(fs::exists(b.options.data_dir + ".rewinding"));
  }
  CHECK(b.observe_until([&](const NodeView& v) {
    return v.streaming && b.value("SELECT count(*) FROM t") == "1000";
  }));
}

TEST_CASE("a copy for which there is no room leaves nothing, and what was there stays") {
  Bench bench;
  Node a(bench, "n1");
  Node b(bench, "n2");
  REQUIRE_OK(a.perform(ha::TaskKind::bootstrap));
  REQUIRE_OK(a.sql("CREATE TABLE t AS SELECT generate_series(1, 100000) AS i"));
  REQUIRE_OK(b.perform(ha::TaskKind::clone, a));
  REQUIRE(b.observe_until(streams));
  const auto& dir = b.options.data_dir;
  struct stat before {};
  REQUIRE(::stat(dir.c_str(), &before) == 0);
  // No file gets larger than 1 MB, which is what a full disk looks like to a program.
  b.options.bin_name["pg_basebackup"] =
      stand_in(bench, "pg_basebackup", "trap '' XFSZ\nulimit -f 2048\nexec $real \"$@\"\n");
  b.agent();
  const auto failed = b.perform(reinit_from(a));
  REQUIRE(failed.has_error());
  INFO(failed.error().text());
  CHECK(failed.error().text().find("copy from n1") != std::string::npos);
  CHECK(failed.error().text().find("File too large") != std::string::npos);
  struct stat after {};
  REQUIRE(::stat(dir.c_str(), &after) == 0);
  CHECK(after.st_ino == before.st_ino);
  for (const char* left : {".new", ".copying", ".old-", ".rewinding"}) {
    CAPTURE(left);
    CHECK_FALSE(has_sibling(dir, left));
  }
  REQUIRE_OK(b.perform(ha::TaskKind::start, a));
  CHECK(b.observe_until(streams));
}

TEST_CASE("with a wrong password for the superuser it can be promoted, seen to lead, and stopped") {
  Bench bench;
  Node a(bench, "n1");
  Node b(bench, "n2");
  REQUIRE_OK(a.perform(ha::TaskKind::bootstrap));
  REQUIRE_OK(b.perform(ha::TaskKind::clone, a));
  REQUIRE(b.observe_until(streams));
  REQUIRE_OK(a.stop());
  const auto good = b.options.superuser.password;
  b.options.superuser.password = "wrong";
  b.agent();
  auto view = b.observe();
  CHECK(view.running());
  CHECK(view.role == NodeView::Role::replica);
  CHECK(view.problem.find("the password under postgresql.authentication is not the one") !=
        std::string::npos);
  ha::Task promote;
  promote.kind = ha::TaskKind::promote;
  promote.timeline_min = TimelineId{4};
  REQUIRE_OK(b.perform(promote));
  // To end a server that serves its clients would make an outage of a typing error.
  CHECK(b.observe_until(
      [](const NodeView& v) { return v.accepts_writes() && to_int(v.timeline) == 4; }));
  CHECK(b.last.problem.find("password") != std::string::npos);
  b.options.superuser.password = good;
  CHECK(b.value("SELECT pg_is_in_recovery()") == "f");
  REQUIRE_OK(b.stop());
  CHECK_FALSE(b.server_exists());
}
