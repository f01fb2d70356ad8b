// The guard against a real PostgreSQL 15 with backends in the middle of their work.
#include <doctest/doctest.h>
#include <grp.h>
#include <pwd.h>
#include <sys/resource.h>

#include <boost/asio/io_context.hpp>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <set>
#include <sstream>

#include "guard/ok.hpp"
#include "spilo/guard/end_server.hpp"
#include "spilo/guard/process_guard.hpp"
#include "spilo/runtime/system_clock.hpp"
#include "support/process.hpp"
#include "support/run.hpp"

namespace {

using namespace spilo;
using namespace spilo::test;
using namespace std::chrono_literals;

const std::string programs = "/usr/lib/postgresql/15/bin/";

// PostgreSQL refuses to run as root: then it gets a user of its own.
std::vector<std::string> as_user(std::vector<std::string> command) {
  if (::geteuid() != 0) return command;
  const char* user = ::getpwnam("postgres") != nullptr ? "postgres" : "nobody";
  const auto group = std::to_string(::getpwnam(user)->pw_gid);
  std::vector<std::string> all{
      "setpriv", std::string("--reuid=") + user, "--regid=" + group, "--clear-groups", "--"};
  all.insert(all.end(), command.begin(), command.end());
  return all;
}

class RealServer {
 public:
  RealServer() {
    std::filesystem::permissions(dir_.path(), std::filesystem::perms::all);
    run_command(
        as_user({programs + "initdb", "-D", data_dir(), "-A", "trust", "-U", "postgres", "-N"}),
        dir_ / "initdb.log");
    start();
  }
  // A streaming replica of that server.
  explicit RealServer(const RealServer& primary) {
    std::filesystem::permissions(dir_.path(), std::filesystem::perms::all);
    run_command(as_user({programs + "pg_basebackup",
                         "-D",
                         data_dir(),
                         "-h",
                         primary.dir_.path(),
                         "-p",
                         primary.port_,
                         "-U",
                         "postgres",
                         "-R",
                         "-c",
                         "fast"}),
                dir_ / "basebackup.log");
    start();
  }
  ~RealServer() { guard::end_server(data_dir().c_str()); }
  std::string data_dir() const { return dir_ / "data"; }
  std::vector<std::string> client(std::vector<std::string> command) const {
    command.insert(command.end(), {"-h", dir_.path(), "-p", port_, "-U", "postgres", "postgres"});
    command.front() = programs + command.front();
    return command;
  }
  std::string query(const std::string& sql) const {
    const auto file = log("query.log");
    std::filesystem::remove(file);
    return run_command(client({"psql", "-Atqc", sql}), file);
  }
  void promote() const {
    run_command(as_user({programs + "pg_ctl", "promote", "-D", data_dir()}), log("promote.log"));
  }
  std::string log(const std::string& name) const { return dir_ / name; }
  bool exists() const { return guard::server_processes_exist(data_dir().c_str()); }

 private:
  void start() {
    postmaster_ = std::make_unique<Process>(
        as_user(
            {programs + "postgres", "-D", data_dir(), "-k", dir_.path(), "-p", port_, "-h", ""}),
        dir_ / "server.log");
    const auto answers = [&] {
      Process ready({programs + "pg_isready", "-q", "-h", dir_.path(), "-p", port_},
                    dir_ / "ready.log");
      return ready.wait(5s) && ready.status() == 0;
    };
    REQUIRE(wait_until(answers, 30s));
  }

  TempDir dir_;
  std::string port_ = std::to_string(free_port());
  std::unique_ptr<Process> postmaster_;
};

}  // namespace

TEST_CASE("PostgreSQL under load ends with its agent's lease") {
  boost::asio::io_context io{1};
  SystemClock clock(io.get_executor());
  RealServer server;
  run_command(server.client({"pgbench", "-i", "-q"}), server.log("init.log"));
  Process load(server.client({"pgbench", "-c", "8", "-T", "60"}), server.log("load.log"));
  const auto backends_work = [&] {
    const auto out = run_command(
        server.client(
            {"psql", "-Atc", "select count(*) from pg_stat_activity where state='active'"}),
        server.log("activity.log"));
    return std::atoi(out.c_str() + out.find_last_of('\n', out.size() - 2) + 1) >= 3;
  };
  REQUIRE(wait_until(backends_work, 20s));

  GuardOptions options;
  options.data_dir = server.data_dir();
  ProcessGuard guard(io.get_executor(), options);
  REQUIRE(ok(guard.ensure()));
  const auto deadline = clock.now() + 300ms;
  REQUIRE(ok(guard.hold_until(deadline)));
  REQUIRE(wait_until([&] { return !server.exists(); }, 10s));
  const auto late = clock.now() - deadline;
  std::printf(
      "PostgreSQL 15 with 8 busy backends was gone %.1f ms after the deadline (seen within 5)\n",
      static_cast<double>(late.count()) / 1e6);
  CHECK(late > 0ms);
  CHECK(late < 1s);
  CHECK(load.wait(10s));
}

TEST_CASE("a stopped backend of PostgreSQL does not survive") {
  boost::asio::io_context io{1};
  SystemClock clock(io.get_executor());
  RealServer server;
  Process session(
      server.client({"psql", "-Atc", "select pg_backend_pid()", "-c", "select pg_sleep(60)"}),
      server.log("session.log"));
  REQUIRE(wait_until([&] { return std::atoi(session.log().c_str()) > 0; }, 10s));
  const int backend = std::atoi(session.log().c_str());
  REQUIRE(::kill(backend, SIGSTOP) == 0);
  GuardOptions options;
  options.data_dir = server.data_dir();
  ProcessGuard guard(io.get_executor(), options);
  REQUIRE(ok(guard.ensure()));
  REQUIRE(ok(guard.hold_until(clock.now())));
  CHECK(wait_until([&] { return !server.exists(); }, 5s));
  CHECK(session.wait(10s));
}

TEST_CASE("what a client was told is committed has reached the replica") {
  RealServer primary;
  primary.query("create table acknowledged (n int)");
  RealServer replica(primary);
  const auto walsender = [&] {
    return std::atoi(
        primary.query("select pid from pg_stat_replication where state='streaming'").c_str());
  };
  int walsender_pid = 0;
  REQUIRE(wait_until([&] { return (walsender_pid = walsender()) > 0; }, 10s));
  // A walsender that the machine lets wait: the clients get ahead of it by more than a moment.
  REQUIRE(::setpriority(PRIO_PROCESS, static_cast<id_t>(walsender_pid), 19) == 0);
  std::vector<std::unique_ptr<Process>> clients;
  for (int client = 0; client < 6; ++client) {
    const auto script = primary.log("rows" + std::to_string(client));
    std::ofstream out(script);
    for (int row = 0; row < 50'000; ++row)
      out << "insert into acknowledged values (" << client * 1'000'000 + row << ") returning n;\n";
    out.close();
    clients.push_back(std::make_unique<Process>(
        primary.client({"psql", "-Atq", "-v", "ON_ERROR_STOP=1", "-f", script}),
        primary.log("acknowledged" + std::to_string(client))));
  }
  const auto rows = [&] {
    return std::atoi(primary.query("select count(*) from acknowledged").c_str());
  };
  REQUIRE(wait_until([&] { return rows() > 3000; }, 30s));
  const auto result = guard::end_server(primary.data_dir().c_str());
  CHECK(result.complete());
  replica.promote();
  std::set<int> kept;
  std::istringstream all(replica.query("select n from acknowledged"));
  for (int n = 0; all >> n;) kept.insert(n);
  int acknowledged = 0;
  int lost = 0;
  for (auto& client : clients) {
    REQUIRE(client->wait(10s));
    std::istringstream lines(client->log());
    for (std::string line; std::getline(lines, line);) {
      if (line.empty() || line.find_first_not_of("0123456789") != std::string::npos) continue;
      ++acknowledged;
      if (!kept.contains(std::stoi(line))) ++lost;
    }
  }
  std::printf("the server was gone after %.1f ms; of %d acknowledged rows %d are missing\n",
              static_cast<double>(result.took_ns) / 1e6,
              acknowledged,
              lost);
  CHECK(acknowledged > 2900);
  CHECK(lost == 0);
}
