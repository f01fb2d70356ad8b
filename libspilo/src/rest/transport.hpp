// A connection's bytes, plain or TLS, behind one interface: the HTTP code is compiled once. Private
// to rest.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "spilo/rest/http_server.hpp"

namespace spilo::rest {

using TlsContext = std::shared_ptr<boost::asio::ssl::context>;

Result<TlsContext> make_tls_context(const TlsServerOptions& options);

// Operations end early with operation_aborted after socket().cancel(), and the transport stays
// usable.
class Transport {
 public:
  virtual ~Transport() = default;
  virtual boost::asio::ip::tcp::socket& socket() noexcept = 0;
  virtual boost::asio::awaitable<boost::system::error_code> handshake() = 0;
  virtual boost::asio::awaitable<std::pair<boost::system::error_code, std::size_t>> read_some(
      char* to, std::size_t size) = 0;
  // All of it. `text` must live until then.
  virtual boost::asio::awaitable<boost::system::error_code> write(std::string_view text) = 0;
  // Says that nothing more will come.
  virtual boost::asio::awaitable<void> shut_down() = 0;
  virtual bool tls() const noexcept = 0;
  virtual bool client_certificate() const noexcept = 0;
};

// Without a context: plain.
std::unique_ptr<Transport> make_transport(boost::asio::ip::tcp::socket socket, TlsContext context);

}  // namespace spilo::rest
