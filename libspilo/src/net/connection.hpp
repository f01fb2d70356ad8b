// Sockets with or without TLS behind one interface, so that the HTTP code is compiled once. Private
// to net.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "spilo/net/http.hpp"

namespace boost::asio::ssl {
class context;
}

namespace spilo::net {

struct Io {  // trivially destructible, hence safe beside co_await
  boost::system::error_code ec;
  std::size_t bytes = 0;
};

class Connection {
 public:
  virtual ~Connection() = default;
  virtual boost::asio::awaitable<Io> read_some(boost::asio::mutable_buffer into) = 0;
  virtual boost::asio::awaitable<Io> write(boost::asio::const_buffer from) = 0;  // all of it
  virtual boost::asio::ip::tcp::socket& socket() noexcept = 0;
  // False when the server has closed it, or has sent something that nobody asked for.
  bool usable() noexcept;

  TimePoint idle_since{};
};

// errc::denied when the error says that the peer refused our certificate, which it does before it
// reads any request.
bool is_certificate_refused(boost::system::error_code ec) noexcept;
// The end of the stream, in order or not, as opposed to a failure.
bool is_end(boost::system::error_code ec) noexcept;

// Opens connections: name, addresses, socket options, TLS. Shared by the operations that use it.
class Connector : public std::enable_shared_from_this<Connector> {
 public:
  Connector(boost::asio::any_io_executor executor, Clock& clock, HttpClientOptions options);
  ~Connector();
  Async<std::unique_ptr<Connection>> connect(Url endpoint, TimePoint deadline);
  const HttpClientOptions& options() const noexcept { return options_; }

 private:
  using Addresses = std::vector<boost::asio::ip::tcp::endpoint>;
  struct Lookup;
  Async<Addresses> resolve(std::string host, std::uint16_t port, TimePoint deadline);
  Async<std::unique_ptr<Connection>> connect_to(Url endpoint,
                                                boost::asio::ip::tcp::endpoint address);
  Result<void> prepare(boost::asio::ip::tcp::socket& socket,
                       const boost::asio::ip::tcp::endpoint& address) const;
  Result<std::shared_ptr<boost::asio::ssl::context>> tls_context();

  boost::asio::any_io_executor executor_;
  Clock& clock_;
  HttpClientOptions options_;
  std::shared_ptr<boost::asio::ssl::context> tls_;
  std::string tls_files_state_;  // of what tls_ was made: times and sizes of its files
  std::map<std::string, std::shared_ptr<Lookup>> lookups_;
  std::map<std::string, Addresses> known_;  // the last answers, used while the name service is away
};

}  // namespace spilo::net
