// Conformance cases about sessions: what the lease rule promises, and what becomes of bound keys.
#include <algorithm>
#include <array>

#include "dcs_conformance_bench.hpp"

namespace spilo::testing::dcs_conformance {
namespace {

// How often a rival tries for a key. Small against any slack, large against the cost of one
// attempt.
constexpr Duration hammering_pause = milliseconds(5);

// Tries to create the key until that succeeds; returns when it did. Fails when that has not
// happened by `limit`.
awaitable<TimePoint> take_over(Bench& b, Store& rival, std::string key, TimePoint limit) {
  for (;;) {
    auto done = co_await b.create(rival, key, "rival");
    const TimePoint answered = b.now();
    if (done.has_value()) co_return answered;
    must_fail(done, errc::conflict, "create " + key);
    expect(answered <= limit,
           "the key of a silent session is still there after ttl and slack: " + key);
    co_await b.sleep(hammering_pause);
  }
}

// The key of a silent holder is free after its valid_until and before the limit.
awaitable<void> expect_take_over(Bench& b, Store& rival, TimePoint valid_until, TimePoint limit) {
  const TimePoint won = co_await take_over(b, rival, "leader", limit);
  expect(won >= valid_until,
         "a rival took the key " + to_text(valid_until - won) +
             " before the holder's valid_until: two leaders");
  expect(won <= limit, "the key was freed " + to_text(won - limit) + " later than ttl and slack");
}

awaitable<void> lease_rule(Bench& b) {
  Store& holder = b.client();
  Store& rival = b.client();
  co_await b.renew(holder);
  auto taken = co_await b.create(holder, "leader", "holder", Binding::session);
  must(std::move(taken), "create leader");
  // The rule must hold for a renewal as well, which is where adapters get it wrong.
  co_await b.sleep(b.ttl() / 3);
  const Lease lease = co_await b.renew(holder);
  b.subject().silence(holder);
  co_await expect_take_over(
      b, rival, lease.valid_until, lease.valid_until + b.subject().expiry_slack());
}

// The answer to a shorter renewal may die with its caller, whose guard believes the one before.
awaitable<void> shorter_renewal(Bench& b) {
  Store& holder = b.client();
  Store& rival = b.client();
  auto opened = co_await holder.renew(b.ttl() * 2, b.soon());
  const Lease longer = must(std::move(opened), "renew for two ttls");
  co_await b.put(holder, "leader", "holder", Binding::session);
  const Lease shorter = co_await b.renew(holder);
  b.subject().silence(holder);
  const TimePoint promised = std::max(longer.valid_until, shorter.valid_until);
  co_await expect_take_over(
      b, rival, promised, promised + b.ttl() + b.subject().expiry_slack() * 2);
}

awaitable<void> session_keys(Bench& b) {
  Store& holder = b.client();
  Store& other = b.client();
  const Lease lease = co_await b.renew(holder);
  co_await b.put(holder, "leader", "n1", Binding::session);
  co_await b.put(holder, "members/n1", "m", Binding::session);
  co_await b.put(holder, "config", "{}");
  const Snapshot during = co_await b.read(other);
  expect(during.find("leader")->owner == lease.session &&
             during.find("members/n1")->owner == lease.session,
         "the owner of a bound key is not the session that the lease names");
  expect(during.find("config")->owner.empty(), "a permanent key has an owner");
  b.subject().silence(holder);
  const TimePoint limit = lease.valid_until + b.ttl() + b.subject().expiry_slack();
  for (;;) {
    const Snapshot now = co_await b.read(other);
    expect(now.find("config") != nullptr, "a permanent key died with the session of its writer");
    if (now.find("leader") == nullptr && now.find("members/n1") == nullptr) break;
    expect(b.now() <= limit, "keys of a silent session are still there after ttl and slack");
    co_await b.sleep(milliseconds(20));
  }
}

awaitable<void> renewal_keeps(Bench& b) {
  Store& holder = b.client();
  Store& other = b.client();
  const Lease first = co_await b.renew(holder);
  const Version version = co_await b.put(holder, "leader", "n1", Binding::session);
  TimePoint valid_until = first.valid_until;
  const TimePoint end = b.in(b.ttl() * 3);
  while (b.now() < end) {
    co_await b.sleep(b.ttl() / 3);
    const Lease lease = co_await b.renew(holder);
    const TimePoint answered = b.now();
    expect(lease.session == first.session, "a renewal changed the session");
    expect(lease.valid_until > valid_until, "a renewal did not move valid_until");
    expect(lease.valid_until <= answered + b.ttl(),
           "valid_until lies further ahead than the ttl that was asked for");
    valid_until = lease.valid_until;
    const auto seen = co_await b.get(other, "leader");
    expect(seen.has_value(), "the key vanished although its session was renewed in time");
    expect(seen->version == version, "a renewal changed the version of a bound key");
  }
}

awaitable<void> no_session(Bench& b) {
  Store& store = b.client();
  auto bound = co_await b.create(store, "leader", "n1", Binding::session);
  must_fail(bound, errc::session_lost, "a bound write before any renew()");
  const Snapshot nothing = co_await b.read(store);
  expect(nothing.all().empty(), "a bound write without a session was done");
  co_await b.end_session(store);
}

// Waits until the store tells this client that its session is lost.
awaitable<void> wait_for_loss(Bench& b, Store& store, TimePoint limit) {
  for (;;) {
    Transaction change;
    change.put("probe", "x", Binding::session);
    auto done = co_await store.commit(std::move(change), b.soon());
    if (!done.has_value()) {
      must_fail(done, errc::session_lost, "a bound write of a session that ran out");
      co_return;
    }
    expect(b.now() <= limit, "a session that nobody renewed is alive after ttl and slack");
    co_await b.sleep(milliseconds(20));
  }
}

awaitable<void> lost_session(Bench& b) {
  Store& store = b.client();
  Store& other = b.client();
  const Lease first = co_await b.renew(store);
  co_await b.put(store, "leader", "n1", Binding::session);
  b.subject().silence(store);
  co_await wait_for_loss(b, store, first.valid_until + b.ttl() + b.subject().expiry_slack());
  const auto gone = co_await b.get(other, "leader");
  expect(!gone, "the session is lost, but its key is still there");

  auto lost = co_await store.renew(b.ttl(), b.soon());
  must_fail(lost, errc::session_lost, "renew() of a lost session");
  const Lease second = co_await b.renew(store);
  expect(second.session != first.session, "the session after a lost one has the same name");
  co_await b.put(store, "leader", "n1", Binding::session);
  const auto owned = co_await b.get(other, "leader");
  expect(owned && owned->owner == second.session,
         "a bound write does not belong to the new session");
}

awaitable<void> end_session_frees(Bench& b) {
  Store& holder = b.client();
  Store& rival = b.client();
  const Lease first = co_await b.renew(holder);
  co_await b.put(holder, "leader", "n1", Binding::session);
  co_await b.put(holder, "config", "{}");
  co_await b.end_session(holder);
  auto taken = co_await b.create(rival, "leader", "n2");
  must(std::move(taken), "create the key of a session that was just ended");
  const auto kept = co_await b.get(rival, "config");
  expect(kept.has_value(), "end_session() deleted a permanent key");
  co_await b.end_session(holder);
  auto bound = co_await b.create(holder, "members/n1", "m", Binding::session);
  must_fail(bound, errc::session_lost, "a bound write after end_session()");
  const Lease second = co_await b.renew(holder);
  expect(second.session != first.session, "the session after an ended one has the same name");
  co_await b.end_session(holder);
}

awaitable<void> rebinding(Bench& b) {
  // The agent's restart: a new client finds its own name in the key, bound to a session that nobody
  // renews any more.
  Store& before = b.client();
  Store& after = b.client();
  const Lease old = co_await b.renew(before);
  const Version held = co_await b.put(before, "leader", "n1", Binding::session);
  b.subject().silence(before);
  const Lease lease = co_await b.renew(after);
  expect(lease.session != old.session, "two clients share one session");

  const auto rebind = [&](Version at) {
    Transaction change;
    change.require("leader", Condition::at(at)).put("leader", "n1", Binding::session);
    return after.commit(std::move(change), b.soon());
  };
  auto done = co_await rebind(held);
  const Committed committed = must(std::move(done), "re-binding by compare-and-set");
  const auto seen = co_await b.get(before, "leader");
  expect(seen && seen->owner == lease.session,
         "the re-bound key does not belong to the new session");
  expect(seen->version == committed.version_of("leader"), "the commit answers another version");
  expect(!(seen->version == held), "re-binding did not change the version");
  auto stale = co_await rebind(held);
  must_fail(stale, errc::conflict, "re-binding at a stale version");

  // The old session's end must no longer take the key along.
  const TimePoint end = old.valid_until + b.ttl() / 2 + b.subject().expiry_slack();
  while (b.now() < end) {
    co_await b.sleep(b.ttl() / 4);
    co_await b.renew(after);
    const auto still = co_await b.get(after, "leader");
    expect(still.has_value(), "the re-bound key died with the session that it had before");
  }
}

awaitable<void> unbinding(Bench& b) {
  Store& holder = b.client();
  co_await b.renew(holder);
  co_await b.put(holder, "key", "bound", Binding::session);
  co_await b.put(holder, "key", "permanent");
  co_await b.end_session(holder);
  const auto kept = co_await b.get(holder, "key");
  expect(kept && kept->value == "permanent" && kept->owner.empty(),
         "a permanent write left the key bound to the session of the write before");
}

constexpr auto beside = Case::Company::beside_others;

}  // namespace

std::span<const Case> session_cases() noexcept {
  static const std::array list = {
      Case{"lease_rule",
           "a rival gets the key of a silent holder never before the holder's valid_until, and "
           "within the "
           "slack after it",
           beside,
           {},
           lease_rule},
      Case{"shorter_renewal",
           "a renewal for a shorter ttl takes back nothing that an earlier one promised",
           beside,
           {},
           shorter_renewal},
      Case{"session_keys",
           "bound keys name their session and vanish with it, permanent ones stay",
           beside,
           {},
           session_keys},
      Case{"renewal_keeps",
           "renewals keep a bound key beyond several ttls and change neither its version nor the "
           "session",
           beside,
           {},
           renewal_keeps},
      Case{"no_session",
           "a bound write without a session is session_lost and does nothing",
           beside,
           {},
           no_session},
      Case{"lost_session",
           "after silence bound writes and the next renew() say session_lost, and the renew() "
           "after that "
           "opens a new session",
           beside,
           {},
           lost_session},
      Case{"end_session_frees",
           "end_session() frees bound keys at once and may be called again",
           beside,
           {},
           end_session_frees},
      Case{"rebinding",
           "a key of an older session is re-bound by compare-and-set and outlives that session",
           beside,
           {},
           rebinding},
      Case{"unbinding", "a permanent write takes a key out of its session", beside, {}, unbinding},
  };
  return list;
}

}  // namespace spilo::testing::dcs_conformance
