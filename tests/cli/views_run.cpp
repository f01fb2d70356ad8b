// The real spiloctl on a store file without daemons: what it shows, and how it says what is wrong.
#include "cli_world.hpp"

using namespace spilo;
using namespace spilo::test;

TEST_CASE("list shows the cluster that the store holds") {
  CliWorld world;
  world.put_cluster();
  const auto ran = world.ctl({"list"});
  CHECK(ran.code == 0);
  CHECK(ran.err.empty());
  CHECK(ran.out == R"(+ Cluster: demo (7301234567890123456) ----------+----+-------------+-----+------------+-----+-------------------+
| Member | Host           | Role    | State     | TL | Receive LSN | Lag | Replay LSN | Lag | Tags              |
+--------+----------------+---------+-----------+----+-------------+-----+------------+-----+-------------------+
| n1     | 127.0.0.1:5432 | Leader  | running   |  2 |             |     |            |     |                   |
| n2     | 127.0.0.1:5432 | Replica | streaming |  2 |   0/5F5E100 |   0 |  0/5F5E100 |   0 | replicatefrom: n3 |
| n3     | 127.0.0.1:5432 | Replica | streaming |  2 |   0/5F5E100 |   0 |  0/5E5E100 |   1 |                   |
+--------+----------------+---------+-----------+----+-------------+-----+------------+-----+-------------------+
)");
  CHECK(world.ctl({"list", "demo", "-f", "json"}).out.starts_with(
      R"([{"Cluster": "demo", "Member": "n1", "Host": "127.0.0.1:5432", "Role": "Leader", )"));
  CHECK(has(world.ctl({"list", "-o", "yaml"}).out, "- Cluster: demo\n  Host: 127.0.0.1:5432\n"));
}

TEST_CASE("topology hangs n2 below n3") {
  CliWorld world;
  world.put_cluster();
  const auto ran = world.ctl({"topology"});
  CHECK(ran.code == 0);
  CHECK(has(ran.out, "| n1     |"));
  CHECK(ran.out.find("| + n3   |") < ran.out.find("|   + n2 |"));
}

TEST_CASE("history, show-config, dsn and version") {
  CliWorld world;
  world.put_cluster();
  CHECK(has(world.ctl({"history"}).out,
            "|  1 | 25623960 | no recovery target specified | "
            "2026-01-02T03:04:05.678901+00:00 | n1         |"));
  CHECK(world.ctl({"show-config"}).out == "loop_wait: 2\nretry_timeout: 4\nttl: 10\n\n");
  CHECK(world.ctl({"dsn"}).out == "host=127.0.0.1 port=5432\n");
  const auto nobody = world.ctl({"dsn", "-m", "n9"});
  CHECK(nobody.code == 1);
  CHECK(has(nobody.err, "Can not find a suitable member"));
  CHECK(world.ctl({"dsn", "-m", "n1", "-r", "leader"}).code == 2);
  CHECK(world.ctl({"version"}).out.starts_with("spiloctl version "));
}

TEST_CASE("a cluster that nobody has reported to is said to be empty, and nothing is done to it") {
  CliWorld world;
  const auto shown = world.ctl({"list", "other"});
  CHECK(shown.code == 0);
  CHECK(shown.out.starts_with("+ Cluster: other (uninitialized) "));
  CHECK(has(shown.err, "No node of cluster other has reported"));
  for (const auto& verb : std::vector<std::vector<std::string>>{{"switchover", "--force"},
                                                                {"failover", "--force"},
                                                                {"restart", "--force"},
                                                                {"reinit", "--force"},
                                                                {"reload", "--force"},
                                                                {"why"},
                                                                {"dsn"}}) {
    CAPTURE(verb.front());
    const auto ran = world.ctl(verb);
    CHECK(ran.code == 1);
    CHECK(has(ran.err, "demo cluster doesn't have any members"));
    CHECK(has(ran.err, "start its first node"));
  }
  for (const char* verb : {"pause", "resume", "show-config"}) {
    CAPTURE(verb);
    const auto ran = world.ctl({verb});
    CHECK(ran.code == 1);
    CHECK(has(ran.err, "has no configuration"));
  }
  CHECK_FALSE(world.get("failover").has_value());
  CHECK_FALSE(world.get("config").has_value());
}

TEST_CASE("wrong arguments are exit code 2 and name what is wrong") {
  CliWorld world;
  world.put_cluster();
  const auto unknown = world.ctl({"explode"});
  CHECK(unknown.code == 2);
  CHECK(has(unknown.err, "--help"));
  CHECK(world.ctl({}).code == 2);
  CHECK(world.ctl({"list", "--colour"}).code == 2);
  const auto format = world.ctl({"list", "-f", "xml"});
  CHECK(format.code == 2);
  CHECK(has(format.err, "There is no format 'xml'"));
  const auto role = world.ctl({"reload", "demo", "-r", "boss", "--force"});
  CHECK(role.code == 2);
  CHECK(has(role.err, "There is no role 'boss'"));
  const auto member = world.ctl({"restart", "demo", "n9", "--force"});
  CHECK(member.code == 1);
  CHECK(has(member.err, "n9 is not a member of cluster demo. Its members are: n1, n2, n3"));
  const auto swapped = world.ctl({"restart", "n2", "--force"});
  CHECK(swapped.code == 1);
  CHECK(has(swapped.err, "The first word is the cluster"));
}

TEST_CASE("--help teaches: verbs, examples and exit codes") {
  CliWorld world;
  const auto ran = world.bare({"--help"});
  CHECK(ran.code == 0);
  CHECK(ran.err.empty());
  for (const char* part : {"switchover", "edit-config", "Exit codes:", "Examples:", "--compat"})
    CHECK(has(ran.out, part));
  const auto verb = world.bare({"switchover", "--help"});
  CHECK(verb.code == 0);
  CHECK(has(verb.out, "spiloctl switchover --candidate node2 --force"));
  CHECK(has(verb.out, "--no-wait"));
}

TEST_CASE("a missing or broken configuration names the cause and the cure") {
  CliWorld world;
  const auto none = world.bare({"list"});
  CHECK(none.code == 1);
  CHECK(has(none.err, "no store is configured"));
  CHECK(has(none.err, "-c FILE"));
  const auto missing = world.bare({"-c", "/nowhere/x.yml", "list"});
  CHECK(missing.code == 1);
  CHECK(has(missing.err, "/nowhere/x.yml does not exist"));
  std::ofstream(world.directory / "broken.yml") << "scope: [demo\n";
  const auto broken = world.bare({"-c", world.directory / "broken.yml", "list"});
  CHECK(broken.code == 1);
  CHECK(has(broken.err, "broken.yml"));
}

TEST_CASE("a store that can't be reached is exit code 1 and says where it was looked for") {
  CliWorld world;
  const auto typo = world.bare({"-d", "sqlite:///nowhere/store.db", "list", "demo"});
  CHECK(typo.code == 1);
  CHECK(has(typo.err, "there is no file /nowhere/store.db"));
  CHECK_FALSE(std::filesystem::exists("/nowhere/store.db"));
  const auto dead =
      world.bare({"-d", "etcd3://127.0.0.1:" + std::to_string(free_port()), "list", "demo"});
  CHECK(dead.code == 1);
  CHECK(has(dead.err, "etcd3 http://127.0.0.1:"));
  CHECK(has(dead.err, "Is the store running"));
  CHECK(world.bare({"-d", "carrier-pigeon://coop", "list", "demo"}).code == 2);
  const auto nameless = world.bare({"-d", "sqlite://" + (world.directory / "store.db"), "list"});
  CHECK(nameless.code == 2);
  CHECK(has(nameless.err, "Which cluster?"));
}

TEST_CASE("-d finds the same cluster without a file, and the environment names the file") {
  CliWorld world;
  world.put_cluster();
  const auto url = world.bare({"-d", "sqlite://" + (world.directory / "store.db"), "list", "demo"});
  CHECK(url.code == 0);
  CHECK(has(url.out, "| n3 "));
  const auto variable = world.bare({"list"}, {"PATRONICTL_CONFIG_FILE=" + world.config()});
  CHECK(variable.code == 0);
  CHECK(has(variable.out, "| n3 "));
}

TEST_CASE("watch mode shows the change as soon as it is in the store") {
  CliWorld world;
  world.put_cluster();
  auto watcher = world.start({"list", "-W"});
  REQUIRE(wait_until([&] { return has(watcher.output(), "| n3 "); }, std::chrono::seconds(20)));
  world.put("leader", "n3");
  // Without a change the next picture is an hour away.
  CHECK(wait_until([&] { return has(watcher.output(), "| n3     | 127.0.0.1:5432 | Leader "); },
                   std::chrono::seconds(20)));
  watcher.signal(SIGINT);
  CHECK(watcher.wait().code == 1);
}

TEST_CASE("completion scripts are shell, and know the verbs") {
  CliWorld world;
  const auto bash = world.bare({"completion", "bash"});
  CHECK(bash.code == 0);
  std::ofstream(world.directory / "completion") << bash.out;
  CHECK(Running(world.directory, {"bash", "-n", world.directory / "completion"}, "", {})
            .wait()
            .code == 0);
  const auto done = Running(world.directory,
                            {"bash", "-c",
                             ". '" + (world.directory / "completion") +
                                 "'; COMP_WORDS=(spiloctl sw); COMP_CWORD=1; "
                                 "_spiloctl_complete; echo ${COMPREPLY[*]}"},
                            "", {})
                        .wait();
  CHECK(done.out == "switchover\n");
  CHECK(has(world.bare({"completion", "zsh"}).out, "bashcompinit"));
  CHECK(world.bare({"completion", "fish"}).code == 2);
}
