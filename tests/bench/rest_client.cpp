#include "rest_client.hpp"

#include "support/run.hpp"

namespace bench {

using namespace spilo;

RestClient::RestClient() : http_(io_.get_executor(), clock_, net::HttpClientOptions{}) {}

std::optional<net::HttpResponse> RestClient::ask(std::string method,
                                                 std::uint16_t port,
                                                 std::string path,
                                                 std::string body,
                                                 std::chrono::seconds limit) {
  net::HttpRequest request(std::move(method), std::move(path), std::move(body));
  if (!request.body().empty()) request.header("Content-Type", "application/json");
  auto operation =
      http_.request(net::Url("127.0.0.1", port), std::move(request), clock_.now() + limit);
  const auto answer = test::run(io_, std::move(operation), limit + std::chrono::seconds(5));
  // A node that is killed next must not be found half open by the request after.
  http_.close_idle();
  if (answer.has_error()) return std::nullopt;
  return *answer;
}

json::Value RestClient::get(std::uint16_t port, std::string path) {
  const auto answer = ask("GET", port, std::move(path));
  if (!answer) return {};
  const auto parsed = json::parse(answer->body());
  return parsed.has_value() ? *parsed : json::Value();
}

}  // namespace bench
