#include "zk_servers.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/experimental/channel.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <map>
#include <memory>

#include "spilo/runtime/with_deadline.hpp"

namespace spilo::zookeeper {
namespace asio = boost::asio;
namespace {

using tcp = asio::ip::tcp;

std::string endpoint_text(const std::string& address, std::uint16_t port) {
  const bool is_v6 = address.find(':') != std::string::npos;
  return is_v6 ? fmt::format("[{}]:{}", address, port) : fmt::format("{}:{}", address, port);
}

bool is_address(const std::string& host) {
  boost::system::error_code ec;
  asio::ip::make_address(host, ec);
  return !ec;
}

// The answers of all lookups that one question started. A lookup can't be interrupted: it may end
// after everybody has stopped waiting for it.
struct Lookups {
  Lookups(asio::any_io_executor executor, std::size_t count)
      : resolver(executor), ended(executor, count), found(count), failed(count) {}
  tcp::resolver resolver;
  asio::experimental::channel<void(boost::system::error_code)> ended;
  std::vector<std::vector<std::string>> found;  // addresses, for each server
  std::vector<std::string> failed;
};

void start(const std::shared_ptr<Lookups>& lookups, const Server& server, std::size_t at) {
  lookups->resolver.async_resolve(
      server.host,
      fmt::format("{}", server.port),
      tcp::resolver::numeric_service,
      [lookups, at](boost::system::error_code ec, const tcp::resolver::results_type& results) {
        if (ec) lookups->failed[at] = ec.message();
        for (const auto& result : results)
          lookups->found[at].push_back(result.endpoint().address().to_string());
        lookups->ended.try_send(boost::system::error_code{});
      });
}

Async<void> all_ended(std::shared_ptr<Lookups> lookups, std::size_t count) {
  constexpr auto token = asio::as_tuple(asio::use_awaitable);
  co_await asio::this_coro::throw_if_cancelled(false);
  for (std::size_t i = 0; i < count; ++i) {
    const auto [ec] = co_await lookups->ended.async_receive(token);
    if (ec) co_return Error(ec);
  }
  co_return boost::system::in_place_value;
}

}  // namespace

bool is_numeric(const std::vector<Server>& servers) {
  return std::ranges::all_of(servers, is_address, &Server::host);
}

std::string to_text(const std::vector<Server>& servers) {
  std::string out;
  for (const auto& server : servers)
    out.append(out.empty() ? "" : ",").append(endpoint_text(server.host, server.port));
  return out;
}

Async<std::string> addresses_of(asio::any_io_executor executor,
                                Clock& clock,
                                std::vector<Server> servers,
                                TimePoint deadline) {
  const auto lookups = std::make_shared<Lookups>(executor, servers.size());
  std::size_t started = 0;
  for (std::size_t i = 0; i < servers.size(); ++i) {
    if (is_address(servers[i].host)) {
      lookups->found[i].push_back(servers[i].host);
      continue;
    }
    lookups->failed[i] = "no answer of the name service";
    start(lookups, servers[i], i);
    ++started;
  }
  if (started > 0) {
    const auto ended = co_await with_deadline(clock, deadline, all_ended(lookups, started));
    if (ended.has_error() && ended.error().is(errc::cancelled)) co_return ended.error();
  }
  std::string out;
  std::string troubles;
  for (std::size_t i = 0; i < servers.size(); ++i) {
    for (const auto& address : lookups->found[i])
      out.append(out.empty() ? "" : ",").append(endpoint_text(address, servers[i].port));
    if (lookups->found[i].empty())
      troubles += fmt::format(
          "{}{}: {}", troubles.empty() ? "" : "; ", servers[i].host, lookups->failed[i]);
  }
  if (out.empty())
    co_return Error(errc::unavailable,
                    fmt::format("zookeeper: no server has an address: {}", troubles));
  co_return out;
}

}  // namespace spilo::zookeeper
