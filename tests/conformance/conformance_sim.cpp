// The conformance suite against the simulated store, in virtual time.
#include <boost/asio/co_spawn.hpp>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "conformance/doctest_glue.hpp"
#include "spilo/testing/sim_dcs.hpp"

namespace spilo::testing::dcs_conformance {
namespace {

class SimSubject final : public Subject {
 public:
  explicit SimSubject(std::uint64_t seed)
      : world_(seed), node_(world_.add_node("n1")), dcs_(world_) {}
  // Clients go last: what the world still holds refers to them.
  ~SimSubject() override { world_.crash(node_); }

  std::string name() const override { return "sim"; }
  Clock& clock() override { return world_.clock(node_); }
  void run_until(boost::asio::awaitable<void> work) override {
    std::optional<std::exception_ptr> ended;
    boost::asio::co_spawn(world_.executor(node_), std::move(work), [&](std::exception_ptr thrown) {
      ended = thrown;
    });
    world_.run_until([&] { return ended.has_value(); }, std::chrono::hours(1));
    if (!ended) throw std::logic_error("the case does not end within an hour of virtual time");
    if (*ended) std::rethrow_exception(*ended);
  }
  dcs::Store& make_client(Scope scope) override {
    clients_.push_back(std::make_unique<SimStore>(dcs_, node_, std::move(scope)));
    return *clients_.back();
  }

  Duration ttl() const override { return std::chrono::seconds(3); }
  Duration expiry_slack() const override { return std::chrono::milliseconds(50); }
  Duration wake_within() const override { return std::chrono::milliseconds(20); }

  std::optional<std::string> why_not(Fault) const override { return std::nullopt; }
  boost::asio::awaitable<void> freeze_server() override {
    dcs_.set_down(SimDcs::Down::silent);
    co_return;
  }
  boost::asio::awaitable<void> thaw_server() override {
    dcs_.set_down(SimDcs::Down::no);
    co_return;
  }
  boost::asio::awaitable<void> cut_answers(bool cut) override {
    dcs_.link(node_).lose_answer_permille = cut ? 1000 : 0;
    co_return;
  }
  boost::asio::awaitable<void> restart_server() override {
    dcs_.set_down(SimDcs::Down::refusing);
    co_await sleep_until(world_.clock(node_), world_.clock(node_).now() + std::chrono::seconds(1));
    dcs_.set_down(SimDcs::Down::no);
  }
  // The simulated store is one server: for its clients an election is a time in which everything is
  // refused.
  boost::asio::awaitable<void> kill_leader() override {
    dcs_.set_down(SimDcs::Down::refusing);
    world_.after(std::chrono::milliseconds(1500), [this] { dcs_.set_down(SimDcs::Down::no); });
    co_return;
  }
  boost::asio::awaitable<void> revive_leader() override {
    dcs_.set_down(SimDcs::Down::no);
    co_return;
  }

  const std::vector<std::string>& violations() const { return world_.violations(); }

 private:
  SimWorld world_;
  NodeId node_;
  SimDcs dcs_;
  std::vector<std::unique_ptr<SimStore>> clients_;
};

}  // namespace

TEST_CASE("the simulated store is a store") {
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    CAPTURE(seed);
    SimSubject subject(seed);
    check_conformance(subject);
    CHECK(subject.violations().empty());
  }
}

}  // namespace spilo::testing::dcs_conformance
