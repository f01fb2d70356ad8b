#include "spilo/testing/sim_dcs.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/this_coro.hpp>
#include <set>
#include <type_traits>

namespace spilo::testing {
namespace {
constexpr Duration watch_retry = std::chrono::milliseconds(200);
constexpr std::size_t past_states_max = 16;
}  // namespace

SimDcs::SimDcs(SimWorld& world, Options options)
    : world_(world), options_(options), rng_(world.rng().fork("dcs")) {}

StoreLink& SimDcs::link(NodeId node) {
  return links_[node];
}

void SimDcs::heal_links() {
  for (auto& [node, link] : links_) link = StoreLink{};
}

void SimDcs::set_down(Down how) {
  down_ = how;
  if (how != Down::refusing) return;
  // Open streams are reset.
  const auto watches = std::exchange(watches_, {});
  for (const auto& [id, watch] : watches) refuse_watch(watch);
}

void SimDcs::refuse_watch(const Watch& watch) {
  world_.after(delay(watch.node), [this, watch] {
    if (const auto answer = watch.answer.lock())
      answer->set(Error(errc::unavailable,
                        fmt::format("simulated store: changed_since by {}: connection reset",
                                    world_.name(watch.node))));
  });
}

void SimDcs::wipe(bool forget_revision) {
  for (auto& [id, session] : sessions_) world_.cancel(session.expiry);
  sessions_.clear();
  for (auto& [scope, space] : spaces_) {
    space.tree.clear();
    space.past.clear();
  }
  // Watchers of the old store must notice, so the revision is set back only after they have been
  // told.
  for (const auto& [scope, space] : spaces_) changed(scope);
  if (!forget_revision) return;
  revision_ = 1;
  for (auto& [scope, space] : spaces_) space.changed = 1;
}

void SimDcs::expire_sessions(NodeId node) {
  std::vector<SessionId> gone;
  for (const auto& [id, session] : sessions_)
    if (session.node == node) gone.push_back(id);
  for (const auto& id : gone) forget_session(id);
}

void SimDcs::linger(Duration at_most) {
  linger_ = at_most;
}

std::optional<dcs::Entry> SimDcs::peek(const Scope& scope, const std::string& key) const {
  const auto space = spaces_.find(scope.str());
  if (space == spaces_.end()) return {};
  const auto item = space->second.tree.find(key);
  if (item == space->second.tree.end()) return {};
  return dcs::Entry(key, item->second.value, item->second.version, item->second.owner);
}

dcs::Snapshot SimDcs::snapshot(const Scope& scope) const {
  const auto found = spaces_.find(scope.str());
  return found == spaces_.end() ? dcs::Snapshot() : snapshot_of(found->second);
}

std::optional<TimePoint> SimDcs::session_expires(const SessionId& session) const {
  const auto found = sessions_.find(session);
  if (found == sessions_.end()) return {};
  return found->second.expires;
}

void SimDcs::put(const Scope& scope, const std::string& key, std::string value) {
  dcs::Transaction transaction;
  transaction.put(key, std::move(value));
  (void)serve_commit(scope.str(), transaction, SessionId());
}

void SimDcs::erase(const Scope& scope, const std::string& key) {
  dcs::Transaction transaction;
  transaction.erase(key);
  (void)serve_commit(scope.str(), transaction, SessionId());
}

SimDcs::Space& SimDcs::space(const std::string& scope) {
  return spaces_[scope];
}

dcs::Snapshot SimDcs::snapshot_of(const Space& space) const {
  std::vector<dcs::Entry> entries;
  entries.reserve(space.tree.size());
  for (const auto& [key, item] : space.tree)
    entries.emplace_back(key, item.value, item.version, item.owner);
  return dcs::Snapshot(std::move(entries), dcs::Index{space.changed}, true);
}

void SimDcs::remember(Space& space) {
  const bool wanted =
      std::ranges::any_of(links_, [](const auto& link) { return link.second.stale_permille > 0; });
  if (!wanted) return;
  space.past.emplace_back(world_.now(), snapshot_of(space));
  if (space.past.size() > past_states_max) space.past.pop_front();
}

dcs::Snapshot SimDcs::stale_snapshot(const Space& space, NodeId node) {
  const auto oldest = world_.now() - link(node).stale_max;
  std::vector<const dcs::Snapshot*> choices;
  for (const auto& [ended, state] : space.past)
    if (ended >= oldest) choices.push_back(&state);
  return choices.empty() ? snapshot_of(space) : *rng_.pick(choices);
}

void SimDcs::changed(const std::string& scope) {
  auto& space = this->space(scope);
  space.changed = ++revision_;
  std::vector<std::size_t> due;
  for (const auto& [id, watch] : watches_)
    if (watch.scope == scope) due.push_back(id);
  for (const auto id : due) notify(id);
  if (on_change_) on_change_(Scope(scope));
}

// A change is told late or again and again tried, but never forgotten while somebody waits for it.
void SimDcs::notify(std::size_t watch_id) {
  const auto found = watches_.find(watch_id);
  if (found == watches_.end()) return;
  const Watch watch = found->second;
  watches_.erase(found);
  const dcs::Index index{space(watch.scope).changed};
  world_.after(delay(watch.node), [this, watch, index] {
    const auto answer = watch.answer.lock();
    if (!answer) return;
    if (down_ == Down::no && !link(watch.node).cut) {
      answer->set(index);
      return;
    }
    const auto id = next_watch_++;
    watches_.emplace(id, watch);
    world_.after(watch_retry, [this, id] { notify(id); });
  });
}

Duration SimDcs::by_server_clock(Duration span) const {
  return span - Duration(span.count() / 1'000'000 * options_.clock_drift_ppm);
}

void SimDcs::schedule_expiry(const SessionId& id) {
  auto& session = sessions_.at(id);
  world_.cancel(session.expiry);
  // What an earlier renewal promised stays, also when this one asks for less.
  session.expires = std::max(session.expires, world_.now() + by_server_clock(session.ttl));
  session.expiry = world_.at(session.expires + rng_.between(Duration(0), linger_),
                             [this, id] { forget_session(id); });
}

void SimDcs::forget_session(const SessionId& id) {
  const auto found = sessions_.find(id);
  if (found == sessions_.end()) return;
  world_.cancel(found->second.expiry);
  world_.trace("store",
               fmt::format("session {} of {} ends", id.str(), world_.name(found->second.node)));
  sessions_.erase(found);
  for (auto& [scope, space] : spaces_) {
    if (std::ranges::none_of(space.tree, [&](const auto& at) { return at.second.owner == id; }))
      continue;
    remember(space);
    std::erase_if(space.tree, [&](const auto& at) { return at.second.owner == id; });
    changed(scope);
  }
}

Duration SimDcs::delay(NodeId node) {
  const auto& link = this->link(node);
  auto total = rng_.between(link.latency_min, link.latency_max);
  if (rng_.chance(link.slow_permille)) total += rng_.between(Duration(0), link.slow_max);
  return total;
}

// One request and its answer. Everything that may go wrong in between is decided here.
template <class T>
void SimDcs::carry(NodeId node,
                   std::string verb,
                   std::shared_ptr<SimAnswer<Result<T>>> answer,
                   std::function<Result<T>()> serve) {
  const auto& sending = link(node);
  const auto refuse = [this, node, verb, answer] {
    answer->set(Error(
        errc::unavailable,
        fmt::format("simulated store: {} by {}: connection refused", verb, world_.name(node))));
  };
  if (down_ == Down::refusing || (!sending.cut && rng_.chance(sending.refuse_permille))) {
    world_.after(delay(node), refuse);
    return;
  }
  if (sending.cut || rng_.chance(sending.lose_request_permille)) return;
  const bool lose_answer = rng_.chance(sending.lose_answer_permille);
  world_.after(delay(node), [this, node, verb, answer, serve, refuse, lose_answer] {
    if (link(node).cut || down_ == Down::silent) return;
    if (down_ == Down::refusing) {
      world_.after(delay(node), refuse);
      return;
    }
    ++requests_[verb];
    auto result = std::make_shared<Result<T>>(serve());
    if (lose_answer) return;
    world_.after(delay(node), [this, node, answer, result] {
      if (!link(node).cut && down_ != Down::silent) answer->set(std::move(*result));
    });
  });
}

Result<dcs::Snapshot> SimDcs::serve_read(const std::string& scope,
                                         dcs::Freshness freshness,
                                         NodeId node) {
  auto& space = this->space(scope);
  if (freshness == dcs::Freshness::local_replica && rng_.chance(link(node).stale_permille))
    return stale_snapshot(space, node);
  return snapshot_of(space);
}

Result<dcs::Committed> SimDcs::serve_commit(const std::string& scope,
                                            const dcs::Transaction& transaction,
                                            const SessionId& session) {
  auto& space = this->space(scope);
  for (const auto& [key, condition] : transaction.requirements()) {
    const auto found = space.tree.find(key);
    const bool exists = found != space.tree.end();
    const bool absent = condition.kind() == dcs::Condition::Kind::absent;
    if (absent ? exists : (!exists || found->second.version != condition.version()))
      return Error(
          errc::conflict,
          fmt::format(
              "simulated store: commit to {}: the requirement on {} doesn't hold", scope, key));
  }
  for (const auto& change : transaction.changes())
    if (change.value && change.binding == dcs::Binding::session && !sessions_.contains(session))
      return Error(errc::session_lost,
                   fmt::format("simulated store: commit of {}: session {} is gone",
                               change.key,
                               session.empty() ? "(none)" : session.str()));
  remember(space);
  std::vector<std::pair<std::string, dcs::Version>> written;
  const auto revision = revision_ + 1;
  bool any = false;
  for (const auto& change : transaction.changes()) {
    if (!change.value) {
      any = space.tree.erase(change.key) > 0 || any;
      continue;
    }
    any = true;
    auto& item = space.tree[change.key];
    item.value = *change.value;
    if (item.version.era == 0) item.version.era = revision;
    item.version.count = revision;
    item.owner = change.binding == dcs::Binding::session ? session : SessionId();
    written.emplace_back(change.key, item.version);
  }
  if (any) changed(scope);
  return dcs::Committed(std::move(written));
}

Result<SessionId> SimDcs::serve_renew(NodeId node, const SessionId& session, Duration ttl) {
  if (session.empty()) {
    const SessionId id(fmt::format("s{}-{}", next_session_++, world_.name(node)));
    Session created;
    created.node = node;
    created.ttl = ttl;
    sessions_.emplace(id, created);
    schedule_expiry(id);
    return id;
  }
  const auto found = sessions_.find(session);
  if (found == sessions_.end())
    return Error(errc::session_lost,
                 fmt::format("simulated store: renew: session {} is gone", session.str()));
  if (!options_.session_ttl_is_fixed) found->second.ttl = ttl;
  schedule_expiry(session);
  return session;
}

Result<void> SimDcs::serve_end(const SessionId& session) {
  forget_session(session);
  return {};
}

void SimDcs::check_lease(NodeId node, const dcs::Lease& lease, Duration ttl) {
  const auto expires = session_expires(lease.session);
  if (!expires) return;  // ended early, against the promise
  const auto believed = world_.clock(node).to_world(lease.valid_until);
  const auto allowance = Duration(ttl.count() / 1'000'000 * options_.drift_allowance_ppm) +
                         std::chrono::microseconds(1);
  if (believed > *expires + allowance)
    world_.violation(
        fmt::format("lease rule: {} believes session {} until {} us after its true end",
                    world_.name(node),
                    lease.session.str(),
                    (believed - *expires).count() / 1000));
}

dcs::Limits SimStore::limits() const noexcept {
  return dcs::Limits{.session_ttl_min = server_.options_.session_ttl_min,
                     .session_ttl_max = server_.options_.session_ttl_max,
                     .value_bytes_max = server_.options_.value_bytes_max};
}

Error SimStore::failed(Waited how, bool write, const char* verb) const {
  const auto text =
      fmt::format("simulated store: {} by {} got no answer", verb, server_.world_.name(node_));
  if (write) return Error(errc::ambiguous, text);
  return Error(how == Waited::cancelled ? errc::cancelled : errc::timed_out, text);
}

Async<dcs::Snapshot> SimStore::read(dcs::Freshness freshness, TimePoint deadline) {
  co_await boost::asio::this_coro::throw_if_cancelled(false);  // a port never throws
  auto answer = std::make_shared<SimAnswer<Result<dcs::Snapshot>>>(server_.world_, node_);
  const auto serve = [server = &server_, node = node_, scope = scope_.str(), freshness] {
    return server->serve_read(scope, freshness, node);
  };
  const std::function<Result<dcs::Snapshot>()> erased(serve);
  server_.carry<dcs::Snapshot>(node_, "read", answer, erased);
  const auto how = co_await await_answer(answer, deadline);
  if (how != Waited::answered) co_return failed(how, false, "read");
  co_return answer->take();
}

Async<dcs::Committed> SimStore::commit(dcs::Transaction transaction, TimePoint deadline) {
  co_await boost::asio::this_coro::throw_if_cancelled(false);  // a port never throws
  std::set<std::string> keys;
  for (const auto& change : transaction.changes()) {
    if (!keys.insert(change.key).second)
      co_return Error(errc::invalid_argument,
                      fmt::format("simulated store: one commit changes {} twice", change.key));
    if (change.value && change.value->size() > server_.options_.value_bytes_max)
      co_return Error(errc::invalid_argument,
                      fmt::format("simulated store: the value of {} has {} bytes, more than {}",
                                  change.key,
                                  change.value->size(),
                                  server_.options_.value_bytes_max));
  }
  const auto needs_session = std::ranges::any_of(transaction.changes(), [](const auto& change) {
    return change.value && change.binding == dcs::Binding::session;
  });
  if (needs_session && session_.empty())
    co_return Error(errc::session_lost, "simulated store: commit: there is no session yet");
  if (deadline <= server_.world_.clock(node_).now())
    co_return Error(errc::unavailable,
                    "simulated store: commit: its deadline had passed before it was sent");
  auto answer = std::make_shared<SimAnswer<Result<dcs::Committed>>>(server_.world_, node_);
  const auto session = session_;
  const auto serve = [server = &server_, scope = scope_.str(), transaction, session] {
    return server->serve_commit(scope, transaction, session);
  };
  const std::function<Result<dcs::Committed>()> erased(serve);
  server_.carry<dcs::Committed>(node_, "commit", answer, erased);
  const auto how = co_await await_answer(answer, deadline);
  if (how != Waited::answered) co_return failed(how, true, "commit");
  // A lost session is reported by the next renew() too, so it is not forgotten here.
  co_return answer->take();
}

Async<dcs::Lease> SimStore::renew(Duration ttl, TimePoint deadline) {
  co_await boost::asio::this_coro::throw_if_cancelled(false);  // a port never throws
  const auto limits = this->limits();
  if (ttl < limits.session_ttl_min || ttl > limits.session_ttl_max)
    co_return Error(errc::invalid_argument,
                    fmt::format("simulated store: a ttl of {} ms is not between {} and {} ms",
                                ttl.count() / 1'000'000,
                                limits.session_ttl_min.count() / 1'000'000,
                                limits.session_ttl_max.count() / 1'000'000));
  const auto sent = server_.world_.clock(node_).now();
  if (deadline <= sent)
    co_return Error(errc::unavailable,
                    "simulated store: renew: its deadline had passed before it was sent");
  auto answer = std::make_shared<SimAnswer<Result<SessionId>>>(server_.world_, node_);
  const auto session = session_;
  const auto granted = std::make_shared<Duration>(ttl);
  const auto serve = [server = &server_, node = node_, session, ttl, granted] {
    auto renewed = server->serve_renew(node, session, ttl);
    if (renewed.has_value()) *granted = server->sessions_.at(*renewed).ttl;
    return renewed;
  };
  const std::function<Result<SessionId>()> erased(serve);
  server_.carry<SessionId>(node_, "renew", answer, erased);
  const auto how = co_await await_answer(answer, deadline);
  if (how != Waited::answered) co_return failed(how, true, "renew");
  auto result = answer->take();
  if (!result.has_value()) {
    if (result.error().is(errc::session_lost) && session_ == session) session_ = SessionId();
    co_return result.error();
  }
  if (session_.empty() || session_ == session) session_ = *result;
  dcs::Lease lease(*result, sent + *granted);
  server_.check_lease(node_, lease, *granted);
  co_return lease;
}

Async<void> SimStore::end_session(TimePoint deadline) {
  co_await boost::asio::this_coro::throw_if_cancelled(false);  // a port never throws
  if (session_.empty()) co_return Result<void>();
  if (deadline <= server_.world_.clock(node_).now())
    co_return Error(errc::unavailable,
                    "simulated store: end_session: its deadline had passed before it was sent");
  auto answer = std::make_shared<SimAnswer<Result<void>>>(server_.world_, node_);
  const auto session = session_;
  const auto serve = [server = &server_, session] { return server->serve_end(session); };
  const std::function<Result<void>()> erased(serve);
  server_.carry<void>(node_, "end_session", answer, erased);
  const auto how = co_await await_answer(answer, deadline);
  if (how != Waited::answered) co_return failed(how, true, "end_session");
  auto result = answer->take();
  if (result.has_value() && session_ == session) session_ = SessionId();
  co_return result;
}

Async<dcs::Index> SimStore::changed_since(dcs::Index seen, TimePoint deadline) {
  co_await boost::asio::this_coro::throw_if_cancelled(false);  // a port never throws
  auto answer = std::make_shared<SimAnswer<Result<dcs::Index>>>(server_.world_, node_);
  // Not carried like a request: a watch outlives lost messages, as its stream is opened again.
  const auto id = server_.next_watch_++;
  const auto open = [server = &server_,
                     id,
                     scope = scope_.str(),
                     seen,
                     node = node_,
                     weak = std::weak_ptr(answer)] {
    if (weak.expired()) return;
    ++server->requests_["changed_since"];
    SimDcs::Watch watch;
    watch.scope = scope;
    watch.seen = seen.value;
    watch.node = node;
    watch.answer = weak;
    if (server->down_ == SimDcs::Down::refusing) {
      server->refuse_watch(watch);
      return;
    }
    server->watches_.emplace(id, std::move(watch));
    // A revision below what was seen means that the store was replaced: that is a change too.
    if (server->space(scope).changed != seen.value) server->notify(id);
  };
  const std::function<void()> erased(open);
  server_.world_.after(server_.delay(node_), erased);
  const auto how = co_await await_answer(answer, deadline);
  server_.watches_.erase(id);
  if (how != Waited::answered) co_return failed(how, false, "changed_since");
  co_return answer->take();
}

}  // namespace spilo::testing
