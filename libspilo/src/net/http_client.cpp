#include <fmt/format.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <deque>
#include <optional>

#include "connection.hpp"
#include "spilo/runtime/with_deadline.hpp"

// Beast is used as a parser only: bytes in, message out. Sockets, deadlines and the outcome of a
// request are ours.
namespace spilo::net {
namespace asio = boost::asio;
namespace http = boost::beast::http;
namespace {

using boost::system::error_code;
using Parser = http::response_parser<http::string_body>;
constexpr auto as_result = asio::as_tuple(asio::use_awaitable);
constexpr std::size_t read_bytes = 8192;
constexpr std::uint32_t header_bytes_max = 32u << 10;

// How far a request came; outlives the attempt, because a cancelled attempt can't return anything.
struct Progress {
  bool pooled = false;  // on a kept-alive connection
  bool sent = false;    // at least one byte may have left
  bool answered = false;
};

bool has_line_end(std::string_view text) {
  return text.find_first_of("\r\n") != text.npos;
}

Result<std::string> to_wire(const Url& endpoint, const HttpRequest& request) {
  if (request.target().empty() || request.target().find(' ') != std::string::npos ||
      has_line_end(request.target()) || has_line_end(request.method()))
    return Error(errc::invalid_argument,
                 fmt::format("{}: a request target with blanks or line ends", endpoint.origin()));
  auto out = fmt::format("{} {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: libspilo\r\n",
                         request.method(),
                         request.target(),
                         endpoint.authority());
  for (const auto& [name, value] : request.headers()) {
    if (has_line_end(name) || has_line_end(value))
      return Error(errc::invalid_argument,
                   fmt::format("{}: header {} has a line end", endpoint.origin(), name));
    out.append(name).append(": ").append(value).append("\r\n");
  }
  if (!request.body().empty() || (request.method() != "GET" && request.method() != "HEAD"))
    out += fmt::format("Content-Length: {}\r\n", request.body().size());
  return out.append("\r\n").append(request.body());
}

// Moves bytes from the connection through the parser. Each call either advances the parser or reads
// once.
class Reader {
 public:
  Reader(Connection& connection, std::size_t body_bytes_max, bool head_only)
      : connection_(connection) {
    parser_.eager(true);
    parser_.header_limit(header_bytes_max);
    if (body_bytes_max > 0) {
      parser_.body_limit(body_bytes_max);
    } else {
      parser_.body_limit(boost::none);
    }
    parser_.skip(head_only);
  }

  Parser& parser() noexcept { return parser_; }
  bool done() const noexcept { return parser_.is_done(); }
  bool has_rest() const noexcept { return buffer_.size() > 0; }

  // One read and what follows from it. The error is the end of this answer.
  asio::awaitable<error_code> advance() {
    const auto io = co_await connection_.read_some(buffer_.prepare(read_bytes));
    buffer_.commit(io.bytes);
    error_code ec;
    if (io.bytes > 0) ec = parse();
    if (ec || done()) co_return ec;
    if (is_end(io.ec) && parser_.got_some()) {
      parser_.put_eof(ec);
      co_return ec;
    }
    co_return io.ec;
  }

 private:
  error_code parse() {
    while (!parser_.is_done() && buffer_.size() > 0) {
      error_code ec;
      const auto used = parser_.put(buffer_.data(), ec);
      buffer_.consume(used);
      if (ec == http::error::need_more) return {};
      if (ec) return ec;
      if (used == 0) return {};
    }
    return {};
  }

  Connection& connection_;
  Parser parser_;
  boost::beast::flat_buffer buffer_;
};

bool is_http_error(error_code ec) {
  return ec.category() == make_error_code(http::error::end_of_stream).category();
}

// The failure of an exchange in terms of the transport; request() turns it into what it means for
// the caller.
Error transport_error(const std::string& what, error_code ec) {
  if (is_certificate_refused(ec))
    return Error(errc::denied,
                 fmt::format("{}: our certificate was refused: {}", what, ec.message()));
  if (ec == http::error::body_limit || ec == http::error::header_limit)
    return Error(errc::protocol, fmt::format("{}: the answer is too long: {}", what, ec.message()));
  if (is_http_error(ec) && ec != http::error::partial_message && ec != http::error::end_of_stream)
    return Error(errc::protocol, fmt::format("{}: the answer is not HTTP: {}", what, ec.message()));
  return Error(
      errc::unavailable,
      fmt::format("{}: connection lost before the answer was complete: {}", what, ec.message()));
}

HttpResponse to_response(Parser& parser) {
  auto message = parser.release();
  HttpHeaders headers;
  for (const auto& field : message)
    headers.emplace_back(std::string(field.name_string()), std::string(field.value()));
  return HttpResponse(
      static_cast<int>(message.result_int()), std::move(headers), std::move(message.body()));
}

Error cancelled(const std::string& what) {
  return Error(errc::cancelled, what);
}

}  // namespace

struct HttpClient::Impl : std::enable_shared_from_this<Impl> {
  Impl(asio::any_io_executor ex, Clock& time, HttpClientOptions options)
      : executor(std::move(ex)),
        clock(time),
        connector(std::make_shared<Connector>(executor, time, std::move(options))) {}

  const HttpClientOptions& options() const noexcept { return connector->options(); }

  std::unique_ptr<Connection> take_idle(const std::string& origin) {
    const auto found = idle.find(origin);
    if (found == idle.end()) return nullptr;
    std::unique_ptr<Connection> connection;
    while (!connection && !found->second.empty()) {
      connection = std::move(found->second.back());
      found->second.pop_back();
      if (clock.now() - connection->idle_since > options().idle_max || !connection->usable())
        connection.reset();
    }
    if (found->second.empty()) idle.erase(found);
    return connection;
  }

  void keep(const std::string& origin, std::unique_ptr<Connection> connection) {
    auto& list = idle[origin];
    if (list.size() >= options().idle_per_endpoint) return;
    connection->idle_since = clock.now();
    list.push_back(std::move(connection));
  }

  // One request on one connection. Errors are of the transport, see transport_error().
  static Async<HttpResponse> attempt(std::shared_ptr<Impl> self,
                                     Url endpoint,
                                     std::string wire,
                                     std::string what,
                                     bool head_only,
                                     std::shared_ptr<Progress> progress,
                                     TimePoint connect_before);
  Async<HttpResponse> request(Url endpoint, HttpRequest request, TimePoint deadline);
  static Async<std::unique_ptr<LineStream>> open(std::shared_ptr<Impl> self,
                                                 Url endpoint,
                                                 std::string wire,
                                                 std::string what,
                                                 std::shared_ptr<Progress> progress,
                                                 TimePoint deadline);

  asio::any_io_executor executor;
  Clock& clock;
  std::shared_ptr<Connector> connector;
  std::map<std::string, std::vector<std::unique_ptr<Connection>>> idle;
};

Async<HttpResponse> HttpClient::Impl::attempt(std::shared_ptr<Impl> self,
                                              Url endpoint,
                                              std::string wire,
                                              std::string what,
                                              bool head_only,
                                              std::shared_ptr<Progress> progress,
                                              TimePoint connect_before) {
  co_await asio::this_coro::throw_if_cancelled(false);
  const auto origin = endpoint.origin();
  std::unique_ptr<Connection> connection;
  if (progress->pooled) connection = self->take_idle(origin);
  progress->pooled = connection != nullptr;
  if (!connection) {
    auto opened = co_await self->connector->connect(endpoint, connect_before);
    if (opened.has_error()) co_return opened.error();
    connection = std::move(*opened);
  }
  // Cancellation that came while we were connecting must not let a byte out.
  const auto state = co_await asio::this_coro::cancellation_state;
  if (state.cancelled() != asio::cancellation_type::none) co_return cancelled(what);
  progress->sent = true;
  const auto written = co_await connection->write(asio::buffer(wire));
  // A server may answer and close before it has read everything (413): the answer is looked for in
  // any case.
  const bool broken = bool(written.ec);
  if (state.cancelled() != asio::cancellation_type::none) co_return cancelled(what);
  Reader reader(*connection, self->options().response_bytes_max, head_only);
  while (!reader.done()) {
    const auto ec = co_await reader.advance();
    progress->answered = progress->answered || reader.parser().got_some();
    if (state.cancelled() != asio::cancellation_type::none && ec) co_return cancelled(what);
    if (ec) co_return transport_error(what, ec);
  }
  const bool again = reader.parser().keep_alive() && !reader.has_rest() && !broken;
  auto response = to_response(reader.parser());
  if (again) self->keep(origin, std::move(connection));
  co_return response;
}

namespace {

// What the failure of the transport means for the caller of the request.
Error outcome(const Error& failure, const Progress& progress, Effect effect) {
  if (failure.is(errc::timed_out)) {
    if (!progress.sent)
      return Error(errc::unavailable, failure.detail() + ": no connection before the deadline");
    return Error(effect == Effect::read ? errc::timed_out : errc::ambiguous,
                 failure.detail() + ": no answer before the deadline");
  }
  if (failure.is(errc::unavailable) && progress.sent && effect != Effect::read)
    return Error(errc::ambiguous, failure.detail());
  return failure;
}

}  // namespace

Async<HttpResponse> HttpClient::Impl::request(Url endpoint,
                                              HttpRequest request,
                                              TimePoint deadline) {
  co_await asio::this_coro::throw_if_cancelled(false);
  const auto what = fmt::format("{} {}{}", request.method(), endpoint.origin(), request.target());
  const auto wire = to_wire(endpoint, request);
  if (wire.has_error()) co_return wire.error();
  const auto connect_before = std::min(deadline, request.connect_before());
  for (bool first = true;; first = false) {
    const auto state = co_await asio::this_coro::cancellation_state;
    if (state.cancelled() != asio::cancellation_type::none) co_return cancelled(what);
    if (clock.now() >= deadline)
      co_return Error(errc::unavailable, what + ": the deadline had passed before it was sent");
    auto progress = std::make_shared<Progress>();
    progress->pooled = first;
    auto result = co_await with_deadline(clock,
                                         deadline,
                                         attempt(shared_from_this(),
                                                 endpoint,
                                                 *wire,
                                                 what,
                                                 request.method() == "HEAD",
                                                 progress,
                                                 connect_before),
                                         what);
    if (result.has_value()) co_return result;
    const auto failure = result.error();
    // The server had closed the connection while we were not looking: once more, if that can't do
    // harm.
    const bool stale = progress->pooled && !progress->answered && failure.is(errc::unavailable);
    if (first && stale && request.effect() != Effect::write) continue;
    co_return outcome(failure, *progress, request.effect());
  }
}

// ---- line streams
// --------------------------------------------------------------------------------------------------------

struct LineStream::State {
  State(const asio::any_io_executor& executor,
        Clock& time,
        std::unique_ptr<Connection> opened,
        std::string description,
        std::size_t limit)
      : clock(time),
        connection(std::move(opened)),
        reader(*connection, 0, false),
        what(std::move(description)),
        line_bytes_max(limit),
        filled(executor, asio::steady_timer::time_point::max()),
        drained(executor, asio::steady_timer::time_point::max()) {}

  bool ready() const noexcept { return !lines.empty() || end; }

  void take_body() {
    auto& body = reader.parser().get().body();
    partial.append(body);
    body.clear();
    for (std::size_t at; (at = partial.find('\n')) != std::string::npos; partial.erase(0, at + 1)) {
      queued_bytes += at;
      lines.push_back(partial.substr(0, at > 0 && partial[at - 1] == '\r' ? at - 1 : at));
    }
    if (partial.size() > line_bytes_max)
      end = Error(errc::protocol,
                  fmt::format("{}: a line of more than {} bytes", what, line_bytes_max));
  }
  void finish(Error reason) {
    if (!end) end = std::move(reason);
    if (!partial.empty()) lines.push_back(std::exchange(partial, {}));
    closed = true;
    error_code ignored;
    connection->socket().close(ignored);
    filled.cancel();
    drained.cancel();
  }

  // Reads for the whole life of the stream, so that a caller's deadline never interrupts a read: no
  // text can be lost.
  static asio::awaitable<void> pump(std::shared_ptr<State> self) {
    co_await asio::this_coro::throw_if_cancelled(false);
    while (!self->closed) {
      self->take_body();
      if (self->end) break;
      if (self->ready()) self->filled.cancel();
      if (self->reader.done()) {
        self->end = Error(errc::unavailable, self->what + ": the server has ended the stream");
        break;
      }
      // What nobody fetches stays in the socket: the server is slowed down, not our memory filled.
      while (self->queued_bytes > self->line_bytes_max && !self->closed)
        co_await self->drained.async_wait(as_result);
      if (self->closed) break;
      const auto ec = co_await self->reader.advance();
      if (ec) {
        self->take_body();
        self->finish(transport_error(self->what, ec));
      }
    }
    self->finish(Error(errc::unavailable, self->what + ": closed"));
  }

  static Async<void> wait(std::shared_ptr<State> self) {
    co_await asio::this_coro::throw_if_cancelled(false);
    while (!self->ready()) {
      co_await self->filled.async_wait(as_result);
      const auto state = co_await asio::this_coro::cancellation_state;
      if (state.cancelled() != asio::cancellation_type::none) co_return Error(errc::cancelled);
    }
    co_return boost::system::in_place_value;
  }

  Clock& clock;
  std::unique_ptr<Connection> connection;
  Reader reader;
  std::string what;
  std::size_t line_bytes_max;
  asio::steady_timer filled;
  asio::steady_timer drained;
  std::deque<std::string> lines;
  std::size_t queued_bytes = 0;
  std::string partial;
  std::optional<Error> end;
  bool closed = false;
  int status = 0;
};

LineStream::LineStream(std::shared_ptr<State> state) : state_(std::move(state)) {}

LineStream::~LineStream() {
  state_->closed = true;
  error_code ignored;
  state_->connection->socket().close(ignored);
  state_->filled.cancel();
  state_->drained.cancel();
}

int LineStream::status() const noexcept {
  return state_->status;
}

Async<std::string> LineStream::next_line(TimePoint deadline) {
  const auto state = state_;  // the stream may be destroyed while we wait
  if (!state->ready()) {
    const auto waited =
        co_await with_deadline(state->clock, deadline, State::wait(state), state->what);
    if (waited.has_error() && waited.error().is(errc::cancelled)) co_return waited.error();
  }
  if (!state->lines.empty()) {
    auto line = std::move(state->lines.front());
    state->lines.pop_front();
    state->queued_bytes -= std::min(state->queued_bytes, line.size());
    if (state->queued_bytes <= state->line_bytes_max) state->drained.cancel();
    co_return line;
  }
  if (state->end) co_return *state->end;
  co_return Error(errc::timed_out, state->what + ": no line before the deadline");
}

Async<std::unique_ptr<LineStream>> HttpClient::Impl::open(std::shared_ptr<Impl> self,
                                                          Url endpoint,
                                                          std::string wire,
                                                          std::string what,
                                                          std::shared_ptr<Progress> progress,
                                                          TimePoint deadline) {
  co_await asio::this_coro::throw_if_cancelled(false);
  auto opened = co_await self->connector->connect(endpoint, deadline);
  if (opened.has_error()) co_return opened.error();
  const auto cancel = co_await asio::this_coro::cancellation_state;
  if (cancel.cancelled() != asio::cancellation_type::none) co_return cancelled(what);
  auto state = std::make_shared<LineStream::State>(
      self->executor, self->clock, std::move(*opened), what, self->options().response_bytes_max);
  progress->sent = true;
  const auto written = co_await state->connection->write(asio::buffer(wire));
  if (written.ec && cancel.cancelled() == asio::cancellation_type::none)
    co_return transport_error(what, written.ec);
  while (!state->reader.parser().is_header_done()) {
    if (cancel.cancelled() != asio::cancellation_type::none) co_return cancelled(what);
    const auto ec = co_await state->reader.advance();
    if (cancel.cancelled() != asio::cancellation_type::none) co_return cancelled(what);
    if (ec) co_return transport_error(what, ec);
  }
  state->status = static_cast<int>(state->reader.parser().get().result_int());
  auto stream = std::make_unique<LineStream>(state);
  // A failure of the pump is a broken invariant (it reports what happens on the wire as the
  // stream's end): let it out.
  asio::co_spawn(self->executor, LineStream::State::pump(state), [](std::exception_ptr failure) {
    if (failure) std::rethrow_exception(failure);
  });
  co_return stream;
}

// ---- the interface
// -------------------------------------------------------------------------------------------------------

HttpClient::HttpClient(asio::any_io_executor executor, Clock& clock, HttpClientOptions options)
    : impl_(std::make_shared<Impl>(std::move(executor), clock, std::move(options))) {}
HttpClient::~HttpClient() = default;

Async<HttpResponse> HttpClient::request(Url endpoint, HttpRequest request, TimePoint deadline) {
  const auto impl = impl_;
  co_return co_await impl->request(std::move(endpoint), std::move(request), deadline);
}

Async<std::unique_ptr<LineStream>> HttpClient::open_lines(Url endpoint,
                                                          HttpRequest request,
                                                          TimePoint deadline) {
  co_await asio::this_coro::throw_if_cancelled(false);
  const auto impl = impl_;
  const auto what = fmt::format("{} {}{}", request.method(), endpoint.origin(), request.target());
  const auto wire = to_wire(endpoint, request);
  if (wire.has_error()) co_return wire.error();
  const auto state = co_await asio::this_coro::cancellation_state;
  if (state.cancelled() != asio::cancellation_type::none) co_return cancelled(what);
  auto progress = std::make_shared<Progress>();
  auto result = co_await with_deadline(
      impl->clock, deadline, Impl::open(impl, endpoint, *wire, what, progress, deadline), what);
  if (result.has_value()) co_return result;
  co_return outcome(result.error(), *progress, request.effect());
}

void HttpClient::close_idle() noexcept {
  impl_->idle.clear();
}

}  // namespace spilo::net
