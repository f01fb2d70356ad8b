// Several servers: the first of them dead, one that falls silent, a leader that dies or comes back
// from a pause.
#include <doctest/doctest.h>

#include "consul/consul_world.hpp"
#include "spilo/net/failover.hpp"

using namespace spilo;
using namespace spilo::test;
using namespace std::chrono_literals;

namespace {
const auto no_consul = doctest::skip(!have_consul());
}

TEST_CASE("several addresses, some of them dead: whoever answers is asked" * no_consul) {
  ConsulCluster consul;
  ConsulWorld w;
  std::vector<net::Url> urls;
  urls.emplace_back("127.0.0.1", free_port());
  urls.push_back(consul[0].url());
  urls.emplace_back("127.0.0.1", free_port());
  for (std::uint64_t seed = 0; seed < 6; ++seed) {
    consul::Options options;
    options.seed = seed;
    auto& store = w.store(urls, options);
    const auto lease = w.renew(store, 5s, 2s);
    REQUIRE_MESSAGE(lease.has_value(), lease.error().text());
    const auto key = "members/n" + std::to_string(seed);
    REQUIRE(w.put(store, key, "m", 2s, dcs::Binding::session).has_value());
    const auto seen = w.read(store, 2s);
    REQUIRE(seen.has_value());
    CHECK(w.changed(store, seen->index(), 30ms).error().is(errc::timed_out));
    CHECK(w.changed(store, dcs::Index{}, 2s).has_value());
  }
  CHECK(w.log.find("going on with " + consul[0].url().origin()) != std::string::npos);
}

TEST_CASE("a server that falls silent: a read goes elsewhere and takes the waiter along" *
          no_consul) {
  ConsulCluster consul;
  ConsulWorld w;
  FlakyProxy silent(w.io, consul[0].port());
  FlakyProxy other(w.io, consul[0].port());
  std::vector<net::Url> urls;
  urls.emplace_back("127.0.0.1", silent.port());
  urls.emplace_back("127.0.0.1", other.port());
  // A seed that begins at the first.
  consul::Options options;
  for (; net::Failover("", urls, options.seed, {}).current() != 0;) ++options.seed;
  auto& store = w.store(urls, options);
  auto& writer = w.store(consul.urls());
  REQUIRE(w.put(store, "config", "1").has_value());
  const auto seen = w.read(store);
  REQUIRE(seen.has_value());
  CHECK(other.connections() == 0);
  const auto waiter = w.wait(store, seen->index(), 30s);
  CHECK_FALSE(w.ends(waiter, 50ms));
  silent.freeze();
  const auto read = w.read(store, 2s);
  REQUIRE_MESSAGE(read.has_value(), read.error().text());
  REQUIRE(w.put(writer, "config", "2").has_value());
  REQUIRE(w.ends(waiter, 3s));
  CHECK_MESSAGE(waiter->result.has_value(), waiter->result.error().text());
}

TEST_CASE(
    "the leader dies: nobody's session ends early, and a silent one's does not last for ever" *
    no_consul) {
  ConsulCluster consul(3);
  ConsulWorld w;
  auto& store = w.store(consul.urls());
  auto& silent = w.store(consul.urls());
  auto& rival = w.store(consul.urls());
  constexpr Duration ttl = 3s;
  const auto held = w.renew(store, ttl);
  REQUIRE(held.has_value());
  REQUIRE(w.take(store, "n1").has_value());
  REQUIRE(w.renew(rival, 30s).has_value());
  const auto gone = w.renew(silent, ttl);
  REQUIRE(gone.has_value());
  REQUIRE(w.put(silent, "members/n3", "m", 5s, dcs::Binding::session).has_value());

  consul[consul.leader()].process().end(SIGKILL);
  const auto renewed = w.renew(store, ttl, 10s);
  REQUIRE_MESSAGE(renewed.has_value(), renewed.error().text());
  CHECK(renewed->session == held->session);
  CHECK(w.take(rival, "n2", 5s).error().is(errc::conflict));
  auto last = *renewed;
  TimePoint freed{};
  while (freed == TimePoint{} && w.clock.now() < gone->valid_until + 4 * ttl) {
    if (w.clock.now() > last.valid_until - ttl * 2 / 3) last = *w.renew(store, ttl);
    const auto snapshot = w.read(rival);
    REQUIRE(snapshot.has_value());
    CHECK(snapshot->find("leader") != nullptr);
    if (snapshot->find("members/n3") == nullptr) freed = w.clock.now();
    run_until(
        w.io, [] { return false; }, 20ms);
  }
  REQUIRE(freed != TimePoint{});
  CHECK(freed >= gone->valid_until);
  // Two ttls from the election of the new leader, which came within some seconds.
  CHECK(freed <= gone->valid_until - ttl + 2 * ttl + 6s);
  MESSAGE("freed ",
          std::chrono::duration<double>(freed - (gone->valid_until - ttl)).count(),
          " s after the renewal, ttl 3 s");
}

TEST_CASE("a leader that was frozen and replaced renews from its memory: it is not believed" *
          no_consul) {
  ConsulCluster consul(3);
  ConsulWorld w;
  for (int round = 0; round < 2; ++round) {
    const auto old = consul.leader();
    // This client knows nobody but the server that will be frozen.
    auto& store = w.store(std::vector<net::Url>(1, consul[old].url()));
    std::vector<net::Url> others;
    for (std::size_t i = 0; i < consul.size(); ++i)
      if (i != old) others.push_back(consul[i].url());
    auto& rival = w.store(others);
    const auto lease = w.renew(store, 1s);
    REQUIRE(lease.has_value());
    REQUIRE(w.take(store, "n1").has_value());
    consul[old].process().freeze();
    REQUIRE_MESSAGE(w.renew(rival, 30s, 10s).has_value(), "no new leader");
    // The session runs out at the new leader, and the rival takes the key.
    REQUIRE(run_until(
        w.io, [&] { return w.take(rival, "n2", 2s).has_value(); }, 15s));
    CHECK(w.clock.now() > lease->valid_until);
    std::optional<Result<dcs::Lease>> answer;
    boost::asio::co_spawn(w.io,
                          store.renew(1s, w.in(5s)),
                          [&](std::exception_ptr failure, Result<dcs::Lease> result) {
                            if (failure) std::rethrow_exception(failure);
                            answer = std::move(result);
                          });
    run_until(
        w.io, [] { return false; }, 50ms);  // it is on its way when the server wakes
    consul[old].process().signal(SIGCONT);
    REQUIRE(run_until(
        w.io, [&] { return answer.has_value(); }, 10s));
    REQUIRE_MESSAGE(answer->has_error(), "a renewal counted although the session had ended");
    CHECK_MESSAGE((answer->error().is(errc::session_lost) || !is_certain(answer->error()) ||
                   answer->error().is(errc::unavailable)),
                  answer->error().text());
    CHECK(w.read(rival)->find("leader")->value == "n2");
    REQUIRE(run(w.io, rival.end_session(w.in(5s))).has_value());
    REQUIRE(consul[old].wait_ready());
  }
}
