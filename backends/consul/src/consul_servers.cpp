#include "consul_servers.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/this_coro.hpp>

namespace spilo::consul {
namespace asio = boost::asio;
namespace {

using wire::Kind;
using namespace std::chrono_literals;

net::HttpClientOptions http_options(const Options& options) {
  net::HttpClientOptions out;
  out.tls = options.tls;
  // A question that waits has no heartbeat: a server whose host is gone must not look like one
  // with nothing to tell.
  out.keepalive_idle = 3s;
  out.user_timeout = 5s;
  return out;
}

net::Effect effect_of(Kind kind) noexcept {
  switch (kind) {
    case Kind::read:
      return net::Effect::read;
    case Kind::session:
      return net::Effect::repeatable_write;
    case Kind::write:
      return net::Effect::write;
  }
  return net::Effect::write;
}

// The statuses that are answers, beside 200. A 404 counts only when Consul can have said it: a
// proxy that does not know the path says it too.
bool is_answer(const net::HttpResponse& response, Kind kind) {
  if (response.status() == 200) return true;
  switch (kind) {
    case Kind::read:
      return response.status() == 404 && wire::parse_index(response.header("X-Consul-Index"));
    case Kind::session:
      return response.status() == 404 || wire::ttl_min_hint(response.body()).has_value();
    case Kind::write:
      return response.status() == 409;
  }
  return false;
}

std::string first_line(std::string_view text) {
  return std::string(text.substr(0, std::min<std::size_t>(text.find_first_of("\r\n"), 200)));
}

}  // namespace

Servers::Servers(asio::any_io_executor executor, Clock& clock, const Options& options)
    : clock_(clock),
      token_(options.token),
      http_(std::move(executor), clock, http_options(options)),
      servers_("consul", options.servers, options.seed, options.logger) {}

void Servers::leave(std::size_t server, const Error& reason) {
  servers_.leave(server, reason);
  if (on_leave) on_leave();
}

Async<Answer> Servers::attempt(std::size_t server,
                               std::string method,
                               std::string target,
                               std::string body,
                               Kind kind,
                               TimePoint connect_by,
                               TimePoint answer_by) {
  const auto url = servers_[server];
  net::HttpRequest message(method, target, std::move(body));
  message.effect(effect_of(kind)).connect_before(connect_by);
  if (!token_.empty()) message.header("X-Consul-Token", token_);
  const auto sent = clock_.now();
  auto response = co_await http_.request(url, std::move(message), answer_by);
  if (response.has_error()) co_return response.error().in("consul");
  if (is_answer(*response, kind)) {
    Answer answer(std::move(*response), sent, url.origin());
    co_return answer;
  }
  co_return Error(wire::meaning(response->status(), kind),
                  fmt::format("consul {}: {} {}: status {}: {}",
                              url.origin(),
                              method,
                              target,
                              response->status(),
                              first_line(response->body())));
}

Async<Answer> Servers::call(
    std::string method, std::string target, std::string body, Kind kind, TimePoint deadline) {
  co_await asio::this_coro::throw_if_cancelled(false);
  if (servers_.size() == 0)
    co_return Error(errc::invalid_argument, "consul: no server is configured");
  Error last(errc::unavailable,
             fmt::format("consul: {}: the deadline had passed before it was sent", target));
  auto pauses = servers_.backoff();
  for (;;) {
    const auto first = servers_.current();
    for (std::size_t i = 0; i < servers_.size(); ++i) {
      const auto state = co_await asio::this_coro::cancellation_state;
      if (state.cancelled() != asio::cancellation_type::none)
        co_return Error(errc::cancelled, "consul: " + target);
      if (clock_.now() >= deadline) co_return last;
      const auto server = (first + i) % servers_.size();
      const auto share = net::Failover::share_of(clock_.now(), deadline, servers_.size() - i);
      // A commit that was sent can't be repeated elsewhere, so its answer may take all the time
      // there is.
      const auto answer_by = kind == Kind::write ? deadline : share;
      auto answer = co_await attempt(server, method, target, body, kind, share, answer_by);
      if (answer.has_value()) {
        servers_.answered(server);
        co_return answer;
      }
      last = answer.error();
      if (last.is(errc::cancelled)) co_return last;
      if (last.is(errc::unavailable) || last.is(errc::timed_out) || last.is(errc::ambiguous))
        leave(server, last);
      if (!net::may_ask_another(last, effect_of(kind))) co_return last;
    }
    const auto now = clock_.now();
    const auto wake = now + pauses.next();
    if (wake >= deadline) co_return last;
    logger().debug("consul: {}: no server answered, once more in {} ms ({})",
                   target,
                   std::chrono::duration_cast<std::chrono::milliseconds>(wake - now).count(),
                   last.text());
    co_await sleep_until(clock_, wake);
  }
}

Async<Answer> Servers::ask(std::string target, TimePoint deadline) {
  if (servers_.size() == 0)
    co_return Error(errc::invalid_argument, "consul: no server is configured");
  const auto connect_by = net::Failover::share_of(clock_.now(), deadline, servers_.size());
  co_return co_await attempt(
      servers_.current(), "GET", std::move(target), "", Kind::read, connect_by, deadline);
}

}  // namespace spilo::consul
