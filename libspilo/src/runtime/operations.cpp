#include "spilo/runtime/operations.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/deferred.hpp>
#include <boost/asio/experimental/parallel_group.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cctype>
#include <exception>

#include "spilo/model/codec.hpp"
#include "spilo/model/keys.hpp"

namespace spilo {
namespace {

namespace asio = boost::asio;
using std::chrono::seconds;

// One operation on the store, when nothing tells how long it may take.
constexpr Duration store_patience = seconds(5);
// After a failed look at the store: it may refuse at once, and asking again at once helps nobody.
constexpr Duration look_again = std::chrono::milliseconds(200);

const DynamicConfig& config_of(const ClusterView& view) {
  static const DynamicConfig defaults;
  return view.config ? *view.config : defaults;
}

// How long the contract waits for a change of leader.
Duration patience_of(const ClusterView& view) {
  return 2 * std::max<Duration>(seconds(10), config_of(view).timing.loop_wait);
}

bool same_name(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](unsigned char x, unsigned char y) {
    return std::tolower(x) == std::tolower(y);
  });
}

bool is_sync_standby(const ClusterView& view, const NodeName& name) {
  if (view.sync.leader.empty()) return false;
  return std::any_of(view.sync.voters.begin(), view.sync.voters.end(), [&](const NodeName& voter) {
    return same_name(voter.str(), name.str());
  });
}

Outcome store_silent(std::string_view what, const Error& error) {
  return Outcome(503, fmt::format("{}: the store does not answer: {}", what, error.text()));
}

// Why this one can't be promoted; empty when it can.
std::string limitation(const PeerStatus& status) {
  if (!status.reachable)
    return fmt::format("{}: not reachable{}{}",
                       status.node.str(),
                       status.problem.empty() ? "" : ", ",
                       status.problem);
  if (status.nofailover) return status.node.str() + ": tagged nofailover";
  if (status.watchdog_failed) return status.node.str() + ": its watchdog does not work";
  return {};
}

// Ends a group of questions as soon as one answer is good enough.
struct GoodAnswer {
  asio::cancellation_type operator()(const std::exception_ptr& failure,
                                     const Result<PeerStatus>& answer) const {
    const bool good = !failure && answer && limitation(*answer).empty();
    return good ? asio::cancellation_type::terminal : asio::cancellation_type::none;
  }
};

std::vector<Violation> added(const std::vector<Violation>& before, std::vector<Violation> after) {
  std::erase_if(after, [&](const Violation& violation) {
    return std::find(before.begin(), before.end(), violation) != before.end();
  });
  return after;
}

Outcome invalid_config(std::vector<Violation> violations) {
  std::string text = "the configuration was not changed:";
  for (const auto& violation : violations)
    text += fmt::format("\n{}: {}", violation.path, violation.message);
  Outcome out(422, std::move(text));
  out.violations = std::move(violations);
  return out;
}

}  // namespace

// A change of leader on its way through the steps.
struct Operations::Request {
  std::string_view action() const { return kind == Kind::switchover ? "switchover" : "failover"; }
  std::string_view title() const { return kind == Kind::switchover ? "Switchover" : "Failover"; }
  bool settled_on(const ClusterView& now) const {
    return now.leader && now.leader->holder != old_leader;
  }
  void saw(std::string name, TimePoint at) {
    if (!phases.empty() && phases.back().name == name) return;
    phases.push_back(OutcomePhase{std::move(name), at - started});
  }

  Kind kind = Kind::switchover;
  NodeName leader;
  NodeName candidate;
  std::string scheduled_text;
  std::optional<WallTime> scheduled_at;
  ClusterView view;     // as it was when the request was checked
  NodeName old_leader;  // who held the lock then
  dcs::Version written;
  std::uint64_t record = 0;  // the board's last decision before it
  TimePoint started{};
  std::vector<OutcomePhase> phases;
};

std::optional<Outcome> parse_schedule(std::string_view text,
                                      WallTime now,
                                      std::string_view action,
                                      WallTime& at) {
  const auto time = codec::parse_wall_time(text);
  if (!time) {
    // A time without a zone is the common slip, and gets its own answer.
    if (codec::parse_wall_time(std::string(text) + "Z"))
      return Outcome(400,
                     fmt::format("Timezone information is mandatory for the scheduled {}", action));
    return Outcome(422,
                   "Unable to parse scheduled timestamp. It should be in an unambiguous format, "
                   "e.g. ISO 8601");
  }
  if (*time < now) return Outcome(422, fmt::format("Cannot schedule {} in the past", action));
  at = *time;
  return std::nullopt;
}

TimePoint Operations::soon() const {
  return store_.clock().now() + store_patience;
}

std::uint64_t Operations::last_record() const noexcept {
  return board_ == nullptr || board_->records().empty() ? 0 : board_->records().back().sequence;
}

// What this process's own node said about the request, if it is the one that turned it down.
std::string Operations::explanation(std::uint64_t since) const {
  if (board_ == nullptr) return {};
  const auto& records = board_->records();
  for (auto at = records.rbegin(); at != records.rend() && at->sequence > since; ++at)
    if (at->rule.find("switchover") != std::string::npos) return ": " + at->sentence;
  return {};
}

asio::awaitable<Outcome> Operations::switchover(NodeName leader,
                                                NodeName candidate,
                                                std::string scheduled_at) {
  return change_leader(
      Kind::switchover, std::move(leader), std::move(candidate), std::move(scheduled_at));
}

asio::awaitable<Outcome> Operations::failover(NodeName candidate,
                                              NodeName leader,
                                              std::string scheduled_at) {
  return change_leader(
      Kind::failover, std::move(leader), std::move(candidate), std::move(scheduled_at));
}

asio::awaitable<Outcome> Operations::change_leader(Kind kind,
                                                   NodeName leader,
                                                   NodeName candidate,
                                                   std::string scheduled_at) {
  co_await asio::this_coro::throw_if_cancelled(false);
  Request request;
  request.kind = kind;
  request.leader = std::move(leader);
  request.candidate = std::move(candidate);
  request.scheduled_text = std::move(scheduled_at);
  request.started = store_.clock().now();
  request.record = last_record();
  if (kind == Kind::failover && request.candidate.empty())
    co_return Outcome(400, "Failover could be performed only to a specific candidate");
  if (kind == Kind::switchover && request.leader.empty())
    co_return Outcome(400, "Switchover could be performed only from a specific leader");

  auto view = co_await store_.load(dcs::Freshness::linearizable, soon());
  if (!view)
    co_return store_silent(std::string(request.action()) + " was not requested", view.error());
  request.view = std::move(*view);
  if (request.view.leader) request.old_leader = request.view.leader->holder;

  auto refused = co_await objection(request);
  if (refused) co_return std::move(*refused);
  refused = co_await write_request(request);
  if (refused) co_return std::move(*refused);
  request.saw("requested", store_.clock().now());
  if (request.scheduled_at) co_return Outcome(202, "Switchover scheduled");
  co_return co_await watch_request(request);
}

// The checks of contract 5.8, in its order. Nothing when the request may be written.
asio::awaitable<std::optional<Outcome>> Operations::objection(Request& request) {
  const ClusterView& view = request.view;
  const bool paused = config_of(view).pause;
  std::optional<Outcome> out;
  if (!request.scheduled_text.empty()) {
    if (request.kind == Kind::failover) co_return Outcome(400, "Failover can't be scheduled");
    if (paused) co_return Outcome(400, "Can't schedule switchover in the paused state");
    WallTime at{};
    out = parse_schedule(request.scheduled_text, store_.clock().wall_now(), "switchover", at);
    if (out) co_return out;
    request.scheduled_at = at;
  }
  if (paused && request.candidate.empty())
    co_return Outcome(400, "Switchover is possible only to a specific candidate in a paused state");
  // Somebody who names the leader wants its consent.
  if (!request.leader.empty()) request.kind = Kind::switchover;
  if (request.leader == request.candidate)
    co_return Outcome(400, "Switchover target and source are the same");
  if (request.scheduled_at) co_return out;

  if (!request.leader.empty() && request.old_leader != request.leader)
    co_return Outcome(412, "leader name does not match");
  const bool priority_sync = config_of(view).synchronous_mode && !config_of(view).quorum_mode;
  std::vector<Member> candidates;
  if (!request.candidate.empty()) {
    if (request.kind == Kind::switchover && priority_sync &&
        !is_sync_standby(view, request.candidate))
      co_return Outcome(412, "candidate name does not match with sync_standby");
    const auto* member = view.member(request.candidate);
    if (member == nullptr) co_return Outcome(412, "candidate does not exists");
    if (request.candidate == request.old_leader)
      co_return Outcome(412, fmt::format("{} is the leader already", request.candidate.str()));
    candidates.push_back(*member);
  } else {
    for (const auto& member : view.members) {
      if (member.name == request.old_leader || member.api_url.empty()) continue;
      if (!priority_sync || is_sync_standby(view, member.name)) candidates.push_back(member);
    }
    if (candidates.empty())
      co_return Outcome(412,
                        fmt::format("{} is not possible: {}",
                                    request.action(),
                                    priority_sync ? "can not find sync_standby"
                                                  : "cluster does not have members except leader"));
  }
  const std::string problems = co_await no_good_candidate(std::move(candidates));
  if (!problems.empty())
    co_return Outcome(412,
                      fmt::format("{} is not possible: no good candidates have been found ({})",
                                  request.action(),
                                  problems));
  co_return out;
}

// Asks all of them at once and is content with the first that can lead: one that hangs delays
// nothing. Empty when there is one, otherwise what is wrong with each.
asio::awaitable<std::string> Operations::no_good_candidate(std::vector<Member> members) {
  const auto executor = co_await asio::this_coro::executor;
  const TimePoint deadline = store_.clock().now() + seconds(3);
  using Question = decltype(asio::co_spawn(
      executor, peers_.probe(NodeName(), std::string(), deadline), asio::deferred));
  std::vector<Question> questions;
  questions.reserve(members.size());
  for (const auto& member : members)
    questions.push_back(asio::co_spawn(
        executor, peers_.probe(member.name, member.api_url, deadline), asio::deferred));
  auto group = asio::experimental::make_parallel_group(std::move(questions));
  auto outcome = co_await group.async_wait(GoodAnswer(), asio::use_awaitable);
  auto& failures = std::get<1>(outcome);
  auto& answers = std::get<2>(outcome);
  std::string problems;
  for (std::size_t i = 0; i < answers.size(); ++i) {
    if (failures[i]) std::rethrow_exception(failures[i]);
    const std::string problem =
        answers[i] ? limitation(*answers[i])
                   : fmt::format("{}: {}", members[i].name.str(), answers[i].error().text());
    if (problem.empty()) co_return std::string();
    problems += (problems.empty() ? "" : "; ") + problem;
  }
  co_return problems;
}

asio::awaitable<std::optional<Outcome>> Operations::write_request(Request& request) {
  FailoverRequest value;
  value.leader = request.leader;
  value.candidate = request.candidate;
  value.scheduled_at = request.scheduled_at;
  std::string text = codec::dump_failover(value);
  const std::optional<dcs::Version> unconditional;
  const std::optional<LeaderKey> no_fence;
  auto written = co_await store_.write(keys::failover, text, unconditional, no_fence, soon());
  std::optional<Outcome> out;
  if (written) {
    request.written = *written;
    co_return out;
  }
  const Error error = written.error();
  if (!error.is(errc::ambiguous))
    co_return Outcome(503, fmt::format("failed to write failover key into DCS: {}", error.text()));
  // It may have been done: the store knows, as soon as it answers again.
  const TimePoint deadline = request.started + patience_of(request.view);
  for (bool go_on = true; go_on;) {
    auto view = co_await store_.load(dcs::Freshness::linearizable, std::min(deadline, soon()));
    if (view && (codec::dump_failover(view->failover) == text || request.settled_on(*view))) {
      request.written = view->failover.version;
      co_return out;
    }
    if (view)
      co_return Outcome(503,
                        fmt::format("failed to write failover key into DCS: {}", error.text()));
    const TimePoint next = store_.clock().now() + look_again;
    go_on = next < deadline && co_await sleep_until(store_.clock(), next);
  }
  co_return Outcome(503,
                    fmt::format("{} status unknown: whether the failover key was written into DCS "
                                "is not known; operation may still be in progress: {}",
                                request.title(),
                                error.text()));
}

// Waits until something may have changed; false at the deadline or when cancelled. A connection
// that died unnoticed brings no change, so it is worth a look now and then.
asio::awaitable<bool> Operations::wait_for_change(dcs::Index seen, TimePoint deadline) {
  auto changed = co_await store_.store().changed_since(seen, std::min(deadline, soon()));
  if (changed) co_return true;
  const TimePoint now = store_.clock().now();
  if (changed.error().is(errc::cancelled) || now >= deadline) co_return false;
  if (changed.error().is(errc::timed_out)) co_return true;
  co_return co_await sleep_until(store_.clock(), std::min(deadline, now + look_again));
}

asio::awaitable<Outcome> Operations::watch_request(Request& request) {
  const Duration patience = patience_of(request.view);
  const TimePoint deadline = request.started + patience;
  dcs::Index seen = request.view.index;
  for (;;) {
    const bool go_on = co_await wait_for_change(seen, deadline);
    if (!go_on) break;
    auto view = co_await store_.load(dcs::Freshness::linearizable, std::min(deadline, soon()));
    if (!view) continue;
    seen = view->index;
    if (!view->leader) request.saw("lock released", store_.clock().now());
    if (request.settled_on(*view)) {
      const NodeName& winner = view->leader->holder;
      request.saw("new leader " + winner.str(), store_.clock().now());
      const bool switched = request.kind == Kind::switchover;
      Outcome out(200,
                  request.candidate.empty() || request.candidate == winner
                      ? fmt::format("Successfully {} over to \"{}\"",
                                    switched ? "switched" : "failed",
                                    winner.str())
                      : fmt::format("{} over to \"{}\" instead of \"{}\"",
                                    switched ? "Switched" : "Failed",
                                    winner.str(),
                                    request.candidate.str()));
      out.leader = winner;
      out.phases = std::move(request.phases);
      co_return out;
    }
    // While nobody leads the key may go before the lock comes.
    if (!view->leader || view->failover.version == request.written) continue;
    Outcome out(503, fmt::format("{} failed", request.title()));
    out.text += view->failover.requested() ? ": another request has replaced it"
                                           : explanation(request.record);
    out.leader = view->leader->holder;
    out.phases = std::move(request.phases);
    co_return out;
  }
  Outcome out(503,
              fmt::format("{} status unknown after {} seconds; operation may still be in progress",
                          request.title(),
                          std::chrono::duration_cast<seconds>(patience).count()));
  out.phases = std::move(request.phases);
  co_return out;
}

asio::awaitable<Outcome> Operations::cancel_switchover() {
  co_await asio::this_coro::throw_if_cancelled(false);
  auto view = co_await store_.load(dcs::Freshness::linearizable, soon());
  if (!view) co_return store_silent("the scheduled switchover was not deleted", view.error());
  if (!view->failover.scheduled_at) co_return Outcome(404, "no switchover is scheduled");
  const std::optional<dcs::Version> at = view->failover.version;
  const std::optional<LeaderKey> no_fence;
  auto written = co_await store_.write(keys::failover, "{}", at, no_fence, soon());
  if (written) co_return Outcome(200, "scheduled switchover deleted");
  if (written.error().is(errc::conflict))
    co_return Outcome(409, "the switchover was changed or carried out meanwhile; look again");
  co_return store_silent(written.error().is(errc::ambiguous)
                             ? "whether the scheduled switchover was deleted is not known"
                             : "the scheduled switchover was not deleted",
                         written.error());
}

asio::awaitable<Outcome> Operations::pause(bool wait) {
  return set_pause(true, wait);
}
asio::awaitable<Outcome> Operations::resume(bool wait) {
  return set_pause(false, wait);
}

asio::awaitable<Outcome> Operations::set_pause(bool paused, bool wait) {
  co_await asio::this_coro::throw_if_cancelled(false);
  auto view = co_await store_.load(dcs::Freshness::linearizable, soon());
  if (!view)
    co_return store_silent(
        paused ? "cluster management was not paused" : "cluster management was not resumed",
        view.error());
  if (view->config && view->config->pause == paused)
    co_return Outcome(409, paused ? "Cluster is already paused" : "Cluster is not paused");
  auto patch = json::Value::object();
  patch.set("pause", paused ? json::Value(true) : json::Value());
  Outcome out = co_await patch_config(std::move(patch));
  if (!out.ok()) co_return out;
  const TimePoint deadline = store_.clock().now() + config_of(*view).timing.loop_wait + seconds(1);
  if (!wait)
    co_return Outcome(200,
                      paused ? "cluster management is paused" : "cluster management is resumed");
  co_return co_await await_pause(paused, deadline);
}

asio::awaitable<Outcome> Operations::await_pause(bool paused, TimePoint deadline) {
  const std::string done =
      paused ? "cluster management is paused" : "cluster management is resumed";
  std::string missing;
  dcs::Index seen;
  for (;;) {
    auto view = co_await store_.load(dcs::Freshness::linearizable, std::min(deadline, soon()));
    if (view) {
      seen = view->index;
      missing.clear();
      for (const auto& member : view->members)
        if (member.pause != paused) missing += (missing.empty() ? "" : ", ") + member.name.str();
      if (missing.empty()) co_return Outcome(200, done);
    }
    const bool go_on = co_await wait_for_change(seen, deadline);
    if (!go_on) break;
  }
  co_return Outcome(202,
                    missing.empty() ? done + "; the store stopped answering before all nodes did"
                                    : fmt::format("{}; not yet recognized by {}", done, missing));
}

asio::awaitable<Outcome> Operations::write_config(json::Value document, dcs::Version at) {
  std::string text = json::dump(document);
  const std::optional<dcs::Version> condition = at;
  const std::optional<LeaderKey> no_fence;
  auto written = co_await store_.write(keys::config, text, condition, no_fence, soon());
  bool done = written.has_value();
  if (!done && written.error().is(errc::ambiguous)) {
    auto view = co_await store_.load(dcs::Freshness::linearizable, soon());
    done = view && view->config && view->config->document == document;
  }
  if (done) {
    Outcome out(200, "the configuration was changed");
    out.document = std::move(document);
    co_return out;
  }
  if (written.error().is(errc::conflict))
    co_return Outcome(409,
                      "the configuration was not changed: somebody else changed it meanwhile; look "
                      "at it and try again");
  co_return store_silent(written.error().is(errc::ambiguous)
                             ? "whether the configuration was changed is not known"
                             : "the configuration was not changed",
                         written.error());
}

asio::awaitable<Outcome> Operations::patch_config(json::Value patch) {
  co_await asio::this_coro::throw_if_cancelled(false);
  if (!patch.is_object())
    co_return Outcome(400, "the configuration was not changed: a patch is a JSON object");
  auto view = co_await store_.load(dcs::Freshness::linearizable, soon());
  if (!view) co_return store_silent("the configuration was not changed", view.error());
  if (!view->config)
    co_return Outcome(503,
                      "the configuration was not changed: the store has no usable configuration to "
                      "merge into; replace it as a whole (PUT /config)");
  json::Value document = view->config->document;
  if (!json::merge_patch(document, patch)) {
    Outcome out(200, "nothing to change");
    out.document = std::move(document);
    co_return out;
  }
  // What was wrong before must not stand in the way of an unrelated change, such as a pause.
  auto violations =
      added(validate_dynamic_config(view->config->document), validate_dynamic_config(document));
  if (!violations.empty()) co_return invalid_config(std::move(violations));
  co_return co_await write_config(std::move(document), view->config_version);
}

asio::awaitable<Outcome> Operations::replace_config(json::Value document) {
  co_await asio::this_coro::throw_if_cancelled(false);
  if (!document.is_object())
    co_return Outcome(400, "the configuration was not changed: it is a JSON object");
  auto violations = validate_dynamic_config(document);
  if (!violations.empty()) co_return invalid_config(std::move(violations));
  auto view = co_await store_.load(dcs::Freshness::linearizable, soon());
  if (!view) co_return store_silent("the configuration was not changed", view.error());
  if (view->config && view->config->document == document) {
    Outcome out(200, "nothing to change");
    out.document = std::move(document);
    co_return out;
  }
  co_return co_await write_config(std::move(document), view->config_version);
}

}  // namespace spilo
