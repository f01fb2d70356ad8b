#include <random>

#include "config_texts.hpp"

using namespace spilo;
using namespace spilo::config;
using namespace spilo::test;
using namespace std::chrono_literals;

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
