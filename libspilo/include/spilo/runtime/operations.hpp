// What an operator does to a whole cluster, with its outcome: used by the REST interface, by
// spiloctl and by programs that embed the library. Requests travel through the store, so it does
// not matter which node (or none) the caller is.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "spilo/core/json.hpp"
#include "spilo/ports/peers.hpp"
#include "spilo/runtime/cluster_store.hpp"
#include "spilo/runtime/status_board.hpp"

namespace spilo {

// A step that the operation was seen to take, and how long after its start.
struct OutcomePhase {
  std::string name;
  Duration after{};
};

// What became of it: a status as HTTP would say it and a sentence for people (patroni-contract
// 5.8). A class with a constructor, hence safe beside co_await.
class Outcome {
 public:
  Outcome() = default;
  Outcome(int code, std::string sentence) : status(code), text(std::move(sentence)) {}
  bool ok() const noexcept { return status >= 200 && status < 300; }

  int status = 0;
  std::string text;
  NodeName leader;                    // switchover, failover: who leads now
  std::vector<OutcomePhase> phases;   // switchover, failover: in order
  json::Value document;               // configuration: as it is in the store now
  std::vector<Violation> violations;  // configuration: everything that is wrong with it (422)
};

// Reads the time of a scheduled `action` ("switchover", "restart"). Nothing is returned when it is
// usable and in the future; otherwise 400 or 422 with the reason.
std::optional<Outcome> parse_schedule(std::string_view text,
                                      WallTime now,
                                      std::string_view action,
                                      WallTime& at);

// References, not owners: store, peers and board outlive every operation. One strand of execution;
// operations may overlap. Every operation obeys terminal cancellation and ends by itself; waiting
// is for changes of the store, never for ticks.
//   503  the store did not answer (the text says whether something may have been written), or the
//        operation was carried out and failed
//   400, 409, 412, 422  refused, and nothing was written
class Operations {
 public:
  // `board` is the board of a node in this process, if there is one: its record of decisions
  // explains why a request was turned down.
  Operations(ClusterStore& store, Peers& peers, const StatusBoard* board = nullptr)
      : store_(store), peers_(peers), board_(board) {}

  // Away from `leader`, to `candidate` (empty: the best one). With `scheduled_at` (ISO 8601 with a
  // zone) it is only planned: 202. Otherwise completes when another node holds the lock (200), when
  // the leader has turned it down (503), or after 2*max(10, loop_wait) seconds (503, "status
  // unknown").
  boost::asio::awaitable<Outcome> switchover(NodeName leader,
                                             NodeName candidate,
                                             std::string scheduled_at);
  // To `candidate`, whether there is a leader or not. With `leader` it is a switchover.
  boost::asio::awaitable<Outcome> failover(NodeName candidate,
                                           NodeName leader,
                                           std::string scheduled_at);
  // The one that was scheduled: 200, or 404 when there is none.
  boost::asio::awaitable<Outcome> cancel_switchover();

  // With `wait`, completes when every member has recognised it: 200; 202 when some did not within
  // loop_wait + 1 s, naming them.
  boost::asio::awaitable<Outcome> pause(bool wait);
  boost::asio::awaitable<Outcome> resume(bool wait);

  // Merges `patch` into the cluster's configuration (null removes). Refused with 422 and every
  // violation that the patch would bring in; written by compare-and-set, 409 when somebody else was
  // faster.
  boost::asio::awaitable<Outcome> patch_config(json::Value patch);
  // Replaces the whole configuration, under the same rules.
  boost::asio::awaitable<Outcome> replace_config(json::Value document);

 private:
  enum class Kind { switchover, failover };
  struct Request;

  boost::asio::awaitable<Outcome> change_leader(Kind kind,
                                                NodeName leader,
                                                NodeName candidate,
                                                std::string scheduled_at);
  boost::asio::awaitable<std::optional<Outcome>> objection(Request& request);
  boost::asio::awaitable<std::optional<Outcome>> write_request(Request& request);
  boost::asio::awaitable<Outcome> watch_request(Request& request);
  boost::asio::awaitable<bool> wait_for_change(dcs::Index seen, TimePoint deadline);
  boost::asio::awaitable<std::string> no_good_candidate(std::vector<Member> members);
  boost::asio::awaitable<Outcome> set_pause(bool paused, bool wait);
  boost::asio::awaitable<Outcome> await_pause(bool paused, TimePoint deadline);
  boost::asio::awaitable<Outcome> write_config(json::Value document, dcs::Version at);
  std::string explanation(std::uint64_t since) const;
  std::uint64_t last_record() const noexcept;
  TimePoint soon() const;

  ClusterStore& store_;
  Peers& peers_;
  const StatusBoard* board_;
};

}  // namespace spilo
