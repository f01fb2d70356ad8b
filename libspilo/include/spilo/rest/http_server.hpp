// A small HTTP/1.1 server for the node's REST interface, made to be left alone with the network:
// everything that a client may use up (bytes, connections, time) has a limit, and each limit is an
// option.
//
// One strand of execution: use it on the executor that it was made with. Plain or TLS, keep-alive
// and pipelining, HTTP/1.0 for old health checkers. Descriptors are closed on exec, so that a
// PostgreSQL server that outlives its agent does not hold the port.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "spilo/core/error.hpp"
#include "spilo/core/log.hpp"
#include "spilo/net/http.hpp"
#include "spilo/ports/clock.hpp"

namespace spilo::rest {

// A request and who sent it. A class with a constructor, hence safe beside co_await.
class Request {
 public:
  Request(net::HttpRequest request, std::string peer, bool tls, bool client_certificate)
      : http_(std::move(request)),
        peer_(std::move(peer)),
        tls_(tls),
        client_certificate_(client_certificate) {}

  const std::string& method() const noexcept { return http_.method(); }
  const std::string& target() const noexcept { return http_.target(); }
  const std::string& body() const noexcept { return http_.body(); }
  // The first header of that name, whatever its case; empty when there is none.
  std::string_view header(std::string_view name) const noexcept;
  bool has_header(std::string_view name) const noexcept;
  const std::string& peer() const noexcept { return peer_; }  // "10.0.0.3", "::1"; no port
  bool tls() const noexcept { return tls_; }
  // The client presented a certificate, and it was verified against the configured authority.
  bool client_certificate() const noexcept { return client_certificate_; }

 private:
  net::HttpRequest http_;
  std::string peer_;
  bool tls_;
  bool client_certificate_;
};

// What the server asks for answers. One instance serves all connections; calls overlap. Both may be
// cancelled (terminal) when the server stops.
class HttpHandler {
 public:
  virtual ~HttpHandler() = default;
  // The head of a request has come, its body has not been read: a status other than 0 refuses it.
  // So nobody who may not change anything makes us buffer what he sends. handle() follows only
  // after a 0.
  virtual boost::asio::awaitable<net::HttpResponse> admit(Request head);
  // Content-Length, Date, Server and Connection are added by the server. A status of 0 closes the
  // connection without an answer.
  virtual boost::asio::awaitable<net::HttpResponse> handle(Request request) = 0;
};

enum class ClientCertificates {
  none,      // not asked for
  optional,  // asked for, and verified when presented
  required,  // without one the handshake fails, for every path
};

struct TlsServerOptions {
  std::string cert_file;  // PEM, with its chain
  std::string key_file;   // empty: it is in cert_file
  std::string key_password;
  std::string ca_file;  // who signs client certificates
  std::string ciphers;  // OpenSSL's list for TLS 1.2; empty: its default
  ClientCertificates client_certificates = ClientCertificates::none;
};

struct HttpServerOptions {
  std::string address = "127.0.0.1";  // literal or name; "" or "*": every address of the machine
  std::uint16_t port = 8008;          // 0: any free one, see HttpServer::port()
  std::optional<TlsServerOptions> tls;

  std::size_t header_bytes_max = 16 * 1024;
  std::size_t body_bytes_max = 1024 * 1024;
  // One more takes the place of the longest idle connection; when none is idle it gets a 503.
  std::size_t connections_max = 256;
  Duration head_timeout = std::chrono::seconds(5);   // from the first byte (or the TLS hello)
  Duration body_timeout = std::chrono::seconds(10);  // from the end of the head
  Duration idle_timeout = std::chrono::seconds(30);  // between requests, and before the first byte
  Duration write_timeout = std::chrono::seconds(10);

  std::string server = "spilo";    // the Server header; empty: none
  net::HttpHeaders extra_headers;  // added to every answer
};

class HttpServer {
 public:
  // Binds and listens at once, so that a taken port is known before anything else starts; accepts
  // from run() on. A name is looked up here, blocking. `handler` and `clock` must outlive run().
  //   unavailable       the address is taken or not ours
  //   invalid_argument  no such address; certificate, key or authority unusable
  //   denied            no permission for this port
  static Result<std::unique_ptr<HttpServer>> listen(boost::asio::any_io_executor executor,
                                                    Clock& clock,
                                                    HttpServerOptions options,
                                                    HttpHandler& handler,
                                                    Logger logger = {});
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  std::uint16_t port() const noexcept;
  std::size_t connections() const noexcept;

  // Serves until stop() or terminal cancellation, and completes when the last connection is closed.
  // Call once.
  boost::asio::awaitable<void> run();
  // Accepts nothing more and closes idle connections; requests in flight have `grace` to end, then
  // they are cancelled. Returns at once; run() completes afterwards.
  void stop(Duration grace);

  // For new connections, from now on. On failure the old certificate stays in use.
  Result<void> reload_tls(TlsServerOptions options);

 private:
  struct Impl;
  explicit HttpServer(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

}  // namespace spilo::rest
