#include "spilo/net/http_peers.hpp"

#include <fmt/format.h>

#include <charconv>
#include <utility>

#include "spilo/model/codec.hpp"

namespace spilo::net {
namespace {

HttpClientOptions client_options(TlsOptions tls) {
  HttpClientOptions options;
  options.tls = std::move(tls);
  options.response_bytes_max = 1u << 20;
  options.idle_per_endpoint = 1;
  return options;
}

// The beginning of a body, for an error text.
std::string excerpt(const std::string& body) {
  return body.size() <= 200 ? body : body.substr(0, 200) + "…";
}

}  // namespace

HttpPeers::HttpPeers(boost::asio::any_io_executor executor, Clock& clock, HttpPeersOptions options)
    : clock_(clock),
      authorization_(options.username.empty()
                         ? std::string()
                         : basic_authorization(options.username, options.password)),
      client_(std::move(executor), clock, client_options(std::move(options.tls))) {}

Async<PeerStatus> HttpPeers::probe(NodeName node, std::string api_url, TimePoint deadline) {
  PeerStatus status;
  status.node = node;
  status.asked_at = clock_.now();
  const auto url = Url::parse(api_url);
  if (!url) {
    status.problem = fmt::format("api_url {}: {}", api_url, url.error().detail());
    co_return status;
  }
  // The whole path: a member may publish one below a proxy's prefix.
  HttpRequest request("GET", url->target());
  auto response = co_await client_.request(*url, std::move(request), deadline);
  if (!response) {
    status.problem = response.error().text();
    co_return status;
  }
  const auto asked_at = status.asked_at;
  status = codec::parse_peer_status(std::move(node), response->body());
  status.asked_at = asked_at;
  if (!status.reachable && status.problem.empty())
    status.problem =
        fmt::format("{} answered {}: {}", api_url, response->status(), excerpt(response->body()));
  co_return status;
}

Async<FailsafeAnswer> HttpPeers::ask_failsafe(NodeName node,
                                              std::string api_url,
                                              std::string body,
                                              TimePoint deadline) {
  FailsafeAnswer answer;
  answer.node = std::move(node);
  const auto url = Url::parse(api_url);
  if (!url) {
    answer.problem = fmt::format("api_url {}: {}", api_url, url.error().detail());
    co_return answer;
  }
  // Only the place of the interface counts: ".../patroni" becomes ".../failsafe".
  std::string target = url->target();
  target.resize(target.find_last_of('/') + 1);
  HttpRequest request("POST", target + "failsafe", std::move(body));
  request.header("Content-Type", "application/json");
  if (!authorization_.empty()) request.header("Authorization", authorization_);
  request.effect(Effect::repeatable_write);
  auto response = co_await client_.request(*url, std::move(request), deadline);
  if (!response) {
    answer.problem = response.error().text();
    co_return answer;
  }
  answer.accepted = response->status() == 200 && response->body() == "Accepted";
  if (!answer.accepted)
    answer.problem =
        fmt::format("{} answered {}: {}", api_url, response->status(), excerpt(response->body()));
  const auto lsn = response->header("lsn");
  std::uint64_t position = 0;
  std::from_chars(lsn.data(), lsn.data() + lsn.size(), position);
  answer.lsn = Lsn{position};
  co_return answer;
}

}  // namespace spilo::net
