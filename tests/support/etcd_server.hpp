// Real etcd servers for tests, one or several members, on free ports and in a temporary directory.
#pragma once

#include <fmt/format.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "spilo/net/http.hpp"
#include "support/child.hpp"

namespace spilo::test {

inline bool have_etcd() {
  return std::filesystem::exists("/usr/bin/etcd");
}

class EtcdMember {
 public:
  // `cluster` is for --initial-cluster; empty: a cluster of one.
  EtcdMember(const TempDir& dir,
             std::string name,
             std::uint16_t client_port,
             std::uint16_t peer_port,
             std::string cluster,
             std::vector<std::string> more = {},
             std::string scheme = "http")
      : client_port_(client_port), peer_port_(peer_port), scheme_(std::move(scheme)) {
    const auto client = fmt::format("{}://127.0.0.1:{}", scheme_, client_port);
    const auto peer = fmt::format("http://127.0.0.1:{}", peer_port);
    if (cluster.empty()) cluster = name + "=" + peer;
    std::vector<std::string> command = {"/usr/bin/etcd",
                                        "--name",
                                        name,
                                        "--data-dir",
                                        dir / (name + ".etcd"),
                                        "--listen-client-urls",
                                        client,
                                        "--advertise-client-urls",
                                        client,
                                        "--listen-peer-urls",
                                        peer,
                                        "--initial-advertise-peer-urls",
                                        peer,
                                        "--initial-cluster",
                                        cluster};
    command.insert(command.end(), more.begin(), more.end());
    process_ = std::make_unique<Process>(std::move(command), dir / (name + ".log"));
  }

  Process& process() noexcept { return *process_; }
  std::uint16_t port() const noexcept { return client_port_; }
  std::uint16_t peer_port() const noexcept { return peer_port_; }
  net::Url url() const { return net::Url("127.0.0.1", client_port_, scheme_ == "https"); }
  bool wait_ready() const {
    return wait_until([&] { return accepts_connections(client_port_); }, std::chrono::seconds(20));
  }
  void restart() {
    process_->end(SIGKILL);
    process_->start();
    if (!wait_ready()) throw std::runtime_error("etcd did not come back: " + process_->log());
  }

 private:
  std::uint16_t client_port_;
  std::uint16_t peer_port_;
  std::string scheme_;
  std::unique_ptr<Process> process_;
};

class EtcdCluster {
 public:
  explicit EtcdCluster(int members = 1, std::vector<std::string> more = {}) {
    std::vector<std::pair<std::uint16_t, std::uint16_t>> ports;
    std::string cluster;
    for (int i = 0; i < members; ++i) {
      ports.emplace_back(free_port(), free_port());
      cluster += fmt::format("{}m{}=http://127.0.0.1:{}", i > 0 ? "," : "", i, ports.back().second);
    }
    for (int i = 0; i < members; ++i) {
      const auto& [client, peer] = ports[static_cast<std::size_t>(i)];
      members_.push_back(
          std::make_unique<EtcdMember>(dir_, fmt::format("m{}", i), client, peer, cluster, more));
    }
    for (const auto& member : members_)
      if (!member->wait_ready())
        throw std::runtime_error("etcd did not start: " + member->process().log());
  }
  EtcdMember& operator[](std::size_t i) { return *members_[i]; }
  std::size_t size() const noexcept { return members_.size(); }
  std::vector<net::Url> urls() const {
    std::vector<net::Url> out;
    for (const auto& member : members_) out.push_back(member->url());
    return out;
  }
  const TempDir& dir() const noexcept { return dir_; }

 private:
  TempDir dir_;
  std::vector<std::unique_ptr<EtcdMember>> members_;
};

}  // namespace spilo::test
