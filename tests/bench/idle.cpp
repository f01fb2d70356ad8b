#include "idle.hpp"

#include <dirent.h>
#include <fmt/format.h>

#include <cstdlib>

#include "bench.hpp"

namespace bench {

using namespace std::chrono_literals;

namespace {

std::vector<std::string> threads_of(pid_t pid) {
  std::vector<std::string> out;
  DIR* tasks = ::opendir(fmt::format("/proc/{}/task", pid).c_str());
  if (tasks == nullptr) throw Failure(fmt::format("process {} has ended while idle", pid));
  while (const dirent* entry = ::readdir(tasks))
    if (entry->d_name[0] != '.') out.push_back(fmt::format("/proc/{}/task/{}", pid, entry->d_name));
  ::closedir(tasks);
  return out;
}

// Nanoseconds on a processor, exact: utime and stime in /proc/PID/stat count in ticks of 10 ms.
double cpu_ms(const std::vector<pid_t>& processes) {
  double sum = 0;
  for (const auto pid : processes)
    for (const auto& thread : threads_of(pid))
      sum += std::strtod(slurp(thread + "/schedstat").c_str(), nullptr) / 1e6;
  return sum;
}

double memory_mib(pid_t pid, const char* field) {
  const auto text = slurp(fmt::format("/proc/{}/smaps_rollup", pid));
  const auto at = text.find(std::string("\n") + field + ":");
  if (at == std::string::npos)
    throw Failure(fmt::format("/proc/{}/smaps_rollup shows no {}", pid, field));
  return std::strtod(text.c_str() + text.find_first_of("0123456789", at), nullptr) / 1024;
}

// Two looks further apart than the background writer's notes in the WAL must show the same end of
// it.
void await_quiet(Cluster& cluster, int leader) {
  const auto end_of_wal = [&] {
    return sql(cluster.conninfo(leader), "select pg_current_wal_lsn()");
  };
  sql(cluster.conninfo(leader), "checkpoint");
  for (std::string before; before != end_of_wal();) {
    before = end_of_wal();
    rest(20s);
  }
}

}  // namespace

IdleFigures watch_idle(Cluster& cluster, std::chrono::seconds window) {
  const int leader = cluster.leader();
  await_quiet(cluster, leader);

  IdleFigures out;
  std::vector<std::vector<pid_t>> processes;
  for (int n = 0; n < 3; ++n) processes.push_back(cluster.agent_and_guard(n));
  const auto calls_before = cluster.store().calls(cluster.rest_client());
  std::vector<double> cpu_before;
  for (const auto& node : processes) cpu_before.push_back(cpu_ms(node));
  const auto began = std::chrono::steady_clock::now();
  rest(window);
  out.minutes =
      std::chrono::duration<double, std::ratio<60>>(std::chrono::steady_clock::now() - began)
          .count();
  for (std::size_t n = 0; n < processes.size(); ++n) {
    NodeFootprint node;
    node.leads = static_cast<int>(n) == leader;
    node.cpu_ms_per_minute = (cpu_ms(processes[n]) - cpu_before[n]) / out.minutes;
    node.processes = static_cast<int>(processes[n].size());
    for (const auto pid : processes[n]) {
      node.rss_mib += memory_mib(pid, "Rss");
      node.pss_mib += memory_mib(pid, "Pss");
      node.threads += static_cast<int>(threads_of(pid).size());
    }
    out.nodes.push_back(node);
  }
  if (calls_before) out.calls = *cluster.store().calls(cluster.rest_client()) - *calls_before;
  return out;
}

}  // namespace bench
