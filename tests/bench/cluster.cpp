#include "cluster.hpp"

#include <dirent.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "bench.hpp"
#include "support/postgres.hpp"

namespace bench {

using namespace std::chrono_literals;

namespace {

constexpr const char* superuser_password = "seKret-of-postgres";
constexpr const char* replication_password = "seKret-of-replicator";

// The guard of that data directory; empty: none.
std::vector<pid_t> guards_of(const std::string& data_dir) {
  std::vector<pid_t> out;
  DIR* proc = ::opendir("/proc");
  if (proc == nullptr) return out;
  const std::string wanted = std::string("spilo-guard\0", 12) + data_dir + '\0';
  while (const dirent* entry = ::readdir(proc)) {
    const pid_t pid = std::atoi(entry->d_name);
    if (pid > 0 && slurp(fmt::format("/proc/{}/cmdline", pid)).starts_with(wanted))
      out.push_back(pid);
  }
  ::closedir(proc);
  return out;
}

}  // namespace

Cluster::Cluster(const std::string& programs,
                 const std::string& directory,
                 const std::string& store,
                 Timing timing)
    : programs_(programs), directory_(directory), timing_(timing) {
  std::filesystem::create_directories(directory_);
  store_ = start_store(store, directory_);
  for (std::size_t n = 0; n < nodes_.size(); ++n) {
    auto& node = nodes_[n];
    node.name = fmt::format("n{}", n + 1);
    node.directory = directory_ + "/" + node.name;
    node.data_dir = node.directory + "/data";
    node.rest_port = spilo::test::free_port();
    node.pg_port = spilo::test::free_port();
    std::filesystem::create_directories(node.directory);
    std::ofstream(node.directory + ".yml") << yaml(node);
    std::filesystem::permissions(node.directory + ".yml", std::filesystem::perms::owner_read);
    node.agent = std::make_unique<spilo::test::Process>(
        std::vector<std::string>{programs_ + "/spilod", node.directory + ".yml"},
        node.directory + ".log");
  }
  // Without a whole object there is no destructor that would end them.
  try {
    settle();
    rest(std::chrono::seconds(timing_.ttl));  // see repair()
  } catch (const Failure& failure) {
    const auto text = std::string(failure.what()) + "\n" + logs();
    for (auto& node : nodes_) end(node);
    throw Failure(text);
  } catch (...) {
    for (auto& node : nodes_) end(node);
    throw;
  }
}

Cluster::~Cluster() {
  for (auto& node : nodes_) end(node);
}

void Cluster::end(Node& node) const {
  if (node.agent) node.agent->end(SIGKILL);
  for (const auto pid : guards_of(node.data_dir)) ::kill(pid, SIGKILL);
  // The postmaster first, or it starts its children again.
  if (const auto pid = postmaster_of(node.data_dir); pid > 0)
    for (const auto found : processes_in(node.data_dir))
      if (found == pid) ::kill(pid, SIGKILL);
  spilo::test::wait_until(
      [&] {
        const auto left = processes_in(node.data_dir);
        for (const auto pid : left) ::kill(pid, SIGKILL);
        return left.empty();
      },
      10s);
}

std::string Cluster::yaml(const Node& node) const {
  return fmt::format(
      R"(scope: bench
name: {name}
restapi: {{listen: '127.0.0.1:{rest}', connect_address: '127.0.0.1:{rest}'}}
{store}
bootstrap:
  dcs:
    ttl: {ttl}
    loop_wait: {loop_wait}
    retry_timeout: {retry_timeout}
    primary_start_timeout: 0
    postgresql:
      use_pg_rewind: true
      parameters: {{max_connections: 50}}
  initdb: [{{encoding: UTF8}}, {{locale: C}}, data-checksums]
postgresql:
  listen: 127.0.0.1:{pg}
  connect_address: 127.0.0.1:{pg}
  data_dir: {data}
  bin_dir: '{bin}'
  authentication:
    superuser: {{username: postgres, password: {superuser}}}
    replication: {{username: replicator, password: {replication}}}
  parameters: {{unix_socket_directories: {directory}, shared_buffers: 16MB, autovacuum: {autovacuum}}}
  pg_hba:
  - host all all 127.0.0.1/32 scram-sha-256
  - host replication replicator 127.0.0.1/32 scram-sha-256
  - local all all scram-sha-256
)",
      fmt::arg("name", node.name),
      fmt::arg("rest", node.rest_port),
      fmt::arg("store", store_->yaml()),
      fmt::arg("ttl", timing_.ttl),
      fmt::arg("loop_wait", timing_.loop_wait),
      fmt::arg("retry_timeout", timing_.retry_timeout),
      fmt::arg("autovacuum", timing_.autovacuum ? "on" : "off"),
      fmt::arg("pg", node.pg_port),
      fmt::arg("data", node.data_dir),
      fmt::arg("bin", spilo::test::programs_directory()),
      fmt::arg("superuser", superuser_password),
      fmt::arg("replication", replication_password),
      fmt::arg("directory", node.directory));
}

std::string Cluster::conninfo(int node) const {
  return fmt::format("host=127.0.0.1 port={} user=postgres password={} dbname=postgres",
                     at(node).pg_port,
                     superuser_password);
}
std::vector<std::string> Cluster::conninfos() const {
  std::vector<std::string> out;
  for (int n = 0; n < 3; ++n) out.push_back(conninfo(n));
  return out;
}

std::string Cluster::logs() const {
  std::string out;
  for (const auto& node : nodes_) {
    auto text = slurp(node.directory + ".log");
    if (text.size() > 3000) text.erase(0, text.size() - 3000);
    out += fmt::format("---- end of {}.log\n{}\n", node.directory, text);
  }
  return out;
}

int Cluster::leader() {
  int found = -1;
  await("a node leads", 60s, [&] {
    for (int n = 0; n < 3 && found < 0; ++n) {
      const auto answer = rest_.ask("GET", at(n).rest_port, "/primary");
      if (answer && answer->status() == 200) found = n;
    }
    return found >= 0;
  });
  return found;
}

void Cluster::settle() {
  await("two replicas stream from a leader", 120s, [&] {
    int leaders = 0;
    int streaming = 0;
    for (const auto& node : nodes_) {
      if (!node.agent->running()) throw Failure(node.name + " has ended: " + node.agent->log());
      const auto status = rest_.get(node.rest_port, "/patroni");
      if (status.get_string("state") != "running") continue;
      if (status.get_string("role") == "primary")
        ++leaders;
      else if (status.get_string("replication_state") == "streaming")
        ++streaming;
    }
    return leaders == 1 && streaming == 2;
  });
  sql(conninfo(leader()), "checkpoint");
}

void Cluster::switch_over(int leader) {
  const auto body = fmt::format("{{\"leader\": \"{}\"}}", at(leader).name);
  const auto answer = rest_.ask("POST", at(leader).rest_port, "/switchover", body, 60s);
  if (!answer) throw Failure("POST /switchover had no answer");
  if (answer->status() != 200)
    throw Failure(fmt::format("POST /switchover: {} {}", answer->status(), answer->body()));
}

void Cluster::kill_postmaster(int node) const {
  const auto pid = postmaster_of(at(node).data_dir);
  if (pid <= 0 || ::kill(pid, SIGKILL) != 0)
    throw Failure(at(node).name + " has no postmaster to kill");
}

void Cluster::signal_agent(int node, int signal) const {
  at(node).agent->signal(signal);
}

void Cluster::kill_node(int node) const {
  const auto postmaster = postmaster_of(at(node).data_dir);
  const auto companions = agent_and_guard(node);
  const auto server = processes_in(at(node).data_dir);
  if (postmaster > 0) ::kill(postmaster, SIGKILL);
  for (const auto pid : companions) ::kill(pid, SIGKILL);
  for (const auto pid : server) ::kill(pid, SIGKILL);
}

void Cluster::repair(int node, bool ended) {
  auto& agent = *nodes_[static_cast<std::size_t>(node)].agent;
  agent.signal(SIGCONT);
  if (ended) {
    await("the agent of " + at(node).name + " ends", 60s, [&] { return !agent.running(); });
    agent.start();
  }
  settle();
  // An agent that has just started asks everybody before it leads, for a ttl: it may have forgotten
  // a promise to a leader without a store.
  if (ended) rest(std::chrono::seconds(timing_.ttl));
}

std::vector<pid_t> Cluster::agent_and_guard(int node) const {
  std::vector<pid_t> out = guards_of(at(node).data_dir);
  out.insert(out.begin(), at(node).agent->pid());
  return out;
}

}  // namespace bench
