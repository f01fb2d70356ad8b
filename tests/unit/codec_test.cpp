#include "spilo/model/codec.hpp"

#include <doctest/doctest.h>

#include <random>

#include "spilo/model/keys.hpp"
#include "spilo/runtime/cluster_store.hpp"

using namespace spilo;

namespace {

json::Value parsed(std::string_view text) {
  auto value = json::parse(text);
  REQUIRE_MESSAGE(value.has_value(), text);
  return *value;
}

}  // namespace

TEST_CASE("a member reads back as it was written, byte for byte") {
  const char* golden[] = {
      R"({"conn_url":"postgres://10.0.0.2:5432/postgres","api_url":"http://10.0.0.2:8008/patroni","state":"running","role":"replica","version":"4.1.4","tags":{"clonefrom":true},"xlog_location":67395656,"replay_lsn":67395656,"receive_lsn":67395656,"replication_state":"streaming","timeline":5})",
      R"({"conn_url":"postgres://[::1]:5432/postgres","api_url":"https://[::1]:8008/patroni","state":"running","role":"primary","version":"4.1.4","checkpoint_after_promote":false,"tags":{"nofailover":false,"failover_priority":2,"z":[1,"a"],"a":""},"pending_restart":true,"pending_restart_reason":{"max_connections":{"old_value":"100","new_value":"200"}},"xlog_location":1,"timeline":4294967295,"scheduled_restart":{"schedule":"2026-01-02T03:04:05+00:00","postmaster_start_time":"x"},"pause":true})",
      R"({"conn_url":"","api_url":"","state":"stopped","role":"uninitialized","version":"4.1.4"})",
  };
  for (const char* text : golden)
    CHECK(codec::dump_member(codec::parse_member(NodeName("a"), text)) == text);

  const auto member = codec::parse_member(NodeName("node-b"), golden[0]);
  CHECK(member.name == NodeName("node-b"));
  CHECK(member.role == "replica");
  CHECK(member.tags.clonefrom);
  CHECK(member.timeline == TimelineId{5});
  CHECK(member.receive_lsn == Lsn{67395656});
  CHECK(member.checkpoint_after_promote);
  CHECK_FALSE(member.pause);
}

TEST_CASE("a member that can't be read is there without data, and old forms are understood") {
  for (const char* text :
       {"", "x", "{", "[]", "null", "17", R"({"state":5,"tags":[],"timeline":-1})"}) {
    CAPTURE(text);
    Member bare;
    bare.name = NodeName("a");
    CHECK(codec::parse_member(NodeName("a"), text) == bare);
  }
  const auto legacy = codec::parse_member(
      NodeName("a"),
      "postgres://u@h:5433/postgres?application_name=http%3A%2F%2Fh%3A8008%2Fpatroni&x=1");
  CHECK(legacy.conn_url == "postgres://u@h:5433/postgres");
  CHECK(legacy.api_url == "http://h:8008/patroni");
  CHECK(codec::parse_member(NodeName("a"), R"({"role":"master","xlog_location":"77"})").role ==
        "primary");
  CHECK(codec::parse_member(NodeName("a"), R"({"xlog_location":"77"})").xlog_location == Lsn{77});
}

TEST_CASE("tags: the boolean wins over the priority, and unset ones are not published") {
  struct Row {
    const char* tags;
    bool nofailover;
    int failover_priority;
    bool nosync;
    const char* published;
  };
  const Row rows[] = {
      {"{}", false, 1, false, "{}"},
      {R"({"nofailover":false,"clonefrom":false,"noloadbalance":"","nostream":0,"nosync":null})",
       false,
       1,
       false,
       "{}"},
      {R"({"nofailover":true})", true, 0, false, R"({"nofailover":true})"},
      {R"({"failover_priority":0})", true, 0, false, R"({"failover_priority":0})"},
      {R"({"failover_priority":"3"})", false, 3, false, R"({"failover_priority":"3"})"},
      {R"({"nofailover":false,"failover_priority":0})",
       false,
       0,
       false,
       R"({"nofailover":false,"failover_priority":0})"},
      {R"({"nofailover":true,"failover_priority":5})",
       true,
       0,
       false,
       R"({"nofailover":true,"failover_priority":5})"},
      {R"({"nosync":false,"sync_priority":-1})",
       false,
       1,
       false,
       R"({"nosync":false,"sync_priority":-1})"},
      {R"({"sync_priority":-1,"own":false})",
       false,
       1,
       true,
       R"({"sync_priority":-1,"own":false})"},
  };
  for (const auto& row : rows) {
    CAPTURE(row.tags);
    const auto tags = parse_tags(parsed(row.tags));
    CHECK(tags.nofailover == row.nofailover);
    CHECK(tags.failover_priority == row.failover_priority);
    CHECK(tags.nosync == row.nosync);
    CHECK(json::dump(published_tags(tags)) == row.published);
  }
  CHECK(parse_tags(parsed(R"({"replicatefrom":"n2"})")).replicatefrom == NodeName("n2"));
  CHECK(parse_tags(json::Value("text")) == Tags{});
}

TEST_CASE("failover: what is a request, and what is none") {
  struct Row {
    const char* text;
    const char* leader;
    const char* candidate;
    bool scheduled;
    const char* written;
  };
  const Row rows[] = {
      {"{}", "", "", false, "{}"},
      {"", "", "", false, "{}"},
      {"[]", "", "", false, "{}"},
      {"null", "", "", false, "{}"},
      {R"("text")", "", "", false, "{}"},
      {R"({"leader":)", "", "", false, "{}"},
      {R"({"leader":1,"member":null})", "", "", false, "{}"},
      {R"({"leader":"a"})", "a", "", false, R"({"leader":"a"})"},
      {R"({"member":"b"})", "", "b", false, R"({"member":"b"})"},
      {R"({"leader":"a","member":"b","scheduled_at":"2026-05-06T09:08:09.123+02:00"})",
       "a",
       "b",
       true,
       R"({"leader":"a","member":"b","scheduled_at":"2026-05-06T07:08:09.123000+00:00"})"},
      {R"({"leader":"a","scheduled_at":null})", "a", "", false, R"({"leader":"a"})"},
      {R"({"leader":"a","scheduled_at":"tomorrow"})", "", "", false, "{}"},
      {R"({"scheduled_at":"2026-05-06T07:08:09+00:00"})", "", "", true, "{}"},
      {"a:b", "a", "b", false, R"({"leader":"a","member":"b"})"},
      {" a : b ", "a", "b", false, R"({"leader":"a","member":"b"})"},
      {"a", "a", "", false, R"({"leader":"a"})"},
      {":b", "", "b", false, R"({"member":"b"})"},
  };
  for (const auto& row : rows) {
    CAPTURE(row.text);
    const auto request = codec::parse_failover(row.text);
    CHECK(request.leader.str() == row.leader);
    CHECK(request.candidate.str() == row.candidate);
    CHECK(request.scheduled_at.has_value() == row.scheduled);
    CHECK(codec::dump_failover(request) == row.written);
  }
}

TEST_CASE("sync: key order, sorted names, null for nobody, no leader means no state") {
  const char* golden[] = {
      R"({"leader":"node-a","quorum":0,"sync_standby":"node-b,node-c"})",
      R"({"leader":"node-a","quorum":0,"sync_standby":null})",
      R"({"leader":"node-a","quorum":1,"sync_standby":"node-b,node-c"})",
  };
  for (const char* text : golden) CHECK(codec::dump_sync(codec::parse_sync(text)) == text);
  CHECK(codec::dump_sync(SyncState{}) == R"({"leader":null,"quorum":0,"sync_standby":null})");
  SyncState unsorted;
  unsorted.leader = NodeName("a");
  unsorted.voters = {NodeName("c"), NodeName("b")};
  CHECK(codec::dump_sync(unsorted) == R"({"leader":"a","quorum":0,"sync_standby":"b,c"})");
  for (const char* text :
       {"", "[]", "{}", R"({"leader":null,"sync_standby":"b"})", R"({"leader":"","quorum":4})"})
    CHECK(codec::parse_sync(text) == SyncState{});
  CHECK(codec::parse_sync(R"({"leader":"a","sync_standby":" b , ,c"})").voters ==
        std::vector{NodeName("b"), NodeName("c")});
}

TEST_CASE("history and the cluster's timeline") {
  const char* golden =
      R"([[1,25623960,"no recovery target specified","2026-01-02T03:04:05.678901+00:00","node-b"],[2,25624000,"x"]])";
  const auto lines = codec::parse_history(golden);
  REQUIRE(lines);
  CHECK(codec::dump_history(*lines) == golden);
  CHECK(codec::dump_history({}) == "[]");

  struct Row {
    const char* text;
    bool known;
    std::uint32_t timeline;
  };
  const Row rows[] = {
      {"[]", true, 1},
      {golden, true, 3},
      {"", false, 0},
      {"{}", false, 0},
      {R"([[1,2,"a"],["x"]])", false, 0},
      {R"([["x"],[4,2,"a"]])", true, 5},
      {R"([[1,2,"a"],[null,2,"a"]])", false, 0},
  };
  for (const auto& row : rows) {
    CAPTURE(row.text);
    ClusterView view;
    view.history = codec::parse_history(row.text);
    CHECK(view.history.has_value() == row.known);
    CHECK(view.timeline() == TimelineId{row.timeline});
  }
}

TEST_CASE("status, failsafe and term") {
  const char* golden =
      R"({"optime":67395656,"slots":{"ls1":67390000,"node_a":67395656},"retain_slots":["node_a","node_b"]})";
  CHECK(codec::dump_status(codec::parse_status(golden)) == golden);
  CHECK(codec::dump_status(ClusterStatus{}) == R"({"optime":0})");
  CHECK(codec::parse_status("67395656").optime == Lsn{67395656});
  CHECK(codec::parse_status("\"67395656\"").optime == Lsn{67395656});
  CHECK(codec::parse_status(R"({"optime":"5","slots":"{\"a\":7}","retain_slots":"[\"a\"]"})") ==
        codec::parse_status(R"({"optime":5,"slots":{"a":7},"retain_slots":["a"]})"));
  for (const char* text : {"", "x", "-5", "[]", R"({"optime":null,"slots":[],"retain_slots":{}})"})
    CHECK(codec::parse_status(text) == ClusterStatus{});

  const char* failsafe = R"({"a":"http://a:8008/patroni","b":"http://b:8008/patroni"})";
  const auto members = codec::parse_failsafe(failsafe);
  REQUIRE(members);
  CHECK(codec::dump_failsafe(*members) == failsafe);
  CHECK(codec::parse_failsafe("{}").has_value());
  CHECK_FALSE(codec::parse_failsafe("[]").has_value());
  CHECK_FALSE(codec::parse_failsafe("").has_value());
  CHECK(codec::parse_failsafe(R"({"a":null})")->at(NodeName("a")).empty());
  const auto promised = [](std::string ttl) {
    return codec::parse_promise_ttl(*json::parse(R"({"name":"a","ttl":)" + ttl + "}"));
  };
  CHECK(promised("30") == std::chrono::seconds(30));
  for (const char* ttl : {"0", "-1", "1e9", "null", "[]", "999999999999999999999"}) CHECK(promised(ttl) == Duration(0));
  CHECK(json::dump(codec::dump_promise_ttl(std::chrono::milliseconds(2500))) == "3");  // never less than is counted on

  const char* term = R"({"number":3,"holder":"a","timeline":2})";
  CHECK(codec::dump_term(codec::parse_term(term)) == term);
  const std::string given_back =
      R"({"number":5,"holder":"a","timeline":4,"reserved":5,"released":true})";
  CHECK(codec::dump_term(codec::parse_term(given_back)) == given_back);
  CHECK(codec::parse_term(given_back).reserved == TimelineId{5});
  CHECK(codec::parse_term(given_back).released);
  for (const char* text : {"", "3", "{}", R"({"number":-1})"})
    CHECK(codec::parse_term(text) == Term{});
}

TEST_CASE("a peer is reachable only when it shows a WAL position") {
  struct Row {
    const char* body;
    bool reachable;
    bool in_recovery;
    std::uint64_t lsn;
    std::uint32_t timeline;
  };
  const Row rows[] = {
      {R"({"state":"running","role":"primary","xlog":{"location":67419744},"timeline":2})",
       true,
       false,
       0,
       2},
      {R"({"state":"running","role":"replica","xlog":{"received_location":70,"replayed_location":60,"replayed_timestamp":null,"paused":false},"timeline":null})",
       true,
       true,
       70,
       0},
      {R"({"state":"running","role":"replica","wal":{"received_location":0,"replayed_location":60}})",
       true,
       true,
       60,
       0},
      {R"({"role":"master","xlog":{}})", true, false, 0, 0},
      {R"({"state":"stopped","role":"replica"})", false, true, 0, 0},
      {R"({"xlog":null})", false, true, 0, 0},
      {"Accepted", false, true, 0, 0},
      {"", false, true, 0, 0},
  };
  for (const auto& row : rows) {
    CAPTURE(row.body);
    const auto peer = codec::parse_peer_status(NodeName("p"), row.body);
    CHECK(peer.reachable == row.reachable);
    CHECK(peer.problem.empty() == row.reachable);
    CHECK(peer.in_recovery == row.in_recovery);
    CHECK(peer.lsn == Lsn{row.lsn});
    CHECK(peer.timeline == TimelineId{row.timeline});
  }
  // Who says that it does not lead: only who knows, and is not about to.
  const std::pair<const char*, bool> answers[] = {
      {R"({"state":"running","role":"replica","xlog":{}})", true},
      {R"({"state":"starting","role":"replica"})", true},
      {R"({"state":"crashed","role":"demoted"})", true},
      {R"({"state":"stopped","role":"demoted"})", true},
      {R"({"state":"restarting","role":"demoted"})", false},
      {R"({"state":"starting","role":"demoted"})", false},
      {R"({"state":"unknown","role":"demoted"})", false},
      {R"({"state":"running","role":"primary","xlog":{}})", false},
      {R"({"state":"unknown","role":"uninitialized"})", false},
      {R"({})", false},
      {"", false},
  };
  for (const auto& row : answers) {  // clang 14 can't capture a structured binding
    CAPTURE(row.first);
    CHECK(codec::parse_peer_status(NodeName("p"), row.first).answered == row.second);
  }
  const auto tagged = codec::parse_peer_status(
      NodeName("p"), R"({"xlog":{},"watchdog_failed":true,"tags":{"failover_priority":0}})");
  CHECK(tagged.nofailover);
  CHECK(tagged.watchdog_failed);
  CHECK(tagged.failover_priority == 0);
}

TEST_CASE("wall time: ISO 8601 with an offset, and nothing else") {
  struct Row {
    const char* text;
    const char* written;  // null: not accepted
  };
  const Row rows[] = {
      {"2026-05-06T07:08:09.123000+00:00", "2026-05-06T07:08:09.123000+00:00"},
      {"2026-05-06T07:08:09+00:00", "2026-05-06T07:08:09+00:00"},
      {"2026-05-06 07:08:09.123456+00:00", "2026-05-06T07:08:09.123000+00:00"},
      {"2026-05-06T09:08:09+02:00", "2026-05-06T07:08:09+00:00"},
      {"2026-05-06T01:38+0530", "2026-05-05T20:08:00+00:00"},
      {"2026-05-06 07:08:09 -03", "2026-05-06T10:08:09+00:00"},
      {"2026-05-06T07:08:09Z", "2026-05-06T07:08:09+00:00"},
      {"2026-05-06 07:08 UTC", "2026-05-06T07:08:00+00:00"},
      {"1969-12-31T23:59:59.5Z", "1969-12-31T23:59:59.500000+00:00"},
      {"2024-02-29T00:00Z", "2024-02-29T00:00:00+00:00"},
      {"2026-02-29T00:00Z", nullptr},
      {"2026-05-06T07:08:09", nullptr},
      {"2026-05-06", nullptr},
      {"2026-05-06T24:08:09Z", nullptr},
      {"2026-05-06T07:60:09Z", nullptr},
      {"2026-05-06T07:08:09.Z", nullptr},
      {"2026-05-06T07:08:09+24:00", nullptr},
      {"2026-05-06T07:08:09+00:00x", nullptr},
      {"2026-13-06T07:08:09Z", nullptr},
      {"now", nullptr},
      {"", nullptr},
  };
  for (const auto& row : rows) {
    CAPTURE(row.text);
    const auto time = codec::parse_wall_time(row.text);
    REQUIRE(time.has_value() == (row.written != nullptr));
    if (time) CHECK(codec::dump_wall_time(*time) == row.written);
  }
}

TEST_CASE("addresses of members") {
  using codec::HostPort;
  CHECK(codec::parse_conn_url("postgres://10.0.0.2:5433/postgres") == HostPort{"10.0.0.2", 5433});
  CHECK(codec::parse_conn_url("postgresql://u:p@h/db?x=1") == HostPort{"h", 5432});
  CHECK(codec::parse_conn_url("postgres://[::1]:6000/db") == HostPort{"::1", 6000});
  CHECK(codec::parse_conn_url("postgres://[::1]") == HostPort{"::1", 5432});
  for (const char* bad : {"",
                          "http://h:1/",
                          "postgres://",
                          "postgres://h:x/",
                          "postgres://h:0/",
                          "postgres://h:70000/",
                          "postgres://[::1:5432/",
                          "postgres://[::1]5432/"})
    CHECK_FALSE_MESSAGE(codec::parse_conn_url(bad).has_value(), bad);
  CHECK(codec::to_text(HostPort{"::1", 6000}) == "[::1]:6000");
  CHECK(codec::to_text(HostPort{"h", 5432}) == "h:5432");
}

TEST_CASE("slot names") {
  const std::pair<const char*, const char*> rows[] = {
      {"node-a", "node_a"},
      {"Node.B", "node_b"},
      {"a b", "au0032b"},
      {"caf\xc3\xa9", "cafu0233"},
      {"\xc3\x89", "u0233"},
      {"", ""},
      {"\xff", "u0255"},
      {"\xf0\x9f\x98\x80", "u128512"},
  };
  for (const auto& [name, slot] : rows) CHECK(codec::slot_name(NodeName(name)) == slot);
  CHECK(codec::slot_name(NodeName(std::string(80, 'x'))).size() == 63);
}

TEST_CASE("mutated documents never break a reader") {
  const std::string seeds[] = {
      R"({"conn_url":"postgres://10.0.0.2:5432/postgres","api_url":"http://h/patroni","state":"running","role":"replica","version":"4.1.4","tags":{"clonefrom":true,"failover_priority":"3"},"xlog_location":67395656,"timeline":5,"scheduled_restart":{"schedule":"x"}})",
      "postgres://u:p@[::1]:5433/db?application_name=http%3A%2F%2Fh",
      R"({"leader":"a","member":"b","scheduled_at":"2026-05-06T09:08:09.123+02:00"})",
      R"({"leader":"a","quorum":1,"sync_standby":"b,c"})",
      R"([[1,25623960,"reason","2026-01-02T03:04:05+00:00","b"],[2,3,"x"]])",
      R"({"optime":67395656,"slots":{"a":1},"retain_slots":["a"]})",
      R"({"a":"http://a"})",
      R"({"number":3,"holder":"a","timeline":2})",
      R"({"state":"running","role":"replica","xlog":{"received_location":7,"replayed_location":6},"timeline":2,"tags":{}})",
      R"({"ttl":30,"loop_wait":10,"retry_timeout":"10","synchronous_mode":"quorum","slots":{"a":{"type":"physical"}},"ignore_slots":[],"standby_cluster":{"host":"h"},"postgresql":{"parameters":{"max_connections":200},"pg_hba":["x"]}})",
      "2026-05-06T07:08:09.123+00:00",
      "a:b",
  };
  std::mt19937 random(20260506);
  std::size_t read = 0;
  for (const auto& seed : seeds) {
    for (int round = 0; round < 300; ++round) {
      std::string text = seed;
      for (auto edits = 1 + random() % 4; edits > 0 && !text.empty(); --edits) {
        const auto at = random() % text.size();
        switch (random() % 4) {
          case 0:
            text[at] = static_cast<char>(random() % 256);
            break;
          case 1:
            text.erase(at, 1 + random() % 5);
            break;
          case 2:
            text.insert(at, 1, "{}[],:\"0-9e+\\"[random() % 13]);
            break;
          default:
            text.insert(at, seeds[random() % std::size(seeds)].substr(0, random() % 20));
        }
      }
      dcs::Version version;
      std::vector<dcs::Entry> entries;
      for (const char* key : {keys::initialize,
                              keys::config,
                              keys::leader,
                              keys::status,
                              keys::optime,
                              keys::failover,
                              keys::history,
                              keys::sync,
                              keys::failsafe,
                              keys::term})
        entries.emplace_back(key, text, version);
      entries.emplace_back("members/" + text, text, version);
      const auto view =
          parse_cluster(dcs::Snapshot(std::move(entries), dcs::Index{}, true), TimePoint{});
      // What was written once reads back and is written the same way again.
      for (const auto& member : view.members) {
        const auto once = codec::dump_member(member);
        CHECK(codec::dump_member(codec::parse_member(member.name, once)) == once);
        (void)codec::slot_name(member.name);
        (void)codec::parse_conn_url(member.conn_url);
      }
      const auto failover = codec::dump_failover(view.failover);
      CHECK(codec::dump_failover(codec::parse_failover(failover)) == failover);
      const auto status = codec::dump_status(view.status);
      CHECK(codec::dump_status(codec::parse_status(status)) == status);
      const auto sync = codec::dump_sync(view.sync);
      CHECK(codec::dump_sync(codec::parse_sync(sync)) == sync);
      const auto term = codec::dump_term(view.term);
      CHECK(codec::dump_term(codec::parse_term(term)) == term);
      (void)codec::parse_peer_status(NodeName("p"), text);
      (void)codec::parse_conn_url(text);
      (void)codec::parse_wall_time(text);
      if (const auto document = json::parse(text)) {
        ++read;
        (void)validate_dynamic_config(*document);
        (void)parse_duration(*document);
        (void)parse_bytes(*document);
      }
    }
  }
  CHECK(read > 100);  // some mutants are still documents, or the test would prove little
}
