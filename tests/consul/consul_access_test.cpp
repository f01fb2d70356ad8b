// Who may: ACL tokens and certificates.
#include <doctest/doctest.h>

#include "consul/consul_world.hpp"
#include "support/certificates.hpp"

using namespace spilo;
using namespace spilo::test;
using namespace std::chrono_literals;

namespace {
const auto no_consul = doctest::skip(!have_consul());

constexpr auto management = "5ec7e700-0000-4000-8000-000000000001";
constexpr auto acl =
    R"({"acl":{"enabled":true,"default_policy":"deny","tokens":{"master":"5ec7e700-0000-4000-8000-000000000001",)"
    R"("agent":"5ec7e700-0000-4000-8000-000000000001"}}})";

// A token that may do just that.
std::string token_for(const ConsulMember& member,
                      const std::string& name,
                      const std::string& rules) {
  const auto policy = json::Value::object().set("Name", name).set("Rules", rules);
  consul_call(member, "PUT", "/v1/acl/policy", json::dump(policy), management);
  const auto token = consul_call(
      member, "PUT", "/v1/acl/token", R"({"Policies":[{"Name":")" + name + "\"}]}", management);
  return json::parse(token)->get_string("SecretID");
}
}  // namespace

TEST_CASE("ACL: what a token may not is denied, and never looks like an empty cluster" *
          no_consul) {
  ConsulCluster consul(1, "1s", acl);
  ConsulWorld w;
  REQUIRE(wait_until(
      [&] {
        const auto answer = http_call(consul[0].port(), "GET", "/v1/acl/tokens", "", management);
        return answer && answer->ok();
      },
      10s));
  const auto with = [&](const std::string& token) -> dcs::Store& {
    consul::Options options;
    options.token = token;
    return w.store(consul.urls(), options);
  };
  // The least that a node needs.
  const auto enough = token_for(
      consul[0],
      "node",
      R"(key_prefix "service/batman/" { policy = "write" } session_prefix "" { policy = "write" })");
  auto& node = with(enough);
  const auto lease = w.renew(node, 2s);
  REQUIRE_MESSAGE(lease.has_value(), lease.error().text());
  REQUIRE(w.take(node, "n1").has_value());
  REQUIRE(w.put(node, "config", "{}").has_value());
  const auto seen = w.read(node);
  REQUIRE(seen.has_value());
  CHECK(seen->all().size() == 2);
  CHECK(w.changed(node, seen->index(), 50ms).error().is(errc::timed_out));

  const auto elsewhere = token_for(
      consul[0],
      "elsewhere",
      R"(key_prefix "service/robin/" { policy = "write" } session_prefix "" { policy = "write" })");
  const auto reader = token_for(consul[0], "reader", R"(key_prefix "" { policy = "read" })");
  struct Row {
    const char* who;
    std::string token;
    bool reads;
    bool opens_sessions;
  };
  const std::string unknown = "5ec7e700-0000-4000-8000-00000000dead";
  for (const auto& row : {
           Row{"nobody", "", false, false},
           Row{"an unknown token", unknown, false, false},
           Row{"another cluster's node", elsewhere, false, true},
           Row{"a reader", reader, true, false},
       }) {
    CAPTURE(row.who);
    auto& store = with(row.token);
    const auto read = w.read(store);
    if (row.reads) {
      CHECK(read.has_value());
    } else {
      REQUIRE(read.has_error());
      CHECK_MESSAGE(read.error().is(errc::denied), read.error().text());
    }
    const auto session = w.renew(store, 2s);
    if (row.opens_sessions) {
      REQUIRE(session.has_value());
      CHECK(w.put(store, "leader", "x", 5s, dcs::Binding::session).error().is(errc::denied));
    } else {
      CHECK(session.error().is(errc::denied));
    }
    CHECK(w.put(store, "config", "x").error().is(errc::denied));
    // With a requirement too: not allowed is not the same as "does not hold".
    dcs::Transaction change;
    change.require("config", dcs::Condition::absent()).put("config", "x");
    const auto created = run(w.io, store.commit(std::move(change), w.in(5s)));
    REQUIRE(created.has_error());
    CHECK_MESSAGE(created.error().is(errc::denied), created.error().text());
  }
  CHECK(w.read(node)->find("config")->value == "{}");
  for (const auto& secret : {enough, unknown, elsewhere, reader})
    CHECK(w.log.find(secret) == std::string::npos);
}

TEST_CASE("TLS with client certificates" * no_consul) {
  TempDir dir;
  Certificates certs(dir);
  const auto member = [&](const std::string& certificate, std::uint16_t https) {
    const auto more = fmt::format(
        R"({{"ports":{{"https":{}}},"verify_incoming_https":true,"ca_file":"{}","cert_file":"{}","key_file":"{}"}})",
        https,
        certs.file("ca.crt"),
        certs.file(certificate + ".crt"),
        certs.file(certificate + ".key"));
    return std::make_unique<ConsulMember>(
        dir, certificate, ConsulMember::Ports(), "1s", std::vector<std::uint16_t>(), more);
  };
  const auto https = free_port();
  const auto elsewhere_https = free_port();
  const auto consul = member("server", https);
  const auto elsewhere = member("elsewhere", elsewhere_https);
  REQUIRE(consul->wait_ready());
  REQUIRE(elsewhere->wait_ready());
  ConsulWorld w;
  const auto store =
      [&](const std::string& ca, const std::string& client, std::uint16_t port) -> dcs::Store& {
    consul::Options options;
    options.tls.ca_file = certs.file(ca + ".crt");
    if (!client.empty()) {
      options.tls.cert_file = certs.file(client + ".crt");
      options.tls.key_file = certs.file(client + ".key");
    }
    return w.store(std::vector<net::Url>(1, net::Url("127.0.0.1", port, true)), options);
  };
  auto& good = store("ca", "client", https);
  const auto written = w.put(good, "config", "1");
  REQUIRE_MESSAGE(written.has_value(), written.error().text());
  const auto seen = w.read(good)->index();
  CHECK(w.changed(good, seen, 50ms).error().is(errc::timed_out));
  REQUIRE(w.put(good, "config", "2").has_value());
  CHECK(w.changed(good, seen, 5s).has_value());

  const auto no_certificate = w.read(store("ca", "", https), 1s);
  CHECK_MESSAGE(no_certificate.error().is(errc::denied), no_certificate.error().text());
  const auto untrusted = w.read(store("other-ca", "client", https), 300ms);
  CHECK_MESSAGE(untrusted.error().is(errc::unavailable), untrusted.error().text());
  CHECK(untrusted.error().detail().find("certificate verify failed") != std::string::npos);
  const auto wrong_host = w.put(store("ca", "client", elsewhere_https), "config", "x", 300ms);
  CHECK_MESSAGE(wrong_host.error().is(errc::unavailable), wrong_host.error().text());
}
