// What the section `zookeeper` of a configuration may say: each setting of the contract works or is
// refused before anything is connected to.
#include <doctest/doctest.h>

#include <boost/asio/io_context.hpp>
#include <string>
#include <vector>

#include "spilo/open_store.hpp"
#include "spilo/runtime/system_clock.hpp"

using namespace spilo;

namespace {

struct Settings {
  config::ZookeeperSection section;
  boost::asio::io_context io;
  SystemClock clock{io.get_executor()};

  Settings() {
    section.hosts = {"127.0.0.1:2181"};
    section.set_acls = json::Value::object();
    section.auth_data = json::Value::object();
  }
  void acl(const std::string& principal, const std::vector<std::string>& permissions) {
    auto list = json::Value::array();
    for (const auto& one : permissions) list.push(one);
    section.set_acls.set(principal, std::move(list));
  }
  Result<OpenedStore> open() {
    StoreRequest request;
    request.options.section = section;
    request.options.scope = Scope("demo");
    return open_store(io.get_executor(), clock, request);
  }
  // What it is refused with; empty when it is not.
  std::string refused(errc as) {
    const auto opened = open();
    if (opened.has_value()) return {};
    const auto error = opened.error();
    CHECK_MESSAGE(error.is(as), error.text());
    return error.text();
  }
};

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("use_ssl is refused, and a way round is named") {
  Settings settings;
  REQUIRE(settings.open().has_value());
  settings.section.use_ssl = true;
  const auto text = settings.refused(errc::unsupported);
  CHECK_MESSAGE(has(text, "`use_ssl`"), text);
  CHECK_MESSAGE(has(text, "stunnel"), text);
}

TEST_CASE("set_acls: a permission that does not exist is refused, all of them at once") {
  Settings settings;
  settings.acl("world:anyone", {"ALL", "REED"});
  settings.acl("ip:10.0.0.0/8", {"SHUT"});
  const auto text = settings.refused(errc::invalid_argument);
  CHECK_MESSAGE(has(text, "world:anyone"), text);
  CHECK_MESSAGE(has(text, "\"REED\""), text);
  CHECK_MESSAGE(has(text, "\"SHUT\""), text);
}

TEST_CASE("set_acls that would lock this node out of its own znodes are refused") {
  SUBCASE("x509 by default, and there is no TLS") {
    Settings settings;
    settings.acl("CN=node1", {"ALL"});
    CHECK(has(settings.refused(errc::invalid_argument), "lock this node out"));
    settings.acl("world:anyone", {"READ"});
    CHECK(has(settings.refused(errc::invalid_argument), "lock this node out"));
    settings.acl("world:anyone", {"READ", "WRITE", "CREATE", "DELETE"});
    CHECK(settings.open().has_value());
  }
  SUBCASE("digest without credentials") {
    Settings settings;
    settings.acl("digest:spilo:b6KtlF4rUCQtLcz/MW3qoXWWip4=", {"ALL"});
    const auto text = settings.refused(errc::invalid_argument);
    CHECK_MESSAGE(has(text, "auth_data"), text);
    settings.section.auth_data.set("digest", "spilo:secret");
    const auto opened = settings.open();
    REQUIRE(opened.has_value());
    CHECK(!has(opened->description, "secret"));
  }
  SUBCASE("no permission to write") {
    Settings settings;
    settings.section.auth_data.set("digest", "spilo:secret");
    settings.acl("auth:", {"READ", "ADMIN"});
    const auto text = settings.refused(errc::invalid_argument);
    CHECK_MESSAGE(has(text, "DELETE"), text);
    CHECK(!has(text, "secret"));
    settings.acl("auth:", {"ALL"});
    CHECK(settings.open().has_value());
  }
}

TEST_CASE("hosts that are none are refused") {
  Settings settings;
  settings.section.hosts = {};
  CHECK(has(settings.refused(errc::invalid_argument), "`hosts` must list the servers"));
  settings.section.hosts = {"z1:2181", "z2:none"};
  CHECK(has(settings.refused(errc::invalid_argument), "z2:none"));
}
