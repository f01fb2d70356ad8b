// One real etcd server: compaction, lost answers, limits, a store that was wiped.
#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>

#include "etcd/etcd_world.hpp"

using namespace spilo;
using namespace spilo::test;
using namespace std::chrono_literals;

namespace {
const auto no_etcd = doctest::skip(!have_etcd());

std::uint64_t index_of(const Result<dcs::Snapshot>& snapshot) {
  REQUIRE_MESSAGE(snapshot.has_value(), snapshot.error().text());
  return snapshot->index().value;
}
}  // namespace

TEST_CASE("compaction under a waiter: it returns, and the next wait works" * no_etcd) {
  EtcdCluster etcd;
  EtcdWorld w;
  auto& store = w.store(etcd.urls());
  REQUIRE(w.put(store, "config", "1").has_value());
  const auto seen = index_of(w.read(store));
  for (int i = 0; i < 5; ++i) REQUIRE(w.put(store, "config", "again").has_value());
  const auto now = index_of(w.read(store));
  w.call(etcd[0].url(), "/v3/kv/compaction", R"({"revision":")" + std::to_string(now) + R"("})");
  const auto changed = w.changed(store, dcs::Index{seen}, 5s);
  REQUIRE_MESSAGE(changed.has_value(), changed.error().text());
  CHECK(changed->value > seen);
  CHECK(w.changed(store, dcs::Index{now}, 100ms).error().is(errc::timed_out));
  REQUIRE(w.put(store, "config", "2").has_value());
  CHECK(w.changed(store, dcs::Index{now}, 5s).has_value());
}

TEST_CASE("an idle client costs one watch, and a renewal one call" * no_etcd) {
  EtcdCluster etcd;
  EtcdWorld w;
  auto& store = w.store(etcd.urls());
  REQUIRE(w.renew(store, 5s).has_value());
  REQUIRE(w.put(store, "config", "1").has_value());
  const dcs::Index seen{index_of(w.read(store))};
  CHECK(w.changed(store, seen, 50ms).error().is(errc::timed_out));
  const int before = w.calls(etcd[0].url());
  for (int i = 0; i < 20; ++i) CHECK(w.changed(store, seen, 50ms).error().is(errc::timed_out));
  CHECK(w.calls(etcd[0].url()) == before);
  for (int i = 0; i < 3; ++i) REQUIRE(w.renew(store, 5s).has_value());
  CHECK(w.calls(etcd[0].url()) == before + 3);
  // A renewal is no write: the revision has not moved.
  CHECK(w.read(store)->index() == seen);
}

TEST_CASE(
    "an answer that never comes: reads time out, writes are ambiguous, the lease counts from "
    "before sending" *
    no_etcd) {
  EtcdCluster etcd;
  EtcdWorld w;
  FlakyProxy proxy(w.io, etcd[0].port());
  std::vector<net::Url> urls(1, net::Url("127.0.0.1", proxy.port()));
  etcd::Options options;
  options.use_proxies = true;
  auto& store = w.store(urls, options);
  REQUIRE(w.renew(store, 5s).has_value());
  proxy.freeze_answers();
  CHECK(w.read(store, 100ms).error().is(errc::timed_out));
  const auto lost = w.put(store, "config", "1", 100ms);
  CHECK(lost.error().is(errc::ambiguous));
  CHECK(lost.error().detail().find("kv/txn") != std::string::npos);
  const auto unrenewed = w.renew(store, 5s, 100ms);
  REQUIRE(unrenewed.has_error());
  CHECK_FALSE(is_certain(unrenewed.error()));
  proxy.thaw_answers();
  proxy.pass();
  CHECK(w.read(store)->find("config")->value == "1");  // it was done

  proxy.delay_answers(700ms);
  const auto before = w.clock.now();
  const auto lease = w.renew(store, 5s);
  REQUIRE_MESSAGE(lease.has_value(), lease.error().text());
  CHECK(w.clock.now() - before >= 700ms);
  CHECK(lease->valid_until <= before + 5s + 100ms);
}

TEST_CASE("no server: unavailable at the deadline, and no storm of attempts" * no_etcd) {
  EtcdWorld w;
  FlakyProxy proxy(w.io, free_port());  // accepts, and closes because nobody is behind it
  auto& store = w.store(std::vector<net::Url>(1, net::Url("127.0.0.1", proxy.port())));
  const auto began = w.clock.now();
  const auto waited = w.changed(store, dcs::Index{5}, 2s);
  CHECK(waited.error().is(errc::timed_out));
  CHECK(w.clock.now() - began >= 2s);
  CHECK(w.put(store, "config", "1", 1s).error().is(errc::unavailable));  // never sent
  CHECK(w.read(store, 1s).error().is(errc::unavailable));
  CHECK(w.renew(store, 5s, 1s).error().is(errc::unavailable));
  CHECK(proxy.connections() <= 50);
}

TEST_CASE("a restart shorter than the deadline costs nobody an error, and no change is missed" *
          no_etcd) {
  EtcdCluster etcd;
  EtcdWorld w;
  auto& store = w.store(etcd.urls());
  auto& writer = w.store(etcd.urls());
  const auto first = w.renew(store, 10s);
  REQUIRE(first.has_value());
  REQUIRE(w.put(store, "leader", "n1", 5s, dcs::Binding::session).has_value());
  const dcs::Index seen{index_of(w.read(store))};
  CHECK(w.changed(store, seen, 20ms).error().is(errc::timed_out));
  etcd[0].process().end(SIGKILL);
  etcd[0].process().start();
  const auto renewed = w.renew(store, 10s, 8s);
  REQUIRE_MESSAGE(renewed.has_value(), renewed.error().text());
  CHECK(renewed->session == first->session);
  REQUIRE(w.put(writer, "failover", "{}").has_value());
  const auto changed = w.changed(store, seen, 8s);
  REQUIRE_MESSAGE(changed.has_value(), changed.error().text());
  CHECK(w.read(store)->find("leader")->owner == first->session);
}

TEST_CASE(
    "a store that was wiped: not believed while our lease lives, then accepted with a warning" *
    no_etcd) {
  EtcdCluster etcd;
  EtcdWorld w;
  auto& store = w.store(etcd.urls());
  const auto lease = w.renew(store, 3s);
  REQUIRE(lease.has_value());
  for (int i = 0; i < 5; ++i) REQUIRE(w.put(store, "config", "1").has_value());
  etcd[0].process().end(SIGKILL);
  std::filesystem::remove_all(etcd.dir() / "m0.etcd");
  etcd[0].process().start();
  REQUIRE(etcd[0].wait_ready());
  auto result = w.read(store, lease->valid_until - w.clock.now() - 300ms);
  CHECK(result.error().is(errc::unavailable));
  result = w.read(store, 10s);
  REQUIRE_MESSAGE(result.has_value(), result.error().text());
  CHECK(result->all().empty());
  CHECK(w.log.find("replaced or restored") != std::string::npos);
  CHECK(w.renew(store, 3s).error().is(errc::session_lost));
  CHECK(w.renew(store, 3s).has_value());
  CHECK(w.put(store, "leader", "n1", 5s, dcs::Binding::session).has_value());
}

TEST_CASE("auto-compaction while somebody waits and while nobody reads the watch" * no_etcd) {
  EtcdCluster etcd(1, {"--auto-compaction-mode", "periodic", "--auto-compaction-retention", "1s"});
  EtcdWorld w;
  auto& reader = w.store(etcd.urls());
  auto& writer = w.store(etcd.urls());
  const std::string large(50'000, 'v');
  const auto compacted = [&] {
    const auto log = etcd[0].process().log();
    std::size_t times = 0;
    for (auto at = log.find("finished scheduled compaction"); at != std::string::npos;
         at = log.find("finished scheduled compaction", at + 1))
      ++times;
    return times;
  };
  REQUIRE(w.put(writer, "config", large).has_value());
  const dcs::Index old{index_of(w.read(reader))};
  dcs::Index seen = old;
  CHECK(w.changed(reader, seen, 50ms).error().is(errc::timed_out));
  // Some megabytes lie in the watch before anybody fetches them, over several compactions.
  const auto limit = w.clock.now() + 60s;
  int writes = 0;
  while (compacted() < 3 || writes < 200) {
    REQUIRE(w.clock.now() < limit);
    REQUIRE(w.put(writer, "config", large + std::to_string(++writes)).has_value());
  }
  // Each wait is for a change that has happened already.
  const auto last = std::to_string(writes);
  for (int rounds = 0;; ++rounds) {
    REQUIRE(rounds < 300);
    const auto changed = w.changed(reader, seen, 2s);
    REQUIRE_MESSAGE(changed.has_value(), changed.error().text());
    const auto now = w.read(reader);
    REQUIRE(now.has_value());
    seen = now->index();
    if (now->find("config")->value.ends_with("v" + last)) break;
  }
  // What still lies in the watch may wake it some more times; then it is quiet.
  bool quiet = false;
  for (int rounds = 0; rounds < 300 && !quiet; ++rounds)
    quiet = w.changed(reader, seen, 100ms).error().is(errc::timed_out);
  CHECK(quiet);
  // A client that comes late asks for what was compacted long ago.
  auto& late = w.store(etcd.urls());
  const auto changed = w.changed(late, old, 2s);
  REQUIRE_MESSAGE(changed.has_value(), changed.error().text());
  CHECK(changed->value > old.value);
}

TEST_CASE("more has happened than fits into a line: a late waiter is woken all the same" *
          no_etcd) {
  EtcdCluster etcd;
  EtcdWorld w;
  auto& writer = w.store(etcd.urls());
  REQUIRE(w.put(writer, "config", "first").has_value());
  const dcs::Index old{index_of(w.read(writer))};
  const std::string large(1'300'000, 'v');
  for (int i = 0; i < 12; ++i)
    REQUIRE(w.put(writer, "config", large + std::to_string(i)).has_value());
  auto& late = w.store(etcd.urls());
  const auto changed = w.changed(late, old, 5s);
  REQUIRE_MESSAGE(changed.has_value(), changed.error().text());
  const dcs::Index now{index_of(w.read(late))};
  CHECK(w.changed(late, now, 200ms).error().is(errc::timed_out));
  REQUIRE(w.put(writer, "config", "last").has_value());
  CHECK(w.changed(late, now, 5s).has_value());
}

TEST_CASE("too large, and no space left: one clear error each, and the lease lives on" * no_etcd) {
  EtcdCluster etcd(1, {"--quota-backend-bytes", "20000000"});
  EtcdWorld w;
  auto& store = w.store(etcd.urls());
  const auto lease = w.renew(store, 10s);
  REQUIRE(lease.has_value());
  const auto limits = store.limits();
  const std::string largest(limits.value_bytes_max, 'x');
  const auto fits = w.put(store, "config", largest);
  REQUIRE_MESSAGE(fits.has_value(), fits.error().text());
  CHECK(w.read(store)->find("config")->value == largest);
  const auto above = w.put(store, "config", largest + "x");
  REQUIRE(above.has_error());
  CHECK(above.error().is(errc::invalid_argument));
  CHECK_MESSAGE(above.error().detail().find("1400001 bytes") != std::string::npos,
                above.error().text());
  // Two values that only together are too much; the server itself would not answer in a way that
  // tells why.
  dcs::Transaction two;
  two.put("config", largest).put("history", largest);
  const auto together = run(w.io, store.commit(std::move(two), w.in(5s)));
  REQUIRE(together.has_error());
  CHECK_MESSAGE(together.error().is(errc::invalid_argument), together.error().text());
  CHECK_MESSAGE(together.error().detail().find("2800000 bytes") != std::string::npos,
                together.error().text());

  Result<dcs::Committed> put = w.put(store, "status", "0");
  for (int i = 0; i < 100 && put.has_value(); ++i) put = w.put(store, "config", largest, 5s);
  REQUIRE(put.has_error());
  CHECK_MESSAGE(put.error().is(errc::unavailable), put.error().text());
  CHECK_MESSAGE(put.error().detail().find("database space exceeded") != std::string::npos,
                put.error().text());
  const auto renewed = w.renew(store, 10s);
  REQUIRE_MESSAGE(renewed.has_value(), renewed.error().text());
  CHECK(renewed->session == lease->session);
  CHECK(w.read(store).has_value());
}

TEST_CASE("a hundred agents in one process on one member: what they cost when idle" * no_etcd) {
  EtcdCluster etcd;
  EtcdWorld w;
  constexpr std::size_t agents = 100;
  std::vector<dcs::Store*> stores;
  std::vector<dcs::Index> seen;
  std::size_t waiting = 0;
  for (std::size_t i = 0; i < agents; ++i) {
    etcd::Options options;
    options.seed = i;
    stores.push_back(&w.store(etcd.urls(), options));
    const auto lease = w.renew(*stores.back(), 30s);
    REQUIRE_MESSAGE(lease.has_value(), lease.error().text());
    seen.push_back(dcs::Index{index_of(w.read(*stores.back()))});
  }
  const auto wait_for = [&](std::size_t i, Duration time) {
    ++waiting;
    boost::asio::co_spawn(w.io,
                          stores[i]->changed_since(seen[i], w.in(time)),
                          [&](std::exception_ptr failure, Result<dcs::Index> changed) {
                            if (failure) std::rethrow_exception(failure);
                            CHECK(changed.error().is(errc::timed_out));
                            --waiting;
                          });
  };
  // Once for the watches to be opened and the members to be listed, then what is measured.
  for (std::size_t i = 0; i < agents; ++i) wait_for(i, 3s);
  REQUIRE(run_until(
      w.io, [&] { return waiting == 0; }, 10s));
  const int calls = w.calls(etcd[0].url());
  const auto cpu = [] {
    timespec time{};
    ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) * 1e3 + static_cast<double>(time.tv_nsec) / 1e6;
  };
  const double cpu_before = cpu();
  constexpr auto span = 3s;
  for (std::size_t i = 0; i < agents; ++i) wait_for(i, span);
  REQUIRE(run_until(
      w.io, [&] { return waiting == 0; }, 10s));
  const double cpu_used = cpu() - cpu_before;
  // run_until() itself wakes a hundred times a second for all of them together.
  std::printf("100 idle agents: %.2f ms CPU an agent and minute, %d calls in %d s\n",
              cpu_used / agents * 60 / 3,
              w.calls(etcd[0].url()) - calls,
              3);
  CHECK(w.calls(etcd[0].url()) == calls);
  CHECK(cpu_used / agents * 60 / 3 < 10);
  // Everybody sees a change, and everybody renews.
  std::size_t woken = 0;
  for (std::size_t i = 0; i < agents; ++i)
    boost::asio::co_spawn(w.io,
                          stores[i]->changed_since(seen[i], w.in(10s)),
                          [&](std::exception_ptr failure, Result<dcs::Index> changed) {
                            if (failure) std::rethrow_exception(failure);
                            woken += changed.has_value() ? 1 : 0;
                          });
  REQUIRE(w.put(*stores[0], "config", "1").has_value());
  CHECK(run_until(
      w.io, [&] { return woken == agents; }, 10s));
  std::size_t renewed = 0;
  for (auto* store : stores)
    boost::asio::co_spawn(w.io,
                          store->renew(30s, w.in(5s)),
                          [&](std::exception_ptr failure, Result<dcs::Lease> lease) {
                            if (failure) std::rethrow_exception(failure);
                            CHECK_MESSAGE(lease.has_value(), lease.error().text());
                            ++renewed;
                          });
  CHECK(run_until(
      w.io, [&] { return renewed == agents; }, 10s));
}

TEST_CASE("a position that this history has not reached is told, not waited for" * no_etcd) {
  // As after all members were replaced by empty ones: the next change is far from that revision.
  EtcdCluster etcd;
  EtcdWorld w;
  auto& store = w.store(etcd.urls());
  const auto now = index_of(w.read(store));
  const auto changed = w.changed(store, dcs::Index{now + 1'000'000}, 10s);
  CHECK_MESSAGE(changed.has_value(), changed.error().text());
}
