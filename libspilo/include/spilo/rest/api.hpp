// The node's REST interface (patroni-contract 5): routes a request to what answers it.
//
// Everything that only reads is answered from the StatusBoard, so health checks answer whatever the
// store and PostgreSQL are doing. Ours on top of the contract: GET /why[?since=N] (the decisions of
// this node, newest last) and GET /tasks (what is running on PostgreSQL and how far it is).
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "spilo/ha/facts.hpp"
#include "spilo/rest/access.hpp"
#include "spilo/rest/http_server.hpp"
#include "spilo/rest/status_json.hpp"
#include "spilo/runtime/operations.hpp"
#include "spilo/runtime/status_board.hpp"

namespace spilo::rest {

// What the interface needs of the node that it speaks for; node_of(supervisor) fills it in.
struct NodeControl {
  std::function<Async<std::pair<int, std::string>>(ha::OperatorRequest)> ask;
  std::function<Async<std::pair<int, std::string>>(
      NodeName leader, std::string conn_url, std::string api_url, Duration ttl)>
      hear_failsafe;
  // Completes once the board shows an observation of PostgreSQL not older than `age`.
  std::function<boost::asio::awaitable<void>(Duration age, TimePoint deadline)> refresh;
  // POST /reload: reads the local file again, as SIGHUP does. Empty: ask() with a reload.
  std::function<void()> reload;
};

// Any Supervisor: a template, so that this header needs none.
template <class Supervisor>
NodeControl node_of(Supervisor& supervisor) {
  NodeControl out;
  out.ask = [&supervisor](ha::OperatorRequest request) {
    return supervisor.ask(std::move(request));
  };
  out.hear_failsafe =
      [&supervisor](NodeName leader, std::string conn_url, std::string api_url, Duration ttl) {
    return supervisor.hear_failsafe(
        std::move(leader), std::move(conn_url), std::move(api_url), ttl);
  };
  out.refresh = [&supervisor](Duration age, TimePoint deadline) {
    return supervisor.refresh(age, deadline);
  };
  return out;
}

// References outlive the object; use it on their executor.
class RestApi final : public HttpHandler {
 public:
  RestApi(Clock& clock,
          StatusBoard& board,
          Operations& operations,
          NodeControl node,
          AccessOptions access,
          Resolver resolver = {});

  boost::asio::awaitable<net::HttpResponse> admit(Request head) override;
  boost::asio::awaitable<net::HttpResponse> handle(Request request) override;

  // After the local configuration was read again.
  void reload(AccessOptions access) { access_.reload(std::move(access)); }

 private:
  using Reply = boost::asio::awaitable<net::HttpResponse>;

  Reply get(Request request);
  Reply change_leader(Request request, bool switchover);
  Reply change_config(Request request, bool replace);
  Reply restart(Request request);
  Reply reinitialize(Request request);
  Reply reload_node();
  Reply failsafe(Request request);
  Reply ask(ha::OperatorRequest request);
  boost::asio::awaitable<void> refresh(Duration age);
  boost::asio::awaitable<void> decided(std::string rule);
  std::vector<std::string> member_hosts() const;
  Instant instant() const;

  Clock& clock_;
  StatusBoard& board_;
  Operations& operations_;
  NodeControl node_;
  AccessControl access_;
};

}  // namespace spilo::rest
