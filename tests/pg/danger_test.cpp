// What must not happen when things go wrong around a server: it is taken for down while it runs, it
// becomes a primary later, or the only copy of something goes.
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>

#include "pg/node.hpp"
#include "spilo/pg/control_file.hpp"

using namespace spilo;
using namespace spilo::test;
using namespace std::chrono_literals;
using State = NodeView::Process;
using Role = NodeView::Role;
using DataDir = NodeView::DataDir;

namespace fs = std::filesystem;

namespace {

// The process that replays WAL, by its title.
int startup_process(const std::string& data_dir) {
  const auto postmaster = guard::postmaster_pid(data_dir.c_str());
  for (const auto& entry : fs::directory_iterator("/proc")) {
    const int pid = std::atoi(entry.path().filename().c_str());
    if (pid <= 0 || slurp(entry.path() / "cmdline").find(": startup") == std::string::npos) continue;
    const auto stat = slurp(entry.path() / "stat");
    const auto fields = stat.substr(stat.rfind(')') + 1);
    if (std::atoi(fields.c_str() + 3) == postmaster) return pid;
  }
  return 0;
}

std::string only_sibling(const Node& node, const std::string& kind) {
  std::string found;
  for (const auto& entry : fs::directory_iterator(fs::path(node.options.data_dir).parent_path()))
    if (entry.path().string().starts_with(node.options.data_dir + kind)) found = entry.path();
  return found;
}

}  // namespace

TEST_CASE("a directory or programs that can't be used do not hide the server that runs there") {
  Bench bench;
  Node node(bench, "n1");
  REQUIRE_OK(node.perform(ha::TaskKind::bootstrap));
  REQUIRE(node.observe().accepts_writes());
  const auto& dir = node.options.data_dir;
  for (const char* what : {"a mode that PostgreSQL would not start with",
                           "the same, and the agent is new",
                           "the programs are gone, or too slow to tell their version",
                           "the control file can't be read"}) {
    CAPTURE(what);
    const std::string_view harm = what;
    if (harm.find("mode") != harm.npos || harm.find("same") != harm.npos)
      fs::permissions(dir, fs::perms(0755));
    if (harm.find("control") != harm.npos)
      fs::permissions(dir + "/global/pg_control", fs::perms(0));
    if (harm.find("programs") != harm.npos) node.options.bin_dir = "/nowhere";
    if (harm.find("same") != harm.npos || harm.find("programs") != harm.npos) node.agent();
    const auto view = node.observe();
    INFO(view.problem);
    CHECK(view.data_dir == DataDir::unusable);
    CHECK(view.alive());
    CHECK(view.role == Role::primary);
    CHECK_FALSE(view.accepts_writes());
    CHECK(node.server_exists());
    fs::permissions(dir, fs::perms(0700));
    fs::permissions(dir + "/global/pg_control", fs::perms(0600));
    if (harm.find("programs") != harm.npos) {
      node.options.bin_dir = programs_directory();
      node.agent();
    }
    CHECK(node.observe().accepts_writes());
  }
}

TEST_CASE("a server whose postmaster.pid can't be read is not taken for dead") {
  Bench bench;
  Node node(bench, "n1");
  REQUIRE_OK(node.perform(ha::TaskKind::bootstrap));
  node.agent();
  const auto before = node.observe();
  REQUIRE(before.running());
  const auto file = node.options.data_dir + "/postmaster.pid";
  fs::permissions(file, fs::perms(0));
  const auto view = node.observe();
  CHECK(view.running());
  CHECK(view.postmaster_pid == before.postmaster_pid);
  fs::permissions(file, fs::perms(0600));
  CHECK(node.observe().start_time == before.start_time);
  // Nor by an agent that has not seen it before.
  fs::permissions(file, fs::perms(0));
  node.agent();
  const auto unknown = node.observe();
  CHECK(unknown.alive());
  CHECK(node.server_exists());
  fs::permissions(file, fs::perms(0600));
  CHECK(node.observe().start_time == before.start_time);
  REQUIRE_OK(node.stop());
}

TEST_CASE("a server whose directory is moved away is ended, not forgotten") {
  Bench bench;
  Node node(bench, "n1");
  REQUIRE_OK(node.perform(ha::TaskKind::bootstrap));
  for (const bool adopted : {false, true}) {
    CAPTURE(adopted);
    if (adopted) {
      REQUIRE_OK(node.start_as_primary());
      node.agent();
    }
    REQUIRE(node.observe().running());
    const auto elsewhere = node.options.data_dir + "-moved";
    fs::rename(node.options.data_dir, elsewhere);
    if (adopted) fs::create_directory(node.options.data_dir);
    const auto view = node.observe();
    CHECK(view.data_dir == DataDir::empty);
    CHECK(view.down());
    CHECK_FALSE(guard::server_processes_exist(elsewhere.c_str()));
    if (adopted) fs::remove(node.options.data_dir);
    fs::rename(elsewhere, node.options.data_dir);
    CHECK(node.observe().process == State::crashed);
  }
}

TEST_CASE("a disk that does not answer holds up nothing but the look at it") {
  Bench bench;
  Node node(bench, "n1");
  REQUIRE_OK(node.perform(ha::TaskKind::bootstrap));
  REQUIRE(node.observe().accepts_writes());
  const auto file = node.options.data_dir + "/PG_VERSION";
  fs::rename(file, file + ".kept");
  // Whoever opens it waits, as for a server of files that is away.
  REQUIRE(::mkfifo(file.c_str(), 0600) == 0);
  int beats = 0;  // what the loop does meanwhile
  std::function<void(boost::system::error_code)> beat = [&](boost::system::error_code ec) {
    if (ec) return;
    ++beats;
    bench.clock.async_wait(bench.clock.now() + 20ms,
                           [&beat](boost::system::error_code next) { beat(next); });
  };
  beat({});
  const auto observe = [&] { return run(bench.io, node.controller->observe(bench.clock.now() + 500ms)); };
  const auto began = steady();
  const auto known = observe();
  CHECK(ms_since(began) < 5000);
  REQUIRE(known.has_error());
  CHECK(known.error().is(errc::timed_out));
  CHECK(known.error().text().find("data_dir " + node.options.data_dir + " does not answer") !=
        std::string::npos);
  CHECK(beats > 5);
  // A new agent does not take it for an empty directory, or for a server that is down.
  node.agent();
  const auto unknown = observe();
  REQUIRE(unknown.has_value());
  CHECK(unknown->data_dir == DataDir::unusable);
  CHECK(unknown->alive());
  CHECK_FALSE(unknown->accepts_writes());
  const auto refused = node.stop();
  REQUIRE(refused.has_error());
  CHECK(refused.error().is(errc::timed_out));
  CHECK(node.server_exists());
  // It answers again: told at once.
  const int changes = node.changes;
  fs::rename(file + ".kept", bench.directory / "version");
  { const std::ofstream wakes_the_readers(file); }
  CHECK(run_until(
      bench.io, [&] { return node.changes > changes; }, 10s));
  fs::rename(bench.directory / "version", file);
  CHECK(node.observe().accepts_writes());
  REQUIRE_OK(node.stop());
}

TEST_CASE("a promotion that does not end in time never ends") {
  Bench bench;
  Node a(bench, "n1");
  Node b(bench, "n2");
  REQUIRE_OK(a.perform(ha::TaskKind::bootstrap));
  REQUIRE_OK(b.perform(ha::TaskKind::clone, a));
  REQUIRE(b.observe_until([](const NodeView& v) { return v.streaming; }));
  const auto startup = startup_process(b.options.data_dir);
  REQUIRE(startup > 0);
  REQUIRE(::kill(startup, SIGSTOP) == 0);
  ha::Task promote;
  promote.kind = ha::TaskKind::promote;
  promote.timeout = 500ms;
  const auto failed = b.perform(promote);
  REQUIRE(failed.has_error());
  CHECK(failed.error().is(errc::timed_out));
  ::kill(startup, SIGCONT);
  CHECK_FALSE(b.server_exists());
  const auto view = b.observe();
  CHECK(view.down());
  CHECK(view.role == Role::replica);
  REQUIRE_OK(b.perform(ha::TaskKind::start, a));
  CHECK(b.observe_until([](const NodeView& v) { return v.streaming && v.role == Role::replica; }));
}

TEST_CASE("a pg_rewind of an agent that died does not write into the next copy") {
  Bench bench;
  Node a(bench, "n1");
  Node b(bench, "n2");
  REQUIRE_OK(a.perform(ha::TaskKind::bootstrap));
  REQUIRE_OK(b.perform(ha::TaskKind::clone, a));
  REQUIRE_OK(b.stop());
  const auto fifo = bench.directory / "nobody-writes-here";
  REQUIRE(::mkfifo(fifo.c_str(), 0600) == 0);
  const Process orphan(
      {"/bin/sh", "-c", "read line < " + fifo, "pg_rewind", "-D", b.options.data_dir},
      bench.directory / "orphan.log");
  // Between fork and exec it still looks like this program.
  REQUIRE(wait_until(
      [&] {
        return slurp("/proc/" + std::to_string(orphan.pid()) + "/cmdline").find("pg_rewind") !=
               std::string::npos;
      },
      10s));
  std::ofstream(b.options.data_dir + ".rewinding") << "x";
  REQUIRE_OK(b.perform(ha::TaskKind::rejoin, a));
  const auto state = slurp("/proc/" + std::to_string(orphan.pid()) + "/stat");
  CHECK((state.empty() || state[state.rfind(')') + 2] == 'Z'));
}

TEST_CASE("only what a copy of ours has left is removed") {
  Bench bench;
  Node a(bench, "n1");
  Node b(bench, "n2");
  REQUIRE_OK(a.perform(ha::TaskKind::bootstrap));
  const auto foreign = {b.options.data_dir + ".old-before-upgrade",
                        b.options.data_dir + ".old-2025",
                        b.options.data_dir + ".new"};
  for (const auto& path : foreign) {
    fs::create_directory(path);
    std::ofstream(path + "/precious") << "data";
  }
  REQUIRE_OK(b.perform(ha::TaskKind::clone, a));
  REQUIRE(b.observe_until([](const NodeView& v) { return v.streaming; }));
  // A second copy replaces the first, which goes once the second streams.
  ha::Task reinit;
  reinit.kind = ha::TaskKind::rejoin;
  reinit.force = true;
  reinit.upstream = a.as_upstream();
  REQUIRE_OK(b.perform(reinit));
  REQUIRE(b.observe_until([&](const NodeView& v) {
    return v.streaming && b.logged.find("the new copy streams: removing") != std::string::npos;
  }));
  run_until(
      bench.io, [] { return false; }, 300ms);
  CHECK(slurp(b.options.data_dir + ".old-before-upgrade/precious") == "data");
  CHECK(slurp(b.options.data_dir + ".old-2025/precious") == "data");
  CHECK(slurp(only_sibling(b, ".found-") + "/precious") == "data");
  CHECK_FALSE(fs::exists(b.options.data_dir + ".new"));
  CHECK_FALSE(fs::exists(b.options.data_dir + ".copying"));
}

TEST_CASE("a copy that was complete survives an end between the two renames") {
  Bench bench;
  Node a(bench, "n1");
  Node b(bench, "n2");
  REQUIRE_OK(a.perform(ha::TaskKind::bootstrap));
  REQUIRE_OK(b.perform(ha::TaskKind::clone, a));
  REQUIRE_OK(b.stop());
  const auto& dir = b.options.data_dir;
  struct stat info {};
  REQUIRE(::stat(dir.c_str(), &info) == 0);
  const auto complete = "complete " + std::to_string(info.st_ino) + "\n";
  // The old directory is out of the way, the copy is not in its place.
  fs::rename(dir, dir + ".new");
  std::ofstream(dir + ".copying") << complete;
  std::ofstream(dir + ".rewinding") << "x";
  b.agent();
  CHECK(b.observe().data_dir == DataDir::initialized);
  CHECK_FALSE(fs::exists(dir + ".rewinding"));
  CHECK_FALSE(fs::exists(dir + ".new"));
  CHECK_FALSE(fs::exists(dir + ".copying"));
  // It is in its place, and the markers are left.
  std::ofstream(dir + ".copying") << complete;
  std::ofstream(dir + ".rewinding") << "x";
  b.agent();
  CHECK(b.observe().data_dir == DataDir::initialized);
  CHECK_FALSE(fs::exists(dir + ".rewinding"));
  CHECK_FALSE(fs::exists(dir + ".copying"));
  // A directory that a rewind has left is not excused by an old marker.
  std::ofstream(dir + ".copying") << "complete 1\n";
  std::ofstream(dir + ".rewinding") << "x";
  b.agent();
  CHECK(b.observe().data_dir == DataDir::initialized);
  CHECK(fs::exists(dir + ".rewinding"));
  CHECK_FALSE(fs::exists(dir + ".copying"));
  fs::remove(dir + ".rewinding");
  // An incomplete copy is none.
  fs::rename(dir, dir + ".new");
  std::ofstream(dir + ".copying") << "building\n";
  b.agent();
  CHECK(b.observe().data_dir == DataDir::empty);
  REQUIRE_OK(b.perform(ha::TaskKind::clone, a));
  CHECK(only_sibling(b, ".found-").empty());
  CHECK(b.observe().data_dir == DataDir::initialized);
  CHECK_FALSE(fs::exists(dir + ".copying"));
}

TEST_CASE("the mark of an interrupted creation speaks of the cluster that was being created only") {
  Bench bench;
  Node node(bench, "n1");
  REQUIRE_OK(node.perform(ha::TaskKind::bootstrap));
  const auto marker = node.options.data_dir + ".creating";
  const auto id = node.observe().system_id;
  std::ofstream(marker) << "a new cluster is being created: 123\n";
  node.agent();
  CHECK(node.observe().accepts_writes());
  CHECK_FALSE(fs::exists(marker));
  std::ofstream(marker) << "a new cluster is being created: " << id.str() << "\n";
  node.agent();
  CHECK(node.observe().data_dir == DataDir::empty);
  CHECK_FALSE(node.server_exists());
  CHECK_FALSE(only_sibling(node, ".failed-").empty());
}
