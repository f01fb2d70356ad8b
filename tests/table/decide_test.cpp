// Decisions by table: each row is one sentence, a delta from the healthy cluster, the rule that
// decides and its effects in full (without the member key, which follows every change of state).
#include <doctest/doctest.h>

#include <algorithm>
#include <functional>
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

TEST_CASE("decide: keeping and losing the lock") {
  check({
      {"the leader with the lock goes on", [](Case& c) { c.i_lead(); }, "keep-lock", {}},
      {"without failsafe mode the leader empties the list, or who joins later could never lead",
       [](Case& c) {
         c.i_lead();
         c.config().failsafe_mode = false;
       },
       "keep-lock",
       {"write failsafe={} fenced"}},
      {"once",
       [](Case& c) {
         c.i_lead();
         c.config().failsafe_mode = false;
         c.cluster().failsafe->clear();
       },
       "keep-lock",
       {}},
      {"and writes none before its own configuration, which may turn it off, is in force",
       [](Case& c) {
         c.i_lead();
         c.id.bootstrap_dcs.set("failsafe_mode", false);
         c.cluster().config.reset();
         c.cluster().config_version = {};
         c.cluster().failsafe.reset();
       },
       "keep-lock",
       {R"(write config={"failsafe_mode":false} fenced)"}},
      {"a primary ends at once when somebody else leads",
       [](Case& c) {
         c.i_lead();
         c.lead("n2", "s2");
       },
       "lock-taken",
       {"kill-server: another node leads"}},
      {"once: the next picture shows whether it is gone",
       [](Case& c) {
         c.i_lead();
         c.lead("n2", "s2");
         c.memory.killed_at = t0 - 10ms;
         c.facts.node_changed_at = t0 - 10ms;
         c.facts.in_flight = {ha::InFlight::observe};
       },
       "lock-taken",
       {}},
      {"again when it is still there after that",
       [](Case& c) {
         c.i_lead();
         c.lead("n2", "s2");
         c.memory.killed_at = t0 - 200ms;
       },
       "lock-taken",
       {"kill-server: another node leads"}},
      {"in pause it does not",
       [](Case& c) {
         c.i_lead();
         c.lead("n2", "s2");
         c.config().pause = true;
       },
       "secondary",
       {}},
      {"a silent store is no reason to stop while the lease lasts",
       [](Case& c) {
         c.i_lead();
         c.config().failsafe_mode = false;
         c.facts.store_answers = false;
         c.facts.session_valid_until = t0 + 3s;
       },
       "keep-lock",
       {}},
      {"just before the lease ends PostgreSQL is stopped in order",
       [](Case& c) {
         c.i_lead();
         c.config().failsafe_mode = false;
         c.facts.store_answers = false;
         c.facts.session_valid_until = t0 + 1100ms;
       },
       "lease-expiring",
       {"start-task stop"}},
      {"when the lease is over it is ended at once, whatever else runs",
       [](Case& c) {
         c.i_lead();
         c.config().failsafe_mode = false;
         c.facts.store_answers = false;
         c.facts.session_valid_until = t0 + 200ms;
         c.task(TaskKind::stop);
       },
       "lease-over",
       {"cancel-task", "kill-server: the lease is over"}},
      {"a process that slept through its lease does that before anything else, even with an order "
       "to stop",
       [](Case& c) {
         c.i_lead();
         c.config().failsafe_mode = false;
         c.facts.session_valid_until = t0 - 60s;
         c.facts.stop_requested = true;
       },
       "lease-over",
       {"kill-server: the lease is over"}},
      {"a promotion that outlives the lease is ended",
       [](Case& c) {
         c.i_lead();
         c.config().failsafe_mode = false;
         c.node().role = NodeView::Role::replica;
         c.memory.was_primary = false;
         c.task(TaskKind::promote);
         c.facts.session_valid_until = t0 + 100ms;
       },
       "lease-over",
       {"cancel-task", "kill-server: the lease is over"}},
      {"our key of an earlier session is bound to the present one",
       [](Case& c) {
         c.i_lead();
         c.lead("n1", "s0");
       },
       "rebind-lock",
       {"acquire-lock rebind term=3"}},
      {"a key that vanished under a running primary is taken again",
       [](Case& c) {
         c.i_lead();
         c.cluster().leader.reset();
         c.memory.unlocked_since = t0;
         c.memory.reclaim_until = t0 + 1s;
       },
       "reclaim-lock",
       {"acquire-lock term=3"}},
      {"but not when somebody has led since",
       [](Case& c) {
         c.i_lead();
         c.cluster().leader.reset();
         c.cluster().term = Term{.number = 4, .holder = NodeName("n3"), .timeline = TimelineId{2}, .version = {60, 60}};
         c.memory.unlocked_since = t0;
         c.memory.reclaim_until = t0 + 1s;
       },
       "reclaim-lock",
       {"kill-server: somebody else has led since"}},
      {"a store that was wiped is told again",
       [](Case& c) {
         c.i_lead();
         c.cluster().leader.reset();
         c.cluster().term = Term{};
         c.cluster().initialize.reset();
         c.memory.unlocked_since = t0;
         c.memory.reclaim_until = t0 + 1s;
       },
       "reclaim-lock",
       {"acquire-lock term=0"}},
      {"a primary found without a lock, which others have held, comes back as a replica",
       [](Case& c) {
         c.i_lead();
         c.memory.was_primary = false;
         c.memory.last_term = Term{};
         c.cluster().leader.reset();
         c.memory.unlocked_since = t0;
       },
       "adopt-primary",
       {"start-task stop"}},
      {"a primary with no lease known and no store is not left running",
       [](Case& c) {
         c.i_lead();
         c.memory = ha::Memory{};
         c.memory.started_at = t0 - 10s;
         c.facts.cluster.reset();
         c.facts.cluster_stale = false;
         c.facts.in_flight = {ha::InFlight::read_cluster};
         c.facts.store_answers = false;
       },
       "waiting-for-store",
       {"kill-server: no lease is known and the store does not answer",
        "callback on_start primary"}},
  });
}

TEST_CASE("decide: an outage of the store with failsafe") {
  check({
      {"the members are asked once half of the lease is gone",
       [](Case& c) {
         c.i_lead();
         c.facts.store_answers = false;
         c.facts.session_valid_until = t0 + 4s;
       },
       "keep-lock",
       {"ask-failsafe n2 n3"}},
      {"a store that takes renewals but can't be read has no authority: it may have lost everything",
       [](Case& c) {
         c.i_lead();
         c.facts.session = SessionId("s9");
         c.facts.read_failed_at = t0 - 10ms;
         c.facts.cluster_stale = true;
         c.memory.reclaim_until = t0 + 900ms;
       },
       "rebind-lock",
       {"ask-failsafe n2 n3", "acquire-lock rebind term=3"}},
      {"a renewal that is overdue: the members are asked, although nothing has failed yet",
       [](Case& c) {
         c.i_lead();
         c.facts.session_valid_until = t0 + 2s;
       },
       "keep-lock",
       {"ask-failsafe n2 n3"}},
      {"all have promised: the primary goes on without a session",
       [](Case& c) {
         c.i_lead();
         c.facts.store_answers = false;
         c.facts.session_valid_until = t0 - 1s;
         c.memory.failsafe_until = t0 + 9s;
       },
       "keep-without-store",
       {}},
      {"one refuses: it stops in time",
       [](Case& c) {
         c.i_lead();
         c.facts.store_answers = false;
         c.facts.session_valid_until = t0 + 1s;
         c.memory.failsafe_asked_at = t0 - 100ms;
         c.facts.failsafe_answers[NodeName("n2")] = FailsafeAnswer{NodeName("n2"), true};
         c.facts.failsafe_answers[NodeName("n3")] = FailsafeAnswer{NodeName("n3"), false};
       },
       "lease-expiring",
       {"start-task stop"}},
      {"who has promised does not race",
       [](Case& c) {
         c.nobody_leads();
         c.memory.promise.leader = NodeName("n2");
         c.memory.promise.until = t0 + 2s;
         c.answered("n2", 1000);
         c.answered("n3", 1000);
       },
       "race-promised",
       {}},
      {"a replica promises",
       [](Case& c) {
         c.facts.failsafe_questions = {{9, NodeName("n2")}};
       },
       "secondary",
       {"reply 200 Accepted"}},
      {"a promise holds for the leader's ttl, which may be longer than the one read here",
       [](Case& c) {
         c.facts.failsafe_questions = {{9, NodeName("n2"), 60s}};
       },
       "secondary",
       {"reply 200 Accepted"}},
      {"who leads does not promise",
       [](Case& c) {
         c.i_lead();
         c.facts.failsafe_questions = {{9, NodeName("n2")}};
       },
       "keep-lock",
       {"reply 500 Running as a leader"}},
      {"who is taking the lock just now does not promise",
       [](Case& c) {
         c.facts.in_flight = {ha::InFlight::acquire};
         c.facts.failsafe_questions = {{9, NodeName("n2")}};
       },
       "secondary",
       {"reply 500 Running as a leader"}},
  });
}

TEST_CASE("decide: a promise holds for the longer of both ttls, and never gets shorter") {
  const auto promised = [](Duration ttl, TimePoint before) {
    auto c = healthy();
    c.facts.failsafe_questions = {{9, NodeName("n2"), ttl}};
    c.memory.promise.until = before;
    return ha::decide(c.id, c.facts, c.memory).memory.promise.until;
  };
  const auto mine = ha::timing(healthy().id, healthy().facts).ttl;
  CHECK(promised(Duration(0), TimePoint{}) == t0 + mine);  // a sender that does not say
  CHECK(promised(mine / 2, TimePoint{}) == t0 + mine);
  CHECK(promised(mine * 3, TimePoint{}) == t0 + mine * 3);
  CHECK(promised(mine, t0 + mine * 2) == t0 + mine * 2);
}

TEST_CASE("decide: the leader counts on what it asked for, not on a ttl that was raised since") {
  auto c = healthy();
  c.i_lead();
  c.facts.store_answers = false;
  c.memory.failsafe_asked_at = t0 - 100ms;
  c.memory.failsafe_asked_ttl = 10s;
  c.config().timing.ttl = 60s;
  for (const auto* name : {"n2", "n3"})
    c.facts.failsafe_answers[NodeName(name)] = FailsafeAnswer{NodeName(name), true};
  CHECK(ha::decide(c.id, c.facts, c.memory).memory.failsafe_until == t0 - 100ms + 10s);
}

TEST_CASE("decide: the race") {
  check({
      {"positions are asked for first",
       [](Case& c) { c.nobody_leads(); },
       "acquire-lock",
       {"probe n2", "probe n3"}},
      {"the healthiest takes the lock",
       [](Case& c) {
         c.nobody_leads();
         c.unreachable("n2");
         c.answered("n3", 900);
       },
       "acquire-lock",
       {"acquire-lock term=3"}},
      {"who is behind does not",
       [](Case& c) {
         c.nobody_leads();
         c.unreachable("n2");
         c.answered("n3", 1001);
       },
       "acquire-lock",
       {}},
      {"who is ahead on an older timeline can't lead and is not waited for",
       [](Case& c) {
         c.nobody_leads();
         c.unreachable("n2");
         c.answered("n3", 1001).timeline = TimelineId{1};
       },
       "acquire-lock",
       {"acquire-lock term=3"}},
      {"who is ahead and does not say on which timeline may be right",
       [](Case& c) {
         c.nobody_leads();
         c.unreachable("n2");
         c.answered("n3", 1001).timeline = TimelineId{};
       },
       "acquire-lock",
       {}},
      {"a primary that still lives is left alone",
       [](Case& c) {
         c.nobody_leads();
         c.answered("n2", 0).in_recovery = false;
         c.answered("n3", 900);
       },
       "acquire-lock",
       {}},
      {"an older timeline does not lead",
       [](Case& c) {
         c.nobody_leads();
         c.node().timeline = TimelineId{1};
         c.unreachable("n2");
         c.answered("n3", 900);
       },
       "race-behind",
       {}},
      {"who lags more than allowed does not lead",
       [](Case& c) {
         c.nobody_leads();
         c.cluster().status.optime = Lsn{1000 + 1048577};
         c.unreachable("n2");
         c.answered("n3", 900);
       },
       "race-behind",
       {}},
      {"equal positions: the higher priority leads",
       [](Case& c) {
         c.nobody_leads();
         c.unreachable("n2");
         c.answered("n3", 1000).failover_priority = 2;
       },
       "acquire-lock",
       {}},
      {"who holds no session can't race",
       [](Case& c) {
         c.nobody_leads();
         c.facts.session = SessionId{};
       },
       "race-evidence",
       {}},
      {"an old picture of PostgreSQL is renewed first",
       [](Case& c) {
         c.nobody_leads();
         c.node().observed_at = t0 - 150ms;
       },
       "race-evidence",
       {"observe-postgres"}},
      {"nofailover never races",
       [](Case& c) {
         c.nobody_leads();
         c.id.tags.nofailover = true;
       },
       "race-excluded",
       {}},
      {"paused, nobody races",
       [](Case& c) {
         c.nobody_leads();
         c.config().pause = true;
       },
       "race-excluded",
       {}},
      {"a store that knows no cluster is waited for, by a replica",
       [](Case& c) {
         c.nobody_leads();
         c.cluster().initialize.reset();
       },
       "race-excluded",
       {}},
      {"the named candidate takes the lock without asking",
       [](Case& c) {
         c.nobody_leads();
         c.request("n2", "n1");
       },
       "race-by-request",
       {"acquire-lock term=3"}},
      {"another candidate is given its chance",
       [](Case& c) {
         c.nobody_leads();
         c.request("n2", "n3");
         c.answered("n3", 1000);
       },
       "race-by-request",
       {}},
      {"an agent whose server is down has answered too",
       [](Case& c) {
         c.nobody_leads();
         c.memory.started_at = t0 - 1s;
         c.unreachable("n2");
         c.facts.peers[NodeName("n2")].answered = true;
         c.answered("n3", 900);
       },
       "acquire-lock",
       {"acquire-lock term=3"}},
      {"the lock makes a replica a primary",
       [](Case& c) {
         c.lead("n1", "s1");
         c.cluster().term.reserved = TimelineId{3};
       },
       "promote",
       {"start-task promote"}},
      {"a timeline that an earlier promotion under this grant has used is not begun again",
       [](Case& c) {
         c.lead("n1", "s1");
         c.cluster().term.reserved = TimelineId{2};
       },
       "promote",
       {"acquire-lock rebind term=3"}},
      {"and without the store there is no other, so it waits",
       [](Case& c) {
         c.lead("n1", "s1");
         c.cluster().term.reserved = TimelineId{2};
         c.facts.lock_changed_at = t0 - 100ms;  // after what was read: a try went unanswered
       },
       "promote",
       {}},
      {"not before the guard is there",
       [](Case& c) {
         c.lead("n1", "s1");
         c.facts.guard_ready = false;
         c.facts.guard_tried_at = t0 - 100ms;
       },
       "promote",
       {}},
      {"not on a lease that is nearly over",
       [](Case& c) {
         c.lead("n1", "s1");
         c.facts.session_valid_until = t0 + 800ms;
       },
       "promote",
       {}},
      {"a failed promotion gives the lock away",
       [](Case& c) {
         c.lead("n1", "s1");
         c.facts.last_task = ha::FinishedTask{.id = ha::TaskId{3},
                                              .task = {.kind = TaskKind::promote},
                                              .finished = t0 - 50ms,
                                              .failure = Error(errc::command_failed, "no")};
         c.memory.promote_failed_at = t0 - 50ms;
       },
       "give-back",
       {"release-lock "}},
      {"and then it stands back",
       [](Case& c) {
         c.nobody_leads();
         c.memory.promote_failed_at = t0 - 1s;
         c.answered("n2", 0);
         c.answered("n3", 0);
       },
       "race-excluded",
       {}},
  });
}

TEST_CASE("decide: switchover") {
  check({
      {"the candidate is asked first",
       [](Case& c) {
         c.i_lead();
         c.request("n1", "n3");
       },
       "switchover",
       {"probe n3"}},
      {"a candidate that qualifies: checkpoint and stop",
       [](Case& c) {
         c.i_lead();
         c.request("n1", "n3");
         c.answered("n3", 1000);
       },
       "switchover",
       {"start-task stop checkpoint-first"}},
      {"a candidate that can't be reached: refused, and the primary goes on",
       [](Case& c) {
         c.i_lead();
         c.request("n1", "n3");
         c.unreachable("n3");
       },
       "switchover",
       {"write failover={} fenced"}},
      {"a request for another leader is refused",
       [](Case& c) {
         c.i_lead();
         c.request("n2", "n3");
       },
       "switchover",
       {"write failover={} fenced"}},
      {"stopped, and the heir has everything: the lock goes",
       [](Case& c) {
         c.i_lead();
         c.request("n1", "n3");
         c.stopped();
         c.node().checkpoint_end = Lsn{1100};
         c.memory.handover = ha::Handover{.candidate = NodeName("n3"), .started = t0 - 300ms};
         c.answered("n3", 1100);
       },
       "handover-release",
       {R"(release-lock {"optime":1100})"}},
      {"the heir lacks something: wait for it",
       [](Case& c) {
         c.i_lead();
         c.request("n1", "n3");
         c.stopped();
         c.node().checkpoint_end = Lsn{1100};
         c.memory.handover = ha::Handover{.candidate = NodeName("n3"), .started = t0 - 300ms};
         c.answered("n3", 1050);
       },
       "handover-release",
       {}},
      {"the heir is gone, and the lease with it: nothing becomes a primary again",
       [](Case& c) {
         c.i_lead();
         c.request("n1", "n3");
         c.stopped();
         c.node().checkpoint_end = Lsn{1100};
         c.memory.handover = ha::Handover{.candidate = NodeName("n3"), .started = t0 - 10s};
         c.facts.last_task = ha::FinishedTask{
             .id = ha::TaskId{3}, .task = {.kind = TaskKind::stop}, .finished = t0 - 5s};
         c.memory.last_callback_task = ha::TaskId{3};
         c.facts.session_valid_until = t0 - 1ms;
         c.facts.store_answers = false;
         c.unreachable("n3");
       },
       "start-server",
       {"start-task start"}},
      {"the heir is gone: start again as the primary, nothing is lost",
       [](Case& c) {
         c.i_lead();
         c.request("n1", "n3");
         c.stopped();
         c.node().checkpoint_end = Lsn{1100};
         c.memory.handover = ha::Handover{.candidate = NodeName("n3"), .started = t0 - 10s};
         c.facts.last_task = ha::FinishedTask{
             .id = ha::TaskId{3}, .task = {.kind = TaskKind::stop}, .finished = t0 - 5s};
         c.memory.last_callback_task = ha::TaskId{3};
         c.unreachable("n3");
       },
       "handover-release",
       {"start-task start as-primary"}},
      {"who gave the lock away lets the others take it",
       [](Case& c) {
         c.nobody_leads();
         c.stopped();
         c.memory.released_at = t0 - 100ms;
       },
       "wait-for-heir",
       {}},
  });
}

TEST_CASE("decide: a server that is down while we hold the lock") {
  check({
      {"a server that was ended because its promotion failed gives the lock away",
       [](Case& c) {
         c.lead("n1", "s1");
         c.node().process = NodeView::Process::crashed;
         c.node().streaming = false;
         c.facts.last_task = ha::FinishedTask{.id = ha::TaskId{6},
                                              .task = {.kind = TaskKind::promote},
                                              .started = t0 - 5s,
                                              .finished = t0 - 200ms,
                                              .failure = Error(errc::timed_out, "still")};
         c.facts.lock_changed_at = t0 - 6s;
         c.facts.cluster->read_started = t0 - 300ms;
         c.memory.promote_failed_at = t0 - 200ms;
         c.memory.last_callback_task = ha::TaskId{6};
       },
       "promotion-failed",
       {"release-lock "}},
      {"it is started again in place",
       [](Case& c) {
         c.i_lead();
         c.crashed();
       },
       "restart-in-place",
       {"start-task start as-primary"}},
      {"primary_start_timeout 0: somebody else is asked at once",
       [](Case& c) {
         c.i_lead();
         c.crashed();
         c.config().primary_start_timeout = 0s;
       },
       "fail-over-after-crash",
       {"probe n2", "probe n3"}},
      {"and gets the lock",
       [](Case& c) {
         c.i_lead();
         c.crashed();
         c.config().primary_start_timeout = 0s;
         c.answered("n2", 1000);
         c.unreachable("n3");
       },
       "fail-over-after-crash",
       {R"(release-lock {"optime":1000})"}},
      {"nobody can lead: started again in place after all",
       [](Case& c) {
         c.i_lead();
         c.crashed();
         c.config().primary_start_timeout = 0s;
         c.unreachable("n2");
         c.unreachable("n3");
       },
       "restart-in-place",
       {"start-task start as-primary"}},
      {"too many crashes: somebody else is to try",
       [](Case& c) {
         c.i_lead();
         c.crashed();
         c.memory.crash_count = 4;
         c.answered("n2", 1000);
         c.answered("n3", 900);
       },
       "fail-over-after-crash",
       {R"(release-lock {"optime":1000})"}},
      {"a replica's directory with the lock is started as a replica, to be promoted",
       [](Case& c) {
         c.lead("n1", "s1");
         c.stopped();
       },
       "start-server",
       {"start-task start"}},
      {"a primary that hangs for too long is ended, if somebody can lead",
       [](Case& c) {
         c.i_lead();
         c.node().process = NodeView::Process::hung;
         c.config().primary_start_timeout = 5s;
         c.memory.hung_since = t0 - 6s;
         c.answered("n2", 1000);
         c.answered("n3", 1000);
       },
       "server-hung",
       {"kill-server: it has not answered for too long"}},
  });
}

TEST_CASE("decide: a directory that can't be used, and a server that runs there all the same") {
  const auto unusable = [](Case& c) {
    c.i_lead();
    c.node().data_dir = NodeView::DataDir::unusable;
    c.node().process = NodeView::Process::hung;
  };
  check({
      {"whoever leads keeps the lock while the server runs", unusable, "data-dir-unusable", {}},
      {"and gives it away once it is down",
       [&](Case& c) {
         unusable(c);
         c.node().process = NodeView::Process::stopped;
       },
       "data-dir-unusable",
       {"release-lock "}},
      {"the server's directory was moved away, and it is not down yet",
       [&](Case& c) {
         unusable(c);
         c.node().data_dir = NodeView::DataDir::empty;
       },
       "wait-for-leader",
       {}},
  });
}

TEST_CASE("decide: an empty data directory") {
  const auto empty = [](Case& c) {
    c.node() = NodeView{};
    c.node().observed_at = t0 - 100ms;
    c.memory.last_callback_role.clear();
  };
  check({
      {"a running cluster is copied", empty, "clone", {"start-task clone upstream=n2"}},
      {"a member tagged clonefrom is preferred",
       [&](Case& c) {
         empty(c);
         c.cluster().members[2].tags.clonefrom = true;
       },
       "clone",
       {"start-task clone upstream=n3"}},
      {"no cluster yet: race to create it, with a claim that dies with us",
       [&](Case& c) {
         empty(c);
         c.cluster().leader.reset();
         c.cluster().initialize.reset();
         for (auto& [name, member] : c.facts.known_members) member.role = "uninitialized";
       },
       "claim-cluster",
       {"write initialize="}},
      {"the winner creates it",
       [&](Case& c) {
         empty(c);
         c.cluster().leader.reset();
         c.cluster().initialize = "";
         c.memory.bootstrapped_here = true;
         c.memory.claim_session = SessionId("s1");
       },
       "bootstrap",
       {"start-task bootstrap"}},
      {"with the parameters that the cluster is to have",
       [&](Case& c) {
         empty(c);
         c.cluster().leader.reset();
         c.cluster().initialize = "";
         c.memory.bootstrapped_here = true;
         c.memory.claim_session = SessionId("s1");
         c.id.bootstrap_dcs = json::Value::object();
         c.id.bootstrap_dcs.set("ttl", 20);
       },
       "bootstrap",
       {"configure", "start-task bootstrap"}},
      {"whose claim has expired creates nothing",
       [&](Case& c) {
         empty(c);
         c.cluster().leader.reset();
         c.cluster().initialize = "";
         c.memory.bootstrapped_here = true;
         c.memory.claim_session = SessionId("s0");
       },
       "bootstrap",
       {}},
      {"a server that was created under an expired claim ends",
       [](Case& c) {
         c.i_lead();
         c.cluster().leader.reset();
         c.cluster().initialize = "";
         c.memory.was_primary = false;
         c.memory.bootstrapped_here = true;
         c.memory.claim_session = SessionId("s0");
       },
       "lease-over",
       {"kill-server: the lease is over"}},
      {"the others wait",
       [&](Case& c) {
         empty(c);
         c.cluster().leader.reset();
         c.cluster().initialize = "";
       },
       "wait-for-leader",
       {}},
      {"an existing cluster without a leader is never created again",
       [&](Case& c) {
         empty(c);
         c.cluster().leader.reset();
       },
       "wait-for-leader",
       {}},
      {"who has no data does not keep the lock",
       [&](Case& c) {
         empty(c);
         c.lead("n1", "s1");
       },
       "release-without-data",
       {"release-lock "}},
      {"a directory that can't be used is left alone",
       [&](Case& c) {
         empty(c);
         c.node().data_dir = NodeView::DataDir::unusable;
         c.node().problem = "it belongs to another user";
       },
       "data-dir-unusable",
       {}},
      {"the new cluster's creator takes the lock",
       [](Case& c) {
         c.i_lead();
         c.cluster().leader.reset();
         c.cluster().initialize = "";
         c.cluster().term = Term{};
         c.memory = ha::Memory{};
         c.memory.started_at = t0 - 5s;
         c.memory.bootstrapped_here = true;
         c.memory.claim_session = SessionId("s1");
         c.memory.config_applied = {11, 11};
         c.memory.slots_wanted = {"n2", "n3"};
         c.memory.last_callback_role = "primary";
       },
       "adopt-primary",
       {"acquire-lock term=0"}},
  });
}

TEST_CASE("decide: the slots of a replica follow the primary's") {
  const auto moved = [](Case& c) {
    c.cluster().status.slots = {{"n2", Lsn{900}}, {"n3", Lsn{900}}};
    c.memory.slots_positions = {{"n2", Lsn{800}}, {"n3", Lsn{800}}};
    c.memory.slots_at = t0 - 31s;
  };
  check({
      {"when they have moved", [&](Case& c) { moved(c); }, "secondary", {"sync-slots 2"}},
      {"not every time",
       [&](Case& c) {
         moved(c);
         c.memory.slots_at = t0 - 29s;
       },
       "secondary",
       {}},
      {"not when they stand where they stood",
       [&](Case& c) {
         moved(c);
         c.memory.slots_positions = {{"n2", Lsn{900}}, {"n3", Lsn{900}}};
       },
       "secondary",
       {}},
      {"not beside a look at the server, which has the connection",
       [&](Case& c) {
         moved(c);
         c.facts.in_flight.insert(ha::InFlight::observe);
       },
       "secondary",
       {}},
      {"nor beside one that begins",
       [&](Case& c) {
         moved(c);
         c.node().observed_at = t0 - 1h;
       },
       "secondary",
       {"observe-postgres"}},
  });
}

TEST_CASE("decide: an orderly stop") {
  check({
      {"the primary checkpoints and stops",
       [](Case& c) {
         c.i_lead();
         c.facts.stop_requested = true;
       },
       "stop-server",
       {"start-task stop checkpoint-first"}},
      {"then gives the lock away",
       [](Case& c) {
         c.i_lead();
         c.stopped();
         c.node().checkpoint_end = Lsn{1100};
         c.facts.stop_requested = true;
       },
       "stop-release",
       {R"(release-lock {"optime":1100})"}},
      {"then ends",
       [](Case& c) {
         c.nobody_leads();
         c.stopped();
         c.facts.stop_requested = true;
       },
       "stop-exit",
       {"exit 0: told to stop"}},
      {"a store that does not answer keeps nobody from stopping",
       [](Case& c) {
         c.i_lead();
         c.stopped();
         c.facts.stop_requested = true;
         c.facts.store_answers = false;
       },
       "stop-exit",
       {"exit 0: told to stop"}},
      {"paused, everything is left as it is",
       [](Case& c) {
         c.i_lead();
         c.config().pause = true;
         c.facts.stop_requested = true;
       },
       "stop-paused",
       {"exit 0: told to stop while paused"}},
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

TEST_CASE(
    "guard_deadline: a lease less drift and a hard stop; nothing to guard on a replica; left alone "
    "when nothing is known") {
  auto c = healthy();
  CHECK(ha::guard_deadline(c.id, c.facts, c.memory) == TimePoint{});
  c.i_lead();
  CHECK(ha::guard_deadline(c.id, c.facts, c.memory) == t0 + 9s - 50ms - 200ms);
  // Armed before a promotion, not after.
  c.node().role = NodeView::Role::replica;
  c.memory.was_primary = false;
  CHECK(ha::guard_deadline(c.id, c.facts, c.memory) == t0 + 9s - 50ms - 200ms);
  c.i_lead();
  c.config().pause = true;
  CHECK(ha::guard_deadline(c.id, c.facts, c.memory) == TimePoint{});
  c.config().pause = false;
  c.lead("n1", "s0");
  c.memory.was_primary = false;
  CHECK(ha::guard_deadline(c.id, c.facts, c.memory) == std::nullopt);
}

TEST_CASE("guard_limit: a lock bound to a new session is bounded by that; a promise of ours is not") {
  auto c = healthy();
  c.i_lead();
  c.lead("n1", "s0");  // of the life before
  c.memory.was_primary = false;
  CHECK(ha::guard_limit(c.id, c.facts) == std::nullopt);
  c.facts.in_flight.insert(ha::InFlight::acquire);
  CHECK(ha::guard_deadline(c.id, c.facts, c.memory) == std::nullopt);
  CHECK(ha::guard_limit(c.id, c.facts) == t0 + 9s - 50ms - 200ms);
  c.config().pause = true;
  CHECK(ha::guard_limit(c.id, c.facts) == std::nullopt);
  c.config().pause = false;
  // The members hold still for us: taking the lock back in a store that began anew, by a session
  // that is over, ends nothing.
  c.memory.failsafe_until = t0 + 5s;
  c.facts.session_valid_until = t0 - 1s;
  CHECK(ha::guard_deadline(c.id, c.facts, c.memory) == t0 + 5s - 50ms - 200ms);
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

TEST_CASE("guard_deadline: a replica may run when the lease is over; an old picture proves nothing") {
  auto c = healthy();
  c.lead("n1", "s1");
  c.facts.session_valid_until = t0 - 1s;
  CHECK(ha::guard_deadline(c.id, c.facts, c.memory) == TimePoint{});
  c.stopped();
  CHECK(ha::guard_deadline(c.id, c.facts, c.memory) == TimePoint{});
  // A primary stays bound by it.
  c.i_lead();
  c.node().process = NodeView::Process::running;
  CHECK(ha::guard_deadline(c.id, c.facts, c.memory) == t0 - 1s - 50ms - 200ms);
  // Something has happened to the server since it was seen as a replica of somebody else.
  c = healthy();
  c.facts.node_changed_at = t0 - 10ms;
  CHECK(ha::guard_deadline(c.id, c.facts, c.memory) == std::nullopt);
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

TEST_CASE("decide: who has no guard does not lead") {
  const auto lost = [](Case& c) {
    c.facts.guard_ready = false;
    c.facts.guard_problem = "no such program";
    c.facts.guard_lost_at = t0 - 10s;
    c.facts.guard_tried_at = t0 - 100ms;
  };
  check({
      {"it hands over to who can lead",
       [&](Case& c) {
         c.i_lead();
         lost(c);
         c.answered("n2", 1000);
         c.answered("n3", 1000);
       },
       "unguarded",
       {"start-task stop checkpoint-first"}},
      {"whom it asks first",
       [&](Case& c) {
         c.i_lead();
         lost(c);
       },
       "unguarded",
       {"probe n2", "probe n3"}},
      {"nobody can: it goes on",
       [&](Case& c) {
         c.i_lead();
         lost(c);
         c.unreachable("n2");
         c.unreachable("n3");
       },
       "unguarded",
       {}},
      {"a guard that has just died is started again",
       [&](Case& c) {
         c.i_lead();
         lost(c);
         c.facts.guard_lost_at = t0 - 1s;
       },
       "keep-lock",
       {}},
      {"paused, it stays",
       [&](Case& c) {
         c.i_lead();
         lost(c);
         c.config().pause = true;
       },
       "keep-lock",
       {}},
      {"a replica does not race",
       [&](Case& c) {
         c.nobody_leads();
         lost(c);
       },
       "race-unguarded",
       {}},
      {"and gives back what it can't use",
       [&](Case& c) {
         c.lead("n1", "s1");
         lost(c);
       },
       "give-back",
       {"release-lock "}},
  });
}
