// The only file of rest that includes Beast, and of Beast only the parser: bytes go in, no sockets.
// Reading and writing are our own, because every wait needs its own limit and its own answer.
#include "spilo/rest/http_server.hpp"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/string.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/status.hpp>
#include <boost/beast/http/string_body.hpp>

#include "session.hpp"

namespace spilo::rest {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using boost::system::error_code;

constexpr std::size_t read_bytes = 4096;
constexpr auto linger_time = std::chrono::seconds(1);
constexpr std::size_t linger_bytes_max = 4u << 20;

std::string without_line_ends(std::string text) {
  for (char& c : text)
    if (c == '\r' || c == '\n' || c == '\0') c = ' ';
  return text;
}

// What a client can do about a request that the parser refuses.
std::pair<int, std::string> refusal(const error_code& ec, const HttpServerOptions& options) {
  if (ec == http::error::header_limit)
    return {431,
            fmt::format("the request's head is larger than {} bytes", options.header_bytes_max)};
  if (ec == http::error::body_limit)
    return {413, fmt::format("the request's body is larger than {} bytes", options.body_bytes_max)};
  if (ec == http::error::bad_version) return {505, "only HTTP/1.0 and HTTP/1.1 are spoken here"};
  return {400, fmt::format("this is not an HTTP request: {}", ec.message())};
}

}  // namespace

std::string_view Request::header(std::string_view name) const noexcept {
  for (const auto& [key, value] : http_.headers())
    if (beast::iequals({key.data(), key.size()}, {name.data(), name.size()})) return value;
  return {};
}

bool Request::has_header(std::string_view name) const noexcept {
  return std::any_of(http_.headers().begin(), http_.headers().end(), [name](const auto& header) {
    return beast::iequals({header.first.data(), header.first.size()}, {name.data(), name.size()});
  });
}

asio::awaitable<net::HttpResponse> HttpHandler::admit(Request) {
  co_return net::HttpResponse();
}

struct Session::Incoming {
  explicit Incoming(const HttpServerOptions& options) {
    parser.header_limit(static_cast<std::uint32_t>(options.header_bytes_max));
    parser.body_limit(options.body_bytes_max);
  }
  // Feeds what has been received; false when the request is bad.
  bool feed(std::string& buffer, error_code& ec) {
    while (!buffer.empty() && !parser.is_done()) {
      const bool had_head = parser.is_header_done();
      const std::size_t used = parser.put(asio::buffer(buffer), ec);
      buffer.erase(0, used);
      if (ec == http::error::need_more) {
        ec = {};
        return true;
      }
      if (ec) return false;
      // The body waits until the head has been judged.
      if (!had_head && parser.is_header_done()) return true;
    }
    return true;
  }
  Request request(const std::string& peer, bool tls, bool certificate, std::string body) const {
    const auto& message = parser.get();
    net::HttpRequest out(
        std::string(message.method_string()), std::string(message.target()), std::move(body));
    for (const auto& field : message)
      out.header(std::string(field.name_string()), std::string(field.value()));
    return Request(std::move(out), peer, tls, certificate);
  }
  http::request_parser<http::string_body> parser;
};

Session::Session(std::unique_ptr<Transport> transport,
                 std::string peer,
                 const HttpServerOptions& options,
                 HttpHandler& handler,
                 Clock& clock,
                 const Logger& logger)
    : transport_(std::move(transport)),
      peer_(std::move(peer)),
      options_(options),
      handler_(handler),
      clock_(clock),
      logger_(logger),
      timer_(transport_->socket().get_executor()) {}

void Session::arm(Duration limit) {
  late_ = false;
  const std::uint64_t turn = ++armed_;
  timer_.expires_after(limit);
  timer_.async_wait([weak = weak_from_this(), turn](error_code ec) {
    const auto self = weak.lock();
    if (ec || self == nullptr || self->armed_ != turn) return;
    self->late_ = true;
    error_code ignored;
    self->transport_->socket().cancel(ignored);
  });
}

void Session::disarm() {
  ++armed_;
  late_ = false;
  timer_.cancel();
}

void Session::finish_soon() {
  finishing_ = true;
  if (idle_) abort();
}

void Session::abort() {
  aborted_ = true;
  error_code ignored;
  transport_->socket().cancel(ignored);
}

asio::awaitable<void> Session::run() {
  // Cancellation is looked at where it matters, so that an answer under way is not torn.
  co_await asio::this_coro::throw_if_cancelled(false);
  if (aborted_) co_return;  // before it began
  arm(options_.head_timeout);
  const error_code ec = co_await transport_->handshake();
  if (ec) {
    if (!aborted_) logger_.debug("restapi: TLS handshake with {}: {}", peer_, ec.message());
    disarm();
    co_return;
  }
  client_certificate_ = transport_->client_certificate();
  while (!aborted_ && !finishing_) {
    const bool more = co_await serve_one();
    if (!more) break;
  }
  if (!aborted_) co_await close_gently();
  disarm();
}

// False when no byte came: closed, too late, or told to stop. The caller finds out which.
asio::awaitable<bool> Session::fill() {
  if (late_ || aborted_) co_return false;
  const std::size_t before = buffer_.size();
  buffer_.resize(before + read_bytes);
  auto outcome = co_await transport_->read_some(buffer_.data() + before, read_bytes);
  buffer_.resize(before + (outcome.first ? 0 : outcome.second));
  co_return !outcome.first && !aborted_;
}

asio::awaitable<bool> Session::read_head(Incoming& incoming) {
  idle_ = buffer_.empty();
  arm(idle_ ? options_.idle_timeout : options_.head_timeout);
  for (;;) {
    error_code ec;
    if (!incoming.feed(buffer_, ec)) {
      const auto why = refusal(ec, options_);
      co_await refuse(why.first, why.second);
      co_return false;
    }
    if (incoming.parser.is_header_done()) co_return true;
    const bool was_idle = idle_;
    const bool more = co_await fill();
    if (!more) {
      // Whoever has said nothing is not owed an answer.
      if (late_ && !was_idle && !aborted_)
        co_await refuse(408,
                        fmt::format("the request's head did not arrive within {} s",
                                    std::chrono::duration<double>(options_.head_timeout).count()));
      co_return false;
    }
    idle_ = false;
    if (was_idle) arm(options_.head_timeout);
  }
}

asio::awaitable<bool> Session::read_body(Incoming& incoming) {
  if (incoming.parser.is_done()) co_return true;
  arm(options_.body_timeout);
  const auto& message = incoming.parser.get();
  if (beast::iequals(message[http::field::expect], "100-continue") && message.version() >= 11) {
    const error_code ec = co_await transport_->write("HTTP/1.1 100 Continue\r\n\r\n");
    if (ec) co_return false;
  }
  for (;;) {
    error_code ec;
    if (!incoming.feed(buffer_, ec)) {
      const auto why = refusal(ec, options_);
      co_await refuse(why.first, why.second);
      co_return false;
    }
    if (incoming.parser.is_done()) co_return true;
    const bool more = co_await fill();
    if (!more) {
      if (late_ && !aborted_)
        co_await refuse(408,
                        fmt::format("the request's body did not arrive within {} s",
                                    std::chrono::duration<double>(options_.body_timeout).count()));
      co_return false;
    }
  }
}

asio::awaitable<net::HttpResponse> Session::answer(Request request) {
  std::string failure;
  try {
    co_return co_await handler_.handle(std::move(request));
  } catch (const std::exception& e) {
    failure = e.what();
  }
  if (!aborted_) logger_.error("restapi: a handler failed: {}", failure);
  co_return net::HttpResponse(aborted_ ? 0 : 500, net::HttpHeaders(), "internal error");
}

// One request and its answer; false when the connection is to be closed.
asio::awaitable<bool> Session::serve_one() {
  Incoming incoming(options_);
  bool complete = co_await read_head(incoming);
  idle_ = false;
  if (!complete) co_return false;
  const bool head_only = incoming.parser.get().method() == http::verb::head;
  Request head = incoming.request(peer_, transport_->tls(), client_certificate_, std::string());
  disarm();
  net::HttpResponse refused = co_await handler_.admit(std::move(head));
  if (aborted_) co_return false;
  if (refused.status() != 0) {
    // With a body outstanding the next request can't be found.
    const bool keep =
        incoming.parser.is_done() && incoming.parser.get().keep_alive() && !finishing_;
    logger_.debug("restapi: {} {} from {}: refused with {}",
                  std::string(incoming.parser.get().method_string()),
                  std::string(incoming.parser.get().target()),
                  peer_,
                  refused.status());
    co_return co_await send(std::move(refused), head_only, keep);
  }
  complete = co_await read_body(incoming);
  if (!complete) co_return false;
  disarm();
  std::string body = std::move(incoming.parser.get().body());
  Request request =
      incoming.request(peer_, transport_->tls(), client_certificate_, std::move(body));
  net::HttpResponse response = co_await answer(std::move(request));
  if (aborted_ || response.status() == 0) co_return false;
  const bool keep = incoming.parser.get().keep_alive() && !finishing_;
  co_return co_await send(std::move(response), head_only, keep);
}

std::string Session::serialize(const net::HttpResponse& response, bool head_only, bool keep) const {
  const auto reason = http::obsolete_reason(static_cast<http::status>(response.status()));
  std::string out;
  out.reserve(256 + (head_only ? 0 : response.body().size()));
  auto to = std::back_inserter(out);
  fmt::format_to(
      to, "HTTP/1.1 {} {}\r\n", response.status(), fmt::string_view(reason.data(), reason.size()));
  if (!options_.server.empty())
    fmt::format_to(to, "Server: {}\r\n", without_line_ends(options_.server));
  fmt::format_to(to,
                 "Date: {:%a, %d %b %Y %H:%M:%S} GMT\r\n",
                 fmt::gmtime(std::chrono::system_clock::to_time_t(clock_.wall_now())));
  for (const auto& [name, value] : response.headers())
    fmt::format_to(to, "{}: {}\r\n", without_line_ends(name), without_line_ends(value));
  for (const auto& [name, value] : options_.extra_headers)
    fmt::format_to(to, "{}: {}\r\n", without_line_ends(name), without_line_ends(value));
  // An answer to HEAD without a body says nothing about the length that GET would have.
  if (!head_only || !response.body().empty())
    fmt::format_to(to, "Content-Length: {}\r\n", response.body().size());
  // HTTP/1.0 clients keep the connection only when told so.
  fmt::format_to(to, "Connection: {}\r\n\r\n", keep ? "keep-alive" : "close");
  if (!head_only) out += response.body();
  return out;
}

asio::awaitable<bool> Session::send(net::HttpResponse response, bool head_only, bool keep) {
  const std::string text = serialize(response, head_only, keep);
  arm(options_.write_timeout);
  const error_code ec = co_await transport_->write(text);
  disarm();
  co_return !ec && keep && !aborted_;
}

asio::awaitable<void> Session::refuse(int status, std::string sentence) {
  net::HttpHeaders headers;
  headers.emplace_back("Content-Type", "text/plain; charset=utf-8");
  net::HttpResponse response(status, std::move(headers), std::move(sentence) + "\n");
  logger_.debug("restapi: {} refused with {}", peer_, status);
  co_await send(std::move(response), false, false);
}

// Closing with unread input makes the kernel send a reset, which can overtake our answer: so say
// that we are done and swallow what still comes, for a moment.
asio::awaitable<void> Session::close_gently() {
  arm(linger_time);
  co_await transport_->shut_down();
  std::size_t swallowed = 0;
  while (swallowed < linger_bytes_max) {
    buffer_.clear();
    const bool more = co_await fill();
    if (!more) break;
    swallowed += buffer_.size();
  }
}

}  // namespace spilo::rest
