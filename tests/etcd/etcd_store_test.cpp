// One real etcd server: compaction, lost answers, authentication, TLS, a store that was wiped.
#include <doctest/doctest.h>

#include <filesystem>

#include "etcd/etcd_world.hpp"
#include "support/certificates.hpp"

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
  auto& store = w.store(urls);
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

TEST_CASE("authentication: wrong password, right password, a token that the server has forgotten" *
          no_etcd) {
  EtcdCluster etcd;
  EtcdWorld w;
  const auto url = etcd[0].url();
  w.call(url, "/v3/auth/user/add", R"({"name":"root","password":"secret"})");
  w.call(url, "/v3/auth/user/grant", R"({"user":"root","role":"root"})");
  w.call(url, "/v3/auth/enable", "{}");

  etcd::Options options;
  options.username = "root";
  options.password = "wrong";
  auto& intruder = w.store(etcd.urls(), options);
  const auto refused = w.read(intruder);
  CHECK(refused.error().is(errc::denied));
  CHECK(refused.error().detail().find("as user root") != std::string::npos);
  CHECK(refused.error().detail().find("wrong") == std::string::npos);
  auto& nobody = w.store(etcd.urls());
  CHECK(w.read(nobody).has_error());
  CHECK(w.put(nobody, "config", "x").has_error());
  CHECK(w.changed(nobody, dcs::Index{1}, 200ms).has_error());

  // User and password in the URL.
  const auto with_user =
      net::Url::parse("http://root:secret@127.0.0.1:" + std::to_string(url.port()));
  REQUIRE(with_user.has_value());
  auto& store = w.store(std::vector<net::Url>(1, *with_user));
  REQUIRE(w.put(store, "config", "1").has_value());
  const auto lease = w.renew(store, 10s);
  REQUIRE(lease.has_value());
  const dcs::Index seen{index_of(w.read(store))};
  CHECK(w.changed(store, seen, 50ms).error().is(errc::timed_out));

  etcd[0].restart();  // simple tokens live in memory
  const auto renewed = w.renew(store, 10s, 8s);
  REQUIRE_MESSAGE(renewed.has_value(), renewed.error().text());
  CHECK(renewed->session == lease->session);
  REQUIRE(w.put(store, "config", "2").has_value());
  const auto changed = w.changed(store, seen, 5s);
  CHECK_MESSAGE(changed.has_value(), changed.error().text());
  CHECK(w.log.find("secret") == std::string::npos);
}

TEST_CASE("TLS with client certificates" * no_etcd) {
  TempDir dir;
  Certificates certs(dir);
  const auto member = [&](const std::string& certificate) {
    return std::make_unique<EtcdMember>(dir,
                                        certificate,
                                        free_port(),
                                        free_port(),
                                        "",
                                        std::vector<std::string>{"--client-cert-auth",
                                                                 "--trusted-ca-file",
                                                                 certs.file("ca.crt"),
                                                                 "--cert-file",
                                                                 certs.file(certificate + ".crt"),
                                                                 "--key-file",
                                                                 certs.file(certificate + ".key")},
                                        "https");
  };
  const auto etcd = member("server");
  const auto elsewhere = member("elsewhere");
  REQUIRE(etcd->wait_ready());
  REQUIRE(elsewhere->wait_ready());
  EtcdWorld w;
  const auto store =
      [&](const std::string& ca, const std::string& client, const EtcdMember& at) -> dcs::Store& {
    etcd::Options options;
    options.tls.ca_file = certs.file(ca + ".crt");
    if (!client.empty()) {
      options.tls.cert_file = certs.file(client + ".crt");
      options.tls.key_file = certs.file(client + ".key");
    }
    return w.store(std::vector<net::Url>(1, at.url()), options);
  };
  auto& good = store("ca", "client", *etcd);
  const auto written = w.put(good, "config", "1");
  REQUIRE_MESSAGE(written.has_value(), written.error().text());
  const dcs::Index seen{index_of(w.read(good))};
  CHECK(w.changed(good, seen, 50ms).error().is(errc::timed_out));
  REQUIRE(w.put(good, "config", "2").has_value());
  CHECK(w.changed(good, seen, 5s).has_value());

  const auto no_certificate = w.read(store("ca", "", *etcd), 1s);
  CHECK_MESSAGE(no_certificate.error().is(errc::denied), no_certificate.error().text());
  const auto untrusted = w.read(store("other-ca", "client", *etcd), 300ms);
  CHECK_MESSAGE(untrusted.error().is(errc::unavailable), untrusted.error().text());
  CHECK(untrusted.error().detail().find("certificate verify failed") != std::string::npos);
  const auto wrong_host = w.put(store("ca", "client", *elsewhere), "config", "x", 300ms);
  CHECK_MESSAGE(wrong_host.error().is(errc::unavailable), wrong_host.error().text());
  const auto no_file = w.read(store("missing", "client", *etcd), 300ms);
  CHECK(no_file.error().detail().find("missing.crt") != std::string::npos);
}
