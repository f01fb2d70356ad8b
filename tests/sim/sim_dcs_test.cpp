#include "spilo/testing/sim_dcs.hpp"

#include <doctest/doctest.h>

#include <boost/asio/co_spawn.hpp>

using namespace spilo;
using namespace spilo::testing;
using namespace std::chrono_literals;
namespace asio = boost::asio;

namespace {

struct Fixture {
  explicit Fixture(SimDcs::Options options = {}) : dcs(world, options) {}
  template <class T>
  Result<T> run(NodeId node, Async<T> op) {
    std::optional<Result<T>> out;
    asio::co_spawn(
        world.executor(node), std::move(op), [&](std::exception_ptr failure, Result<T> result) {
          if (failure) std::rethrow_exception(failure);
          out.emplace(std::move(result));
        });
    world.run_until([&] { return out.has_value(); }, 1h);
    REQUIRE(out.has_value());
    return *out;
  }
  TimePoint in(Duration span) { return world.now() + span; }
  Result<dcs::Committed> put(SimStore& store,
                             NodeId node,
                             std::string key,
                             std::string value,
                             dcs::Binding binding = dcs::Binding::permanent) {
    dcs::Transaction transaction;
    transaction.put(std::move(key), std::move(value), binding);
    return run(node, store.commit(transaction, in(1s)));
  }

  SimWorld world{5};
  NodeId n1 = world.add_node("n1"), n2 = world.add_node("n2");
  SimDcs dcs;
  Scope scope{"batman"};
  SimStore one{dcs, n1, scope}, two{dcs, n2, scope};
};

}  // namespace

TEST_CASE("sim store: a cut-off answer is ambiguous, and the write is done") {
  Fixture f;
  f.dcs.link(f.n1).lose_answer_permille = 1000;
  const auto result = f.put(f.one, f.n1, "a", "1");
  CHECK(result.error().is(errc::ambiguous));
  CHECK(f.dcs.peek(f.scope, "a")->value == "1");
}

TEST_CASE("sim store: a lost request is ambiguous, and the write is not done") {
  Fixture f;
  f.dcs.link(f.n1).lose_request_permille = 1000;
  CHECK(f.put(f.one, f.n1, "a", "1").error().is(errc::ambiguous));
  CHECK(!f.dcs.peek(f.scope, "a"));
}

TEST_CASE("sim store: refused is certainly not done; a partition is silence") {
  Fixture f;
  f.dcs.set_down(SimDcs::Down::refusing);
  const auto before = f.world.now();
  CHECK(f.put(f.one, f.n1, "a", "1").error().is(errc::unavailable));
  CHECK(f.world.now() - before < 10ms);
  f.dcs.set_down(SimDcs::Down::no);
  f.dcs.link(f.n1).cut = true;
  CHECK(
      f.run(f.n1, f.one.read(dcs::Freshness::linearizable, f.in(2s))).error().is(errc::timed_out));
  CHECK(f.put(f.two, f.n2, "a", "2").has_value());
  f.dcs.heal_links();
  const auto read = f.run(f.n1, f.one.read(dcs::Freshness::linearizable, f.in(2s)));
  CHECK(read->find("a")->value == "2");
}

TEST_CASE("sim store: a request may arrive after its sender gave up") {
  Fixture f;
  f.dcs.link(f.n1).slow_permille = 1000;
  f.dcs.link(f.n1).slow_max = 20s;
  CHECK(f.put(f.one, f.n1, "a", "late").error().is(errc::ambiguous));
  f.world.run_for(30s);
  CHECK(f.dcs.peek(f.scope, "a")->value == "late");
}

TEST_CASE("sim store: sessions end by the server's clock, early when told, late when told") {
  Fixture f({.clock_drift_ppm = 1000});
  const auto lease = f.run(f.n1, f.one.renew(10s, f.in(1s)));
  REQUIRE(lease.has_value());
  // The server's clock is fast: the client believes in its session 10 ms longer, which is a
  // violation without an allowance.
  CHECK(f.world.violations().size() == 1);
  CHECK(f.put(f.one, f.n1, "leader", "n1", dcs::Binding::session).has_value());
  CHECK(f.dcs.peek(f.scope, "leader")->owner == lease->session);
  f.world.run_until([&] { return !f.dcs.peek(f.scope, "leader"); }, 1min);
  CHECK(f.world.now() - TimePoint() > 9980ms);
  CHECK(f.world.now() - TimePoint() < 9999ms);
  CHECK(f.run(f.n1, f.one.renew(10s, f.in(1s))).error().is(errc::session_lost));

  Fixture late({.drift_allowance_ppm = 1});
  late.dcs.linger(30s);
  REQUIRE(late.run(late.n1, late.one.renew(10s, late.in(1s))).has_value());
  late.world.run_until([&] { return !late.dcs.has_session(late.one.session()); }, 1h);
  CHECK(late.world.now() > TimePoint(11s));
  CHECK(late.world.violations().empty());

  Fixture early;
  REQUIRE(early.run(early.n1, early.one.renew(10s, early.in(1s))).has_value());
  early.dcs.expire_sessions(early.n1);
  CHECK(early.put(early.one, early.n1, "x", "1", dcs::Binding::session)
            .error()
            .is(errc::session_lost));
}

TEST_CASE("sim store: stale reads only where they are allowed") {
  Fixture f;
  f.dcs.link(f.n2).stale_permille = 1000;
  f.dcs.link(f.n2).stale_max = 1h;
  for (int i = 0; i < 5; ++i) f.put(f.one, f.n1, "a", std::to_string(i));
  bool stale = false;
  for (int i = 0; i < 20; ++i) {
    const auto sure = f.run(f.n2, f.two.read(dcs::Freshness::linearizable, f.in(1s)));
    CHECK(sure->find("a")->value == "4");
    const auto any = f.run(f.n2, f.two.read(dcs::Freshness::local_replica, f.in(1s)));
    if (const auto* entry = any->find("a"); !entry || entry->value != "4") stale = true;
  }
  CHECK(stale);
}

TEST_CASE("sim store: a watch wakes after a partition, and is refused when the store goes down") {
  Fixture f;
  const auto seen = f.run(f.n1, f.one.read(dcs::Freshness::linearizable, f.in(1s)))->index();
  f.dcs.link(f.n1).cut = true;
  f.world.after(1s, [&] { f.dcs.put(f.scope, "a", "1"); });
  f.world.after(5s, [&] { f.dcs.heal_links(); });
  const auto woken = f.run(f.n1, f.one.changed_since(seen, f.in(1min)));
  REQUIRE(woken.has_value());
  CHECK(f.world.now() > TimePoint(5s));
  CHECK(f.world.now() < TimePoint(6s));
  f.world.after(1s, [&] { f.dcs.set_down(SimDcs::Down::refusing); });
  CHECK(f.run(f.n1, f.one.changed_since(*woken, f.in(1min))).error().is(errc::unavailable));
  CHECK(f.world.now() < TimePoint(8s));
}

TEST_CASE("sim store: a wiped store knows nothing, and may count from the start") {
  Fixture f;
  for (int i = 0; i < 5; ++i) f.put(f.one, f.n1, "a", std::to_string(i));
  REQUIRE(f.run(f.n1, f.one.renew(10s, f.in(1s))).has_value());
  f.dcs.wipe(true);
  CHECK(!f.dcs.peek(f.scope, "a"));
  CHECK(f.run(f.n1, f.one.renew(10s, f.in(1s))).error().is(errc::session_lost));
  const auto again = f.put(f.one, f.n1, "a", "x");
  CHECK(again->version_of("a")->era == 2);
}
