// Requests to REST interfaces on this machine, one at a time.
#pragma once

#include <boost/asio/io_context.hpp>
#include <cstdint>
#include <optional>
#include <string>

#include "spilo/core/json.hpp"
#include "spilo/net/http.hpp"
#include "spilo/runtime/system_clock.hpp"

namespace bench {

class RestClient {
 public:
  RestClient();
  // Nothing when nobody answers in time.
  std::optional<spilo::net::HttpResponse> ask(std::string method,
                                              std::uint16_t port,
                                              std::string path,
                                              std::string body = {},
                                              std::chrono::seconds limit = std::chrono::seconds(3));
  // The body of a GET; null when nobody answers or it is no JSON.
  spilo::json::Value get(std::uint16_t port, std::string path);

 private:
  boost::asio::io_context io_{1};
  spilo::SystemClock clock_{io_.get_executor()};
  spilo::net::HttpClient http_;
};

}  // namespace bench
