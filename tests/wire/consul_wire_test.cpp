// Consul's HTTP interface, byte for byte. The answers are what Consul 1.8.7 sent.
#include "consul_wire.hpp"
#include "service_wire.hpp"

#include <doctest/doctest.h>

#include <random>
#include <string>
#include <vector>

#include "spilo/consul/consul_store.hpp"

using namespace spilo;
using namespace spilo::consul;
using namespace std::chrono_literals;
using dcs::Binding;
using dcs::Condition;
using dcs::Version;
using wire::Kind;
using wire::Plan;
using wire::Refusal;

namespace {

const std::string base = "service/batman/";
const SessionId ours("424b9214-7884-d320-69dc-0b81ee7d611c");
const SessionId theirs("772ba528-759a-b518-0b45-763724f92f4e");

std::uint64_t seven() {
  return 7;
}

Plan plan_of(const dcs::Transaction& t, const wire::Owners& owners = {}) {
  return wire::plan(t, base, ours, owners, seven);
}

std::string kv(const std::string& verb, const std::string& key, const std::string& more = {}) {
  return R"({"KV":{"Verb":")" + verb + R"(","Key":"service/batman/)" + key + "\"" + more + "}}";
}
std::string content(const std::string& value) {
  return R"(,"Value":")" + base64(value) + R"(","Flags":7)";
}
std::string session(const SessionId& id) {
  return R"(,"Session":")" + id.str() + "\"";
}

}  // namespace

TEST_CASE("the base path has no slash in front (patroni-contract 1.1)") {
  const auto path = [](std::string_view space, const char* scope) {
    return base_path(space, Scope(scope));
  };
  CHECK(path("service", "batman") == "service/batman/");
  CHECK(path("/service/", "batman") == "service/batman/");
  CHECK(path("", "batman") == "batman/");
  CHECK(path("/a//b/", "c") == "a/b/c/");
}

TEST_CASE("paths are escaped, queries joined") {
  CHECK(wire::escaped("service/my cluster/\xC3\xBC?#%") == "service/my%20cluster/%C3%BC%3F%23%25");
  CHECK(wire::target("/v1/txn", {}) == "/v1/txn");
  CHECK(wire::target("/v1/kv/a/", {"recurse", "", "consistent", "dc=east"}) ==
        "/v1/kv/a/?recurse&consistent&dc=east");
  CHECK(wire::target("/v1/kv/a/", {"", "dc=east"}) == "/v1/kv/a/?dc=east");
}

TEST_CASE("durations as Go writes and reads them") {
  CHECK(wire::duration_text(30s) == "30s");
  CHECK(wire::duration_text(1500ms) == "1500ms");
  CHECK(wire::duration_text(1500001us) == "1501ms");  // never shorter than asked for
  CHECK(wire::parse_duration("10s") == 10s);
  CHECK(wire::parse_duration("24h0m0s") == 24h);
  CHECK(wire::parse_duration("1m30.5s") == 90500ms);
  CHECK(wire::parse_duration("500ms") == 500ms);
  CHECK(wire::parse_duration("7us") == 7us);
  for (const auto* bad : {"", "s", "10", "10 s", "ten", "-1s", "1d", "1s2", "1e9h", "nan"})
    CHECK_MESSAGE(!wire::parse_duration(bad), bad);
}

TEST_CASE("a session: no checks, no lock-delay, its keys die with it") {
  CHECK(
      wire::session_request("batman-n\"1", 10s, {}) ==
      R"({"Name":"batman-n\"1","TTL":"10s","LockDelay":"0s","Behavior":"delete","Checks":[],"NodeChecks":[]})");
  CHECK(
      wire::session_request("x", 1500ms, {"serfHealth", "db"}) ==
      R"({"Name":"x","TTL":"1500ms","LockDelay":"0s","Behavior":"delete","Checks":["serfHealth","db"]})");
  CHECK(*wire::parse_session(R"({"ID":"e7e0d2b8-9233-cf22-58f8-380f3c587a9d"})") ==
        SessionId("e7e0d2b8-9233-cf22-58f8-380f3c587a9d"));
  for (const auto* bad : {"", "{}", "[]", R"({"ID":5})", "not json"})
    CHECK_MESSAGE(wire::parse_session(bad).error().is(errc::protocol), bad);

  const auto info = "[{\"ID\":\"" + ours.str() +
                    R"(","Name":"a","Node":"m0","LockDelay":0,"Behavior":"delete","TTL":"3s"}])";
  CHECK(*wire::parse_session_info(info, ours));
  CHECK_FALSE(*wire::parse_session_info(info, theirs));
  CHECK_FALSE(*wire::parse_session_info("[]", ours));
  CHECK(wire::parse_session_info("{}", ours).has_error());
  CHECK(wire::parse_session_info("<html>", ours).has_error());
}

TEST_CASE("the least ttl, from a refusal and from the agent's configuration") {
  CHECK(wire::ttl_min_hint("Invalid Session TTL '500000000', must be between [10s=24h0m0s]") ==
        10s);
  CHECK(wire::ttl_min_hint("Invalid Session TTL '1', must be between [1m30s=24h0m0s]") == 90s);
  for (const auto* other : {"",
                            "No cluster leader",
                            "Invalid Session TTL",
                            "Invalid Session TTL [",
                            "Invalid Session TTL [soon=later]",
                            "rpc error: [10s=24h0m0s]"})
    CHECK_MESSAGE(!wire::ttl_min_hint(other), other);
  CHECK(wire::parse_ttl_min(R"({"Config":{"SessionTTLMin":10000000000}})") == 10s);
  CHECK(wire::parse_ttl_min(
            R"({"Config":{"Datacenter":"dc1"},"DebugConfig":{"SessionTTLMin":"1s"}})") == 1s);
  // Servers that have not been told another one show zero.
  CHECK_FALSE(wire::parse_ttl_min(R"({"DebugConfig":{"SessionTTLMin":"0s"}})"));
  for (const auto* bad : {"",
                          "{}",
                          "[]",
                          R"({"Config":{"SessionTTLMin":"x"}})",
                          R"({"DebugConfig":{"SessionTTLMin":5}})"})
    CHECK_MESSAGE(!wire::parse_ttl_min(bad), bad);
}

TEST_CASE("the index of an answer") {
  CHECK(wire::parse_index("28") == 28u);
  CHECK(wire::parse_index("0") == 0u);
  for (const auto* bad : {"", " 28", "28x", "-1", "99999999999999999999999"})
    CHECK_MESSAGE(!wire::parse_index(bad), bad);
}

TEST_CASE("a list of keys") {
  const std::string body =
      R"([{"LockIndex":0,"Key":"service/batman/","Flags":0,"Value":null,"CreateIndex":9,"ModifyIndex":9},)"
      R"({"LockIndex":1,"Key":"service/batman/leader","Flags":9007199254740993,"Value":"bjE=",)"
      R"("Session":"424b9214-7884-d320-69dc-0b81ee7d611c","CreateIndex":13,"ModifyIndex":20},)"
      R"({"LockIndex":0,"Key":"service/batman/config","Flags":18446744073709551615,"Value":null,)"
      R"("CreateIndex":14,"ModifyIndex":14}])";
  const auto snapshot = wire::parse_list(body, base, 28);
  REQUIRE_MESSAGE(snapshot.has_value(), snapshot.error().text());
  CHECK(snapshot->index().value == 28);
  CHECK(snapshot->atomic());
  REQUIRE(snapshot->all().size() == 2);
  CHECK(*snapshot->find("leader") == dcs::Entry("leader", "n1", Version{13, 20}, ours));
  CHECK(*snapshot->find("config") == dcs::Entry("config", "", Version{14, 14}));
  const auto owners = wire::owners_of(*snapshot);
  CHECK(owners.size() == 2);
  CHECK(owners.at("leader") == ours);
  CHECK(owners.at("config").empty());
  CHECK(wire::parse_list("[]", base, 1)->all().empty());
}

TEST_CASE("what is no list of keys is said to be none") {
  for (const std::string& bad : {
           std::string("null"),
           std::string("{}"),
           std::string("<html>"),
           std::string(R"([5])"),
           std::string(
               R"([{"Key":"service/batman2/leader","Value":"","CreateIndex":1,"ModifyIndex":1}])"),
           std::string(
               R"([{"Key":"service/batman/a","Value":"?","CreateIndex":1,"ModifyIndex":1}])"),
           std::string(R"([{"Key":"service/batman/a","Value":"","ModifyIndex":1}])"),
           std::string(
               R"([{"Key":"service/batman/a","Value":"","CreateIndex":-1,"ModifyIndex":1}])"),
           std::string(R"([{"Key":5,"Value":"","CreateIndex":1,"ModifyIndex":1}])"),
       })
    CHECK_MESSAGE(wire::parse_list(bad, base, 1).error().is(errc::protocol), bad);
}

TEST_CASE("a transaction: requirements first, then what it does; a key's last change counts") {
  dcs::Transaction t;
  t.require("leader", Condition::absent()).require("term", Condition::at(Version{3, 9}));
  t.put("leader", "old", Binding::permanent).put("leader", "n1", Binding::session);
  t.put("term", "{}").erase("failover");
  wire::Owners owners;
  owners["term"];
  const auto plan = plan_of(t, owners);
  CHECK(plan.body == "[" + kv("check-not-exists", "leader") + "," +
                         kv("check-index", "term", ",\"Index\":9") + "," +
                         kv("lock", "leader", content("n1") + session(ours)) + "," +
                         kv("check-session", "term", ",\"Session\":\"\"") + "," +
                         kv("set", "term", content("{}")) + "," + kv("delete", "failover") + "]");
  using Part = Plan::Part;
  CHECK(plan.parts == std::vector<Part>{Part::requirement,
                                        Part::requirement,
                                        Part::lock,
                                        Part::belief,
                                        Part::other,
                                        Part::other});
}

TEST_CASE("puts by what the key is bound to") {
  wire::Owners owners;
  owners["ours"] = ours;
  owners["theirs"] = theirs;
  owners["free"];
  const auto put = [&](const char* key, Binding binding) {
    dcs::Transaction t;
    t.put(key, "v", binding);
    return plan_of(t, owners).body;
  };
  // A bound put: Consul itself re-binds a free key, and one of ours.
  for (const auto* key : {"ours", "free", "new"})
    CHECK(put(key, Binding::session) == "[" + kv("lock", key, content("v") + session(ours)) + "]");
  CHECK(put("theirs", Binding::session) ==
        "[" + kv("unlock", "theirs", content("v") + session(theirs)) + "," +
            kv("lock", "theirs", content("v") + session(ours)) + "]");
  // A permanent one: "set" would leave the session, "unlock" with a value takes the key out.
  CHECK(put("ours", Binding::permanent) ==
        "[" + kv("unlock", "ours", content("v") + session(ours)) + "]");
  CHECK(put("theirs", Binding::permanent) ==
        "[" + kv("unlock", "theirs", content("v") + session(theirs)) + "]");
  CHECK(put("free", Binding::permanent) == "[" + kv("check-session", "free", ",\"Session\":\"\"") +
                                               "," + kv("set", "free", content("v")) + "]");
  CHECK(put("new", Binding::permanent) ==
        "[" + kv("check-not-exists", "new") + "," + kv("set", "new", content("v")) + "]");
}

TEST_CASE("whether the owners have to be known") {
  const auto needs = [](auto change) {
    dcs::Transaction t;
    change(t);
    return wire::needs_owners(t);
  };
  CHECK(needs([](dcs::Transaction& t) { t.put("a", "1"); }));
  CHECK(needs([](dcs::Transaction& t) {
    t.require("a", Condition::at(Version{1, 1})).put("a", "1");
  }));
  CHECK_FALSE(
      needs([](dcs::Transaction& t) { t.require("a", Condition::absent()).put("a", "1"); }));
  CHECK_FALSE(needs([](dcs::Transaction& t) { t.put("a", "1", Binding::session).erase("b"); }));
}

TEST_CASE("what a transaction wrote") {
  dcs::Transaction t;
  t.put("leader", "n1", Binding::session).put("term", "{}").erase("failover");
  wire::Owners owners;
  owners["failover"];
  owners["config"] = theirs;
  // The first result of term is of a check.
  const std::string body =
      R"({"Results":[{"KV":{"LockIndex":0,"Key":"service/batman/term","Flags":1,"Value":null,"CreateIndex":9,"ModifyIndex":9}},)"
      R"({"KV":{"LockIndex":1,"Key":"service/batman/leader","Flags":7,"Value":null,"Session":"424b9214-7884-d320-69dc-0b81ee7d611c","CreateIndex":13,"ModifyIndex":13}},)"
      R"({"KV":{"LockIndex":0,"Key":"service/batman/term","Flags":7,"Value":null,"CreateIndex":9,"ModifyIndex":13}}],"Errors":null})";
  const auto committed = wire::parse_txn(body, base, t, owners);
  REQUIRE_MESSAGE(committed.has_value(), committed.error().text());
  CHECK(committed->version_of("leader") == Version{13, 13});
  CHECK(committed->version_of("term") == Version{9, 13});
  CHECK_FALSE(committed->version_of("failover"));
  CHECK(owners == wire::Owners{{"config", theirs}, {"leader", ours}, {"term", SessionId()}});

  for (const auto* bad : {"",
                          "{}",
                          R"({"Results":null,"Errors":null})",
                          R"({"Results":[{"KV":{"Key":"service/batman/leader"}}]})",
                          "[]"})
    CHECK_MESSAGE(wire::parse_txn(bad, base, t, owners).error().is(errc::protocol), bad);
  dcs::Transaction erasing;
  erasing.erase("failover");
  CHECK(wire::parse_txn(R"({"Results":[],"Errors":null})", base, erasing, owners).has_value());
}

TEST_CASE("why nothing was done: one row each") {
  dcs::Transaction t;
  t.require("leader", Condition::at(Version{3, 4}));
  t.put("leader", "n1", Binding::session).put("status", "{}");
  wire::Owners owners;
  owners["leader"] = theirs;
  const auto plan = plan_of(t, owners);
  REQUIRE(plan.parts.size() == 5);  // check-index, unlock, lock, check-not-exists, set
  using Why = Refusal::Why;
  struct Row {
    std::string errors;
    Why why;
  };
  const auto error = [](int at, const std::string& what) {
    return "{\"OpIndex\":" + std::to_string(at) + ",\"What\":" + json::dump(json::Value(what)) +
           "}";
  };
  const auto index = error(0, "failed index check for key \"l\", current modify index 24 != 4");
  const auto unlock = error(1, "failed to unlock key \"l\", lock isn't held");
  const auto held = error(2, "failed to lock key \"l\", lock is already held");
  const auto gone = error(2, "invalid session \"424b9214-7884-d320-69dc-0b81ee7d611c\"");
  const auto delay = error(2, "failed to lock key \"l\" due to lock delay");
  const auto exists = error(3, "key \"service/batman/status\" exists");
  const auto denied = error(0, "Permission denied");
  for (const auto& row : {
           Row{index, Why::requirement},
           Row{index + "," + unlock + "," + held, Why::requirement},
           Row{unlock + "," + held, Why::belief},
           Row{exists, Why::belief},
           Row{gone, Why::lock},
           Row{held, Why::lock},
           Row{delay, Why::lock},
           Row{denied + "," + index, Why::denied},
           Row{error(4, "Permission denied"), Why::denied},
           Row{error(2, "something new"), Why::lock},
           Row{"", Why::not_understood},
           Row{error(5, "beyond the plan"), Why::not_understood},
           Row{error(-1, "before it"), Why::not_understood},
       }) {
    const auto body = "{\"Results\":null,\"Errors\":[" + row.errors + "]}";
    const auto refusal = wire::parse_refusal(body, plan);
    CHECK_MESSAGE(refusal.why == row.why, body);
    CHECK_FALSE(refusal.text.empty());
  }
  for (const auto* bad :
       {"", "{}", "<html>conflict</html>", R"({"Errors":5})", R"({"Errors":[5]})"})
    CHECK_MESSAGE(wire::parse_refusal(bad, plan).why == Why::not_understood, bad);
}

TEST_CASE("statuses: did it happen, may I retry, is it my fault") {
  struct Row {
    int status;
    errc read;
    errc session;
    errc write;
  };
  for (const auto& row : {
           Row{400, errc::invalid_argument, errc::invalid_argument, errc::invalid_argument},
           Row{401, errc::denied, errc::denied, errc::denied},
           Row{403, errc::denied, errc::denied, errc::denied},
           Row{404, errc::unavailable, errc::unavailable, errc::unavailable},
           Row{405, errc::unavailable, errc::unavailable, errc::unavailable},
           Row{413, errc::invalid_argument, errc::invalid_argument, errc::invalid_argument},
           Row{429, errc::unavailable, errc::unavailable, errc::unavailable},
           // A change may be in the log already.
           Row{500, errc::unavailable, errc::ambiguous, errc::ambiguous},
           Row{502, errc::unavailable, errc::ambiguous, errc::ambiguous},
           Row{503, errc::unavailable, errc::ambiguous, errc::ambiguous},
           Row{504, errc::unavailable, errc::ambiguous, errc::ambiguous},
           // What nobody has seen yet has no authority either.
           Row{302, errc::unavailable, errc::ambiguous, errc::ambiguous},
           Row{418, errc::unavailable, errc::ambiguous, errc::ambiguous},
           Row{204, errc::unavailable, errc::ambiguous, errc::ambiguous},
       }) {
    CHECK_MESSAGE(wire::meaning(row.status, Kind::read) == row.read, row.status);
    CHECK_MESSAGE(wire::meaning(row.status, Kind::session) == row.session, row.status);
    CHECK_MESSAGE(wire::meaning(row.status, Kind::write) == row.write, row.status);
  }
}

TEST_CASE("answers cut short or changed anywhere are an error or a value, never a crash") {
  const std::string body =
      R"({"Results":[{"KV":{"LockIndex":1,"Key":"service/batman/leader","Flags":7,"Value":null,"Session":"424b9214","CreateIndex":13,"ModifyIndex":13}}],"Errors":[{"OpIndex":0,"What":"x"}]})";
  const std::string list =
      R"([{"LockIndex":1,"Key":"service/batman/leader","Flags":7,"Value":"bjE=","Session":"424b9214","CreateIndex":13,"ModifyIndex":13}])";
  dcs::Transaction t;
  t.put("leader", "n1", Binding::session);
  const auto plan = plan_of(t);
  const auto all = [&](const std::string& text) {
    wire::Owners owners;
    static_cast<void>(wire::parse_txn(text, base, t, owners));
    static_cast<void>(wire::parse_refusal(text, plan));
    static_cast<void>(wire::parse_list(text, base, 1));
    static_cast<void>(wire::parse_session(text));
    static_cast<void>(wire::parse_session_info(text, ours));
    static_cast<void>(wire::parse_ttl_min(text));
    static_cast<void>(wire::ttl_min_hint(text));
    static_cast<void>(wire::parse_duration(text));
  };
  for (const auto& whole : {body, list}) {
    for (std::size_t size = 0; size < whole.size(); ++size) {
      all(whole.substr(0, size));
      wire::Owners owners;
      CHECK(wire::parse_txn(whole.substr(0, size), base, t, owners).has_error());
      CHECK(wire::parse_list(whole.substr(0, size), base, 1).has_error());
    }
    std::mt19937 random(7);
    for (int round = 0; round < 2000; ++round) {
      auto changed = whole;
      changed[random() % changed.size()] = static_cast<char>(random());
      all(changed);
    }
  }
}

TEST_CASE("service names and registrations (patroni-contract 1.6)") {
  CHECK(wire::service_name("batman") == "batman");
  CHECK(wire::service_name("My.App_1 x") == "my-app-1-x");
  CHECK(wire::service_name("a/b") == "au0047b");
  CHECK(wire::service_name("Gr\xC3\xB6\xC3\x9F"
                           "e\xF0\x9F\x90\x98") == "gru0246u0223eu128024");
  CHECK(wire::service_name("\xC3") == "u0195");
  CHECK(wire::service_name(std::string(400, 'x')).size() == 230);

  RegistrationOptions options;
  options.scope = Scope("batman");
  options.node = NodeName("n1");
  ServedNode node;
  node.conn_url = "postgres://10.0.0.1:5433/postgres";
  node.api_url = "https://10.0.0.1:8008/patroni";
  node.role = "primary";
  node.state = "running";
  node.ttl = 30s;
  CHECK(
      *wire::service_request(options, node) ==
      R"({"ID":"batman/n1","Name":"batman","Address":"10.0.0.1","Port":5433,"Tags":["primary","master"],)"
      R"("Check":{"HTTP":"https://10.0.0.1:8008/primary","Interval":"5s","DeregisterCriticalServiceAfter":"150s"},)"
      R"("EnableTagOverride":true})");
  options.tags = {"a", "b"};
  options.check_interval = "9s";
  options.check_tls_server_name = "db.example";
  node.role = "standby_leader";
  CHECK(
      *wire::service_request(options, node) ==
      R"({"ID":"batman/n1","Name":"batman","Address":"10.0.0.1","Port":5433,"Tags":["a","b","standby-leader"],)"
      R"("Check":{"HTTP":"https://10.0.0.1:8008/standby-leader","Interval":"9s",)"
      R"("DeregisterCriticalServiceAfter":"150s","TLSServerName":"db.example"},"EnableTagOverride":true})");
  for (const auto* bad : {"", "postgres", "postgres://"}) {
    node.conn_url = bad;
    CHECK_MESSAGE(wire::service_request(options, node).error().is(errc::invalid_argument), bad);
  }
}
