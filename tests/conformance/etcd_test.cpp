// The conformance suite against a real etcd. Faults: SIGSTOP, kill and restart, and a proxy that
// keeps the answers.
#include "spilo/etcd/etcd_store.hpp"

#include "conformance/doctest_glue.hpp"
#include "support/etcd_server.hpp"
#include "support/flaky_proxy.hpp"

using namespace spilo;
using namespace spilo::test;
using namespace std::chrono_literals;
namespace conformance = spilo::testing::dcs_conformance;

namespace {

class EtcdSubject final : public conformance::IoSubject {
 public:
  EtcdSubject() : proxy_(io(), cluster_[0].port()) {}

  std::string name() const override { return "etcd"; }
  dcs::Store& make_client(Scope scope) override {
    etcd::Options options;
    options.endpoints.push_back(net::Url("127.0.0.1", proxy_.port()));
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
  EtcdCluster cluster_;
  FlakyProxy proxy_;
  std::vector<std::unique_ptr<etcd::EtcdStore>> clients_;
  std::uint64_t seed_ = 0;
};

}  // namespace

TEST_CASE("etcd passes the conformance suite" * doctest::skip(!have_etcd())) {
  EtcdSubject subject;
  conformance::check_conformance(subject);
}
