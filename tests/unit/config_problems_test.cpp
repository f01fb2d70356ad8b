#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "config_texts.hpp"

using namespace spilo;
using namespace spilo::config;
using namespace spilo::test;
using namespace std::chrono_literals;

TEST_CASE("config: each thing that is wrong is named with its cure") {
  struct Row {
    std::string text;
    const char* problems;
  };
  const Row rows[] = {
      {replaced("scope: batman", "scpoe: batman"),
       "node.yml:2: error: scpoe: unknown key, did you mean scope?\n"
       "error: scope: is not set; it names the cluster, the same on all of its nodes\n"},
      {replaced("  listen: 127", "  paramters: {}\n  listen: 127"),
       "node.yml:7: error: postgresql.paramters: unknown key, did you mean "
       "postgresql.parameters?\n"},
      {replaced("name: n1", "name: n1\nfoo: 1"),
       "node.yml:4: error: foo: unknown key; remove it, or let its name begin with x- if only you "
       "use "
       "it\n"},
      {replaced("data_dir: /tmp/data", "data_dir: 5"),
       "node.yml:8: error: postgresql.data_dir: must be text (put it in quotes), but is 5\n"},
      {replaced("{username: postgres}", "{username: postgres, password: 0123}"),
       "node.yml:10: error: postgresql.authentication.superuser.password: must be text (put it in "
       "quotes), but is an integer\n"},
      {replaced("  data_dir: /tmp/data\n", ""),
       "node.yml:6: error: postgresql.data_dir: is not set; PostgreSQL's files go there, for "
       "example "
       "/var/lib/postgresql/15/main\n"},
      {replaced("sqlite: {path: /tmp/store.db}\n", ""),
       "error: no store is configured; add one section: sqlite (all nodes on this machine), etcd3, "
       "consul or zookeeper\n"},
      {replaced("sqlite: {path: /tmp/store.db}",
                "sqlite: {path: /tmp/store.db}\nconsul: {host: x}\nraft: {}"),
       "node.yml:6: error: consul: a second store beside sqlite: the nodes must agree on one; "
       "remove "
       "consul and raft\n"},
      {replaced("sqlite: {path: /tmp/store.db}", "kubernetes: {}"),
       "node.yml:5: error: kubernetes: is not supported; use one of sqlite, etcd3, consul or "
       "zookeeper\n"},
      {replaced("sqlite: {path: /tmp/store.db}", "sqlite: {}"),
       "node.yml:5: error: sqlite.path: is not set; give the file that all nodes of this machine "
       "share, "
       "for example /var/lib/spilo/store.db\n"},
      {replaced("sqlite: {path: /tmp/store.db}", "etcd3: {protocol: http}"),
       "node.yml:5: error: etcd3: names no server; set hosts, for example [10.0.0.1:2379, "
       "10.0.0.2:2379]\n"},
      {replaced("sqlite: {path: /tmp/store.db}", "etcd: {hosts: ['a b', 'c:99999999']}"),
       "node.yml:5: error: etcd.hosts: must be a host such as 10.0.0.1:2379 or a URL such as "
       "http://10.0.0.1:2379; the value given is neither\n"
       "node.yml:5: error: etcd.hosts: must be a host such as 10.0.0.1:2379 or a URL such as "
       "http://10.0.0.1:2379; the value given is neither\n"},
      {replaced("sqlite: {path: /tmp/store.db}", "etcd: {host: h, username: u}"),
       "node.yml:5: error: etcd.password: is not set, but username is; etcd asks for both "
       "(password or "
       "password_file)\n"},
      {replaced("name: n1",
                "name: n1\nbootstrap: {dcs: {ttl: 20, loop_wait: 10, retry_timeout: 10}}"),
       "node.yml:4: error: bootstrap.dcs.ttl: loop_wait + 2*retry_timeout = 10 + 2*10 = 30 seconds "
       "must "
       "not be more than ttl = 20: a store that is slow for that long would cost the primary its "
       "lock; "
       "set ttl to at least 30, or retry_timeout to at most 5\n"},
      {replaced("name: n1", "name: n1\nbootstrap: {dcs: {postgresql: {paramters: {}}}}"),
       "node.yml:4: error: bootstrap.dcs.postgresql.paramters: unknown key, did you mean "
       "postgresql.parameters?\n"},
      {replaced("name: n1", "name: n1\nname: n2"),
       "node.yml:4: error: name: is given twice, in line 3 and in line 4; remove one of them\n"},
      {replaced("name: n1", "name: a/b"),
       "node.yml:3: error: name: must not contain '/', but is \"a/b\"\n"},
      {replaced("listen: '127.0.0.1:8008'", "listen: 127.0.0.1"),
       "node.yml:4: error: restapi.listen: must be an address with a port such as 10.0.0.1:8008, "
       "but is "
       "\"127.0.0.1\"\n"},
      {replaced("{listen: '127.0.0.1:8008'}", "{listen: '*:8008'}"),
       "node.yml:4: error: restapi.connect_address: must be the address under which the other "
       "nodes "
       "reach this one, for example 10.0.0.1:8008; a wildcard is none\n"
       "node.yml:4: warning: restapi: requests that change something will be refused from other "
       "machines; set authentication, verify_client or allowlist to allow them\n"},
      {replaced("listen: 127.0.0.1:5432", "listen: 0.0.0.0:5432"),
       "node.yml:6: error: postgresql.connect_address: must be the address under which the other "
       "nodes "
       "reach this server, for example 10.0.0.1:5432; it is not set\n"},
      {replaced("listen: 127.0.0.1:5432", "listen: 127.0.0.1:x"),
       "node.yml:7: error: postgresql.listen: must be addresses and a port such as "
       "127.0.0.1,10.0.0.1:5432, but is \"127.0.0.1:x\"\n"},
      {replaced("listen: 127.0.0.1:5432", "listen: 127.0.0.1:8008"),
       "node.yml:4: error: restapi.listen: must not use port 8008, which postgresql.listen uses; "
       "give it "
       "another\n"},
      {replaced("'127.0.0.1:8008'}",
                "'127.0.0.1:8008', verify_client: maybe, authentication: {username: u}}"),
       "node.yml:4: error: restapi.authentication.password: is not set, but username is; both are "
       "needed\n"
       "node.yml:4: error: restapi.verify_client: must be none, optional or required, but is "
       "\"maybe\"\n"},
      {replaced("'127.0.0.1:8008'}", "'127.0.0.1:8008', verify_client: required}"),
       "node.yml:4: error: restapi.certfile: is not set, but verify_client is: client certificates "
       "need "
       "TLS\n"
       "node.yml:4: error: restapi.cafile: is not set; it says which authority signs the clients' "
       "certificates\n"},
      {replaced("name: n1", "name: n1\ntags: {nofailvoer: true, nosync: 'yes', sync_priority: -1}"),
       "node.yml:4: error: tags.nosync: must be true or false without quotes, but is the text "
       "\"yes\"\n"
       "node.yml:4: error: tags.sync_priority: must be a whole number, 0 or more, but is -1\n"
       "node.yml:4: error: tags.nofailvoer: unknown tag, did you mean tags.nofailover?\n"},
      {replaced("name: n1", "name: n1\nlog: {level: loud, file_num: -1}\nwatchdog: {mode: 5}"),
       "node.yml:5: error: watchdog.mode: must be off, automatic or required, but is 5\n"
       "node.yml:4: error: log.level: must be DEBUG, INFO, WARNING, ERROR or CRITICAL, but is "
       "\"LOUD\"\n"
       "node.yml:4: error: log.file_num: must be from 0 to 10000, but is -1\n"},
      {replaced("name: n1", "name: n1\nbootstrap: {initdb: [pwfile: x, 5]}"),
       "node.yml:4: error: bootstrap.initdb: must be a list of options such as [data-checksums, "
       "{encoding: UTF8}], but one is 5\n"
       "node.yml:4: error: bootstrap.initdb: must not contain pwfile: it is decided here; remove "
       "it\n"},
      {"a: [", "node.yml: error: not YAML: line 1, column 1: end of sequence flow not found\n"},
      {"- a\n", "node.yml: error: must hold keys and values, but is a list\n"},
      {"", "error: the configuration is empty\n"},
  };
  for (const auto& row : rows) {
    CAPTURE(row.text);
    const auto result = load_text(row.text);
    CHECK_FALSE(result.config.has_value());
    CHECK(shown(result.problems) == row.problems);
  }
}

TEST_CASE("config: what has no effect, or not yet, is a warning") {
  struct Row {
    std::string text;
    const char* problems;
  };
  const std::string sqlite = "sqlite: {path: /tmp/store.db}";
  const Row rows[] = {
      {replaced(sqlite, "etcd3: {hosts: [e1], cacert: /dev/null}"),
       "node.yml:5: warning: etcd3.cacert: has no effect: the connection is not encrypted; set "
       "protocol: https\n"},
      {replaced(sqlite, "etcd3: {hosts: [e1], protocol: https, cacert: /dev/null}"), ""},
      {replaced(sqlite, "consul: {cert: /dev/null}"),
       "node.yml:5: warning: consul.cert: has no effect: the connection is not encrypted; set "
       "scheme: https\n"},
      {replaced(sqlite, "consul: {scheme: https, cacert: /dev/null}"), ""},
      {replaced(sqlite, "zookeeper: {hosts: [z1], key: /dev/null}"),
       "node.yml:5: warning: zookeeper.key: has no effect: the connection is not encrypted; set "
       "use_ssl: true\n"},
      {replaced("name: n1", "name: n1\ntags: {nofailover: true, failover_priority: 1}"),
       "node.yml:4: warning: tags.nofailover: Conflicting configuration between nofailover: True "
       "and "
       "failover_priority: 1. Defaulting to nofailover: True\n"},
      {replaced("name: n1", "name: n1\ntags: {nofailover: true, failover_priority: 0}"), ""},
      {replaced("name: n1", "name: n1\nttl: 30"),
       "node.yml:4: warning: ttl: has no effect in this file: it counts for the whole cluster; "
       "change it "
       "with spiloctl edit-config (bootstrap.dcs sets it for a cluster that does not exist yet)\n"},
      {replaced("name: n1", "name: n1\nbootstrap: {dcs: {max_lag_on_failover: 5, x-note: 1}}"),
       "node.yml:4: warning: bootstrap.dcs.max_lag_on_failover: unknown key, it has no effect\n"},
      {replaced("  listen: 127", "  parameters: {max_connections: 5, port: 1}\n  listen: 127"),
       "node.yml:7: warning: postgresql.parameters.max_connections: has no effect in this file: "
       "all "
       "nodes must agree on it; change it with spiloctl edit-config -p "
       "(bootstrap.dcs.postgresql.parameters sets it for a cluster that does not exist yet)\n"
       "node.yml:7: warning: postgresql.parameters.port: has no effect; set postgresql.listen\n"},
      {replaced("  listen: 127",
                "  create_replica_methods: [wal_g]\n  wal_g: {command: x}\n  pre_promote: y\n  "
                "listen: 127"),
       "node.yml:9: warning: postgresql.pre_promote: is not supported yet and has no effect\n"
       "node.yml:7: warning: postgresql.create_replica_methods: is not supported yet: replicas are "
       "made "
       "with pg_basebackup\n"},
      {replaced("name: n1",
                "name: n1\nbootstrap: {method: clone, clone: {command: x}, dcs: {synchronous_mode: "
                "on}}"),
       "node.yml:4: warning: bootstrap.method: clone is not supported yet: this node joins an "
       "existing "
       "cluster, but does not create one\n"
       "node.yml:4: warning: bootstrap.dcs.synchronous_mode: is not supported yet: the cluster "
       "replicates asynchronously\n"},
  };
  for (const auto& row : rows) {
    CAPTURE(row.text);
    const auto result = load_text(row.text);
    CHECK(result.config.has_value());
    CHECK(shown(result.problems) == row.problems);
  }
  CHECK_FALSE(loaded(rows[std::size(rows) - 1].text).identity.can_bootstrap);
}

TEST_CASE("validate: the data directory, the programs and the ports") {
  const Directory directory;
  const auto bin = directory.path() + "/bin";
  fs::create_directory(bin);
  for (const char* name : {"postgres", "initdb", "pg_controldata", "pg_basebackup", "pg_rewind"})
    directory.write(std::string("bin/") + name,
                    "#!/bin/sh\necho 'postgres (PostgreSQL) 15.4 (X 15.4)'\n",
                    0700);
  auto config = loaded(least);
  std::get<SqliteSection>(config.store.section).path = directory.path() + "/store.db";
  config.postgresql.bin_dir = bin;
  config.postgresql.data_dir = directory.path() + "/data";
  ValidateOptions options;
  options.ignore_listen_ports = true;
  const auto check = [&] {
    auto problems = validate(config, options);
    // Who runs the tests may be root; that it is said is checked here and nowhere else.
    const auto as_root = std::erase_if(problems, [](const Problem& problem) {
      return problem.message.find("refuses to run as root") != std::string::npos;
    });
    CHECK(as_root == (::geteuid() == 0 ? 1u : 0u));
    return shown(problems);
  };
  CHECK(check() == "");

  fs::create_directory(config.postgresql.data_dir);
  fs::permissions(config.postgresql.data_dir, fs::perms::owner_all);
  CHECK(check() == "");
  directory.write("data/notes.txt", "x");
  CHECK(check().find("is not empty and is no data directory of PostgreSQL") != std::string::npos);
  directory.write("data/PG_VERSION", "14\n");
  CHECK(check().find("was made by PostgreSQL 14, but the programs are version 15") !=
        std::string::npos);
  directory.write("data/PG_VERSION", "15\n");
  CHECK(check() == "");
  fs::permissions(config.postgresql.data_dir, fs::perms::all);
  CHECK(check().find("has permissions 777: PostgreSQL only starts with 700 or 750") !=
        std::string::npos);
  fs::permissions(config.postgresql.data_dir, fs::perms::owner_all);

  fs::remove(bin + "/initdb");
  CHECK(check().find("postgresql.bin_dir: initdb: not found in " + bin) != std::string::npos);
  directory.write("bin/initdb", "", 0700);
  std::get<SqliteSection>(config.store.section).path = directory.path() + "/none/store.db";
  CHECK(check().find("sqlite.path: the directory") != std::string::npos);
  std::get<SqliteSection>(config.store.section).path = directory.path() + "/store.db";
  config.restapi.certfile = "/nonexistent.crt";
  CHECK(check().find("restapi.certfile: /nonexistent.crt can't be read") != std::string::npos);
  config.restapi.certfile.clear();

  const int holder = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  REQUIRE(::bind(holder, reinterpret_cast<sockaddr*>(&address), size) == 0);
  REQUIRE(::listen(holder, 1) == 0);
  REQUIRE(::getsockname(holder, reinterpret_cast<sockaddr*>(&address), &size) == 0);
  options.ignore_listen_ports = false;
  config.postgresql.port = ntohs(address.sin_port);
  config.restapi.listen.port = config.postgresql.port;
  const auto taken = check();
  CHECK(taken.find("restapi.listen: port " + std::to_string(config.postgresql.port) +
                   " on 127.0.0.1 is taken by another program") != std::string::npos);
  CHECK(taken.find("postgresql.listen: port") != std::string::npos);
  // Our own running server may hold its port.
  directory.write("data/postmaster.pid", std::to_string(::getpid()) + "\n");
  CHECK(check().find("postgresql.listen") == std::string::npos);
  ::close(holder);
  CHECK(check() == "");
  config.restapi.listen.host = "192.0.2.1";
  CHECK(check().find("192.0.2.1 is no address of this machine") != std::string::npos);
}
