#include "zk_session.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/this_coro.hpp>
#include <utility>

#include "spilo/runtime/with_deadline.hpp"
#include "zk_servers.hpp"

namespace spilo::zookeeper {
namespace asio = boost::asio;
namespace {

using namespace std::chrono_literals;

// Of a client that nothing is bound to.
constexpr int guest_timeout_ms = 10'000;
// Between two lookups of names while nobody can be reached.
constexpr Duration lookup_pause = 5s;

std::chrono::milliseconds ms(Duration time) {
  return std::chrono::ceil<std::chrono::milliseconds>(time);
}

}  // namespace

Error error_of(int rc, bool sent, bool is_write, std::string what) {
  const auto text = [&](std::string_view more) {
    return fmt::format("zookeeper: {}: {} ({}){}", what, zerror(rc), rc, more);
  };
  switch (rc) {
    case ZNOAUTH:
      return Error(errc::denied, text(": the znodes' ACL does not allow it; see auth_data"));
    case ZAUTHFAILED:
      return Error(errc::denied, text(": the credentials in auth_data were refused"));
    case ZINVALIDACL:
      return Error(errc::denied, text(": the servers refuse the ACL in set_acls"));
    case ZSESSIONEXPIRED:
      return Error(errc::session_lost, text(""));
    case ZSESSIONMOVED:
    case ZNOTREADONLY:
      return Error(errc::unavailable, text(""));
    case ZUNIMPLEMENTED:
      return Error(errc::unsupported, text(": the server is too old"));
    case ZBADARGUMENTS:
    case ZMARSHALLINGERROR:
    case ZNOTEMPTY:
    case ZNOCHILDRENFOREPHEMERALS:
      return Error(errc::invalid_argument, text(""));
    case ZCONNECTIONLOSS:
    case ZOPERATIONTIMEOUT:
    case ZCLOSING:
    case ZINVALIDSTATE:
      if (!sent) return Error(errc::unavailable, text(": not sent"));
      return Error(is_write ? errc::ambiguous : errc::unavailable,
                   text(": the connection broke before the answer"));
    default:
      break;
  }
  return Error(is_write && sent ? errc::ambiguous : errc::unavailable, text(""));
}

Session::Session(asio::any_io_executor executor, Clock& clock, Options options, Events events)
    : executor_(executor),
      clock_(clock),
      options_(std::move(options)),
      events_(std::move(events)),
      news_(executor, clock),
      timer_(executor) {}

void Session::close_quietly() noexcept {
  shut_ = true;
  events_ = {};
  timer_.cancel();
  if (link_) link_->close_quietly();
  news_.tell();
}

// ---- the link ----------------------------------------------------------------------------------

void Session::notice_end() {
  if (!link_ || !(link_->is_expired() || link_->is_closed())) return;
  if (link_->is_expired() && id_.client_id != 0) lost_ = true;
  link_->close_quietly();
  link_.reset();
  if (events_.reset) events_.reset();
}

// The library tells each server the newest change that it has ever seen, and a server that knows
// less refuses it. That keeps a client from going back in time, but a store that was lost and began
// anew refuses it for ever, in a way that can't be told from other troubles. So a handle that had a
// connection is given up once nobody can owe its session anything more: the next one goes on with
// the session, if that is still known, and without the past. It may meet a server that is behind,
// which nothing here depends on: see zookeeper_store.hpp for what is proven by `sync`.
TimePoint Session::hopeless_at() const {
  if (!link_ || link_->connection() == 0) return TimePoint::max();
  return std::max(valid_until_,
                  link_->heard() + std::chrono::milliseconds(link_->asked_timeout_ms()));
}

void Session::give_handle_up() {
  options_.logger.warning(
      "zookeeper: no server takes us back ({}): connecting anew, without what was seen before",
      link_->trouble());
  link_->close_quietly();
  link_.reset();
  if (events_.reset) events_.reset();
}

Async<void> Session::start(int timeout_ms, TimePoint deadline) {
  const auto self = shared_from_this();
  auto addresses = co_await addresses_of(executor_, clock_, options_.servers, deadline);
  looked_up_ = clock_.now();
  if (addresses.has_error()) co_return addresses.error();
  Link::Events events;
  events.changed = [this](std::string_view path) {
    if (events_.changed) events_.changed(path);
  };
  events.connected = [this] {
    if (events_.reset) events_.reset();
  };
  auto link = std::make_shared<Link>(executor_, clock_, options_, std::move(events));
  const bool goes_on = id_.client_id != 0 && !lost_;
  const auto opened = link->open(*addresses, timeout_ms, goes_on ? &id_ : nullptr);
  if (opened.has_error()) co_return opened.error();
  link_ = std::move(link);
  co_return boost::system::in_place_value;
}

Async<void> Session::open(TimePoint deadline) {
  const auto self = shared_from_this();
  busy_ = true;
  const int timeout_ms = ttl_ms_ > 0 ? ttl_ms_ : guest_timeout_ms;
  const auto started = co_await start(timeout_ms, deadline);
  busy_ = false;
  news_.tell();
  co_return started;
}

// Servers may have got other addresses since the link was opened.
Async<void> Session::look_names_up_again(TimePoint deadline) {
  const auto self = shared_from_this();
  const auto link = link_;
  looked_up_ = clock_.now();
  const auto addresses = co_await addresses_of(executor_, clock_, options_.servers, deadline);
  if (addresses.has_value() && !link->is_connected()) link->set_addresses(*addresses);
  co_return boost::system::in_place_value;
}

Async<std::shared_ptr<Link>> Session::link(TimePoint deadline) {
  const auto self = shared_from_this();
  co_await asio::this_coro::throw_if_cancelled(false);
  const auto late = [this](const Error& error, std::string why) {
    if (error.is(errc::cancelled)) return Error(errc::cancelled, "zookeeper: while connecting");
    return Error(errc::unavailable,
                 fmt::format("zookeeper {}: not connected: {}", to_text(options_.servers), why));
  };
  Error last;
  for (;;) {
    notice_end();
    const auto state = co_await asio::this_coro::cancellation_state;
    if (shut_ || state.cancelled() != asio::cancellation_type::none)
      co_return Error(errc::cancelled, "zookeeper: while connecting");
    if (clock_.now() >= deadline) co_return late(last, link_ ? link_->trouble() : last.detail());
    if (busy_) {
      const auto told = co_await news_.wait(deadline);
      if (told.has_error()) last = told.error();
      continue;
    }
    if (link_ && link_->is_connected()) co_return link_;
    if (link_ && link_->is_refused()) {
      const auto trouble = link_->trouble();
      link_->close_quietly();
      link_.reset();
      co_return Error(errc::denied,
                      fmt::format("zookeeper {}: the credentials in auth_data were refused: {}",
                                  to_text(options_.servers),
                                  trouble));
    }
    if (!link_) {
      const auto opened = co_await open(deadline);
      if (!opened.has_error()) continue;
      last = opened.error();
      if (last.is(errc::cancelled)) continue;
      if (last.is(errc::invalid_argument)) co_return last;
      co_await sleep_until(clock_, std::min(deadline, clock_.now() + 500ms));
      continue;
    }
    if (clock_.now() >= hopeless_at()) {
      give_handle_up();
      continue;
    }
    const auto link = link_;
    const auto patience = std::min({deadline, clock_.now() + lookup_pause, hopeless_at()});
    const auto told = co_await link->news().wait(patience);
    if (told.has_error()) last = told.error();
    if (link == link_ && !link->is_connected() && !is_numeric(options_.servers) &&
        clock_.now() >= looked_up_ + lookup_pause)
      co_await look_names_up_again(deadline);
  }
}

// ---- the store's session -----------------------------------------------------------------------

void Session::forget() {
  id_ = {};
  lost_ = false;
  ttl_ms_ = 0;
  valid_until_ = {};
  timer_.cancel();
}

// The first renewal: what we travel on becomes the store's session, if it was opened with this ttl.
Async<dcs::Lease> Session::begin(Duration ttl, TimePoint deadline) {
  const auto self = shared_from_this();
  const auto wanted = static_cast<int>(ms(ttl).count());
  while (busy_) {
    const auto told = co_await news_.wait(deadline);
    if (told.has_error() && busy_)
      co_return Error(errc::unavailable, "zookeeper: renew: the session before is being closed");
  }
  if (id_.client_id == 0 && link_ && link_->asked_timeout_ms() != wanted) {
    busy_ = true;
    const auto before = link_;
    while (before->outstanding() > 0) {
      const auto idle = co_await before->news().wait(deadline);
      if (idle.has_error()) break;
    }
    before->close_quietly();
    notice_end();
    busy_ = false;
    news_.tell();
  }
  if (id_.client_id == 0) ttl_ms_ = wanted;
  const auto connected = co_await link(deadline);
  if (connected.has_error()) co_return connected.error().in("renew");
  if (id_.client_id == 0) {
    id_ = (*connected)->identity();
    const auto granted = (*connected)->timeout();
    if (granted != std::chrono::milliseconds(wanted))
      options_.logger.warning(
          "zookeeper: asked for a session of {} ms and got one of {} ms: the servers' tickTime, "
          "minSessionTimeout and maxSessionTimeout bound it",
          wanted,
          ms(granted).count());
  }
  co_return co_await keep(deadline);
}

Async<dcs::Lease> Session::keep(TimePoint deadline) {
  const auto self = shared_from_this();
  const auto lost = [this] {
    const auto id = session_name(id_.client_id).str();
    forget();
    return Error(errc::session_lost,
                 fmt::format("zookeeper: session {} is gone: it has expired or was closed", id));
  };
  const auto connected = co_await link(deadline);
  if (lost_) co_return lost();
  if (connected.has_error()) co_return connected.error().in("renew");
  const auto link = *connected;
  const auto connection = link->connection();
  const auto id = session_name(id_.client_id);
  const auto request = link->batch();
  const TimePoint sent = clock_.now();
  link->sync(request, options_.base);
  const auto answered = co_await request->wait(deadline);
  if (answered.has_error()) {
    if (answered.error().is(errc::timed_out)) link->leave_silent_server(sent);
    if (answered.error().is(errc::cancelled)) co_return answered.error().in("zookeeper: renew");
    co_return Error(
        errc::ambiguous,
        fmt::format("zookeeper {}: renew: no answer before the deadline", link->server()));
  }
  const auto& reply = request->replies.front();
  notice_end();
  if (lost_) co_return lost();
  if (reply.rc == ZSESSIONEXPIRED) {
    lost_ = true;
    link->close_quietly();
    notice_end();
    co_return lost();
  }
  if (reply.rc != ZOK) co_return error_of(reply.rc, reply.sent, true, "renew");
  if (link->connection() == connection) link->prove(sent);
  valid_until_ = std::max(valid_until_, link->proven() + link->timeout());
  cared_until_ = std::max(cared_until_, valid_until_);
  warned_ = false;
  watch_over(cared_until_ - clock_.now());
  co_return dcs::Lease(id, valid_until_);
}

Async<dcs::Lease> Session::renew(Duration ttl, TimePoint deadline) {
  const auto self = shared_from_this();
  if (ttl < session_ttl_min || ttl > session_ttl_max)
    co_return Error(errc::invalid_argument,
                    "zookeeper: a ttl must be at least a second, and at most a day");
  notice_end();
  // A call that fails shows as well that somebody cares.
  const auto granted = ttl_ms_ > 0 ? Duration(std::chrono::milliseconds(ttl_ms_)) : ttl;
  cared_until_ = std::max(cared_until_, clock_.now() + granted * 11 / 10);
  if (id_.client_id == 0) co_return co_await begin(ttl, deadline);
  co_return co_await keep(deadline);
}

// The library keeps a session alive by itself: when nobody renews it, we end it.
void Session::watch_over(Duration pause) {
  if (watched_ || shut_) return;
  watched_ = true;
  timer_.expires_after(std::chrono::ceil<asio::steady_timer::duration>(pause));
  timer_.async_wait([weak = weak_from_this()](boost::system::error_code) {
    const auto self = weak.lock();
    if (!self) return;
    self->watched_ = false;
    self->look_after();
  });
}

void Session::look_after() {
  if (shut_ || id_.client_id == 0 || lost_) return;
  const Duration granted = std::chrono::milliseconds(ttl_ms_);
  const Duration over = clock_.now() - cared_until_;
  if (over < Duration::zero()) return watch_over(-over);
  // We may have been frozen, and whoever renews just as well: let them come first.
  if (!std::exchange(warned_, true)) return watch_over(granted / 10);
  warned_ = false;
  options_.logger.warning("zookeeper: nobody renews session {} any more: it is ended",
                          session_name(id_.client_id).str());
  asio::co_spawn(
      executor_,
      close(true, clock_.now() + granted),
      [self = shared_from_this(), granted](std::exception_ptr failure, Result<void> ended) {
        if (failure) std::rethrow_exception(failure);
        if (ended.has_error()) self->watch_over(granted / 3);
      });
}

Async<void> Session::close(bool given_up, TimePoint deadline) {
  const auto self = shared_from_this();
  const auto connected = co_await link(deadline);
  if (lost_ || id_.client_id == 0) co_return boost::system::in_place_value;
  if (connected.has_error()) co_return connected.error().in("end of the session");
  busy_ = true;
  const auto ended = co_await (*connected)->end_session(deadline);
  busy_ = false;
  if (ended.has_value() && given_up) lost_ = true;
  notice_end();
  news_.tell();
  co_return ended;
}

Async<void> Session::end(TimePoint deadline) {
  const auto self = shared_from_this();
  notice_end();
  if (id_.client_id == 0) co_return boost::system::in_place_value;
  if (!lost_) {
    const auto closed = co_await close(false, deadline);
    if (closed.has_error()) co_return closed.error();
  }
  forget();
  co_return boost::system::in_place_value;
}

}  // namespace spilo::zookeeper
