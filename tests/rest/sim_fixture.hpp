// A REST interface and the operations over a simulated store, on virtual time, without sockets.
#pragma once

#include <doctest/doctest.h>

#include <boost/asio/co_spawn.hpp>
#include <map>
#include <optional>
#include <string>

#include "spilo/model/codec.hpp"
#include "spilo/rest/api.hpp"
#include "spilo/testing/sim_dcs.hpp"

namespace spilo::test {

// Answers as it was told to; whoever is not mentioned does not answer before the deadline.
class FakePeers final : public Peers {
 public:
  explicit FakePeers(Clock& clock) : clock_(clock) {}
  Async<PeerStatus> probe(NodeName node, std::string, TimePoint deadline) override {
    PeerStatus out;
    out.node = node;
    const auto found = answers.find(node.str());
    if (found == answers.end()) {
      const bool waited = co_await sleep_until(clock_, deadline);
      out.problem = waited ? "timed out" : "cancelled";
      co_return out;
    }
    out = found->second;
    out.node = std::move(node);
    co_return out;
  }
  Async<FailsafeAnswer> ask_failsafe(NodeName, std::string, std::string, TimePoint) override {
    co_return Error(errc::unsupported);
  }
  std::map<std::string, PeerStatus> answers;

 private:
  Clock& clock_;
};

struct SimFixture {
  SimFixture() {
    PeerStatus good;
    good.reachable = true;
    peers.answers["n2"] = good;
    put("config", R"({"ttl":10,"loop_wait":2,"retry_timeout":4})");
    put("leader", "n1");
    member("n1", "primary");
    member("n2", "replica");
  }
  void put(const std::string& key, std::string value) { dcs.put(scope, key, std::move(value)); }
  void member(const std::string& name, const std::string& role, bool pause = false) {
    put("members/" + name,
        R"({"conn_url":"postgres://10.0.0.)" + name.substr(1) +
            R"(:5432/postgres","api_url":"http://10.0.0.)" + name.substr(1) +
            R"(:8008/patroni","state":"running","role":")" + role + R"(","version":"4.1.4")" +
            (pause ? R"(,"pause":true})" : "}"));
  }
  std::string peek(const std::string& key) const {
    const auto entry = dcs.peek(scope, key);
    return entry ? entry->value : "(absent)";
  }
  template <class T>
  T run(boost::asio::awaitable<T> operation) {
    std::optional<T> out;
    boost::asio::co_spawn(
        world.executor(n1), std::move(operation), [&](std::exception_ptr failure, T result) {
          if (failure) std::rethrow_exception(failure);
          out.emplace(std::move(result));
        });
    const auto before = world.now();
    world.run_until([&] { return out.has_value(); }, std::chrono::hours(1));
    REQUIRE(out.has_value());
    took = world.now() - before;
    return std::move(*out);
  }

  testing::SimWorld world{7};
  testing::NodeId n1 = world.add_node("n1");
  testing::SimDcs dcs{world};
  Scope scope{"demo"};
  testing::SimStore sim_store{dcs, n1, scope};
  ClusterStore store{sim_store, world.clock(n1)};
  FakePeers peers{world.clock(n1)};
  StatusBoard board;
  Operations operations{store, peers, &board};
  Duration took{};
};

}  // namespace spilo::test
