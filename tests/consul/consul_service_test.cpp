// A node in Consul's catalogue: registered while it runs, tags by its role, taken out when it has
// stopped, and again when an agent that was away comes back.
#include <doctest/doctest.h>

#include <optional>

#include "consul/consul_world.hpp"
#include "spilo/consul/service_registration.hpp"
#include "spilo/runtime/operation_set.hpp"

using namespace spilo;
using namespace spilo::test;
using namespace std::chrono_literals;

namespace {

ServedNode node(std::string role, std::string state) {
  ServedNode out;
  out.conn_url = "postgres://127.0.0.1:5433/postgres";
  out.api_url = "http://127.0.0.1:8008/patroni";
  out.role = std::move(role);
  out.state = std::move(state);
  out.ttl = 30s;
  return out;
}

// What the agent lists under our ID; nothing when it does not.
std::optional<json::Value> listed(const ConsulMember& member) {
  const auto services = json::parse(consul_call(member, "GET", "/v1/agent/services"));
  REQUIRE(services.has_value());
  const auto* one = services->find("batman/n1");
  if (one == nullptr) return {};
  return *one;
}

std::string tags(const ConsulMember& member) {
  const auto one = listed(member);
  const auto* list = one ? one->find("Tags") : nullptr;
  return list != nullptr ? json::dump(*list) : "";
}

}  // namespace

TEST_CASE("service registration follows the node" * doctest::skip(!have_consul())) {
  ConsulCluster consul;
  ConsulWorld w;
  FlakyProxy proxy(w.io, consul[0].port());
  consul::RegistrationOptions options;
  options.agent = net::Url("127.0.0.1", proxy.port());
  options.scope = Scope("batman");
  options.node = NodeName("n1");
  options.tags.emplace_back("blue");
  options.logger = Logger(LogLevel::debug, [&](LogLevel level, std::string_view text) {
    w.log.append(to_text(level)).append(" ").append(text).append("\n");
  });
  consul::ServiceRegistration registration(w.io.get_executor(), w.clock, options);
  auto running = std::make_shared<OperationSet>(
      w.io.get_executor(),
      [](std::exception_ptr failure) { std::rethrow_exception(failure); },
      [] {});
  running->start(registration.run());
  const auto becomes = [&](const std::string& expected) {
    return run_until(
        w.io, [&] { return tags(consul[0]) == expected; }, 10s);
  };
  registration.show(node("replica", "starting"));
  registration.show(node("replica", "running"));
  REQUIRE(becomes(R"(["blue","replica"])"));
  const auto one = listed(consul[0]);
  CHECK(one->get_string("Service") == "batman");
  CHECK(one->get_string("Address") == "127.0.0.1");
  CHECK(one->get_int("Port") == 5433);
  CHECK(one->get_bool("EnableTagOverride"));
  const auto checks = consul_call(consul[0], "GET", "/v1/agent/checks");
  CHECK(checks.find("service:batman/n1") != std::string::npos);

  registration.show(node("primary", "running"));
  CHECK(becomes(R"(["blue","primary","master"])"));
  registration.show(node("standby_leader", "running"));
  CHECK(becomes(R"(["blue","standby-leader"])"));
  // What is neither running nor stopped changes nothing, and the same once more costs no call.
  const auto requests = proxy.requests();
  registration.show(node("replica", "restarting"));
  registration.show(node("promoted", "running"));
  registration.show(node("standby_leader", "running"));
  CHECK_FALSE(run_until(
      w.io, [&] { return proxy.requests() > requests; }, 200ms));

  // The agent is away: one warning, then it is told again.
  proxy.refuse();
  registration.show(node("replica", "running"));
  CHECK(run_until(
      w.io, [&] { return w.log.find("service registration:") != std::string::npos; }, 5s));
  proxy.pass();
  CHECK(becomes(R"(["blue","replica"])"));

  registration.show(node("replica", "stopped"));
  CHECK(becomes(""));
  registration.show(node("replica", "running"));
  CHECK(becomes(R"(["blue","replica"])"));
  running->cancel_all();
  CHECK(run_until(
      w.io, [&] { return running->idle(); }, 5s));
  CHECK(run(w.io, registration.withdraw(w.in(5s))).has_value());
  CHECK_FALSE(listed(consul[0]));
  CHECK(run(w.io, registration.withdraw(w.in(5s))).has_value());
}
