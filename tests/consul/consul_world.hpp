// A test's io_context, clock and stores on real Consul servers.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "spilo/consul/consul_store.hpp"
#include "spilo/core/json.hpp"
#include "spilo/runtime/system_clock.hpp"
#include "support/consul_server.hpp"
#include "support/flaky_proxy.hpp"
#include "support/process.hpp"
#include "support/run.hpp"

namespace spilo::test {

class ConsulWorld {
 public:
  ~ConsulWorld() {
    stores_.clear();
    io.restart();
    io.poll();
  }

  consul::ConsulStore& store(std::vector<net::Url> servers, consul::Options options = {}) {
    options.servers = std::move(servers);
    options.base = consul::base_path("service", Scope("batman"));
    options.session_name = "batman-test";
    options.logger = Logger(LogLevel::debug, [this](LogLevel level, std::string_view text) {
      log.append(to_text(level)).append(" ").append(text).append("\n");
    });
    stores_.push_back(
        std::make_unique<consul::ConsulStore>(io.get_executor(), clock, std::move(options)));
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
  // As a candidate takes the lock.
  Result<dcs::Committed> take(dcs::Store& store,
                              std::string value,
                              Duration limit = std::chrono::seconds(5)) {
    dcs::Transaction change;
    change.require("leader", dcs::Condition::absent());
    change.put("leader", std::move(value), dcs::Binding::session);
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
  // Starts waiting for a change; done() tells whether it has ended, and how.
  class Waiter {
   public:
    bool ended = false;
    Result<dcs::Index> result = Error(errc::unsupported, "still waiting");
  };
  std::shared_ptr<Waiter> wait(dcs::Store& store, dcs::Index seen, Duration limit) {
    auto waiter = std::make_shared<Waiter>();
    boost::asio::co_spawn(io,
                          store.changed_since(seen, in(limit)),
                          [waiter](std::exception_ptr failure, Result<dcs::Index> result) {
                            if (failure) std::rethrow_exception(failure);
                            waiter->result = std::move(result);
                            waiter->ended = true;
                          });
    return waiter;
  }
  bool ends(const std::shared_ptr<Waiter>& waiter, std::chrono::milliseconds limit) {
    return run_until(
        io, [&] { return waiter->ended; }, limit);
  }

  boost::asio::io_context io{1};
  SystemClock clock{io.get_executor()};
  std::string log;

 private:
  std::vector<std::unique_ptr<consul::ConsulStore>> stores_;
};

// Consul's own interface, for what the store has no verb for. Returns the body.
inline std::string consul_call(const ConsulMember& member,
                               std::string method,
                               std::string target,
                               std::string body = {},
                               std::string token = {}) {
  const auto answer = http_call(member.port(), method, target, std::move(body), std::move(token));
  if (!answer) throw std::runtime_error(target + ": no answer");
  if (!answer->ok()) throw std::runtime_error(target + ": " + answer->body());
  return answer->body();
}
inline std::string foreign_session(const ConsulMember& member, const std::string& lock_delay) {
  const auto body = consul_call(
      member,
      "PUT",
      "/v1/session/create",
      R"({"TTL":"60s","Behavior":"delete","Checks":[],"LockDelay":")" + lock_delay + "\"}");
  return json::parse(body)->get_string("ID");
}

}  // namespace spilo::test
