#include "spilo/node/node.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/this_coro.hpp>
#include <exception>
#include <functional>
#include <utility>

#include "parts.hpp"
#include "spilo/core/assert.hpp"
#include "spilo/net/http_peers.hpp"
#include "spilo/node/data_dir_lock.hpp"
#include "spilo/open_store.hpp"
#include "spilo/pg/controller.hpp"
#include "spilo/rest/api.hpp"
#include "spilo/runtime/cluster_store.hpp"
#include "spilo/runtime/operation_set.hpp"
#include "spilo/runtime/operations.hpp"
#include "spilo/runtime/signal.hpp"
#include "spilo/runtime/with_deadline.hpp"

namespace spilo {

using namespace std::chrono_literals;
using boost::asio::awaitable;

namespace {

std::string describe(std::exception_ptr failure) {
  try {
    std::rethrow_exception(std::move(failure));
  } catch (const std::exception& e) {
    return e.what();
  } catch (...) {
    return "an exception of an unknown type";
  }
}

// Different on every node, so that repeated attempts of several nodes do not fall together.
std::uint64_t seed_of(const ha::Identity& identity) {
  return std::hash<std::string>{}(identity.scope.str() + "/" + identity.node.str()) ^
         (static_cast<std::uint64_t>(::getpid()) << 32);
}

}  // namespace

struct Node::Impl : std::enable_shared_from_this<Node::Impl> {
  Impl(boost::asio::any_io_executor ex, Clock& c, config::Config cfg, Logger log)
      : executor(std::move(ex)),
        clock(c),
        config(std::move(cfg)),
        logger(std::move(log)),
        stop_signal(executor) {}

  // ---- what can be checked and made without anybody's help --------------------------------------

  // False: it can't go on, and the log says why.
  bool make_parts() {
    if (::geteuid() == 0) {
      logger.write(
          LogLevel::critical,
          "running as root: PostgreSQL refuses to be started by root; run this as the user "
          "that owns the data directory (usually postgres)");
      return false;
    }
    StoreRequest request;
    request.options = config.store;
    request.log = logger;
    request.seed = seed_of(config.identity);
    request.client = config.identity.node.str();
    auto opened = open_store(executor, clock, request);
    if (opened.has_error()) {
      logger.write(LogLevel::critical, opened.error().text());
      return false;
    }
    store = std::move(opened->store);
    store_name = opened->description;
    registry = std::move(opened->registry);
    cluster_store = std::make_unique<ClusterStore>(*store, clock);
    postgres = std::make_unique<pg::PgController>(executor, clock, config.postgresql, logger);
    if (config.guard) {
      guard = std::make_unique<ProcessGuard>(executor, node::guard_options(config), logger);
    } else {
      logger.warning(
          "the guard is off: nothing ends PostgreSQL when this agent hangs or is killed");
      guard = std::make_unique<NoGuard>();
    }
    watchdog = std::make_unique<DeviceWatchdog>(node::watchdog_options(config.watchdog), logger);
    peers = std::make_unique<net::HttpPeers>(executor, clock, node::peer_options(config));
    operations = std::make_unique<Operations>(*cluster_store, *peers, &board);
    return true;
  }

  // Nobody else may work in our data directory. The process of an agent that was just killed may
  // need a moment to go. False: it can't go on, and the log says why.
  awaitable<bool> lock_data_dir() {
    const auto give_up = clock.now() + 5s;
    while (!stopping()) {
      auto lock = node::DataDirLock::take(config.postgresql.data_dir);
      if (lock.has_value()) {
        data_dir_lock = std::move(*lock);
        co_return true;
      }
      if (!lock.error().is(errc::conflict)) {
        logger.warning("two agents on one data directory would not be noticed: {}",
                       lock.error().text());
        co_return true;
      }
      if (clock.now() >= give_up) {
        logger.write(LogLevel::critical, lock.error().text());
        co_return false;
      }
      co_await wait_or_stop(clock.now() + 20ms);
    }
    co_return true;
  }

  // ---- the store, and who else has our name -----------------------------------------------------

  bool stopping() const noexcept { return stop_asked || cancelled; }

  // The first view of the cluster; nothing when we are to stop.
  awaitable<std::optional<ClusterView>> wait_for_store() {
    auto pause = Duration(500ms);
    std::string told;
    const auto last_config = postgres->last_config();
    // Whatever lease or promise an earlier agent held is over by then. Its guard has ended a primary before, if there was one.
    const auto leases_over =
        clock.now() + (last_config ? last_config->timing : config.identity.timing).ttl;
    while (!stopping()) {
      if (clock.now() >= leases_over && !(last_config && last_config->pause))
        co_await end_leaderless_primary();
      const auto deadline = clock.now() + 5s;
      auto view = co_await cluster_store->load(dcs::Freshness::linearizable, deadline);
      if (view.has_value()) co_return std::move(*view);
      const auto problem = view.error().text();
      if (problem != told) logger.warning("waiting on {}: {}", store_name, problem);
      told = problem;
      co_await wait_or_stop(clock.now() + pause);
      pause = std::min<Duration>(pause * 2, 5s);
    }
    co_return std::nullopt;
  }

  awaitable<void> end_leaderless_primary() {
    const auto view = co_await postgres->observe(clock.now() + 2s);
    if (view.has_error() || !view->alive() || view->role != NodeView::Role::primary) co_return;
    logger.error(
        "ending PostgreSQL: it is a primary, no lease is known, and {} has not answered for a ttl", store_name);
    const auto ended = postgres->kill_now();
    if (ended.has_error()) logger.error("{}", ended.error().text());
  }

  Async<bool> stop_wait() {
    const bool told = co_await stop_signal.wait();
    if (!told) co_return Error(errc::cancelled);
    co_return true;
  }
  awaitable<void> wait_or_stop(TimePoint until) {
    auto waiting = stop_wait();
    const auto result = co_await with_deadline(clock, until, std::move(waiting));
    if (result.has_error() && result.error().is(errc::cancelled)) cancelled = true;
  }

  // A member of our name that answers on its REST interface runs elsewhere: two agents would fight
  // for one key. True also while nobody knows better.
  awaitable<bool> name_is_free(ClusterView view) {
    const Member* twin = nullptr;
    for (const auto& member : view.members)
      if (member.name == config.identity.node) twin = &member;
    if (twin == nullptr || twin->api_url.empty()) co_return true;
    auto url = net::Url::parse(twin->api_url);
    if (url.has_error()) co_return true;
    // Whoever answers there is somebody; who signed his certificate does not matter here.
    net::HttpClientOptions options;
    options.tls = node::peer_options(config).http.tls;
    options.tls.verify = false;
    net::HttpClient client(executor, clock, std::move(options));
    net::HttpRequest request("GET", "/liveness");
    const auto deadline = clock.now() + 3s;
    const auto answer = co_await client.request(*url, std::move(request), deadline);
    if (answer.has_error()) co_return true;
    logger.log(LogLevel::critical,
               "Can't start; there is already a node named '{}' running: {} answers with {}; give "
               "this one another name",
               config.identity.node.str(),
               url->origin(),
               answer->status());
    co_return false;
  }

  // ---- the life ---------------------------------------------------------------------------------

  void make_supervisor() {
    Ports ports{clock, *store, *postgres, *peers, *guard, *watchdog, board};
    // Should the store have lost the configuration: what the cluster had counts, not what it began with.
    if (const auto last = postgres->last_config()) config.identity.bootstrap_dcs = last->document;
    supervisor =
        std::make_unique<Supervisor>(ports, config.identity, logger, seed_of(config.identity));
    auto control = rest::node_of(*supervisor);
    control.reload = reload_asked;
    api = std::make_unique<rest::RestApi>(
        clock, board, *operations, std::move(control), node::access_options(config.restapi));
  }

  bool bind_rest() {
    auto listening = rest::HttpServer::listen(
        executor, clock, node::server_options(config.restapi), *api, logger);
    if (listening.has_error()) {
      logger.log(LogLevel::critical, "REST interface: {}", listening.error().text());
      return false;
    }
    server = std::move(*listening);
    logger.info("REST interface on {}", config::to_text(config.restapi.listen));
    if (!config.restapi.protected_by_something())
      logger.info(
          "REST requests that change something are taken from this machine only: no password, "
          "client "
          "certificate or allowlist is configured");
    return true;
  }

  // Completes when the server has closed its last connection.
  void serve() {
    serving = true;
    boost::asio::co_spawn(
        executor, server->run(), [self = shared_from_this()](std::exception_ptr failure) {
          self->serving = false;
          self->served.notify();
          if (failure)
            assertion_failed(
                "no exception leaves the REST interface", __FILE__, __LINE__, describe(failure));
        });
  }

  // ---- the service catalogue ---------------------------------------------------------------------

  void start_registry() {
    if (!registry) return;
    subscription = board.subscribe([this] {
      const auto status = board.get();
      ServedNode node;
      node.conn_url = status->identity.conn_url;
      node.api_url = status->identity.api_url;
      node.role = status->role;
      node.state = status->state;
      node.ttl = status->identity.timing.ttl;
      if (status->cluster && status->cluster->config)
        node.ttl = status->cluster->config->timing.ttl;
      registry->show(std::move(node));
    });
    registration = background->start(registry->run());
  }
  awaitable<void> stop_registry() {
    if (!registry) co_return;
    board.unsubscribe(subscription);
    background->cancel(registration);
    // A server that runs on under its guard is still there to be found.
    if (board.get()->state != "stopped") co_return;
    const auto deadline = clock.now() + 2s;
    const auto out = co_await registry->withdraw(deadline);
    if (out.has_error()) logger.warning("service registration: {}", out.error().text());
  }

  Async<int> live() {
    if (!make_parts()) co_return 1;
    const bool alone = co_await lock_data_dir();
    if (!alone) co_return 1;
    auto view = co_await wait_for_store();
    if (!view.has_value()) co_return 0;
    const bool ours = co_await name_is_free(std::move(*view));
    if (!ours) co_return 1;
    make_supervisor();
    if (!bind_rest()) co_return 1;
    serve();
    start_registry();
    if (ready) ready();
    if (stop_asked) supervisor->post(ha::StopAsked{});
    auto status = co_await supervisor->run();
    // Cleaning up takes its time also when we were cancelled.
    co_await boost::asio::this_coro::reset_cancellation_state();
    co_await boost::asio::this_coro::throw_if_cancelled(false);
    server->stop(1s);
    co_await stop_registry();
    while (serving) co_await served.wait();
    while (!background->idle()) co_await background_done.wait();
    if (status.has_error()) co_return 1;
    co_return *status;
  }

  // ---- reload -----------------------------------------------------------------------------------

  void apply(config::Config next) {
    for (const auto& key : node::fixed_differences(config, next))
      logger.warning("{} has changed in the file; it takes effect when this agent is started anew",
                     key);
    if (next.document == config.document) {
      logger.info("No local configuration items changed.");
    }
    next.identity.node = config.identity.node;
    next.identity.scope = config.identity.scope;
    next.postgresql.name = config.postgresql.name;
    next.postgresql.scope = config.postgresql.scope;
    next.postgresql.data_dir = config.postgresql.data_dir;
    next.postgresql.config_dir = config.postgresql.config_dir;
    next.store = config.store;
    next.restapi.listen = config.restapi.listen;
    config = std::move(next);
    if (!supervisor) return;
    postgres->reconfigure(config.postgresql);
    api->reload(node::access_options(config.restapi));
    if (const auto tls = node::tls_options(config.restapi)) {
      const auto renewed = server->reload_tls(*tls);
      if (renewed.has_error()) logger.error("REST interface: {}", renewed.error().text());
    }
    supervisor->post(ha::IdentityChanged{config.identity});
    background->start(reload_postgres());
  }

  awaitable<void> reload_postgres() {
    ha::OperatorRequest request;
    request.kind = ha::OperatorRequest::Kind::reload;
    const auto answer = co_await supervisor->ask(std::move(request));
    if (answer.has_error())
      logger.warning("reload: {}", answer.error().text());
    else if (answer->first >= 300)
      logger.warning("reload: {}", answer->second);
  }

  boost::asio::any_io_executor executor;
  Clock& clock;
  config::Config config;
  Logger logger;
  std::function<void()> reload_asked;
  std::function<void()> ready;
  bool stop_asked = false;
  bool cancelled = false;
  Signal stop_signal;

  // In the order in which they need each other; destroyed the other way round.
  node::DataDirLock data_dir_lock;
  std::string store_name;
  std::unique_ptr<dcs::Store> store;
  std::unique_ptr<ServiceRegistry> registry;  // none: not asked for, or the store has no catalogue
  int subscription = 0;
  OperationSet::Id registration = 0;
  std::unique_ptr<ClusterStore> cluster_store;
  std::unique_ptr<pg::PgController> postgres;
  std::unique_ptr<Guard> guard;
  std::unique_ptr<Watchdog> watchdog;
  std::unique_ptr<net::HttpPeers> peers;
  StatusBoard board;
  std::unique_ptr<Operations> operations;
  std::unique_ptr<Supervisor> supervisor;
  std::unique_ptr<rest::RestApi> api;
  std::unique_ptr<rest::HttpServer> server;
  bool serving = false;
  Signal served{executor};
  Signal background_done{executor};
  std::shared_ptr<OperationSet> background = std::make_shared<OperationSet>(
      executor,
      [](std::exception_ptr failure) {
        assertion_failed("no exception crosses a port", __FILE__, __LINE__, describe(failure));
      },
      [this] { background_done.notify(); });
};

Node::Node(boost::asio::any_io_executor executor,
           Clock& clock,
           config::Config config,
           Logger logger)
    : impl_(std::make_shared<Impl>(
          std::move(executor), clock, std::move(config), std::move(logger))) {}

Node::~Node() {
  impl_->background->abandon();
}

Async<int> Node::run() {
  const auto impl = impl_;
  co_await boost::asio::this_coro::throw_if_cancelled(false);
  auto status = co_await impl->live();
  // The parts end here and not with the node, because they watch processes and files: an io_context
  // would never run out of work.
  impl->server.reset();
  impl->api.reset();
  impl->supervisor.reset();
  impl->operations.reset();
  impl->peers.reset();
  impl->watchdog.reset();
  impl->guard.reset();
  impl->postgres.reset();
  impl->cluster_store.reset();
  impl->registry.reset();
  impl->store.reset();
  impl->data_dir_lock = {};
  co_return status;
}

void Node::stop() {
  impl_->stop_asked = true;
  impl_->stop_signal.notify();
  if (impl_->supervisor) impl_->supervisor->post(ha::StopAsked{});
}

void Node::apply(config::Config config) {
  impl_->apply(std::move(config));
}
void Node::on_reload_asked(std::function<void()> reload) {
  impl_->reload_asked = std::move(reload);
}
void Node::on_ready(std::function<void()> ready) {
  impl_->ready = std::move(ready);
}
const config::Config& Node::config() const noexcept {
  return impl_->config;
}
StatusBoard& Node::board() noexcept {
  return impl_->board;
}
Supervisor* Node::supervisor() noexcept {
  return impl_->supervisor.get();
}
std::uint16_t Node::rest_port() const noexcept {
  return impl_->server ? impl_->server->port() : std::uint16_t{0};
}

}  // namespace spilo
