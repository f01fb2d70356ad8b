// A test's io_context, clock and stores on real etcd servers.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "spilo/core/json.hpp"
#include "spilo/etcd/etcd_store.hpp"
#include "spilo/runtime/system_clock.hpp"
#include "support/etcd_server.hpp"
#include "support/flaky_proxy.hpp"
#include "support/run.hpp"

namespace spilo::test {

class EtcdWorld {
 public:
  ~EtcdWorld() {
    stores_.clear();
    io.restart();
    io.poll();
  }

  etcd::EtcdStore& store(std::vector<net::Url> endpoints, etcd::Options options = {}) {
    options.endpoints = std::move(endpoints);
    options.base = etcd::base_path("service", Scope("batman"));
    options.logger = Logger(LogLevel::debug, [this](LogLevel level, std::string_view text) {
      log.append(to_text(level)).append(" ").append(text).append("\n");
    });
    stores_.push_back(
        std::make_unique<etcd::EtcdStore>(io.get_executor(), clock, std::move(options)));
    return *stores_.back();
  }

  TimePoint in(Duration time) const { return clock.now() + time; }
  Result<dcs::Snapshot> read(dcs::Store& store,
                             Duration limit = std::chrono::seconds(5),
                             dcs::Freshness how = dcs::Freshness::linearizable) {
    return run(io, store.read(how, in(limit)));
  }
  Result<dcs::Committed> put(dcs::Store& store,
                             std::string key,
                             std::string value,
                             Duration limit = std::chrono::seconds(5),
                             dcs::Binding binding = dcs::Binding::permanent) {
    dcs::Transaction change;
    change.put(std::move(key), std::move(value), binding);
    return run(io, store.commit(std::move(change), in(limit)));
  }
  Result<dcs::Lease> renew(dcs::Store& store,
                           Duration ttl,
                           Duration limit = std::chrono::seconds(5)) {
    return run(io, store.renew(ttl, in(limit)));
  }
  Result<dcs::Index> changed(dcs::Store& store, dcs::Index seen, Duration limit) {
    return run(io, store.changed_since(seen, in(limit)));
  }
  // etcd's own interface, for what the store has no verb for. Returns the body.
  std::string call(const net::Url& url,
                   std::string path,
                   std::string body,
                   std::string method = "POST") {
    net::HttpClient client(io.get_executor(), clock, net::HttpClientOptions{});
    const auto response = run(
        io, client.request(url, net::HttpRequest(method, path, body), in(std::chrono::seconds(5))));
    if (response.has_error()) throw std::runtime_error(response.error().text());
    if (!response->ok()) throw std::runtime_error(path + ": " + response->body());
    return response->body();
  }
  // How many calls of gRPC methods the server has seen; reading this is none.
  int calls(const net::Url& url) {
    const auto metrics = call(url, "/metrics", "", "GET");
    const std::string name = "\ngrpc_server_started_total{";
    int sum = 0;
    for (auto at = metrics.find(name); at != std::string::npos; at = metrics.find(name, at + 1))
      sum += std::atoi(metrics.c_str() + metrics.find("} ", at) + 2);
    return sum;
  }

  boost::asio::io_context io{1};
  SystemClock clock{io.get_executor()};
  std::string log;

 private:
  std::vector<std::unique_ptr<etcd::EtcdStore>> stores_;
};

}  // namespace spilo::test
