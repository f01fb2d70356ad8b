#include "postgres_alone.hpp"

#include <fmt/format.h>
#include <libpq-fe.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "bench.hpp"
#include "support/postgres.hpp"

namespace bench {

using namespace std::chrono_literals;

PostgresAlone::PostgresAlone(const std::string& directory) : directory_(directory) {
  std::filesystem::create_directories(directory_);
  for (std::size_t n = 0; n < servers_.size(); ++n) {
    servers_[n].data_dir = fmt::format("{}/pg{}", directory_, n + 1);
    servers_[n].port = spilo::test::free_port();
  }
  auto& first = servers_[0];
  run_program({spilo::test::programs_directory() + "/initdb",
               "-D",
               first.data_dir,
               "-U",
               "postgres",
               "-E",
               "UTF8",
               "--locale=C",
               "--data-checksums",
               "-A",
               "trust"},
              directory_ + "/initdb.log");
  configure(first);
  start(first);
  await_answers(0);
  rebuild();
}

PostgresAlone::~PostgresAlone() {
  for (auto& server : servers_) end(server);
}

std::string PostgresAlone::conninfo(int node) const {
  return fmt::format("host=127.0.0.1 port={} user=postgres dbname=postgres",
                     servers_[static_cast<std::size_t>(node)].port);
}

std::vector<std::string> PostgresAlone::conninfos() const {
  std::vector<std::string> out;
  for (int n = 0; n < 3; ++n) out.push_back(conninfo(n));
  return out;
}

// The same as the nodes of the cluster that is measured beside it.
void PostgresAlone::configure(const Server& server) const {
  std::ofstream(server.data_dir + "/postgresql.auto.conf")
      << "listen_addresses = '127.0.0.1'\nport = " << server.port
      << "\nunix_socket_directories = ''\nshared_buffers = 16MB\nmax_connections = 50\n"
         "wal_level = replica\nwal_log_hints = on\nhot_standby = on\nmax_wal_senders = 10\n"
         "wal_keep_size = 128MB\nwal_retrieve_retry_interval = 500ms\n";
}

void PostgresAlone::start(Server& server) {
  server.process = std::make_unique<spilo::test::Process>(
      std::vector<std::string>{
          spilo::test::programs_directory() + "/postgres", "-D", server.data_dir},
      server.data_dir + ".log");
}

void PostgresAlone::await_answers(int node) {
  auto& server = servers_[static_cast<std::size_t>(node)];
  await("PostgreSQL answers; see " + server.data_dir + ".log", 30s, [&] {
    if (!server.process->running()) throw Failure("PostgreSQL ended: " + server.process->log());
    return PQping(conninfo(node).c_str()) == PQPING_OK;
  });
}

void PostgresAlone::end(Server& server) {
  if (server.process) server.process->end(SIGQUIT);
  server.process.reset();
  // The children of a postmaster that was killed end by themselves, in a moment.
  for (const auto pid : processes_in(server.data_dir)) ::kill(pid, SIGKILL);
}

void PostgresAlone::rebuild() {
  for (int n = 0; n < 3; ++n) {
    if (n == primary_) continue;
    auto& server = servers_[static_cast<std::size_t>(n)];
    end(server);
    std::filesystem::remove_all(server.data_dir);
    run_program({spilo::test::programs_directory() + "/pg_basebackup",
                 "-D",
                 server.data_dir,
                 "-d",
                 conninfo(primary_),
                 "-X",
                 "stream",
                 "-c",
                 "fast",
                 "--no-sync"},
                server.data_dir + ".log");
    configure(server);
    std::ofstream(server.data_dir + "/postgresql.auto.conf", std::ios::app)
        << "primary_conninfo = '" << conninfo(primary_) << "'\n";
    std::ofstream(server.data_dir + "/standby.signal");
    start(server);
  }
  await("both standbys stream", 60s, [&] {
    return sql(conninfo(primary_),
               "select count(*) from pg_stat_replication where state = 'streaming'") == "2";
  });
  for (int n = 0; n < 3; ++n) await_answers(n);
}

void PostgresAlone::promote_after(int signal, bool wait_for_end) {
  const int heir = (primary_ + 1) % 3;
  auto& old = servers_[static_cast<std::size_t>(primary_)];
  sql(conninfo(primary_), "checkpoint");
  const std::unique_ptr<PGconn, void (*)(PGconn*)> standby(PQconnectdb(conninfo(heir).c_str()),
                                                           PQfinish);
  if (PQstatus(standby.get()) != CONNECTION_OK) throw Failure(PQerrorMessage(standby.get()));
  const int ended = static_cast<int>(::syscall(SYS_pidfd_open, old.process->pid(), 0));
  old.process->signal(signal);
  // A fast stop ends only when every standby has confirmed everything.
  pollfd waiting{ended, POLLIN, 0};
  const bool good = !wait_for_end || ::poll(&waiting, 1, 60'000) == 1;
  ::close(ended);
  if (!good) throw Failure("PostgreSQL did not stop within a minute");
  PQclear(PQexec(standby.get(), "select pg_promote(false)"));
  // A startup process that has just lost its stream may note that and sleep all the same, until
  // wal_retrieve_retry_interval is over. A reload wakes it: the floor is not to be paid for that.
  const auto& server = servers_[static_cast<std::size_t>(heir)];
  await("the standby is promoted", 60s, [&] {
    const std::unique_ptr<PGresult, void (*)(PGresult*)> answer(
        PQexec(standby.get(), "select pg_is_in_recovery()"), PQclear);
    if (PQntuples(answer.get()) == 1 && *PQgetvalue(answer.get(), 0, 0) == 'f') return true;
    server.process->signal(SIGHUP);
    return false;
  });
  primary_ = heir;
}

void PostgresAlone::switch_over() {
  promote_after(SIGINT, true);
}
void PostgresAlone::kill_and_promote() {
  promote_after(SIGKILL, false);
}

}  // namespace bench
