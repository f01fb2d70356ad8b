// A test's io_context, clock and stores on real etcd servers.
#pragma once

#include <doctest/doctest.h>

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
                   std::string method = "POST",
                   std::string token = {}) {
    net::HttpClient client(io.get_executor(), clock, net::HttpClientOptions{});
    net::HttpRequest request(method, path, body);
    if (!token.empty()) request.header("Authorization", token);
    const auto response =
        run(io, client.request(url, std::move(request), in(std::chrono::seconds(5))));
    if (response.has_error()) throw std::runtime_error(response.error().text());
    if (!response->ok()) throw std::runtime_error(path + ": " + response->body());
    return response->body();
  }
  // A user's token; throws when the password is wrong.
  std::string log_in(const net::Url& url, const std::string& user, const std::string& password) {
    const auto body = json::Value::object().set("name", user).set("password", password);
    const auto answer = json::parse(call(url, "/v3/auth/authenticate", json::dump(body)));
    return answer.has_value() ? answer->get_string("token") : std::string();
  }
  // Root with the password "secret", and authentication switched on.
  void enable_authentication(const net::Url& url) {
    call(url, "/v3/auth/user/add", R"({"name":"root","password":"secret"})");
    call(url, "/v3/auth/user/grant", R"({"user":"root","role":"root"})");
    call(url, "/v3/auth/enable", "{}");
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

// Which member answers that it leads.
inline std::size_t leader_of(EtcdWorld& w, EtcdCluster& etcd) {
  std::size_t found = etcd.size();
  const bool elected = wait_until(
      [&] {
        for (std::size_t i = 0; i < etcd.size(); ++i) {
          if (!etcd[i].process().running()) continue;
          const auto status = json::parse(w.call(etcd[i].url(), "/v3/maintenance/status", "{}"));
          if (status.has_value() && status->get_string("leader", "-") ==
                                        status->find_path("header.member_id")->scalar_text())
            found = i;
        }
        return found < etcd.size();
      },
      std::chrono::seconds(20));
  REQUIRE(elected);
  return found;
}

}  // namespace spilo::test
