#include "spilo/testing/sim_world.hpp"

#include <doctest/doctest.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <stdexcept>

#include "spilo/runtime/with_deadline.hpp"

using namespace spilo;
using namespace spilo::testing;
using namespace std::chrono_literals;
namespace asio = boost::asio;

namespace {

const auto rethrow = [](std::exception_ptr failure) {
  if (failure) std::rethrow_exception(failure);
};

struct Counted {
  explicit Counted(int& count) : count_(count) { ++count_; }
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;
  ~Counted() { --count_; }
  int& count_;
};

Async<int> answer_at(Clock& clock, TimePoint at, bool fail) {
  const bool waited = co_await sleep_until(clock, at);
  if (!waited) co_return Error(errc::cancelled);
  if (fail) throw std::runtime_error("as told");
  co_return 1;
}

// Deadlines, exceptions and ordinary waits in one never-ending loop: what a supervisor is made of.
asio::awaitable<void> busy(SimWorld& world, NodeId node, Rng rng, int& frames) {
  const Counted counted(frames);
  auto& clock = world.clock(node);
  for (;;) {
    const auto a = clock.now() + std::chrono::microseconds(rng.below(4));
    const auto b = clock.now() + std::chrono::microseconds(rng.below(4));
    int outcome = 0;
    try {
      auto result = co_await with_deadline(clock, b, answer_at(clock, a, rng.chance(300)));
      outcome = result.has_value() ? 1 : 2;
    } catch (const std::runtime_error&) {
      outcome = 3;
    }
    world.trace(world.name(node), std::to_string(outcome));
    const bool waited = co_await sleep_until(clock, clock.now() + rng.between(1ms, 1s));
    if (!waited) co_return;
  }
}

struct Outcome {
  std::uint64_t hash = 0;
  int crashes = 0;
  int frames = 0;
  bool operator==(const Outcome&) const = default;
};

Outcome run_world(std::uint64_t seed) {
  Outcome outcome;
  SimWorld world(seed);
  for (int i = 0; i < 3; ++i) world.add_node("n" + std::to_string(i));
  const auto start = [&](NodeId node) {
    asio::co_spawn(
        world.executor(node), busy(world, node, world.rng().fork("busy"), outcome.frames), rethrow);
  };
  for (std::uint32_t i = 0; i < 3; ++i) start(NodeId{i});
  for (int i = 0; i < 40; ++i) {
    world.run_for(world.rng().between(1s, 10s));
    CHECK(outcome.frames == 3);
    const auto victim = NodeId(world.rng().below(3));
    if (world.rng().chance(500)) {
      world.crash(victim);
      CHECK(world.idle(victim));
      ++outcome.crashes;
      start(victim);
    } else {
      world.pause(victim, world.rng().between(1s, 20s));
    }
  }
  for (std::uint32_t i = 0; i < 3; ++i) world.crash(NodeId{i});
  outcome.hash = world.hash();
  return outcome;
}

}  // namespace

TEST_CASE("a seed decides everything, and a crash leaves no frame behind") {
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    const auto first = run_world(seed);
    CHECK(first == run_world(seed));
    CHECK(first.frames == 0);
    CHECK(first.hash != run_world(seed + 1000).hash);
  }
  // The same on every compiler, with and without optimisation and sanitizers.
  CHECK(run_world(7).hash == 10849871172948872012ULL);
}

TEST_CASE("the world may be left with everything running") {
  int frames = 0;
  {
    SimWorld world(1);
    for (int i = 0; i < 3; ++i) {
      const auto node = world.add_node("n" + std::to_string(i));
      asio::co_spawn(world.executor(node), busy(world, node, world.rng(), frames), rethrow);
    }
    world.run_for(10s);
    CHECK(frames == 3);
  }
  CHECK(frames == 0);
}

TEST_CASE("waits end in the order of their times, at their times") {
  SimWorld world(1);
  const auto node = world.add_node("n");
  std::string order;
  for (const int ms : {30, 10, 20})
    world.clock(node).async_wait(TimePoint(std::chrono::milliseconds(ms)), [&, ms](auto ec) {
      CHECK(!ec);
      CHECK(world.now() == TimePoint(std::chrono::milliseconds(ms)));
      order += std::to_string(ms) + " ";
    });
  world.run_for(25ms);
  CHECK(order == "10 20 ");
  CHECK(world.now() == TimePoint(25ms));
  world.run_for(1s);
  CHECK(order == "10 20 30 ");
}

TEST_CASE("a paused node runs nothing while its timers fall due, then sees that time has jumped") {
  SimWorld world(1);
  const auto frozen = world.add_node("frozen");
  const auto other = world.add_node("other");
  std::vector<TimePoint> woken, other_woken;
  for (const int s : {1, 2, 3}) {
    world.clock(frozen).async_wait(TimePoint(std::chrono::seconds(s)),
                                   [&](auto) { woken.push_back(world.clock(frozen).now()); });
    world.clock(other).async_wait(TimePoint(std::chrono::seconds(s)),
                                  [&](auto) { other_woken.push_back(world.now()); });
  }
  world.pause(frozen, 10s);
  world.run_for(9s);
  CHECK(world.paused(frozen));
  CHECK(woken.empty());
  CHECK(other_woken.size() == 3);
  world.run_for(2s);
  CHECK(woken == std::vector<TimePoint>(3, TimePoint(10s)));
  // Woken early.
  world.pause(frozen, 1h);
  asio::post(world.executor(frozen), [&] { woken.clear(); });
  world.run_for(1s);
  CHECK(woken.size() == 3);
  world.resume(frozen);
  world.run_for(0s);
  CHECK(woken.empty());
}

TEST_CASE("dispatch runs inline on the same node only; post never does") {
  SimWorld world(1);
  const auto a = world.add_node("a"), b = world.add_node("b");
  std::string order;
  asio::post(world.executor(a), [&] {
    asio::dispatch(world.executor(a), [&] { order += "1"; });
    asio::post(world.executor(a), [&] { order += "4"; });
    asio::dispatch(world.executor(b), [&] { order += "3"; });
    order += "2";
  });
  asio::dispatch(world.executor(a), [] {});
  CHECK(order.empty());
  world.run_for(0s);
  CHECK(order.substr(0, 2) == "12");
  CHECK(order.size() == 4);
}

TEST_CASE("cancelling a wait completes it through the queue") {
  SimWorld world(1);
  const auto node = world.add_node("n");
  asio::cancellation_signal signal;
  std::optional<boost::system::error_code> ended;
  asio::post(world.executor(node), [&] {
    world.clock(node).async_wait(
        TimePoint(1h), asio::bind_cancellation_slot(signal.slot(), [&](auto ec) { ended = ec; }));
    signal.emit(asio::cancellation_type::terminal);
    CHECK(!ended);
  });
  world.run_for(0s);
  REQUIRE(ended.has_value());
  CHECK(*ended == asio::error::operation_aborted);
  CHECK(world.idle(node));
}

TEST_CASE("clocks drift, and waits end by the clock they were asked of") {
  SimWorld world(1);
  const auto fast = world.add_node("fast"), slow = world.add_node("slow");
  world.clock(fast).set_drift(1000);
  world.clock(slow).set_drift(-1000);
  std::map<std::string, Duration> at;
  for (const auto node : {fast, slow})
    world.clock(node).async_wait(TimePoint(1000s), [&, node](auto) {
      at[world.name(node)] = world.now().time_since_epoch();
      CHECK(world.clock(node).now() >= TimePoint(1000s));
      CHECK(world.clock(node).now() < TimePoint(1000s) + 10ns);
    });
  world.run_for(500s);
  CHECK(world.clock(fast).now() == TimePoint(500'500ms));
  CHECK(world.clock(slow).now() == TimePoint(499'500ms));
  world.run_for(1000s);
  CHECK(at["fast"] < 1000s);
  CHECK(at["slow"] > 1000s);
  // A change of the rate moves the waits that are pending.
  const auto due = world.clock(fast).now() + 100s;
  world.clock(fast).async_wait(due, [&](auto) { CHECK(world.clock(fast).now() >= due); });
  world.clock(fast).set_drift(-5000);
  world.run_for(200s);
  CHECK(world.idle(fast));
  // Far deadlines don't overflow.
  world.clock(fast).async_wait(TimePoint::max(), [](auto) {});
  CHECK(!world.idle(fast));
  const auto wall = world.clock(fast).wall_now();
  const auto steady = world.clock(fast).now();
  world.clock(fast).step_wall(-1h);
  CHECK(world.clock(fast).wall_now() == wall - 1h);
  CHECK(world.clock(fast).now() == steady);
}

TEST_CASE("events of the environment happen at their time and can be called off") {
  SimWorld world(1);
  int happened = 0;
  world.after(1s, [&] { ++happened; });
  const auto off = world.after(2s, [&] { ++happened; });
  CHECK(world.cancel(off));
  CHECK(!world.cancel(off));
  CHECK(world.run_until([&] { return happened == 1; }, 10s));
  CHECK(world.now() == TimePoint(1s));
  CHECK(!world.run_until([&] { return happened == 2; }, 10s));
  CHECK(world.now() == TimePoint(11s));
}

TEST_CASE("an answer wins over the deadline, and a crash forgets who waited") {
  SimWorld world(1);
  const auto node = world.add_node("n");
  auto answer = std::make_shared<SimAnswer<int>>(world, node);
  std::optional<Waited> how;
  const auto wait = [&]() -> asio::awaitable<void> {
    how = co_await await_answer(answer, TimePoint(5s));
  };
  asio::co_spawn(world.executor(node), wait, rethrow);
  world.after(2s, [&] { answer->set(7); });
  world.run_for(3s);
  CHECK(how == Waited::answered);
  CHECK(answer->take() == 7);

  how.reset();
  answer = std::make_shared<SimAnswer<int>>(world, node);
  asio::co_spawn(world.executor(node), wait, rethrow);
  world.run_for(3s);
  CHECK(how == Waited::timed_out);

  how.reset();
  answer = std::make_shared<SimAnswer<int>>(world, node);
  asio::co_spawn(world.executor(node), wait, rethrow);
  world.crash(node);
  answer->set(1);
  world.run_for(10s);
  CHECK(!how);
}

TEST_CASE("code that spins without waiting is found") {
  SimWorld world(1);
  const auto node = world.add_node("spinner");
  std::function<void()> again = [&] { asio::post(world.executor(node), again); };
  again();
  CHECK_THROWS_WITH(
      world.run_for(1s),
      "spinner runs without end at 0 ns of virtual time: something spins without waiting");
  world.crash(node);
}
