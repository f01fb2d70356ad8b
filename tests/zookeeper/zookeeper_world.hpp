// A test's io_context, clock and stores on real ZooKeeper servers.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "spilo/runtime/system_clock.hpp"
#include "spilo/zookeeper/zookeeper_store.hpp"
#include "support/flaky_proxy.hpp"
#include "support/process.hpp"
#include "support/run.hpp"
#include "support/zookeeper_server.hpp"

namespace spilo::test {

class ZookeeperWorld {
 public:
  ~ZookeeperWorld() {
    stores_.clear();
    io.restart();
    io.poll();
  }

  static zookeeper::Server at(std::uint16_t port) { return zookeeper::Server{"127.0.0.1", port}; }
  static std::vector<zookeeper::Server> servers(ZookeeperEnsemble& ensemble) {
    std::vector<zookeeper::Server> out;
    for (std::size_t i = 0; i < ensemble.size(); ++i) out.push_back(at(ensemble[i].port()));
    return out;
  }
  zookeeper::ZookeeperStore& store(std::vector<zookeeper::Server> servers,
                                   zookeeper::Options options = {},
                                   std::string chroot = {}) {
    options.servers = std::move(servers);
    options.base = zookeeper::base_path(chroot, "service", Scope("batman"));
    options.logger = Logger(LogLevel::info, [this](LogLevel level, std::string_view text) {
      log.append(to_text(level)).append(" ").append(text).append("\n");
    });
    stores_.push_back(
        std::make_unique<zookeeper::ZookeeperStore>(io.get_executor(), clock, std::move(options)));
    return *stores_.back();
  }
  // Destroys the last store.
  void forget_last() { stores_.pop_back(); }

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
  Result<void> end_session(dcs::Store& store, Duration limit = std::chrono::seconds(5)) {
    return run(io, store.end_session(in(limit)));
  }
  Result<dcs::Index> changed(dcs::Store& store, dcs::Index seen, Duration limit) {
    return run(io, store.changed_since(seen, in(limit)));
  }

  boost::asio::io_context io{1};
  SystemClock clock{io.get_executor()};
  std::string log;

 private:
  std::vector<std::unique_ptr<zookeeper::ZookeeperStore>> stores_;
};

// The longest time for which the loop let nobody run: a timer that is due each millisecond.
class LoopWatch {
 public:
  explicit LoopWatch(boost::asio::io_context& io) : state_(std::make_shared<State>(io)) {
    wait(state_);
  }
  // A timer that is due already calls its handler all the same.
  ~LoopWatch() {
    state_->over = true;
    state_->timer.cancel();
  }
  LoopWatch(const LoopWatch&) = delete;
  LoopWatch& operator=(const LoopWatch&) = delete;
  std::chrono::milliseconds longest() const {
    return std::chrono::duration_cast<std::chrono::milliseconds>(state_->longest);
  }

 private:
  using SteadyTime = std::chrono::steady_clock;
  struct State {
    explicit State(boost::asio::io_context& io) : timer(io) {}
    boost::asio::steady_timer timer;
    SteadyTime::time_point due;
    SteadyTime::duration longest{};
    bool over = false;
  };
  static void wait(std::shared_ptr<State> state) {
    state->due = SteadyTime::now() + std::chrono::milliseconds(1);
    auto& timer = state->timer;
    timer.expires_at(state->due);
    timer.async_wait([state = std::move(state)](boost::system::error_code ec) {
      if (ec || state->over) return;
      state->longest = std::max(state->longest, SteadyTime::now() - state->due);
      wait(state);
    });
  }
  std::shared_ptr<State> state_;
};

}  // namespace spilo::test
