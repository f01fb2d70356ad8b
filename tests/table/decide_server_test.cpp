// Decisions by table: what the server and its directory ask for. See decide_test.cpp.
#include <doctest/doctest.h>

#include "rows.hpp"

using namespace spilo;
using namespace spilo::tables;
using ha::TaskKind;

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
