#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>

#include "pg/node.hpp"
#include "spilo/pg/command.hpp"
#include "spilo/pg/control_file.hpp"

using namespace spilo;
using namespace spilo::test;
using namespace std::chrono_literals;
using State = NodeView::Process;
using Role = NodeView::Role;
using DataDir = NodeView::DataDir;

TEST_CASE("the tests run as somebody PostgreSQL accepts") {
  REQUIRE(unprivileged);
}

TEST_CASE("bootstrap creates a primary with its users; a new agent adopts it") {
  Bench bench;
  Node node(bench, "n1");
  CHECK(node.observe().data_dir == DataDir::empty);
  const auto script = bench.directory / "post.sh";
  {
    std::ofstream out(script);
    out << "#!/bin/sh\necho \"$1|$PGPASSFILE|${SPILO_SECRET:-none}\" > " << script << ".out\n"
        << programs_directory() << "/psql \"$1\" -c 'CREATE TABLE made_by_script()'\n";
  }
  ::chmod(script.c_str(), 0700);
  ::setenv("SPILO_SECRET", "x", 1);
  node.options.post_bootstrap = script + " ";
  node.agent();
  REQUIRE_OK(node.perform(ha::TaskKind::bootstrap));
  auto view = node.observe();
  INFO(view.problem);
  CHECK(view.process == State::running);
  CHECK(view.role == Role::primary);
  CHECK(view.accepts_writes());
  CHECK(to_int(view.timeline) == 1);
  CHECK(view.flushed != Lsn{});
  CHECK(is_valid(view.system_id));
  CHECK(view.server_version / 10000 >= 13);
  CHECK(view.can_rewind);
  CHECK(view.control_state == "in production");
  CHECK_FALSE(view.pending_restart);
  CHECK(view.start_time.size() == std::string("2026-01-02 03:04:05.123456+00:00").size());
  CHECK(node.value("SELECT string_agg(rolname || rolreplication::text, ',' ORDER BY rolname) FROM "
                   "pg_roles WHERE rolname !~ '^pg_'") == "replicatortrue,rewinderfalse,supertrue");
  CHECK(node.value("SELECT count(*) FROM pg_class WHERE relname = 'made_by_script'") == "1");
  const auto script_saw = slurp(script + ".out");
  CHECK(script_saw.find("none") != std::string::npos);
  CHECK(script_saw.find("secret") == std::string::npos);
  CHECK(slurp(node.options.log_file).find("secret") == std::string::npos);

  // What the cluster was configured with is remembered beside its data.
  REQUIRE(node.controller->last_config().has_value());
  CHECK(json::dump(node.controller->last_config()->document) == "{}");
  const auto old = view;
  node.agent();
  view = node.observe();
  CHECK(view.process == State::running);
  CHECK(view.postmaster_pid == old.postmaster_pid);
  CHECK(view.start_time == old.start_time);
  REQUIRE_OK(node.stop());
  view = node.observe();
  CHECK(view.process == State::stopped);
  CHECK(view.control_state == "shut down");
  CHECK_FALSE(node.server_exists());

  // One past the shutdown checkpoint: pg_waldump agrees.
  const auto waldump = run(bench.io, [&]() -> Async<pg::Outcome> {
    pg::Command command(programs_directory() + "/pg_waldump");
    command.arg("--path=" + node.options.data_dir + "/pg_wal").arg("--timeline=1");
    command.arg("--start=" + to_text(view.checkpoint_lsn)).env("LC_ALL", "C");
    co_return co_await pg::run_program(bench.clock, command, bench.clock.now() + 10s);
  }());
  REQUIRE(waldump.has_value());
  INFO(waldump->output);
  CHECK(waldump->output.find("CHECKPOINT_SHUTDOWN") != std::string::npos);
  CHECK(waldump->output.find("invalid record length at " + to_text(view.checkpoint_end)) !=
        std::string::npos);

  // The text of pg_controldata says the same as the file.
  const auto text = run(bench.io, [&]() -> Async<pg::Outcome> {
    pg::Command command(programs_directory() + "/pg_controldata");
    command.arg(node.options.data_dir).env("LC_ALL", "C");
    co_return co_await pg::run_program(bench.clock, command, bench.clock.now() + 10s);
  }());
  REQUIRE(text.has_value());
  const auto from_text = pg::parse_controldata_text(text->output);
  const auto from_file = pg::read_control_file(node.options.data_dir);
  REQUIRE(from_text.has_value());
  REQUIRE(from_file.has_value());
  CHECK(*from_text == *from_file);
}

TEST_CASE("a killed postmaster is noticed at once, and nothing of it survives") {
  Bench bench;
  Node node(bench, "n1");
  REQUIRE_OK(node.perform(ha::TaskKind::bootstrap));
  for (const bool adopted : {false, true}) {
    CAPTURE(adopted);
    if (adopted) {
      // A server that is no child of this process: started by an agent that is gone.
      REQUIRE_OK(node.start_as_primary());
      node.agent();
    }
    auto view = node.observe();
    REQUIRE(view.running());
    node.changes = 0;
    const auto begin = steady();
    ::kill(view.postmaster_pid, SIGKILL);
    CHECK(run_until(
        bench.io, [&] { return node.changes > 0; }, 2000ms));
    const auto took = ms_since(begin);
    std::printf("postmaster killed: noticed, and its children gone, after %.1f ms\n", took);
    CHECK(took < 500);
    CHECK_FALSE(node.server_exists());
    view = node.observe();
    CHECK(view.process == State::crashed);
    CHECK(view.role == Role::primary);
    CHECK(view.postmaster_pid == 0);
  }
}

TEST_CASE("a frozen postmaster is hung, although old connections answer") {
  Bench bench;
  Node node(bench, "n1");
  REQUIRE_OK(node.perform(ha::TaskKind::bootstrap));
  REQUIRE(node.observe().running());
  const auto pid = node.observe().postmaster_pid;
  ::kill(pid, SIGSTOP);
  const auto begin = steady();
  CHECK(node.observe_until([](const NodeView& v) { return v.process == State::hung; }, 20s));
  std::printf("frozen postmaster: hung after %.0f ms\n", ms_since(begin));
  CHECK(node.last.role == Role::primary);
  // Without any connection of old it is the same.
  node.agent();
  const auto asked = steady();
  CHECK(node.observe(500ms).process == State::hung);
  CHECK(ms_since(asked) < 1500);
  ::kill(pid, SIGCONT);
  CHECK(node.observe_until([](const NodeView& v) { return v.running(); }));
  ::kill(pid, SIGSTOP);
  REQUIRE_OK(node.stop(ha::StopMode::immediate));
  CHECK_FALSE(node.server_exists());
  CHECK(node.observe().process == State::crashed);
}

TEST_CASE("kill_now leaves no process") {
  Bench bench;
  Node node(bench, "n1");
  REQUIRE_OK(node.perform(ha::TaskKind::bootstrap));
  const auto begin = steady();
  REQUIRE(node.controller->kill_now().has_value());
  std::printf("kill_now took %.1f ms\n", ms_since(begin));
  CHECK_FALSE(node.server_exists());
  CHECK(node.observe().process == State::crashed);
}

TEST_CASE("bad surroundings are told in one sentence and nothing is touched") {
  Bench bench;
  Node node(bench, "n1");
  SUBCASE("not empty, no PG_VERSION") {
    ::mkdir(node.options.data_dir.c_str(), 0700);
    std::ofstream(node.options.data_dir + "/precious") << "data";
    const auto view = node.observe();
    CHECK(view.data_dir == DataDir::unusable);
    CHECK(view.problem.find("precious") != std::string::npos);
    CHECK(node.perform(ha::TaskKind::bootstrap).error().is(errc::denied));
    CHECK(slurp(node.options.data_dir + "/precious") == "data");
  }
  SUBCASE("not writable") {
    ::mkdir(node.options.data_dir.c_str(), 0500);
    const auto view = node.observe();
    CHECK(view.data_dir == DataDir::unusable);
    CHECK(view.problem.find("not writable") != std::string::npos);
  }
  SUBCASE("owned by somebody else") {
    node.options.data_dir = "/usr";
    node.agent();
    const auto view = node.observe();
    CHECK(view.data_dir == DataDir::unusable);
    CHECK(view.problem.find("belongs to user id 0") != std::string::npos);
    node.options.data_dir = bench.directory / "n1";
  }
  SUBCASE("another major version") {
    ::mkdir(node.options.data_dir.c_str(), 0700);
    std::ofstream(node.options.data_dir + "/PG_VERSION") << "9\n";
    const auto view = node.observe();
    CHECK(view.data_dir == DataDir::unusable);
    CHECK(view.problem.find("of PostgreSQL 9") != std::string::npos);
  }
  SUBCASE("no programs") {
    node.options.bin_dir = "/nowhere";
    node.agent();
    const auto view = node.observe();
    CHECK(view.data_dir == DataDir::unusable);
    CHECK(view.problem.find("bin_dir") != std::string::npos);
  }
}

TEST_CASE("taken port, wrong password, odd values") {
  Bench bench;
  Node node(bench, "n1");
  // Odd values are dropped with a warning, the rest is used.
  node.options.parameters.set("work_mem", "a lot")
      .set("no_such_parameter", 1)
      .set("max_connections", 10);
  node.options.parameters.set("log_min_messages", json::Value::array()).set("work mem", "1MB");
  node.options.parameters.set("maintenance_work_mem", "32MB");
  node.agent();
  REQUIRE_OK(node.perform(ha::TaskKind::bootstrap));
  for (const char* name :
       {"work_mem", "no_such_parameter", "max_connections", "log_min_messages", "work mem"}) {
    CAPTURE(name);
    CHECK(node.logged.find(std::string("postgresql.parameters.") + name) != std::string::npos);
  }
  CHECK(node.value("SHOW maintenance_work_mem") == "32MB");
  CHECK(node.value("SHOW max_connections") == "100");

  SUBCASE("wrong password: it runs, and the reason why we can't look is told") {
    const auto good = node.options.superuser.password;
    node.options.superuser.password = "wrong";
    node.agent();
    const auto view = node.observe();
    CHECK(view.process == State::running);
    CHECK(view.role == Role::primary);
    CHECK(view.problem.find("28P01") != std::string::npos);
    CHECK(view.problem.find("LOCATION") == std::string::npos);
    CHECK(view.problem.find("; the password under postgresql.authentication is not the one that "
                            "this server has") != std::string::npos);
    CHECK(view.problem.find("wrong") == std::string::npos);
    node.options.superuser.password = good;
  }
  SUBCASE("taken port") {
    Node other(bench, "n2");
    other.options.port = node.options.port;
    other.agent();
    const auto failed = other.perform(ha::TaskKind::bootstrap);
    REQUIRE(failed.has_error());
    INFO(failed.error().text());
    CHECK(failed.error().is(errc::unavailable));
    CHECK(failed.error().text().starts_with(
        fmt::format("port {} on 127.0.0.1 is taken by another process; end that one (`ss -ltnp` "
                    "names it) or change postgresql.listen",
                    node.options.port)));
    // Nothing was created, and the creation can be repeated.
    CHECK_FALSE(std::filesystem::exists(other.options.data_dir + ".new"));
    CHECK(other.observe().data_dir == DataDir::empty);
    other.options.port = free_port();
    other.agent();
    REQUIRE_OK(other.perform(ha::TaskKind::bootstrap));
  }
  SUBCASE("pending restart and reload") {
    DynamicConfig dynamic;
    dynamic.document =
        *json::parse(R"({"postgresql":{"parameters":{"max_connections":150,"work_mem":"5MB"}}})");
    node.controller->configure(dynamic);
    node.options.parameters.set("shared_buffers", "24MB").set("deadlock_timeout", "3s");
    node.options.parameters.erase("work_mem");
    node.controller->reconfigure(node.options);
    REQUIRE_OK(node.perform(ha::TaskKind::reload));
    CHECK(node.observe_until([](const NodeView& v) { return v.pending_restart; }));
    CHECK(node.observe_until(
        [&](const NodeView&) { return node.value("SHOW deadlock_timeout") == "3s"; }));
    CHECK(json::dump(node.last.pending_restart_reason)
              .find(R"("max_connections":{"old_value":"100","new_value":"150"})") !=
          std::string::npos);
    CHECK(json::dump(node.last.pending_restart_reason).find("shared_buffers") != std::string::npos);
    REQUIRE_OK(node.perform(ha::TaskKind::restart));
    const auto view = node.observe();
    CHECK_FALSE(view.pending_restart);
    CHECK(view.accepts_writes());
    CHECK(node.value("SHOW max_connections") == "150");
  }
  SUBCASE("slots are made and dropped") {
    const auto sync = [&](std::vector<std::string> wanted) {
      std::vector<std::pair<std::string, Lsn>> none;
      return run(bench.io, node.controller->sync_slots(wanted, none, bench.clock.now() + 5s));
    };
    REQUIRE_OK(sync({"a", "b"}));
    CHECK(node.observe().slots == std::vector<std::string>{"a", "b"});
    REQUIRE_OK(sync({"b", "c"}));
    CHECK(node.observe().slots == std::vector<std::string>{"b", "c"});
  }
  SUBCASE("callbacks run with action, role and scope, and without our environment") {
    const auto script = bench.directory / "callback.sh";
    std::ofstream(script) << "#!/bin/sh\necho \"$@ ${SPILO_SECRET:-none}\" > " << script
                          << ".tmp; mv " << script << ".tmp " << script << ".out\n";
    ::chmod(script.c_str(), 0700);
    node.options.callbacks["on_start"] = script + " 'first arg'";
    node.agent();
    node.controller->run_callback("on_start", "primary");
    CHECK(run_until(
        bench.io, [&] { return ::access((script + ".out").c_str(), R_OK) == 0; }, 5s));
    CHECK(slurp(script + ".out") == "first arg on_start primary test none\n");
  }
}
