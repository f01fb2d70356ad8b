#include "spilo/testing/sim_world.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/associated_cancellation_slot.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cstdlib>
#include <stdexcept>
#include <type_traits>

#include "spilo/core/assert.hpp"

namespace spilo::testing {
namespace {

static_assert(std::is_constructible_v<boost::asio::any_io_executor, SimExecutor>);

// More functions than this without any time passing means that something spins.
constexpr std::uint64_t functions_per_instant_max = 20'000;
constexpr std::size_t violations_kept_max = 10;
// 2026-01-01, so that schedules and log lines look like ones.
constexpr WallTime wall_epoch{std::chrono::sys_days{std::chrono::year{2026} / 1 / 1}};

// d * ppm / 1'000'000 without overflow for centuries.
constexpr std::int64_t scaled(std::int64_t d, std::int64_t ppm) noexcept {
  return d / 1'000'000 * ppm + d % 1'000'000 * ppm / 1'000'000;
}

}  // namespace

TimePoint SimClock::to_local(TimePoint world) const noexcept {
  const auto passed = (world - anchor_world_).count();
  return anchor_local_ + Duration(passed + scaled(passed, ppm_));
}

TimePoint SimClock::to_world(TimePoint local) const noexcept {
  // Far future: no clock drift matters, and sums must not overflow.
  constexpr auto far = TimePoint(std::chrono::hours(24 * 365 * 100));
  if (local >= far) return far;
  const auto wanted = (local - anchor_local_).count();
  auto guess = anchor_world_ + Duration(wanted - scaled(wanted, ppm_));
  // The inverse to first order is off by ppm squared; walk the rest, from below and without
  // overshooting.
  for (Duration left = local - to_local(guess); left > Duration(0); left = local - to_local(guess))
    guess += std::max(left - Duration(std::abs(scaled(left.count(), ppm_))), Duration(1));
  return guess;
}

TimePoint SimClock::now() const noexcept {
  return to_local(world_.now());
}

WallTime SimClock::wall_now() const noexcept {
  return std::chrono::floor<std::chrono::milliseconds>(wall_epoch + now().time_since_epoch()) +
         wall_offset_;
}

void SimClock::async_wait(
    TimePoint at, boost::asio::any_completion_handler<void(boost::system::error_code)> done) {
  world_.wait(node_, to_world(at), std::move(done));
}

void SimClock::set_drift(int parts_per_million) {
  anchor_local_ = now();
  anchor_world_ = world_.now();
  ppm_ = parts_per_million;
  world_.move_waits(node_);
}

SimWorld::SimWorld(std::uint64_t seed) : seed_(seed), rng_(seed), order_(rng_.fork("order")) {}

SimWorld::~SimWorld() {
  for (std::size_t i = 0; i < nodes_.size(); ++i) drain(NodeId(i));
  // What unwinds on one node may have posted to another.
  for (bool more = true; more;) {
    more = false;
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
      if (idle(NodeId(i))) continue;
      more = true;
      drain(NodeId(i));
    }
  }
  waits_.clear();
  shutdown();
}

SimWorld::Node& SimWorld::at(NodeId node) {
  return *nodes_.at(to_index(node));
}
const SimWorld::Node& SimWorld::at(NodeId node) const {
  return *nodes_.at(to_index(node));
}

NodeId SimWorld::add_node(std::string name) {
  const auto key = NodeId(nodes_.size());
  auto node = std::make_unique<Node>();
  node->name = std::move(name);
  node->clock = std::make_unique<SimClock>(*this, key);
  node->clock->anchor_world_ = now_;
  node->clock->anchor_local_ = now_;
  nodes_.push_back(std::move(node));
  return key;
}

void SimWorld::pause(NodeId node, Duration how_long) {
  at(node).paused_until = std::max(at(node).paused_until, now_ + how_long);
}

void SimWorld::resume(NodeId node) {
  at(node).paused_until = now_;
}

bool SimWorld::idle(NodeId node) const {
  return at(node).ready.empty() &&
         std::ranges::none_of(waits_, [&](const auto& wait) { return wait.second.node == node; });
}

void SimWorld::crash(NodeId node) {
  SPILO_ASSERT(current_ != node, "a node can't crash itself while it runs: schedule the crash");
  at(node).paused_until = now_;
  mix(0xdead0000u + to_index(node));
  drain(node);
}

// Destroying a frame posts the destruction of the frames below it to the executor (Asio), and a
// frame may start a new wait on its way out: so until nothing is left, and not just once.
void SimWorld::drain(NodeId node) {
  while (!idle(node)) {
    std::vector<Wait> waits;
    for (auto wait = waits_.begin(); wait != waits_.end();) {
      if (wait->second.node != node) {
        ++wait;
        continue;
      }
      waits.push_back(std::move(wait->second));
      wait = waits_.erase(wait);
    }
    std::deque<std::unique_ptr<Function>> functions;
    functions.swap(at(node).ready);
    // One by one and in order: the order of destruction of a container's elements is the library's
    // business.
    for (auto& wait : waits) wait.handler = nullptr;
    for (auto& function : functions) function.reset();
  }
}

WallTime SimWorld::wall_now() const noexcept {
  return std::chrono::floor<std::chrono::milliseconds>(wall_epoch + now_.time_since_epoch());
}

bool SimWorld::run_one() {
  std::size_t runnable = 0;
  for (const auto& node : nodes_)
    if (!node->ready.empty() && now_ >= node->paused_until) ++runnable;
  if (runnable == 0) return false;
  auto chosen = order_.below(runnable);
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    auto& node = *nodes_[i];
    if (node.ready.empty() || now_ < node.paused_until || chosen-- > 0) continue;
    const auto function = std::move(node.ready.front());
    node.ready.pop_front();
    ++functions_run_;
    mix(static_cast<std::uint64_t>(now_.time_since_epoch().count()) * 31 + i);
    if (++functions_at_this_instant_ > functions_per_instant_max)
      throw std::runtime_error(fmt::format(
          "{} runs without end at {} ns of virtual time: something spins without waiting",
          node.name,
          now_.time_since_epoch().count()));
    current_ = NodeId(i);
    try {
      function->run();
    } catch (...) {
      current_.reset();
      throw;
    }
    current_.reset();
    return true;
  }
  return false;
}

bool SimWorld::advance() {
  std::optional<TimePoint> next;
  if (!waits_.empty()) next = waits_.begin()->first.at;
  for (const auto& node : nodes_)
    if (!node->ready.empty())
      next = std::min(next.value_or(node->paused_until), node->paused_until);
  if (!next) return false;
  if (*next > now_) functions_at_this_instant_ = 0;
  now_ = std::max(now_, *next);
  // Not "while anything is due": an event that schedules another for the same instant must let the
  // nodes run in between.
  const auto last = sequence_;
  while (!waits_.empty() && waits_.begin()->first.at <= now_ &&
         waits_.begin()->first.sequence < last)
    fire(waits_.begin(), {});
  return true;
}

bool SimWorld::step() {
  return run_one() || advance();
}

void SimWorld::run_until(TimePoint end) {
  for (;;) {
    if (run_one()) continue;
    std::optional<TimePoint> next;
    if (!waits_.empty()) next = waits_.begin()->first.at;
    for (const auto& node : nodes_)
      if (!node->ready.empty())
        next = std::min(next.value_or(node->paused_until), node->paused_until);
    if (!next || *next > end) break;
    advance();
  }
  now_ = std::max(now_, end);
  functions_at_this_instant_ = 0;
}

bool SimWorld::run_until(const std::function<bool()>& condition, Duration at_most) {
  const auto end = now_ + at_most;
  while (!condition()) {
    if (now_ >= end) return false;
    if (run_one()) continue;
    if (!waits_.empty() && waits_.begin()->first.at > end) {
      run_until(end);
      return condition();
    }
    if (!advance()) {
      run_until(end);
      return condition();
    }
  }
  return true;
}

SimWorld::WaitId SimWorld::at(TimePoint when, std::function<void()> event) {
  const WaitId key{std::max(when, now_), sequence_++};
  waits_.emplace(key, Wait{.event = std::move(event)});
  return key;
}

bool SimWorld::cancel(WaitId event) {
  const auto found = waits_.find(event);
  if (found == waits_.end()) return false;
  const auto keep = std::move(found->second);  // destroyed only after it left the map
  waits_.erase(found);
  return true;
}

SimWorld::WaitId SimWorld::wait(NodeId node, TimePoint when, Handler done) {
  // The sequence alone names a wait, because move_waits() may change its time.
  const WaitId key{std::max(when, now_), sequence_++};
  // Ask the erased handler for its slot; the original's slot belongs to Asio's proxy once it is
  // erased.
  auto slot = boost::asio::get_associated_cancellation_slot(done);
  waits_.emplace(
      key, Wait{.node = node, .local = clock(node).to_local(key.at), .handler = std::move(done)});
  if (slot.is_connected())
    slot.assign([this, key](boost::asio::cancellation_type) {
      complete(key, boost::asio::error::operation_aborted);
    });
  return key;
}

bool SimWorld::complete(WaitId wait, boost::system::error_code ec) {
  auto found = waits_.find(wait);
  if (found == waits_.end())
    found = std::ranges::find_if(
        waits_, [&](const auto& other) { return other.first.sequence == wait.sequence; });
  if (found == waits_.end()) return false;
  fire(found, ec);
  return true;
}

void SimWorld::fire(std::map<WaitId, Wait>::iterator wait, boost::system::error_code ec) {
  auto due = std::move(wait->second);
  waits_.erase(wait);
  if (!due.node) {
    mix(static_cast<std::uint64_t>(now_.time_since_epoch().count()) * 31 + 0xe0e0u);
    due.event();
    return;
  }
  auto slot = boost::asio::get_associated_cancellation_slot(due.handler);
  if (slot.is_connected()) slot.clear();
  SimExecutor(*this, *due.node, false).execute([handler = std::move(due.handler), ec]() mutable {
    std::move(handler)(ec);
  });
}

void SimWorld::move_waits(NodeId node) {
  std::vector<std::pair<WaitId, Wait>> moved;
  for (auto wait = waits_.begin(); wait != waits_.end();) {
    if (wait->second.node != node) {
      ++wait;
      continue;
    }
    const WaitId key{std::max(now_, clock(node).to_world(wait->second.local)),
                     wait->first.sequence};
    moved.emplace_back(key, std::move(wait->second));
    wait = waits_.erase(wait);
  }
  for (auto& [key, wait] : moved) waits_.emplace(key, std::move(wait));
}

void SimWorld::trace(std::string_view who, std::string_view line) {
  for (const char c : who) mix(static_cast<unsigned char>(c));
  for (const char c : line) mix(static_cast<unsigned char>(c));
  const auto us =
      std::chrono::duration_cast<std::chrono::microseconds>(now_.time_since_epoch()).count();
  auto text = fmt::format("{:4}.{:06} {:<8} {}", us / 1'000'000, us % 1'000'000, who, line);
  if (trace_sink_) trace_sink_(text);
  lines_.push_back(std::move(text));
  if (lines_.size() > lines_kept_max) lines_.pop_front();
}

void SimWorld::violation(std::string text) {
  trace("CHECKER", text);
  if (violations_.size() < violations_kept_max) violations_.push_back(std::move(text));
}

namespace detail {

boost::asio::awaitable<Waited> wait_for(std::function<void(SimWorld::Handler)> start) {
  // A cancellation that came before this wait will not be signalled again.
  const bool throwing = co_await boost::asio::this_coro::throw_if_cancelled();
  auto state = co_await boost::asio::this_coro::cancellation_state;
  if (state.cancelled() != boost::asio::cancellation_type::none) co_return Waited::cancelled;
  co_await boost::asio::this_coro::throw_if_cancelled(false);
  constexpr auto token = boost::asio::as_tuple(boost::asio::use_awaitable);
  const auto outcome =
      co_await boost::asio::async_initiate<decltype(token), void(boost::system::error_code)>(
          [&start](auto handler) { start(std::move(handler)); }, token);
  co_await boost::asio::this_coro::throw_if_cancelled(throwing);
  co_return std::get<0>(outcome) ? Waited::cancelled : Waited::timed_out;
}

}  // namespace detail
}  // namespace spilo::testing
