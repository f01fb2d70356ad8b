// Real Consul servers for tests, one or several members, on free ports and in a temporary
// directory.
#pragma once

#include <fmt/format.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "spilo/net/http.hpp"
#include "spilo/runtime/system_clock.hpp"
#include "support/child.hpp"
#include "support/run.hpp"

namespace spilo::test {

// The consul in the PATH, or the one that tests/support/install.sh has fetched; empty: none.
inline const std::string& consul_program() {
  static const std::string found = [] {
    std::string path = std::getenv("PATH") != nullptr ? std::getenv("PATH") : "";
    path += ":/var/cache/spilo";
    for (std::size_t at = 0; at <= path.size();) {
      const auto end = std::min(path.find(':', at), path.size());
      const auto file = path.substr(at, end - at) + "/consul";
      if (::access(file.c_str(), X_OK) == 0 && std::filesystem::is_regular_file(file)) return file;
      at = end + 1;
    }
    return std::string();
  }();
  return found;
}
inline bool have_consul() {
  // Where a server is promised, its absence is a failure and not a reason to skip.
  return !consul_program().empty() || std::getenv("CI") != nullptr;
}

// One request to a server that may not be there yet; nothing when it gives no answer.
inline std::optional<net::HttpResponse> http_call(std::uint16_t port,
                                                  std::string method,
                                                  std::string target,
                                                  std::string body = {},
                                                  std::string token = {}) {
  boost::asio::io_context io{1};
  SystemClock clock(io.get_executor());
  std::optional<net::HttpResponse> out;
  {
    net::HttpClient client(io.get_executor(), clock, net::HttpClientOptions{});
    net::HttpRequest request(std::move(method), std::move(target), std::move(body));
    if (!token.empty()) request.header("X-Consul-Token", token);
    auto answer = run(io,
                      client.request(net::Url("127.0.0.1", port),
                                     std::move(request),
                                     clock.now() + std::chrono::seconds(5)));
    if (answer.has_value()) out = std::move(*answer);
  }
  io.restart();
  io.poll();
  return out;
}

class ConsulMember {
 public:
  struct Ports {
    std::uint16_t http = free_port();
    std::uint16_t rpc = free_port();
    std::uint16_t gossip = free_port();
  };

  // `together`: the gossip ports of all members; empty: a cluster of one. `more`: another
  // configuration, as JSON, that is merged with ours.
  ConsulMember(const TempDir& dir,
               std::string name,
               Ports ports,
               std::string ttl_min,
               std::vector<std::uint16_t> together = {},
               std::string more = "{}")
      : name_(std::move(name)), ports_(ports), data_(dir / (name_ + ".data")) {
    std::string others;
    for (const auto port : together)
      others += fmt::format("{}\"127.0.0.1:{}\"", others.empty() ? "" : ",", port);
    const auto file = dir / (name_ + ".json");
    std::ofstream(file) << fmt::format(
        R"({{"server":true,"bootstrap_expect":{},"node_name":"{}","data_dir":"{}",)"
        R"("bind_addr":"127.0.0.1","client_addr":"127.0.0.1","retry_join":[{}],)"
        R"("retry_interval":"200ms","session_ttl_min":"{}",)"
        R"("ports":{{"http":{},"dns":-1,"grpc":-1,"serf_wan":-1,"serf_lan":{},"server":{}}},)"
        R"("performance":{{"raft_multiplier":1,"leave_drain_time":"0s"}},)"
        R"("disable_update_check":true,"log_level":"info"}})",
        together.empty() ? 1 : together.size(),
        name_,
        data_,
        others,
        ttl_min,
        ports.http,
        ports.gossip,
        ports.rpc);
    const auto added = dir / (name_ + ".more.json");
    std::ofstream(added) << more;
    std::vector<std::string> command = {
        consul_program(), "agent", "-config-file=" + file, "-config-file=" + added};
    process_ = std::make_unique<Process>(std::move(command), dir / (name_ + ".log"));
  }

  Process& process() noexcept { return *process_; }
  const std::string& name() const noexcept { return name_; }
  std::uint16_t port() const noexcept { return ports_.http; }
  net::Url url() const { return net::Url("127.0.0.1", ports_.http); }
  const std::string& data() const noexcept { return data_; }
  std::string rpc_address() const { return fmt::format("127.0.0.1:{}", ports_.rpc); }

  // The address of the leader as this member sees it; empty when there is none.
  std::string leader() const {
    const auto answer = http_call(ports_.http, "GET", "/v1/status/leader");
    if (!answer || answer->status() != 200 || answer->body().size() < 3) return {};
    return answer->body().substr(1, answer->body().find('"', 1) - 1);
  }
  // Whether it answers for the cluster: it knows a leader who has a quorum.
  bool serves() const {
    const auto answer = http_call(ports_.http, "GET", "/v1/kv/?keys&consistent");
    return answer && (answer->status() == 200 || answer->status() == 404) && !leader().empty();
  }
  bool wait_ready() const {
    return wait_until([&] { return serves(); }, std::chrono::seconds(30));
  }
  void restart() {
    process_->end(SIGKILL);
    process_->start();
    if (!wait_ready()) throw std::runtime_error("consul did not come back: " + process_->log());
  }

 private:
  std::string name_;
  Ports ports_;
  std::string data_;
  std::unique_ptr<Process> process_;
};

class ConsulCluster {
 public:
  explicit ConsulCluster(std::size_t members = 1,
                         const std::string& ttl_min = "1s",
                         const std::string& more = "{}") {
    std::vector<ConsulMember::Ports> ports(members);
    std::vector<std::uint16_t> gossip;
    for (const auto& one : ports) gossip.push_back(one.gossip);
    if (members == 1) gossip.clear();
    for (std::size_t i = 0; i < members; ++i)
      members_.push_back(std::make_unique<ConsulMember>(
          dir_, fmt::format("m{}", i), ports[i], ttl_min, gossip, more));
    for (const auto& member : members_)
      if (!member->wait_ready())
        throw std::runtime_error("consul did not start: " + member->process().log());
  }
  ConsulMember& operator[](std::size_t i) { return *members_[i]; }
  std::size_t size() const noexcept { return members_.size(); }
  // Which running member leads now; waits for one.
  std::size_t leader() const {
    std::size_t found = members_.size();
    wait_until(
        [&] {
          for (std::size_t i = 0; i < members_.size() && found == members_.size(); ++i)
            if (members_[i]->leader() == members_[i]->rpc_address()) found = i;
          return found < members_.size();
        },
        std::chrono::seconds(20));
    if (found >= members_.size()) throw std::runtime_error("no member of consul leads");
    return found;
  }
  std::vector<net::Url> urls() const {
    std::vector<net::Url> out;
    for (const auto& member : members_) out.push_back(member->url());
    return out;
  }
  const TempDir& dir() const noexcept { return dir_; }

 private:
  TempDir dir_;
  std::vector<std::unique_ptr<ConsulMember>> members_;
};

}  // namespace spilo::test
