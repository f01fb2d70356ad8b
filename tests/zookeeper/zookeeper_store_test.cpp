// One real ZooKeeper server: sessions that end, ACLs, a path of its own, names, and a loop that
// must not be blocked by a client library that likes to.
#include <doctest/doctest.h>

#include <algorithm>

#include "zookeeper/zookeeper_world.hpp"

using namespace spilo;
using namespace spilo::test;
using namespace std::chrono_literals;

namespace {
const auto no_zookeeper = doctest::skip(!have_zookeeper());

bool mentions(const Error& error, std::string_view text) {
  return error.detail().find(text) != std::string::npos;
}

// Lets the store work until its session is lost, which a renewal tells.
Error wait_for_loss(ZookeeperWorld& w, dcs::Store& store, Duration ttl) {
  const auto limit = w.in(20s);
  for (;;) {
    const auto renewed = w.renew(store, ttl, 2s);
    if (renewed.has_error() && renewed.error().is(errc::session_lost)) return renewed.error();
    if (w.clock.now() > limit) return Error(errc::timed_out, "the session lives on");
  }
}
}  // namespace

TEST_CASE("a session that the server ended: told once, its keys are gone, a new one is opened" *
          no_zookeeper) {
  ZookeeperEnsemble ensemble;
  ZookeeperWorld w;
  FlakyProxy proxy(w.io, ensemble[0].port());
  auto& store = w.store({ZookeeperWorld::at(proxy.port())});
  auto& other = w.store(ZookeeperWorld::servers(ensemble));
  const auto lease = w.renew(store, 1s);
  REQUIRE_MESSAGE(lease.has_value(), lease.error().text());
  REQUIRE(w.put(store, "leader", "n1", 5s, dcs::Binding::session).has_value());
  const auto seen = w.read(other);
  REQUIRE(seen->find("leader")->owner == lease->session);
  // A partition: the server hears nothing for longer than the timeout.
  proxy.refuse();
  const auto changed = w.changed(other, seen->index(), 10s);
  REQUIRE_MESSAGE(changed.has_value(), changed.error().text());
  CHECK(w.clock.now() >= lease->valid_until);
  CHECK(w.read(other)->find("leader") == nullptr);
  proxy.pass();
  const auto lost = wait_for_loss(w, store, 1s);
  CHECK_MESSAGE(lost.is(errc::session_lost), lost.text());
  CHECK(mentions(lost, lease->session.str()));
  CHECK(w.put(store, "leader", "n1", 5s, dcs::Binding::session).error().is(errc::session_lost));
  const auto again = w.renew(store, 1s);
  REQUIRE_MESSAGE(again.has_value(), again.error().text());
  CHECK(again->session != lease->session);
  CHECK(w.put(store, "leader", "n1", 5s, dcs::Binding::session).has_value());
  CHECK(w.read(other)->find("leader")->owner == again->session);
}

// A server that lost its data counts its changes from zero, and refuses whoever has seen more.
TEST_CASE("a server that began anew, empty: the session is lost, and another one is opened" *
          no_zookeeper) {
  ZookeeperEnsemble ensemble;
  ZookeeperWorld w;
  auto& store = w.store(ZookeeperWorld::servers(ensemble));
  auto& guest = w.store(ZookeeperWorld::servers(ensemble));  // has no session to lose
  const auto lease = w.renew(store, 1s);
  REQUIRE_MESSAGE(lease.has_value(), lease.error().text());
  for (int i = 0; i < 30; ++i)
    REQUIRE(w.put(store, "leader", "n1", 5s, dcs::Binding::session).has_value());
  REQUIRE(w.read(guest)->find("leader") != nullptr);
  ensemble[0].restart_empty();
  const auto lost = wait_for_loss(w, store, 1s);
  CHECK_MESSAGE(lost.is(errc::session_lost), lost.text());
  CHECK(w.clock.now() >= lease->valid_until);
  const auto empty = w.read(guest, 15s);
  REQUIRE_MESSAGE(empty.has_value(), empty.error().text());
  CHECK(empty->find("leader") == nullptr);
  const auto again = w.renew(store, 1s);
  REQUIRE_MESSAGE(again.has_value(), again.error().text());
  CHECK(again->session != lease->session);
  const auto put = w.put(store, "leader", "n1", 5s, dcs::Binding::session);
  REQUIRE_MESSAGE(put.has_value(), put.error().text());
  CHECK(w.read(guest)->find("leader")->owner == again->session);
}

TEST_CASE("an outage shorter than the timeout costs nobody an error, and no change is missed" *
          no_zookeeper) {
  ZookeeperEnsemble ensemble;
  ZookeeperWorld w;
  FlakyProxy proxy(w.io, ensemble[0].port());
  auto& store = w.store({ZookeeperWorld::at(proxy.port())});
  auto& writer = w.store(ZookeeperWorld::servers(ensemble));
  const auto lease = w.renew(store, 8s);
  REQUIRE(lease.has_value());
  REQUIRE(w.put(store, "leader", "n1", 5s, dcs::Binding::session).has_value());
  const auto seen = w.read(store);
  const auto version = seen->find("leader")->version;
  proxy.refuse();
  REQUIRE(w.put(writer, "failover", "{}").has_value());
  proxy.pass();
  const auto renewed = w.renew(store, 8s, 4s);
  REQUIRE_MESSAGE(renewed.has_value(), renewed.error().text());
  CHECK(renewed->session == lease->session);
  const auto changed = w.changed(store, seen->index(), 4s);
  CHECK_MESSAGE(changed.has_value(), changed.error().text());
  const auto after = w.read(store);
  CHECK(after->find("failover") != nullptr);
  CHECK(after->find("leader")->version == version);
}

TEST_CASE("without a connection nothing is queued: what failed is never carried out later" *
          no_zookeeper) {
  ZookeeperEnsemble ensemble;
  ZookeeperWorld w;
  FlakyProxy proxy(w.io, ensemble[0].port());
  auto& store = w.store({ZookeeperWorld::at(proxy.port())});
  REQUIRE(w.put(store, "config", "before").has_value());
  proxy.refuse();
  const auto refused = w.put(store, "config", "queued", 400ms);
  REQUIRE(refused.has_error());
  // The broken connection may be noticed only by sending; a second attempt knows.
  const auto second = w.put(store, "config", "queued", 400ms);
  CHECK_MESSAGE(second.error().is(errc::unavailable), second.error().text());
  CHECK(mentions(second.error(), "127.0.0.1"));
  CHECK(w.read(store, 300ms).error().is(errc::unavailable));
  CHECK(w.renew(store, 2s, 300ms).error().is(errc::unavailable));
  proxy.pass();
  CHECK(w.read(store)->find("config")->value == "before");
  CHECK(w.put(store, "config", "after").has_value());
}

TEST_CASE("the lease counts from before sending, and only from what the leader must know" *
          no_zookeeper) {
  ZookeeperEnsemble ensemble;
  ZookeeperWorld w;
  FlakyProxy proxy(w.io, ensemble[0].port());
  auto& store = w.store({ZookeeperWorld::at(proxy.port())});
  const auto start = w.clock.now();
  const auto first = w.renew(store, 3s);
  REQUIRE_MESSAGE(first.has_value(), first.error().text());
  CHECK(first->valid_until >= start + 3s);
  CHECK(first->valid_until <= w.in(3s));
  // A renewal right after it proves nothing new: a follower may not have told its leader yet.
  const auto hasty = w.renew(store, 3s);
  REQUIRE(hasty.has_value());
  CHECK(hasty->valid_until == first->valid_until);
  proxy.delay_answers(400ms);
  const auto before = w.clock.now();
  while (w.clock.now() < before + 1s) REQUIRE(w.renew(store, 3s).has_value());
  const auto last_sent = w.clock.now();
  const auto late = w.renew(store, 3s);
  REQUIRE(late.has_value());
  CHECK(late->valid_until > first->valid_until);
  CHECK(late->valid_until <= last_sent - 900ms + 3s + 50ms);
}

TEST_CASE("what the server grants is what counts" * no_zookeeper) {
  ZookeeperEnsemble ensemble(1, "minSessionTimeout=3000\nmaxSessionTimeout=4000\n");
  ZookeeperWorld w;
  for (const auto& [asked, granted] : {std::pair{1s, 3s}, std::pair{60s, 4s}}) {
    auto& store = w.store(ZookeeperWorld::servers(ensemble));
    const auto start = w.clock.now();
    const auto lease = w.renew(store, asked);
    REQUIRE_MESSAGE(lease.has_value(), lease.error().text());
    CHECK(lease->valid_until >= start + granted);
    CHECK(lease->valid_until <= w.in(granted));
  }
  CHECK(w.log.find("asked for a session of 60000 ms and got one of 4000 ms") != std::string::npos);
  auto& store = w.store(ZookeeperWorld::servers(ensemble));
  CHECK(w.renew(store, 999ms).error().is(errc::invalid_argument));
}

TEST_CASE("a session that nobody renews is ended by its store, whatever the library pings" *
          no_zookeeper) {
  ZookeeperEnsemble ensemble;
  ZookeeperWorld w;
  auto& holder = w.store(ZookeeperWorld::servers(ensemble));
  auto& other = w.store(ZookeeperWorld::servers(ensemble));
  const auto lease = w.renew(holder, 1500ms);
  REQUIRE(lease.has_value());
  REQUIRE(w.put(holder, "leader", "n1", 5s, dcs::Binding::session).has_value());
  auto seen = w.read(other);
  while (seen->find("leader") != nullptr) {
    REQUIRE(w.clock.now() < lease->valid_until + 3s);
    // Its own reads don't keep it either.
    REQUIRE(w.read(holder).has_value());
    const auto changed = w.changed(other, seen->index(), 100ms);
    REQUIRE((changed.has_value() || changed.error().is(errc::timed_out)));
    seen = w.read(other);
    REQUIRE(seen.has_value());
  }
  CHECK(w.clock.now() >= lease->valid_until);
  CHECK(w.log.find("nobody renews session " + lease->session.str()) != std::string::npos);
  CHECK(w.renew(holder, 1500ms).error().is(errc::session_lost));
  CHECK(w.renew(holder, 1500ms).has_value());
}

TEST_CASE("ACLs: our credentials may, others may not, and are told which znode" * no_zookeeper) {
  ZookeeperEnsemble ensemble;
  ZookeeperWorld w;
  zookeeper::Options ours;
  ours.auths.push_back(zookeeper::Auth{"digest", "spilo:secret"});
  // base64(sha1("spilo:secret"))
  ours.acls.push_back(zookeeper::Acl{"digest", "spilo:b6KtlF4rUCQtLcz/MW3qoXWWip4="});
  auto& store = w.store(ZookeeperWorld::servers(ensemble), ours);
  REQUIRE(w.renew(store, 4s).has_value());
  const auto written = w.put(store, "config", "{}");
  REQUIRE_MESSAGE(written.has_value(), written.error().text());
  REQUIRE(w.put(store, "leader", "n1", 5s, dcs::Binding::session).has_value());
  REQUIRE(w.put(store, "config", "{\"ttl\":20}").has_value());
  CHECK(w.read(store)->find("config")->value == "{\"ttl\":20}");

  zookeeper::Options wrong;
  wrong.auths.push_back(zookeeper::Auth{"digest", "spilo:guess"});
  for (const auto& options : {zookeeper::Options{}, wrong}) {
    auto& intruder = w.store(ZookeeperWorld::servers(ensemble), options);
    const auto read = w.read(intruder);
    CHECK_MESSAGE(read.error().is(errc::denied), read.error().text());
    CHECK(mentions(read.error(), "/service/batman"));
    CHECK(mentions(read.error(), "auth_data"));
    CHECK(w.put(intruder, "config", "mine").error().is(errc::denied));
    CHECK(w.put(intruder, "new", "mine").error().is(errc::denied));
    dcs::Transaction steal;
    steal.erase("leader");
    CHECK(run(w.io, intruder.commit(std::move(steal), w.in(5s))).error().is(errc::denied));
    CHECK(w.changed(intruder, dcs::Index{1'000'000}, 200ms).has_error());
  }
  CHECK(w.read(store)->find("config")->value == "{\"ttl\":20}");
  CHECK(w.log.find("secret") == std::string::npos);
  CHECK(w.log.find("guess") == std::string::npos);
}

TEST_CASE("credentials of a scheme that the server does not know are denied" * no_zookeeper) {
  ZookeeperEnsemble ensemble;
  ZookeeperWorld w;
  zookeeper::Options options;
  options.auths.push_back(zookeeper::Auth{"no-such-scheme", "x"});
  auto& store = w.store(ZookeeperWorld::servers(ensemble), options);
  for (int i = 0; i < 2; ++i) {
    const auto read = w.read(store, 3s);
    REQUIRE(read.has_error());
    CHECK_MESSAGE(read.error().is(errc::denied), read.error().text());
  }
}

TEST_CASE("everything below a path of its own, which is made on demand" * no_zookeeper) {
  ZookeeperEnsemble ensemble;
  ZookeeperWorld w;
  auto& below = w.store(ZookeeperWorld::servers(ensemble), {}, "/apps/pg/");
  auto& root = w.store(ZookeeperWorld::servers(ensemble));
  const auto nothing = w.read(below);
  REQUIRE_MESSAGE(nothing.has_value(), nothing.error().text());
  CHECK(nothing->all().empty());
  // The first key of a scope that does not exist yet wakes a waiter.
  auto& writer = w.store(ZookeeperWorld::servers(ensemble), {}, "apps/pg");
  REQUIRE(w.put(writer, "members/n1", "{}").has_value());
  CHECK(w.changed(below, nothing->index(), 5s).has_value());
  const auto seen = w.read(below);
  REQUIRE(seen->all().size() == 1);
  CHECK(seen->find("members/n1") != nullptr);
  CHECK(w.read(root)->all().empty());
  CHECK(zookeeper::base_path("/apps/pg/", "service", Scope("batman")) == "/apps/pg/service/batman");
  CHECK(zookeeper::base_path("", "", Scope("batman")) == "/batman");
}

TEST_CASE("requests that no server would take are refused before they are sent" * no_zookeeper) {
  ZookeeperEnsemble ensemble;
  ZookeeperWorld w;
  auto& store = w.store(ZookeeperWorld::servers(ensemble));
  const std::string half(600'000, 'v');
  dcs::Transaction large;
  large.put("a", half).put("b", half);
  const auto refused = run(w.io, store.commit(std::move(large), w.in(5s)));
  CHECK_MESSAGE(refused.error().is(errc::invalid_argument), refused.error().text());
  CHECK(mentions(refused.error(), "1040000"));
  for (const char* key : {"", "/a", "a/", "a//b", "a/../b", ".", "a\nb"}) {
    const auto bad = w.put(store, key, "x");
    REQUIRE(bad.has_error());
    CHECK_MESSAGE(bad.error().is(errc::invalid_argument), (key + bad.error().text()));
  }
  REQUIRE(w.put(store, "history", std::string(1'000'000, 'v')).has_value());
  CHECK(w.read(store)->find("history")->value.size() == 1'000'000);
  REQUIRE(w.put(store, "members/n1", "x").has_value());
  CHECK(w.put(store, "members/n1/under", "x").has_value());
}

TEST_CASE("names: looked up without blocking; one that has no address says so" * no_zookeeper) {
  ZookeeperEnsemble ensemble;
  ZookeeperWorld w;
  const auto port = ensemble[0].port();
  LoopWatch watch(w.io);
  auto& nowhere = w.store({zookeeper::Server{"no-such-host.invalid", port}});
  const auto began = w.clock.now();
  const auto read = w.read(nowhere, 700ms);
  CHECK_MESSAGE(read.error().is(errc::unavailable), read.error().text());
  CHECK(mentions(read.error(), "no-such-host.invalid"));
  CHECK(w.clock.now() - began < 1500ms);
  // One bad name does not spoil the others.
  auto& store = w.store(
      {zookeeper::Server{"no-such-host.invalid", port}, zookeeper::Server{"localhost", port}});
  const auto found = w.read(store, 10s);
  REQUIRE_MESSAGE(found.has_value(), found.error().text());
  CHECK(watch.longest() < 300ms);
}

TEST_CASE("the loop runs on: frozen server, ended sessions, destroyed stores" * no_zookeeper) {
  ZookeeperEnsemble ensemble;
  ZookeeperWorld w;
  auto& store = w.store(ZookeeperWorld::servers(ensemble));
  auto& ending = w.store(ZookeeperWorld::servers(ensemble));
  REQUIRE(w.renew(store, 3s).has_value());
  REQUIRE(w.renew(ending, 3s).has_value());
  REQUIRE(w.put(ending, "leader", "n1", 5s, dcs::Binding::session).has_value());
  auto watch = std::make_unique<LoopWatch>(w.io);
  const auto fast = w.end_session(ending);
  REQUIRE_MESSAGE(fast.has_value(), fast.error().text());
  REQUIRE(w.renew(ending, 3s).has_value());
  ensemble[0].process().freeze();
  const auto ended = w.end_session(ending, 500ms);
  REQUIRE(ended.has_error());
  CHECK(is_certain(ended.error()));
  CHECK(w.renew(store, 3s, 500ms).error().is(errc::ambiguous));
  CHECK(w.put(store, "config", "x", 500ms).has_error());
  // Destroyed while connected, connecting, and in the middle of an operation.
  auto& doomed = w.store(ZookeeperWorld::servers(ensemble));
  CHECK(w.read(doomed, 300ms).has_error());
  w.forget_last();
  const auto longest = watch->longest();
  watch.reset();
  ensemble[0].process().signal(SIGCONT);
  // zookeeper_close() alone would have taken 1.5 s.
  CHECK_MESSAGE(longest < 300ms, longest.count());
  CHECK(w.renew(store, 3s, 8s).has_value());
}

TEST_CASE("destroyed while operations are on their way: they end, nothing is touched afterwards" *
          no_zookeeper) {
  ZookeeperEnsemble ensemble;
  ZookeeperWorld w;
  for (int round = 0; round < 20; ++round) {
    auto& store = w.store(ZookeeperWorld::servers(ensemble));
    if (round % 2 == 0) REQUIRE(w.renew(store, 2s).has_value());
    int ended = 0;
    const auto count = [&](std::exception_ptr failure, const auto&) {
      if (failure) std::rethrow_exception(failure);
      ++ended;
    };
    dcs::Transaction change;
    change.put("config", "x");
    boost::asio::co_spawn(w.io, store.read(dcs::Freshness::linearizable, w.in(5s)), count);
    boost::asio::co_spawn(w.io, store.commit(std::move(change), w.in(5s)), count);
    boost::asio::co_spawn(w.io, store.renew(2s, w.in(5s)), count);
    boost::asio::co_spawn(w.io, store.changed_since(dcs::Index{1000}, w.in(5s)), count);
    boost::asio::co_spawn(w.io, store.end_session(w.in(5s)), count);
    w.io.restart();
    for (int i = 0; i < round * 3; ++i) w.io.poll_one();
    w.forget_last();
    CHECK_MESSAGE(run_until(
                      w.io, [&] { return ended == 5; }, 6s),
                  round << ": " << ended);
  }
}

TEST_CASE("Patroni's znodes are read, its empty folders are no keys, and it reads ours" *
          no_zookeeper) {
  ZookeeperEnsemble ensemble;
  ZookeeperWorld w;
  auto& store = w.store(ZookeeperWorld::servers(ensemble));
  // What Patroni's client makes: folders with empty data, `initialize` with empty data too.
  auto& maker = w.store(ZookeeperWorld::servers(ensemble), {}, "");
  REQUIRE(w.put(maker, "initialize", "").has_value());
  REQUIRE(w.put(maker, "members", "").has_value());
  auto seen = w.read(store);
  REQUIRE(seen.has_value());
  CHECK(seen->find("initialize") != nullptr);
  CHECK(seen->find("members") == nullptr);
  // A member that comes into the empty folder wakes.
  REQUIRE(w.put(maker, "members/n1", "{}").has_value());
  CHECK(w.changed(store, seen->index(), 5s).has_value());
  seen = w.read(store);
  CHECK(seen->all().size() == 2);
  CHECK(seen->find("members/n1") != nullptr);
}
