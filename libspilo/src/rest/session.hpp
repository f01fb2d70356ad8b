// One connection of a client, from its first byte to its close. Private to rest.
#pragma once

#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/steady_timer.hpp>
#include <memory>
#include <optional>
#include <string>

#include "transport.hpp"

namespace spilo::rest {

class Session : public std::enable_shared_from_this<Session> {
 public:
  // The referenced things outlive the session.
  Session(std::unique_ptr<Transport> transport,
          std::string peer,
          const HttpServerOptions& options,
          HttpHandler& handler,
          Clock& clock,
          const Logger& logger);

  boost::asio::awaitable<void> run();

  // Waiting for the first byte of a request: nobody is hurt when it is closed.
  bool idle() const noexcept { return idle_; }
  // No request after the present one; an idle connection closes now.
  void finish_soon();
  // Ends now, whatever it does.
  void abort();
  boost::asio::cancellation_signal& cancellation() noexcept { return cancellation_; }

 private:
  struct Incoming;  // what the parser has, in http_server.cpp

  boost::asio::awaitable<bool> serve_one();
  boost::asio::awaitable<bool> read_head(Incoming& incoming);
  boost::asio::awaitable<bool> read_body(Incoming& incoming);
  boost::asio::awaitable<bool> fill();
  boost::asio::awaitable<bool> send(net::HttpResponse response, bool head_only, bool keep);
  boost::asio::awaitable<void> refuse(int status, std::string sentence);
  boost::asio::awaitable<void> close_gently();
  boost::asio::awaitable<net::HttpResponse> answer(Request request);
  std::string serialize(const net::HttpResponse& response, bool head_only, bool keep) const;
  void arm(Duration limit);
  void disarm();

  std::unique_ptr<Transport> transport_;
  std::string peer_;
  const HttpServerOptions& options_;
  HttpHandler& handler_;
  Clock& clock_;
  const Logger& logger_;
  boost::asio::steady_timer timer_;
  boost::asio::cancellation_signal cancellation_;
  std::string buffer_;       // received and not yet parsed
  std::uint64_t armed_ = 0;  // counts arm(): an older timer's end means nothing
  bool late_ = false;        // the present limit has passed
  bool idle_ = true;
  bool finishing_ = false;
  bool aborted_ = false;
  bool client_certificate_ = false;
};

}  // namespace spilo::rest
