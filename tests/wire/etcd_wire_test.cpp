// etcd's JSON, byte for byte. The answers are what etcd 3.4.23 sent.
#include "etcd_wire.hpp"

#include <doctest/doctest.h>

#include <random>
#include <string>
#include <vector>

#include "spilo/etcd/etcd_store.hpp"

using namespace spilo;
using namespace spilo::etcd;
using dcs::Binding;
using dcs::Condition;
using dcs::Version;

namespace {

const std::string base = "/service/batman/";
const std::string header =
    R"("header":{"cluster_id":"324952591200643719","member_id":"3319814642761637952","revision":"7","raft_term":"2"})";

json::Value parsed(const std::string& text) {
  const auto document = json::parse(text);
  REQUIRE(document.has_value());
  return *document;
}

std::string kv(const std::string& key, const std::string& more) {
  return R"({"key":")" + wire::base64(key) +
         R"(","create_revision":"3","mod_revision":"7","version":"2")" + more + "}";
}

}  // namespace

TEST_CASE("the base path collapses slashes (patroni-contract 1.1)") {
  const auto path = [](std::string_view space, const char* scope) {
    return base_path(space, Scope(scope));
  };
  CHECK(path("service", "batman") == "/service/batman/");
  CHECK(path("/service/", "batman") == "/service/batman/");
  CHECK(path("", "batman") == "/batman/");
  CHECK(path("/a//b/", "c") == "/a/b/c/");
}

TEST_CASE("base64, both ways, and what is none") {
  CHECK(wire::base64("") == "");
  CHECK(wire::base64("f") == "Zg==");
  CHECK(wire::base64("fo") == "Zm8=");
  CHECK(wire::base64("foo") == "Zm9v");
  std::string all;
  for (int i = 0; i < 256; ++i) all += static_cast<char>(i);
  for (std::size_t size = 0; size <= all.size(); ++size)
    REQUIRE(wire::from_base64(wire::base64(all.substr(0, size))) == all.substr(0, size));
  for (const auto* bad : {"Z", "Zg", "Zg=", "Z===", "Zm9v====", "Zm 9v", "Zm9\x80", "=m9v"})
    CHECK_FALSE(wire::from_base64(bad).has_value());
}

TEST_CASE("the end of a prefix: last byte plus one, with carry") {
  CHECK(wire::prefix_end("/a/") == "/a0");
  CHECK(wire::prefix_end("a\xff") == "b");
  CHECK(wire::prefix_end("\xff\xff") == std::string(1, '\0'));
}

TEST_CASE("requests, byte for byte") {
  CHECK(wire::range_request("/b/", false) == R"({"key":"L2Iv","range_end":"L2Iw"})");
  CHECK(wire::range_request("/b/", true) ==
        R"({"key":"L2Iv","range_end":"L2Iw","serializable":true})");
  CHECK(wire::term_request("/b/") == R"({"key":"L2Iv","count_only":true})");
  CHECK(wire::grant_request(30) == R"({"TTL":"30"})");
  CHECK(wire::lease_request(SessionId("12")) == R"({"ID":"12"})");
  CHECK(wire::watch_request("/b/", 8, false) ==
        R"({"create_request":{"key":"L2Iv","range_end":"L2Iw","start_revision":"8"}})");
  CHECK(
      wire::watch_request("/b/", 8, true) ==
      R"({"create_request":{"key":"L2Iv","range_end":"L2Iw","start_revision":"8","fragment":true}})");
  CHECK(wire::authenticate_request("ro\"ot", "a\\b") == R"({"name":"ro\"ot","password":"a\\b"})");
}

TEST_CASE(
    "a transaction: compares, puts with and without lease, erase; a key's last change counts") {
  dcs::Transaction t;
  t.require("l", Condition::absent()).require("c", Condition::at(Version{3, 7}));
  t.put("l", "n1", Binding::session).put("c", "old").put("c", "{}").erase("f");
  CHECK(wire::txn_request("/b/", t, SessionId("99")) ==
        R"({"compare":[)"
        R"({"key":"L2IvbA==","result":"EQUAL","target":"CREATE","create_revision":"0"},)"
        R"({"key":"L2IvYw==","result":"EQUAL","target":"CREATE","create_revision":"3"},)"
        R"({"key":"L2IvYw==","result":"EQUAL","target":"MOD","mod_revision":"7"}],"success":[)"
        R"({"request_put":{"key":"L2IvbA==","value":"bjE=","lease":"99"}},)"
        R"({"request_put":{"key":"L2IvYw==","value":"e30=","lease":"0"}},)"
        R"({"request_range":{"key":"L2IvYw==","keys_only":true}},)"
        R"({"request_delete_range":{"key":"L2IvZg=="}}]})");
}

TEST_CASE("a range answer: values, versions, owners, what is left out") {
  const auto snapshot = wire::parse_range(
      parsed("{" + header + R"(,"kvs":[)" +
             kv(base + "leader", R"(,"value":"bjE=","lease":"2324035561191687942")") + "," +
             kv(base + "initialize", "") + R"(],"count":"2"})"),
      base);
  REQUIRE(snapshot.has_value());
  CHECK(snapshot->index().value == 7);
  CHECK(snapshot->atomic());
  REQUIRE(snapshot->all().size() == 2);
  CHECK(*snapshot->find("leader") ==
        dcs::Entry("leader", "n1", Version{3, 7}, SessionId("2324035561191687942")));
  CHECK(*snapshot->find("initialize") == dcs::Entry("initialize", "", Version{3, 7}));
  CHECK(wire::parse_range(parsed("{" + header + "}"), base)->all().empty());
}

TEST_CASE("a range answer that is not one") {
  const std::string bad[] = {
      "{}",
      "[]",
      R"({"header":{}})",
      "{" + header + R"(,"kvs":{}})",
      "{" + header + R"(,"kvs":[1]})",
      "{" + header + R"(,"kvs":[{"key":"????","create_revision":"1","mod_revision":"1"}]})",
      "{" + header + R"(,"kvs":[)" + kv("/elsewhere/leader", "") + "]}",
      "{" + header + R"(,"kvs":[)" + kv(base + "leader", R"(,"value":"x")") + "]}",
      "{" + header + R"(,"kvs":[{"key":")" + wire::base64(base + "leader") + R"("}]})",
  };
  for (const auto& text : bad) {
    CAPTURE(text);
    const auto snapshot = wire::parse_range(parsed(text), base);
    REQUIRE(snapshot.has_error());
    CHECK(snapshot.error().is(errc::protocol));
  }
}

TEST_CASE("a transaction's answer: versions, conflict, nonsense") {
  dcs::Transaction t;
  t.require("leader", Condition::absent())
      .put("leader", "n1")
      .put("config", "{}")
      .erase("failover");
  const auto range = R"({"response_range":{"kvs":[)" + kv(base + "config", "") + "]}}";
  const auto good = wire::parse_txn(
      parsed("{" + header +
             R"(,"succeeded":true,"responses":[{"response_put":{}},{"response_put":{}},)" + range +
             R"(,{"response_delete_range":{}}]})"),
      base,
      t);
  REQUIRE(good.has_value());
  CHECK(good->version_of("leader") == Version{7, 7});
  CHECK(good->version_of("config") == Version{3, 7});
  CHECK_FALSE(good->version_of("failover").has_value());

  CHECK(wire::parse_txn(parsed("{" + header + "}"), base, t).error().is(errc::conflict));
  // Done, but by its answer we can't tell how: not certain, so the caller has to read.
  for (const auto& text :
       {"{" + header + R"(,"succeeded":true})", std::string(R"({"succeeded":true})")}) {
    const auto unclear = wire::parse_txn(parsed(text), base, t);
    REQUIRE(unclear.has_error());
    CHECK_FALSE(is_certain(unclear.error()));
  }
}

TEST_CASE("leases: granted, kept alive, gone") {
  const auto granted =
      wire::parse_lease(parsed("{" + header + R"(,"ID":"2324035561191687942","TTL":"5"})"));
  CHECK(granted.id == SessionId("2324035561191687942"));
  CHECK(granted.ttl_seconds == 5);
  const auto document = parsed(R"({"result":{)" + header + R"(,"ID":"12345","TTL":"10"}})");
  CHECK(wire::parse_lease(wire::payload(document)).ttl_seconds == 10);
  const auto gone = parsed(R"({"result":{)" + header + R"(,"ID":"12345"}})");
  CHECK(wire::parse_lease(wire::payload(gone)).ttl_seconds == 0);
  for (const auto* ttl : {R"("-1")", "-1", "null", R"("x")", R"("0")"})
    CHECK(wire::parse_lease(parsed(std::string(R"({"TTL":)") + ttl + "}")).ttl_seconds == 0);
}

TEST_CASE("lines of a watch") {
  const auto created = wire::parse_watch(R"({"result":{)" + header + R"(,"created":true}})");
  CHECK(created->created);
  CHECK(created->newest == 0);
  const auto events =
      wire::parse_watch(R"({"result":{)" + header + R"(,"events":[{"kv":)" + kv("/b/x", "") +
                        R"(},{"type":"DELETE","kv":{"key":"L2EvYQ==","mod_revision":"9"}}]}})");
  CHECK(events->newest == 9);
  const auto strange = wire::parse_watch(R"({"result":{)" + header + R"(,"events":[{}]}})");
  CHECK(strange->newest == 7);
  const auto compacted = wire::parse_watch(
      R"({"result":{"header":{"cluster_id":"1"},"canceled":true,"compact_revision":"3"}})");
  CHECK(compacted->canceled);
  CHECK(compacted->compact_revision == 3);
  const auto no_leader = wire::parse_watch(
      R"({"error":{"grpc_code":14,"http_code":503,"message":"etcdserver: no leader","http_status":"Service Unavailable"}})");
  CHECK(no_leader.error().is(errc::unavailable));
  CHECK(no_leader.error().detail().find("no leader") != std::string::npos);
  for (const auto* bad : {"", "x", "{}", "[]", R"({"result":1})"})
    CHECK(wire::parse_watch(bad).error().is(errc::protocol));
}

TEST_CASE("versions") {
  const auto version = wire::parse_version(R"({"etcdserver":"3.4.23","etcdcluster":"3.4.0"})");
  CHECK(version->major == 3);
  CHECK(version->minor == 4);
  for (const auto* bad : {"",
                          "{}",
                          R"({"etcdserver":3})",
                          R"({"etcdserver":"three"})",
                          R"({"etcdserver":"3"})",
                          "<html>"})
    CHECK(wire::parse_version(bad).has_error());
}

TEST_CASE("what each refusal means: one row for each code") {
  struct Row {
    int code;
    errc read;
    errc write;
    errc lease;
  };
  const Row rows[] = {
      {1, errc::unavailable, errc::ambiguous, errc::ambiguous},
      {2, errc::unavailable, errc::ambiguous, errc::ambiguous},
      {3, errc::invalid_argument, errc::invalid_argument, errc::invalid_argument},
      {4, errc::unavailable, errc::ambiguous, errc::ambiguous},
      {5, errc::unavailable, errc::session_lost, errc::session_lost},
      {6, errc::unavailable, errc::ambiguous, errc::ambiguous},
      {7, errc::denied, errc::denied, errc::denied},
      {8, errc::unavailable, errc::unavailable, errc::unavailable},
      {9, errc::unavailable, errc::unavailable, errc::unavailable},
      {10, errc::unavailable, errc::ambiguous, errc::ambiguous},
      {11, errc::unavailable, errc::unavailable, errc::unavailable},
      {12, errc::unsupported, errc::unsupported, errc::unsupported},
      {13, errc::unavailable, errc::ambiguous, errc::ambiguous},
      {14, errc::unavailable, errc::ambiguous, errc::ambiguous},
      {15, errc::unavailable, errc::ambiguous, errc::ambiguous},
      {16, errc::denied, errc::denied, errc::denied},
      {17, errc::unavailable, errc::ambiguous, errc::ambiguous},  // of the future
  };
  for (const auto& row : rows) {
    CAPTURE(row.code);
    const auto refusal = wire::parse_refusal(
        500, R"({"error":"words","message":"words","code":)" + std::to_string(row.code) + "}");
    CHECK(refusal.grpc_code == row.code);
    CHECK(refusal.text == "words");
    CHECK(wire::meaning(refusal, wire::Kind::read) == row.read);
    CHECK(wire::meaning(refusal, wire::Kind::write) == row.write);
    CHECK(wire::meaning(refusal, wire::Kind::lease) == row.lease);
  }
}

TEST_CASE("refusals without a code come from a proxy, or from nowhere near etcd") {
  struct Row {
    int status;
    const char* body;
    errc read;
    errc write;
  };
  const Row rows[] = {
      {404, "Not Found\n", errc::unavailable, errc::unavailable},
      {401, "<html>", errc::denied, errc::denied},
      {403, "", errc::denied, errc::denied},
      {400, "{}", errc::unavailable, errc::ambiguous},
      {429, "slow down", errc::unavailable, errc::ambiguous},
      {500, "[]", errc::unavailable, errc::ambiguous},
      {502, "<html>Bad Gateway</html>", errc::unavailable, errc::ambiguous},
      {503, R"({"error":"etcdserver: no leader"})", errc::unavailable, errc::ambiguous},
      {504, R"({"code":"x"})", errc::unavailable, errc::ambiguous},
      {302, R"({"code":99999999999999999999})", errc::unavailable, errc::ambiguous},
  };
  for (const auto& row : rows) {
    CAPTURE(row.status);
    const auto refusal = wire::parse_refusal(row.status, row.body);
    CHECK(refusal.grpc_code == -1);
    CHECK(wire::meaning(refusal, wire::Kind::read) == row.read);
    CHECK(wire::meaning(refusal, wire::Kind::write) == row.write);
  }
}

TEST_CASE(
    "texts never decide: words of a lost lease without its code say nothing about the session") {
  const auto refusal = wire::parse_refusal(
      500,
      R"({"error":"etcdserver: requested lease not found","message":"etcdserver: requested lease not found","code":2})");
  CHECK(wire::meaning(refusal, wire::Kind::lease) == errc::ambiguous);
  CHECK(wire::meaning(refusal, wire::Kind::write) == errc::ambiguous);
}

TEST_CASE("mutated answers are never an exception, and never a success by accident of size") {
  dcs::Transaction t;
  t.require("leader", Condition::absent()).put("leader", "n1").put("config", "{}");
  const std::vector<std::string> seeds = {
      "{" + header + R"(,"kvs":[)" + kv(base + "leader", R"(,"value":"bjE=","lease":"23")") +
          R"(],"count":"1"})",
      "{" + header +
          R"(,"succeeded":true,"responses":[{"response_put":{}},{"response_range":{"kvs":[)" +
          kv(base + "config", "") + "]}}]}",
      R"({"result":{)" + header + R"(,"ID":"12345","TTL":"10"}})",
      R"({"result":{)" + header + R"(,"events":[{"kv":)" + kv("/b/x", "") + "}]}}",
      R"({"error":{"grpc_code":14,"http_code":503,"message":"m"}})",
      R"({"error":"words","message":"words","code":5})",
      R"({"etcdserver":"3.4.23","etcdcluster":"3.4.0"})",
  };
  std::mt19937 random(7);
  int understood = 0;
  for (int round = 0; round < 20000; ++round) {
    auto text = seeds[random() % seeds.size()];
    for (unsigned edits = 1 + random() % 4; edits > 0 && !text.empty(); --edits) {
      const auto at = random() % text.size();
      switch (random() % 4) {
        case 0:
          text[at] = static_cast<char>(random() % 256);
          break;
        case 1:
          text.erase(at, 1 + random() % 8);
          break;
        case 2:
          text.insert(at, text.substr(random() % text.size(), random() % 16));
          break;
        case 3:
          text.resize(at);
          break;
      }
    }
    const auto document = json::parse(text);
    if (document.has_value()) {
      ++understood;
      const auto& value = wire::payload(*document);
      const auto snapshot = wire::parse_range(value, base);
      if (snapshot.has_value()) CHECK(snapshot->index().value > 0);
      const auto committed = wire::parse_txn(value, base, t);
      if (committed.has_value()) CHECK(committed->version_of("config").has_value());
      CHECK(wire::parse_lease(value).ttl_seconds >= 0);
    }
    static_cast<void>(wire::parse_watch(text));
    static_cast<void>(wire::parse_version(text));
    const auto refusal = wire::parse_refusal(500, text);
    static_cast<void>(wire::meaning(refusal, wire::Kind::write));
    static_cast<void>(wire::from_base64(text));
  }
  CHECK(understood > 1000);
}

TEST_CASE("who the members are") {
  const auto listed = wire::parse_members(parsed(
      R"({)" + header +
      R"(,"members":[{"ID":"9007199254740993","name":"a","peerURLs":["http://a:2380"],"clientURLs":["http://a:2379","http://a:4001"]},)"
      R"({"ID":"2","peerURLs":["http://b:2380"]},{"ID":"3","clientURLs":["http://c:2379",7],"isLearner":true},8]})"));
  REQUIRE(listed.size() == 2);  // b has not started yet
  CHECK(listed[0].id == 9007199254740993u);
  CHECK(listed[0].client_urls == std::vector<std::string>{"http://a:2379", "http://a:4001"});
  CHECK_FALSE(listed[0].learner);
  CHECK(listed[1].learner);
  CHECK(listed[1].client_urls == std::vector<std::string>{"http://c:2379"});
  CHECK(wire::parse_members(parsed(R"({"members":{}})")).empty());
  const auto peers = wire::parse_peer_members(
      R"([{"id":10501334649042878790,"peerURLs":["http://a:2380"],"name":"a","clientURLs":["http://a:2379"]}])");
  REQUIRE(peers.size() == 1);
  CHECK(peers[0].client_urls == std::vector<std::string>{"http://a:2379"});
  CHECK(wire::parse_peer_members("<html>").empty());
  const auto status = wire::parse_status(R"({)" + header + R"(,"leader":"1","isLearner":true})");
  CHECK(status.id == 3319814642761637952u);
  CHECK(status.learner);
  CHECK(wire::parse_status("").id == 0);
}
