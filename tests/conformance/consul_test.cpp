// The conformance suite against real Consul servers, one and three. Faults: SIGSTOP, kill and
// restart, the leader killed, and a proxy before each server that keeps the answers.
#include "conformance/doctest_glue.hpp"
#include "spilo/consul/consul_store.hpp"
#include "support/consul_server.hpp"
#include "support/flaky_proxy.hpp"
#include "support/process.hpp"

using namespace spilo;
using namespace spilo::test;
using namespace std::chrono_literals;
namespace conformance = spilo::testing::dcs_conformance;

namespace {

class ConsulSubject final : public conformance::IoSubject {
 public:
  explicit ConsulSubject(std::size_t servers) : cluster_(servers) {
    for (std::size_t i = 0; i < cluster_.size(); ++i)
      proxies_.push_back(std::make_unique<FlakyProxy>(io(), cluster_[i].port()));
  }

  std::string name() const override { return "consul"; }
  dcs::Store& make_client(Scope scope) override {
    consul::Options options;
    for (const auto& proxy : proxies_) options.servers.emplace_back("127.0.0.1", proxy->port());
    options.base = consul::base_path("conformance", scope);
    options.seed = ++seed_;
    clients_.push_back(std::make_unique<consul::ConsulStore>(
        io().get_executor(), system_clock(), std::move(options)));
    return *clients_.back();
  }
  Duration ttl() const override { return 1s; }
  // Consul's leader waits for twice the ttl, and its clock starts when the renewal arrives.
  Duration expiry_slack() const override { return ttl() + 1s; }

  std::optional<std::string> why_not(conformance::Fault fault) const override {
    if (fault == conformance::Fault::kill_leader && proxies_.size() < 3)
      return "one server has nobody to take over";
    return {};
  }
  boost::asio::awaitable<void> freeze_server() override {
    for (std::size_t i = 0; i < cluster_.size(); ++i) cluster_[i].process().freeze();
    co_return;
  }
  boost::asio::awaitable<void> thaw_server() override {
    for (std::size_t i = 0; i < cluster_.size(); ++i) cluster_[i].process().signal(SIGCONT);
    co_return;
  }
  boost::asio::awaitable<void> cut_answers(bool cut) override {
    for (const auto& proxy : proxies_)
      if (cut) {
        proxy->cut_answers_after(0);
      } else {
        proxy->pass();
      }
    co_return;
  }
  boost::asio::awaitable<void> restart_server() override {
    for (std::size_t i = 0; i < cluster_.size(); ++i) cluster_[i].process().end(SIGKILL);
    co_await revive_leader();
  }
  boost::asio::awaitable<void> kill_leader() override {
    cluster_[cluster_.leader()].process().end(SIGKILL);
    co_return;
  }
  boost::asio::awaitable<void> revive_leader() override {
    for (std::size_t i = 0; i < cluster_.size(); ++i) cluster_[i].process().start();
    for (std::size_t i = 0; i < cluster_.size(); ++i)
      if (!cluster_[i].wait_ready())
        throw std::runtime_error("consul did not come back: " + cluster_[i].process().log());
    co_return;
  }

 private:
  ConsulCluster cluster_;
  std::vector<std::unique_ptr<FlakyProxy>> proxies_;
  std::vector<std::unique_ptr<consul::ConsulStore>> clients_;
  std::uint64_t seed_ = 0;
};

}  // namespace

TEST_CASE("consul passes the conformance suite" * doctest::skip(!have_consul())) {
  ConsulSubject subject(1);
  conformance::check_conformance(subject);
}

TEST_CASE("three consul servers pass the conformance suite" * doctest::skip(!have_consul())) {
  ConsulSubject subject(3);
  conformance::check_conformance(subject);
}
