#include "spilo/testing/sim_cluster.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <exception>
#include <utility>

#include "spilo/core/json.hpp"
#include "spilo/model/codec.hpp"
#include "spilo/model/keys.hpp"

namespace spilo::testing {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr const char* scope_name = "sim";

std::int64_t in_seconds(Duration span) {
  return std::chrono::duration_cast<seconds>(span).count();
}

void rethrow(std::exception_ptr failure) {
  if (failure) std::rethrow_exception(failure);
}

// What GET /patroni would say, as its reader understands it.
PeerStatus peer_status(const PublicStatus& status) {
  const bool answers = status.node && status.node->running();
  json::Value body = json::Value::object();
  std::string role = status.role.empty() ? "uninitialized" : status.role;
  if (answers) role = status.node->role == NodeView::Role::primary ? "primary" : "replica";
  body.set("state", status.state == "running" && !answers ? "unknown" : status.state);
  body.set("role", role);
  if (status.watchdog_failed) body.set("watchdog_failed", true);
  if (answers) {
    json::Value xlog = json::Value::object();
    if (status.node->role == NodeView::Role::primary) {
      xlog.set("location", json::Value(to_int(status.node->flushed)));
    } else {
      xlog.set("received_location", json::Value(to_int(status.node->received)));
      xlog.set("replayed_location", json::Value(to_int(status.node->replayed)));
    }
    body.set("xlog", std::move(xlog));
    body.set("timeline", json::Value(std::int64_t{to_int(status.node->timeline)}));
  }
  auto peer = codec::parse_peer_status(status.identity.node, json::dump(body));
  peer.nofailover = status.identity.tags.nofailover;
  peer.failover_priority = status.identity.tags.failover_priority;
  return peer;
}

boost::asio::awaitable<PeerStatus> answer_probe(Supervisor& supervisor,
                                                StatusBoard& board,
                                                Clock& clock) {
  co_await supervisor.refresh(milliseconds(20), clock.now() + milliseconds(500));
  co_return peer_status(*board.get());
}

boost::asio::awaitable<FailsafeAnswer> answer_failsafe(Supervisor& supervisor,
                                                       StatusBoard& board,
                                                       std::string body) {
  const auto parsed = json::parse(body);
  FailsafeAnswer given;
  if (!parsed.has_value()) {
    given.problem = "malformed body";
    co_return given;
  }
  NodeName leader(parsed->get_string("name"));
  std::string conn_url = parsed->get_string("conn_url");
  std::string api_url = parsed->get_string("api_url");
  const auto reply = co_await supervisor.hear_failsafe(
      leader, conn_url, api_url, codec::parse_promise_ttl(*parsed));
  given.accepted = reply.has_value() && reply->first == 200;
  if (!reply.has_value()) {
    given.problem = reply.error().text();
  } else if (!given.accepted) {
    given.problem = reply->second;
  }
  if (const auto status = board.get(); status->node) given.lsn = status->node->last_lsn();
  co_return given;
}

boost::asio::awaitable<void> ask_one(Supervisor& supervisor,
                                     ha::OperatorRequest request,
                                     RequestChecker& checker,
                                     std::uint64_t id) {
  const auto reply = co_await supervisor.ask(std::move(request));
  checker.answered(id, reply.has_value() ? reply->first : 0);
}

}  // namespace

// One life of an agent: everything that a crash takes away.
struct SimCluster::Agent {
  Agent(SimCluster& cluster, std::size_t host)
      : store(cluster.dcs_, cluster.node(host), cluster.scope()),
        postgres(cluster.world_, cluster.node(host), cluster.servers_, cluster.server(host)),
        peers(cluster.world_, cluster.network_, cluster.book_, cluster.node(host), host),
        supervisor(Ports{.clock = cluster.world_.clock(cluster.node(host)),
                         .store = store,
                         .postgres = postgres,
                         .peers = peers,
                         .guard = cluster.guard(host),
                         .watchdog = watchdog,
                         .board = board},
                   cluster.identity(host),
                   Logger(LogLevel::info,
                          [&cluster, host](LogLevel level, std::string_view line) {
                            cluster.world_.trace(cluster.name(host),
                                                 fmt::format("{} {}", to_text(level), line));
                          }),
                   cluster.rng_.next()) {}

  SimStore store;
  SimPostgres postgres;
  SimPeers peers;
  NoWatchdog watchdog;
  StatusBoard board;
  Supervisor supervisor;
};

SimCluster::SimCluster(Options options)
    : options_(std::move(options)),
      world_(options_.seed),
      network_(world_),
      dcs_(world_,
           SimDcs::Options{.session_ttl_is_fixed = options_.store_ttl_is_fixed,
                           .clock_drift_ppm = options_.store_drift_ppm,
                           .drift_allowance_ppm = 5000}),
      truth_{world_, dcs_, Scope(scope_name), TimePoint{}},
      split_brain_(truth_),
      token_(truth_),
      promotion_(truth_, failsafe_),
      commits_(truth_, options_.wait_for_all_standbys),
      divergence_(truth_),
      lease_(truth_, options_.timing.ttl * options_.ttl_factor_max / 200),
      failsafe_(truth_, options_.timing.ttl * options_.ttl_factor_max / 100),
      requests_(truth_),
      servers_(world_, network_, watchers_),
      rng_(world_.rng().fork("cluster")) {
  dcs_.on_change([this](const Scope&) { token_.store_changed(servers_.find(truth_.holder())); });
  watchers_.add(split_brain_);
  watchers_.add(token_);
  watchers_.add(promotion_);
  watchers_.add(commits_);
  watchers_.add(divergence_);
  watchers_.add(counter_);
  for (std::size_t i = 0; i < options_.nodes; ++i) {
    auto host = std::make_unique<Host>();
    const auto name = fmt::format("n{}", i + 1);
    host->node = world_.add_node(name);
    host->server = &servers_.add(name);
    host->guard = std::make_unique<SimGuard>(world_, host->node, *host->server, options_.no_guard);
    if (options_.wait_for_all_standbys) host->server->require_standbys(options_.nodes - 1);
    if (options_.drift_ppm_max > 0)
      world_.clock(host->node)
          .set_drift(
              static_cast<int>(rng_.between(-options_.drift_ppm_max, options_.drift_ppm_max)));
    hosts_.push_back(std::move(host));
  }
  if (options_.commit_interval > Duration(0))
    world_.after(options_.commit_interval, [this] { clients(); });
}

SimCluster::~SimCluster() {
  for (auto& host : hosts_) {
    world_.crash(host->node);
    host->agent.reset();
  }
}

ha::Identity SimCluster::identity(std::size_t host) const {
  ha::Identity id;
  const auto& name = this->name(host);
  id.node = NodeName(name);
  id.scope = truth_.scope;
  id.conn_url = fmt::format("postgres://{}:5432/postgres", name);
  id.api_url = fmt::format("http://{}:8008/patroni", name);
  id.timing = options_.timing;
  id.plant = options_.plant;
  if (host < options_.failover_priority.size())
    id.tags.failover_priority = options_.failover_priority[host];
  id.bootstrap_dcs.set("ttl", in_seconds(options_.timing.ttl));
  id.bootstrap_dcs.set("loop_wait", in_seconds(options_.timing.loop_wait));
  id.bootstrap_dcs.set("retry_timeout", in_seconds(options_.timing.retry_timeout));
  id.bootstrap_dcs.set("maximum_lag_on_failover", options_.maximum_lag_on_failover);
  id.bootstrap_dcs.set("primary_start_timeout", in_seconds(options_.primary_start_timeout));
  id.bootstrap_dcs.set("failsafe_mode", options_.failsafe);
  id.bootstrap_dcs.set("check_timeline", options_.check_timeline);
  return id;
}

// ---- agents ------------------------------------------------------------------------------------

void SimCluster::start_agent(std::size_t host) {
  auto& at = *hosts_.at(host);
  if (at.agent) return;
  const auto life = ++at.life;
  at.exit_status.reset();
  at.stops = false;
  at.agent = std::make_unique<Agent>(*this, host);
  world_.trace(name(host), "agent starts");
  failsafe_.agent_started(NodeName(name(host)));
  auto& agent = *at.agent;
  auto& clock = world_.clock(at.node);
  agent.supervisor.observe(
      [this, host](const ha::Machine& machine,
                   std::string_view event,
                   const ha::Decision& decision) { after_step(host, machine, event, decision); });
  SimPhoneBook::Line line;
  line.node = at.node;
  line.host = host;
  line.status = [&agent, &clock] { return answer_probe(agent.supervisor, agent.board, clock); };
  line.failsafe = [&agent](std::string body) {
    return answer_failsafe(agent.supervisor, agent.board, std::move(body));
  };
  book_.enter(NodeName(name(host)), std::move(line));
  boost::asio::co_spawn(
      world_.executor(at.node),
      agent.supervisor.run(),
      [this, host, life](std::exception_ptr failure, Result<int> status) {
        rethrow(failure);
        const int code = status.has_value() ? *status : -1;
        if (!status.has_value())
          world_.violation(
              fmt::format("{}: run() ended with {}", name(host), status.error().text()));
        world_.after(Duration(0), [this, host, life, code] { agent_ended(host, life, code); });
      });
}

void SimCluster::start_all() {
  for (std::size_t i = 0; i < hosts_.size(); ++i) start_agent(i);
}

void SimCluster::schedule_restart(std::size_t host) {
  if (restart_after == Duration(0)) return;
  world_.after(restart_after, [this, host, life = hosts_.at(host)->life] {
    if (hosts_.at(host)->life == life) start_agent(host);
  });
}

void SimCluster::agent_ended(std::size_t host, std::uint64_t life, int status) {
  auto& at = *hosts_.at(host);
  if (at.life != life || !at.agent) return;
  at.exit_status = status;
  world_.trace(name(host), fmt::format("agent ended with status {}", status));
  book_.remove(NodeName(name(host)));
  requests_.agent_ended(at.node);
  at.guard->forget_agent();
  world_.crash(at.node);
  at.agent.reset();
  schedule_restart(host);
}

void SimCluster::crash_agent(std::size_t host) {
  auto& at = *hosts_.at(host);
  if (!at.agent) return;
  world_.trace(name(host), "agent is killed");
  book_.remove(NodeName(name(host)));
  requests_.agent_ended(at.node);
  at.guard->forget_agent();
  world_.crash(at.node);
  at.agent.reset();
  schedule_restart(host);
}

void SimCluster::stop_agent(std::size_t host) {
  auto& at = *hosts_.at(host);
  if (!at.agent) return;
  at.stops = true;
  at.agent->supervisor.post(ha::StopAsked{});
}

bool SimCluster::agent_stops() const {
  return std::ranges::any_of(hosts_, [](const auto& host) { return host->agent && host->stops; });
}

void SimCluster::kill_host(std::size_t host) {
  world_.trace(name(host), "host loses power");
  hosts_.at(host)->guard->forget_agent();
  hosts_.at(host)->guard->die();
  hosts_.at(host)->server->kill("power lost");
  crash_agent(host);
}

// ---- operators ---------------------------------------------------------------------------------

void SimCluster::ask(std::size_t host, ha::OperatorRequest request) {
  auto& at = *hosts_.at(host);
  if (!at.agent) return;
  request.id = next_request_++;
  const auto id = requests_.asked(at.node);
  boost::asio::co_spawn(world_.executor(at.node),
                        ask_one(at.agent->supervisor, std::move(request), requests_, id),
                        rethrow);
}

void SimCluster::request_switchover(const std::string& leader, const std::string& candidate) {
  FailoverRequest request;
  request.leader = NodeName(leader);
  request.candidate = NodeName(candidate);
  dcs_.put(truth_.scope, keys::failover, codec::dump_failover(request));
}

// ---- clients and checkers ----------------------------------------------------------------------

// Each server has a client with an open connection; only a primary lets it commit.
void SimCluster::clients() {
  for (auto& host : hosts_)
    if (host->server->writable()) host->server->commit(next_row_++);
  const auto next = rng_.between(options_.commit_interval / 2, options_.commit_interval * 3 / 2);
  world_.after(next, [this] { clients(); });
}

void SimCluster::after_step(std::size_t host,
                            const ha::Machine& machine,
                            std::string_view event,
                            const ha::Decision& decision) {
  ++steps_;
  lease_.after_step(node(host), machine, guard(host));
  failsafe_.after_step(node(host), machine);
  std::string effects;
  for (const auto& effect : decision.effects) {
    effects += effects.empty() ? "" : "; ";
    effects += ha::to_text(effect);
  }
  world_.trace(name(host),
               fmt::format("{} -> {}: {} [{}]", event, decision.rule, decision.summary, effects));
}

// ---- how it is ---------------------------------------------------------------------------------

std::optional<std::size_t> SimCluster::leader() const {
  const auto holder = truth_.holder();
  for (std::size_t i = 0; i < hosts_.size(); ++i)
    if (name(i) == holder && hosts_[i]->server->writable()) return i;
  return {};
}

std::string SimCluster::unhealthy() const {
  const auto first = leader();
  if (!first) return fmt::format("no primary with the lock; it is held by '{}'", truth_.holder());
  for (std::size_t i = 0; i < hosts_.size(); ++i) {
    const auto& server = *hosts_[i]->server;
    if (!hosts_[i]->agent) return name(i) + " has no agent";
    if (i == *first) continue;
    if (!server.running() || !server.in_recovery()) return name(i) + " is no running standby";
    if (!server.streaming()) return name(i) + " does not stream";
    if (server.data().timeline() != hosts_[*first]->server->data().timeline())
      return name(i) + " is on another timeline";
  }
  if (options_.commit_interval > Duration(0) &&
      world_.now() - commits_.last_acknowledged() > options_.commit_interval * 20)
    return "clients can't commit";
  return {};
}

bool SimCluster::run_until_healthy(Duration at_most) {
  const auto end = world_.now() + at_most;
  while (world_.now() < end && world_.violations().empty()) {
    if (unhealthy().empty()) return true;
    world_.run_for(milliseconds(100));
  }
  return unhealthy().empty();
}

void SimCluster::heal() {
  network_.heal();
  dcs_.heal_links();
  dcs_.set_down(SimDcs::Down::no);
  dcs_.linger(Duration(0));
  for (auto& host : hosts_) {
    host->server->faults = ServerFaults{};
    host->server->hang_no_more();
    host->guard->broken = false;
    world_.resume(host->node);
  }
  start_all();
}

}  // namespace spilo::testing
