// One real Consul server: its ttl's lower bound, lock-delay, sessions ended by hand, keys of other
// sessions, lost answers, a store that was wiped.
#include <doctest/doctest.h>

#include <filesystem>

#include "consul/consul_world.hpp"

using namespace spilo;
using namespace spilo::test;
using namespace std::chrono_literals;

namespace {
const auto no_consul = doctest::skip(!have_consul());

dcs::Index index_of(const Result<dcs::Snapshot>& snapshot) {
  REQUIRE_MESSAGE(snapshot.has_value(), snapshot.error().text());
  return snapshot->index();
}
}  // namespace

TEST_CASE("a ttl below the server's minimum becomes the minimum, with one warning" * no_consul) {
  ConsulCluster consul(1, "10s");
  ConsulWorld w;
  auto& store = w.store(consul.urls());
  const auto before = w.clock.now();
  const auto lease = w.renew(store, 3s);
  REQUIRE_MESSAGE(lease.has_value(), lease.error().text());
  CHECK(lease->valid_until >= before + 10s);
  CHECK(lease->valid_until <= w.clock.now() + 10s);
  CHECK(store.limits().session_ttl_min == 10s);
  CHECK(w.log.find("the servers refuse sessions below 10s (session_ttl_min), so the ttl is that "
                   "and not 3s: the keys of a dead node are free after 10s to 20s") !=
        std::string::npos);
  // What is known is used at once by the next session.
  w.log.clear();
  REQUIRE(run(w.io, store.end_session(w.in(5s))).has_value());
  REQUIRE(w.renew(store, 3s).has_value());
  CHECK(w.log.empty());
  CHECK(w.renew(store, 25h).error().is(errc::invalid_argument));
}

TEST_CASE("a session ended by hand: the waiter wakes, renew() says so once, the next one is new" *
          no_consul) {
  ConsulCluster consul;
  ConsulWorld w;
  auto& store = w.store(consul.urls());
  const auto lease = w.renew(store, 10s);
  REQUIRE(lease.has_value());
  REQUIRE(w.take(store, "n1").has_value());
  const auto seen = index_of(w.read(store));
  const auto waiter = w.wait(store, seen, 20s);
  consul_call(consul[0], "PUT", "/v1/session/destroy/" + lease->session.str());
  REQUIRE(w.ends(waiter, 5s));
  CHECK(waiter->result.has_value());
  CHECK(w.read(store)->find("leader") == nullptr);
  CHECK(w.put(store, "leader", "n1", 5s, dcs::Binding::session).error().is(errc::session_lost));
  CHECK(w.renew(store, 10s).error().is(errc::session_lost));
  const auto next = w.renew(store, 10s);
  REQUIRE(next.has_value());
  CHECK(next->session != lease->session);
  CHECK(w.take(store, "n1").has_value());
}

TEST_CASE("a renewal that is late but not too late keeps the session; each one costs one call" *
          no_consul) {
  ConsulCluster consul;
  ConsulWorld w;
  FlakyProxy proxy(w.io, consul[0].port());
  auto& store = w.store(std::vector<net::Url>(1, net::Url("127.0.0.1", proxy.port())));
  const auto first = w.renew(store, 1s);
  REQUIRE(first.has_value());
  REQUIRE(w.take(store, "n1").has_value());
  const auto before = proxy.requests();
  REQUIRE(w.renew(store, 1s).has_value());
  CHECK(proxy.requests() == before + 1);
  // Consul waits for two ttls; ours has run out after one.
  run_until(
      w.io, [&] { return w.clock.now() > first->valid_until + 400ms; }, 5s);
  const auto late = w.renew(store, 1s);
  REQUIRE_MESSAGE(late.has_value(), late.error().text());
  CHECK(late->session == first->session);
  CHECK(late->valid_until > w.clock.now());
  CHECK(proxy.requests() == before + 5);  // who leads, renew, is it there, who leads
  CHECK(w.read(store)->find("leader")->owner == first->session);
}

TEST_CASE("a foreign lock-delay is waited for within the deadline; our own is none" * no_consul) {
  ConsulCluster consul;
  ConsulWorld w;
  auto& store = w.store(consul.urls());
  REQUIRE(w.renew(store, 10s).has_value());
  const auto foreign = foreign_session(consul[0], "2s");
  consul_call(consul[0], "PUT", "/v1/kv/service/batman/leader?acquire=" + foreign, "other");
  consul_call(consul[0], "PUT", "/v1/session/destroy/" + foreign);
  const auto began = w.clock.now();
  const auto early = w.take(store, "n1", 300ms);
  REQUIRE(early.has_error());
  CHECK(early.error().is(errc::unavailable));
  CHECK(early.error().detail().find("lock delay") != std::string::npos);
  const auto taken = w.take(store, "n1", 10s);
  REQUIRE_MESSAGE(taken.has_value(), taken.error().text());
  CHECK(w.clock.now() - began >= 1500ms);
  CHECK(w.clock.now() - began <= 5s);

  auto& rival = w.store(consul.urls());
  REQUIRE(w.renew(rival, 10s).has_value());
  CHECK(w.take(rival, "n2").error().is(errc::conflict));
  REQUIRE(run(w.io, store.end_session(w.in(5s))).has_value());
  CHECK(w.take(rival, "n2", 200ms).has_value());
}

TEST_CASE("keys that another session holds, seen and unseen, are re-bound and unbound" *
          no_consul) {
  ConsulCluster consul;
  ConsulWorld w;
  auto& store = w.store(consul.urls());
  const auto lease = w.renew(store, 10s);
  REQUIRE(lease.has_value());
  const auto foreign = foreign_session(consul[0], "0s");
  const auto hold = [&](const std::string& key) {
    consul_call(consul[0], "PUT", "/v1/kv/service/batman/" + key + "?acquire=" + foreign, "theirs");
  };
  const auto entry = [&](const std::string& key) {
    const auto snapshot = w.read(store);
    REQUIRE(snapshot.has_value());
    REQUIRE(snapshot->find(key) != nullptr);
    return *snapshot->find(key);
  };
  for (const bool seen : {true, false}) {
    CAPTURE(seen);
    for (const auto* key : {"members/n1", "status"}) {
      consul_call(consul[0], "DELETE", std::string("/v1/kv/service/batman/") + key);
      if (!seen) REQUIRE(w.read(store).has_value());  // believed absent, then taken
      hold(key);
      if (seen) CHECK(entry(key).owner == SessionId(foreign));
    }
    const auto member = w.put(store, "members/n1", "ours", 5s, dcs::Binding::session);
    REQUIRE_MESSAGE(member.has_value(), member.error().text());
    CHECK(entry("members/n1").owner == lease->session);
    CHECK(entry("members/n1").version == member->version_of("members/n1"));
    if (!seen) {
      consul_call(consul[0], "DELETE", "/v1/kv/service/batman/status");
      REQUIRE(w.put(store, "status", "free").has_value());
      hold("status");
    }
    const auto status = w.put(store, "status", "ours");
    REQUIRE_MESSAGE(status.has_value(), status.error().text());
    CHECK(entry("status").owner.empty());
    CHECK(entry("status").value == "ours");
    CHECK(entry("status").version == status->version_of("status"));
  }
  // At a version: the requirement is what counts.
  hold("sync");
  const auto at = entry("sync").version;
  dcs::Transaction wrong;
  wrong.require("sync", dcs::Condition::at(dcs::Version{at.era, at.count + 1})).put("sync", "x");
  CHECK(run(w.io, store.commit(std::move(wrong), w.in(5s))).error().is(errc::conflict));
  dcs::Transaction right;
  right.require("sync", dcs::Condition::at(at)).put("sync", "x");
  CHECK(run(w.io, store.commit(std::move(right), w.in(5s))).has_value());
  CHECK(entry("sync").owner.empty());
  consul_call(consul[0], "PUT", "/v1/session/destroy/" + foreign);
  CHECK(entry("sync").value == "x");
  CHECK(entry("members/n1").value == "ours");
}

TEST_CASE("a transaction beyond Consul's limits is refused with the numbers, and not done" *
          no_consul) {
  ConsulCluster consul;
  ConsulWorld w;
  auto& store = w.store(consul.urls());
  REQUIRE(w.put(store, "whole", std::string(store.limits().value_bytes_max, 'x')).has_value());
  dcs::Transaction two;
  two.put("a", std::string(300'000, 'x')).put("b", std::string(300'000, 'x'));
  const auto large = run(w.io, store.commit(std::move(two), w.in(5s)));
  CHECK(large.error().is(errc::invalid_argument));
  CHECK(large.error().detail().find("524288") != std::string::npos);
  dcs::Transaction many;
  for (int i = 0; i < 65; ++i) many.erase(std::to_string(i));
  const auto wide = run(w.io, store.commit(std::move(many), w.in(5s)));
  CHECK(wide.error().is(errc::invalid_argument));
  CHECK(wide.error().detail().find("64") != std::string::npos);
  CHECK(w.read(store)->all().size() == 1);
}

TEST_CASE(
    "an answer that never comes: reads time out, writes are ambiguous, the lease counts "
    "from before sending" *
    no_consul) {
  ConsulCluster consul;
  ConsulWorld w;
  FlakyProxy proxy(w.io, consul[0].port());
  auto& store = w.store(std::vector<net::Url>(1, net::Url("127.0.0.1", proxy.port())));
  REQUIRE(w.renew(store, 5s).has_value());
  REQUIRE(w.read(store).has_value());
  proxy.freeze_answers();
  CHECK(w.read(store, 100ms).error().is(errc::timed_out));
  const auto lost = w.put(store, "config", "1", 100ms);
  CHECK(lost.error().is(errc::ambiguous));
  CHECK(lost.error().detail().find("/v1/txn") != std::string::npos);
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

TEST_CASE("no server: unavailable at the deadline, and no storm of attempts" * no_consul) {
  ConsulWorld w;
  FlakyProxy proxy(w.io, free_port());  // accepts, and closes because nobody is behind it
  auto& store = w.store(std::vector<net::Url>(1, net::Url("127.0.0.1", proxy.port())));
  const auto began = w.clock.now();
  const auto waited = w.changed(store, dcs::Index{5}, 2s);
  CHECK(waited.error().is(errc::timed_out));
  CHECK(w.clock.now() - began >= 2s);
  CHECK(w.put(store, "config", "1", 1s).error().is(errc::unavailable));  // never sent
  CHECK(w.read(store, 1s).error().is(errc::unavailable));
  const auto renewed = w.renew(store, 5s, 1s);  // sent to somebody who has hung up
  CHECK((renewed.error().is(errc::unavailable) || renewed.error().is(errc::ambiguous)));
  CHECK(proxy.connections() <= 60);
}

TEST_CASE("something else answers there: no authority, whatever it says" * no_consul) {
  // A Consul agent's own page for unknown paths stands in for a proxy's: 404 without an index.
  ConsulCluster consul;
  ConsulWorld w;
  consul::Options options;
  auto& store = w.store(consul.urls());
  const auto lease = w.renew(store, 10s);
  REQUIRE(lease.has_value());
  boost::asio::ip::tcp::acceptor acceptor(w.io, {boost::asio::ip::address_v4::loopback(), 0});
  auto& other =
      w.store(std::vector<net::Url>(1, net::Url("127.0.0.1", acceptor.local_endpoint().port())));
  std::string body = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
  std::vector<std::shared_ptr<boost::asio::ip::tcp::socket>> sockets;
  std::array<char, 4096> ignored;
  std::function<void()> accept = [&] {
    acceptor.async_accept([&](boost::system::error_code ec, boost::asio::ip::tcp::socket socket) {
      if (ec) return;
      auto kept = std::make_shared<boost::asio::ip::tcp::socket>(std::move(socket));
      sockets.push_back(kept);
      kept->async_read_some(boost::asio::buffer(ignored),
                            [&, kept](boost::system::error_code, std::size_t) {
                              boost::asio::write(*kept, boost::asio::buffer(body));
                              kept->close();
                            });
      accept();
    });
  };
  accept();
  CHECK(w.read(other, 300ms).error().is(errc::unavailable));
  CHECK(w.renew(other, 10s, 300ms).error().is(errc::unavailable));
  CHECK(w.put(other, "leader", "x", 300ms).error().is(errc::unavailable));
  CHECK(w.changed(other, dcs::Index{1}, 300ms).error().is(errc::timed_out));
  body = "HTTP/1.1 409 Conflict\r\nContent-Length: 8\r\nConnection: close\r\n\r\nconflict";
  dcs::Transaction erase;
  erase.erase("leader");
  CHECK(run(w.io, other.commit(std::move(erase), w.in(300ms))).error().is(errc::ambiguous));
  acceptor.close();
}

TEST_CASE("a restart shorter than the deadline costs nobody an error, and no change is missed" *
          no_consul) {
  ConsulCluster consul;
  ConsulWorld w;
  auto& store = w.store(consul.urls());
  auto& writer = w.store(consul.urls());
  const auto first = w.renew(store, 10s);
  REQUIRE(first.has_value());
  REQUIRE(w.take(store, "n1").has_value());
  const auto seen = index_of(w.read(store));
  CHECK(w.changed(store, seen, 20ms).error().is(errc::timed_out));
  consul[0].process().end(SIGKILL);
  consul[0].process().start();
  const auto renewed = w.renew(store, 10s, 10s);
  REQUIRE_MESSAGE(renewed.has_value(), renewed.error().text());
  CHECK(renewed->session == first->session);
  REQUIRE(w.read(writer, 10s).has_value());
  REQUIRE(w.put(writer, "failover", "{}").has_value());
  const auto changed = w.changed(store, seen, 8s);
  REQUIRE_MESSAGE(changed.has_value(), changed.error().text());
  CHECK(w.read(store)->find("leader")->owner == first->session);
}

TEST_CASE(
    "a store that was wiped counts from the beginning: the waiter notices, the session is "
    "lost" *
    no_consul) {
  ConsulCluster consul;
  ConsulWorld w;
  auto& store = w.store(consul.urls());
  REQUIRE(w.renew(store, 10s).has_value());
  for (int i = 0; i < 30; ++i) REQUIRE(w.put(store, "config", std::to_string(i)).has_value());
  const auto seen = index_of(w.read(store));
  const auto waiter = w.wait(store, seen, 30s);
  CHECK_FALSE(w.ends(waiter, 100ms));
  consul[0].process().end(SIGKILL);
  std::filesystem::remove_all(consul[0].data());
  consul[0].process().start();
  REQUIRE(w.ends(waiter, 15s));
  REQUIRE_MESSAGE(waiter->result.has_value(), waiter->result.error().text());
  CHECK(waiter->result->value < seen.value);
  const auto empty = w.read(store, 10s);
  REQUIRE(empty.has_value());
  CHECK(empty->all().empty());
  CHECK(empty->index() < seen);
  CHECK(w.renew(store, 10s).error().is(errc::session_lost));
  CHECK(w.renew(store, 10s).has_value());
  CHECK(w.take(store, "n1").has_value());
}
