#include "store_server.hpp"

#include <fmt/format.h>

#include <cstdlib>
#include <filesystem>

#include "bench.hpp"
#include "support/etcd_server.hpp"

namespace bench {
namespace {

class Sqlite : public StoreServer {
 public:
  explicit Sqlite(const std::string& directory) : file_(directory + "/store.db") {}
  std::string yaml() const override { return fmt::format("sqlite: {{path: '{}'}}", file_); }
  // Every node reads the file by itself: there is no server that would count.
  std::optional<StoreCalls> calls(RestClient&) override { return std::nullopt; }

 private:
  std::string file_;
};

class Etcd : public StoreServer {
 public:
  Etcd() {
    if (!spilo::test::have_etcd()) throw Failure("etcd is not installed (package etcd-server)");
    server_ = std::make_unique<spilo::test::EtcdCluster>(1);
  }
  std::string yaml() const override {
    return fmt::format("etcd3: {{host: '127.0.0.1:{}'}}", (*server_)[0].port());
  }
  std::optional<StoreCalls> calls(RestClient& client) override {
    const auto answer = client.ask("GET", (*server_)[0].port(), "/metrics");
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
  std::unique_ptr<spilo::test::EtcdCluster> server_;
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
  static const std::vector<std::string> names = {"etcd", "sqlite"};
  return names;
}

std::unique_ptr<StoreServer> start_store(const std::string& name, const std::string& directory) {
  if (name == "etcd") return std::make_unique<Etcd>();
  if (name == "sqlite") return std::make_unique<Sqlite>(directory);
  throw Failure("no store is named " + name);
}

}  // namespace bench
