#include "bench.hpp"

#include <dirent.h>
#include <libpq-fe.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <thread>

#include "support/child.hpp"

namespace bench {

volatile sig_atomic_t stop_asked = 0;

void rest(std::chrono::milliseconds time) {
  const auto end = std::chrono::steady_clock::now() + time;
  do {
    if (stop_asked != 0) throw Interrupted();
    const auto left = end - std::chrono::steady_clock::now();
    std::this_thread::sleep_for(
        std::min<std::chrono::nanoseconds>(left, std::chrono::milliseconds(100)));
  } while (std::chrono::steady_clock::now() < end);
}

std::string slurp(const std::string& path) {
  std::ifstream in(path);
  return std::string(std::istreambuf_iterator<char>(in), {});
}

void run_program(std::vector<std::string> command, const std::string& log_file) {
  const auto name = command.front();
  spilo::test::Process process(std::move(command), log_file);
  await(name + " ends", std::chrono::seconds(120), [&] { return !process.running(); });
  if (process.status() != 0) throw Failure(name + " failed: " + process.log());
}

std::string sql(const std::string& conninfo, const std::string& statement) {
  const std::unique_ptr<PGconn, void (*)(PGconn*)> connection(
      PQconnectdb((conninfo + " connect_timeout=5").c_str()), PQfinish);
  const std::unique_ptr<PGresult, void (*)(PGresult*)> result(
      PQexec(connection.get(), statement.c_str()), PQclear);
  const auto status = PQresultStatus(result.get());
  if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK)
    throw Failure(statement + ": " + PQerrorMessage(connection.get()));
  if (PQntuples(result.get()) == 0) return {};
  return PQgetvalue(result.get(), 0, 0);
}

std::vector<pid_t> processes_in(const std::string& directory) {
  std::vector<pid_t> out;
  DIR* proc = ::opendir("/proc");
  if (proc == nullptr) return out;
  char target[4096];
  while (const dirent* entry = ::readdir(proc)) {
    const pid_t pid = std::atoi(entry->d_name);
    if (pid <= 0) continue;
    const auto link = "/proc/" + std::to_string(pid) + "/cwd";
    const auto size = ::readlink(link.c_str(), target, sizeof target);
    if (size > 0 && std::string_view(target, static_cast<std::size_t>(size)) == directory)
      out.push_back(pid);
  }
  ::closedir(proc);
  return out;
}

pid_t postmaster_of(const std::string& data_dir) {
  return std::atoi(slurp(data_dir + "/postmaster.pid").c_str());
}

}  // namespace bench
