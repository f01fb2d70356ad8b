// One Consul data centre behind its agents' and servers' addresses. Private.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "consul_wire.hpp"
#include "spilo/consul/consul_store.hpp"
#include "spilo/net/failover.hpp"

namespace spilo::consul {

// An answer of Consul's. A class with a constructor, hence safe beside co_await.
class Answer {
 public:
  Answer() = default;
  Answer(net::HttpResponse what, TimePoint at, std::string who)
      : response(std::move(what)), sent(at), server(std::move(who)) {}
  net::HttpResponse response;
  TimePoint sent{};  // taken before the request was sent
  std::string server;
};

class Servers {
 public:
  Servers(boost::asio::any_io_executor executor, Clock& clock, const Options& options);

  // Sends one request, to the servers in turn as far as its kind allows, until there is an answer
  // or the deadline. Besides 200 an answer is: 404 of a read or of a session, when Consul said it;
  // 409 of a write; a refused ttl.
  Async<Answer> call(std::string method,
                     std::string target,
                     std::string body,
                     wire::Kind kind,
                     TimePoint deadline);
  // One attempt at the present server, for a question that waits for a change.
  Async<Answer> ask(std::string target, TimePoint deadline);

  void leave(std::size_t server, const Error& reason);
  std::size_t current() const noexcept { return servers_.current(); }
  // Called when a server has failed somebody.
  std::function<void()> on_leave;

  net::Backoff backoff() noexcept { return servers_.backoff(); }
  std::uint64_t random() noexcept { return servers_.random(); }
  const Logger& logger() const noexcept { return servers_.logger(); }

 private:
  Async<Answer> attempt(std::size_t server,
                        std::string method,
                        std::string target,
                        std::string body,
                        wire::Kind kind,
                        TimePoint connect_by,
                        TimePoint answer_by);

  Clock& clock_;
  std::string token_;
  net::HttpClient http_;
  net::Failover servers_;
};

}  // namespace spilo::consul
