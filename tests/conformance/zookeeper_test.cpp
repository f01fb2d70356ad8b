// The conformance suite against real ZooKeeper servers: one, and an ensemble of three whose leader
// is frozen and killed. Faults: SIGSTOP, kill and restart, and proxies that keep the answers.
#include "spilo/zookeeper/zookeeper_store.hpp"

#include "conformance/doctest_glue.hpp"
#include "support/flaky_proxy.hpp"
#include "support/process.hpp"
#include "support/zookeeper_server.hpp"

using namespace spilo;
using namespace spilo::test;
using namespace std::chrono_literals;
namespace conformance = spilo::testing::dcs_conformance;

namespace {

class ZookeeperSubject final : public conformance::IoSubject {
 public:
  // One case asks for five times the ttl.
  explicit ZookeeperSubject(int members) : ensemble_(members, "maxSessionTimeout=60000\n") {
    for (std::size_t i = 0; i < ensemble_.size(); ++i)
      proxies_.push_back(std::make_unique<FlakyProxy>(io(), ensemble_[i].port()));
  }
  ~ZookeeperSubject() override {
    clients_.clear();
    io().restart();
    io().poll();
  }

  std::string name() const override { return proxies_.size() > 1 ? "zookeeper x 3" : "zookeeper"; }
  dcs::Store& make_client(Scope scope) override {
    zookeeper::Options options;
    for (const auto& proxy : proxies_)
      options.servers.push_back(zookeeper::Server{"127.0.0.1", proxy->port()});
    options.base = zookeeper::base_path("", "conformance", scope);
    if (std::getenv("SPILO_ZOOKEEPER_LOG") != nullptr)
      options.logger = Logger(LogLevel::debug, [](LogLevel level, std::string_view text) {
        std::printf("%s %.*s\n",
                    std::string(to_text(level)).c_str(),
                    static_cast<int>(text.size()),
                    text.data());
      });
    clients_.push_back(std::make_unique<zookeeper::ZookeeperStore>(
        io().get_executor(), system_clock(), std::move(options)));
    return *clients_.back();
  }
  // Three servers on a busy machine stop for a second now and then, and elect for several.
  Duration ttl() const override { return proxies_.size() > 1 ? 3s : 2s; }
  Duration takeover_within() const override { return 20s; }
  // A session that nobody renews is ended by its own store 6/5 of the ttl after the last renewal,
  // or by the server on one of its ticks; valid_until counts from the renewal before.
  Duration expiry_slack() const override { return ttl() * 4 / 5 + 2s; }

  std::optional<std::string> why_not(conformance::Fault fault) const override {
    if (fault == conformance::Fault::kill_leader && proxies_.size() < 3)
      return "one server has nobody to take over";
    return {};
  }
  boost::asio::awaitable<void> freeze_server() override {
    for (std::size_t i = 0; i < ensemble_.size(); ++i) ensemble_[i].process().freeze();
    co_return;
  }
  boost::asio::awaitable<void> thaw_server() override {
    for (std::size_t i = 0; i < ensemble_.size(); ++i) ensemble_[i].process().signal(SIGCONT);
    co_return;
  }
  boost::asio::awaitable<void> cut_answers(bool cut) override {
    for (auto& proxy : proxies_) {
      if (cut) {
        proxy->cut_answers_after(0);
      } else {
        proxy->pass();
      }
    }
    co_return;
  }
  boost::asio::awaitable<void> restart_server() override {
    for (std::size_t i = 0; i < ensemble_.size(); ++i) ensemble_[i].process().end(SIGKILL);
    co_await revive_leader();
  }
  boost::asio::awaitable<void> kill_leader() override {
    const auto leader = ensemble_.leader();
    if (leader == ensemble_.size()) throw std::runtime_error("no server of the ensemble leads");
    ensemble_[leader].process().end(SIGKILL);
    co_return;
  }
  boost::asio::awaitable<void> revive_leader() override {
    ensemble_.start_all();
    co_return;
  }

 private:
  ZookeeperEnsemble ensemble_;
  std::vector<std::unique_ptr<FlakyProxy>> proxies_;
  std::vector<std::unique_ptr<zookeeper::ZookeeperStore>> clients_;
};

}  // namespace

TEST_CASE("zookeeper passes the conformance suite" * doctest::skip(!have_zookeeper())) {
  ZookeeperSubject subject(1);
  conformance::check_conformance(subject);
}

TEST_CASE("an ensemble of three passes it, its leader killed" * doctest::skip(!have_zookeeper())) {
  ZookeeperSubject subject(3);
  conformance::check_conformance(subject);
}
