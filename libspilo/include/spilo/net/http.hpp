// A small HTTP/1.1 client for stores that speak JSON, for the REST interface of other nodes and for
// spiloctl.
//
// Thread-safety: everything here is used on the one executor that it was made with. Nothing blocks:
// a host name that is no literal address is looked up by Asio's resolver, which starts one
// background thread on its first use and never before.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "spilo/core/error.hpp"
#include "spilo/ports/async.hpp"
#include "spilo/ports/clock.hpp"

namespace spilo::net {

// http://user:password@host:port/path?query. A value; the parts are decoded, except target().
class Url {
 public:
  Url() = default;
  Url(std::string host, std::uint16_t port, bool tls = false);

  // invalid_argument with the reason when the text is no http or https URL with a host. Without a
  // port it is 80 or 443.
  static Result<Url> parse(std::string_view text);

  bool tls() const noexcept { return tls_; }
  const std::string& host() const noexcept { return host_; }  // IPv6 without brackets
  std::uint16_t port() const noexcept { return port_; }
  const std::string& user() const noexcept { return user_; }
  const std::string& password() const noexcept { return password_; }
  const std::string& target() const noexcept {
    return target_;
  }                               // path and query as written, "/" at least
  std::string authority() const;  // "host:port", IPv6 in brackets
  std::string origin() const;     // "https://host:port"; never the password
  bool operator==(const Url&) const = default;

 private:
  bool tls_ = false;
  std::string host_;
  std::uint16_t port_ = 0;
  std::string user_;
  std::string password_;
  std::string target_ = "/";
};

// The value of an Authorization header for basic authentication.
std::string basic_authorization(std::string_view user, std::string_view password);

// What an unanswered request means to the caller, and whether it may be sent twice.
enum class Effect {
  read,              // changes nothing: may be repeated, no answer is unavailable or timed_out
  repeatable_write,  // the same when done twice: may be repeated, no answer is ambiguous
  write,             // never repeated by the client, no answer is ambiguous
};

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

// Classes with constructors, hence safe as temporaries beside co_await.
class HttpRequest {
 public:
  // GET, HEAD and OPTIONS are reads, everything else is a write, unless effect() says otherwise.
  HttpRequest(std::string method, std::string target, std::string body = {});
  HttpRequest& header(std::string name, std::string value) &;
  HttpRequest& effect(Effect effect) &;
  // Gives up, certainly unsent, when there is no connection by then; the rest of the time is for the answer.
  HttpRequest& connect_before(TimePoint at) &;

  const std::string& method() const noexcept { return method_; }
  const std::string& target() const noexcept { return target_; }
  const std::string& body() const noexcept { return body_; }
  const HttpHeaders& headers() const noexcept { return headers_; }
  Effect effect() const noexcept { return effect_; }
  TimePoint connect_before() const noexcept { return connect_before_; }

 private:
  std::string method_;
  std::string target_;
  std::string body_;
  HttpHeaders headers_;
  Effect effect_;
  TimePoint connect_before_ = TimePoint::max();
};

class HttpResponse {
 public:
  HttpResponse() = default;
  HttpResponse(int status, HttpHeaders headers, std::string body);
  int status() const noexcept { return status_; }
  bool ok() const noexcept { return status_ >= 200 && status_ < 300; }
  const std::string& body() const noexcept { return body_; }
  const HttpHeaders& headers() const noexcept { return headers_; }
  // The first header of that name, whatever its case; empty when there is none.
  std::string_view header(std::string_view name) const noexcept;

 private:
  int status_ = 0;
  HttpHeaders headers_;
  std::string body_;
};

// For https. The files are read when the first connection is made, and again when one of them has
// changed since.
struct TlsOptions {
  std::string ca_file;    // PEM; empty: what the system trusts
  std::string cert_file;  // our certificate with its chain, PEM; empty: none
  std::string key_file;   // its key; empty: it is in cert_file
  std::string key_password;
  bool verify = true;       // the chain, and that the certificate is for the host
  std::string server_name;  // empty: the host of the URL
};

struct HttpClientOptions {
  TlsOptions tls;
  std::size_t response_bytes_max = 8u << 20;
  std::size_t idle_per_endpoint = 2;             // kept-alive connections
  Duration idle_max = std::chrono::seconds(90);  // older ones are not used again
  Duration keepalive_idle =
      std::chrono::seconds(5);  // TCP keepalive: first probe, then every third of it
  Duration user_timeout{};      // TCP_USER_TIMEOUT; zero: the system's
};

// An answer of lines that may never end. Destroying it closes the connection.
class LineStream {
 public:
  struct State;
  explicit LineStream(std::shared_ptr<State> state);
  ~LineStream();
  LineStream(const LineStream&) = delete;
  LineStream& operator=(const LineStream&) = delete;

  int status() const noexcept;
  // Without its line end. timed_out: no line came before the deadline, the stream goes on and no
  // text is lost. unavailable: the stream has ended, with the reason; lines that came before are
  // delivered first. protocol: a line above response_bytes_max, or no HTTP. cancelled. One caller
  // at a time.
  Async<std::string> next_line(TimePoint deadline);

 private:
  std::shared_ptr<State> state_;
};

// Keeps connections alive per endpoint. Destroy it after the operations that use it; line streams
// may live on.
//
// Errors of both operations: unavailable: certainly not sent (refused, unreachable, no name, TLS
// failed, no connection before the deadline), for reads also a connection lost before the answer
// was complete. timed_out: a read that was sent had no answer before the deadline. ambiguous: a
// write was sent, at least in part, and has no complete answer. denied: the server refused our
// certificate. cancelled: the caller was cancelled. protocol: the answer is no HTTP or too long.
// invalid_argument: a header or target with a line end. An answer with any status is a value, not
// an error.
class HttpClient {
 public:
  HttpClient(boost::asio::any_io_executor executor, Clock& clock, HttpClientOptions options);
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  // Of `endpoint` only scheme, host and port count.
  Async<HttpResponse> request(Url endpoint, HttpRequest request, TimePoint deadline);
  // Completes with the head of the answer; the stream has a connection of its own.
  Async<std::unique_ptr<LineStream>> open_lines(Url endpoint,
                                                HttpRequest request,
                                                TimePoint deadline);

  // Closes the idle connections; those in use are closed when their answer has come.
  void close_idle() noexcept;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace spilo::net
