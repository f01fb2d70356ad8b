#include "spilo/testing/sim_peers.hpp"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/this_coro.hpp>
#include <exception>
#include <memory>
#include <utility>

namespace spilo::testing {

// Refused: nobody listens there. Silence: the question or the answer is lost, or the one who is
// asked is frozen.
template <class T>
boost::asio::awaitable<T> SimPeers::ask(
    NodeName name,
    TimePoint deadline,
    std::function<boost::asio::awaitable<T>(const SimPhoneBook::Line&)> question) {
  auto answer = std::make_shared<SimAnswer<T>>(world_, node_);
  T refused;
  refused.node = name;
  refused.problem = "simulated network: connection refused";
  // Not `this`: the message is on its way while its sender may be crashed and destroyed.
  const auto reply = [&world = world_, &network = network_, host = host_, answer](std::size_t from,
                                                                                  T value) {
    const auto arrive = [&network, host, answer, from, value] {
      if (network.reaches(from, host)) answer->set(value);
    };
    world.after(network.delay(), arrive);
  };
  const auto deliver = [&world = world_,
                        &network = network_,
                        &book = book_,
                        host = host_,
                        name,
                        reply,
                        refused,
                        question] {
    const auto* line = book.find(name);
    if (line == nullptr) {
      reply(host, refused);
      return;
    }
    if (!network.reaches(host, line->host)) return;
    boost::asio::co_spawn(world.executor(line->node),
                          question(*line),
                          [reply, from = line->host](std::exception_ptr failure, T value) {
                            if (failure) std::rethrow_exception(failure);
                            reply(from, std::move(value));
                          });
  };
  const std::function<void()> erased(deliver);
  world_.after(network_.delay(), erased);
  const auto how = co_await await_answer(answer, deadline);
  if (how == Waited::answered) co_return answer->take();
  T silent;
  silent.node = name;
  silent.problem = "simulated network: no answer";
  co_return silent;
}

Async<PeerStatus> SimPeers::probe(NodeName node, std::string, TimePoint deadline) {
  co_await boost::asio::this_coro::throw_if_cancelled(false);  // a port never throws
  const auto asked = world_.clock(node_).now();
  const auto question = [](const SimPhoneBook::Line& line) { return line.status(); };
  const std::function<boost::asio::awaitable<PeerStatus>(const SimPhoneBook::Line&)> erased(
      question);
  PeerStatus status = co_await ask<PeerStatus>(node, deadline, erased);
  status.node = node;
  status.asked_at = asked;
  co_return status;
}

Async<FailsafeAnswer> SimPeers::ask_failsafe(NodeName node,
                                             std::string,
                                             std::string body,
                                             TimePoint deadline) {
  co_await boost::asio::this_coro::throw_if_cancelled(false);  // a port never throws
  // The body is kept in the closure, which may outlive this coroutine.
  const auto kept = [body](const SimPhoneBook::Line& line) { return line.failsafe(body); };
  const std::function<boost::asio::awaitable<FailsafeAnswer>(const SimPhoneBook::Line&)> erased(
      kept);
  FailsafeAnswer given = co_await ask<FailsafeAnswer>(node, deadline, erased);
  given.node = node;
  co_return given;
}

}  // namespace spilo::testing
