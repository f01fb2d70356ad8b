// Conformance cases about the one promise that everything rests on: whatever becomes of the
// servers, nobody gets a key before its holder's own deadline has passed; and a holder that renews
// in time keeps it.
#include <algorithm>
#include <array>

#include "dcs_conformance_bench.hpp"

namespace spilo::testing::dcs_conformance {
namespace {

// Whose the key is now: the time at which that was seen first, or nothing.
awaitable<std::optional<TimePoint>> try_to_take(Bench& b, Store& rival, std::string key) {
  std::optional<TimePoint> won;
  Transaction take;
  take.require(key, Condition::absent()).put(key, "rival");
  auto done = co_await rival.commit(std::move(take), b.in(milliseconds(300)));
  if (done.has_value()) {
    won = b.now();
    co_return won;
  }
  if (!done.error().is(errc::conflict)) expect_unknown(done.error(), "a rival's create");
  // An attempt before this one may have been carried out after its answer was given up.
  auto seen = co_await rival.read(Freshness::linearizable, b.in(milliseconds(300)));
  if (!seen.has_value()) {
    expect_silence(seen.error(), "a rival's read");
  } else if (const Entry* entry = seen->find(key); entry != nullptr && entry->value == "rival") {
    won = b.now();
  }
  co_return won;
}

// Tries until it has the key, and judges when that was.
awaitable<void> rival_waits(
    Bench& b, Store& rival, std::string key, const TimePoint& valid_until, const TimePoint& limit) {
  for (;;) {
    const auto won = co_await try_to_take(b, rival, key);
    if (won) {
      expect(*won >= valid_until,
             fmt::format("a rival took {} {} before the holder's valid_until: two leaders",
                         key,
                         to_text(valid_until - *won)));
      co_return;
    }
    expect(b.now() <= limit,
           "the key of a silent session is still there long after its end: " + key);
    co_await b.sleep(milliseconds(5));
  }
}

awaitable<Lease> hold(Bench& b, Store& holder, std::string key) {
  co_await b.renew(holder);
  auto taken = co_await b.create(holder, key, "holder", Binding::session);
  must(std::move(taken), "create " + key);
  co_await b.sleep(b.ttl() / 3);
  const Lease lease = co_await b.renew(holder);
  b.subject().silence(holder);
  co_return lease;
}

awaitable<void> freeze_between(Bench& b, TimePoint from, TimePoint until) {
  co_await sleep_until(b.clock(), from);
  co_await b.subject().freeze_server();
  co_await sleep_until(b.clock(), until);
  co_await b.subject().thaw_server();
}

awaitable<void> frozen_while_held(Bench& b, int freeze_percent_of_ttl) {
  Store& holder = b.client();
  Store& rival = b.client();
  const Lease lease = co_await hold(b, holder, "leader");
  const TimePoint from = b.in(b.ttl() / 10);
  const TimePoint until = from + b.ttl() * freeze_percent_of_ttl / 100;
  // A server may count the lease anew from its own awakening.
  const TimePoint limit =
      std::max(lease.valid_until, until) + b.ttl() + b.subject().expiry_slack() + seconds(2);
  std::vector<awaitable<void>> work;
  work.push_back(freeze_between(b, from, until));
  work.push_back(rival_waits(b, rival, "leader", lease.valid_until, limit));
  co_await all(std::move(work));
}

awaitable<void> frozen_holder(Bench& b) {
  co_await frozen_while_held(b, 50);
}

awaitable<void> frozen_beyond_the_lease(Bench& b) {
  co_await frozen_while_held(b, 130);
}

awaitable<void> dead_leader_silent_holder(Bench& b) {
  Store& holder = b.client();
  Store& rival = b.client();
  const Lease lease = co_await hold(b, holder, "leader");
  co_await b.subject().kill_leader();
  // The new leader may give every session its whole ttl again.
  const TimePoint limit =
      lease.valid_until + b.subject().takeover_within() + b.ttl() + b.subject().expiry_slack();
  co_await rival_waits(b, rival, "leader", lease.valid_until, limit);
  co_await b.subject().revive_leader();
}

// Renews every third of the ttl, with the lease's end as the deadline, as a leader does.
awaitable<void> keep_renewing(
    Bench& b, Store& holder, Duration ttl, Lease lease, TimePoint end, bool& over) {
  while (b.now() < end) {
    co_await b.sleep(ttl / 3);
    auto renewed = co_await holder.renew(ttl, lease.valid_until);
    if (!renewed.has_value()) over = true;
    const Lease next = must(std::move(renewed), "a renewal while another server takes over");
    expect(next.session == lease.session, "a renewal changed the session");
    expect(next.valid_until > lease.valid_until, "a renewal did not move valid_until");
    lease = next;
  }
  over = true;
}

// Counts up in a key and remembers what was acknowledged.
awaitable<void> keep_counting(
    Bench& b, Store& writer, const bool& over, int& acknowledged, int& sent) {
  while (!over) {
    Transaction change;
    change.put("status", fmt::format("{}", ++sent));
    auto done = co_await writer.commit(std::move(change), b.in(seconds(2)));
    if (done.has_value()) {
      acknowledged = sent;
    } else {
      expect_unknown(done.error(), "a commit while another server takes over");
    }
    co_await b.sleep(milliseconds(20));
  }
}

awaitable<void> dead_leader_busy_holder(Bench& b) {
  Store& holder = b.client();
  Store& writer = b.client();
  Store& waiter = b.client();
  // Long enough for an election of several rounds: how long one takes is the store's own affair.
  const Duration ttl = b.ttl() * 8;
  auto opened = co_await holder.renew(ttl, b.soon());
  const Lease lease = must(std::move(opened), "renew");
  const Version held = co_await b.put(holder, "leader", "holder", Binding::session);
  bool over = false;
  int acknowledged = 0;
  int sent = 0;
  const TimePoint end = b.now() + ttl * 4 / 3;
  std::vector<awaitable<void>> work;
  work.push_back(keep_renewing(b, holder, ttl, lease, end, over));
  work.push_back(keep_counting(b, writer, over, acknowledged, sent));
  work.push_back(b.subject().kill_leader());
  co_await all(std::move(work));
  const Snapshot after = co_await read_again(b, waiter);
  const Entry* leader = after.find("leader");
  expect(
      leader != nullptr && leader->version == held,
      "the key of a holder that renewed in time did not survive the death of the store's leader");
  const Entry* status = after.find("status");
  expect(acknowledged > 0, "no commit was acknowledged");
  expect(status != nullptr, "an acknowledged commit is gone");
  const int found = std::stoi(status->value);
  expect(found >= acknowledged && found <= sent,
         fmt::format("{} was the last commit acknowledged, {} the last one sent, and {} is stored",
                     acknowledged,
                     sent,
                     found));
  co_await b.subject().revive_leader();
  co_await write_again(b, writer, "failover", "now");
  const Snapshot last = co_await read_again(b, waiter);
  expect(last.find("failover") != nullptr, "an acknowledged commit is not read");
}

constexpr auto alone = Case::Company::alone;

}  // namespace

std::span<const Case> takeover_cases() noexcept {
  static const std::array list = {
      Case{"frozen_holder",
           "with the server frozen for half a ttl a rival gets a silent holder's key never before "
           "its valid_until",
           alone,
           Fault::freeze_server,
           frozen_holder},
      Case{"frozen_beyond_the_lease",
           "with the server frozen until after the lease a rival gets the key then, and never "
           "before",
           alone,
           Fault::freeze_server,
           frozen_beyond_the_lease},
      Case{"dead_leader_silent_holder",
           "with the leading server killed a rival gets a silent holder's key never before its "
           "valid_until",
           alone,
           Fault::kill_leader,
           dead_leader_silent_holder},
      Case{"dead_leader_busy_holder",
           "with the leading server killed no renewal fails, the key stays and no acknowledged "
           "commit is lost",
           alone,
           Fault::kill_leader,
           dead_leader_busy_holder},
  };
  return list;
}

}  // namespace spilo::testing::dcs_conformance
