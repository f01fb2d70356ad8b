#include "connection.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/stat.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/connect.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <cerrno>

#include "spilo/runtime/with_deadline.hpp"

namespace spilo::net {
namespace asio = boost::asio;
namespace {

using asio::ip::tcp;
using boost::system::error_code;
constexpr auto as_result = asio::as_tuple(asio::use_awaitable);

class PlainConnection final : public Connection {
 public:
  explicit PlainConnection(tcp::socket socket) : socket_(std::move(socket)) {}
  asio::awaitable<Io> read_some(asio::mutable_buffer into) override {
    const auto result = co_await socket_.async_read_some(into, as_result);
    co_return Io{std::get<0>(result), std::get<1>(result)};
  }
  asio::awaitable<Io> write(asio::const_buffer from) override {
    const auto result = co_await asio::async_write(socket_, from, as_result);
    co_return Io{std::get<0>(result), std::get<1>(result)};
  }
  tcp::socket& socket() noexcept override { return socket_; }

 private:
  tcp::socket socket_;
};

class TlsConnection final : public Connection {
 public:
  TlsConnection(tcp::socket socket, std::shared_ptr<asio::ssl::context> context)
      : context_(std::move(context)), stream_(std::move(socket), *context_) {}
  asio::awaitable<Io> read_some(asio::mutable_buffer into) override {
    const auto result = co_await stream_.async_read_some(into, as_result);
    co_return Io{std::get<0>(result), std::get<1>(result)};
  }
  asio::awaitable<Io> write(asio::const_buffer from) override {
    const auto result = co_await asio::async_write(stream_, from, as_result);
    co_return Io{std::get<0>(result), std::get<1>(result)};
  }
  tcp::socket& socket() noexcept override { return stream_.next_layer(); }
  asio::ssl::stream<tcp::socket>& stream() noexcept { return stream_; }

 private:
  std::shared_ptr<asio::ssl::context> context_;
  asio::ssl::stream<tcp::socket> stream_;
};

bool is_literal(const std::string& host) {
  error_code ec;
  asio::ip::make_address(host, ec);
  return !ec;
}

std::string file_state(const std::string& path) {
  struct stat status {};
  if (path.empty() || ::stat(path.c_str(), &status) != 0) return path + "|-;";
  return fmt::format("{}|{}.{}.{}.{};",
                     path,
                     status.st_mtim.tv_sec,
                     status.st_mtim.tv_nsec,
                     status.st_size,
                     status.st_ino);
}

Result<std::shared_ptr<asio::ssl::context>> make_context(const TlsOptions& tls) {
  auto context = std::make_shared<asio::ssl::context>(asio::ssl::context::tls_client);
  SSL_CTX_set_min_proto_version(context->native_handle(), TLS1_2_VERSION);
  // A connection is rarely opened; the buffers of an idle one are worth more than the time to
  // allocate them.
  SSL_CTX_set_mode(context->native_handle(), SSL_MODE_RELEASE_BUFFERS);
  error_code ec;
  const auto failed = [&](std::string_view what, const std::string& file) {
    return Error(errc::unavailable,
                 fmt::format("TLS: can't load the {} from {}: {}", what, file, ec.message()));
  };
  context->set_verify_mode(tls.verify ? asio::ssl::verify_peer : asio::ssl::verify_none, ec);
  if (!tls.ca_file.empty()) {
    if (context->load_verify_file(tls.ca_file, ec)) return failed("CA certificate", tls.ca_file);
  } else if (tls.verify && context->set_default_verify_paths(ec)) {
    return failed("CA certificates", "the system's directory");
  }
  if (tls.cert_file.empty()) return context;
  if (!tls.key_password.empty())
    context->set_password_callback(
        [password = tls.key_password](std::size_t, asio::ssl::context::password_purpose) {
          return password;
        },
        ec);
  if (context->use_certificate_chain_file(tls.cert_file, ec))
    return failed("certificate", tls.cert_file);
  const auto& key = tls.key_file.empty() ? tls.cert_file : tls.key_file;
  if (context->use_private_key_file(key, asio::ssl::context::pem, ec))
    return failed("private key", key);
  return context;
}

}  // namespace

bool Connection::usable() noexcept {
  char byte = 0;
  const auto got = ::recv(socket().native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
}

bool is_certificate_refused(error_code ec) noexcept {
  if (ec.category() != asio::error::get_ssl_category()) return false;
  switch (ERR_GET_REASON(static_cast<unsigned long>(ec.value()))) {
    case SSL_R_SSLV3_ALERT_BAD_CERTIFICATE:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_REVOKED:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN:
    case SSL_R_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE:
    case SSL_R_TLSV1_ALERT_UNKNOWN_CA:
    case SSL_R_TLSV1_ALERT_ACCESS_DENIED:
    case SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED:
      return true;
    default:
      return false;
  }
}

namespace {

// Why OpenSSL did not like the peer's certificate, in its words.
std::string certificate_problem(SSL* ssl, const std::string& name) {
  const auto result = ::SSL_get_verify_result(ssl);
  if (result != X509_V_OK && result != X509_V_ERR_UNSPECIFIED)
    return fmt::format(" ({})", ::X509_verify_cert_error_string(result));
  return fmt::format(" (the certificate is not for {})", name);
}

bool is_verify_failure(error_code ec) noexcept {
  return ec.category() == asio::error::get_ssl_category() &&
         ERR_GET_REASON(static_cast<unsigned long>(ec.value())) == SSL_R_CERTIFICATE_VERIFY_FAILED;
}

// The first bytes that came back are no TLS.
bool is_no_tls(error_code ec) noexcept {
  if (ec.category() != asio::error::get_ssl_category()) return false;
  const auto reason = ERR_GET_REASON(static_cast<unsigned long>(ec.value()));
  return reason == SSL_R_WRONG_VERSION_NUMBER || reason == SSL_R_HTTP_REQUEST;
}

}  // namespace

bool is_end(error_code ec) noexcept {
  return ec == asio::error::eof || ec == asio::ssl::error::stream_truncated;
}

// One question to the name service. It can't be cancelled while it is in the resolver's thread, so
// the one who asks waits on `answered` instead and may leave; whoever asks for the same name
// meanwhile waits for the same answer.
struct Connector::Lookup {
  explicit Lookup(const asio::any_io_executor& executor)
      : resolver(executor), answered(executor, asio::steady_timer::time_point::max()) {}
  tcp::resolver resolver;
  asio::steady_timer answered;
  bool done = false;
  error_code ec;
  Addresses addresses;

  static Async<void> wait(std::shared_ptr<Lookup> self) {
    co_await asio::this_coro::throw_if_cancelled(false);
    while (!self->done) {
      co_await self->answered.async_wait(as_result);
      const auto state = co_await asio::this_coro::cancellation_state;
      if (state.cancelled() != asio::cancellation_type::none) co_return Error(errc::cancelled);
    }
    co_return boost::system::in_place_value;
  }
};

Connector::Connector(asio::any_io_executor executor, Clock& clock, HttpClientOptions options)
    : executor_(std::move(executor)), clock_(clock), options_(std::move(options)) {}
Connector::~Connector() = default;

Async<Connector::Addresses> Connector::resolve(std::string host,
                                               std::uint16_t port,
                                               TimePoint deadline) {
  error_code ec;
  Addresses out;
  if (const auto literal = asio::ip::make_address(host, ec); !ec) {
    out.emplace_back(literal, port);
    co_return out;
  }
  if (host == "localhost") {
    out.emplace_back(asio::ip::address_v4::loopback(), port);
    out.emplace_back(asio::ip::address_v6::loopback(), port);
    co_return out;
  }
  const auto key = fmt::format("{}:{}", host, port);
  auto lookup = lookups_[key];
  if (!lookup) {
    lookup = std::make_shared<Lookup>(executor_);
    lookups_[key] = lookup;
    lookup->resolver.async_resolve(
        host,
        std::to_string(port),
        [lookup, key, weak = weak_from_this()](error_code failure, const auto& results) {
          lookup->done = true;
          lookup->ec = failure;
          for (const auto& result : results) lookup->addresses.push_back(result.endpoint());
          lookup->answered.cancel();
          if (const auto self = weak.lock()) {
            self->lookups_.erase(key);
            if (!failure) self->known_[key] = lookup->addresses;
          }
        });
  }
  // A name service that is away must not cut us off from servers that we know: half of the time is
  // for the question.
  const auto known = known_.find(key);
  const bool can_fall_back = known != known_.end();
  const auto now = clock_.now();
  const auto until = can_fall_back ? now + (deadline - now) / 2 : deadline;
  const auto waited =
      co_await with_deadline(clock_, until, Lookup::wait(lookup), "looking up " + host);
  if (waited.has_error() && waited.error().is(errc::cancelled)) co_return waited.error();
  if (lookup->done && !lookup->ec && !lookup->addresses.empty()) co_return lookup->addresses;
  if (const auto old = known_.find(key); old != known_.end()) co_return old->second;
  if (!lookup->done)
    co_return Error(errc::unavailable,
                    fmt::format("host name {}: no answer from the name service in time", host));
  co_return Error(errc::unavailable, fmt::format("host name {}: {}", host, lookup->ec.message()));
}

Result<void> Connector::prepare(tcp::socket& socket, const tcp::endpoint& address) const {
  error_code ec;
  if (socket.open(address.protocol(), ec))
    return Error(errc::unavailable, fmt::format("can't open a socket: {}", ec.message()));
  const int fd = socket.native_handle();
  // Asio leaves this out; without it PostgreSQL would inherit our connections.
  ::fcntl(fd, F_SETFD, FD_CLOEXEC);
  socket.set_option(tcp::no_delay(true), ec);
  socket.set_option(asio::socket_base::keep_alive(true), ec);
  const auto seconds = [](Duration time) {
    return std::max(1, static_cast<int>(std::chrono::ceil<std::chrono::seconds>(time).count()));
  };
  const int idle = seconds(options_.keepalive_idle);
  const int interval = seconds(options_.keepalive_idle / 3);
  const int count = 3;
  ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
  ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
  ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
  const auto ms =
      std::chrono::duration_cast<std::chrono::milliseconds>(options_.user_timeout).count();
  if (const auto limit = static_cast<unsigned>(ms); ms > 0)
    ::setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &limit, sizeof limit);
  return {};
}

Result<std::shared_ptr<asio::ssl::context>> Connector::tls_context() {
  const auto& tls = options_.tls;
  auto state = file_state(tls.ca_file) + file_state(tls.cert_file) + file_state(tls.key_file);
  if (tls_ && state == tls_files_state_) return tls_;
  auto made = make_context(tls);
  // Certificates are often replaced file by file: until the new set is consistent the old one goes
  // on.
  if (made.has_error() && tls_) return tls_;
  if (made.has_error()) return made.error();
  tls_ = *made;
  tls_files_state_ = std::move(state);
  return tls_;
}

Async<std::unique_ptr<Connection>> Connector::connect_to(Url endpoint, tcp::endpoint address) {
  co_await asio::this_coro::throw_if_cancelled(false);
  tcp::socket socket(executor_);
  if (auto prepared = prepare(socket, address); prepared.has_error()) co_return prepared.error();
  const auto connected = co_await socket.async_connect(address, as_result);
  const auto failed = [&](errc code, std::string_view what, error_code ec) {
    return Error(code,
                 fmt::format("{} ({}): {}: {}",
                             endpoint.origin(),
                             address.address().to_string(),
                             what,
                             ec.message()));
  };
  if (const auto ec = std::get<0>(connected)) co_return failed(errc::unavailable, "connect", ec);
  if (!endpoint.tls())
    co_return std::unique_ptr<Connection>(std::make_unique<PlainConnection>(std::move(socket)));

  const auto context = tls_context();
  if (context.has_error()) co_return context.error().in(endpoint.origin());
  auto secured = std::make_unique<TlsConnection>(std::move(socket), *context);
  const auto& wanted = options_.tls.server_name;
  const std::string name = wanted.empty() ? endpoint.host() : wanted;
  // Server name indication is for names only; an address in it is an error for some servers.
  if (!is_literal(name)) SSL_set_tlsext_host_name(secured->stream().native_handle(), name.c_str());
  error_code ec;
  if (options_.tls.verify)
    secured->stream().set_verify_callback(asio::ssl::host_name_verification(name), ec);
  const auto greeted =
      co_await secured->stream().async_handshake(asio::ssl::stream_base::client, as_result);
  std::string more;
  if (is_no_tls(std::get<0>(greeted))) more = " (the server does not speak TLS there)";
  if (is_verify_failure(std::get<0>(greeted)))
    more = certificate_problem(secured->stream().native_handle(), name);
  if (const auto error = std::get<0>(greeted))
    co_return failed(is_certificate_refused(error) ? errc::denied : errc::unavailable,
                     fmt::format("TLS handshake with {}{}", name, more),
                     error);
  co_return std::unique_ptr<Connection>(std::move(secured));
}

Async<std::unique_ptr<Connection>> Connector::connect(Url endpoint, TimePoint deadline) {
  co_await asio::this_coro::throw_if_cancelled(false);
  const auto addresses = co_await resolve(endpoint.host(), endpoint.port(), deadline);
  if (addresses.has_error()) co_return addresses.error().in(endpoint.origin());
  Error last(errc::unavailable, endpoint.origin() + ": the name has no address");
  for (std::size_t i = 0; i < addresses->size(); ++i) {
    const auto state = co_await asio::this_coro::cancellation_state;
    if (state.cancelled() != asio::cancellation_type::none)
      co_return Error(errc::cancelled, "connecting to " + endpoint.origin());
    // One address that swallows packets must leave time for the others.
    const auto now = clock_.now();
    const auto share = (deadline - now) / static_cast<std::int64_t>(addresses->size() - i);
    const auto what = fmt::format(
        "{} ({}): no connection in time", endpoint.origin(), (*addresses)[i].address().to_string());
    auto connection =
        co_await with_deadline(clock_, now + share, connect_to(endpoint, (*addresses)[i]), what);
    if (connection.has_value() || connection.error().is(errc::cancelled)) co_return connection;
    last = connection.error();
    if (last.is(errc::timed_out)) last = Error(errc::unavailable, last.detail());
  }
  co_return last;
}

}  // namespace spilo::net
