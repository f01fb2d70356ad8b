// Decisions by table: the lock kept and lost, an outage of the store, the guard. See decide_test.cpp.
#include <doctest/doctest.h>

#include "rows.hpp"

using namespace spilo;
using namespace spilo::tables;
using ha::TaskKind;

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
      {"the members are asked once a third of the lease is gone",
       [](Case& c) {
         c.i_lead();
         c.facts.store_answers = false;
         c.facts.session_valid_until = t0 + c.config().timing.ttl * 2 / 3;
       },
       "keep-lock",
       {"ask-failsafe n2 n3"}},
      {"and not before",
       [](Case& c) {
         c.i_lead();
         c.facts.store_answers = false;
         c.facts.session_valid_until = t0 + c.config().timing.ttl * 2 / 3 + 1ms;
       },
       "keep-lock",
       {}},
      {"a promise is renewed once a third of it is gone: what is left is for a store that comes back empty",
       [](Case& c) {
         c.i_lead();
         c.facts.store_answers = false;
         c.facts.session_valid_until = t0 - 1s;
         c.memory.failsafe_until = t0 + c.config().timing.ttl * 2 / 3;
       },
       "keep-without-store",
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

TEST_CASE("guard_deadline: a lock that is being taken back ends with its new session, if that is earlier") {
  auto c = healthy();
  c.i_lead();
  c.cluster().leader.reset();
  c.memory.reclaim_until = t0 + 900ms;
  CHECK(ha::guard_deadline(c.id, c.facts, c.memory) == t0 + 900ms - 50ms - 200ms);
  c.facts.session_valid_until = t0 + 500ms;
  // Also once the write has failed: its answer may be all that was lost.
  for (const bool in_flight : {true, false}) {
    CAPTURE(in_flight);
    c.facts.in_flight.clear();
    if (in_flight) c.facts.in_flight.insert(ha::InFlight::acquire);
    CHECK(ha::guard_deadline(c.id, c.facts, c.memory) == t0 + 500ms - 50ms - 200ms);
  }
}

TEST_CASE("decide: a session that is lost while the lock is taken back: the grace ends the primary, guard or not") {
  auto c = healthy();
  c.i_lead();
  c.cluster().leader.reset();
  c.facts.in_flight.insert(ha::InFlight::acquire);
  c.facts.session = SessionId{};
  c.facts.session_valid_until = TimePoint{};
  c.memory.reclaim_until = t0 + 900ms;
  CHECK(ha::guard_deadline(c.id, c.facts, c.memory) == t0 + 900ms - 50ms - 200ms);
  c.memory.reclaim_until = t0 + 250ms;
  CHECK(ha::decide(c.id, c.facts, c.memory).rule == "lease-over");
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
