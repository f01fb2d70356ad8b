// A deterministic world: virtual time, any number of simulated processes ("nodes"), and one seeded
// order in which they run.
//
// Code under test is ordinary Asio code: it gets a node's executor (any_io_executor) and a node's
// Clock, and knows nothing of the simulation. Nothing happens in parallel and nothing waits for
// real time; an hour passes in milliseconds. Equal seeds give equal runs on every compiler: hash()
// shows it.
//
//   SimWorld world(42);
//   const NodeId n1 = world.add_node("n1");
//   asio::co_spawn(world.executor(n1), my_agent(world.clock(n1)), rethrow);
//   world.run_for(10s);
//   world.pause(n1, 30s);    // a frozen process: runs nothing, but its timers fall due
//   world.run_for(60s);
//   world.crash(n1);         // all it had queued and awaited is destroyed
//
// Single-threaded. The world must outlive everything that runs on it, and objects that simulated
// processes refer to must outlive either the world or a crash() of the node.
#pragma once

#include <boost/asio/any_completion_handler.hpp>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/execution.hpp>
#include <boost/asio/execution_context.hpp>
#include <boost/system/error_code.hpp>
#include <compare>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "spilo/core/time.hpp"
#include "spilo/ports/clock.hpp"
#include "spilo/testing/rng.hpp"

namespace spilo::testing {

// A simulated process of one SimWorld.
enum class NodeId : std::uint32_t {};
constexpr std::size_t to_index(NodeId node) noexcept {
  return static_cast<std::size_t>(node);
}

class SimWorld;

// The executor of one node. It runs a function inline only if asked to (blocking.possibly) while
// that same node is running, as an io_context does; Asio's own code depends on that.
class SimExecutor {
 public:
  SimExecutor(SimWorld& world, NodeId node, bool may_run_inline = true) noexcept
      : world_(&world), node_(node), inline_(may_run_inline) {}

  SimWorld& query(boost::asio::execution::context_t) const noexcept { return *world_; }
  boost::asio::execution::blocking_t query(boost::asio::execution::blocking_t) const noexcept {
    if (inline_) return boost::asio::execution::blocking.possibly;
    return boost::asio::execution::blocking.never;
  }
  SimExecutor require(boost::asio::execution::blocking_t::never_t) const noexcept {
    return SimExecutor(*world_, node_, false);
  }
  SimExecutor require(boost::asio::execution::blocking_t::possibly_t) const noexcept {
    return SimExecutor(*world_, node_, true);
  }
  template <class F>
  void execute(F function) const;

  friend bool operator==(const SimExecutor& a, const SimExecutor& b) noexcept {
    return a.world_ == b.world_ && a.node_ == b.node_ && a.inline_ == b.inline_;
  }
  friend bool operator!=(const SimExecutor& a, const SimExecutor& b) noexcept { return !(a == b); }

 private:
  SimWorld* world_;
  NodeId node_;
  bool inline_;
};

// The clocks of one node: a monotonic one that runs a little fast or slow, and one on the wall that
// may also be wrong or step.
class SimClock final : public Clock {
 public:
  SimClock(SimWorld& world, NodeId node) noexcept : world_(world), node_(node) {}
  SimClock(const SimClock&) = delete;
  SimClock& operator=(const SimClock&) = delete;

  TimePoint now() const noexcept override;
  WallTime wall_now() const noexcept override;
  void async_wait(
      TimePoint at,
      boost::asio::any_completion_handler<void(boost::system::error_code)> done) override;

  // From now on the monotonic clock gains (or loses) this many parts in a million. Pending waits
  // are moved.
  void set_drift(int parts_per_million);
  int drift() const noexcept { return ppm_; }
  void step_wall(std::chrono::milliseconds by) noexcept { wall_offset_ += by; }
  // Between this clock's time and the world's. to_world rounds up: at that instant now() is not
  // before `local`.
  TimePoint to_local(TimePoint world) const noexcept;
  TimePoint to_world(TimePoint local) const noexcept;

 private:
  friend class SimWorld;
  SimWorld& world_;
  NodeId node_;
  int ppm_ = 0;
  TimePoint anchor_world_{};
  TimePoint anchor_local_{};
  std::chrono::milliseconds wall_offset_{0};
};

class SimWorld : public boost::asio::execution_context {
 public:
  using Handler = boost::asio::any_completion_handler<void(boost::system::error_code)>;
  // Names one pending wait or event; ordered by time, then by age.
  struct WaitId {
    TimePoint at{};
    std::uint64_t sequence = 0;
    auto operator<=>(const WaitId&) const = default;
  };

  explicit SimWorld(std::uint64_t seed);
  ~SimWorld();
  SimWorld(const SimWorld&) = delete;
  SimWorld& operator=(const SimWorld&) = delete;

  // ---- nodes ----
  NodeId add_node(std::string name);
  std::size_t node_count() const noexcept { return nodes_.size(); }
  const std::string& name(NodeId node) const { return at(node).name; }
  SimExecutor executor(NodeId node) noexcept { return SimExecutor(*this, node); }
  SimClock& clock(NodeId node) { return *at(node).clock; }

  // Freezes the process: it runs nothing for that long, while its timers fall due and answers
  // arrive. A longer pause wins.
  void pause(NodeId node, Duration how_long);
  void resume(NodeId node);
  bool paused(NodeId node) const { return now_ < at(node).paused_until; }
  // Destroys whatever the process had queued or awaited; coroutines are unwound, nothing of it
  // runs. Not to be called by the node itself: schedule it with at() or after().
  void crash(NodeId node);
  bool idle(NodeId node) const;  // nothing queued and nothing awaited

  // ---- time ----
  TimePoint now() const noexcept { return now_; }
  WallTime wall_now() const noexcept;  // what a perfect wall clock shows
  // Runs one function, or if none is ready moves time on to the next instant at which there is one.
  // False: nothing is left.
  bool step();
  // Runs until that time; time has then passed even if nothing happened.
  void run_until(TimePoint end);
  void run_for(Duration how_long) { run_until(now_ + how_long); }
  // Runs until the condition holds (asked after every step), at most that long. True when it holds.
  bool run_until(const std::function<bool()>& condition, Duration at_most);

  // ---- the environment: things that happen by themselves, on no node, never paused ----
  WaitId at(TimePoint when, std::function<void()> event);
  WaitId after(Duration delay, std::function<void()> event) {
    return at(now_ + delay, std::move(event));
  }
  bool cancel(WaitId event);  // false when it has happened already

  // ---- waits: what ports are built from ----
  // `done` runs on the node at that time, or when complete() is called, or with operation_aborted
  // when it is cancelled; always through the node's queue and never inline.
  WaitId wait(NodeId node, TimePoint when, Handler done);
  bool complete(WaitId wait, boost::system::error_code ec = {});

  // ---- chance and records ----
  Rng& rng() noexcept { return rng_; }
  std::uint64_t seed() const noexcept { return seed_; }
  std::uint64_t hash() const noexcept { return hash_; }
  std::uint64_t functions_run() const noexcept { return functions_run_; }

  // One line of the record. Every line enters the hash; the last lines are kept, and all are passed
  // to the sink if there is one.
  void trace(std::string_view who, std::string_view line);
  void trace_to(std::function<void(std::string_view)> sink) { trace_sink_ = std::move(sink); }
  const std::deque<std::string>& last_lines() const noexcept { return lines_; }
  static constexpr std::size_t lines_kept_max = 200;

  // A broken rule, found by a checker. The first ones are kept; the world goes on, whoever drives
  // it should stop.
  void violation(std::string text);
  const std::vector<std::string>& violations() const noexcept { return violations_; }

 private:
  friend class SimExecutor;
  friend class SimClock;
  struct Function {
    virtual ~Function() = default;
    virtual void run() = 0;
  };
  template <class F>
  struct FunctionOf final : Function {
    explicit FunctionOf(F&& f) : function(std::move(f)) {}
    void run() override { std::move(function)(); }
    F function;
  };
  struct Node {
    std::string name;
    std::unique_ptr<SimClock> clock;
    std::deque<std::unique_ptr<Function>> ready;
    TimePoint paused_until{};
  };
  struct Wait {
    std::optional<NodeId> node;  // none: an event of the environment
    TimePoint local{};           // for a node's wait: the time by its own clock
    Handler handler;
    std::function<void()> event;
  };

  Node& at(NodeId node);
  const Node& at(NodeId node) const;
  bool run_one();
  bool advance();
  void fire(std::map<WaitId, Wait>::iterator wait, boost::system::error_code ec);
  void move_waits(NodeId node);
  void drain(NodeId node);
  void mix(std::uint64_t value) noexcept { hash_ = (hash_ ^ value) * 0x100000001b3u; }

  std::uint64_t seed_;
  Rng rng_;
  Rng order_;
  TimePoint now_{};
  std::uint64_t sequence_ = 0;
  std::vector<std::unique_ptr<Node>> nodes_;
  std::map<WaitId, Wait> waits_;
  std::optional<NodeId> current_;
  std::uint64_t functions_run_ = 0;
  std::uint64_t functions_at_this_instant_ = 0;
  std::uint64_t hash_ = 0xcbf29ce484222325u;
  std::deque<std::string> lines_;
  std::function<void(std::string_view)> trace_sink_;
  std::vector<std::string> violations_;
};

template <class F>
void SimExecutor::execute(F function) const {
  if (inline_ && world_->current_ == node_) {
    std::move(function)();
    return;
  }
  world_->at(node_).ready.push_back(std::make_unique<SimWorld::FunctionOf<F>>(std::move(function)));
}

// One answer on its way to one waiting node. The environment sets it once; the node waits for it
// with its own deadline. Held by shared_ptr on both sides, so either may go first.
template <class T>
class SimAnswer {
 public:
  SimAnswer(SimWorld& world, NodeId node) : world_(world), node_(node) {}
  // The first answer counts.
  void set(T value) {
    if (value_) return;
    value_.emplace(std::move(value));
    if (waiting_) world_.complete(*waiting_);
  }
  bool is_set() const noexcept { return value_.has_value(); }
  T take() { return std::move(*value_); }
  void wait(TimePoint local_deadline, SimWorld::Handler done) {
    auto& clock = world_.clock(node_);
    waiting_ =
        world_.wait(node_, value_ ? world_.now() : clock.to_world(local_deadline), std::move(done));
  }

 private:
  SimWorld& world_;
  NodeId node_;
  std::optional<T> value_;
  std::optional<SimWorld::WaitId> waiting_;
};

enum class Waited { answered, timed_out, cancelled };

namespace detail {
boost::asio::awaitable<Waited> wait_for(std::function<void(SimWorld::Handler)> start);
}

// Waits for the answer until the deadline (by the node's clock). An answer that is there wins over
// deadline and cancellation.
template <class T>
boost::asio::awaitable<Waited> await_answer(std::shared_ptr<SimAnswer<T>> answer,
                                            TimePoint deadline) {
  const auto start = [&answer, deadline](SimWorld::Handler done) {
    answer->wait(deadline, std::move(done));
  };
  const std::function<void(SimWorld::Handler)> erased(start);
  const Waited how = co_await detail::wait_for(erased);
  co_return answer->is_set() ? Waited::answered : how;
}

}  // namespace spilo::testing
