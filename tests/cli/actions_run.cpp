// The real spiloctl asking for changes: of a store file without daemons, and of REST interfaces that
// answer what a test says. What it prints, what it wrote, and how it ended.
#include "cli_world.hpp"

using namespace spilo;
using namespace spilo::test;

namespace {

// Answers POST with one status and body, everything else with an empty object.
StubApi::Handler answers(int status, std::string body) {
  return [status, body = std::move(body)](const StubApi::Request& request) {
    if (request.method == "GET") return std::pair(404, std::string("{}"));
    return std::pair(status, body);
  };
}

bool unscheduled(const std::string& failover) {
  return failover.find("scheduled_at") == std::string::npos;
}

}  // namespace

TEST_CASE("edit-config writes what is right, shows the difference, and says when nothing changes") {
  CliWorld world;
  world.put_cluster();
  const auto ran = world.ctl({"edit-config", "-s", "ttl=12", "-p", "work_mem=8MB", "--force"});
  CHECK(ran.code == 0);
  CHECK(ran.out.starts_with("---\n+++\n@@ "));
  CHECK(has(ran.out, "\n-ttl: 10\n+ttl: 12\n"));
  CHECK(has(ran.out, "Configuration changed\n"));
  CHECK(*world.get("config") == R"({"ttl":12,"loop_wait":2,"retry_timeout":4,)"
                                R"("postgresql":{"parameters":{"work_mem":"8MB"}}})");
  const auto again = world.ctl({"edit-config", "-s", "ttl=12", "--force"});
  CHECK(again.code == 0);
  CHECK(again.out == "Not changed\n");
}

TEST_CASE("edit-config reports everything that would be wrong at once and writes nothing") {
  CliWorld world;
  world.put_cluster();
  const auto before = world.get("config");
  const auto ran = world.ctl(
      {"edit-config", "-s", "ttl=soon", "-s", "loop_wait=0", "-s", "pause=perhaps", "--force"});
  CHECK(ran.code == 1);
  for (const char* key : {"ttl", "loop_wait", "pause"}) CHECK(has(ran.err, key));
  CHECK(has(ran.err, "was not changed"));
  CHECK(world.get("config") == before);
}

TEST_CASE("edit-config takes patches from standard input, but only writes them with --force") {
  CliWorld world;
  world.put_cluster();
  const auto before = world.get("config");
  const auto careful = world.ctl({"edit-config", "--apply", "-"}, "ttl: 20\n");
  CHECK(careful.code == 0);
  CHECK(has(careful.out, "Use --force option to apply changes"));
  CHECK(world.get("config") == before);
  CHECK(world.ctl({"edit-config", "--apply", "-", "--force", "-q"}, "ttl: 20\n").out ==
        "Configuration changed\n");
  CHECK(has(*world.get("config"), R"("ttl":20)"));
  const auto twice = world.ctl({"edit-config", "--apply", "-", "--force"}, "ttl: 20\nttl: 30\n");
  CHECK(twice.code == 1);
  CHECK(has(twice.err, "given twice"));
  const auto editor = world.ctl({"edit-config"});
  CHECK(editor.code == 2);
  CHECK(has(editor.err, "no terminal to edit in"));
}

TEST_CASE("edit-config asks, and an answer of no changes nothing") {
  CliWorld world;
  world.put_cluster();
  CHECK(has(world.ctl({"edit-config", "-s", "ttl=12"}, "n\n").out, "Not changed"));
  CHECK(has(*world.get("config"), R"("ttl":10)"));
  CHECK(world.ctl({"edit-config", "-s", "ttl=12"}, "y\n").code == 0);
  CHECK(has(*world.get("config"), R"("ttl":12)"));
  const auto silent = world.ctl({"edit-config", "-s", "ttl=13"});
  CHECK(silent.code == 1);
  CHECK(has(silent.err, "Aborted!"));
}

TEST_CASE("pause asks a member, and writes to the store itself when none answers") {
  CliWorld world;
  StubApi api(answers(200, "{}"));
  world.put_cluster("http://127.0.0.1:1", api.url());
  const auto asked = world.ctl({"pause"});
  CHECK(asked.code == 0);
  CHECK(asked.out == "Success: cluster management is paused\n");
  REQUIRE(api.requests().size() == 1);
  CHECK(api.requests()[0].method == "PATCH");
  CHECK(api.requests()[0].path == "/config");
  CHECK(api.requests()[0].body == R"({"pause": true})");
  CHECK(has(api.requests()[0].head, "Authorization: Basic YWRtaW46c2VjcmV0"));

  world.put_cluster();
  const auto written = world.ctl({"pause"});
  CHECK(written.code == 0);
  CHECK(has(written.err, "No node can be asked: writing to sqlite "));
  CHECK(has(*world.get("config"), R"("pause":true)"));
  CHECK(has(world.ctl({"list"}).out, " Maintenance mode: on\n"));
  const auto twice = world.ctl({"pause"});
  CHECK(twice.code == 1);
  CHECK(has(twice.err, "Cluster is already paused"));
  CHECK(world.ctl({"resume"}).code == 0);
  CHECK_FALSE(has(*world.get("config"), "pause"));
  CHECK(has(world.ctl({"resume"}).err, "Cluster is not paused"));
}

TEST_CASE("a switchover that succeeds is 0 and prints the answer and the table") {
  CliWorld world;
  StubApi api(answers(200, "Successfully switched over to \"n2\""));
  world.put_cluster(api.url());
  const auto ran = world.ctl({"switchover", "--candidate", "n2", "--force"});
  CHECK(ran.code == 0);
  CHECK(has(ran.out, " Successfully switched over to \"n2\"\n"));
  CHECK(has(ran.out, "It took "));
  const auto requests = api.requests();
  const auto& last = requests.back();
  bool posted = false;
  for (const auto& request : requests)
    if (request.method == "POST") {
      posted = true;
      CHECK(request.path == "/switchover");
      CHECK(request.body == R"({"candidate": "n2", "leader": "n1"})");
    }
  CHECK(posted);
  CHECK(!last.path.empty());
}

TEST_CASE("what the API refuses is 3, what failed 4, what is unknown 5; --compat says 0") {
  struct Case {
    int status;
    const char* body;
    int code;
    const char* text;
  };
  for (const auto& one : {Case{412, "candidate name does not match", 3, "Switchover failed, details: 412, "},
                          Case{401, "not authenticated", 3, "Give it the credentials"},
                          Case{503, "Switchover failed", 4, "Switchover failed, details: 503, "},
                          Case{503, "Switchover status unknown after 20 seconds; operation may still "
                                    "be in progress",
                               5, "Switchover result unknown, details: 503, "}}) {
    CAPTURE(one.body);
    CliWorld world;
    StubApi api(answers(one.status, one.body));
    world.put_cluster(api.url());
    const std::vector<std::string> verb = {"switchover", "--candidate", "n2", "--force"};
    const auto ran = world.ctl(verb);
    CHECK(ran.code == one.code);
    CHECK(has(ran.out, one.text));
    CHECK(world.ctl(verb, "", {"SPILOCTL_COMPAT=1"}).code == 0);
  }
}

TEST_CASE("the questions of switchover are those of the contract") {
  CliWorld world;
  StubApi api(answers(200, "Successfully switched over to \"n3\""));
  world.put_cluster(api.url());
  const auto ran = world.ctl({"switchover"}, "\nn3\nnow\ny\n");
  CHECK(ran.code == 0);
  CHECK(has(ran.out, "Current cluster topology\n"));
  CHECK(has(ran.out, "Primary [n1]: "));
  CHECK(has(ran.out, "Candidate ['n2', 'n3'] []: "));
  CHECK(has(ran.out,
            "Are you sure you want to switchover cluster demo, demoting current leader n1? [y/N]: "));
  const auto no = world.ctl({"switchover"}, "\nn3\nnow\nn\n");
  CHECK(no.code == 1);
  CHECK(has(no.err, "Aborted switchover"));
  const auto silent = world.ctl({"switchover"});
  CHECK(silent.code == 1);
  CHECK(has(silent.err, "Aborted!"));
  CHECK(has(silent.err, "--force"));
}

TEST_CASE("preconditions of switchover and failover are errors before anything is asked for") {
  CliWorld world;
  StubApi api(answers(200, "no request was expected"));
  world.put_cluster(api.url());
  const auto fails = [&](const std::vector<std::string>& verb, const char* text) {
    CAPTURE(text);
    const auto ran = world.ctl(verb);
    CHECK(ran.code != 0);
    CHECK(has(ran.err, text));
  };
  fails({"switchover", "--leader", "n2", "--force"}, "Member n2 is not the leader of cluster demo");
  fails({"switchover", "--candidate", "n1", "--force"}, "target and source are the same");
  fails({"switchover", "--candidate", "n9", "--force"}, "Member n9 does not exist in cluster demo");
  fails({"switchover", "--scheduled", "someday", "--force"}, "Unable to parse");
  fails({"switchover", "--scheduled", "2020-01-01T00:00Z", "--force"}, "in the past");
  fails({"failover", "--force"}, "only to a specific candidate");
  fails({"failover", "--candidate", "n1", "--force"}, "already the leader");
  for (const auto& request : api.requests()) CHECK(request.method != "POST");
}

TEST_CASE("without an API a switchover goes through the store, and its outcome is waited for") {
  CliWorld world;
  world.put_cluster();
  auto running = world.start({"switchover", "--candidate", "n2", "--force"});
  REQUIRE(wait_until([&] { return world.get("failover").has_value(); }, std::chrono::seconds(30)));
  CHECK(*world.get("failover") == R"({"leader":"n1","member":"n2"})");
  world.put("leader", "n2");
  world.put("failover", "{}");
  const auto ran = running.wait();
  CHECK(ran.code == 0);
  CHECK(has(ran.out, "Could not switchover using Patroni api, falling back to DCS"));
  CHECK(has(ran.out, "Successfully switched over to \"n2\""));
}

TEST_CASE("a request that the leader drops is a failure; one that nobody takes up stays unknown") {
  CliWorld world;
  world.put_cluster();
  auto running = world.start({"switchover", "--candidate", "n2", "--force"});
  REQUIRE(wait_until([&] { return world.get("failover").has_value(); }, std::chrono::seconds(30)));
  world.put("failover", "{}");
  const auto dropped = running.wait();
  CHECK(dropped.code == 4);
  CHECK(has(dropped.out, "n1 still leads and has dropped the request"));

  const auto waiting =
      world.ctl({"switchover", "--candidate", "n2", "--force", "--timeout", "1"});
  CHECK(waiting.code == 5);
  CHECK(has(waiting.out, "status unknown after 1 seconds"));
}

TEST_CASE("--no-wait leaves after the request; a scheduled one is flushed again") {
  CliWorld world;
  world.put_cluster();
  CHECK(world.ctl({"switchover", "--candidate", "n2", "--force", "--no-wait"}).code == 0);
  REQUIRE(world.get("failover").has_value());
  CHECK(unscheduled(*world.get("failover")));
  world.put("failover", "{}");
  const auto planned = world.ctl(
      {"switchover", "--candidate", "n2", "--force", "--scheduled", "2099-05-06T07:08:09Z"});
  CHECK(planned.code == 0);
  CHECK(*world.get("failover") ==
        R"({"leader":"n1","member":"n2","scheduled_at":"2099-05-06T07:08:09+00:00"})");
  CHECK(has(world.ctl({"list"}).out, " Switchover scheduled at: 2099-05-06T07:08:09+00:00\n"));
  CHECK(has(world.ctl({"flush", "demo", "switchover", "--force"}).out,
            "Success: scheduled switchover deleted"));
  CHECK(*world.get("failover") == "{}");
  CHECK(has(world.ctl({"flush", "switchover"}).out, "No pending scheduled switchover"));
  CHECK(world.ctl({"flush", "demo"}).code == 2);
}

TEST_CASE("a failover of a cluster without a leader asks the candidate") {
  CliWorld world;
  StubApi api(answers(200, "Successfully failed over to \"n2\""));
  world.put_cluster("http://127.0.0.1:1", api.url());
  world.put("leader", "");
  world.put_member("n1", "http://127.0.0.1:1");
  const auto ran = world.ctl({"failover", "--candidate", "n2", "--force"});
  CHECK(ran.code == 0);
  bool asked = false;
  for (const auto& request : api.requests())
    asked = asked || (request.path == "/failover" && request.body == R"({"candidate": "n2"})");
  CHECK(asked);
  CHECK(has(world.ctl({"switchover", "--force"}).err, "This cluster has no leader"));
}

TEST_CASE("restart, reload and reinit say what each member answered") {
  CliWorld world;
  StubApi api([](const StubApi::Request& request) -> std::pair<int, std::string> {
    if (request.path == "/restart") return {200, "restarted successfully"};
    if (request.path == "/reload") return {202, "reload scheduled"};
    if (request.path == "/reinitialize") return {503, "Cluster has no leader, can not reinitialize"};
    return {404, "{}"};
  });
  world.put_cluster("http://127.0.0.1:1", api.url());
  const auto restarted = world.ctl({"restart", "demo", "n2", "--force"});
  CHECK(restarted.code == 0);
  CHECK(has(restarted.out, "Success: restart on member n2\n"));
  const auto dead = world.ctl({"restart", "demo", "n1", "--force"});
  CHECK(dead.code == 1);
  CHECK(has(dead.out, "Failed: restart for member n1: "));
  CHECK(has(dead.out, "Is its daemon running?"));
  CHECK(has(world.ctl({"reload", "demo", "n2", "--force"}).out,
            "Reload request received for member n2 and will be processed within 2 seconds\n"));
  const auto refused = world.ctl({"reinit", "demo", "n2", "--force"});
  CHECK(refused.code == 3);
  CHECK(has(refused.out, "Failed: reinitialize for member n2, status code=503, (Cluster has no leader, "
                         "can not reinitialize)"));
  CHECK(world.ctl({"--compat", "reinit", "demo", "n2", "--force"}).code == 0);
  CHECK(has(world.ctl({"reinit", "demo", "n1", "--force"}).err, "No replica among provided members"));
}

TEST_CASE("why tells the story of all nodes in order, and names those that are silent") {
  const auto ring = [](const char* node, const char* time, const char* rule) {
    return std::string(R"({"records": [{"sequence": 1, "time": ")") + time + R"(", "node": ")" +
           node + R"(", "rule": ")" + rule + R"(", "sentence": "it did )" + rule +
           R"(", "event": "e", "inputs": {"role": "replica"}}]})";
  };
  CliWorld world;
  StubApi first([&](const StubApi::Request&) {
    return std::pair(200, ring("n1", "2026-05-06T07:08:09.200000+00:00", "handover-release"));
  });
  StubApi second([&](const StubApi::Request&) {
    return std::pair(200, ring("n2", "2026-05-06T07:08:09.100000+00:00", "acquire-lock"));
  });
  world.put_cluster(first.url(), second.url());
  const auto ran = world.ctl({"why"});
  CHECK(ran.code == 0);
  CHECK(has(ran.out, "n2  acquire-lock      it did acquire-lock\n"));
  CHECK(ran.out.find("acquire-lock") < ran.out.find("handover-release"));
  CHECK(has(ran.err, "No answer from n3 (http://127.0.0.1:1/patroni)"));
  CHECK(world.ctl({"why", "-f", "json"}).out.starts_with(
      R"([{"time": "2026-05-06T07:08:09.100000+00:00", "node": "n2", "rule": "acquire-lock", )"));
  CHECK(world.ctl({"why", "demo", "n3"}).code == 1);
  CHECK(world.ctl({"why", "--since", "whenever"}).code == 2);
}

TEST_CASE("--node looks through one node, without any store") {
  CliWorld world;
  StubApi api([](const StubApi::Request& request) -> std::pair<int, std::string> {
    if (request.path == "/cluster")
      return {200, R"({"members": [{"name": "n1", "role": "leader", "state": "running",
          "api_url": "http://127.0.0.1:1/patroni", "host": "10.0.0.1", "port": 5432,
          "timeline": 4}], "scope": "demo"})"};
    if (request.path == "/patroni") return {200, R"({"database_system_identifier": "7301"})"};
    if (request.path == "/config") return {200, R"({"ttl": 10})"};
    return {200, "[]"};
  });
  const auto ran = world.bare({"--node", api.url(), "list"});
  CHECK(ran.code == 0);
  CHECK(ran.out.starts_with("+ Cluster: demo (7301) "));
  CHECK(has(ran.out, "| n1     | 10.0.0.1 | Leader | running |  4 |"));
  CHECK(world.bare({"--node", api.url(), "show-config"}).out == "ttl: 10\n\n");
  const auto edit = world.bare({"--node", api.url(), "edit-config", "-s", "ttl=12", "--force"});
  CHECK(edit.code == 2);
  CHECK(has(edit.err, "Give the store"));
}

TEST_CASE("remove asks three times and then removes everything below the cluster") {
  CliWorld world;
  world.put_cluster();
  CHECK(world.ctl({"remove", "demo"}, "other\n").code == 1);
  CHECK(world.ctl({"remove", "demo"}, "demo\nyes\n").code == 1);
  CHECK(world.ctl({"remove", "demo"}, "demo\nYes I am aware\nn2\n").code == 1);
  CHECK(world.get("leader").has_value());
  CHECK(world.ctl({"remove", "demo"}, "demo\nYes I am aware\nn1\n").code == 0);
  CHECK_FALSE(world.get("leader").has_value());
  CHECK_FALSE(world.get("members/n3").has_value());
  CHECK(world.ctl({"remove"}).code == 2);
  CHECK(has(world.ctl({"remove", "demo"}).err, "has nothing about a cluster demo"));
}
