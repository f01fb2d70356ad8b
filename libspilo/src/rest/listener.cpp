#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/ip/v6_only.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <list>
#include <tuple>
#include <vector>

#include "session.hpp"

namespace spilo::rest {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;
using tcp = boost::asio::ip::tcp;

constexpr auto as_result = asio::as_tuple(asio::use_awaitable);
constexpr int backlog = 128;

// Asio opens sockets that children would inherit; a postmaster must not keep our port.
void close_on_exec(int fd) noexcept {
  ::fcntl(fd, F_SETFD, FD_CLOEXEC);
}

void tune(tcp::socket& socket) noexcept {
  close_on_exec(socket.native_handle());
  error_code ignored;
  socket.set_option(tcp::no_delay(true), ignored);
  socket.set_option(asio::socket_base::keep_alive(true), ignored);
  const int idle_s = 10;
  const int interval_s = 3;
  ::setsockopt(socket.native_handle(), IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s);
  ::setsockopt(socket.native_handle(), IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof interval_s);
}

// "10.0.0.3" also for an IPv4 client of a socket that serves both families.
std::string address_text(const tcp::socket& socket) {
  error_code ec;
  const auto peer = socket.remote_endpoint(ec);
  if (ec) return {};
  const auto address = peer.address();
  if (address.is_v6() && address.to_v6().is_v4_mapped())
    return asio::ip::make_address_v4(asio::ip::v4_mapped, address.to_v6()).to_string();
  return address.to_string();
}

Error listen_problem(const std::string& where, const error_code& ec) {
  if (ec == asio::error::address_in_use)
    return Error(errc::unavailable,
                 fmt::format("restapi: {} is taken by another process; stop that one (`ss -ltnp` "
                             "names it) or change restapi.listen",
                             where));
  if (ec == asio::error::access_denied)
    return Error(errc::denied,
                 fmt::format("restapi: no permission to listen on {}; ports below 1024 need "
                             "CAP_NET_BIND_SERVICE",
                             where));
  if (ec.value() == EADDRNOTAVAIL)
    return Error(
        errc::unavailable,
        fmt::format("restapi: {} is no address of this machine; check restapi.listen", where));
  return Error(errc::unavailable,
               fmt::format("restapi: can't listen on {}: {}", where, ec.message()));
}

bool any_address(const std::string& text) {
  return text.empty() || text == "*";
}

Result<std::vector<asio::ip::address>> addresses_of(const asio::any_io_executor& executor,
                                                    const std::string& text) {
  std::vector<asio::ip::address> out;
  if (any_address(text)) {
    out.emplace_back(asio::ip::address_v6::any());
    return out;
  }
  error_code ec;
  const auto literal = asio::ip::make_address(text, ec);
  if (!ec) {
    out.push_back(literal);
    return out;
  }
  tcp::resolver resolver(executor);
  const auto found = resolver.resolve(text, "", tcp::resolver::passive, ec);
  if (ec)
    return Error(
        errc::invalid_argument,
        fmt::format("restapi: '{}' in restapi.listen has no address: {}", text, ec.message()));
  for (const auto& entry : found) {
    const auto address = entry.endpoint().address();
    if (std::find(out.begin(), out.end(), address) == out.end()) out.push_back(address);
  }
  return out;
}

error_code open_one(tcp::acceptor& acceptor, const tcp::endpoint& at, bool both_families) {
  error_code ec;
  acceptor.open(at.protocol(), ec);
  if (ec) return ec;
  close_on_exec(acceptor.native_handle());
  acceptor.set_option(asio::socket_base::reuse_address(true), ec);
  if (at.address().is_v6()) acceptor.set_option(asio::ip::v6_only(!both_families), ec);
  acceptor.bind(at, ec);
  if (!ec) acceptor.listen(backlog, ec);
  return ec;
}

}  // namespace

struct HttpServer::Impl : std::enable_shared_from_this<HttpServer::Impl> {
  Impl(asio::any_io_executor ex, Clock& c, HttpServerOptions o, HttpHandler& h, Logger l)
      : executor(std::move(ex)),
        clock(c),
        options(std::move(o)),
        handler(h),
        logger(std::move(l)),
        changed(executor),
        grace_timer(executor) {}

  Result<void> open() {
    const auto addresses = addresses_of(executor, options.address);
    if (!addresses) return addresses.error();
    for (auto address : *addresses) {
      tcp::acceptor acceptor(executor);
      const bool both = any_address(options.address);
      tcp::endpoint at(address, options.port);
      error_code ec = open_one(acceptor, at, both);
      // A machine without IPv6.
      if (both &&
          (ec == asio::error::address_family_not_supported || ec.value() == EADDRNOTAVAIL)) {
        acceptor = tcp::acceptor(executor);
        at = tcp::endpoint(asio::ip::address_v4::any(), options.port);
        ec = open_one(acceptor, at, false);
      }
      if (ec) return listen_problem(fmt::format("{}:{}", options.address, options.port), ec);
      options.port = acceptor.local_endpoint(ec).port();  // all addresses share one port
      acceptors.push_back(std::move(acceptor));
    }
    return {};
  }

  void start(tcp::socket socket) {
    tune(socket);
    auto peer = address_text(socket);
    if (sessions.size() >= options.connections_max && !make_room(socket)) return;
    auto session = std::make_shared<Session>(
        make_transport(std::move(socket), tls), std::move(peer), options, handler, clock, logger);
    sessions.push_back(session);
    auto done = [self = shared_from_this(), session](std::exception_ptr failure) {
      self->ended(session, failure);
    };
    asio::co_spawn(executor,
                   session->run(),
                   asio::bind_cancellation_slot(session->cancellation().slot(), std::move(done)));
  }

  // At the limit the connection that has been idle longest goes; without one, the newcomer does.
  bool make_room(tcp::socket& socket) {
    const auto idle =
        std::find_if(sessions.begin(), sessions.end(), [](const auto& s) { return s->idle(); });
    if (idle != sessions.end()) {
      (*idle)->abort();
      sessions.erase(idle);
      ++leaving;
      return true;
    }
    if (!full) logger.warning("restapi: all {} connections are in use", options.connections_max);
    full = true;
    if (tls == nullptr) {
      static constexpr std::string_view busy =
          "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
      error_code ignored;
      socket.non_blocking(true, ignored);
      socket.write_some(asio::buffer(busy.data(), busy.size()), ignored);
    }
    return false;
  }

  void ended(const std::shared_ptr<Session>& session, const std::exception_ptr& failure) {
    const auto at = std::find(sessions.begin(), sessions.end(), session);
    if (at != sessions.end()) {
      sessions.erase(at);
    } else {
      --leaving;
    }
    full = false;
    changed.cancel();
    if (failure == nullptr) return;
    try {
      std::rethrow_exception(failure);
    } catch (const std::exception& e) {
      if (!stopping) logger.error("restapi: a connection failed: {}", e.what());
    }
  }

  asio::awaitable<void> accept_on(tcp::acceptor& acceptor) {
    asio::steady_timer pause(executor);
    while (!stopping) {
      auto outcome = co_await acceptor.async_accept(as_result);
      const error_code ec = std::get<0>(outcome);
      if (stopping) break;
      if (!ec) {
        start(std::move(std::get<1>(outcome)));
        continue;
      }
      if (ec == asio::error::operation_aborted) break;
      if (ec == asio::error::connection_aborted) continue;
      // Out of descriptors or memory: it gets better when a connection ends, not by trying harder.
      logger.warning("restapi: can't accept a connection: {}", ec.message());
      pause.expires_after(std::chrono::milliseconds(100));
      co_await pause.async_wait(as_result);
    }
  }

  void stop(Duration grace) {
    if (!stopping) {
      stopping = true;
      error_code ignored;
      for (auto& acceptor : acceptors) acceptor.close(ignored);
      for (const auto& session : std::vector(sessions.begin(), sessions.end()))
        session->finish_soon();
    }
    grace_timer.expires_after(grace);
    grace_timer.async_wait([weak = weak_from_this()](error_code ec) {
      if (const auto self = weak.lock(); self != nullptr && !ec) self->abort_all();
    });
    changed.cancel();
  }

  void abort_all() {
    for (const auto& session : std::vector(sessions.begin(), sessions.end())) {
      session->abort();
      session->cancellation().emit(asio::cancellation_type::terminal);
    }
  }

  asio::any_io_executor executor;
  Clock& clock;
  HttpServerOptions options;
  HttpHandler& handler;
  Logger logger;
  TlsContext tls;
  std::vector<tcp::acceptor> acceptors;
  std::list<std::shared_ptr<Session>> sessions;  // in the order of their arrival
  std::size_t leaving = 0;                       // told to go to make room, not gone yet
  std::size_t accepting = 0;                     // accept loops that run
  bool stopping = false;
  bool full = false;
  asio::steady_timer changed;  // cancelled whenever run() should look again
  asio::steady_timer grace_timer;
};

Result<std::unique_ptr<HttpServer>> HttpServer::listen(asio::any_io_executor executor,
                                                       Clock& clock,
                                                       HttpServerOptions options,
                                                       HttpHandler& handler,
                                                       Logger logger) {
  auto impl = std::make_shared<Impl>(
      std::move(executor), clock, std::move(options), handler, std::move(logger));
  if (impl->options.tls) {
    auto context = make_tls_context(*impl->options.tls);
    if (!context) return context.error();
    impl->tls = std::move(*context);
  }
  const Result<void> opened = impl->open();
  if (!opened) return opened.error();
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(impl)));
}

HttpServer::HttpServer(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
HttpServer::~HttpServer() {
  if (!impl_->stopping) impl_->stop(Duration::zero());
}

std::uint16_t HttpServer::port() const noexcept {
  return impl_->options.port;
}
std::size_t HttpServer::connections() const noexcept {
  return impl_->sessions.size();
}
void HttpServer::stop(Duration grace) {
  impl_->stop(grace);
}

Result<void> HttpServer::reload_tls(TlsServerOptions options) {
  auto context = make_tls_context(options);
  if (!context) return context.error();
  impl_->options.tls = std::move(options);
  impl_->tls = std::move(*context);
  return {};
}

asio::awaitable<void> HttpServer::run() {
  co_await asio::this_coro::throw_if_cancelled(false);
  const auto impl = impl_;
  for (auto& acceptor : impl->acceptors) {
    ++impl->accepting;
    auto done = [impl](std::exception_ptr failure) {
      --impl->accepting;
      impl->changed.cancel();
      if (failure != nullptr) std::rethrow_exception(failure);
    };
    asio::co_spawn(impl->executor, impl->accept_on(acceptor), std::move(done));
  }
  while (!impl->stopping || impl->accepting + impl->sessions.size() + impl->leaving > 0) {
    impl->changed.expires_at(asio::steady_timer::time_point::max());
    co_await impl->changed.async_wait(as_result);
    const auto state = co_await asio::this_coro::cancellation_state;
    if (state.cancelled() != asio::cancellation_type::none) {
      // Cancelled by the caller: end, but in order. The wait below must not be cancelled again.
      impl->stop(Duration::zero());
      co_await asio::this_coro::reset_cancellation_state();
    }
  }
  impl->grace_timer.cancel();
}

}  // namespace spilo::rest
