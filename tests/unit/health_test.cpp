// The read side of the REST interface by table: one row, one sentence, a delta from a healthy node.
#include <doctest/doctest.h>

#include <functional>
#include <string>
#include <vector>

#include "spilo/model/codec.hpp"
#include "spilo/rest/status_json.hpp"

using namespace spilo;
using namespace spilo::rest;
using namespace std::chrono_literals;

namespace {

constexpr TimePoint start{1000s};
const WallTime wall = *codec::parse_wall_time("2026-01-02T03:10:00+00:00");
const Instant now{start, wall};

Member member(const char* name, const char* role, std::uint64_t lsn) {
  Member out;
  out.name = NodeName(name);
  out.conn_url = std::string("postgres://10.0.0.") + name[1] + ":5432/postgres";
  out.api_url = std::string("http://10.0.0.") + name[1] + ":8008/patroni";
  out.state = "running";
  out.role = role;
  out.timeline = TimelineId{2};
  out.xlog_location = Lsn{lsn};
  if (std::string(role) == "replica") {
    out.replication_state = "streaming";
    out.receive_lsn = out.replay_lsn = Lsn{lsn};
  }
  return out;
}

ClusterView view() {
  ClusterView out;
  LeaderKey leader;
  leader.holder = NodeName("n1");
  out.leader = leader;
  out.members = {member("n1", "primary", 1000), member("n2", "replica", 900)};
  out.config = DynamicConfig{};
  out.config->document = *json::parse(R"({"ttl":10})");
  out.status.optime = Lsn{1000};
  out.failsafe = std::map<NodeName, std::string>{{NodeName("n1"), "http://10.0.0.1:8008/patroni"}};
  out.read_started = start - 1s;
  return out;
}

PublicStatus node(const char* name, NodeView::Role role) {
  PublicStatus out;
  out.identity.node = NodeName(name);
  out.identity.scope = Scope("demo");
  out.cluster = view();
  out.store_answers = true;
  out.store_last_seen = wall - 1s;
  out.alive_until = start + 10s;
  out.state = "running";
  NodeView server;
  server.data_dir = NodeView::DataDir::initialized;
  server.process = NodeView::Process::running;
  server.role = role;
  server.system_id = SystemId("7268616322854375442");
  server.timeline = TimelineId{2};
  server.server_version = 150020;
  server.start_time = "2026-01-02 03:04:05.123456+00:00";
  out.node = server;
  return out;
}

PublicStatus primary() {
  auto out = node("n1", NodeView::Role::primary);
  out.role = "primary";
  out.holds_lock = true;
  out.lock_valid_until = start + 5s;
  out.token = 42;
  out.node->flushed = Lsn{67419744};
  return out;
}

PublicStatus replica() {
  auto out = node("n2", NodeView::Role::replica);
  out.role = "replica";
  out.node->streaming = true;
  out.node->received = Lsn{1000};
  out.node->replayed = Lsn{900};
  return out;
}

int ask(const PublicStatus& status, const char* target, Instant at = now) {
  return health_status(status, at, Target(target));
}

struct Row {
  const char* sentence;
  std::function<void(PublicStatus&)> delta;
  const char* target;
  int expected;
};

void check(PublicStatus (*make)(), const std::vector<Row>& rows) {
  for (const auto& row : rows) {
    CAPTURE(row.sentence);
    CAPTURE(row.target);
    auto status = make();
    if (row.delta) row.delta(status);
    CHECK(ask(status, row.target) == row.expected);
  }
}

void standby_cluster(PublicStatus& s) {
  s.cluster->config->standby_cluster = true;
}
void paused(PublicStatus& s) {
  s.cluster->config->pause = true;
}
void no_view(PublicStatus& s) {
  s.cluster->read_started = start - 60s;
  s.store_answers = false;
}
void sync_standby(PublicStatus& s) {
  s.cluster->config->synchronous_mode = true;
  s.cluster->sync.leader = NodeName("n1");
  s.cluster->sync.voters = {NodeName("N2")};  // names are compared without case
}
void quorum_standby(PublicStatus& s) {
  sync_standby(s);
  s.cluster->config->quorum_mode = true;
}
void tagged(PublicStatus& s) {
  s.identity.tags = parse_tags(*json::parse(R"({"zone":"a","fast":true,"rack":1})"));
}

}  // namespace

TEST_CASE("health: a primary that holds the lock") {
  check(primary,
        {{"the root asks for the primary", {}, "/", 200},
         {"primary", {}, "/primary", 200},
         {"the old name", {}, "/master", 200},
         {"read-write", {}, "/read-write", 200},
         {"leader", {}, "/leader", 200},
         {"a primary is no replica", {}, "/replica", 503},
         {"no standby leader, and not a leader by substring", {}, "/standby-leader", 503},
         {"the spelling with an underscore", {}, "/standby_leader", 503},
         {"a primary can be read", {}, "/read-only", 200},
         {"also for those who want synchronous", {}, "/read-only-sync", 200},
         {"or quorum", {}, "/read-only-quorum", 200},
         {"health is about the server", {}, "/health", 200},
         {"an unknown path is no", {}, "/nonsense", 503},
         {"paths match by substring", {}, "/xprimaryx", 200},
         {"tag filters do not apply to the leader", {}, "/leader?tag_zone=b", 200},
         {"a lock that ran out since the picture was taken",
          [](PublicStatus& s) { s.lock_valid_until = start; },
          "/primary",
          503},
         {"writable, but without the lock",
          [](PublicStatus& s) { s.holds_lock = false; },
          "/primary",
          503},
         {"in a standby cluster nobody is primary", standby_cluster, "/primary", 503},
         {"the root neither", standby_cluster, "/", 503},
         {"but the leader leads", standby_cluster, "/leader", 200},
         {"paused without a store: the role counts",
          [](PublicStatus& s) {
            paused(s);
            no_view(s);
            s.holds_lock = false;
          },
          "/primary",
          200},
         {"not paused without a store: only the lock counts",
          [](PublicStatus& s) {
            no_view(s);
            s.holds_lock = false;
          },
          "/primary",
          503},
         {"store gone, lease still running", no_view, "/primary", 200},
         {"a server that does not answer is not healthy",
          [](PublicStatus& s) { s.node->process = NodeView::Process::hung; },
          "/health",
          503}});
}

TEST_CASE("health: a streaming replica") {
  check(replica,
        {{"replica", {}, "/replica", 200},
         {"replica by substring", {}, "/xreplicay", 200},
         {"not the primary", {}, "/primary", 503},
         {"not the leader", {}, "/leader", 503},
         {"readable", {}, "/read-only", 200},
         {"asynchronous", {}, "/async", 200},
         {"asynchronous, long", {}, "/asynchronous", 200},
         {"not synchronous", {}, "/sync", 503},
         {"exact paths are exact", {}, "/async/x", 503},
         {"100 bytes behind, 100 allowed", {}, "/replica?lag=100", 200},
         {"100 bytes behind, 99 allowed", {}, "/replica?lag=99", 503},
         {"a lag with a unit", {}, "/replica?lag=1kB", 200},
         {"a lag that can't be read does not limit", {}, "/replica?lag=soon", 200},
         {"the store knows of more than we received",
          [](PublicStatus& s) { s.cluster->status.optime = Lsn{5000}; },
          "/replica?lag=1000",
          503},
         {"streaming as asked", {}, "/replica?replication_state=streaming", 200},
         {"not streaming",
          [](PublicStatus& s) { s.node->streaming = false; },
          "/replica?replication_state=streaming",
          503},
         {"not for load balancers",
          [](PublicStatus& s) { s.identity.tags.noloadbalance = true; },
          "/replica",
          503},
         {"still starting",
          [](PublicStatus& s) {
            s.node->process = NodeView::Process::starting;
            s.state = "starting";
          },
          "/replica",
          503},
         {"a replica survives a store outage", no_view, "/replica", 200},
         {"but what depends on the view does not", no_view, "/async", 503},
         {"tags: text", tagged, "/replica?tag_zone=a", 200},
         {"tags: other text", tagged, "/replica?tag_zone=b", 503},
         {"tags: a boolean in lower case", tagged, "/replica?tag_fast=true", 200},
         {"tags: a number", tagged, "/replica?tag_rack=1", 200},
         {"tags: every one must match", tagged, "/replica?tag_zone=a&tag_rack=2", 503},
         {"tags: an unknown one", tagged, "/health?tag_color=red", 503},
         {"synchronous standby", sync_standby, "/sync", 200},
         {"synchronous standby, long", sync_standby, "/synchronous", 200},
         {"a synchronous standby is not asynchronous", sync_standby, "/async", 503},
         {"readable and synchronous", sync_standby, "/read-only-sync", 200},
         {"not a quorum standby", sync_standby, "/quorum", 503},
         {"quorum standby", quorum_standby, "/quorum", 200},
         {"readable and in the quorum", quorum_standby, "/read-only-quorum", 200},
         {"a quorum standby is not synchronous", quorum_standby, "/sync", 503},
         {"standby leader",
          [](PublicStatus& s) {
            standby_cluster(s);
            s.role = "standby_leader";
            s.holds_lock = true;
            s.lock_valid_until = start + 5s;
          },
          "/standby-leader",
          200}});
}

TEST_CASE("health: liveness and readiness") {
  auto status = replica();
  CHECK(liveness_status(status, now) == 200);
  CHECK(liveness_status(status, Instant{start + 10s, wall}) == 503);
  paused(status);
  CHECK(liveness_status(status, Instant{start + 10s, wall}) == 200);

  CHECK(readiness_status(primary(), now, Target("/readiness")) == 200);
  CHECK(readiness_status(replica(), now, Target("/readiness")) == 200);
  auto behind = replica();
  behind.cluster->status.optime = Lsn{3000000};
  CHECK(readiness_status(behind, now, Target("/readiness")) == 503);
  CHECK(readiness_status(behind, now, Target("/readiness?lag=10MB")) == 200);
  behind.node->received = Lsn{3000000};  // everything is here, but not replayed
  CHECK(readiness_status(behind, now, Target("/readiness?mode=apply")) == 503);
  CHECK(readiness_status(behind, now, Target("/readiness?mode=write")) == 200);
  auto silent = replica();
  silent.node->streaming = false;
  CHECK(readiness_status(silent, now, Target("/readiness")) == 503);
  PublicStatus nothing;
  CHECK(readiness_status(nothing, now, Target("/readiness")) == 503);
  nothing.failsafe_active = true;
  CHECK(readiness_status(nothing, now, Target("/readiness")) == 200);
}

TEST_CASE("health: nothing is known before the first picture") {
  const PublicStatus nothing;
  for (const char* path : {"/", "/primary", "/replica", "/leader", "/health", "/async", "/x"})
    CHECK(ask(nothing, path) == 503);
}

TEST_CASE("status JSON: a primary, key by key") {
  auto status = primary();
  WalSender sender;
  sender.application_name = "n2";
  sender.user = "replicator";
  sender.client_addr = "127.0.0.1";
  sender.state = "streaming";
  sender.sync_state = "async";
  status.node->wal_senders = {sender};
  status.identity.tags = parse_tags(*json::parse(R"({"clonefrom":true})"));
  status.rule = "leading";
  status.summary = "no action";
  CHECK(json::dump(patroni_json(status, now), json::Style::spaced) ==
        R"({"state": "running", "postmaster_start_time": "2026-01-02 03:04:05.123456+00:00", )"
        R"("role": "primary", "server_version": 150020, "xlog": {"location": 67419744}, )"
        R"("timeline": 2, "replication": [{"usename": "replicator", "application_name": "n2", )"
        R"("client_addr": "127.0.0.1", "state": "streaming", "sync_state": "async", )"
        R"("sync_priority": 0}], "dcs_last_seen": 1767323399, "tags": {"clonefrom": true}, )"
        R"("database_system_identifier": "7268616322854375442", )"
        R"("patroni": {"version": "4.1.4", "scope": "demo", "name": "n1"}, )"
        R"("spilo": {"rule": "leading", "summary": "no action", "token": 42, "lease_ms": 5000}})");
  status.watchdog_failed = true;  // peers pass it over
  CHECK(patroni_json(status, now).get_bool("watchdog_failed") == true);
}

TEST_CASE("status JSON: what a peer reads of a replica, and of a server that is down") {
  auto status = replica();
  const auto body = json::dump(patroni_json(status, now), json::Style::spaced);
  const auto peer = codec::parse_peer_status(NodeName("n2"), body);
  CHECK(peer.reachable);
  CHECK(peer.in_recovery);
  CHECK(peer.lsn == Lsn{1000});
  CHECK(peer.timeline == TimelineId{2});
  CHECK(body.find(R"("replication_state": "streaming")") != std::string::npos);
  CHECK(body.find(R"("replayed_timestamp": null, "paused": false)") != std::string::npos);

  status.node->process = NodeView::Process::stopped;
  status.state = "stopped";
  const auto down = patroni_json(status, now);
  CHECK(down.find("xlog") == nullptr);
  CHECK(down.get_string("state") == "stopped");
  CHECK(!codec::parse_peer_status(NodeName("n2"), json::dump(down)).reachable);

  sync_standby(status);
  status.node->process = NodeView::Process::running;
  status.state = "running";
  no_view(status);
  const auto cut_off = patroni_json(status, now);
  CHECK(cut_off.get_bool("sync_standby"));
  CHECK(cut_off.get_bool("cluster_unlocked"));
}

TEST_CASE("cluster JSON: roles, lag and what is planned") {
  auto status = primary();
  status.cluster->members.push_back(member("n3", "replica", 0));
  status.cluster->members[2].state = "starting";
  status.cluster->members[2].replication_state = "";
  status.cluster->failover.leader = NodeName("n1");
  status.cluster->failover.candidate = NodeName("n2");
  status.cluster->failover.scheduled_at = codec::parse_wall_time("2026-05-06T07:08:09+00:00");
  CHECK(json::dump(cluster_json(status), json::Style::spaced) ==
        R"({"members": [{"name": "n1", "role": "leader", "state": "running", )"
        R"("api_url": "http://10.0.0.1:8008/patroni", "host": "10.0.0.1", "port": 5432, )"
        R"("timeline": 2}, {"name": "n2", "role": "replica", "state": "streaming", )"
        R"("api_url": "http://10.0.0.2:8008/patroni", "host": "10.0.0.2", "port": 5432, )"
        R"("timeline": 2, "receive_lsn": "0/384", "receive_lag": 100, "replay_lsn": "0/384", )"
        R"("replay_lag": 100, "lsn": "0/384", "lag": 100}, {"name": "n3", "role": "replica", )"
        R"("state": "starting", "api_url": "http://10.0.0.3:8008/patroni", "host": "10.0.0.3", )"
        R"("port": 5432, "timeline": 2, "receive_lsn": "unknown", "receive_lag": "unknown", )"
        R"("replay_lsn": "unknown", "replay_lag": "unknown", "lsn": "unknown", )"
        R"("lag": "unknown"}], "scheduled_switchover": {"at": "2026-05-06T07:08:09+00:00", )"
        R"("from": "n1", "to": "n2"}, "scope": "demo"})");
  sync_standby(status);
  paused(status);
  const auto out = cluster_json(status);
  CHECK(out.get_bool("pause"));
  CHECK((*out.find("members")->as_array())[1].get_string("role") == "sync_standby");
}

TEST_CASE("failsafe, history and why") {
  auto status = primary();
  REQUIRE(failsafe_json(status));
  CHECK(json::dump(*failsafe_json(status)) == R"({"n1":"http://10.0.0.1:8008/patroni"})");
  status.cluster->config->failsafe_mode = false;
  CHECK(!failsafe_json(status));

  CHECK(json::dump(history_json(status)) == "[]");
  status.cluster->history = codec::parse_history(
      R"([[1,25623960,"no recovery target specified","2026-01-02T03:04:05.678901+00:00","n2"]])");
  CHECK(json::dump(history_json(status)) ==
        R"([[1,25623960,"no recovery target specified","2026-01-02T03:04:05.678901+00:00","n2"]])");

  StatusBoard board(2);
  for (const char* rule : {"one", "two", "three"}) {
    DecisionRecord record;
    record.rule = rule;
    record.wall = wall;
    board.record(record);
  }
  const auto why = why_json(status, board.records(), 2);
  REQUIRE(why.find("records")->as_array()->size() == 1);
  CHECK((*why.find("records")->as_array())[0].get_string("rule") == "three");
  CHECK(why.get_int("next") == 3);
  CHECK(why_json(status, board.records(), 0).find("records")->as_array()->size() == 2);
}

TEST_CASE("metrics: names, types and values that dashboards read") {
  const auto text = metrics_text(primary(), now);
  const auto has = [&](std::string_view line) { return text.find(line) != std::string::npos; };
  CHECK(has("# TYPE patroni_version gauge\npatroni_version{scope=\"demo\",name=\"n1\"} 040104\n"));
  CHECK(
      has("# TYPE patroni_xlog_location counter\n"
          "patroni_xlog_location{scope=\"demo\",name=\"n1\"} 67419744\n"));
  CHECK(has("patroni_primary{scope=\"demo\",name=\"n1\"} 1\n"));
  CHECK(has("patroni_replica{scope=\"demo\",name=\"n1\"} 0\n"));
  CHECK(has("patroni_postgres_state{scope=\"demo\",name=\"n1\"} 5\n"));
  CHECK(has("patroni_postmaster_start_time{scope=\"demo\",name=\"n1\"} 1767323045.123\n"));
  CHECK(has("patroni_failsafe_member{scope=\"demo\",name=\"n1\"} 1\n"));
  CHECK(has("patroni_postgres_streaming"));
  auto down = primary();
  down.node->process = NodeView::Process::stopped;
  down.state = "stopped";
  const auto other = metrics_text(down, now);
  CHECK(other.find("patroni_postgres_streaming") == std::string::npos);
  CHECK(other.find("patroni_postgres_state{scope=\"demo\",name=\"n1\"} 12\n") != std::string::npos);
  CHECK(other.find("patroni_xlog_location{scope=\"demo\",name=\"n1\"} 0\n") != std::string::npos);
}

TEST_CASE("targets are taken apart") {
  const Target target("/replica/x?lag=10MB&tag_zone=a%20b&flag&bad=%zz");
  CHECK(target.path() == "/replica/x");
  CHECK(target.first_segment() == "replica");
  CHECK(target.find("lag") == std::string_view("10MB"));
  CHECK(target.find("tag_zone") == std::string_view("a b"));
  CHECK(target.find("flag") == std::string_view(""));
  CHECK(target.find("bad") == std::string_view("%zz"));
  CHECK(!target.find("none"));
  CHECK(Target("").path() == "/");
  CHECK(Target("/").first_segment().empty());
}

TEST_CASE("status board: listeners come and go while they are called") {
  StatusBoard board;
  int calls = 0;
  int second = 0;
  const int first = board.subscribe([&] {
    ++calls;
    board.unsubscribe(second);
  });
  second = board.subscribe([&] { calls += 100; });
  board.publish(std::make_shared<PublicStatus>());
  CHECK(calls == 1);
  board.unsubscribe(first);
  board.publish(std::make_shared<PublicStatus>());
  CHECK(calls == 1);
}
