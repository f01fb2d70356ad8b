// A store that does not answer: the members' promise stands in for the lease (failsafe mode,
// contract 3.9).
#include "plan.hpp"

namespace spilo::ha {
namespace {

// A store that takes renewals but can't be read has no authority either: it may have lost what it had.
bool store_speaks(const Plan& plan) {
  return plan.f.store_answers && plan.f.read_failed_at == TimePoint{};
}

// Whose promises it takes: the members of the list that stands in the store, and of those that may stand
// there by now.
std::map<NodeName, std::string> promisers(const Plan& plan) {
  auto all = *plan.cluster->failsafe;
  for (const auto& list : plan.mem.failsafe_offered)
    for (const auto& [name, url] : list) all[name] = url;
  return all;
}

// May our lease be replaced by promises: we lead, we are listed, and the store is the only thing
// that is missing.
bool may_ask(Plan& plan) {
  if (!plan.config.failsafe_mode || plan.paused || !plan.writable || plan.f.stop_requested)
    return false;
  if (plan.cluster == nullptr || !plan.lock_mine) return false;
  // Granted in this life of the agent: a write of the one before may still be on its way, until our own grant
  // has made an end of it.
  const bool granted_to_us = plan.mem.last_term.number == plan.cluster->term.number ||
                             plan.cluster->leader->session == plan.f.session;
  if (!granted_to_us) return false;
  if (store_speaks(plan)) {
    // Less is left of the lease than there ever is while renewals are answered (they come every ttl/3, and ZooKeeper's
    // last two thirds): whatever holds the answer back, it is time to ask the others.
    const auto overdue = plan.f.session_valid_until - plan.lease_length / 4;
    if (!plan.lock_held) return false;
    plan.wake_at(overdue);
    if (plan.now < overdue) return false;
  }
  const auto listed = [&](const auto& list) { return list.contains(plan.id.node); };
  return plan.cluster->failsafe && listed(*plan.cluster->failsafe) &&
         std::ranges::all_of(plan.mem.failsafe_offered, listed);
}

void evaluate(Plan& plan) {
  for (const auto& [name, url] : promisers(plan)) {
    if (name == plan.id.node) continue;
    const auto answer = plan.f.failsafe_answers.find(name);
    if (answer == plan.f.failsafe_answers.end() || !answer->second.accepted) return;
  }
  // The promise of each counts from before it was asked for, and for what it was asked for: a ttl that
  // was raised since then was promised by nobody.
  plan.mem.failsafe_until = plan.mem.failsafe_asked_at + plan.mem.failsafe_asked_ttl;
  plan.mem.failsafe_asked_at = TimePoint{};
}

}  // namespace

void ask_failsafe(Plan& plan) {
  if (!may_ask(plan)) {
    // A round that is open stays answerable until the store is back; then the lease counts again.
    if (store_speaks(plan)) plan.mem.failsafe_asked_at = TimePoint{};
    return;
  }
  if (plan.mem.failsafe_asked_at != TimePoint{}) evaluate(plan);
  const auto safe = safe_until(plan.id, plan.f, plan.mem);
  plan.deadline = guard_deadline(plan.id, plan.f, plan.mem);
  // Renewed as early as a lease is: a store that comes back empty finds two thirds of a ttl left in which
  // the lock can be taken back, while it may be too busy to grant a session at once.
  const auto begin = safe - plan.t.ttl * 2 / 3;
  if (plan.now < begin) {
    plan.wake_at(begin);
    return;
  }
  // A member that did not answer is asked again: the round is repeated as a whole, so that all
  // promises count from one time.
  const auto again = plan.mem.failsafe_asked_at + std::clamp<Duration>(plan.t.ttl / 20, 200ms, 1s);
  if (plan.mem.failsafe_asked_at != TimePoint{} && plan.now < again) {
    plan.wake_at(again);
    return;
  }
  auto members = promisers(plan);
  members.erase(plan.id.node);
  plan.mem.failsafe_asked_at = plan.now;
  plan.mem.failsafe_asked_ttl = plan.t.ttl;
  if (members.empty()) {
    plan.mem.failsafe_until = plan.now + plan.t.ttl;
    plan.mem.failsafe_asked_at = TimePoint{};
    plan.deadline = guard_deadline(plan.id, plan.f, plan.mem);
    plan.wake_at(plan.now + plan.t.ttl / 3);
    return;
  }
  plan.wake_at(plan.now + std::clamp<Duration>(plan.t.ttl / 20, 200ms, 1s));
  plan.emit(AskFailsafe{.members = std::move(members), .asked_at = plan.now, .ttl = plan.t.ttl});
}

void answer_failsafe(Plan& plan) {
  for (const auto& question : plan.f.failsafe_questions) {
    // Only who neither leads nor is taking the lock just now can promise to leave it alone.
    const bool leads = plan.writable || plan.lock_mine || plan.busy(InFlight::acquire);
    plan.reply(question.request, leads ? 500 : 200, leads ? "Running as a leader" : "Accepted");
    if (leads) continue;
    auto& promise = plan.mem.promise;
    promise.mixed =
        plan.now < promise.until && (promise.mixed || promise.leader != question.leader);
    promise.leader = question.leader;
    promise.given = plan.now;
    // The leader may know of a longer ttl than we have read: it counts on that one. What was promised
    // before stays promised.
    promise.until = std::max(promise.until, plan.now + std::max(plan.t.ttl, question.ttl));
    promise.term = plan.cluster != nullptr ? plan.cluster->term.number : 0;
  }
}

}  // namespace spilo::ha
