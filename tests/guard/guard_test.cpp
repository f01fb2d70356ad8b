// The guard against servers that notice nothing by themselves.
#include "spilo/guard/process_guard.hpp"

#include <doctest/doctest.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/io_context.hpp>
#include <cstdio>
#include <filesystem>
#include <memory>

#include "guard/ok.hpp"
#include "spilo/guard/end_server.hpp"
#include "spilo/runtime/system_clock.hpp"
#include "support/process.hpp"
#include "support/run.hpp"

namespace {

using namespace spilo;
using namespace spilo::test;
using namespace std::chrono_literals;

constexpr int children = 12;
constexpr auto patience = 10s;

// What a deadline may be missed by on a machine that builds something else at the same time. Alone
// it is a few milliseconds; the figure is printed.
constexpr Duration tolerance = 250ms;

class FakeServer {
 public:
  explicit FakeServer(const TempDir& dir)
      : data_dir_(dir / "data"), ticks_file_(dir / "ticks"), log_(dir / "server.log") {
    std::filesystem::create_directory(data_dir_);
    start();
  }
  ~FakeServer() {
    guard::end_server(data_dir_.c_str());
    if (ticks_ != nullptr) ::munmap(ticks_, 4096);
  }
  // It may be ended before it has written its postmaster.pid.
  void launch() {
    std::filesystem::remove(data_dir_ + "/postmaster.pid");
    process_ = std::make_unique<Process>(
        std::vector<std::string>{FAKE_POSTGRES, data_dir_, std::to_string(children), ticks_file_},
        log_);
  }
  bool ended(std::chrono::milliseconds within) { return process_->wait(within); }
  void start() {
    launch();
    REQUIRE(wait_until([&] { return guard::postmaster_pid(data_dir_.c_str()) == process_->pid(); },
                       patience));
    if (ticks_ == nullptr) {
      const int fd = ::open(ticks_file_.c_str(), O_RDONLY | O_CLOEXEC);
      ticks_ = ::mmap(nullptr, 4096, PROT_READ, MAP_SHARED, fd, 0);
      ::close(fd);
    }
  }
  // When any of its processes last did something.
  TimePoint last_act() const {
    const auto* ticks = static_cast<const std::atomic<std::int64_t>*>(ticks_);
    std::int64_t last = 0;
    for (int n = 0; n <= children; ++n) last = std::max(last, ticks[n].load());
    return TimePoint(Duration(last));
  }
  bool exists() const { return guard::server_processes_exist(data_dir_.c_str()); }
  // Does something now, not only a moment ago.
  bool acts() const {
    const auto before = last_act();
    return wait_until([&] { return last_act() > before; }, 500ms);
  }
  const std::string& data_dir() const { return data_dir_; }

 private:
  std::string data_dir_;
  std::string ticks_file_;
  std::string log_;
  std::unique_ptr<Process> process_;
  void* ticks_ = nullptr;
};

struct Fixture {
  boost::asio::io_context io{1};
  SystemClock clock{io.get_executor()};
  TempDir dir;
  FakeServer server{dir};

  std::unique_ptr<ProcessGuard> make_guard() {
    GuardOptions options;
    options.data_dir = server.data_dir();
    auto guard = std::make_unique<ProcessGuard>(io.get_executor(), options);
    const auto ready = guard->ensure();
    REQUIRE_MESSAGE(ready.has_value(), ready.error().text());
    return guard;
  }
  std::unique_ptr<Process> start_agent(Duration lease, Duration renew) {
    const auto ms = [](Duration d) {
      return std::to_string(std::chrono::duration_cast<std::chrono::milliseconds>(d).count());
    };
    auto agent = std::make_unique<Process>(
        std::vector<std::string>{GUARD_AGENT, server.data_dir(), ms(lease), ms(renew)},
        dir / "agent.log");
    REQUIRE(wait_until([&] { return agent->log().find("ready ") != std::string::npos; }, patience));
    return agent;
  }
  static int guard_of(const Process& agent) {
    const auto log = agent.log();
    return std::atoi(log.c_str() + log.find("ready ") + 6);
  }
  // Waits until the server has gone, and tells how long it went on after that time.
  Duration overrun(TimePoint deadline) {
    REQUIRE(wait_until([&] { return !server.exists(); }, patience));
    return server.last_act() - deadline;
  }
  void wait_for(TimePoint at) {
    run_until(
        io, [&] { return clock.now() >= at; }, patience);
  }
};

// A guard is nobody's child: when it has ended, init reaps it in its own time.
bool runs(int pid) {
  std::ifstream in("/proc/" + std::to_string(pid) + "/stat");
  const std::string text(std::istreambuf_iterator<char>(in), {});
  const auto name_end = text.rfind(')');
  return name_end != std::string::npos && text[name_end + 2] != 'Z';
}

void print(const char* what, Duration value) {
  std::printf("%s: %.2f ms\n", what, static_cast<double>(value.count()) / 1e6);
}

}  // namespace

TEST_CASE_FIXTURE(Fixture, "the guard ends every process of the server when its deadline passes") {
  auto guard = make_guard();
  const auto deadline = clock.now() + 200ms;
  REQUIRE(ok(guard->hold_until(deadline)));
  CHECK(guard->deadline() == deadline);
  const auto late = overrun(deadline);
  print("deadline passed, the last process of 13 acted after it for", late);
  CHECK(late < tolerance);
  CHECK(late > -50ms);
  CHECK(wait_until([&] { return guard->fired() == 1; }, patience));
  CHECK(guard->deadline() == TimePoint());
  // It says so where people look.
  const std::string log = server.data_dir() + ".guard.log";
  REQUIRE(wait_until([&] { return std::filesystem::exists(log); }, patience));
  std::ifstream in(log);
  const std::string line(std::istreambuf_iterator<char>(in), {});
  CHECK(line.find("ended PostgreSQL in " + server.data_dir()) != std::string::npos);
}

TEST_CASE_FIXTURE(Fixture, "moving the deadline keeps the server alive") {
  auto guard = make_guard();
  for (int n = 0; n < 20; ++n) {
    REQUIRE(ok(guard->hold_until(clock.now() + 400ms)));
    wait_for(clock.now() + 40ms);
  }
  CHECK(server.acts());
  CHECK(guard->fired() == 0);
  // And the last move is the one that counts.
  const auto deadline = guard->deadline();
  const auto late = overrun(deadline);
  CHECK(late < tolerance);
  CHECK(late > -50ms);
}

TEST_CASE_FIXTURE(Fixture, "a deadline that comes nearer wakes the guard") {
  auto guard = make_guard();
  REQUIRE(ok(guard->hold_until(clock.now() + 60s)));
  wait_for(clock.now() + 50ms);
  const auto deadline = clock.now() + 100ms;
  REQUIRE(ok(guard->hold_until(deadline)));
  CHECK(overrun(deadline) < tolerance);
}

TEST_CASE_FIXTURE(Fixture, "a deadline that has passed already ends the server at once") {
  auto guard = make_guard();
  const auto asked = clock.now();
  REQUIRE(ok(guard->hold_until(TimePoint(Duration(0)))));
  CHECK(overrun(asked) < tolerance);
}

TEST_CASE_FIXTURE(Fixture, "a guard that somebody has stopped goes on with a renewal") {
  const auto state_of = [](int pid) {
    std::ifstream in("/proc/" + std::to_string(pid) + "/stat");
    const std::string text(std::istreambuf_iterator<char>(in), {});
    const auto name_end = text.rfind(')');
    return name_end == std::string::npos ? '?' : text[name_end + 2];
  };
  auto guard = make_guard();
  const int pid = guard->pid();
  // Asleep with a deadline, and without one.
  bool armed = false;
  SUBCASE("armed") { armed = true; }
  SUBCASE("not armed") {}
  if (armed) REQUIRE(ok(guard->hold_until(clock.now() + 600ms)));
  wait_for(clock.now() + 50ms);
  REQUIRE(::kill(pid, SIGSTOP) == 0);
  REQUIRE(wait_until([&] { return state_of(pid) == 'T'; }, patience));
  const auto give_up = clock.now() + patience;
  while (state_of(pid) == 'T' && clock.now() < give_up) {
    REQUIRE(ok(guard->hold_until(clock.now() + 600ms)));
    wait_for(clock.now() + 100ms);
  }
  CHECK(guard->pid() == pid);
  CHECK(server.acts());
  const auto deadline = clock.now() + 300ms;
  REQUIRE(ok(guard->hold_until(deadline)));
  CHECK(overrun(deadline) < tolerance);
}

TEST_CASE_FIXTURE(Fixture, "stand_down calls it off") {
  auto guard = make_guard();
  const auto deadline = clock.now() + 200ms;
  REQUIRE(ok(guard->hold_until(deadline)));
  REQUIRE(ok(guard->stand_down()));
  wait_for(deadline + 300ms);
  CHECK(server.acts());
  CHECK(guard->fired() == 0);
}

TEST_CASE_FIXTURE(Fixture,
                  "the agent is killed: the server ends at the deadline, then the guard leaves") {
  auto agent = start_agent(500ms, 100ms);
  const int guard_pid = guard_of(*agent);
  agent->end(SIGKILL);
  const auto killed = clock.now();
  const auto late = overrun(killed + 500ms);
  print("agent killed, server acted after the end of the lease for (at most)", late);
  CHECK(late < tolerance);
  CHECK(server.last_act() > killed);
  CHECK(wait_until([&] { return !runs(guard_pid); }, patience));
}

TEST_CASE_FIXTURE(Fixture, "the agent is frozen: the server ends at the deadline and stays ended") {
  auto agent = start_agent(500ms, 100ms);
  const int guard_pid = guard_of(*agent);
  agent->freeze();
  const auto frozen = clock.now();
  const auto late = overrun(frozen + 500ms);
  print("agent frozen, server acted after the end of the lease for (at most)", late);
  CHECK(late < tolerance);
  // Something, perhaps the agent itself as it wakes, starts a server again before the agent has
  // said that it knows.
  server.launch();
  CHECK(server.ended(patience));
  CHECK(wait_until([&] { return !server.exists(); }, patience));
  CHECK(runs(guard_pid));
  agent->signal(SIGCONT);
}

TEST_CASE_FIXTURE(Fixture, "after stand_down a server that was ended may be started again") {
  auto guard = make_guard();
  const auto deadline = clock.now() + 50ms;
  REQUIRE(ok(guard->hold_until(deadline)));
  overrun(deadline);
  REQUIRE(wait_until([&] { return guard->fired() == 1; }, patience));
  REQUIRE(ok(guard->stand_down()));
  server.start();
  wait_for(clock.now() + 400ms);
  CHECK(server.acts());
  CHECK(guard->fired() == 1);
  // And is guarded again from the next deadline on.
  const auto next = clock.now() + 100ms;
  REQUIRE(ok(guard->hold_until(next)));
  CHECK(overrun(next) < tolerance);
}

TEST_CASE_FIXTURE(Fixture, "an agent that comes back in time adopts the guard, deadline and all") {
  auto agent = start_agent(1500ms, 100ms);
  const int guard_pid = guard_of(*agent);
  agent->end(SIGKILL);
  const auto end_of_lease = clock.now() + 1500ms;

  auto guard = make_guard();
  CHECK(guard->pid() == guard_pid);
  CHECK(guard->deadline() > clock.now());
  CHECK(guard->deadline() <= end_of_lease);
  REQUIRE(ok(guard->hold_until(clock.now() + 60s)));
  wait_for(end_of_lease + 200ms);
  CHECK(server.acts());
  CHECK(guard->fired() == 0);

  // Without a deadline and without an agent it has nothing left to do.
  REQUIRE(ok(guard->stand_down()));
  guard.reset();
  CHECK(wait_until([&] { return !runs(guard_pid); }, patience));
}

TEST_CASE_FIXTURE(Fixture, "an adopted guard goes on without being asked again") {
  auto agent = start_agent(500ms, 100ms);
  agent->end(SIGKILL);
  const auto end_of_lease = clock.now() + 500ms;
  auto guard = make_guard();  // and then this agent hangs
  CHECK(overrun(end_of_lease) < tolerance);
}

TEST_CASE_FIXTURE(Fixture, "two agents on one data directory: the second is refused") {
  auto agent = start_agent(5s, 100ms);
  GuardOptions options;
  options.data_dir = server.data_dir();
  ProcessGuard guard(io.get_executor(), options);
  const auto refused = guard.ensure();
  REQUIRE(!refused.has_value());
  CHECK(refused.error().is(errc::conflict));
  CHECK(refused.error().detail().find(std::to_string(agent->pid())) != std::string::npos);
  CHECK(!guard.hold_until(clock.now() + 1s).has_value());
  CHECK(server.acts());
}

TEST_CASE_FIXTURE(Fixture,
                  "the guard dies: on_death tells, and ensure starts another with its deadline") {
  auto guard = make_guard();
  int deaths = 0;
  guard->on_death([&] { ++deaths; });
  const auto deadline = clock.now() + 1s;
  REQUIRE(ok(guard->hold_until(deadline)));
  const int first = guard->pid();
  REQUIRE(::kill(first, SIGKILL) == 0);
  REQUIRE(run_until(
      io, [&] { return deaths == 1; }, patience));
  CHECK(!guard->alive());
  const auto refused = guard->hold_until(clock.now() + 2s);
  REQUIRE(!refused.has_value());
  CHECK(refused.error().is(errc::unavailable));

  REQUIRE(ok(guard->ensure()));
  CHECK(guard->alive());
  CHECK(guard->pid() != first);
  CHECK(guard->deadline() == deadline);
  const auto late = overrun(deadline);
  CHECK(late < tolerance);
  CHECK(late > -50ms);
  // The second one's death is told as well.
  REQUIRE(::kill(guard->pid(), SIGKILL) == 0);
  CHECK(run_until(
      io, [&] { return deaths == 2; }, patience));
}

TEST_CASE_FIXTURE(Fixture, "the guard is small, alone, and deaf to polite signals") {
  auto guard = make_guard();
  const int pid = guard->pid();
  for (const int number : {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2}) ::kill(pid, number);
  REQUIRE(ok(guard->hold_until(clock.now() + 60s)));
  wait_for(clock.now() + 50ms);
  CHECK(guard->alive());
  CHECK(::getsid(pid) == pid);
  CHECK(::getpgid(pid) == pid);
  // Standard streams, page, timer, signals, agent: nothing of ours.
  const std::string proc = "/proc/" + std::to_string(pid);
  int descriptors = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(proc + "/fd"))
    ++descriptors;
  CHECK(descriptors <= 8);
  std::ifstream rollup(proc + "/smaps_rollup");
  long rss_kib = 0, pss_kib = 0;
  for (std::string line; std::getline(rollup, line);) {
    std::sscanf(line.c_str(), "Rss: %ld", &rss_kib);
    std::sscanf(line.c_str(), "Pss: %ld", &pss_kib);
  }
  std::printf("resident memory of the guard: %ld KiB (PSS %ld KiB)\n", rss_kib, pss_kib);
  CHECK(rss_kib > 0);
  CHECK(rss_kib < 700);
}

TEST_CASE_FIXTURE(Fixture, "end_server leaves others alone and believes no stale postmaster.pid") {
  // A shell in the directory is no server, and neither is whoever has the id in the file now.
  Process bystander(
      {"/bin/sh", "-c", "cd " + server.data_dir() + " && echo there && exec sleep 60"},
      dir / "bystander.log");
  REQUIRE(wait_until([&] { return !bystander.log().empty(); }, patience));
  Process stranger({"sleep", "60"}, dir / "stranger.log");
  {
    std::ofstream out(server.data_dir() + "/postmaster.pid");
    out << stranger.pid() << "\n";
  }
  const auto result = guard::end_server(server.data_dir().c_str());
  CHECK(result.complete());
  CHECK(result.killed >= children + 1);
  CHECK(!server.exists());
  CHECK(bystander.running());
  CHECK(stranger.running());
  // Nothing there is success.
  const auto again = guard::end_server(server.data_dir().c_str());
  CHECK(again.complete());
  CHECK(again.killed == 0);
  CHECK(guard::end_server((dir / "no-such-directory").c_str()).complete());
}

TEST_CASE_FIXTURE(Fixture, "a limit shortens a deadline, and never lengthens one") {
  auto guard = make_guard();
  const auto limit = clock.now() + 60s;
  REQUIRE(ok(guard->hold_no_longer_than(limit)));  // none was in force
  CHECK(guard->deadline() == limit);
  REQUIRE(ok(guard->hold_until(limit + 30s)));
  REQUIRE(ok(guard->hold_no_longer_than(limit)));
  CHECK(guard->deadline() == limit);
  REQUIRE(ok(guard->hold_no_longer_than(limit + 10s)));
  CHECK(guard->deadline() == limit);
  REQUIRE(ok(guard->hold_no_longer_than(clock.now() + 50ms)));
  CHECK(wait_until([&] { return !server.exists(); }, patience));
  REQUIRE(ok(guard->hold_no_longer_than(limit)));
  CHECK(guard->deadline() == TimePoint{});  // it has passed, and stays so
}

TEST_CASE_FIXTURE(Fixture, "a renamed data directory does not hide the server") {
  auto guard = make_guard();
  std::filesystem::rename(server.data_dir(), server.data_dir() + ".old");
  const auto deadline = clock.now() + 50ms;
  REQUIRE(ok(guard->hold_until(deadline)));
  const auto old_name = server.data_dir() + ".old";
  CHECK(wait_until([&] { return !guard::server_processes_exist(old_name.c_str()); }, patience));
  guard::end_server(old_name.c_str());
}

TEST_CASE_FIXTURE(Fixture, "another directory with the same inode is another directory") {
  // Seen here: a guard outlived its directory, and the next one was given the same inode.
  guard::DirectoryId id;
  REQUIRE(guard::directory_id(server.data_dir().c_str(), id) == 0);
  const int pid = guard::postmaster_pid(server.data_dir().c_str());
  CHECK(guard::is_server_process(pid, id));
  if (id.born_ns == 0) return;  // a file system without times of birth
  id.born_ns -= 1;
  CHECK(!guard::is_server_process(pid, id));
  CHECK(guard::end_server(id, pid, 0).killed == 0);
  CHECK(server.acts());
}

TEST_CASE("a missing guard program is one clear error") {
  boost::asio::io_context io{1};
  TempDir dir;
  GuardOptions options;
  options.data_dir = dir / "data";
  options.program = dir / "no-such-program";
  ProcessGuard guard(io.get_executor(), options);
  const auto failed = guard.ensure();
  REQUIRE(!failed.has_value());
  CHECK(failed.error().is(errc::command_failed));
  CHECK(failed.error().detail().find("no-such-program") != std::string::npos);
  CHECK(!guard.alive());
  // A program that is no guard ends without a word.
  options.program = "/bin/false";
  ProcessGuard other(io.get_executor(), options);
  const auto ended = other.ensure();
  REQUIRE(!ended.has_value());
  CHECK(ended.error().detail().find("status 1") != std::string::npos);
}

TEST_CASE("a guard needs no data directory yet") {
  boost::asio::io_context io{1};
  SystemClock clock(io.get_executor());
  TempDir dir;
  GuardOptions options;
  options.data_dir = dir / "data";
  ProcessGuard guard(io.get_executor(), options);
  REQUIRE(ok(guard.ensure()));
  REQUIRE(ok(guard.hold_until(clock.now())));
  CHECK(wait_until([&] { return guard.deadline() == TimePoint(); }, patience));
  CHECK(ok(guard.stand_down()));
}
