#include "spilo/rest/access.hpp"

#include <fmt/format.h>
#include <openssl/crypto.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/ip/address.hpp>
#include <boost/asio/ip/network_v4.hpp>
#include <boost/asio/ip/network_v6.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "spilo/runtime/with_deadline.hpp"

namespace spilo::rest {
namespace {

namespace asio = boost::asio;
namespace ip = boost::asio::ip;
using boost::system::error_code;

constexpr Duration known_for = std::chrono::minutes(1);
constexpr Duration look_up_patience = std::chrono::seconds(2);

std::optional<ip::address> parse_address(std::string_view text) noexcept {
  error_code ec;
  const auto address = ip::make_address(std::string(text), ec);
  if (ec) return std::nullopt;
  if (address.is_v6() && address.to_v6().is_v4_mapped())
    return ip::address(ip::make_address_v4(ip::v4_mapped, address.to_v6()));
  return address;
}

asio::awaitable<std::vector<std::string>> ask_system(std::string host) {
  const auto executor = co_await asio::this_coro::executor;
  ip::tcp::resolver resolver(executor);
  auto outcome = co_await resolver.async_resolve(host, "", asio::as_tuple(asio::use_awaitable));
  std::vector<std::string> out;
  if (std::get<0>(outcome)) co_return out;
  for (const auto& entry : std::get<1>(outcome))
    out.push_back(entry.endpoint().address().to_string());
  co_return out;
}

Async<std::vector<std::string>> ask(Resolver& resolver, std::string host) {
  co_return co_await resolver(std::move(host));
}

// Takes the same time wherever the texts differ.
bool same_secret(const std::string& a, const std::string& b) noexcept {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

net::HttpResponse refusal(int status, std::string sentence) {
  net::HttpHeaders headers;
  headers.emplace_back("Content-Type", "text/html");
  if (status == 401) headers.emplace_back("WWW-Authenticate", "Basic realm=\"Patroni\"");
  return net::HttpResponse(status, std::move(headers), std::move(sentence));
}

std::string cure(const std::string& peer) {
  return fmt::format(
      "Access is denied: requests that change something are refused from {} because nothing "
      "protects "
      "them. Configure restapi.authentication (username and password), restapi.verify_client with "
      "certfile and cafile, or restapi.allowlist; requests from this machine (127.0.0.1) are "
      "accepted",
      peer.empty() ? "an unknown address" : peer);
}

}  // namespace

bool is_loopback(std::string_view address) noexcept {
  const auto parsed = parse_address(address);
  return parsed && parsed->is_loopback();
}

bool matches_network(std::string_view address, std::string_view network) noexcept {
  const auto peer = parse_address(address);
  if (!peer) return false;
  if (const auto one = parse_address(network)) return *peer == *one;
  error_code ec;
  if (peer->is_v4()) {
    const auto range = ip::make_network_v4(std::string(network), ec);
    if (ec) return false;
    const auto mask = range.netmask().to_uint();
    return (peer->to_v4().to_uint() & mask) == (range.address().to_uint() & mask);
  }
  const auto range = ip::make_network_v6(std::string(network), ec);
  if (ec) return false;
  return ip::network_v6(peer->to_v6(), range.prefix_length()).network() == range.network();
}

std::string host_of(std::string_view api_url) {
  const auto url = net::Url::parse(api_url);
  return url ? url->host() : std::string();
}

AccessControl::AccessControl(Clock& clock, AccessOptions options, Resolver resolver)
    : clock_(clock),
      options_(std::move(options)),
      resolver_(resolver ? std::move(resolver) : Resolver(ask_system)) {}

void AccessControl::reload(AccessOptions options) {
  options_ = std::move(options);
  known_.clear();
}

asio::awaitable<std::vector<std::string>> AccessControl::look_up(std::string host) {
  const TimePoint now = clock_.now();
  const auto known = known_.find(host);
  if (known != known_.end() && now - known->second.asked_at < known_for)
    co_return known->second.addresses;
  auto found = co_await with_deadline(clock_, now + look_up_patience, ask(resolver_, host));
  Known& entry = known_[host];
  entry.asked_at = now;
  if (found && !found->empty()) entry.addresses = std::move(*found);
  co_return entry.addresses;
}

asio::awaitable<bool> AccessControl::listed(std::string peer, std::vector<std::string> entries) {
  // Whatever needs no name service goes first.
  for (const auto& entry : entries)
    if (matches_network(peer, entry)) co_return true;
  for (const auto& entry : entries) {
    if (entry.empty() || parse_address(entry) || entry.find('/') != std::string::npos) continue;
    const auto addresses = co_await look_up(entry);
    for (const auto& address : addresses)
      if (matches_network(peer, address)) co_return true;
  }
  co_return false;
}

asio::awaitable<net::HttpResponse> AccessControl::check(const Request& request,
                                                        std::vector<std::string> member_hosts,
                                                        bool failsafe) {
  const AccessOptions options = options_;  // a reload may come while names are looked up
  const bool by_list =
      !options.allowlist.empty() || (options.allowlist_include_members && !failsafe);
  const bool by_certificate =
      request.tls() && options.client_certificates != ClientCertificates::none;
  const bool by_password = !options.user.empty();

  if (by_list) {
    std::vector<std::string> entries = options.allowlist;
    if (options.allowlist_include_members)
      entries.insert(entries.end(), member_hosts.begin(), member_hosts.end());
    const bool allowed = co_await listed(request.peer(), std::move(entries));
    if (!allowed) co_return refusal(403, "Access is denied");
  }
  if (by_certificate && !request.client_certificate())
    co_return refusal(403, "client certificate required");
  if (by_password) {
    const auto given = request.header("Authorization");
    if (given.empty()) co_return refusal(401, "no auth header received");
    if (!same_secret(std::string(given), net::basic_authorization(options.user, options.password)))
      co_return refusal(401, "not authenticated");
  }
  if (by_list || by_certificate || by_password || is_loopback(request.peer()))
    co_return net::HttpResponse();
  if (failsafe) {
    const bool member = co_await listed(request.peer(), std::move(member_hosts));
    if (member) co_return net::HttpResponse();
  }
  co_return refusal(403, cure(request.peer()));
}

}  // namespace spilo::rest
