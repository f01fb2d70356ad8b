// The conformance suite against real etcd, one member and three. Faults: SIGSTOP, kill and restart,
// the leader killed, and a proxy before each member that keeps the answers.
#include "spilo/etcd/etcd_store.hpp"

#include "conformance/doctest_glue.hpp"
#include "spilo/core/json.hpp"
#include "support/etcd_server.hpp"
#include "support/flaky_proxy.hpp"

using namespace spilo;
using namespace spilo::test;
using namespace std::chrono_literals;
namespace conformance = spilo::testing::dcs_conformance;

namespace {

class EtcdSubject final : public conformance::IoSubject {
 public:
  explicit EtcdSubject(int members) : cluster_(members) {
    for (std::size_t i = 0; i < cluster_.size(); ++i)
      proxies_.push_back(std::make_unique<FlakyProxy>(io(), cluster_[i].port()));
  }

  std::string name() const override { return "etcd"; }
  dcs::Store& make_client(Scope scope) override {
    etcd::Options options;
    for (const auto& proxy : proxies_)
      options.endpoints.push_back(net::Url("127.0.0.1", proxy->port()));
    options.use_proxies = true;  // the members' own addresses would lead around the proxies
    options.base = etcd::base_path("conformance", scope);
    options.seed = ++seed_;
    clients_.push_back(
        std::make_unique<etcd::EtcdStore>(io().get_executor(), system_clock(), std::move(options)));
    return *clients_.back();
  }
  Duration ttl() const override { return 2s; }
  Duration expiry_slack() const override {
    return 2s;
  }  // etcd looks for expired leases every 500 ms

  std::optional<std::string> why_not(conformance::Fault fault) const override {
    if (fault == conformance::Fault::kill_leader && proxies_.size() < 3)
      return "one member has nobody to take over";
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
    const TimePoint limit = system_clock().now() + 20s;
    std::optional<std::size_t> leader;
    while (!leader) {
      if (system_clock().now() > limit) throw std::runtime_error("no member of etcd leads");
      for (std::size_t i = 0; i < cluster_.size() && !leader; ++i)
        if (co_await leads(i)) leader = i;
    }
    cluster_[*leader].process().end(SIGKILL);
  }
  boost::asio::awaitable<void> revive_leader() override {
    for (std::size_t i = 0; i < cluster_.size(); ++i) cluster_[i].process().start();
    for (std::size_t i = 0; i < cluster_.size(); ++i)
      if (!cluster_[i].wait_ready())
        throw std::runtime_error("etcd did not come back: " + cluster_[i].process().log());
    co_return;
  }

 private:
  boost::asio::awaitable<bool> leads(std::size_t member) {
    net::HttpClient client(io().get_executor(), system_clock(), net::HttpClientOptions{});
    const auto answer =
        co_await client.request(cluster_[member].url(),
                                net::HttpRequest("POST", "/v3/maintenance/status", "{}"),
                                system_clock().now() + 2s);
    if (answer.has_error()) co_return false;
    const auto status = json::parse(answer->body());
    if (status.has_error()) co_return false;
    const auto* id = status->find_path("header.member_id");
    co_return id != nullptr && status->get_string("leader", "-") == id->scalar_text();
  }

  EtcdCluster cluster_;
  std::vector<std::unique_ptr<FlakyProxy>> proxies_;
  std::vector<std::unique_ptr<etcd::EtcdStore>> clients_;
  std::uint64_t seed_ = 0;
};

}  // namespace

TEST_CASE("etcd passes the conformance suite" * doctest::skip(!have_etcd())) {
  EtcdSubject subject(1);
  conformance::check_conformance(subject);
}

TEST_CASE("a cluster of three passes the conformance suite" * doctest::skip(!have_etcd())) {
  EtcdSubject subject(3);
  conformance::check_conformance(subject);
}
