#include "spilo/net/http_peers.hpp"

#include <fmt/format.h>

#include <charconv>

#include "spilo/model/codec.hpp"

namespace spilo::net {
namespace {

// The header `lsn` of an answer to POST /failsafe: a decimal number.
Lsn lsn_of(const HttpResponse& response) noexcept {
  const auto text = response.header("lsn");
  std::uint64_t value = 0;
  const auto outcome = std::from_chars(text.data(), text.data() + text.size(), value);
  return outcome.ec == std::errc() ? Lsn{value} : Lsn{};
}

// What people need to see of an unexpected answer.
std::string shown(std::string_view body) {
  constexpr std::size_t enough = 200;
  auto text = std::string(body.substr(0, enough));
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.pop_back();
  return text;
}

}  // namespace

HttpPeers::HttpPeers(boost::asio::any_io_executor executor, Clock& clock, HttpPeersOptions options)
    : clock_(clock),
      authorization_(options.user.empty() ? std::string()
                                          : basic_authorization(options.user, options.password)),
      client_(std::move(executor), clock, std::move(options.http)) {}

Async<PeerStatus> HttpPeers::probe(NodeName node, std::string api_url, TimePoint deadline) {
  PeerStatus out;
  out.node = node;
  out.asked_at = clock_.now();
  const auto url = Url::parse(api_url);
  if (!url) {
    out.problem = url.error().text();
    co_return out;
  }
  HttpRequest request("GET", url->target());
  if (!authorization_.empty()) request.header("Authorization", authorization_);
  auto response = co_await client_.request(*url, std::move(request), deadline);
  if (!response) {
    out.problem = fmt::format("GET {}: {}", api_url, response.error().text());
    co_return out;
  }
  const TimePoint asked_at = out.asked_at;
  out = codec::parse_peer_status(std::move(node), response->body());
  out.asked_at = asked_at;  // the question, not the answer, dates the evidence
  if (!out.reachable && out.problem.empty())
    out.problem = fmt::format(
        "GET {}: {} without xlog: {}", api_url, response->status(), shown(response->body()));
  co_return out;
}

Async<FailsafeAnswer> HttpPeers::ask_failsafe(NodeName node,
                                              std::string api_url,
                                              std::string body,
                                              TimePoint deadline) {
  FailsafeAnswer out;
  out.node = std::move(node);
  const auto url = Url::parse(api_url);
  if (!url) {
    out.problem = url.error().text();
    co_return out;
  }
  HttpRequest request("POST", "/failsafe", std::move(body));
  request.header("Content-Type", "application/json");
  if (!authorization_.empty()) request.header("Authorization", authorization_);
  // The same promise twice is one promise.
  request.effect(Effect::repeatable_write);
  auto response = co_await client_.request(*url, std::move(request), deadline);
  if (!response) {
    out.problem = fmt::format("POST {}/failsafe: {}", url->origin(), response.error().text());
    co_return out;
  }
  out.lsn = lsn_of(*response);
  out.accepted = response->status() == 200 && response->body() == "Accepted";
  if (!out.accepted)
    out.problem = fmt::format(
        "POST {}/failsafe: {} {}", url->origin(), response->status(), shown(response->body()));
  co_return out;
}

}  // namespace spilo::net
