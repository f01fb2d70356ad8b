#include "spilo/consul/service_registration.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/this_coro.hpp>
#include <optional>

#include "consul_wire.hpp"
#include "service_wire.hpp"
#include "spilo/runtime/signal.hpp"
#include "spilo/runtime/with_deadline.hpp"

namespace spilo::consul {
namespace asio = boost::asio;
using namespace std::chrono_literals;

namespace {
constexpr Duration patience = 5s;  // for one call
constexpr Duration pause_max = 30s;
}  // namespace

struct ServiceRegistration::Impl {
  Impl(asio::any_io_executor executor, Clock& time, RegistrationOptions chosen)
      : clock(time),
        options(std::move(chosen)),
        http(executor, time, http_options(options)),
        changed(executor) {}

  static net::HttpClientOptions http_options(const RegistrationOptions& options) {
    net::HttpClientOptions out;
    out.tls = options.tls;
    return out;
  }

  // `absent`: a 404 is as good as a success.
  Async<void> put(std::string target, std::string body, bool absent, TimePoint deadline) {
    net::HttpRequest request("PUT", target, std::move(body));
    request.effect(net::Effect::repeatable_write);
    if (!options.token.empty()) request.header("X-Consul-Token", options.token);
    const auto url = options.agent;
    const auto answer = co_await http.request(url, std::move(request), deadline);
    if (answer.has_error()) co_return answer.error().in("consul");
    if (answer->ok() || (absent && answer->status() == 404))
      co_return boost::system::in_place_value;
    co_return Error(wire::meaning(answer->status(), wire::Kind::session),
                    fmt::format("consul {}: {}: status {}: {}",
                                url.origin(),
                                target,
                                answer->status(),
                                answer->body().substr(0, 200)));
  }

  Async<void> take_out(TimePoint deadline) {
    const auto target = "/v1/agent/service/deregister/" + wire::escaped(wire::service_id(options));
    auto done = co_await put(target, "", true, deadline);
    if (done.has_value()) may_be_listed = false;
    co_return done;
  }

  // Brings the catalogue to what `wanted` says.
  Async<void> bring_up_to_date() {
    const auto now = wanted;
    const auto deadline = clock.now() + patience;
    if (now->state == "stopped") {
      const auto out = co_await take_out(deadline);
      if (out.has_value()) told = now;
      co_return out;
    }
    const auto body = wire::service_request(options, *now);
    if (body.has_error()) co_return body.error();
    may_be_listed = true;
    const auto done = co_await put("/v1/agent/service/register", *body, false, deadline);
    if (done.has_value()) {
      told = now;
      options.logger.info("registered with consul {} as {} of service {}",
                          options.agent.origin(),
                          now->role,
                          wire::service_name(options.scope.str()));
    }
    co_return done;
  }

  bool up_to_date() const {
    if (!wanted || wanted == told) return true;
    if (wanted->state == "stopped") return false;
    // Between running and stopped there is nothing to say, nor on the way from one role to another.
    const auto& role = wanted->role;
    return wanted->state != "running" ||
           (role != "primary" && role != "replica" && role != "standby_leader");
  }

  Async<bool> news() {
    const bool woken = co_await changed.wait();
    if (!woken) co_return Error(errc::cancelled);
    co_return true;
  }

  Clock& clock;
  RegistrationOptions options;
  net::HttpClient http;
  Signal changed;
  std::optional<ServedNode> wanted;
  std::optional<ServedNode> told;  // what the agent has acknowledged
  bool may_be_listed = false;      // also when a registration was sent and not answered
};

ServiceRegistration::ServiceRegistration(asio::any_io_executor executor,
                                         Clock& clock,
                                         RegistrationOptions options)
    : impl_(std::make_unique<Impl>(std::move(executor), clock, std::move(options))) {}
ServiceRegistration::~ServiceRegistration() = default;

void ServiceRegistration::show(ServedNode node) {
  if (impl_->wanted == node) return;
  impl_->wanted = std::move(node);
  impl_->changed.notify();
}

asio::awaitable<void> ServiceRegistration::run() {
  co_await asio::this_coro::throw_if_cancelled(false);
  Impl& impl = *impl_;
  Duration pause = 1s;
  std::string complained;
  for (;;) {
    const auto state = co_await asio::this_coro::cancellation_state;
    if (state.cancelled() != asio::cancellation_type::none) co_return;
    if (impl.up_to_date()) {
      const bool woken = co_await impl.changed.wait();
      if (!woken) co_return;
      continue;
    }
    const auto done = co_await impl.bring_up_to_date();
    if (done.has_value()) {
      pause = 1s;
      complained.clear();
      continue;
    }
    if (done.error().is(errc::cancelled)) co_return;
    // Once for each reason: the cluster does not depend on it.
    if (const auto text = done.error().text(); text != complained) {
      impl.options.logger.warning("service registration: {}; it is tried again", text);
      complained = text;
    }
    auto waiting = impl.news();
    const auto until = impl.clock.now() + pause;
    pause = std::min(pause * 2, pause_max);
    const auto waited = co_await with_deadline(impl.clock, until, std::move(waiting));
    if (waited.has_error() && waited.error().is(errc::cancelled)) co_return;
  }
}

Async<void> ServiceRegistration::withdraw(TimePoint deadline) {
  if (!impl_->may_be_listed) co_return boost::system::in_place_value;
  co_return co_await impl_->take_out(deadline);
}

}  // namespace spilo::consul
