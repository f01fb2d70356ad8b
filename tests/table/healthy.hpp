// The fixture of the decision tables: a healthy three-node cluster as n1 sees it. A row is a delta
// from it.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "spilo/ha/machine.hpp"

namespace spilo::tables {

using namespace std::chrono_literals;

inline constexpr TimePoint t0{std::chrono::hours(1)};
inline const SystemId system_id{"7268616322854375442"};

struct Case {
  ha::Identity id;
  ha::Facts facts;
  ha::Memory memory;

  NodeView& node() { return *facts.node; }
  ClusterView& cluster() { return *facts.cluster; }
  DynamicConfig& config() { return *facts.cluster->config; }

  void lead(const char* name, const char* session) {
    cluster().leader = LeaderKey{NodeName(name), {40, 40}, SessionId(session)};
    memory.unlocked_since = TimePoint{};
  }
  void nobody_leads() {
    cluster().leader.reset();
    memory.unlocked_since = t0 - 100ms;
    memory.last_leader = NodeName("n2");
    node().observed_at = t0 - 50ms;
  }
  // The store has lost everything.
  void wiped() {
    cluster().initialize.reset();
    cluster().config_version = dcs::Version{};
    cluster().config.reset();
    cluster().term = Term{};
    cluster().history.reset();
    cluster().failsafe.reset();
    cluster().status = ClusterStatus{};
  }
  // n1 holds the lock and runs as the primary.
  void i_lead() {
    lead("n1", "s1");
    node().role = NodeView::Role::primary;
    node().flushed = Lsn{1000};
    node().streaming = false;
    node().upstream.clear();
    memory.was_primary = true;
    memory.last_term = cluster().term;
    for (auto& member : cluster().members) {
      member.role = member.name == id.node ? "primary" : "replica";
      facts.known_members[member.name] = member;
    }
    cluster().status.optime = Lsn{1000};
    memory.status_written = cluster().status;
  }
  void crashed() {
    node().process = NodeView::Process::crashed;
    node().control_state = "in production";
    memory.was_primary = false;
    memory.crashed_at = t0;
    memory.crash_count = 1;
  }
  void stopped() {
    node().process = NodeView::Process::stopped;
    node().control_state = "shut down";
  }
  PeerStatus& answered(const char* name, std::uint64_t lsn, TimePoint asked_at = t0) {
    auto& peer = facts.peers[NodeName(name)];
    peer.node = NodeName(name);
    peer.reachable = peer.answered = true;
    peer.timeline = TimelineId{2};
    peer.lsn = Lsn{lsn};
    peer.asked_at = asked_at;
    return peer;
  }
  void unreachable(const char* name, TimePoint asked_at = t0) {
    auto& peer = facts.peers[NodeName(name)];
    peer.node = NodeName(name);
    peer.problem = "connection refused";
    peer.asked_at = asked_at;
  }
  void task(ha::TaskKind kind) {
    facts.task = ha::RunningTask{.id = ha::TaskId{7}, .task = {.kind = kind}, .started = t0 - 1s};
  }
  void request(const char* leader, const char* candidate) {
    cluster().failover.leader = NodeName(leader);
    cluster().failover.candidate = NodeName(candidate);
    cluster().failover.version = {50, 50};
    memory.request_version = {50, 50};
    memory.request_seen_at = t0 - 50ms;
  }
};

inline Case healthy() {
  Case c;
  c.id.node = NodeName("n1");
  c.id.scope = Scope("batman");
  c.id.conn_url = "postgres://10.0.0.1:5432/postgres";
  c.id.api_url = "http://10.0.0.1:8008/patroni";

  ClusterView cluster;
  cluster.initialize = system_id.str();
  cluster.initialize_version = {10, 10};
  for (const char* name : {"n1", "n2", "n3"}) {
    Member member;
    member.name = NodeName(name);
    member.conn_url = std::string("postgres://10.0.0.") + name[1] + ":5432/postgres";
    member.api_url = std::string("http://10.0.0.") + name[1] + ":8008/patroni";
    member.state = "running";
    member.role = name == std::string("n2") ? "primary" : "replica";
    member.timeline = TimelineId{2};
    cluster.members.push_back(member);
    c.facts.known_members[member.name] = member;
  }
  cluster.config = DynamicConfig{};
  cluster.config_version = {11, 11};
  cluster.history = std::vector<HistoryLine>{HistoryLine{.timeline = TimelineId{1}}};
  cluster.status.optime = Lsn{1000};
  cluster.failsafe = std::map<NodeName, std::string>{};
  for (const auto& member : cluster.members) (*cluster.failsafe)[member.name] = member.api_url;
  cluster.term =
      Term{.number = 3, .holder = NodeName("n2"), .timeline = TimelineId{1}, .version = {12, 12}};
  cluster.read_started = t0 - 200ms;
  c.facts.cluster = cluster;
  c.lead("n2", "s2");

  NodeView node;
  node.data_dir = NodeView::DataDir::initialized;
  node.process = NodeView::Process::running;
  node.postmaster_pid = 4711;
  node.role = NodeView::Role::replica;
  node.system_id = system_id;
  node.timeline = TimelineId{2};
  node.received = node.replayed = Lsn{1000};
  node.streaming = true;
  node.upstream = "10.0.0.2:5432";
  node.slots = {"n2", "n3"};
  node.observed_at = t0 - 100ms;
  c.facts.node = node;

  c.facts.now = t0;
  c.facts.cluster_stale = false;
  c.facts.store_answers = true;
  c.facts.session = SessionId("s1");
  c.facts.session_valid_until = t0 + 9s;
  c.facts.guard_ready = true;
  c.memory.started_at = t0 - 1h;
  c.memory.config_applied = {11, 11};
  c.memory.slots_wanted = {"n2", "n3"};
  c.memory.slots_at = t0;
  c.memory.last_callback_role = "replica";
  c.memory.last_leader = NodeName("n2");
  return c;
}

}  // namespace spilo::tables
