#include "spilo/etcd/etcd_store.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <optional>

#include "etcd_members.hpp"
#include "spilo/runtime/with_deadline.hpp"

namespace spilo::etcd {
namespace asio = boost::asio;
namespace {

using namespace std::chrono_literals;
using wire::Kind;

// etcd refuses a request of more than 1.5 MiB; the rest is for keys and the other parts of a
// transaction.
constexpr std::size_t value_bytes_max = 1'400'000;
constexpr std::int64_t ttl_seconds_min = 2;
constexpr auto session_ttl_max = std::chrono::hours(24);

// The one watch of a store. It stays open between calls of changed_since().
class Watch {
 public:
  Watch(std::unique_ptr<net::LineStream> lines, std::uint64_t from, MemberPtr at)
      : stream(std::move(lines)), start(from), member(std::move(at)) {}
  std::unique_ptr<net::LineStream> stream;
  std::uint64_t start;  // the first revision that it reports
  MemberPtr member;
};

}  // namespace

std::string base_path(std::string_view name_space, const Scope& scope) {
  const auto whole = fmt::format("/{}/{}/", name_space, scope.str());
  std::string out;
  for (const char c : whole)
    if (c != '/' || !out.ends_with('/')) out += c;
  return out;
}

struct EtcdStore::Impl {
  Impl(asio::any_io_executor executor, Clock& time, Options options)
      : clock(time),
        base(options.base),
        members(executor, time, std::move(options)),
        news(executor, asio::steady_timer::time_point::max()) {
    members.on_leave = [this](const MemberPtr& member) {
      // A member that left a call unanswered may well leave changes untold.
      if (watch && watch->member == member) watch.reset();
    };
    members.on_replaced = [this] {
      watch.reset();
      newest = 0;
    };
  }

  Async<dcs::Snapshot> read(dcs::Freshness freshness, TimePoint deadline);
  Async<dcs::Committed> commit(dcs::Transaction transaction, TimePoint deadline);
  Async<dcs::Lease> renew(Duration ttl, TimePoint deadline);
  Async<dcs::Lease> open_session(std::int64_t seconds, TimePoint deadline);
  Async<dcs::Lease> keep_alive(SessionId id, TimePoint deadline);
  Async<void> end_session(TimePoint deadline);
  Async<dcs::Index> changed_since(dcs::Index seen, TimePoint deadline);
  Async<void> wait_for_news(TimePoint deadline);
  // Reads the watch once, opening it when there is none: a value when something may have changed.
  Async<std::optional<dcs::Index>> read_watch(dcs::Index seen, net::Backoff& pauses, TimePoint deadline);
  Async<void> ensure_watch(std::uint64_t start, TimePoint deadline);

  Clock& clock;
  std::string base;
  Members members;
  SessionId session;
  TimePoint lease_until{};
  std::optional<Watch> watch;
  std::uint64_t newest = 0;  // the greatest revision that a watch has reported
  bool watch_has_reader = false;
  asio::steady_timer news;  // never fires; cancelled when the reader has something or leaves
};

// ---- keys
// ----------------------------------------------------------------------------------------------------------------

Async<dcs::Snapshot> EtcdStore::Impl::read(dcs::Freshness freshness, TimePoint deadline) {
  const bool serializable = freshness == dcs::Freshness::local_replica;
  const auto answer = co_await members.call(
      "kv/range", wire::range_request(base, serializable), Kind::read, !serializable, deadline);
  if (answer.has_error()) co_return answer.error();
  co_return wire::parse_range(answer->value, base);
}

namespace {

// What can be known to fail without asking.
std::optional<Error> refuse(const dcs::Transaction& transaction, const SessionId& session) {
  for (const auto& [key, condition] : transaction.requirements())
    // To etcd the revision 0 means "does not exist", which is not what at() means.
    if (condition.kind() == dcs::Condition::Kind::version &&
        (condition.version().era == 0 || condition.version().count == 0))
      return Error(errc::conflict,
                   fmt::format("etcd: commit requires {} at a version that no key has", key));
  std::size_t bytes = 0;
  for (const auto& [key, value, binding] : transaction.changes()) {
    bytes += value ? value->size() : 0;
    if (bytes > value_bytes_max)
      return Error(
          errc::invalid_argument,
          fmt::format("etcd: the value of {}{} has {} bytes, {} is the limit",
                      key,
                      bytes == value->size() ? "" : ", with those before it in the transaction,",
                      bytes,
                      value_bytes_max));
    if (binding == dcs::Binding::session && session.empty())
      return Error(errc::session_lost,
                   fmt::format("etcd: commit binds {} to a session, and none is open", key));
  }
  return {};
}

bool is_bound(const dcs::Transaction& transaction) {
  return std::ranges::any_of(transaction.changes(), [](const auto& change) {
    return change.binding == dcs::Binding::session;
  });
}

std::string names(const dcs::Transaction& transaction) {
  std::string out;
  for (const auto& requirement : transaction.requirements())
    out.append(out.empty() ? "" : ", ").append(requirement.key);
  return out;
}

}  // namespace

Async<dcs::Committed> EtcdStore::Impl::commit(dcs::Transaction transaction, TimePoint deadline) {
  if (const auto refused = refuse(transaction, session)) co_return *refused;
  const auto answer = co_await members.call(
      "kv/txn", wire::txn_request(base, transaction, session), Kind::write, true, deadline);
  if (answer.has_error()) {
    // "Not found" can mean nothing but the lease, and there was none in it.
    if (answer.error().is(errc::session_lost) && !is_bound(transaction))
      co_return Error(errc::ambiguous, answer.error().detail());
    co_return answer.error();
  }
  auto committed = wire::parse_txn(answer->value, base, transaction);
  if (committed.has_error())
    co_return committed.error().in(
        fmt::format("etcd: commit that requires {} below {}", names(transaction), base));
  co_return committed;
}

// ---- the session
// ---------------------------------------------------------------------------------------------------------

Async<dcs::Lease> EtcdStore::Impl::renew(Duration ttl, TimePoint deadline) {
  if (ttl <= Duration::zero() || ttl > session_ttl_max)
    co_return Error(errc::invalid_argument, "etcd: a ttl must be above zero, and at most a day");
  const auto seconds =
      std::max<std::int64_t>(ttl_seconds_min, std::chrono::ceil<std::chrono::seconds>(ttl).count());
  if (session.empty()) co_return co_await open_session(seconds, deadline);
  co_return co_await keep_alive(session, deadline);
}

Async<dcs::Lease> EtcdStore::Impl::open_session(std::int64_t seconds, TimePoint deadline) {
  const auto answer = co_await members.call(
      "lease/grant", wire::grant_request(seconds), Kind::lease, true, deadline);
  if (answer.has_error()) co_return answer.error();
  const auto granted = wire::parse_lease(answer->value);
  if (granted.id.empty() || granted.ttl_seconds == 0)
    co_return Error(errc::protocol, "etcd: lease/grant: the answer names no lease or no ttl");
  if (granted.ttl_seconds != seconds)
    members.logger().warning(
        "etcd: asked for a lease of {} s and got one of {} s: the server's election timeout bounds "
        "it",
        seconds,
        granted.ttl_seconds);
  // Another renew() was faster: its lease is the session, ours expires unused.
  if (!session.empty()) co_return dcs::Lease(session, lease_until);
  session = granted.id;
  lease_until = answer->sent + std::chrono::seconds(granted.ttl_seconds);
  members.lease_until(lease_until);
  members.learn_every(std::chrono::seconds(10 * granted.ttl_seconds));
  co_return dcs::Lease(session, lease_until);
}

Async<dcs::Lease> EtcdStore::Impl::keep_alive(SessionId id, TimePoint deadline) {
  const auto answer = co_await members.call(
      "lease/keepalive", wire::lease_request(id), Kind::lease, true, deadline);
  const bool gone = answer.has_error() ? answer.error().is(errc::session_lost)
                                       : wire::parse_lease(answer->value).ttl_seconds == 0;
  if (gone) {
    if (session == id) session = SessionId();
    co_return Error(errc::session_lost,
                    fmt::format("etcd: lease {} is gone: it has run out or was revoked", id.str()));
  }
  if (answer.has_error()) co_return answer.error();
  if (answer->sent >= lease_until) {
    // We were late, and etcd before 3.5 lets a leader that was frozen and replaced still renew from
    // its memory. Whether it leads is shown by a read that needs the quorum; a renewal in time
    // doesn't need this.
    const auto now_leading =
        co_await members.call("kv/range", wire::term_request(base), Kind::read, true, deadline);
    if (now_leading.has_error()) co_return now_leading.error();
    if (now_leading->header.raft_term != answer->header.raft_term)
      co_return Error(
          errc::unavailable,
          fmt::format(
              "etcd: lease {} was renewed in term {}, but the term is {}: it does not count",
              id.str(),
              answer->header.raft_term,
              now_leading->header.raft_term));
  }
  const auto until =
      answer->sent + std::chrono::seconds(wire::parse_lease(answer->value).ttl_seconds);
  if (session == id) {
    lease_until = std::max(lease_until, until);
    members.lease_until(lease_until);
  }
  co_return dcs::Lease(id, until);
}

Async<void> EtcdStore::Impl::end_session(TimePoint deadline) {
  if (session.empty()) co_return boost::system::in_place_value;
  const auto id = session;
  const auto answer =
      co_await members.call("lease/revoke", wire::lease_request(id), Kind::lease, true, deadline);
  if (answer.has_error() && !answer.error().is(errc::session_lost)) co_return answer.error();
  if (session == id) {
    session = SessionId();
    lease_until = TimePoint{};
    members.lease_until(lease_until);
  }
  co_return boost::system::in_place_value;
}

// ---- changes
// -------------------------------------------------------------------------------------------------------------

Async<void> EtcdStore::Impl::wait_for_news(TimePoint deadline) {
  const auto waiting = [](Impl& self) -> Async<void> {
    co_await asio::this_coro::throw_if_cancelled(false);
    // The reader may have left before this coroutine began.
    if (self.watch_has_reader) co_await self.news.async_wait(asio::as_tuple(asio::use_awaitable));
    co_return boost::system::in_place_value;
  };
  co_return co_await with_deadline(clock, deadline, waiting(*this), "etcd: waiting for a change");
}

Async<void> EtcdStore::Impl::ensure_watch(std::uint64_t start, TimePoint deadline) {
  if (watch && watch->start <= start) co_return boost::system::in_place_value;
  watch.reset();
  MemberPtr member;
  auto opened = co_await members.open_watch(base, start, member, deadline);
  if (opened.has_error()) {
    if (!opened.error().is(errc::cancelled) && member) members.leave(member, opened.error());
    co_return opened.error();
  }
  watch.emplace(std::move(*opened), start, std::move(member));
  co_return boost::system::in_place_value;
}

Async<std::optional<dcs::Index>> EtcdStore::Impl::read_watch(dcs::Index seen,
                                                             net::Backoff& pauses,
                                                             TimePoint deadline) {
  std::optional<dcs::Index> nothing;
  const auto open = co_await ensure_watch(seen.value + 1, deadline);
  Error lost;
  if (open.has_value()) {
    const auto line = co_await watch->stream->next_line(deadline);
    if (line.has_error() && (line.error().is(errc::timed_out) || line.error().is(errc::cancelled)))
      co_return line.error();
    const auto message =
        line.has_error() ? Result<wire::WatchMessage>(line.error()) : wire::parse_watch(*line);
    if (message.has_value() && !message->canceled) {
      // A member that lags, or a new history that is far from that revision: a watch of it would be silent
      // for long. Only reading tells.
      if (message->created && message->header.revision < seen.value)
        co_return std::optional<dcs::Index>(dcs::Index{message->header.revision});
      newest = std::max(newest, message->newest);
      co_return nothing;
    }
    watch.reset();
    if (message.has_value() && message->compact_revision != 0) {
      // What lies between is not stored any more: something has changed, and only reading tells
      // what.
      co_return std::optional<dcs::Index>(
          dcs::Index{std::max(seen.value, message->compact_revision)});
    }
    if (message.has_value()) members.forget_token();
    lost = message.has_error()
               ? message.error()
               : Error(errc::unavailable, "etcd: the watch was cancelled: " + message->reason);
  } else {
    lost = open.error();
    const bool hopeless = lost.is(errc::cancelled) || lost.is(errc::denied) ||
                          lost.is(errc::unsupported) || lost.is(errc::invalid_argument);
    if (hopeless) co_return lost;
  }
  // Nothing is missed by opening another watch: it begins at the same revision.
  members.logger().debug("etcd: watch lost: {}", lost.text());
  const auto wake = std::min(deadline, clock.now() + pauses.next());
  const bool slept = co_await sleep_until(clock, wake);
  if (!slept) co_return Error(errc::cancelled, "etcd: waiting for a change");
  if (wake == deadline)
    co_return Error(errc::timed_out, "etcd: no watch before the deadline: " + lost.detail());
  // Too much has happened for one line of a server that can't break it up (etcd 3.3): again, only
  // reading tells what.
  if (lost.is(errc::protocol)) co_return std::optional<dcs::Index>(dcs::Index{seen.value + 1});
  co_return nothing;
}

Async<dcs::Index> EtcdStore::Impl::changed_since(dcs::Index seen, TimePoint deadline) {
  co_await asio::this_coro::throw_if_cancelled(false);
  if (newest <= seen.value) {
    const auto learnt = co_await members.learn_members(deadline);
    if (learnt.has_error()) co_return learnt.error();
  }
  auto pauses = members.backoff();
  while (newest <= seen.value) {
    const auto state = co_await asio::this_coro::cancellation_state;
    if (state.cancelled() != asio::cancellation_type::none)
      co_return Error(errc::cancelled, "etcd: waiting for a change");
    if (clock.now() >= deadline)
      co_return Error(errc::timed_out, "etcd: no change before the deadline");
    if (watch_has_reader) {
      const auto waited = co_await wait_for_news(deadline);
      if (waited.has_error()) co_return waited.error();
      continue;
    }
    watch_has_reader = true;
    const auto found = co_await read_watch(seen, pauses, deadline);
    watch_has_reader = false;
    news.cancel();
    if (found.has_error()) co_return found.error();
    if (found->has_value()) co_return **found;
  }
  co_return dcs::Index{newest};
}

// ---- the interface
// -------------------------------------------------------------------------------------------------------

EtcdStore::EtcdStore(asio::any_io_executor executor, Clock& clock, Options options)
    : impl_(std::make_unique<Impl>(std::move(executor), clock, std::move(options))) {}
EtcdStore::~EtcdStore() = default;

dcs::Limits EtcdStore::limits() const noexcept {
  return dcs::Limits{std::chrono::seconds(ttl_seconds_min), session_ttl_max, value_bytes_max};
}
Async<dcs::Snapshot> EtcdStore::read(dcs::Freshness freshness, TimePoint deadline) {
  return impl_->read(freshness, deadline);
}
Async<dcs::Committed> EtcdStore::commit(dcs::Transaction transaction, TimePoint deadline) {
  return impl_->commit(std::move(transaction), deadline);
}
Async<dcs::Lease> EtcdStore::renew(Duration ttl, TimePoint deadline) {
  return impl_->renew(ttl, deadline);
}
Async<void> EtcdStore::end_session(TimePoint deadline) {
  return impl_->end_session(deadline);
}
Async<dcs::Index> EtcdStore::changed_since(dcs::Index seen, TimePoint deadline) {
  return impl_->changed_since(seen, deadline);
}

}  // namespace spilo::etcd
