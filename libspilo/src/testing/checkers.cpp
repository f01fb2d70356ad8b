#include "spilo/testing/checkers.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "spilo/model/codec.hpp"
#include "spilo/model/keys.hpp"
#include "spilo/runtime/cluster_store.hpp"

namespace spilo::testing {

// ---- SplitBrainChecker
// ---------------------------------------------------------------------------

void SplitBrainChecker::became_writable(SimServer& server) {
  for (const auto& [name, period] : writable_)
    if (truth_.promises_hold())
      truth_.world.violation(
          fmt::format("split brain: {} becomes writable while {} still is", server.name(), name));
  writable_[server.name()] = server.period();
  newest_period_ = server.period();
  newest_ = server.name();
}

void SplitBrainChecker::no_longer_writable(SimServer& server) {
  writable_.erase(server.name());
}

void SplitBrainChecker::acknowledged(SimServer& server, std::uint64_t row) {
  if (!truth_.promises_hold()) return;
  if (server.period() < newest_period_)
    truth_.world.violation(
        fmt::format("split brain: {} acknowledges row {} after {} became writable",
                    server.name(),
                    row,
                    newest_));
  const auto holder = truth_.holder();
  if (!holder.empty() && holder != server.name())
    truth_.world.violation(
        fmt::format("past its lease: {} acknowledges row {} while {} holds the lock",
                    server.name(),
                    row,
                    holder));
}

// ---- TokenChecker
// --------------------------------------------------------------------------------

void TokenChecker::became_writable(SimServer& server) {
  newest_period_ = server.period();
  newest_ = server.name();
}

void TokenChecker::store_changed(const SimServer* holder) {
  if (!truth_.dcs.peek(truth_.scope, keys::term)) newest_period_ = 0;
  const auto name = holder != nullptr ? holder->name() : std::string();
  if (name == last_holder_) return;
  last_holder_ = name;
  if (holder != nullptr && holder->writable() && holder->period() < newest_period_)
    truth_.world.violation(fmt::format(
        "token: {} is granted the lock for the primary that it was, but {} has led since",
        name,
        newest_));
}

// ---- PromotionChecker
// ----------------------------------------------------------------------------

void PromotionChecker::promotion_began(SimServer& server) {
  if (!truth_.promises_hold()) return;
  const auto view = parse_cluster(truth_.dcs.snapshot(truth_.scope), TimePoint{});
  // Creating the cluster comes before there is a lock.
  if (!view.initialize || !is_valid(SystemId(*view.initialize))) return;
  if (SystemId(*view.initialize) != server.data().system_id)
    truth_.world.violation(
        fmt::format("foreign data: {} with system identifier {} is to lead cluster {}",
                    server.name(),
                    server.data().system_id.str(),
                    *view.initialize));
  const auto holder = view.leader ? view.leader->holder.str() : std::string("nobody");
  const bool on_promises = !view.leader && failsafe_.lives_on_promises(server.name());
  if (holder != server.name() && !on_promises)
    truth_.world.violation(
        fmt::format("promotion without the lock: {} while {} holds it", server.name(), holder));
  const auto seen = std::max(view.timeline(), view.term.timeline);
  if (server.data().timeline() < seen)
    truth_.world.violation(
        fmt::format("older timeline: {} is to lead from timeline {}, but the store has seen {}",
                    server.name(),
                    to_int(server.data().timeline()),
                    to_int(seen)));
}

// ---- LostCommitChecker
// ---------------------------------------------------------------------------

void LostCommitChecker::acknowledged(SimServer&, std::uint64_t row) {
  acknowledged_.push_back(row);
  last_ = truth_.world.now();
}

std::uint64_t LostCommitChecker::forget_missing(const SimServer& server, std::uint64_t& example) {
  std::set<std::uint64_t> there;
  for (const auto& record : server.data().wal)
    if (record.row != 0) there.insert(record.row);
  const auto missing = std::erase_if(acknowledged_, [&](std::uint64_t row) {
    if (there.contains(row)) return false;
    example = row;
    return true;
  });
  lost_ += missing;
  return missing;
}

void LostCommitChecker::expect_all(const SimServer& primary) {
  std::uint64_t example = 0;
  const auto missing = forget_missing(primary, example);
  if (missing > 0 && none_may_be_lost_)
    truth_.world.violation(
        fmt::format("lost commits: {} leads without {} acknowledged rows, row {} among them",
                    primary.name(),
                    missing,
                    example));
  expect_all_ = true;
}

void LostCommitChecker::became_writable(SimServer& server) {
  std::uint64_t example = 0;
  const auto missing = forget_missing(server, example);
  if (missing > 0 && (none_may_be_lost_ || expect_all_))
    truth_.world.violation(fmt::format(
        "lost commits: {} became the primary without {} acknowledged rows, row {} among them ({})",
        server.name(),
        missing,
        example,
        none_may_be_lost_ ? "every commit waited for all standbys" : "in a switchover"));
  expect_all_ = false;
}

// ---- DivergenceChecker
// ---------------------------------------------------------------------------

void DivergenceChecker::diverged_unnoticed(SimServer& standby, SimServer& upstream) {
  if (!told_.emplace(standby.name(), upstream.name()).second) return;
  truth_.world.violation(
      fmt::format("silent divergence: {} at {} on timeline {} follows {}, whose log of the same "
                  "timeline differs",
                  standby.name(),
                  to_text(standby.data().end()),
                  to_int(standby.data().timeline()),
                  upstream.name()));
}

// ---- LeaseChecker
// --------------------------------------------------------------------------------

void LeaseChecker::after_step(NodeId node, const ha::Machine& machine, const SimGuard& guard) {
  if (!truth_.promises_hold()) return;
  const auto& facts = machine.facts();
  if (facts.session.empty()) return;
  const auto expires = truth_.dcs.session_expires(facts.session);
  // A session that is gone has ended in time, or its end is among the broken promises.
  if (!expires) return;
  const auto& clock = truth_.world.clock(node);
  const auto believed = clock.to_world(facts.session_valid_until);
  if (believed > *expires + allowance_)
    truth_.world.violation(fmt::format("lease: {} believes session {} until {} us after its end",
                                       truth_.world.name(node),
                                       facts.session.str(),
                                       (believed - *expires).count() / 1000));
  const auto deadline = guard.deadline();
  // The session that the lock is bound to, which may still be that of the agent's last life.
  const auto lock = truth_.dcs.peek(truth_.scope, keys::leader);
  const bool ours = lock && lock->value == truth_.world.name(node);
  const auto bound = ours ? truth_.dcs.session_expires(lock->owner) : expires;
  if (!bound || !guard.server_lives()) return;
  // What was promised holds, also when the machine needs it no more.
  auto& promised = promised_[node];
  promised = std::max(promised, machine.memory().failsafe_until);
  if (!deadline || promised >= *deadline || promised > facts.session_valid_until) return;
  const auto ends = clock.to_world(*deadline) + guard.kill_max;
  if (ends > *bound + allowance_ && machine.memory().reclaim_until < *deadline)
    truth_.world.violation(
        fmt::format("guard: the server of {} may live {} us longer than session {}",
                    truth_.world.name(node),
                    (ends - *bound).count() / 1000,
                    ours ? lock->owner.str() : facts.session.str()));
}

// ---- FailsafeChecker
// ------------------------------------------------------------------------------

void FailsafeChecker::agent_started(const NodeName& node) {
  beliefs_[node] = Belief{.started = truth_.world.now()};
}

void FailsafeChecker::after_step(NodeId node, const ha::Machine& machine) {
  const auto& memory = machine.memory();
  const auto& clock = truth_.world.clock(node);
  auto& mine = beliefs_[machine.identity().node];
  mine.promised_to = memory.promise.leader;
  mine.promised_until = clock.to_world(memory.promise.until);
  const bool news = clock.to_world(memory.failsafe_until) != mine.lives_until;
  mine.lives_until = clock.to_world(memory.failsafe_until);
  if (!news || mine.lives_until <= truth_.world.now() || !machine.facts().cluster ||
      !machine.facts().cluster->failsafe)
    return;
  const auto& ttl = ha::timing(machine.identity(), machine.facts()).ttl;
  for (const auto& [name, url] : *machine.facts().cluster->failsafe) {
    if (name == machine.identity().node) continue;
    const auto& other = beliefs_[name];
    if (other.started + ttl + allowance_ >= mine.lives_until) continue;
    if (other.promised_to != machine.identity().node ||
        other.promised_until + allowance_ < mine.lives_until)
      truth_.world.violation(fmt::format(
          "failsafe: {} counts on a promise of {} for {} us more than that has promised {}",
          machine.identity().node.str(),
          name.str(),
          (mine.lives_until - other.promised_until).count() / 1000,
          other.promised_to.str()));
  }
}

bool FailsafeChecker::lives_on_promises(const std::string& name) const {
  const auto found = beliefs_.find(NodeName(name));
  return found != beliefs_.end() && truth_.world.now() < found->second.lives_until;
}

// ---- RequestChecker
// ------------------------------------------------------------------------------

std::uint64_t RequestChecker::asked(NodeId node) {
  requests_.push_back({node, 0, false});
  return requests_.size() - 1;
}

void RequestChecker::answered(std::uint64_t request, int status) {
  auto& one = requests_.at(request);
  ++answered_;
  if (++one.answers > 1)
    truth_.world.violation(
        fmt::format("request {} was answered {} times, now with {}", request, one.answers, status));
}

void RequestChecker::agent_ended(NodeId node) {
  for (auto& one : requests_)
    if (one.node == node && one.answers == 0) one.void_ = true;
}

std::size_t RequestChecker::open() const noexcept {
  return static_cast<std::size_t>(std::ranges::count_if(
      requests_, [](const Request& one) { return one.answers == 0 && !one.void_; }));
}

void RequestChecker::check_all_answered() {
  for (std::size_t i = 0; i < requests_.size(); ++i)
    if (requests_[i].answers == 0 && !requests_[i].void_)
      truth_.world.violation(fmt::format(
          "request {} to {} was never answered", i, truth_.world.name(requests_[i].node)));
}

}  // namespace spilo::testing
