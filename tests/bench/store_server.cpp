#include "store_server.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include "bench.hpp"
#include "support/consul_server.hpp"
#include "support/etcd_server.hpp"
#include "support/zookeeper_server.hpp"

namespace bench {
namespace {

class Sqlite : public StoreServer {
 public:
  explicit Sqlite(const std::string& directory) : file_(directory + "/store.db") {}
  std::string yaml() override { return fmt::format("sqlite: {{path: '{}'}}", file_); }
  // Every node reads the file by itself: there is no server that would count.
  std::optional<StoreCalls> calls(RestClient&) override { return std::nullopt; }

 private:
  std::string file_;
};

class Etcd : public StoreServer {
 public:
  std::string yaml() override {
    return fmt::format("etcd3: {{host: '127.0.0.1:{}'}}", server_[0].port());
  }
  std::optional<StoreCalls> calls(RestClient& client) override {
    const auto answer = client.ask("GET", server_[0].port(), "/metrics");
    if (!answer || !answer->ok()) throw Failure("etcd does not show its metrics");
    StoreCalls out;
    const auto& text = answer->body();
    const std::string series = "\ngrpc_server_started_total{";
    for (auto at = text.find(series); at != std::string::npos; at = text.find(series, at + 1)) {
      const auto label = text.find("grpc_method=\"", at) + 13;
      const auto method = text.substr(label, text.find('"', label) - label);
      const auto count = std::atoll(text.c_str() + text.find("} ", at) + 2);
      if (count == 0) continue;
      out.by_method[method] += count;
      out.total += count;
      if (method != "Range" && method != "Watch" && method != "LeaseKeepAlive" &&
          method != "LeaseTimeToLive")
        out.writes += count;
    }
    return out;
  }

 private:
  spilo::test::EtcdCluster server_{1};
};

// Writes through to the disk like the others, which the servers of the tests need not.
class Zookeeper : public StoreServer {
 public:
  std::string yaml() override {
    return fmt::format("zookeeper: {{hosts: ['127.0.0.1:{}']}}", server_[0].port());
  }
  // Packets of all clients, the library's own pings among them; every transaction takes one number.
  std::optional<StoreCalls> calls(RestClient&) override {
    const auto text = server_[0].ask("mntr");
    const auto packets = figure(text, "\nzk_packets_received\t", 10);
    const auto zxid = figure(server_[0].ask("srvr"), "\nZxid: 0x", 16);
    StoreCalls out;
    // The two questions are packets themselves; this one's first has been counted already.
    own_packets_ += 2;
    out.total = packets - (own_packets_ - 1);
    out.writes = zxid;
    out.by_method["transaction"] = out.writes;
    out.by_method["read, sync and ping"] = out.total - out.writes;
    return out;
  }

 private:
  static std::int64_t figure(const std::string& text, const std::string& before, int base) {
    const auto at = text.find(before);
    if (at == std::string::npos)
      throw Failure("ZooKeeper does not tell \"" + before.substr(1) + "\": " + text);
    return std::strtoll(text.c_str() + at + before.size(), nullptr, base);
  }

  spilo::test::ZookeeperEnsemble server_{
      1, "minSessionTimeout=1000\nmaxSessionTimeout=60000\nforceSync=yes\n"};
  std::int64_t own_packets_ = 0;
};

class Consul : public StoreServer {
 public:
  std::string yaml() override {
    return fmt::format("consul: {{host: '127.0.0.1:{}'}}", server_[0].port());
  }
  // Requests that were answered: a blocking query counts when it ends. A renewal resets a timer of
  // the server and is no write of its log.
  std::optional<StoreCalls> calls(RestClient& client) override {
    const auto answer = client.ask("GET", server_[0].port(), "/v1/agent/metrics?format=prometheus");
    if (!answer || !answer->ok()) throw Failure("Consul does not show its metrics");
    StoreCalls out;
    const auto& text = answer->body();
    const std::string series = "\nconsul_http_";
    for (auto at = text.find(series); at != std::string::npos; at = text.find(series, at + 1)) {
      const auto name = at + series.size();
      const auto end = text.find_first_of(" {", name);
      auto method = text.substr(name, end - name);
      if (!method.ends_with("_count") || method.find("agent_metrics") != std::string::npos)
        continue;
      method.erase(method.size() - 6);
      const auto value = text.find(' ', end);
      const auto count = std::atoll(text.c_str() + value + 1);
      if (count == 0) continue;
      out.by_method[method] += count;
      out.total += count;
      if (!method.starts_with("GET") && method.find("session_renew") == std::string::npos)
        out.writes += count;
    }
    return out;
  }

 private:
  spilo::test::ConsulCluster server_{
      1, "1s", R"({"telemetry": {"prometheus_retention_time": "24h", "disable_hostname": true}})"};
};

}  // namespace

StoreCalls operator-(StoreCalls later, const StoreCalls& earlier) {
  for (const auto& [method, count] : earlier.by_method) later.by_method[method] -= count;
  std::erase_if(later.by_method, [](const auto& entry) { return entry.second == 0; });
  later.total -= earlier.total;
  later.writes -= earlier.writes;
  return later;
}

const std::vector<std::string>& store_names() {
  static const std::vector<std::string> names = {"etcd", "zookeeper", "consul", "sqlite"};
  return names;
}

void check_store(const std::string& name) {
  if (name == "etcd" && !spilo::test::have_etcd())
    throw Failure("etcd is not installed (package etcd-server)");
  if (name == "zookeeper" && !spilo::test::have_zookeeper())
    throw Failure(
        "ZooKeeper is not installed (packages libzookeeper-java and default-jre-headless)");
  if (name == "consul" && spilo::test::consul_program().empty())
    throw Failure(
        "Consul is not in the PATH, and tests/support/install.sh (install_consul) has not fetched "
        "it");
}

int ttls_until_free(const std::string& name) {
  return name == "consul" ? 2 : 1;
}

std::unique_ptr<StoreServer> start_store(const std::string& name, const std::string& directory) {
  check_store(name);
  if (name == "etcd") return std::make_unique<Etcd>();
  if (name == "zookeeper") return std::make_unique<Zookeeper>();
  if (name == "consul") return std::make_unique<Consul>();
  if (name == "sqlite") return std::make_unique<Sqlite>(directory);
  throw Failure("no store is named " + name);
}

}  // namespace bench
