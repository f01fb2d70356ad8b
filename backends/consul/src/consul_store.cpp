#include "spilo/consul/consul_store.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/steady_timer.hpp>
#include <optional>

#include "consul_servers.hpp"
#include "spilo/runtime/with_deadline.hpp"

namespace spilo::consul {
namespace asio = boost::asio;
namespace {

using namespace std::chrono_literals;
using wire::Kind;

// Consul refuses a transaction of more than 512 KiB of text, in which values are base64, or of more
// than 64 operations.
constexpr std::size_t value_bytes_max = 380'000;
constexpr std::size_t transaction_bytes_max = 512 * 1024;
constexpr std::size_t operations_max = 64;
constexpr auto session_ttl_max = std::chrono::hours(24);
constexpr Duration usual_ttl_min = 10s;  // what Consul asks for unless configured
// A blocking query ends by itself before the deadline when there is time enough; its answer then
// shows that the server still lives.
constexpr Duration long_wait = 10s;

}  // namespace

std::string base_path(std::string_view name_space, const Scope& scope) {
  const auto whole = fmt::format("{}/{}/", name_space, scope.str());
  std::string out;
  for (const char c : whole)
    if (c != '/' || (!out.empty() && !out.ends_with('/'))) out += c;
  return out;
}

struct ConsulStore::Impl {
  Impl(asio::any_io_executor executor, Clock& time, Options chosen)
      : clock(time),
        options(std::move(chosen)),
        kv("/v1/kv/" + wire::escaped(options.base)),
        servers(executor, time, options),
        left(executor, asio::steady_timer::time_point::max()) {
    if (!options.dc.empty()) dc = "dc=" + wire::escaped(options.dc);
    // A server that left a call unanswered may well leave changes untold.
    servers.on_leave = [this] { left.cancel(); };
  }

  Async<dcs::Snapshot> read(dcs::Freshness freshness, TimePoint deadline);
  Async<bool> may_read(TimePoint deadline);

  std::optional<Error> refuse(const dcs::Transaction& transaction) const;
  Async<dcs::Committed> commit(dcs::Transaction transaction, TimePoint deadline);
  // One attempt: a value, an error that stays, or nothing when another attempt may succeed.
  Async<std::optional<dcs::Committed>> attempt(dcs::Transaction transaction,
                                               Error& why,
                                               TimePoint deadline);
  Async<bool> session_exists(SessionId id, TimePoint deadline);

  Async<dcs::Lease> renew(Duration ttl, TimePoint deadline);
  Async<dcs::Lease> open_session(Duration ttl, TimePoint deadline);
  Async<Answer> create_session(Duration& ttl, TimePoint deadline);
  Async<Duration> least_ttl(Duration refused, std::string refusal, TimePoint deadline);
  Async<dcs::Lease> keep_alive(SessionId id, TimePoint deadline);
  Async<std::string> leader(TimePoint deadline);
  Async<void> end_session(TimePoint deadline);
  void forget(const SessionId& id) {
    if (session != id) return;
    session = SessionId();
    lease_until = TimePoint{};
  }

  Async<dcs::Index> changed_since(dcs::Index seen, TimePoint deadline);
  // One blocking query, given up when its server has failed somebody else. Before everything: it
  // answers at once.
  Async<std::uint64_t> wait_for_change(dcs::Index seen, TimePoint deadline);

  std::string path(std::string_view text, std::vector<std::string> query = {}) const {
    query.push_back(dc);
    return wire::target(text, query);
  }

  Clock& clock;
  Options options;
  std::string kv;
  std::string dc;
  Servers servers;
  SessionId session;
  Duration session_ttl{};  // of the session, as it was granted
  TimePoint lease_until{};
  Duration ttl_min = 1s;
  std::optional<wire::Owners> owners;  // as of the last read and what we wrote since
  asio::steady_timer left;             // never fires; cancelled when a server has been left
};

// ---- keys
// ----------------------------------------------------------------------------------------------------------------

Async<dcs::Snapshot> ConsulStore::Impl::read(dcs::Freshness freshness, TimePoint deadline) {
  const bool linearizable = freshness == dcs::Freshness::linearizable;
  std::string how = "consistent";
  if (!linearizable) how = options.consistency == "default" ? "" : options.consistency;
  std::vector<std::string> query;
  query.emplace_back("recurse");
  query.push_back(how);
  const auto answer =
      co_await servers.call("GET", path(kv, std::move(query)), "", Kind::read, deadline);
  if (answer.has_error()) co_return answer.error();
  const auto index = wire::parse_index(answer->response.header("X-Consul-Index"));
  if (!index)
    co_return Error(errc::protocol,
                    fmt::format("consul {}: reading {}: the answer has no X-Consul-Index",
                                answer->server,
                                options.base));
  dcs::Snapshot snapshot;
  if (answer->response.status() == 200) {
    auto parsed = wire::parse_list(answer->response.body(), options.base, *index);
    if (parsed.has_error())
      co_return parsed.error().in(
          fmt::format("consul {}: reading {}", answer->server, options.base));
    snapshot = std::move(*parsed);
  } else {
    const auto allowed = co_await may_read(deadline);
    if (allowed.has_error()) co_return allowed.error();
    std::vector<dcs::Entry> nothing;
    dcs::Snapshot empty(std::move(nothing), dcs::Index{*index}, true);
    snapshot = std::move(empty);
  }
  if (linearizable) owners = wire::owners_of(snapshot);
  co_return snapshot;
}

// A list leaves out what the token may not see, so that a wrong token makes the cluster look empty.
// Only asking for one key tells.
Async<bool> ConsulStore::Impl::may_read(TimePoint deadline) {
  const auto answer =
      co_await servers.call("GET", path(kv + "initialize"), "", Kind::read, deadline);
  if (answer.has_error())
    co_return answer.error().in("whether there is nothing to be seen or the token may not see it");
  co_return true;
}

// What can be known to fail without asking.
std::optional<Error> ConsulStore::Impl::refuse(const dcs::Transaction& transaction) const {
  for (const auto& [key, condition] : transaction.requirements())
    // To Consul the index 0 means "does not exist", which is not what at() means.
    if (condition.kind() == dcs::Condition::Kind::version &&
        (condition.version().era == 0 || condition.version().count == 0))
      return Error(errc::conflict,
                   fmt::format("consul: commit requires {} at a version that no key has", key));
  for (const auto& [key, value, binding] : transaction.changes()) {
    if (value && value->size() > value_bytes_max)
      return Error(errc::invalid_argument,
                   fmt::format("consul: the value of {} has {} bytes, {} is the limit",
                               key,
                               value->size(),
                               value_bytes_max));
    if (value && binding == dcs::Binding::session && session.empty())
      return Error(errc::session_lost,
                   fmt::format("consul: commit binds {} to a session, and none is open", key));
  }
  return {};
}

Async<bool> ConsulStore::Impl::session_exists(SessionId id, TimePoint deadline) {
  std::vector<std::string> query(1, "consistent");
  const auto answer = co_await servers.call(
      "GET", path("/v1/session/info/" + id.str(), std::move(query)), "", Kind::read, deadline);
  if (answer.has_error()) co_return answer.error();
  const auto listed = wire::parse_session_info(answer->response.body(), id);
  if (listed.has_error())
    co_return Error(
        errc::unavailable,
        fmt::format(
            "consul {}: session/info {}: {}", answer->server, id.str(), listed.error().detail()));
  co_return *listed;
}

Async<std::optional<dcs::Committed>> ConsulStore::Impl::attempt(dcs::Transaction transaction,
                                                                Error& why,
                                                                TimePoint deadline) {
  std::optional<dcs::Committed> committed;
  if (!owners && wire::needs_owners(transaction)) {
    const auto seen = co_await read(dcs::Freshness::linearizable, deadline);
    // Nothing of the commit has been sent yet.
    if (seen.has_error())
      co_return seen.error().is(errc::timed_out) || seen.error().is(errc::protocol)
          ? Error(errc::unavailable, seen.error().detail())
          : seen.error();
  }
  const auto bound_to = session;
  const wire::Owners unknown;
  const auto flags = [this] { return servers.random() >> 12; };
  const auto plan =
      wire::plan(transaction, options.base, bound_to, owners ? *owners : unknown, flags);
  if (plan.parts.size() > operations_max || plan.body.size() > transaction_bytes_max)
    co_return Error(errc::invalid_argument,
                    fmt::format("consul: a transaction of {} operations and {} bytes: {} and {} "
                                "are the limits, so its values may have {} bytes in all",
                                plan.parts.size(),
                                plan.body.size(),
                                operations_max,
                                transaction_bytes_max,
                                value_bytes_max));
  // Without changes it is a read to Consul, which must not be an old one.
  std::vector<std::string> query;
  if (transaction.changes().empty()) query.emplace_back("consistent");
  const auto answer = co_await servers.call(
      "PUT", path("/v1/txn", std::move(query)), plan.body, Kind::write, deadline);
  if (answer.has_error()) co_return answer.error();
  const auto& body = answer->response.body();
  const auto what = fmt::format("consul {}: commit below {}", answer->server, options.base);
  if (answer->response.status() == 200) {
    if (!owners) owners.emplace();
    auto written = wire::parse_txn(body, options.base, transaction, *owners);
    if (written.has_error()) co_return written.error().in(what);
    committed = std::move(*written);
    co_return committed;
  }
  const auto refusal = wire::parse_refusal(body, plan);
  switch (refusal.why) {
    case wire::Refusal::Why::not_understood:
      co_return Error(errc::ambiguous, fmt::format("{}: status 409: {}", what, refusal.text));
    case wire::Refusal::Why::denied:
      co_return Error(errc::denied, fmt::format("{}: {}", what, refusal.text));
    case wire::Refusal::Why::requirement:
      co_return Error(errc::conflict, fmt::format("{}: {}", what, refusal.text));
    case wire::Refusal::Why::belief:
    case wire::Refusal::Why::lock:
      break;
  }
  why = Error(errc::unavailable, fmt::format("{}: {}", what, refusal.text));
  owners.reset();
  if (refusal.why == wire::Refusal::Why::belief) co_return committed;
  // The session is gone, or another one has the key, or its lock-delay runs.
  const auto exists = co_await session_exists(bound_to, deadline);
  if (exists.has_error()) {
    co_return exists.error().is(errc::cancelled) || exists.error().is(errc::denied)
        ? exists.error()
        : Error(errc::unavailable, exists.error().detail());
  }
  // The next renew() tells so, too, and lets go of it.
  if (!*exists)
    co_return Error(errc::session_lost,
                    fmt::format("{}: session {} is gone: it has run out or was destroyed ({})",
                                what,
                                bound_to.str(),
                                refusal.text));
  const auto seen = co_await read(dcs::Freshness::linearizable, deadline);
  if (seen.has_error() && seen.error().is(errc::cancelled)) co_return seen.error();
  co_return committed;
}

Async<dcs::Committed> ConsulStore::Impl::commit(dcs::Transaction transaction, TimePoint deadline) {
  co_await asio::this_coro::throw_if_cancelled(false);
  auto pauses = servers.backoff();
  for (;;) {
    if (const auto refused = refuse(transaction)) co_return *refused;
    Error why;
    const auto done = co_await attempt(transaction, why, deadline);
    if (done.has_error()) co_return done.error();
    if (done->has_value()) co_return **done;
    // Certainly not done, and for a reason that may pass.
    const auto wake = clock.now() + pauses.next();
    if (wake >= deadline) co_return why;
    servers.logger().debug("{}; once more", why.text());
    const bool slept = co_await sleep_until(clock, wake);
    if (!slept) co_return Error(errc::cancelled, why.detail());
  }
}

// ---- the session
// ---------------------------------------------------------------------------------------------------------

Async<dcs::Lease> ConsulStore::Impl::renew(Duration ttl, TimePoint deadline) {
  if (ttl <= Duration::zero() || ttl > session_ttl_max)
    co_return Error(errc::invalid_argument, "consul: a ttl must be above zero, and at most a day");
  if (session.empty()) co_return co_await open_session(ttl, deadline);
  co_return co_await keep_alive(session, deadline);
}

// The server's minimum after it has refused a ttl: what the refusal says, else what its
// configuration says, else the usual one. `refused` when none of them is longer.
Async<Duration> ConsulStore::Impl::least_ttl(Duration refused,
                                             std::string refusal,
                                             TimePoint deadline) {
  if (const auto hint = wire::ttl_min_hint(refusal); hint && *hint > refused) co_return *hint;
  const auto answer = co_await servers.ask("/v1/agent/self", deadline);
  if (answer.has_error() && answer.error().is(errc::cancelled)) co_return answer.error();
  if (answer.has_value())
    if (const auto told = wire::parse_ttl_min(answer->response.body()); told && *told > refused)
      co_return *told;
  co_return std::max(refused, usual_ttl_min);
}

// `ttl` becomes what the server accepts.
Async<Answer> ConsulStore::Impl::create_session(Duration& ttl, TimePoint deadline) {
  for (;;) {
    auto answer =
        co_await servers.call("PUT",
                              path("/v1/session/create"),
                              wire::session_request(options.session_name, ttl, options.checks),
                              Kind::session,
                              deadline);
    if (answer.has_error() || answer->response.status() == 200) co_return answer;
    const std::string refusal(answer->response.body());
    if (answer->response.status() != 500)
      co_return Error(errc::unavailable,
                      fmt::format("consul {}: session/create: status {}: {}",
                                  answer->server,
                                  answer->response.status(),
                                  refusal.substr(0, 200)));
    const auto least = co_await least_ttl(ttl, refusal, deadline);
    if (least.has_error()) co_return least.error();
    if (*least <= ttl)
      co_return Error(errc::invalid_argument,
                      fmt::format("consul {}: session/create: a ttl of {} is refused: {}",
                                  answer->server,
                                  wire::duration_text(ttl),
                                  refusal));
    servers.logger().warning(
        "consul: the servers refuse sessions below {} (session_ttl_min), so the ttl is that and "
        "not {}: the keys of a dead node are free after {} to {}",
        wire::duration_text(*least),
        wire::duration_text(ttl),
        wire::duration_text(*least),
        wire::duration_text(2 * *least));
    ttl = ttl_min = *least;
  }
}

Async<dcs::Lease> ConsulStore::Impl::open_session(Duration ttl, TimePoint deadline) {
  Duration granted = std::chrono::ceil<std::chrono::milliseconds>(std::max(ttl, ttl_min));
  const auto answer = co_await create_session(granted, deadline);
  if (answer.has_error()) co_return answer.error();
  const auto created = wire::parse_session(answer->response.body());
  if (created.has_error())
    co_return created.error().in(fmt::format("consul {}: session/create", answer->server));
  // Another renew() was faster: its session counts, ours expires unused.
  if (!session.empty()) co_return dcs::Lease(session, lease_until);
  session = *created;
  session_ttl = granted;
  lease_until = answer->sent + granted;
  co_return dcs::Lease(session, lease_until);
}

// The address of Consul's leader, as the server sees it; empty when there is none.
Async<std::string> ConsulStore::Impl::leader(TimePoint deadline) {
  const auto answer =
      co_await servers.call("GET", path("/v1/status/leader"), "", Kind::read, deadline);
  if (answer.has_error()) co_return answer.error();
  const auto document = json::parse(answer->response.body());
  std::string who;
  if (document.has_value() && document->as_string() != nullptr) who = *document->as_string();
  co_return who;
}

Async<dcs::Lease> ConsulStore::Impl::keep_alive(SessionId id, TimePoint deadline) {
  co_await asio::this_coro::throw_if_cancelled(false);
  // Consul's leader renews from its memory and asks nobody, so that one which was frozen and
  // replaced may still do it. In time that does no harm: the new one counts two ttls from its
  // election, which is after our last renewal. Once we are late, the same leader must also prove
  // that it leads after it has renewed; should it have been elected anew in between, it counts from
  // then.
  const bool late = clock.now() >= lease_until;
  std::string before;
  if (late) {
    const auto leading = co_await leader(deadline);
    if (leading.has_error()) co_return leading.error();
    before = *leading;
  }
  const auto ttl = session_ttl;
  const auto path_of_renewal = path("/v1/session/renew/" + id.str());
  auto pauses = servers.backoff();
  Answer renewed;
  for (;;) {
    const auto answer = co_await servers.call("PUT", path_of_renewal, "", Kind::session, deadline);
    if (answer.has_error()) co_return answer.error();
    renewed = *answer;
    const bool doubted = renewed.response.status() != 200;
    if (!late && !doubted) break;
    // A 404 may be a proxy's, who does not know the path, or come from a server that was elected
    // just now and has not read its own log to the end.
    const auto exists = co_await session_exists(id, deadline);
    if (exists.has_error()) co_return exists.error();
    if (!*exists) {
      forget(id);
      co_return Error(errc::session_lost,
                      fmt::format("consul {}: session {} is gone: it has run out or was destroyed",
                                  renewed.server,
                                  id.str()));
    }
    if (!doubted) break;
    const auto wake = clock.now() + pauses.next();
    if (wake >= deadline)
      co_return Error(errc::unavailable,
                      fmt::format("consul {}: session/renew {}: status {}, but the session exists",
                                  renewed.server,
                                  id.str(),
                                  renewed.response.status()));
    const bool slept = co_await sleep_until(clock, wake);
    if (!slept) co_return Error(errc::cancelled, "consul: renewing the session");
  }
  if (late) {
    const auto after = co_await leader(deadline);
    if (after.has_error()) co_return after.error();
    if (before.empty() || *after != before)
      co_return Error(errc::unavailable,
                      fmt::format("consul {}: session {} was renewed while the leader changed from "
                                  "\"{}\" to \"{}\": it does not count",
                                  renewed.server,
                                  id.str(),
                                  before,
                                  *after));
  }
  const auto until = renewed.sent + ttl;
  if (session == id) lease_until = std::max(lease_until, until);
  co_return dcs::Lease(id, until);
}

Async<void> ConsulStore::Impl::end_session(TimePoint deadline) {
  if (session.empty()) co_return boost::system::in_place_value;
  const auto id = session;
  const auto answer = co_await servers.call(
      "PUT", path("/v1/session/destroy/" + id.str()), "", Kind::session, deadline);
  if (answer.has_error()) co_return answer.error();
  if (answer->response.status() != 200)
    co_return Error(errc::unavailable,
                    fmt::format("consul {}: session/destroy {}: status {}",
                                answer->server,
                                id.str(),
                                answer->response.status()));
  forget(id);
  co_return boost::system::in_place_value;
}

// ---- changes
// -------------------------------------------------------------------------------------------------------------

Async<std::uint64_t> ConsulStore::Impl::wait_for_change(dcs::Index seen, TimePoint deadline) {
  // The server adds up to a sixteenth to the time, so that not all come back at once.
  const auto now = clock.now();
  const Duration time = deadline - now;
  const bool whole = time < long_wait;
  const Duration wait = whole ? time : (time - 1s) * 16 / 17;
  const auto answer_by = whole ? deadline : now + wait * 17 / 16 + 1s;
  std::vector<std::string> query;
  query.emplace_back("keys");  // their names are enough
  if (seen.value != 0) {
    query.push_back(fmt::format("index={}", seen.value));
    query.push_back("wait=" + wire::duration_text(std::max<Duration>(wait, 1ms)));
  }
  auto executor = co_await asio::this_coro::executor;
  auto group = asio::experimental::make_parallel_group(
      asio::co_spawn(executor, servers.ask(path(kv, std::move(query)), answer_by), asio::deferred),
      left.async_wait(asio::deferred));
  const auto server = servers.current();
  auto outcome = co_await group.async_wait(asio::experimental::wait_for_one(), asio::use_awaitable);
  const auto state = co_await asio::this_coro::cancellation_state;
  if (state.cancelled() != asio::cancellation_type::none)
    co_return Error(errc::cancelled, "consul: waiting for a change");
  if (std::get<1>(outcome)) std::rethrow_exception(std::get<1>(outcome));
  const auto& answer = std::get<2>(outcome);
  if (answer.has_error()) {
    const bool given_up = std::get<0>(outcome)[0] == 1;
    if (given_up)
      co_return Error(errc::unavailable,
                      "consul: the server that would tell of a change has failed another call");
    if (answer.error().is(errc::timed_out) && whole)
      co_return Error(errc::timed_out, "consul: no change before the deadline");
    if (!answer.error().is(errc::cancelled)) servers.leave(server, answer.error());
    co_return answer.error().is(errc::timed_out) ? Error(errc::unavailable, answer.error().detail())
                                                 : answer.error();
  }
  const auto index = wire::parse_index(answer->response.header("X-Consul-Index"));
  if (!index)
    co_return Error(errc::protocol,
                    fmt::format("consul {}: waiting for a change: the answer has no X-Consul-Index",
                                answer->server));
  co_return std::max<std::uint64_t>(1, *index);
}

Async<dcs::Index> ConsulStore::Impl::changed_since(dcs::Index seen, TimePoint deadline) {
  co_await asio::this_coro::throw_if_cancelled(false);
  auto pauses = servers.backoff();
  dcs::Index from = seen;
  for (;;) {
    const auto state = co_await asio::this_coro::cancellation_state;
    if (state.cancelled() != asio::cancellation_type::none)
      co_return Error(errc::cancelled, "consul: waiting for a change");
    if (clock.now() >= deadline)
      co_return Error(errc::timed_out, "consul: no change before the deadline");
    const auto index = co_await wait_for_change(from, deadline);
    if (index.has_value()) {
      // A smaller one too: Consul forgets what was deleted long ago, or was restored.
      if (*index != seen.value) co_return dcs::Index{*index};
      from = seen;
      pauses.reset();
      continue;
    }
    const auto& lost = index.error();
    const bool hopeless = lost.is(errc::cancelled) || lost.is(errc::denied) ||
                          lost.is(errc::invalid_argument) || lost.is(errc::timed_out);
    if (hopeless) co_return lost;
    // The next question is answered at once: a server that was wiped or restored counts from
    // somewhere else, and would wait for an index that it will not reach for long.
    from = dcs::Index{};
    servers.logger().debug("{}", lost.text());
    const auto wake = std::min(deadline, clock.now() + pauses.next());
    const bool slept = co_await sleep_until(clock, wake);
    if (!slept) co_return Error(errc::cancelled, "consul: waiting for a change");
    if (wake == deadline)
      co_return Error(errc::timed_out,
                      "consul: nobody to ask before the deadline: " + lost.detail());
  }
}

// ---- the interface
// -------------------------------------------------------------------------------------------------------

ConsulStore::ConsulStore(asio::any_io_executor executor, Clock& clock, Options options)
    : impl_(std::make_unique<Impl>(std::move(executor), clock, std::move(options))) {}
ConsulStore::~ConsulStore() = default;

dcs::Limits ConsulStore::limits() const noexcept {
  return dcs::Limits{impl_->ttl_min, session_ttl_max, value_bytes_max};
}
Async<dcs::Snapshot> ConsulStore::read(dcs::Freshness freshness, TimePoint deadline) {
  return impl_->read(freshness, deadline);
}
Async<dcs::Committed> ConsulStore::commit(dcs::Transaction transaction, TimePoint deadline) {
  return impl_->commit(std::move(transaction), deadline);
}
Async<dcs::Lease> ConsulStore::renew(Duration ttl, TimePoint deadline) {
  return impl_->renew(ttl, deadline);
}
Async<void> ConsulStore::end_session(TimePoint deadline) {
  return impl_->end_session(deadline);
}
Async<dcs::Index> ConsulStore::changed_since(dcs::Index seen, TimePoint deadline) {
  return impl_->changed_since(seen, deadline);
}

}  // namespace spilo::consul
