// Stores that are wrong in one way each, by what they do to a right one: to show that the suite
// finds it. Each is a mistake that adapters really have.
#pragma once

#include <fcntl.h>

#include <algorithm>
#include <array>
#include <memory>
#include <string_view>
#include <utility>

#include "spilo/ports/clock.hpp"
#include "spilo/ports/dcs.hpp"

namespace example {

using namespace std::chrono_literals;
using spilo::Async;
using spilo::Duration;
using spilo::errc;
using spilo::Error;
using spilo::TimePoint;
namespace dcs = spilo::dcs;

enum class Mistake {
  none,
  ignores_version,
  ignores_absent,
  half_transactions,
  lease_from_answer,
  never_binds,
  hides_lost_session,
  forgets_changes,
  calls_done_certain,
  ignores_deadline,
  leaks_descriptors,
};

struct Mutation {
  std::string_view name;
  Mistake mistake;
  std::string_view found_by;  // the case that must fail
  // Reads and renewals are heard so much later than they were answered, as over a network. Where
  // there is a delay, the store without the mistake is run with it too, and must pass.
  Duration delay{};
};
constexpr std::array mutations = {
    Mutation{"ignores_version", Mistake::ignores_version, "compare_and_set"},
    Mutation{"ignores_absent", Mistake::ignores_absent, "absent_wins_once"},
    Mutation{"half_transactions", Mistake::half_transactions, "all_or_nothing"},
    Mutation{"lease_from_answer", Mistake::lease_from_answer, "lease_rule", 150ms},
    Mutation{"never_binds", Mistake::never_binds, "session_keys"},
    Mutation{"hides_lost_session", Mistake::hides_lost_session, "lost_session"},
    Mutation{"forgets_changes", Mistake::forgets_changes, "nothing_is_missed", 3ms},
    Mutation{"calls_done_certain", Mistake::calls_done_certain, "past_deadline"},
    Mutation{"ignores_deadline", Mistake::ignores_deadline, "frozen_server"},
    Mutation{"leaks_descriptors", Mistake::leaks_descriptors, "no_leaks"},
};

class MutantStore final : public dcs::Store {
 public:
  MutantStore(spilo::Clock& clock,
              std::unique_ptr<dcs::Store> right,
              Mistake mistake,
              Duration delay)
      : clock_(clock), right_(std::move(right)), mistake_(mistake), delay_(delay) {}

  dcs::Limits limits() const noexcept override { return right_->limits(); }

  Async<dcs::Snapshot> read(dcs::Freshness freshness, TimePoint deadline) override {
    // Not with each: who runs this may have a thousand, and the test needs some too.
    if (mistake_ == Mistake::leaks_descriptors && ++reads_ % 16 == 0)
      ::open("/dev/null", O_RDONLY | O_CLOEXEC);
    auto snapshot = co_await right_->read(freshness, later(deadline));
    co_await answer_travels(deadline);
    co_return snapshot;
  }

  Async<dcs::Committed> commit(dcs::Transaction transaction, TimePoint deadline) override {
    if (mistake_ == Mistake::calls_done_certain && clock_.now() >= deadline) {
      const auto enough = clock_.now() + 10s;
      auto done = co_await right_->commit(std::move(transaction), enough);
      co_return Error(errc::unavailable, "too late, nothing was done (which is not true)");
    }
    if (mistake_ == Mistake::half_transactions) {
      auto done = co_await one_by_one(std::move(transaction), deadline);
      co_return done;
    }
    auto altered = alter(transaction);
    auto done = co_await right_->commit(std::move(altered), later(deadline));
    co_return done;
  }

  Async<dcs::Lease> renew(Duration ttl, TimePoint deadline) override {
    auto lease = co_await right_->renew(ttl, later(deadline));
    if (mistake_ == Mistake::hides_lost_session && lease.has_error() &&
        lease.error().is(errc::session_lost))
      lease = co_await right_->renew(ttl, deadline);
    co_await answer_travels(deadline);
    if (mistake_ == Mistake::lease_from_answer && lease.has_value())
      lease->valid_until = clock_.now() + ttl;
    co_return lease;
  }

  Async<void> end_session(TimePoint deadline) override {
    auto ended = co_await right_->end_session(later(deadline));
    co_return ended;
  }

  Async<dcs::Index> changed_since(dcs::Index seen, TimePoint deadline) override {
    if (mistake_ == Mistake::forgets_changes) {
      // From now on, whatever the caller has seen.
      auto now = co_await right_->read(dcs::Freshness::linearizable, deadline);
      if (now.has_value()) seen = now->index();
    }
    auto changed = co_await right_->changed_since(seen, later(deadline));
    co_return changed;
  }

 private:
  TimePoint later(TimePoint deadline) const {
    return mistake_ == Mistake::ignores_deadline ? deadline + 2s : deadline;
  }
  boost::asio::awaitable<void> answer_travels(TimePoint deadline) {
    if (delay_ == Duration{}) co_return;
    const auto at = std::min(deadline, clock_.now() + delay_);
    co_await spilo::sleep_until(clock_, at);
  }

  dcs::Transaction alter(const dcs::Transaction& transaction) const {
    using Kind = dcs::Condition::Kind;
    dcs::Transaction out;
    for (const auto& one : transaction.requirements()) {
      const auto kind = one.condition.kind();
      if (mistake_ == Mistake::ignores_version && kind == Kind::version) continue;
      if (mistake_ == Mistake::ignores_absent && kind == Kind::absent) continue;
      out.require(one.key, one.condition);
    }
    for (const auto& one : transaction.changes()) {
      const bool unbound = mistake_ == Mistake::never_binds;
      if (one.value) out.put(one.key, *one.value, unbound ? dcs::Binding::permanent : one.binding);
      if (!one.value) out.erase(one.key);
    }
    return out;
  }

  Async<dcs::Committed> one_by_one(dcs::Transaction transaction, TimePoint deadline) {
    std::vector<std::pair<std::string, dcs::Version>> written;
    for (const auto& change : transaction.changes()) {
      dcs::Transaction part;
      for (const auto& one : transaction.requirements())
        if (one.key == change.key) part.require(one.key, one.condition);
      if (change.value) part.put(change.key, *change.value, change.binding);
      if (!change.value) part.erase(change.key);
      auto done = co_await right_->commit(std::move(part), deadline);
      if (done.has_error()) co_return done.error();
      if (const auto version = done->version_of(change.key))
        written.emplace_back(change.key, *version);
    }
    co_return dcs::Committed(std::move(written));
  }

  spilo::Clock& clock_;
  std::unique_ptr<dcs::Store> right_;
  Mistake mistake_;
  Duration delay_;
  int reads_ = 0;
};

}  // namespace example
