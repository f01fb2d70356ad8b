#include "spilo/runtime/cluster_store.hpp"

#include <doctest/doctest.h>

#include <boost/asio/co_spawn.hpp>

#include "spilo/model/codec.hpp"
#include "spilo/model/keys.hpp"
#include "spilo/testing/sim_dcs.hpp"

using namespace spilo;
using namespace spilo::testing;
using namespace std::chrono_literals;
namespace asio = boost::asio;

namespace {

struct Fixture {
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
  TimePoint soon() { return world.now() + 5s; }
  SessionId open(NodeId node, SimStore& store, Duration ttl = 30s) {
    const auto lease = run(node, store.renew(ttl, soon()));
    REQUIRE(lease.has_value());
    return lease->session;
  }
  ClusterView load() {
    const auto view = run(n1, one.load(dcs::Freshness::linearizable, soon()));
    REQUIRE(view.has_value());
    return *view;
  }
  Result<std::pair<LeaderKey, Term>> acquire(NodeId node,
                                             ClusterStore& cluster,
                                             const char* name,
                                             const SessionId& session,
                                             ha::AcquireLock order) {
    return run(node, cluster.acquire_lock(NodeName(name), session, order, soon()));
  }

  SimWorld world{11};
  NodeId n1 = world.add_node("n1"), n2 = world.add_node("n2");
  SimDcs dcs{world};
  Scope scope{"batman"};
  SimStore store1{dcs, n1, scope}, store2{dcs, n2, scope};
  ClusterStore one{store1, world.clock(n1)}, two{store2, world.clock(n2)};
};

}  // namespace

TEST_CASE("cluster store: the lock and its term are taken in one step, once") {
  Fixture f;
  const auto s1 = f.open(f.n1, f.store1);
  const auto s2 = f.open(f.n2, f.store2);
  ha::AcquireLock order;
  order.timeline = TimelineId{3};
  const auto granted = f.acquire(f.n1, f.one, "n1", s1, order);
  REQUIRE(granted.has_value());
  CHECK(granted->first.holder == NodeName("n1"));
  CHECK(granted->first.session == s1);
  CHECK(granted->second.number == 1);
  CHECK(f.dcs.peek(f.scope, "leader")->value == "n1");
  CHECK(f.dcs.peek(f.scope, "leader")->owner == s1);
  CHECK(f.dcs.peek(f.scope, "term")->value == R"({"number":1,"holder":"n1","timeline":3})");

  const auto view = f.load();
  CHECK(view.leader == granted->first);
  CHECK(view.term == granted->second);
  CHECK(f.acquire(f.n2, f.two, "n2", s2, order).error().is(errc::conflict));
}

TEST_CASE("cluster store: a lost lock comes back only when nobody led in between") {
  Fixture f;
  const auto s1 = f.open(f.n1, f.store1);
  const auto s2 = f.open(f.n2, f.store2);
  const auto first = f.acquire(f.n1, f.one, "n1", s1, ha::AcquireLock());
  REQUIRE(first.has_value());
  ha::ReleaseLock release;
  release.held = first->first;
  REQUIRE(f.run(f.n1, f.one.release_lock(release, f.soon())).has_value());

  ha::AcquireLock next;
  next.term = first->second;
  const auto second = f.acquire(f.n2, f.two, "n2", s2, next);
  REQUIRE(second.has_value());
  CHECK(second->second.number == 2);
  ha::ReleaseLock away;
  away.held = second->first;
  REQUIRE(f.run(f.n2, f.two.release_lock(away, f.soon())).has_value());
  // The lock is free again, but n2 has led since.
  CHECK(f.acquire(f.n1, f.one, "n1", s1, next).error().is(errc::conflict));
}

TEST_CASE("cluster store: a restarted leader rebinds its own key, and only that one") {
  Fixture f;
  const auto old_session = f.open(f.n1, f.store1);
  const auto first = f.acquire(f.n1, f.one, "n1", old_session, ha::AcquireLock());
  REQUIRE(first.has_value());
  SimStore restarted(f.dcs, f.n1, f.scope);
  ClusterStore again(restarted, f.world.clock(f.n1));
  const auto session = f.open(f.n1, restarted);
  ha::AcquireLock order;
  order.rebind = first->first.version;
  order.term = first->second;
  const auto rebound = f.acquire(f.n1, again, "n1", session, order);
  REQUIRE(rebound.has_value());
  CHECK(f.dcs.peek(f.scope, "leader")->owner == session);
  CHECK(f.acquire(f.n1, again, "n1", session, order).error().is(errc::conflict));
}

TEST_CASE(
    "cluster store: release writes where the WAL ended, and never frees somebody else's lock") {
  Fixture f;
  const auto s1 = f.open(f.n1, f.store1);
  const auto s2 = f.open(f.n2, f.store2);
  const auto first = f.acquire(f.n1, f.one, "n1", s1, ha::AcquireLock());
  REQUIRE(first.has_value());
  ha::ReleaseLock order;
  order.held = first->first;
  order.status = R"({"optime":77})";
  REQUIRE(f.run(f.n1, f.one.release_lock(order, f.soon())).has_value());
  CHECK_FALSE(f.dcs.peek(f.scope, "leader").has_value());
  CHECK(f.load().status.optime == Lsn{77});

  ha::AcquireLock take;
  take.term = first->second;
  REQUIRE(f.acquire(f.n2, f.two, "n2", s2, take).has_value());
  order.status = R"({"optime":1})";
  CHECK(f.run(f.n1, f.one.release_lock(order, f.soon())).error().is(errc::conflict));
  CHECK(f.load().status.optime == Lsn{77});
  CHECK(f.load().leader->holder == NodeName("n2"));
}

TEST_CASE("cluster store: writes obey versions and the fence") {
  Fixture f;
  const auto s1 = f.open(f.n1, f.store1);
  const auto lock = f.acquire(f.n1, f.one, "n1", s1, ha::AcquireLock());
  REQUIRE(lock.has_value());
  const auto write =
      [&](std::string value, std::optional<dcs::Version> at, std::optional<LeaderKey> fence) {
        return f.run(f.n1, f.one.write(keys::config, std::move(value), at, fence, f.soon()));
      };
  const auto created = write(R"({"ttl":30})", dcs::Version{}, {});
  REQUIRE(created.has_value());
  CHECK(write("{}", dcs::Version{}, {}).error().is(errc::conflict));
  const auto changed = write(R"({"ttl":20})", *created, lock->first);
  REQUIRE(changed.has_value());
  CHECK(write("{}", *created, {}).error().is(errc::conflict));
  CHECK(f.load().config_version == *changed);
  CHECK(write(R"({"ttl":40})", {}, {}).has_value());

  auto stale = lock->first;
  stale.version.count += 1;
  CHECK(write("{}", {}, stale).error().is(errc::conflict));
  CHECK(f.load().config->timing.ttl == 40s);
  CHECK(f.run(f.n1, f.one.erase(keys::config, *changed, f.soon())).error().is(errc::conflict));
  CHECK(f.run(f.n1, f.one.erase(keys::config, f.load().config_version, f.soon())).has_value());
  CHECK(f.load().config_version == dcs::Version{});
}

TEST_CASE("cluster store: what is bound to the session goes with it") {
  Fixture f;
  f.open(f.n1, f.store1, 10s);
  REQUIRE(f.run(f.n1, f.one.publish_member(NodeName("n1"), "{}", f.soon())).has_value());
  REQUIRE(
      f.run(f.n1,
            f.one.write(keys::initialize, "", dcs::Version{}, {}, f.soon(), dcs::Binding::session))
          .has_value());
  CHECK(f.load().members.size() == 1);
  CHECK(f.load().initialize == "");
  f.world.run_for(11s);
  CHECK(f.load().members.empty());
  CHECK_FALSE(f.load().initialize.has_value());
}

TEST_CASE("cluster store: an answer that was lost is ambiguous, whatever the store did") {
  Fixture f;
  const auto s1 = f.open(f.n1, f.store1);
  f.dcs.link(f.n1).lose_answer_permille = 1000;
  const auto lost = f.acquire(f.n1, f.one, "n1", s1, ha::AcquireLock());
  REQUIRE(lost.has_error());
  CHECK(lost.error().is(errc::ambiguous));
  f.dcs.heal_links();
  CHECK(f.load().leader->holder == NodeName("n1"));
  f.dcs.set_down(SimDcs::Down::refusing);
  const auto refused = f.run(f.n1, f.one.write("status", "{}", {}, {}, f.soon()));
  CHECK(refused.error().is(errc::unavailable));
  CHECK(refused.error().detail().starts_with("writing status: "));
}

TEST_CASE("cluster store: everything of a cluster is read, and can be erased") {
  Fixture f;
  const std::pair<const char*, const char*> content[] = {
      {"initialize", "7268616322854375442"},
      {"leader", "n1"},
      {"members/n2", R"({"state":"running","role":"replica"})"},
      {"members/n1", R"({"state":"running","role":"primary"})"},
      {"config", R"({"ttl":30,"loop_wait":10,"retry_timeout":10})"},
      {"failover", R"({"leader":"n1","member":"n2"})"},
      {"sync", R"({"leader":"n1","quorum":0,"sync_standby":"n2"})"},
      {"history", R"([[1,10,"x"]])"},
      {"optime/leader", "55"},
      {"failsafe", R"({"n1":"http://n1:8008/patroni"})"},
      {"term", R"({"number":4,"holder":"n1","timeline":2})"},
      {"foreign", "\xff"},
  };
  for (const auto& [key, value] : content) f.dcs.put(f.scope, key, value);
  const auto before = f.world.now();
  auto view = f.load();
  CHECK(view.initialize == "7268616322854375442");
  CHECK(view.leader->holder == NodeName("n1"));
  CHECK(view.leader->session.empty());
  REQUIRE(view.members.size() == 2);
  CHECK(view.members[0].name == NodeName("n1"));
  CHECK(view.member(NodeName("n2"))->role == "replica");
  CHECK(view.member(NodeName("n3")) == nullptr);
  CHECK(view.config->timing.ttl == 30s);
  CHECK(view.failover.candidate == NodeName("n2"));
  CHECK(view.failover.version == f.dcs.peek(f.scope, "failover")->version);
  CHECK(view.sync.voters == std::vector{NodeName("n2")});
  CHECK(view.timeline() == TimelineId{2});
  CHECK(view.status.optime == Lsn{55});
  CHECK(view.failsafe->size() == 1);
  CHECK(view.term.number == 4);
  CHECK(view.read_started == before);
  f.dcs.put(f.scope, "status", R"({"optime":66})");
  f.dcs.put(f.scope, "config", "{broken");
  view = f.load();
  CHECK(view.status.optime == Lsn{66});
  CHECK_FALSE(view.config.has_value());
  CHECK(view.config_version != dcs::Version{});

  REQUIRE(f.run(f.n1, f.one.erase_all(f.soon())).has_value());
  CHECK(f.dcs.snapshot(f.scope).all().empty());
}
