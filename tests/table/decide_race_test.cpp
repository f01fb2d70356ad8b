// Decisions by table: who leads next, by a race or a switchover. See decide_test.cpp.
#include <doctest/doctest.h>

#include "rows.hpp"

using namespace spilo;
using namespace spilo::tables;
using ha::TaskKind;

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
      {"a session that was opened before the ttl was raised is as good as it ever is",
       [](Case& c) {
         c.nobody_leads();
         c.unreachable("n2");
         c.answered("n3", 900);
         c.config().timing.ttl = 30s;
         c.facts.session_granted = 10s;
       },
       "acquire-lock",
       {"acquire-lock term=3"}},
      {"a session that is nearly over is not",
       [](Case& c) {
         c.nobody_leads();
         c.unreachable("n2");
         c.answered("n3", 900);
         c.facts.session_valid_until = t0 + 3s;
       },
       "race-evidence",
       {}},
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
