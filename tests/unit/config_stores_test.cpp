#include "config_texts.hpp"

using namespace spilo;
using namespace spilo::config;
using namespace spilo::test;
using namespace std::chrono_literals;

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
