// The conformance suite against real Consul servers. Faults: SIGSTOP, kill and restart, and a proxy
// that keeps the answers.
#include "conformance/doctest_glue.hpp"
#include "spilo/consul/consul_store.hpp"
#include "support/consul_server.hpp"
#include "support/flaky_proxy.hpp"

using namespace spilo;
using namespace spilo::test;
using namespace std::chrono_literals;
namespace conformance = spilo::testing::dcs_conformance;

namespace {

class ConsulSubject : public conformance::IoSubject {
 public:
  std::string name() const override { return "consul"; }
  dcs::Store& make_client(Scope scope) override {
    consul::Options options;
    options.servers = urls();
    options.base = consul::base_path("conformance", scope);
    options.seed = ++seed_;
    clients_.push_back(std::make_unique<consul::ConsulStore>(
        io().get_executor(), system_clock(), std::move(options)));
    return *clients_.back();
  }
  Duration ttl() const override { return 1s; }
  // Consul's leader waits for twice the ttl, and its clock starts when the renewal arrives.
  Duration expiry_slack() const override { return ttl() + 1s; }

 protected:
  virtual std::vector<net::Url> urls() = 0;

 private:
  std::vector<std::unique_ptr<consul::ConsulStore>> clients_;
  std::uint64_t seed_ = 0;
};

class OneServer final : public ConsulSubject {
 public:
  OneServer() : proxy_(io(), cluster_[0].port()) {}

  std::optional<std::string> why_not(conformance::Fault) const override { return {}; }
  boost::asio::awaitable<void> freeze_server() override {
    cluster_[0].process().signal(SIGSTOP);
    co_return;
  }
  boost::asio::awaitable<void> thaw_server() override {
    cluster_[0].process().signal(SIGCONT);
    co_return;
  }
  boost::asio::awaitable<void> cut_answers(bool cut) override {
    if (cut) {
      proxy_.cut_answers_after(0);
    } else {
      proxy_.pass();
    }
    co_return;
  }
  boost::asio::awaitable<void> restart_server() override {
    cluster_[0].restart();
    co_return;
  }

 private:
  std::vector<net::Url> urls() override {
    return std::vector<net::Url>(1, net::Url("127.0.0.1", proxy_.port()));
  }
  ConsulCluster cluster_;
  FlakyProxy proxy_;
};

// Three servers, each client with all three addresses. The server that stops is the leader, and it
// comes back when another one leads.
class ThreeServers final : public ConsulSubject {
 public:
  std::optional<std::string> why_not(conformance::Fault fault) const override {
    if (fault != conformance::Fault::cut_answers) return {};
    return "a proxy stands before the single server only";
  }
  boost::asio::awaitable<void> freeze_server() override {
    for (std::size_t i = 0; i < cluster_.size(); ++i) cluster_[i].process().signal(SIGSTOP);
    co_return;
  }
  boost::asio::awaitable<void> thaw_server() override {
    for (std::size_t i = 0; i < cluster_.size(); ++i) cluster_[i].process().signal(SIGCONT);
    co_return;
  }
  boost::asio::awaitable<void> restart_server() override {
    auto& leader = cluster_[cluster_.leader()];
    leader.process().end(SIGKILL);
    cluster_.leader();
    leader.process().start();
    co_return;
  }
  // A new leader begins to count anew, and the suite can't know when there was one.
  Duration expiry_slack() const override { return ttl() + 2s; }

 private:
  std::vector<net::Url> urls() override { return cluster_.urls(); }
  ConsulCluster cluster_{3};
};

}  // namespace

TEST_CASE("consul passes the conformance suite" * doctest::skip(!have_consul())) {
  OneServer subject;
  conformance::check_conformance(subject);
}

TEST_CASE("three consul servers pass the conformance suite" * doctest::skip(!have_consul())) {
  ThreeServers subject;
  conformance::check_conformance(subject);
}
