#include "transport.hpp"

#include <fmt/format.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <tuple>

namespace spilo::rest {
namespace {

namespace asio = boost::asio;
namespace ssl = boost::asio::ssl;
using tcp = boost::asio::ip::tcp;
using boost::system::error_code;

constexpr auto as_result = asio::as_tuple(asio::use_awaitable);

class PlainTransport final : public Transport {
 public:
  explicit PlainTransport(tcp::socket socket) : socket_(std::move(socket)) {}
  tcp::socket& socket() noexcept override { return socket_; }
  asio::awaitable<error_code> handshake() override { co_return error_code(); }
  asio::awaitable<std::pair<error_code, std::size_t>> read_some(char* to,
                                                                std::size_t size) override {
    auto outcome = co_await socket_.async_read_some(asio::buffer(to, size), as_result);
    co_return std::pair(std::get<0>(outcome), std::get<1>(outcome));
  }
  asio::awaitable<error_code> write(std::string_view text) override {
    auto outcome =
        co_await asio::async_write(socket_, asio::buffer(text.data(), text.size()), as_result);
    co_return std::get<0>(outcome);
  }
  asio::awaitable<void> shut_down() override {
    error_code ignored;
    socket_.shutdown(tcp::socket::shutdown_send, ignored);
    co_return;
  }
  bool tls() const noexcept override { return false; }
  bool client_certificate() const noexcept override { return false; }

 private:
  tcp::socket socket_;
};

class TlsTransport final : public Transport {
 public:
  TlsTransport(tcp::socket socket, TlsContext context)
      : context_(std::move(context)), stream_(std::move(socket), *context_) {}
  tcp::socket& socket() noexcept override { return stream_.next_layer(); }
  asio::awaitable<error_code> handshake() override {
    auto outcome = co_await stream_.async_handshake(ssl::stream_base::server, as_result);
    co_return std::get<0>(outcome);
  }
  asio::awaitable<std::pair<error_code, std::size_t>> read_some(char* to,
                                                                std::size_t size) override {
    auto outcome = co_await stream_.async_read_some(asio::buffer(to, size), as_result);
    co_return std::pair(std::get<0>(outcome), std::get<1>(outcome));
  }
  asio::awaitable<error_code> write(std::string_view text) override {
    auto outcome =
        co_await asio::async_write(stream_, asio::buffer(text.data(), text.size()), as_result);
    co_return std::get<0>(outcome);
  }
  asio::awaitable<void> shut_down() override {
    // Sends our close_notify and waits for the client's; the caller bounds the time.
    co_await stream_.async_shutdown(as_result);
    error_code ignored;
    stream_.next_layer().shutdown(tcp::socket::shutdown_send, ignored);
  }
  bool tls() const noexcept override { return true; }
  bool client_certificate() const noexcept override {
    // Present means verified: with SSL_VERIFY_PEER a bad one has failed the handshake.
    auto* ssl_handle = const_cast<ssl::stream<tcp::socket>&>(stream_).native_handle();
    X509* certificate = SSL_get_peer_certificate(ssl_handle);
    if (certificate == nullptr) return false;
    X509_free(certificate);
    return SSL_get_verify_result(ssl_handle) == X509_V_OK;
  }

 private:
  TlsContext context_;
  ssl::stream<tcp::socket> stream_;
};

Error tls_problem(std::string_view what, const std::string& file, const error_code& ec) {
  return Error(errc::invalid_argument,
               fmt::format("restapi: {} '{}' can't be used: {}", what, file, ec.message()));
}

Result<void> load_files(ssl::context& context, const TlsServerOptions& options) {
  error_code ec;
  if (!options.key_password.empty()) {
    const auto password = options.key_password;
    context.set_password_callback(
        [password](std::size_t, ssl::context::password_purpose) { return password; }, ec);
  } else {
    // Without a callback OpenSSL would ask on the terminal and block.
    context.set_password_callback(
        [](std::size_t, ssl::context::password_purpose) { return std::string(); }, ec);
  }
  context.use_certificate_chain_file(options.cert_file, ec);
  if (ec) return tls_problem("certfile", options.cert_file, ec);
  const auto& key_file = options.key_file.empty() ? options.cert_file : options.key_file;
  context.use_private_key_file(key_file, ssl::context::pem, ec);
  if (ec) return tls_problem("keyfile", key_file, ec);
  if (SSL_CTX_check_private_key(context.native_handle()) != 1) {
    ERR_clear_error();
    return Error(errc::invalid_argument,
                 fmt::format("restapi: the key in '{}' does not belong to the certificate in '{}'",
                             key_file,
                             options.cert_file));
  }
  if (!options.ca_file.empty()) {
    context.load_verify_file(options.ca_file, ec);
    if (ec) return tls_problem("cafile", options.ca_file, ec);
    // Tells clients which of their certificates to present.
    if (auto* names = SSL_load_client_CA_file(options.ca_file.c_str()))
      SSL_CTX_set_client_CA_list(context.native_handle(), names);
  }
  return {};
}

}  // namespace

Result<TlsContext> make_tls_context(const TlsServerOptions& options) {
  if (options.client_certificates != ClientCertificates::none && options.ca_file.empty())
    return Error(errc::invalid_argument,
                 "restapi: verify_client needs cafile, the authority that signs the clients' "
                 "certificates");
  auto context = std::make_shared<ssl::context>(ssl::context::tls_server);
  auto* native = context->native_handle();
  SSL_CTX_set_min_proto_version(native, TLS1_2_VERSION);
  SSL_CTX_set_mode(native, SSL_MODE_RELEASE_BUFFERS);  // 34 KiB less an idle connection
  const Result<void> loaded = load_files(*context, options);
  if (!loaded) return loaded.error();
  if (!options.ciphers.empty() && SSL_CTX_set_cipher_list(native, options.ciphers.c_str()) != 1) {
    ERR_clear_error();
    return Error(
        errc::invalid_argument,
        fmt::format("restapi: ciphers '{}' names none that OpenSSL knows", options.ciphers));
  }
  ssl::verify_mode mode = ssl::verify_none;
  if (options.client_certificates != ClientCertificates::none) mode = ssl::verify_peer;
  if (options.client_certificates == ClientCertificates::required)
    mode |= ssl::verify_fail_if_no_peer_cert;
  context->set_verify_mode(mode);
  // Without it OpenSSL refuses to resume sessions that carry a client certificate.
  static constexpr unsigned char session_id[] = "spilo";
  SSL_CTX_set_session_id_context(native, session_id, sizeof session_id - 1);
  return context;
}

std::unique_ptr<Transport> make_transport(tcp::socket socket, TlsContext context) {
  if (context == nullptr) return std::make_unique<PlainTransport>(std::move(socket));
  return std::make_unique<TlsTransport>(std::move(socket), std::move(context));
}

}  // namespace spilo::rest
