#include "spilo/config/load.hpp"

#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <random>

using namespace spilo;
using namespace spilo::config;
using namespace std::chrono_literals;
namespace fs = std::filesystem;

namespace {

class Directory {
 public:
  Directory() {
    char name[] = "/tmp/spilo-config-XXXXXX";
    REQUIRE(::mkdtemp(name) != nullptr);
    path_ = name;
  }
  ~Directory() {
    std::error_code ignored;
    fs::permissions(path_, fs::perms::owner_all, ignored);
    fs::remove_all(path_, ignored);
  }
  std::string write(const std::string& name, std::string_view text, int mode = 0600) const {
    const auto file = path_ + "/" + name;
    std::ofstream(file) << text;
    ::chmod(file.c_str(), static_cast<mode_t>(mode));
    return file;
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// The least that a node needs.
constexpr std::string_view least = R"(
scope: batman
name: n1
restapi: {listen: '127.0.0.1:8008'}
sqlite: {path: /tmp/store.db}
postgresql:
  listen: 127.0.0.1:5432
  data_dir: /tmp/data
  authentication:
    superuser: {username: postgres}
    replication: {username: replicator}
)";

Loaded load_text(std::string_view text, const Environment& environment = {}) {
  const Directory directory;
  return load({directory.write("node.yml", text)}, environment);
}

// The problems without the directory that the test made up.
std::string shown(const std::vector<Problem>& problems) {
  std::string out;
  for (const auto& problem : problems) {
    auto text = to_text(problem);
    if (const auto at = text.find("node.yml"); at != std::string::npos) text = text.substr(at);
    out += text + "\n";
  }
  return out;
}

Config loaded(std::string_view text, const Environment& environment = {}) {
  auto result = load_text(text, environment);
  REQUIRE_MESSAGE(result.config.has_value(), shown(result.problems));
  return *result.config;
}

std::string replaced(std::string_view what, std::string_view by) {
  std::string text(least);
  const auto at = text.find(what);
  REQUIRE_MESSAGE(at != std::string::npos, what);
  return text.replace(at, what.size(), by);
}

}  // namespace

TEST_CASE("config: the least that a node needs, and its defaults") {
  const auto result = load_text(least);
  REQUIRE_MESSAGE(result.config.has_value(), shown(result.problems));
  CHECK(shown(result.problems) == "");
  const auto& config = *result.config;
  CHECK(config.identity.node == NodeName("n1"));
  CHECK(config.identity.scope == Scope("batman"));
  CHECK(config.identity.conn_url == "postgres://127.0.0.1:5432/postgres");
  CHECK(config.identity.api_url == "http://127.0.0.1:8008/patroni");
  CHECK_FALSE(config.identity.can_bootstrap);
  CHECK(config.identity.timing == Timing{10s, 2s, 4s});
  CHECK(json::dump(config.identity.bootstrap_dcs) ==
        R"({"ttl":10,"loop_wait":2,"retry_timeout":4})");
  CHECK(config.identity.use_pg_rewind);
  CHECK(config.store.name_space == "service");
  CHECK(section_name(config.store.section) == "sqlite");
  CHECK(std::get<SqliteSection>(config.store.section).path == "/tmp/store.db");
  CHECK(config.restapi.listen == Address{"127.0.0.1", 8008});
  CHECK_FALSE(config.restapi.protected_by_something());
  CHECK(config.guard);
  CHECK(config.watchdog.mode == WatchdogOptions::Mode::automatic);
  CHECK(config.log.level == LogLevel::info);
  CHECK(config.postgresql.data_dir == "/tmp/data");
  CHECK(config.postgresql.connect_address == "127.0.0.1:5432");
  CHECK(config.postgresql.superuser.username == "postgres");
}

TEST_CASE("config: a whole file as Patroni users have it") {
  const auto result = load_text(R"(
scope: demo
namespace: /db//prod/
name: node-a

log: {level: debug, type: json, dir: /var/log/patroni, file_size: 1000000, file_num: 3, mode: 0644, static_fields: {app: x}}

restapi:
  listen: 0.0.0.0:8008
  connect_address: 10.0.0.1:8008
  authentication: {username: admin, password: 'secret'}
  certfile: /etc/ssl/node.crt
  keyfile: /etc/ssl/node.key
  cafile: /etc/ssl/ca.crt
  verify_client: optional
  allowlist: [10.0.0.0/8, ops.example.org]
  allowlist_include_members: on
  http_extra_headers: {X-Frame-Options: DENY}
  request_queue_size: 5
  limits: {body_bytes: 65536, connections: 32, timeout: 3s}

ctl: {insecure: yes, certfile: /etc/ssl/ctl.crt}

etcd3:
  hosts: 10.0.0.1:2379, 10.0.0.2, [fd00::3]:2379
  protocol: https
  username: patroni
  password: etcdpass
  cacert: /etc/ssl/etcd-ca.crt

bootstrap:
  dcs:
    ttl: 30
    loop_wait: 10
    retry_timeout: 10
    maximum_lag_on_failover: 1048576
    postgresql:
      use_pg_rewind: true
      use_slots: true
      parameters: {max_connections: 200, wal_level: replica, archive_mode: on, wal_keep_size: 1GB}
      pg_hba:
      - host replication replicator 10.0.0.0/8 scram-sha-256
  initdb:
  - encoding: UTF8
  - data-checksums
  - locale: C.UTF-8
  pg_hba: [local all all trust]
  post_init: /usr/local/bin/setup.sh

postgresql:
  listen: 127.0.0.1,10.0.0.1:5433
  connect_address: 10.0.0.1:5433
  data_dir: /data/pg
  bin_dir: /usr/lib/postgresql/15/bin
  bin_name: {postgres: postgres15}
  pgpass: /run/pgpass0
  database: app
  use_unix_socket: true
  authentication:
    replication: {username: replicator, password: rep, sslmode: verify-ca, sslrootcert: /etc/ssl/pg.crt}
    superuser: {username: postgres, password: sup}
    rewind: {username: rewinder, password: rew}
  parameters:
    shared_buffers: 1GB
    unix_socket_directories: /run/postgresql
    jit: off
  recovery_conf: {restore_command: 'cp /a/%f %p'}
  pg_hba: [host all all all scram-sha-256]
  pg_ident: [m a b]
  callbacks: {on_role_change: /usr/local/bin/cb}
  basebackup: [{max-rate: 100M}, checkpoint=fast, verbose]
  remove_data_directory_on_rewind_failure: false
  pg_ctl_timeout: 30
  use_pg_rewind: false
  krbsrvname: pg

watchdog: {mode: off, device: /dev/watchdog1, safety_margin: -1}
guard: off

tags:
  failover_priority: 2
  clonefrom: true
  zone: a
x-common: &c {a: 1}
)");
  REQUIRE_MESSAGE(result.config.has_value(), shown(result.problems));
  CHECK(shown(result.problems) == "");
  const auto& config = *result.config;
  CHECK(config.store.scope == Scope("demo"));
  CHECK(config.store.name_space == "db/prod");
  const auto& etcd = std::get<EtcdSection>(config.store.section);
  CHECK(etcd.endpoints == std::vector<std::string>{"https://10.0.0.1:2379",
                                                   "https://10.0.0.2:2379",
                                                   "https://[fd00::3]:2379"});
  CHECK(etcd.username == "patroni");
  CHECK(etcd.password == "etcdpass");
  CHECK(etcd.tls.ca_file == "/etc/ssl/etcd-ca.crt");
  CHECK(config.identity.timing == Timing{30s, 10s, 10s});
  CHECK(config.identity.can_bootstrap);
  CHECK(config.identity.conn_url == "postgres://10.0.0.1:5433/app");
  CHECK(config.identity.api_url == "https://10.0.0.1:8008/patroni");
  CHECK(config.identity.tags.failover_priority == 2);
  CHECK(config.identity.tags.clonefrom);
  CHECK_FALSE(config.identity.use_pg_rewind);
  CHECK(config.identity.bootstrap_dcs.find_path("postgresql.parameters.archive_mode")->as_bool() ==
        true);
  CHECK(config.restapi.username == "admin");
  CHECK(config.restapi.verify_client == VerifyClient::optional);
  CHECK(config.restapi.allowlist == std::vector<std::string>{"10.0.0.0/8", "ops.example.org"});
  CHECK(config.restapi.body_bytes_max == 65536);
  CHECK(config.restapi.connections_max == 32);
  CHECK(config.restapi.request_timeout == 3s);
  CHECK(config.restapi.http_extra_headers[0] ==
        std::pair<std::string, std::string>("X-Frame-Options", "DENY"));
  CHECK_FALSE(config.ctl.tls.verify);
  CHECK(config.ctl.tls.ca_file == "/etc/ssl/ca.crt");
  CHECK(config.ctl.password == "secret");
  CHECK(config.log.json);
  CHECK(config.log.level == LogLevel::debug);
  CHECK(config.log.mode == 0644);
  CHECK_FALSE(config.guard);
  CHECK(config.watchdog.mode == WatchdogOptions::Mode::off);
  CHECK(config.watchdog.safety_margin_s == -1);
  const auto& pg = config.postgresql;
  CHECK(pg.listen == "127.0.0.1,10.0.0.1");
  CHECK(pg.port == 5433);
  CHECK(pg.bin_name.at("postgres") == "postgres15");
  CHECK(pg.replication.sslmode == "verify-ca");
  CHECK(pg.rewind.password == "rew");
  CHECK(pg.parameters.find("jit")->as_bool() == false);
  CHECK(pg.basebackup ==
        pg::CommandOptions{{"max-rate", "100M"}, {"checkpoint", "fast"}, {"verbose", ""}});
  CHECK(pg.initdb ==
        pg::CommandOptions{{"encoding", "UTF8"}, {"data-checksums", ""}, {"locale", "C.UTF-8"}});
  CHECK(pg.bootstrap_pg_hba == std::vector<std::string>{"local all all trust"});
  CHECK(pg.post_bootstrap == "/usr/local/bin/setup.sh");
  CHECK(pg.callbacks.at("on_role_change") == "/usr/local/bin/cb");
  CHECK_FALSE(pg.remove_data_directory_on_rewind_failure);
  CHECK(pg.pg_ctl_timeout == 30s);
  CHECK_FALSE(pg.use_pg_rewind);
  CHECK(pg.local_document.find("authentication") == nullptr);
  CHECK(pg.local_document.find("use_pg_rewind") != nullptr);
}

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

TEST_CASE("config: the old places of accounts are understood") {
  const auto config = loaded(R"(
scope: s
name: n
restapi: {listen: 'localhost:8008'}
zookeeper: {hosts: [z1, 'z2:2182']}
postgresql:
  listen: localhost
  data_dir: data
  superuser: {username: su}
  replication: {username: re, password: x}
)");
  CHECK(config.postgresql.superuser.username == "su");
  CHECK(config.postgresql.replication.password == "x");
  CHECK(config.postgresql.data_dir == fs::current_path().string() + "/data");
  CHECK(std::get<ZookeeperSection>(config.store.section).hosts ==
        std::vector<std::string>{"z1:2181", "z2:2182"});
}

TEST_CASE("config: a path after ZooKeeper's hosts is the root of everything") {
  const auto text = [](std::string_view hosts) {
    return fmt::format(R"(
scope: s
name: n
restapi: {{listen: 'localhost:8008'}}
zookeeper: {{hosts: {}}}
postgresql:
  listen: localhost
  data_dir: data
  superuser: {{username: su}}
  replication: {{username: re, password: x}}
)",
                       hosts);
  };
  const auto section = std::get<ZookeeperSection>(
      loaded(text("['10.0.0.1:2181', 'z2', '[::1]:2183/apps/pg/']")).store.section);
  CHECK(section.hosts == std::vector<std::string>{"10.0.0.1:2181", "z2:2181", "[::1]:2183"});
  CHECK(section.chroot == "apps/pg");
  const auto line = std::get<ZookeeperSection>(loaded(text("'z1:2181,z2:2181/pg'")).store.section);
  CHECK(line.hosts == std::vector<std::string>{"z1:2181", "z2:2181"});
  CHECK(line.chroot == "pg");
  CHECK(shown(load_text(text("[z1/a, z2/b]")).problems).find("one path for all hosts") !=
        std::string::npos);
}

TEST_CASE("config: the environment counts over the file, and SPILO_ over PATRONI_") {
  const Environment environment = {
      {"PATRONI_NAME", "env-name"},
      {"SPILO_NAME", "spilo-name"},
      {"PATRONI_SCOPE", ""},
      {"PATRONI_NAMESPACE", "/x/"},
      {"PATRONI_RESTAPI_ALLOWLIST", "10.0.0.1, 10.0.0.2"},
      {"PATRONI_RESTAPI_HTTP_EXTRA_HEADERS", "A: b, C: d"},
      {"PATRONI_RESTAPI_USERNAME", "u"},
      {"SPILO_RESTAPI_PASSWORD", "p"},
      {"PATRONI_SUPERUSER_PASSWORD", "0123"},
      {"PATRONI_POSTGRESQL_BIN_PG_CTL", "ctl"},
      {"PATRONI_LOGLEVEL", "ERROR"},
      {"SPILO_GUARD", "off"},
      {"SPILO_SQLITE_PATH", "/srv/db"},
      {"PATRONI_RESTAPI_LISTN", "x"},
      {"SPILO_UNRELATED_THING", "x"},
      {"HOME", "/root"},
  };
  const auto result = load_text(least, environment);
  REQUIRE_MESSAGE(result.config.has_value(), shown(result.problems));
  const auto& config = *result.config;
  CHECK(config.identity.node == NodeName("spilo-name"));
  CHECK(config.identity.scope == Scope("batman"));
  CHECK(config.store.name_space == "x");
  CHECK(config.restapi.allowlist == std::vector<std::string>{"10.0.0.1", "10.0.0.2"});
  CHECK(config.restapi.http_extra_headers.size() == 2);
  CHECK(config.restapi.username == "u");
  CHECK(config.restapi.password == "p");
  CHECK(config.postgresql.superuser.username == "postgres");
  CHECK(config.postgresql.superuser.password == "0123");
  CHECK(config.postgresql.bin_name.at("pg_ctl") == "ctl");
  CHECK(config.log.level == LogLevel::error);
  CHECK_FALSE(config.guard);
  CHECK(std::get<SqliteSection>(config.store.section).path == "/srv/db");
  CHECK(shown(result.problems) ==
        "warning: PATRONI_RESTAPI_LISTN: unknown variable, did you mean PATRONI_RESTAPI_LISTEN?\n");
}

TEST_CASE("config: a bad variable is named") {
  const auto result = load_text(
      least,
      {{"SPILO_GUARD", "maybe"}, {"PATRONI_ETCD3_PORT", "x"}, {"SPILO_RESTAPI_LISTEN", "q:q"}});
  CHECK_FALSE(result.config.has_value());
  CHECK(shown(result.problems) ==
        "error: SPILO_GUARD: must be on or off, but is the text \"maybe\"\n"
        "error: PATRONI_ETCD3_PORT: must be a whole number, but is the text \"x\"\n"
        "SPILO_RESTAPI_LISTEN: error: restapi.listen: must be an address with a port such as "
        "10.0.0.1:8008, but is \"q:q\"\n");
}

TEST_CASE("config: from the environment alone") {
  const Environment pieces = {{"SPILO_NAME", "n"},
                              {"SPILO_SCOPE", "s"},
                              {"SPILO_RESTAPI_LISTEN", "localhost:8008"},
                              {"SPILO_POSTGRESQL_LISTEN", "localhost:5432"},
                              {"SPILO_POSTGRESQL_DATA_DIR", "/d"},
                              {"PATRONI_SUPERUSER_USERNAME", "a"},
                              {"PATRONI_REPLICATION_USERNAME", "b"},
                              {"PATRONI_ETCD_HOSTS", "'h1:2379','h2:2379'"}};
  const auto result = load({}, pieces);
  REQUIRE_MESSAGE(result.config.has_value(), shown(result.problems));
  CHECK(std::get<EtcdSection>(result.config->store.section).endpoints.size() == 2);

  const auto whole =
      load({}, {{"PATRONI_CONFIGURATION", std::string(least)}, {"PATRONI_NAME", "ignored"}});
  REQUIRE(whole.config.has_value());
  CHECK(whole.config->identity.node == NodeName("n1"));
  const auto nothing = load({}, {});
  CHECK_FALSE(nothing.config.has_value());
  CHECK(nothing.problems.size() == 1);
}

TEST_CASE("config: secrets come from files, and open ones are warned about") {
  const Directory directory;
  directory.write("super", "s3cret\n");
  const auto open = directory.write("open", "x", 0644);
  directory.write("empty", "\n");
  auto text = std::string(least);
  text.replace(text.find("{username: postgres}"), 20, "{username: postgres, password_file: super}");
  const auto file = directory.write("node.yml", text);
  const Environment credentials = {{"CREDENTIALS_DIRECTORY", directory.path()}};
  auto result = load({file}, credentials);
  REQUIRE_MESSAGE(result.config.has_value(), shown(result.problems));
  CHECK(result.config->postgresql.superuser.password == "s3cret");
  CHECK(result.problems.empty());

  result = load({file},
                {{"CREDENTIALS_DIRECTORY", directory.path()},
                 {"SPILO_REPLICATION_PASSWORD_FILE", open},
                 {"SPILO_SUPERUSER_PASSWORD", "direct"}});
  REQUIRE_MESSAGE(result.config.has_value(), shown(result.problems));
  CHECK(result.config->postgresql.superuser.password == "direct");
  CHECK(result.config->postgresql.replication.password == "x");
  CHECK(shown(result.problems).find("can be read by everybody") != std::string::npos);

  for (const auto& [name, message] :
       {std::pair("missing", "can't be read"), {"empty", "is empty"}, {"..", "is a directory"}}) {
    auto bad = text;
    bad.replace(bad.find("password_file: super"), 20, std::string("password_file: ") + name);
    const auto refused = load({directory.write("bad.yml", bad)}, credentials);
    CHECK_FALSE(refused.config.has_value());
    REQUIRE(refused.problems.size() == 1);
    CHECK(refused.problems[0].path == "postgresql.authentication.superuser.password_file");
    CHECK_MESSAGE(refused.problems[0].message.find(message) != std::string::npos,
                  refused.problems[0].message);
  }

  auto with_password = std::string(least);
  with_password.replace(
      with_password.find("{username: postgres}"), 20, "{username: postgres, password: geheim}");
  const auto world = load({directory.write("world.yml", with_password, 0644)}, {});
  REQUIRE(world.config.has_value());
  REQUIRE(world.problems.size() == 1);
  CHECK(world.problems[0].severity == Problem::Severity::warning);
  CHECK(world.problems[0].message.starts_with("holds passwords and can be read by everybody"));
}

TEST_CASE("config: a directory is merged in the order of names, null removes") {
  const Directory directory;
  directory.write("10-base.yml", least);
  directory.write("20-over.yaml",
                  "name: n2\nsqlite: null\netcd3: {host: e}\nrestapi: {allowlist: [a]}\n");
  directory.write("30-ignored.txt", "name: n3\n");
  const auto result = load({directory.path()}, {});
  REQUIRE_MESSAGE(result.config.has_value(), shown(result.problems));
  CHECK(result.config->identity.node == NodeName("n2"));
  CHECK(section_name(result.config->store.section) == "etcd3");
  CHECK(result.config->restapi.listen.port == 8008);
  directory.write("40-bad.yml", "nmae: x\n");
  const auto bad = load({directory.path()}, {});
  REQUIRE(bad.problems.size() == 1);
  CHECK(bad.problems[0].file.ends_with("40-bad.yml"));
  CHECK(bad.problems[0].line == 1);

  const Directory empty;
  CHECK(load({empty.path()}, {}).problems[0].message == "has no *.yml or *.yaml file");
  CHECK(load({empty.path() + "/none.yml"}, {}).problems[0].message ==
        "can't be read: No such file or directory");
}

TEST_CASE("config: what spiloctl needs of the file") {
  const Directory directory;
  const auto file = directory.write(
      "ctl.yml",
      "etcd3: {hosts: [h]}\nctl: {cacert: /ca, authentication: {username: u, password: "
      "p}}\npostgresql: {authentication: {superuser: {password_file: /nonexistent}}}\n");
  const auto result = load_ctl({file}, {{"PATRONI_SCOPE", "s"}});
  REQUIRE_MESSAGE(result.config.has_value(), shown(result.problems));
  CHECK(result.config->store.scope == Scope("s"));
  CHECK(result.config->ctl.tls.ca_file == "/ca");
  CHECK(result.config->ctl.username == "u");
}

TEST_CASE("config: consul's servers, with Patroni's keys and as a list") {
  const Directory directory;
  struct Row {
    const char* section;
    std::vector<std::string> servers;
  };
  const Row rows[] = {
      {"{}", {"http://127.0.0.1:8500"}},
      {"{token: t}", {"http://127.0.0.1:8500"}},
      {"{host: c1}", {"http://c1:8500"}},
      {"{host: 'c1:18500', scheme: https}", {"https://c1:18500"}},
      {"{host: c1, port: 18500}", {"http://c1:18500"}},
      {"{url: 'https://c1:443', host: c2}", {"https://c1:443"}},
      {"{hosts: [c1, 'c2:18500', '[::1]']}",
       {"http://c1:8500", "http://c2:18500", "http://[::1]:8500"}},
      {"{hosts: 'c1, c2', host: c3}", {"http://c1:8500", "http://c2:8500"}},
  };
  for (const auto& row : rows) {
    CAPTURE(row.section);
    const auto file =
        directory.write("ctl.yml", std::string("scope: s\nconsul: ") + row.section + "\n");
    const auto result = load_ctl({file}, {});
    REQUIRE_MESSAGE(result.config.has_value(), shown(result.problems));
    CHECK(std::get<ConsulSection>(result.config->store.section).servers == row.servers);
  }
  const auto file = directory.write("ctl.yml", "scope: s\n");
  const auto result = load_ctl({file}, {{"PATRONI_CONSUL_HOSTS", "'h1:8500','h2:8500'"}});
  REQUIRE_MESSAGE(result.config.has_value(), shown(result.problems));
  CHECK(std::get<ConsulSection>(result.config->store.section).servers.size() == 2);
  for (const char* bad : {"{host: 'a b'}", "{hosts: ['c1', 'ftp://x']}", "{scheme: ftp}"}) {
    const auto wrong = directory.write("ctl.yml", std::string("scope: s\nconsul: ") + bad + "\n");
    CHECK_MESSAGE(!load_ctl({wrong}, {}).config.has_value(), bad);
  }
}

TEST_CASE("config: the store as a URL") {
  struct Row {
    const char* url;
    const char* section;
    const char* place;
    const char* name_space;
  };
  const Row rows[] = {
      {"etcd3://h:2380/ns/", "etcd3", "http://h:2380", "ns"},
      {"etcd://h", "etcd3", "http://h:2379", "service"},
      {"h:2379", "etcd3", "http://h:2379", "service"},
      {"h:8500", "consul", "http://h:8500", "service"},
      {"consul://h", "consul", "http://h:8500", "service"},
      {"zookeeper://[::1]", "zookeeper", "[::1]:2181", "service"},
      {"h:2181/a", "zookeeper", "h:2181", "a"},
      {"sqlite:///srv/x.db", "sqlite", "/srv/x.db", "service"},
  };
  for (const auto& row : rows) {
    CAPTURE(row.url);
    const auto store = parse_store_url(row.url);
    REQUIRE(store.has_value());
    CHECK(section_name(store->section) == row.section);
    CHECK(store->name_space == row.name_space);
    std::string place;
    if (const auto* etcd = std::get_if<EtcdSection>(&store->section)) place = etcd->endpoints[0];
    if (const auto* consul = std::get_if<ConsulSection>(&store->section))
      place = consul->servers[0];
    if (const auto* keeper = std::get_if<ZookeeperSection>(&store->section))
      place = keeper->hosts[0];
    if (const auto* sqlite = std::get_if<SqliteSection>(&store->section)) place = sqlite->path;
    CHECK(place == row.place);
  }
  for (const char* bad : {"ftp://h", "etcd3://a b", "sqlite://", "h:port"})
    CHECK_MESSAGE(parse_store_url(bad).has_error(), bad);
}

TEST_CASE("config: mutated files never throw and never load silently wrong") {
  std::mt19937 random(3);
  const std::string seed(least);
  int good = 0;
  const Directory directory;
  for (int round = 0; round < 500; ++round) {
    auto text = seed;
    for (auto edits = 1 + random() % 3; edits > 0; --edits) {
      const auto at = random() % text.size();
      if (random() % 2 == 0)
        text[at] = static_cast<char>(random() % 256);
      else
        text.insert(at, 1, ":\n -[]{}&*!|'\"#?"[random() % 15]);
    }
    const auto result = load({directory.write("node.yml", text)}, {});
    if (!result.config) {
      CHECK_FALSE(result.problems.empty());
      continue;
    }
    ++good;
    CHECK_FALSE(result.config->identity.node.empty());
    CHECK_FALSE(result.config->postgresql.data_dir.empty());
  }
  CHECK(good > 5);
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
