// Routing, access control and bodies, without sockets.
#include "spilo/rest/api.hpp"

#include "sim_fixture.hpp"
#include "spilo/net/http_peers.hpp"
#include "spilo/runtime/system_clock.hpp"
#include "support/run.hpp"

using namespace spilo;
using namespace spilo::rest;
using namespace std::chrono_literals;
namespace asio = boost::asio;

namespace {

struct Fixture : test::SimFixture {
  explicit Fixture(AccessOptions access = {})
      : api(world.clock(n1), board, operations, control(), std::move(access), resolver()) {
    publish([](PublicStatus&) {});
  }
  NodeControl control() {
    NodeControl out;
    out.ask = [this](ha::OperatorRequest request) { return ask(std::move(request)); };
    out.hear_failsafe = [this](NodeName leader, std::string, std::string, Duration ttl) {
      return hear(std::move(leader), ttl);
    };
    out.refresh = [this](Duration, TimePoint) -> asio::awaitable<void> {
      ++refreshed;
      co_return;
    };
    return out;
  }
  Resolver resolver() {
    return [this](std::string host) { return resolve(std::move(host)); };
  }
  asio::awaitable<std::vector<std::string>> resolve(std::string host) {
    ++resolved;
    std::vector<std::string> out;
    if (host == "backup.example" && names_work) out.push_back("192.0.2.7");
    co_return out;
  }
  Async<std::pair<int, std::string>> ask(ha::OperatorRequest request) {
    asked.push_back(request);
    if (publishes) publish([](PublicStatus& s) { s.rule = "keep-lock"; });
    if (slow) {
      publish([](PublicStatus& s) { s.rule = "reinitialize"; });
      co_await sleep_until(world.clock(n1), world.clock(n1).now() + 1h);
    }
    co_return std::pair<int, std::string>(answer_status, "as told");
  }
  Async<std::pair<int, std::string>> hear(NodeName leader, Duration ttl) {
    heard = leader.str();
    heard_ttl = ttl;
    co_return std::pair<int, std::string>(200, "Accepted");
  }
  void publish(const std::function<void(PublicStatus&)>& change) {
    auto status = std::make_shared<PublicStatus>();
    status->identity.node = NodeName("n2");
    status->identity.scope = scope;
    status->cluster = parse_cluster(dcs.snapshot(scope), world.clock(n1).now());
    status->state = "running";
    status->role = "replica";
    NodeView node;
    node.process = NodeView::Process::running;
    node.role = NodeView::Role::replica;
    node.received = Lsn{4711};
    status->node = node;
    status->store_answers = true;
    change(*status);
    board.publish(status);
  }
  // As the server does it: the head first, then the whole.
  net::HttpResponse call(const std::string& method,
                         const std::string& target,
                         const std::string& body = {},
                         net::HttpHeaders headers = {}) {
    net::HttpRequest head(method, target);
    net::HttpRequest whole(method, target, body);
    if (!body.empty()) headers.emplace_back("Content-Length", std::to_string(body.size()));
    for (const auto& [name, value] : headers) {
      head.header(name, value);
      whole.header(name, value);
    }
    auto refused = run(api.admit(Request(std::move(head), peer, tls, certified)));
    if (refused.status() != 0) return refused;
    return run(api.handle(Request(std::move(whole), peer, tls, certified)));
  }

  std::vector<ha::OperatorRequest> asked;
  std::string heard;
  Duration heard_ttl{};
  int refreshed = 0;
  int resolved = 0;
  int answer_status = 200;
  bool publishes = false;  // a status, with the same decision that answers
  bool slow = false;
  bool names_work = true;
  std::string peer = "127.0.0.1";
  bool tls = false;
  bool certified = false;
  RestApi api;
};

bool has(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("rest api: reads") {
  Fixture f;
  CHECK(f.call("GET", "/patroni").status() == 200);
  CHECK(f.refreshed == 1);
  CHECK(f.call("GET", "/patroni/anything").status() == 200);
  CHECK(has(f.call("GET", "/cluster").body(), R"("scope": "demo")"));
  CHECK(f.call("GET", "/history").body() == "[]");
  CHECK(has(f.call("GET", "/config").body(), R"({"ttl": 10, "loop_wait": 2)"));
  CHECK(f.call("GET", "/failsafe").status() == 502);
  CHECK(f.call("GET", "/metrics").header("content-type") == "text/plain");
  CHECK(f.call("GET", "/why?since=3").status() == 200);
  CHECK(has(f.call("GET", "/tasks").body(), R"("task": null)"));
  const auto unknown = f.call("GET", "/nonsense");
  CHECK(unknown.status() == 503);
  CHECK(has(unknown.body(), R"({"state": "running")"));
  CHECK(f.call("GET", "/replica").status() == 200);
  CHECK(f.call("GET", "/primary").status() == 503);
  for (const char* method : {"HEAD", "OPTIONS"}) {
    const auto answer = f.call(method, "/replica");
    CHECK(answer.status() == 200);
    CHECK(answer.body().empty());
    CHECK(f.call(method, "/cluster").status() == 503);  // a health check of an unknown path
  }
  CHECK(f.call("GET", "/liveness").body().empty());
}

TEST_CASE("rest api: reads answer when store and PostgreSQL are down") {
  Fixture f;
  f.dcs.set_down(testing::SimDcs::Down::silent);
  f.publish([](PublicStatus& s) {
    s.store_answers = false;
    s.store_problem = "etcd is silent";
    s.node->process = NodeView::Process::stopped;
    s.state = "stopped";
  });
  CHECK(has(f.call("GET", "/patroni").body(), "etcd is silent"));
  CHECK(has(f.call("GET", "/cluster").body(), R"("store_problem": "etcd is silent")"));
  CHECK(f.call("GET", "/health").status() == 503);
  CHECK(f.took < 1ms);
  f.board.publish(std::make_shared<PublicStatus>());
  CHECK(f.call("GET", "/cluster").status() == 503);
  CHECK(f.call("GET", "/config").status() == 502);
}

TEST_CASE("rest api: what nobody serves") {
  Fixture f;
  for (const char* method : {"POST", "DELETE", "PUT", "BREW"}) {
    const auto answer = f.call(method, "/nonsense<b>", "{}");
    CHECK(answer.status() == 501);
    CHECK(has(answer.body(), "Server does not support this operation"));
    CHECK(has(answer.body(), "&lt;b&gt;"));
  }
  CHECK(f.call("POST", "/mpp", "{}").status() == 501);
  CHECK(f.call("PATCH", "/restart", "{}").status() == 501);
}

TEST_CASE("rest api: closed by default") {
  Fixture f;
  f.peer = "203.0.113.9";
  for (const char* path : {"/restart", "/reload", "/switchover", "/failsafe"}) {
    const auto answer = f.call("POST", path, R"({"leader":"n1"})");
    CHECK(answer.status() == 403);
    CHECK(has(answer.body(), "203.0.113.9"));
    CHECK(has(answer.body(), "restapi.authentication"));
  }
  CHECK(f.call("PATCH", "/config", R"({"ttl":20})").status() == 403);
  CHECK(f.asked.empty());
  CHECK(f.call("GET", "/patroni").status() == 200);
  // A primary without a store has to reach its members.
  f.peer = "10.0.0.1";
  CHECK(f.call("POST", "/failsafe", R"({"name":"n1"})").status() == 200);
  CHECK(f.call("POST", "/restart").status() == 403);
  for (const char* here : {"127.0.0.2", "::1", "::ffff:127.0.0.1"}) {
    f.peer = here;
    CHECK(f.call("POST", "/restart").status() == 200);
  }
}

TEST_CASE("rest api: authentication") {
  AccessOptions access;
  access.user = "admin";
  access.password = "s:ecret";
  Fixture f(access);
  f.peer = "203.0.113.9";
  auto answer = f.call("POST", "/restart");
  CHECK(answer.status() == 401);
  CHECK(answer.body() == "no auth header received");
  CHECK(answer.header("WWW-Authenticate") == "Basic realm=\"Patroni\"");
  net::HttpHeaders wrong;
  wrong.emplace_back("Authorization", net::basic_authorization("admin", "secret"));
  CHECK(f.call("POST", "/restart", "", wrong).body() == "not authenticated");
  net::HttpHeaders right;
  right.emplace_back("authorization", net::basic_authorization("admin", "s:ecret"));
  CHECK(f.call("POST", "/restart", "", right).status() == 200);
  f.peer = "127.0.0.1";  // a password that is configured is asked of everybody
  CHECK(f.call("POST", "/restart").status() == 401);
}

TEST_CASE("rest api: allowlist, members and certificates") {
  AccessOptions access;
  access.allowlist = {"10.1.0.0/16", "192.0.2.4", "fd00::/8", "backup.example"};
  Fixture f(access);
  for (const char* peer : {"10.1.200.3", "192.0.2.4", "fd12::1", "192.0.2.7"}) {
    f.peer = peer;
    CHECK(f.call("POST", "/restart").status() == 200);
  }
  for (const char* peer : {"10.2.0.1", "192.0.2.5", "fe80::1", "127.0.0.1", ""}) {
    f.peer = peer;
    CHECK(f.call("POST", "/restart").status() == 403);
    CHECK(f.call("POST", "/restart").body() == "Access is denied");
  }
  CHECK(f.resolved == 1);  // remembered
  f.names_work = false;    // and kept while the name service is away
  f.world.run_for(2min);
  f.peer = "192.0.2.7";
  CHECK(f.call("POST", "/restart").status() == 200);
  CHECK(f.resolved == 2);

  access.allowlist.clear();
  access.allowlist_include_members = true;
  f.api.reload(access);
  f.peer = "10.0.0.2";
  CHECK(f.call("POST", "/restart").status() == 200);
  f.peer = "10.0.0.9";
  CHECK(f.call("POST", "/restart").status() == 403);

  access.allowlist_include_members = false;
  access.client_certificates = ClientCertificates::optional;
  f.api.reload(access);
  f.tls = true;
  CHECK(f.call("POST", "/restart").body() == "client certificate required");
  f.certified = true;
  CHECK(f.call("POST", "/restart").status() == 200);
  f.tls = f.certified = false;  // plain: certificates protect nothing
  CHECK(f.call("POST", "/restart").status() == 403);
}

TEST_CASE("rest api: bodies") {
  Fixture f;
  CHECK(f.call("POST", "/switchover").status() == 411);
  CHECK(f.call("POST", "/switchover", "{").status() == 400);
  CHECK(has(f.call("POST", "/switchover", "{").body(), "not JSON"));
  CHECK(f.call("POST", "/switchover", "[]").status() == 400);
  CHECK(f.call("POST", "/switchover", "{}").status() == 400);
  CHECK(f.call("POST", "/switchover", R"({"leader":1})").status() == 400);
  CHECK(f.call("POST", "/switchover", R"({"candidate":"n2"})").body() ==
        "Switchover could be performed only from a specific leader");
  CHECK(f.call("POST", "/failover", R"({"leader":"n1"})").body() ==
        "Failover could be performed only to a specific candidate");
  CHECK(f.peek("failover") == "(absent)");
  CHECK(f.call("DELETE", "/switchover").status() == 404);
}

TEST_CASE("rest api: configuration") {
  Fixture f;
  const auto patched = f.call("PATCH", "/config", R"({"ttl":20})");
  CHECK(patched.status() == 200);
  CHECK(patched.body() == R"({"ttl": 20, "loop_wait": 2, "retry_timeout": 4})");
  const auto bad = f.call("PATCH", "/config", R"({"ttl":1,"loop_wait":"x"})");
  CHECK(bad.status() == 422);
  const auto body = json::parse(bad.body());
  REQUIRE(body.has_value());
  CHECK(body->find("violations")->as_array()->size() >= 2);
  CHECK(f.call("PUT", "/config", R"({"ttl":30})").body() == R"({"ttl": 30})");
  CHECK(f.peek("config") == R"({"ttl":30})");
}

TEST_CASE("rest api: restart and reinitialize") {
  Fixture f;
  CHECK(f.call("POST", "/restart").body() == "as told");
  f.answer_status = 503;
  CHECK(f.call("POST",
               "/restart",
               R"({"role":"replica","postgres_version":"15.4","timeout":30,)"
               R"("restart_pending":true})")
            .status() == 503);
  REQUIRE(f.asked.size() == 2);
  CHECK(f.asked[1].role == "replica");
  CHECK(f.asked[1].postgres_version == "15.4");
  CHECK(f.asked[1].timeout == 30s);
  CHECK(f.asked[1].restart_pending);
  const std::pair<const char*, const char*> refusals[] = {
      {R"({"color":"red"})", "Unknown filter for the scheduled restart: color"},
      {R"({"role":"king"})", "role must be"},
      {R"({"postgres_version":"new"})", "postgres_version must be"},
      {R"({"timeout":-1})", "timeout must be"},
      {R"({"schedule":"2030-01-01 00:00"})", "Timezone information is mandatory"}};
  for (const auto& [text, reason] : refusals) {
    const auto answer = f.call("POST", "/restart", text);
    CHECK(answer.status() == 400);
    CHECK(has(answer.body(), reason));
  }
  CHECK(f.call("POST", "/restart", R"({"schedule":"2001-01-01T00:00Z"})").status() == 422);
  CHECK(f.asked.size() == 2);
  CHECK(f.call("POST", "/restart", R"({"schedule":"2100-01-01T00:00Z"})").status() == 503);
  CHECK(f.asked[2].schedule == codec::parse_wall_time("2100-01-01T00:00Z"));
  f.call("DELETE", "/restart");
  CHECK(f.asked[3].kind == ha::OperatorRequest::Kind::cancel_restart);

  CHECK(f.call("POST", "/reinitialize", R"({"force":"yes"})").status() == 400);
  CHECK(f.call("POST", "/reinitialize", R"({"force":true})").status() == 503);  // refused at once
  CHECK(f.asked[4].force);
  f.publishes = true;
  CHECK(f.call("POST", "/reinitialize").status() == 503);
  CHECK(f.took < 1s);
  f.publishes = false;
  f.slow = true;
  const auto begun = f.call("POST", "/reinitialize");
  CHECK(begun.status() == 200);
  CHECK(begun.body() == "reinitialize started");
  CHECK(f.took < 1s);
}

TEST_CASE("rest api: failsafe") {
  Fixture f;
  const auto answer = f.call(
      "POST", "/failsafe", R"({"name":"n1","conn_url":"postgres://10.0.0.1:5432/postgres"})");
  CHECK(answer.status() == 200);
  CHECK(answer.body() == "Accepted");
  CHECK(answer.header("lsn") == "4711");
  CHECK(f.heard == "n1");
  CHECK(f.heard_ttl == 0s);
  CHECK(f.call("POST", "/failsafe", R"({"name":"n1","ttl":60})").status() == 200);
  CHECK(f.heard_ttl == 60s);
  f.publish([](PublicStatus& s) { s.node->role = NodeView::Role::primary; });
  f.heard.clear();
  const auto refused = f.call("POST", "/failsafe", R"({"name":"n1"})");
  CHECK(refused.status() == 500);
  CHECK(refused.body() == "Running as a leader");
  CHECK(f.call("POST", "/failsafe", R"({"slots":{}})").status() == 400);
  f.put("config", R"({"failsafe_mode":false})");
  f.publish([](PublicStatus&) {});
  CHECK(f.call("POST", "/failsafe", R"({"name":"n1"})").status() == 502);
  CHECK(f.heard.empty());
}

namespace {

// A store that is never there.
struct DeadStore final : dcs::Store {
  dcs::Limits limits() const noexcept override { return dcs::Limits{}; }
  Async<dcs::Snapshot> read(dcs::Freshness, TimePoint) override {
    co_return Error(errc::unavailable, "dead");
  }
  Async<dcs::Committed> commit(dcs::Transaction, TimePoint) override {
    co_return Error(errc::unavailable, "dead");
  }
  Async<dcs::Lease> renew(Duration, TimePoint) override {
    co_return Error(errc::unavailable, "dead");
  }
  Async<void> end_session(TimePoint) override { co_return Error(errc::unavailable, "dead"); }
  Async<dcs::Index> changed_since(dcs::Index, TimePoint) override {
    co_return Error(errc::unavailable, "dead");
  }
};

}  // namespace

TEST_CASE("rest api over real sockets: HttpPeers asks a node whose store is dead") {
  asio::io_context io{1};
  SystemClock clock(io.get_executor());
  DeadStore dead;
  ClusterStore store(dead, clock);
  test::FakePeers nobody(clock);
  StatusBoard board;
  Operations operations(store, nobody, &board);
  std::string heard;
  NodeControl control;
  control.hear_failsafe = [&heard](NodeName leader, std::string, std::string, Duration)
      -> Async<std::pair<int, std::string>> {
    heard = leader.str();
    co_return std::pair<int, std::string>(200, "Accepted");
  };
  AccessOptions access;
  access.user = "replicator";
  access.password = "secret";
  RestApi api(clock, board, operations, control, access);
  auto status = std::make_shared<PublicStatus>();
  status->identity.node = NodeName("n2");
  status->state = "running";
  NodeView node;
  node.process = NodeView::Process::running;
  node.role = NodeView::Role::replica;
  node.received = Lsn{900};
  node.replayed = Lsn{800};
  node.timeline = TimelineId{3};
  status->node = node;
  board.publish(status);
  HttpServerOptions options;
  options.port = 0;
  auto server = HttpServer::listen(io.get_executor(), clock, options, api);
  REQUIRE(server.has_value());
  bool ended = false;
  asio::co_spawn(io, (*server)->run(), [&](std::exception_ptr failure) {
    ended = true;
    if (failure) std::rethrow_exception(failure);
  });
  const auto url = "http://127.0.0.1:" + std::to_string((*server)->port()) + "/patroni";
  {
    net::HttpPeersOptions known;
    known.user = "replicator";
    known.password = "secret";
    net::HttpPeers peers(io.get_executor(), clock, known);
    const auto seen = test::run(io, peers.probe(NodeName("n2"), url, clock.now() + 10s), 20s);
    REQUIRE(seen.has_value());
    CHECK(seen->reachable);
    CHECK(seen->lsn == Lsn{900});
    CHECK(seen->timeline == TimelineId{3});
    CHECK(seen->asked_at <= clock.now());
    auto answer = test::run(
        io, peers.ask_failsafe(NodeName("n2"), url, R"({"name":"n1"})", clock.now() + 10s), 20s);
    REQUIRE(answer.has_value());
    CHECK(answer->accepted);
    CHECK(answer->lsn == Lsn{900});
    CHECK(heard == "n1");
    net::HttpPeers stranger(io.get_executor(), clock, net::HttpPeersOptions());
    answer = test::run(
        io, stranger.ask_failsafe(NodeName("n2"), url, R"({"name":"n1"})", clock.now() + 10s), 20s);
    CHECK(!answer->accepted);
    CHECK(has(answer->problem, "401 no auth header received"));
    net::HttpClient client(io.get_executor(), clock, net::HttpClientOptions());
    net::HttpRequest patch("PATCH", "/config", R"({"ttl":20})");
    patch.header("Authorization", net::basic_authorization("replicator", "secret"));
    const auto refused = test::run(
        io,
        client.request(
            net::Url("127.0.0.1", (*server)->port()), std::move(patch), clock.now() + 10s),
        20s);
    REQUIRE(refused.has_value());
    CHECK(refused->status() == 503);
    CHECK(has(refused->body(), "the configuration was not changed: the store does not answer"));
  }
  (*server)->stop(1s);
  CHECK(test::run_until(
      io, [&] { return ended; }, 10s));
  net::HttpPeers peers(io.get_executor(), clock, net::HttpPeersOptions());
  const auto gone = test::run(io, peers.probe(NodeName("n2"), url, clock.now() + 5s), 20s);
  CHECK(!gone->reachable);
  CHECK(has(gone->problem, "/patroni"));
}
