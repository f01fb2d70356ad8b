// Decisions by table: each row is one sentence, a delta from the healthy cluster, the rule that
// decides and its effects in full (without the member key, which follows every change of state).
#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "rows.hpp"

using namespace spilo;
using namespace spilo::tables;
using ha::TaskKind;


TEST_CASE("decide: following") {
  check({
      {"a streaming replica of the leader has nothing to do", [](Case&) {}, "secondary", {}},
      {"a replica of somebody else follows the leader without a restart",
       [](Case& c) { c.node().upstream = "10.0.0.3:5432"; },
       "follow",
       {"start-task follow upstream=n2"}},
      {"replicatefrom names another source",
       [](Case& c) { c.id.tags.replicatefrom = NodeName("n3"); },
       "follow",
       {"start-task follow upstream=n3"}},
      {"replicatefrom a member that is away falls back to the leader",
       [](Case& c) { c.id.tags.replicatefrom = NodeName("n9"); },
       "secondary",
       {}},
      {"a replica that has not streamed for long is checked for divergence",
       [](Case& c) {
         c.node().streaming = false;
         c.memory.not_streaming_since = t0 - 7s;
       },
       "rejoin",
       {"start-task rejoin upstream=n2"}},
      {"a short gap in the stream is no reason",
       [](Case& c) {
         c.node().streaming = false;
         c.memory.not_streaming_since = t0 - 2s;
       },
       "secondary",
       {}},
      {"nothing is rejoined to a leader that is not up yet",
       [](Case& c) {
         c.node().streaming = false;
         c.memory.not_streaming_since = t0 - 60s;
         c.cluster().members[1].state = "starting";
       },
       "secondary",
       {}},
      {"a server that is down is started as a replica of the leader",
       [](Case& c) { c.stopped(); },
       "start-server",
       {"start-task rejoin upstream=n2"}},
      {"after a failed attempt it waits",
       [](Case& c) {
         c.stopped();
         c.memory.attempt_not_before = t0 + 3s;
       },
       "start-server",
       {}},
      {"paused, nothing is started",
       [](Case& c) {
         c.stopped();
         c.config().pause = true;
       },
       "down-while-paused",
       {}},
      {"a system identifier of another cluster ends the agent, and touches nothing",
       [](Case& c) { c.node().system_id = SystemId("7000000000000000001"); },
       "system-id-mismatch",
       {"exit 1: system ID mismatch, node n1 belongs to a different cluster: 7268616322854375442 "
        "!= "
        "7000000000000000001; the data directory was not touched. Point this node at the right "
        "scope, or move its "
        "data directory away to let it clone the cluster"}},
  });
}

TEST_CASE("decide: operators' requests") {
  const auto ask = [](Case& c, ha::OperatorRequest::Kind kind) {
    ha::OperatorRequest request;
    request.id = 5;
    request.kind = kind;
    c.facts.requests.push_back(request);
  };
  using Kind = ha::OperatorRequest::Kind;
  check({
      {"a restart", [&](Case& c) { ask(c, Kind::restart); }, "restart", {"start-task restart"}},
      {"not while something else runs",
       [&](Case& c) {
         ask(c, Kind::restart);
         c.task(TaskKind::follow);
       },
       "task-running",
       {"reply 503 follow already in progress"}},
      {"it waits for a reload, which takes a moment",
       [&](Case& c) {
         ask(c, Kind::restart);
         c.task(TaskKind::reload);
       },
       "task-running",
       {}},
      {"a reload of a server that has died is not waited for",
       [](Case& c) {
         c.stopped();
         c.task(TaskKind::reload);
       },
       "task-running",
       {"cancel-task"}},
      {"not when the filter does not match",
       [&](Case& c) {
         ask(c, Kind::restart);
         c.facts.requests[0].role = "primary";
       },
       "secondary",
       {"reply 503 restart conditions are not satisfied"}},
      {"a scheduled restart is deleted, whatever runs",
       [&](Case& c) {
         ask(c, Kind::cancel_restart);
         c.memory.scheduled_restart = c.facts.requests[0];
         c.task(TaskKind::follow);
       },
       "task-running",
       {"reply 200 scheduled restart deleted"}},
      {"there is none",
       [&](Case& c) { ask(c, Kind::cancel_restart); },
       "secondary",
       {"reply 404 no restarts are scheduled"}},
      {"reinitialize a replica",
       [&](Case& c) { ask(c, Kind::reinitialize); },
       "reinitialize",
       {"start-task rejoin upstream=n2 force"}},
      {"a forced one takes the place of other work",
       [&](Case& c) {
         ask(c, Kind::reinitialize);
         c.facts.requests[0].force = true;
         c.task(TaskKind::rejoin);
       },
       "task-running",
       {"cancel-task"}},
      {"but not of its own",
       [&](Case& c) {
         ask(c, Kind::reinitialize);
         c.facts.requests[0].force = true;
         c.memory.serving = c.facts.requests[0];
         c.task(TaskKind::rejoin);
       },
       "task-running",
       {}},
      {"the leader is not reinitialized",
       [&](Case& c) {
         c.i_lead();
         ask(c, Kind::reinitialize);
       },
       "keep-lock",
       {"reply 503 I am the leader, can not reinitialize"}},
      {"without a leader there is nothing to copy",
       [&](Case& c) {
         c.nobody_leads();
         c.config().pause = true;
         ask(c, Kind::reinitialize);
       },
       "race-excluded",
       {"reply 503 Cluster has no leader, can not reinitialize"}},
  });
}

TEST_CASE("books: what a leader keeps in the store beside its lock") {
  check({
      {"a write that failed is repeated on a younger read only, or it fails again as fast as the store can",
       [](Case& c) {
         c.i_lead();
         c.node().timeline = TimelineId{1};
         c.facts.write_ended_at = t0 - 100ms;  // the read is older
       },
       "keep-lock",
       {}},
      {"a new timeline goes into the history, with the name of who began it",
       [](Case& c) {
         c.i_lead();
         c.node().timeline = TimelineId{3};
         c.node().history = {HistoryLine{.timeline = TimelineId{1}, .switch_lsn = Lsn{5}},
                             HistoryLine{.timeline = TimelineId{2},
                                         .switch_lsn = Lsn{900},
                                         .reason = "no recovery target specified",
                                         .timestamp = "2026-01-02T03:04:05+00:00"}};
       },
       "keep-lock",
       {"write "
        "history=[[1,5,\"\"],[2,900,\"no recovery target specified\",\"2026-01-02T03:04:05+00:00\","
        "\"n1\"]] fenced"}},
      {"a cluster that was never promoted has none",
       [](Case& c) {
         c.i_lead();
         c.node().timeline = TimelineId{1};
       },
       "keep-lock",
       {"write history=[] fenced"}},
      {"a store that has lost the configuration gets the one that is in force",
       [](Case& c) {
         c.i_lead();
         c.config().document = json::Value::object();
         c.config().document.set("ttl", 20);
         c.cluster().config_version = dcs::Version{};
       },
       "keep-lock",
       {"write config={\"ttl\":20} fenced"}},
  });
}

TEST_CASE("machine: the last good configuration stays in force") {
  auto c = healthy();
  ha::Machine machine(c.id);
  const auto read = [&](std::optional<int> loop_wait) {
    auto view = *c.facts.cluster;
    view.config.reset();
    if (loop_wait) {
      view.config = DynamicConfig{};
      view.config->timing.loop_wait = std::chrono::seconds(*loop_wait);
    }
    view.read_started = t0;
    machine.step(t0, WallTime{}, ha::ClusterRead{view});
    return ha::timing(machine.identity(), machine.facts()).loop_wait;
  };
  CHECK(read(7) == 7s);
  CHECK(read(std::nullopt) == 7s);
  CHECK(read(3) == 3s);
}

TEST_CASE("rules: every name is unique and has a sentence") {
  std::vector<std::string_view> names;
  for (const auto& rule : ha::rules()) {
    CHECK(rule.sentence.size() > 10);
    CHECK(rule.sentence.ends_with("."));
    names.push_back(rule.name);
  }
  std::ranges::sort(names);
  CHECK(std::ranges::adjacent_find(names) == names.end());
}
