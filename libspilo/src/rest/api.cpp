#include "spilo/rest/api.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/deferred.hpp>
#include <boost/asio/experimental/parallel_group.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <charconv>

#include "body.hpp"
#include "spilo/model/codec.hpp"
#include "spilo/runtime/signal.hpp"
#include "status_facts.hpp"

namespace spilo::rest {
namespace {

namespace asio = boost::asio;
using std::chrono::milliseconds;

// How long a reader waits for a fresh observation: a server that hangs must not hang the answer.
constexpr Duration observation_patience = milliseconds(500);

struct Route {
  std::string_view method;
  std::string_view segment;
};
// What changes something. POST /failsafe has a rule of its own.
constexpr std::array<Route, 10> unsafe_routes = {{{"PATCH", "config"},
                                                  {"PUT", "config"},
                                                  {"POST", "reload"},
                                                  {"POST", "restart"},
                                                  {"DELETE", "restart"},
                                                  {"POST", "switchover"},
                                                  {"DELETE", "switchover"},
                                                  {"POST", "failover"},
                                                  {"POST", "reinitialize"},
                                                  {"POST", "failsafe"}}};

bool is_read(std::string_view method) noexcept {
  return method == "GET" || method == "HEAD" || method == "OPTIONS";
}

bool is_unsafe(std::string_view method, std::string_view segment) noexcept {
  return std::any_of(unsafe_routes.begin(), unsafe_routes.end(), [&](const Route& route) {
    return route.method == method && route.segment == segment;
  });
}

net::HttpResponse json_reply(int status, const json::Value& value) {
  net::HttpHeaders headers;
  headers.emplace_back("Content-Type", "application/json");
  return net::HttpResponse(status, std::move(headers), json::dump(value, json::Style::spaced));
}

// A page whose text patronictl looks for when it speaks to an older daemon.
net::HttpResponse not_supported(const Request& request) {
  const std::string path = Target(request.target()).path();
  return error_page(
      501, fmt::format("Server does not support this operation ({} {})", request.method(), path));
}

net::HttpResponse outcome_reply(const Outcome& outcome) {
  return text_reply(outcome.status, outcome.text);
}

std::uint64_t number_or_zero(std::optional<std::string_view> text) noexcept {
  std::uint64_t value = 0;
  if (text) std::from_chars(text->data(), text->data() + text->size(), value);
  return value;
}

// How old an observation of the server the answer to this may show; nothing: any.
std::optional<Duration> freshness_of(const Target& target) {
  const auto segment = target.first_segment();
  // Peers compare WAL positions by it.
  if (segment == "patroni") return milliseconds(50);
  if (segment == "metrics" || segment == "readiness" || target.find("lag"))
    return std::chrono::seconds(1);
  return std::nullopt;
}

}  // namespace

RestApi::RestApi(Clock& clock,
                 StatusBoard& board,
                 Operations& operations,
                 NodeControl node,
                 AccessOptions access,
                 Resolver resolver)
    : clock_(clock),
      board_(board),
      operations_(operations),
      node_(std::move(node)),
      access_(clock, std::move(access), std::move(resolver)) {}

Instant RestApi::instant() const {
  return Instant{clock_.now(), clock_.wall_now()};
}

std::vector<std::string> RestApi::member_hosts() const {
  std::vector<std::string> out;
  const auto status = board_.get();
  if (!status->cluster) return out;
  const auto add = [&out](const std::string& url) {
    auto host = host_of(url);
    if (!host.empty() && std::find(out.begin(), out.end(), host) == out.end())
      out.push_back(std::move(host));
  };
  for (const auto& member : status->cluster->members) add(member.api_url);
  if (status->cluster->failsafe)
    for (const auto& [name, url] : *status->cluster->failsafe) add(url);
  return out;
}

asio::awaitable<void> RestApi::refresh(Duration age) {
  if (node_.refresh) co_await node_.refresh(age, clock_.now() + observation_patience);
}

RestApi::Reply RestApi::admit(Request head) {
  const Target target(head.target());
  const auto segment = target.first_segment();
  if (is_read(head.method())) co_return net::HttpResponse();
  if (!is_unsafe(head.method(), segment)) co_return not_supported(head);
  co_return co_await access_.check(head, member_hosts(), segment == "failsafe");
}

RestApi::Reply RestApi::handle(Request request) {
  if (is_read(request.method())) co_return co_await get(std::move(request));
  const Target target(request.target());
  const auto segment = target.first_segment();
  const std::string& method = request.method();
  if (!is_unsafe(method, segment)) co_return not_supported(request);
  if (segment == "config") {
    const bool replace = method == "PUT";
    co_return co_await change_config(std::move(request), replace);
  }
  if (segment == "switchover" && method == "DELETE") {
    const Outcome outcome = co_await operations_.cancel_switchover();
    co_return outcome_reply(outcome);
  }
  if (segment == "switchover") co_return co_await change_leader(std::move(request), true);
  if (segment == "failover") co_return co_await change_leader(std::move(request), false);
  if (segment == "restart") co_return co_await restart(std::move(request));
  if (segment == "reinitialize") co_return co_await reinitialize(std::move(request));
  if (segment == "reload") co_return co_await reload_node();
  co_return co_await failsafe(std::move(request));
}

RestApi::Reply RestApi::get(Request request) {
  const Target target(request.target());
  const auto segment = target.first_segment();
  if (const auto age = freshness_of(target)) co_await refresh(*age);
  const auto status = board_.get();
  const Instant at = instant();
  const bool probe = segment == "liveness" || segment == "readiness";
  int code = 0;
  if (segment == "liveness") code = liveness_status(*status, at);
  if (segment == "readiness") code = readiness_status(*status, at, target);
  if (!probe) code = health_status(*status, at, target);
  // These say it with the status line alone.
  if (probe || request.method() != "GET")
    co_return net::HttpResponse(code, net::HttpHeaders(), std::string());

  if (segment == "patroni") co_return json_reply(200, patroni_json(*status, at));
  if (segment == "cluster") {
    if (status->cluster) co_return json_reply(200, cluster_json(*status));
    co_return error_page(
        503,
        fmt::format("the store has not been read yet: {}",
                    status->store_problem.empty() ? "starting" : status->store_problem));
  }
  if (segment == "history") co_return json_reply(200, history_json(*status));
  if (segment == "config") {
    const auto* config = config_of(*status);
    if (config != nullptr) co_return json_reply(200, config->document);
    co_return error_page(502, "the store has no usable configuration");
  }
  if (segment == "failsafe") {
    const auto members = failsafe_json(*status);
    if (members) co_return json_reply(200, *members);
    co_return error_page(502, "failsafe_mode is off, or its members are not known yet");
  }
  if (segment == "metrics") {
    net::HttpHeaders headers;
    headers.emplace_back("Content-Type", "text/plain");
    co_return net::HttpResponse(200, std::move(headers), metrics_text(*status, at));
  }
  if (segment == "why")
    co_return json_reply(200,
                         why_json(*status, board_.records(), number_or_zero(target.find("since"))));
  if (segment == "tasks") co_return json_reply(200, tasks_json(*status));
  co_return json_reply(code, patroni_json(*status, at));
}

RestApi::Reply RestApi::change_leader(Request request, bool switchover) {
  Body body = read_body(request, Body::Rule::required);
  if (body.refused()) co_return body.take_refusal();
  const json::Value& document = body.document();
  for (const char* key : {"leader", "candidate", "member", "scheduled_at"}) {
    const auto* value = document.find(key);
    if (value != nullptr && !value->is_null() && !value->is_string())
      co_return text_reply(400, fmt::format("{} must be text, not {}", key, value->type_name()));
  }
  NodeName leader(document.get_string("leader"));
  std::string named = document.get_string("candidate");
  if (named.empty()) named = document.get_string("member");
  NodeName candidate(std::move(named));
  std::string scheduled_at = document.get_string("scheduled_at");
  Outcome outcome;
  if (switchover) {
    outcome = co_await operations_.switchover(
        std::move(leader), std::move(candidate), std::move(scheduled_at));
  } else {
    outcome = co_await operations_.failover(
        std::move(candidate), std::move(leader), std::move(scheduled_at));
  }
  co_return outcome_reply(outcome);
}

RestApi::Reply RestApi::change_config(Request request, bool replace) {
  Body body = read_body(request, Body::Rule::required);
  if (body.refused()) co_return body.take_refusal();
  json::Value document = body.document();
  Outcome outcome;
  if (replace) {
    outcome = co_await operations_.replace_config(std::move(document));
  } else {
    outcome = co_await operations_.patch_config(std::move(document));
  }
  if (outcome.ok()) co_return json_reply(200, outcome.document);
  if (outcome.violations.empty()) co_return outcome_reply(outcome);
  auto answer = json::Value::object();
  answer.set("error", "the configuration was not changed");
  auto& rows = answer.set("violations", json::Value::array());
  for (const auto& violation : outcome.violations) {
    auto row = json::Value::object();
    row.set("path", violation.path);
    row.set("message", violation.message);
    rows.find("violations")->push(std::move(row));
  }
  co_return json_reply(outcome.status, answer);
}

RestApi::Reply RestApi::ask(ha::OperatorRequest request) {
  if (!node_.ask) co_return text_reply(503, "this node takes no requests");
  auto answer = co_await node_.ask(std::move(request));
  if (answer) co_return text_reply(answer->first, answer->second);
  co_return text_reply(503, answer.error().text());
}

RestApi::Reply RestApi::restart(Request request) {
  if (request.method() == "DELETE") {
    ha::OperatorRequest cancel;
    cancel.kind = ha::OperatorRequest::Kind::cancel_restart;
    co_return co_await ask(std::move(cancel));
  }
  Body body = read_body(request, Body::Rule::optional);
  if (body.refused()) co_return body.take_refusal();
  ha::OperatorRequest order;
  order.kind = ha::OperatorRequest::Kind::restart;
  auto problem = read_restart(body.document(), clock_.wall_now(), order);
  if (problem) co_return outcome_reply(*problem);
  if (order.schedule && is_paused(*board_.get()))
    co_return text_reply(500, "Can't schedule restart in the paused state");
  co_return co_await ask(std::move(order));
}

RestApi::Reply RestApi::reinitialize(Request request) {
  Body body = read_body(request, Body::Rule::optional);
  if (body.refused()) co_return body.take_refusal();
  for (const char* key : {"force", "from_leader"}) {
    const auto* value = body.document().find(key);
    if (value != nullptr && !value->is_null() && !value->is_bool())
      co_return text_reply(
          400, fmt::format("{} must be true or false, not {}", key, json::dump(*value)));
  }
  ha::OperatorRequest order;
  order.kind = ha::OperatorRequest::Kind::reinitialize;
  order.force = body.document().get_bool("force");
  if (!node_.ask) co_return text_reply(503, "this node takes no requests");

  // A copy may take hours, so the answer is that it has begun; GET /tasks tells how far it is. A
  // refusal comes at once.
  const auto executor = co_await asio::this_coro::executor;
  auto answered = node_.ask(std::move(order));
  auto group = asio::experimental::make_parallel_group(
      asio::co_spawn(executor, decided("reinitialize"), asio::deferred),  // before it is asked
      asio::co_spawn(executor, std::move(answered), asio::deferred));
  auto outcome = co_await group.async_wait(asio::experimental::wait_for_one(), asio::use_awaitable);
  if (std::get<0>(outcome)[0] == 0) co_return text_reply(200, "reinitialize started");
  if (std::get<2>(outcome)) std::rethrow_exception(std::get<2>(outcome));
  const auto& answer = std::get<3>(outcome);
  if (!answer) co_return text_reply(503, answer.error().text());
  co_return text_reply(answer->first, answer->second);
}

// Completes when the board shows a decision by that rule, or on cancellation.
asio::awaitable<void> RestApi::decided(std::string rule) {
  co_await asio::this_coro::throw_if_cancelled(false);
  const auto executor = co_await asio::this_coro::executor;
  Signal published(executor);
  bool seen = false;
  auto look = [&] {
    seen = seen || board_.get()->rule == rule;
    published.notify();
  };
  const int id = board_.subscribe(look);
  bool waiting = true;
  while (!seen && waiting) {
    waiting = co_await published.wait();
    // The same decision publishes its status and answers: the wait may have ended before it was
    // cancelled, and nobody cancels the next one.
    const auto state = co_await asio::this_coro::cancellation_state;
    if (state.cancelled() != asio::cancellation_type::none) waiting = false;
  }
  board_.unsubscribe(id);
}

RestApi::Reply RestApi::reload_node() {
  if (node_.reload) {
    node_.reload();
    co_return text_reply(202, "reload scheduled");
  }
  ha::OperatorRequest order;
  order.kind = ha::OperatorRequest::Kind::reload;
  co_return co_await ask(std::move(order));
}

RestApi::Reply RestApi::failsafe(Request request) {
  const auto status = board_.get();
  const auto* config = config_of(*status);
  if (config != nullptr && !config->failsafe_mode)
    co_return error_page(502, "failsafe_mode is off");
  Body body = read_body(request, Body::Rule::required);
  if (body.refused()) co_return body.take_refusal();
  const json::Value& document = body.document();
  const std::string name = document.get_string("name");
  if (name.empty()) co_return text_reply(400, "name: the leader that asks is missing");
  if (holds_lock(*status, instant()) || (status->node && status->node->accepts_writes()))
    co_return text_reply(500, "Running as a leader");
  if (!node_.hear_failsafe) co_return text_reply(503, "this node takes no requests");
  NodeName leader(name);
  const auto ttl = codec::parse_promise_ttl(document);
  auto answer = co_await node_.hear_failsafe(
      std::move(leader), document.get_string("conn_url"), document.get_string("api_url"), ttl);
  if (!answer) co_return text_reply(503, answer.error().text());
  net::HttpResponse reply = text_reply(answer->first, answer->second);
  if (answer->first != 200) co_return reply;
  const auto latest = board_.get();
  const Lsn lsn = latest->node ? latest->node->last_lsn() : Lsn{};
  net::HttpHeaders headers = reply.headers();
  headers.emplace_back("lsn", fmt::to_string(to_int(lsn)));
  co_return net::HttpResponse(200, std::move(headers), "Accepted");
}

}  // namespace spilo::rest
