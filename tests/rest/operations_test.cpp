// The checks of contract 5.8 in their order, and that outcomes arrive when they happen.
#include "spilo/runtime/operations.hpp"

#include "sim_fixture.hpp"

using namespace spilo;
using namespace std::chrono_literals;
using spilo::test::SimFixture;

namespace {

Outcome switchover(SimFixture& f, const char* from, const char* to, const char* when = "") {
  return f.run(f.operations.switchover(NodeName(from), NodeName(to), when));
}
Outcome failover(SimFixture& f, const char* to, const char* from = "", const char* when = "") {
  return f.run(f.operations.failover(NodeName(to), NodeName(from), when));
}

void refused(SimFixture& f, const Outcome& outcome, int status, std::string_view text) {
  CHECK(outcome.status == status);
  CHECK(outcome.text.substr(0, text.size()) == text);
  CHECK(f.peek("failover") == "(absent)");  // nothing half done
}

// The cluster as it reacts to a request: the lock goes after 100 ms, `winner` has it 50 ms later.
void obey(SimFixture& f, std::string winner) {
  f.dcs.on_change([&f, winner, done = false](const Scope&) mutable {
    if (done || f.peek("failover").find("leader\"") == std::string::npos) return;
    done = true;
    f.world.after(100ms, [&f] { f.dcs.erase(f.scope, "leader"); });
    f.world.after(150ms, [&f, winner] { f.put("leader", winner); });
  });
}

}  // namespace

TEST_CASE("operations: switchover answers when the lock has changed hands, not a second later") {
  SimFixture f;
  obey(f, "n2");
  const auto outcome = switchover(f, "n1", "n2");
  CHECK(outcome.status == 200);
  CHECK(outcome.text == "Successfully switched over to \"n2\"");
  CHECK(outcome.leader == NodeName("n2"));
  CHECK(f.peek("failover") == R"({"leader":"n1","member":"n2"})");
  CHECK(f.took < 200ms);
  REQUIRE(outcome.phases.size() == 3);
  CHECK(outcome.phases[0].name == "requested");
  CHECK(outcome.phases[1].name == "lock released");
  CHECK(outcome.phases[2].name == "new leader n2");
  CHECK(outcome.phases[2].after >= 150ms);
}

TEST_CASE("operations: switchover to somebody else than asked") {
  SimFixture f;
  f.member("n3", "replica");
  obey(f, "n3");
  CHECK(switchover(f, "n1", "n2").text == R"(Switched over to "n3" instead of "n2")");
}

TEST_CASE("operations: switchover without a candidate is content with the first good answer") {
  SimFixture f;
  f.member("n3", "replica");  // hangs
  obey(f, "n2");
  CHECK(switchover(f, "n1", "").text == R"(Successfully switched over to "n2")");
  CHECK(f.took < 250ms);
}

TEST_CASE("operations: a request that the leader turns down fails at once, and says why") {
  SimFixture f;
  f.dcs.on_change([&f, done = false](const Scope&) mutable {
    if (done || f.peek("failover").find("n1") == std::string::npos) return;
    done = true;
    f.world.after(20ms, [&f] {
      DecisionRecord record;
      record.rule = "switchover";
      record.sentence = "switchover refused: n2 is 5 MB behind";
      f.board.record(record);
      f.put("failover", "{}");
    });
  });
  const auto outcome = switchover(f, "n1", "n2");
  CHECK(outcome.status == 503);
  CHECK(outcome.text == "Switchover failed: switchover refused: n2 is 5 MB behind");
  CHECK(f.took < 100ms);
}

TEST_CASE("operations: another request takes the place of ours") {
  SimFixture f;
  f.dcs.on_change([&f, done = false](const Scope&) mutable {
    if (done || f.peek("failover").find("n2") == std::string::npos) return;
    done = true;
    f.world.after(20ms, [&f] { f.put("failover", R"({"leader":"n1","member":"n3"})"); });
  });
  CHECK(switchover(f, "n1", "n2").text == "Switchover failed: another request has replaced it");
}

TEST_CASE("operations: nothing happens") {
  SimFixture f;
  const auto outcome = switchover(f, "n1", "n2");
  CHECK(outcome.status == 503);
  CHECK(outcome.text ==
        "Switchover status unknown after 20 seconds; operation may still be in progress");
  CHECK(f.took >= 20s);
  CHECK(f.took < 21s);
  // Waiting is not polling: a look every five seconds in case a connection died unnoticed.
  CHECK(f.dcs.requests().at("read") <= 8);
}

TEST_CASE("operations: the store is away while we wait") {
  SimFixture f;
  f.dcs.on_change([&f, done = false](const Scope&) mutable {
    if (done || f.peek("failover").find("n2") == std::string::npos) return;
    done = true;
    f.world.after(50ms, [&f] { f.dcs.set_down(testing::SimDcs::Down::refusing); });
    f.world.after(3s, [&f] { f.dcs.set_down(testing::SimDcs::Down::no); });
    f.world.after(4s, [&f] { f.put("leader", "n2"); });
  });
  CHECK(switchover(f, "n1", "n2").status == 200);
  CHECK(f.took >= 4s);
  CHECK(f.took < 4500ms);
}

TEST_CASE("operations: a failover needs no leader") {
  SimFixture f;
  f.dcs.erase(f.scope, "leader");
  f.dcs.on_change([&f, done = false](const Scope&) mutable {
    if (done || f.peek("failover") != R"({"member":"n2"})") return;
    done = true;
    f.world.after(30ms, [&f] { f.put("leader", "n2"); });
  });
  CHECK(failover(f, "n2").text == R"(Successfully failed over to "n2")");
}

TEST_CASE("operations: checks of the arguments, in order") {
  SimFixture f;
  refused(f, failover(f, ""), 400, "Failover could be performed only to a specific candidate");
  refused(
      f, switchover(f, "", "n2"), 400, "Switchover could be performed only from a specific leader");
  refused(f, failover(f, "n2", "", "2030-01-01T00:00:00Z"), 400, "Failover can't be scheduled");
  refused(f, switchover(f, "n1", "n1"), 400, "Switchover target and source are the same");
  refused(f, failover(f, "n1", "n1"), 400, "Switchover target and source are the same");
  refused(f, switchover(f, "n2", "n1"), 412, "leader name does not match");
  refused(f, switchover(f, "n1", "n9"), 412, "candidate does not exists");
  refused(f, failover(f, "n1"), 412, "n1 is the leader already");
  refused(f,
          switchover(f, "n1", "n2", "2030-01-01 00:00"),
          400,
          "Timezone information is mandatory for the scheduled switchover");
  refused(f,
          switchover(f, "n1", "n2", "2001-01-01T00:00Z"),
          422,
          "Cannot schedule switchover in the past");
  refused(f, switchover(f, "n1", "n2", "tomorrow"), 422, "Unable to parse scheduled timestamp");
}

TEST_CASE("operations: paused") {
  SimFixture f;
  f.put("config", R"({"ttl":10,"loop_wait":2,"retry_timeout":4,"pause":true})");
  refused(f,
          switchover(f, "n1", "n2", "2030-01-01T00:00Z"),
          400,
          "Can't schedule switchover in the paused state");
  refused(f,
          switchover(f, "n1", ""),
          400,
          "Switchover is possible only to a specific candidate in a paused state");
  obey(f, "n2");
  CHECK(switchover(f, "n1", "n2").ok());
}

TEST_CASE("operations: nobody can lead") {
  SimFixture f;
  PeerStatus excluded;
  excluded.reachable = true;
  excluded.nofailover = true;
  f.peers.answers["n2"] = excluded;
  f.member("n3", "replica");
  refused(f,
          switchover(f, "n1", ""),
          412,
          "switchover is not possible: no good candidates have been found (n2: tagged nofailover; "
          "n3: not reachable, timed out)");
  refused(
      f, failover(f, "n2"), 412, "failover is not possible: no good candidates have been found");
  f.dcs.erase(f.scope, "members/n2");
  f.dcs.erase(f.scope, "members/n3");
  refused(f,
          switchover(f, "n1", ""),
          412,
          "switchover is not possible: cluster does not have members except leader");
}

TEST_CASE("operations: synchronous mode") {
  SimFixture f;
  f.put("config", R"({"synchronous_mode":true})");
  f.put("sync", R"({"leader":"n1","quorum":0,"sync_standby":null})");
  refused(f, switchover(f, "n1", ""), 412, "switchover is not possible: can not find sync_standby");
  refused(f, switchover(f, "n1", "n2"), 412, "candidate name does not match with sync_standby");
  f.put("sync", R"({"leader":"n1","quorum":0,"sync_standby":"n2"})");
  obey(f, "n2");
  CHECK(switchover(f, "n1", "n2").ok());
}

TEST_CASE("operations: a switchover is scheduled and deleted") {
  SimFixture f;
  CHECK(f.run(f.operations.cancel_switchover()).status == 404);
  const auto planned = switchover(f, "n1", "n2", "2100-05-06T07:08:09+02:00");
  CHECK(planned.status == 202);
  CHECK(planned.text == "Switchover scheduled");
  CHECK(f.peek("failover") ==
        R"({"leader":"n1","member":"n2","scheduled_at":"2100-05-06T05:08:09+00:00"})");
  CHECK(f.run(f.operations.cancel_switchover()).text == "scheduled switchover deleted");
  CHECK(f.peek("failover") == "{}");
}

TEST_CASE("operations: the store does not answer") {
  SimFixture f;
  f.dcs.set_down(testing::SimDcs::Down::refusing);
  const auto outcome = switchover(f, "n1", "n2");
  CHECK(outcome.status == 503);
  CHECK(outcome.text.find("switchover was not requested: the store does not answer") == 0);
  CHECK(f.run(f.operations.pause(false)).status == 503);
}

TEST_CASE("operations: a write whose answer was lost is looked up") {
  SimFixture f;
  obey(f, "n2");
  // Only the answer to the write gets lost: the link breaks when the request has been read.
  f.dcs.on_change([&f, done = false](const Scope&) mutable {
    if (done || f.peek("failover").find("n2") == std::string::npos) return;
    done = true;
    f.dcs.link(f.n1).cut = true;
    f.world.after(6s, [&f] { f.dcs.heal_links(); });
    f.world.after(6s, [&f] { f.put("leader", "n2"); });
  });
  const auto outcome = switchover(f, "n1", "n2");
  CHECK(outcome.text == R"(Successfully switched over to "n2")");
}

TEST_CASE("operations: configuration") {
  SimFixture f;
  auto out = f.run(f.operations.patch_config(*json::parse(R"({"ttl":20,"pause":null})")));
  CHECK(out.status == 200);
  CHECK(f.peek("config") == R"({"ttl":20,"loop_wait":2,"retry_timeout":4})");
  CHECK(json::dump(out.document) == f.peek("config"));

  SUBCASE("every violation is named and nothing is written") {
    const auto before = f.dcs.revision();
    out = f.run(f.operations.patch_config(
        *json::parse(R"({"ttl":2,"maximum_lag_on_failover":"much","loop_wait":0})")));
    CHECK(out.status == 422);
    CHECK(out.violations.size() >= 3);
    for (const char* name : {"ttl", "maximum_lag_on_failover", "loop_wait"})
      CHECK(out.text.find(name) != std::string::npos);
    CHECK(f.dcs.revision() == before);
    CHECK(f.run(f.operations.replace_config(*json::parse(R"({"ttl":1})"))).status == 422);
    CHECK(f.dcs.revision() == before);
  }
  SUBCASE("what was wrong before does not stand in the way") {
    f.put("config", R"({"ttl":10,"loop_wait":10,"retry_timeout":10})");  // as Patroni allows
    CHECK(f.run(f.operations.patch_config(*json::parse(R"({"pause":true})"))).status == 200);
    CHECK(f.run(f.operations.patch_config(*json::parse(R"({"ttl":"x"})"))).status == 422);
  }
  SUBCASE("no change is no write") {
    const auto before = f.dcs.revision();
    CHECK(f.run(f.operations.patch_config(*json::parse(R"({"ttl":"20"})"))).status == 200);
    CHECK(f.run(f.operations.replace_config(
                    *json::parse(R"({"ttl":20,"loop_wait":2,"retry_timeout":4})")))
              .status == 200);
    CHECK(f.dcs.revision() == before);
  }
  SUBCASE("somebody else is faster") {
    f.dcs.link(f.n1).latency_min = f.dcs.link(f.n1).latency_max = 20ms;
    f.world.after(50ms, [&f] { f.put("config", R"({"ttl":30})"); });
    out = f.run(f.operations.patch_config(*json::parse(R"({"ttl":25})")));
    CHECK(out.status == 409);
    CHECK(f.peek("config") == R"({"ttl":30})");
  }
  SUBCASE("no configuration at all") {
    f.dcs.erase(f.scope, "config");
    CHECK(f.run(f.operations.patch_config(*json::parse(R"({"ttl":25})"))).status == 503);
    CHECK(f.run(f.operations.replace_config(*json::parse(R"({"ttl":30})"))).status == 200);
    CHECK(f.peek("config") == R"({"ttl":30})");
  }
}

TEST_CASE("operations: pause waits until all have recognised it") {
  SimFixture f;
  CHECK(f.run(f.operations.resume(true)).text == "Cluster is not paused");
  f.world.after(100ms, [&f] { f.member("n1", "primary", true); });
  f.world.after(300ms, [&f] { f.member("n2", "replica", true); });
  auto out = f.run(f.operations.pause(true));
  CHECK(out.status == 200);
  CHECK(out.text == "cluster management is paused");
  CHECK(f.took >= 290ms);
  CHECK(f.took < 350ms);
  CHECK(f.run(f.operations.pause(true)).status == 409);
  f.world.after(100ms, [&f] { f.member("n1", "primary", false); });
  out = f.run(f.operations.resume(true));
  CHECK(out.status == 202);
  CHECK(out.text == "cluster management is resumed; not yet recognized by n2");
}
