// A PostgreSQL node for tests: a controller with a data directory of its own, on a free port, run
// as an unprivileged user. Everything is ended and removed with the object.
#pragma once

#include <doctest/doctest.h>

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>

#include "spilo/guard/end_server.hpp"
#include "spilo/pg/connection.hpp"
#include "spilo/pg/controller.hpp"
#include "spilo/runtime/system_clock.hpp"
#include "support/postgres.hpp"
#include "support/process.hpp"
#include "support/run.hpp"

namespace spilo::test {

inline const bool unprivileged = become_unprivileged();

inline std::string slurp(const std::string& path) {
  std::ifstream in(path);
  std::stringstream out;
  out << in.rdbuf();
  return out.str();
}

inline std::chrono::steady_clock::time_point steady() {
  return std::chrono::steady_clock::now();
}
inline double ms_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double, std::milli>(steady() - begin).count();
}

struct Bench {  // one event loop for all nodes of a test
  boost::asio::io_context io{1};
  SystemClock clock{io.get_executor()};
  TempDir directory;
};

class Node {
 public:
  Node(Bench& bench, std::string name) : bench_(bench) {
    options.name = NodeName(name);
    options.scope = Scope("test");
    options.data_dir = bench.directory / name;
    options.log_file = bench.directory / (name + ".log");
    options.pgpass = bench.directory / (name + ".pgpass");
    options.bin_dir = programs_directory();
    options.listen = "127.0.0.1";
    options.port = free_port();
    options.connect_address = "127.0.0.1:" + std::to_string(options.port);
    options.superuser.username = "super";
    options.superuser.password = "super:secret'\\";
    options.replication.username = "replicator";
    options.replication.password = "rep secret";
    options.rewind.username = "rewinder";
    options.rewind.password = "rewind-secret";
    options.bootstrap_pg_hba = {"host all all 127.0.0.1/32 scram-sha-256",
                                "host replication all 127.0.0.1/32 scram-sha-256"};
    options.parameters = json::Value::object();
    options.parameters.set("unix_socket_directories", bench.directory.path())
        .set("fsync", false)
        .set("shared_buffers", "16MB");
    agent();
  }
  ~Node() {
    controller.reset();
    guard::end_server(options.data_dir.c_str());
    if (FailureListener::failed)
      std::printf(
          "--- log of %s\n%s\n", options.name.str().c_str(), slurp(options.log_file).c_str());
  }
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  // A new agent for the same server, as after a restart of the program.
  void agent() {
    controller.reset();
    changes = 0;
    const Logger logger(LogLevel::debug, [this](LogLevel level, std::string_view text) {
      logged += std::string(to_text(level)) + " " + std::string(text) + "\n";
      if (std::getenv("SPILO_TEST_VERBOSE") != nullptr)
        std::printf("[%s] %s\n", options.name.str().c_str(), std::string(text).c_str());
    });
    controller =
        std::make_unique<pg::PgController>(bench_.io.get_executor(), bench_.clock, options, logger);
    DynamicConfig dynamic;
    dynamic.document = json::Value::object();
    controller->configure(dynamic);
    controller->on_change([this] { ++changes; });
  }

  NodeView observe(Duration limit = std::chrono::seconds(3)) {
    auto view = run(bench_.io, controller->observe(bench_.clock.now() + limit));
    REQUIRE(view.has_value());
    return *view;
  }
  template <class Condition>
  bool observe_until(Condition condition, Duration limit = std::chrono::seconds(15)) {
    const auto end = bench_.clock.now() + limit;
    while (bench_.clock.now() < end) {
      last = observe();
      if (condition(last)) return true;
      run_until(
          bench_.io, [] { return false; }, std::chrono::milliseconds(20));
    }
    return false;
  }

  Result<void> perform(ha::Task task) { return run(bench_.io, controller->perform(task)); }
  Result<void> perform(ha::TaskKind kind) {
    ha::Task task;
    task.kind = kind;
    return perform(task);
  }
  Result<void> start_as_primary() {
    ha::Task task;
    task.kind = ha::TaskKind::start;
    task.as_primary = true;
    return perform(task);
  }
  Result<void> perform(ha::TaskKind kind, const Node& upstream) {
    ha::Task task;
    task.kind = kind;
    task.upstream = upstream.as_upstream();
    return perform(task);
  }
  Result<void> stop(ha::StopMode mode = ha::StopMode::fast) {
    ha::Task task;
    task.kind = ha::TaskKind::stop;
    task.mode = mode;
    return perform(task);
  }

  ha::Upstream as_upstream() const {
    ha::Upstream out;
    out.name = options.name;
    out.conn_url = "postgres://" + options.connect_address + "/postgres";
    return out;
  }

  // One statement as the superuser, on a connection of its own.
  Result<pg::Rows> sql(const std::string& statement) {
    pg::ConnectParams params;
    params.set("host", "127.0.0.1").set("port", std::to_string(options.port));
    params.set("user", options.superuser.username).set("password", options.superuser.password);
    params.set("dbname", "postgres");
    const auto deadline = bench_.clock.now() + std::chrono::seconds(10);
    auto opened = run(bench_.io, pg::Connection::open(bench_.clock, params, deadline));
    if (opened.has_error()) return opened.error();
    return run(bench_.io, (*opened)->query(statement, deadline));
  }
  std::string value(const std::string& statement) {
    const auto rows = sql(statement);
    if (rows.has_error()) return rows.error().text();
    return std::string(rows->text(0, 0));
  }

  bool server_exists() const { return guard::server_processes_exist(options.data_dir.c_str()); }

  pg::PgOptions options;
  std::unique_ptr<pg::PgController> controller;
  NodeView last;
  int changes = 0;
  std::string logged;

 private:
  Bench& bench_;
};

#define REQUIRE_OK(expression)                                                                  \
  do {                                                                                          \
    const auto spilo_result = (expression);                                                     \
    const std::string spilo_text = spilo_result.has_error() ? spilo_result.error().text() : ""; \
    INFO(spilo_text);                                                                           \
    REQUIRE(spilo_result.has_value());                                                          \
  } while (false)

}  // namespace spilo::test
