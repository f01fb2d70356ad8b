#include <sys/socket.h>
#include <sys/un.h>

#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/ip/address.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>

#include "impl.hpp"
#include "spilo/runtime/with_deadline.hpp"

namespace spilo::pg {
namespace asio = boost::asio;
namespace {

constexpr auto as_tuple = asio::as_tuple(asio::use_awaitable);
using Endpoint = asio::generic::stream_protocol::endpoint;

Async<bool> ask(Endpoint endpoint) {
  auto executor = co_await asio::this_coro::executor;
  asio::generic::stream_protocol::socket socket(executor);
  const auto connected = co_await socket.async_connect(endpoint, as_tuple);
  if (std::get<0>(connected))
    co_return Error(errc::unavailable, "connect: " + std::get<0>(connected).message());
  // Length 8, code 80877103: SSLRequest. A forked backend answers with one byte.
  static constexpr std::array<unsigned char, 8> request = {0, 0, 0, 8, 4, 210, 22, 47};
  const auto out = asio::buffer(request);
  const auto sent = co_await asio::async_write(socket, out, as_tuple);
  if (std::get<0>(sent)) co_return Error(errc::unavailable, std::get<0>(sent).message());
  char answer = 0;
  const auto in = asio::buffer(&answer, 1);
  const auto got = co_await asio::async_read(socket, in, as_tuple);
  if (std::get<0>(got)) co_return Error(errc::unavailable, std::get<0>(got).message());
  co_return true;
}

}  // namespace

Async<bool> probe_new_connection(Clock& clock, std::string host, int port, TimePoint deadline) {
  std::vector<Endpoint> endpoints;
  if (host.starts_with('/')) {
    const auto path = host + "/.s.PGSQL." + std::to_string(port);
    if (path.size() < sizeof(sockaddr_un::sun_path))
      endpoints.emplace_back(asio::local::stream_protocol::endpoint(path));
  } else {
    const auto add = [&](const std::string& text) {
      boost::system::error_code ec;
      const auto address = asio::ip::make_address(text, ec);
      if (!ec)
        endpoints.emplace_back(asio::ip::tcp::endpoint(address, static_cast<std::uint16_t>(port)));
    };
    if (host == "localhost") {
      add("127.0.0.1");
      add("::1");
    } else {
      add(host);
    }
  }
  Error last(errc::unsupported, "no address to ask");
  for (const auto& endpoint : endpoints) {
    auto answer = co_await with_deadline(clock, deadline, ask(endpoint));
    if (answer.has_value()) co_return true;
    if (answer.error().is(errc::timed_out)) co_return false;
    last = answer.error();
  }
  co_return last;
}

}  // namespace spilo::pg
