// Real ZooKeeper servers for tests, one or an ensemble, on free ports and in a temporary directory.
#pragma once

#include <fmt/format.h>
#include <sys/time.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "support/child.hpp"

namespace spilo::test {

inline bool have_zookeeper() {
  return std::filesystem::exists("/usr/share/java/zookeeper.jar") &&
         std::filesystem::exists("/usr/bin/java");
}

class ZookeeperMember {
 public:
  // `ensemble`: the server.N lines, empty for a single server; `id` is this member's N.
  ZookeeperMember(const TempDir& dir,
                  int id,
                  std::uint16_t client_port,
                  const std::string& ensemble,
                  const std::string& more)
      : port_(client_port), data_(dir / fmt::format("zk{}", id)) {
    const auto& data = data_;
    const auto file = dir / fmt::format("zk{}.cfg", id);
    std::filesystem::create_directories(data);
    std::ofstream(data + "/myid") << id << "\n";
    std::ofstream(file) << fmt::format(
        "tickTime=500\ninitLimit=20\nsyncLimit=4\ndataDir={}\nclientPort={}\n"
        "clientPortAddress=127.0.0.1\nadmin.enableServer=false\nmaxClientCnxns=0\n"
        "4lw.commands.whitelist=*\n{}{}",
        data,
        client_port,
        more,
        ensemble);
    std::string jars;
    for (const char* jar : {"zookeeper",
                            "zookeeper-jute",
                            "slf4j-api",
                            "slf4j-simple",
                            "netty-all",
                            "metrics-core",
                            "snappy-java"})
      jars += fmt::format("/usr/share/java/{}.jar:", jar);
    // Small and quick rather than fast; a killed server keeps what the kernel has.
    process_ = std::make_unique<Process>(
        std::vector<std::string>{"/usr/bin/java",
                                 "-Xmx64m",
                                 "-XX:+UseSerialGC",
                                 "-XX:TieredStopAtLevel=1",
                                 "-XX:-UsePerfData",
                                 "-Dorg.slf4j.simpleLogger.defaultLogLevel=error",
                                 "-Dzookeeper.forceSync=no",
                                 "-Dzookeeper.preAllocSize=256",
                                 "-cp",
                                 jars,
                                 "org.apache.zookeeper.server.quorum.QuorumPeerMain",
                                 file},
        dir / fmt::format("zk{}.log", id));
  }

  Process& process() noexcept { return *process_; }
  std::uint16_t port() const noexcept { return port_; }

  // What the server answers to a command of four letters; empty when it does not within a second.
  std::string ask(const std::string& command) const {
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port_);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    timeval limit{1, 0};
    ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    std::string out;
    if (::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 &&
        ::send(fd, command.data(), command.size(), MSG_NOSIGNAL) > 0) {
      char buffer[4096];
      for (ssize_t got = 0; (got = ::recv(fd, buffer, sizeof buffer, 0)) > 0;)
        out.append(buffer, static_cast<std::size_t>(got));
    }
    ::close(fd);
    return out;
  }
  // "standalone", "leader", "follower"; empty while it serves nobody.
  std::string mode() const {
    const auto answer = ask("srvr");
    const auto at = answer.find("Mode: ");
    if (at == std::string::npos) return {};
    const auto text = answer.substr(at + 6);
    return text.substr(0, text.find('\n'));
  }
  bool wait_ready() const {
    return wait_until([&] { return !mode().empty(); }, std::chrono::seconds(40));
  }
  void restart() {
    process_->end(SIGKILL);
    process_->start();
    if (!wait_ready()) throw std::runtime_error("ZooKeeper did not come back: " + process_->log());
  }
  // As after the loss of its disk.
  void restart_empty() {
    process_->end(SIGKILL);
    std::filesystem::remove_all(data_ + "/version-2");
    restart();
  }

 private:
  std::uint16_t port_;
  std::string data_;
  std::unique_ptr<Process> process_;
};

class ZookeeperEnsemble {
 public:
  // `more`: lines for the configuration of each server.
  explicit ZookeeperEnsemble(int members = 1, const std::string& more = {}) {
    std::vector<std::uint16_t> ports;
    std::string ensemble;
    for (int i = 0; i < members; ++i) {
      ports.push_back(free_port());
      if (members > 1)
        ensemble += fmt::format("server.{}=127.0.0.1:{}:{}\n", i + 1, free_port(), free_port());
    }
    for (int i = 0; i < members; ++i)
      members_.push_back(std::make_unique<ZookeeperMember>(
          dir_, i + 1, ports[static_cast<std::size_t>(i)], ensemble, more));
    start_all();
  }
  // Those that do not run.
  void start_all() {
    for (const auto& member : members_) member->process().start();
    for (const auto& member : members_)
      if (!member->wait_ready())
        throw std::runtime_error("ZooKeeper did not start: " + member->process().log());
  }
  ZookeeperMember& operator[](std::size_t i) { return *members_[i]; }
  std::size_t size() const noexcept { return members_.size(); }
  // The member that leads; waits for one. size() when there is none.
  std::size_t leader() {
    std::size_t found = size();
    wait_until(
        [&] {
          for (std::size_t i = 0; i < size(); ++i)
            if (members_[i]->process().running() && members_[i]->mode() == "leader") found = i;
          return found < size();
        },
        std::chrono::seconds(30));
    return found;
  }

 private:
  TempDir dir_;
  std::vector<std::unique_ptr<ZookeeperMember>> members_;
};

}  // namespace spilo::test
