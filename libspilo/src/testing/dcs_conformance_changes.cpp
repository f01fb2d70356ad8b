// Conformance cases about change notification.
#include <array>

#include "dcs_conformance_bench.hpp"

namespace spilo::testing::dcs_conformance {
namespace {

// Waits until a read satisfies `done`, woken only by changed_since(); returns when it did. The
// waiting is what is proven: reading in a loop would find any change.
template <class Predicate>
awaitable<TimePoint> wait_until(Bench& b, Store& store, TimePoint limit, Predicate done) {
  for (;;) {
    const Snapshot snapshot = co_await b.read(store);
    if (done(snapshot)) co_return b.now();
    expect(b.now() < limit, "the change did not wake the waiter in time");
    auto changed = co_await store.changed_since(snapshot.index(), limit);
    if (!changed.has_value() && !changed.error().is(errc::timed_out))
      must(std::move(changed), "changed_since");
  }
}

// Runs `change` while another coroutine waits for its effect, and checks how long the waking took.
template <class Predicate>
awaitable<void> expect_waking(
    Bench& b, Store& waiter, awaitable<void> change, Predicate done, std::string what) {
  TimePoint changed_at{};
  TimePoint woken_at{};
  const TimePoint limit = b.in(seconds(20));
  auto wait = [&]() -> awaitable<void> { woken_at = co_await wait_until(b, waiter, limit, done); };
  auto act = [&]() -> awaitable<void> {
    // Long enough that the waiter waits by then; the case holds, if weaker, also when it does not.
    co_await b.sleep(milliseconds(50));
    co_await std::move(change);
    changed_at = b.now();
  };
  std::vector<awaitable<void>> both;
  both.push_back(wait());
  both.push_back(act());
  co_await all(std::move(both));
  expect(woken_at - changed_at <= b.subject().wake_within(),
         what + " woke the waiter only after " + to_text(woken_at - changed_at));
}

awaitable<void> put_void(Bench& b, Store& store, std::string key, std::string value) {
  co_await b.put(store, std::move(key), std::move(value));
}

awaitable<void> wakes_on_put(Bench& b) {
  Store& writer = b.client();
  Store& waiter = b.client();
  const auto has = [](std::string_view value) {
    return [value](const Snapshot& s) {
      return s.find("failover") != nullptr && s.find("failover")->value == value;
    };
  };
  const auto one = has("1");
  const auto two = has("2");
  const auto three = has("3");
  // Into an empty scope, over an existing key, and by the waiter's own client.
  co_await expect_waking(b, waiter, put_void(b, writer, "failover", "1"), one, "creating a key");
  co_await expect_waking(b, waiter, put_void(b, writer, "failover", "2"), two, "a put");
  co_await expect_waking(b, waiter, put_void(b, waiter, "failover", "3"), three, "an own put");
}

constexpr auto leader_is_gone = [](const Snapshot& s) { return s.find("leader") == nullptr; };

awaitable<void> wakes_on_erase(Bench& b) {
  Store& writer = b.client();
  Store& waiter = b.client();
  co_await b.put(writer, "leader", "n1");
  co_await expect_waking(b, waiter, b.erase(writer, "leader"), leader_is_gone, "an erase");
}

awaitable<void> wakes_on_end_session(Bench& b) {
  Store& holder = b.client();
  Store& waiter = b.client();
  co_await b.renew(holder);
  co_await b.put(holder, "leader", "n1", Binding::session);
  co_await expect_waking(b, waiter, b.end_session(holder), leader_is_gone, "end_session()");
}

awaitable<void> wakes_on_expiry(Bench& b) {
  Store& holder = b.client();
  Store& waiter = b.client();
  const Lease lease = co_await b.renew(holder);
  co_await b.put(holder, "leader", "n1", Binding::session);
  b.subject().silence(holder);
  const TimePoint latest =
      lease.valid_until + b.subject().expiry_slack() + b.subject().wake_within();
  const TimePoint gone = co_await wait_until(b, waiter, latest + seconds(10), leader_is_gone);
  expect(gone <= latest, "the waiter was woken " + to_text(gone - latest) + " too late");
  expect(gone >= lease.valid_until, "the key was gone before the holder's valid_until");
}

awaitable<void> times_out(Bench& b) {
  Store& store = b.client();
  co_await b.put(store, "config", "{}");
  const Snapshot snapshot = co_await b.read(store);
  Index seen = snapshot.index();
  const TimePoint deadline = b.in(milliseconds(500));
  // Spurious returns are allowed, a storm of them is not: the caller reads everything after each.
  for (int returns = 0;; ++returns) {
    expect(returns < 10, "changed_since() returned ten times although nothing changed");
    auto changed = co_await store.changed_since(seen, deadline);
    if (changed.has_value()) {
      seen = *changed;
      continue;
    }
    must_fail(changed, errc::timed_out, "changed_since() when nothing changes");
    break;
  }
  expect(b.now() >= deadline, "changed_since() timed out before its deadline");
  expect(b.now() <= deadline + b.subject().wake_within(),
         "changed_since() came back " + to_text(b.now() - deadline) + " after its deadline");
}

awaitable<void> index_zero(Bench& b) {
  Store& store = b.client();
  co_await b.put(store, "config", "{}");
  auto changed = co_await store.changed_since(Index{}, b.in(b.subject().wake_within()));
  const Index at = must(std::move(changed), "changed_since() from before everything");
  expect(at.value != 0, "changed_since() answered the index that means \"before everything\"");
  const Snapshot snapshot = co_await b.read(store);
  expect(snapshot.index().value != 0, "a snapshot with keys has the index zero");
}

int status_of(const Snapshot& snapshot) {
  const Entry* entry = snapshot.find("status");
  return entry != nullptr ? std::stoi(entry->value) : 0;
}

// The reader goes on only when it is woken, and the writer stops now and then until the reader has
// what was written: so the last change of every burst is one that nothing later makes up for.
awaitable<void> nothing_is_missed(Bench& b) {
  Store& writer = b.client();
  Store& reader = b.client();
  constexpr int last = 150;
  constexpr Duration patience = seconds(10);
  const TimePoint limit = b.in(seconds(60));
  int reached = 0;
  bool failed = false;
  auto write = [&]() -> awaitable<void> {
    for (int i = 1; i <= last && !failed; ++i) {
      co_await b.put(writer, "status", fmt::format("{}", i));
      // Bursts and pauses, so that changes fall before, during and after the reader's waiting.
      if (i % 7 == 0) co_await b.sleep(milliseconds(i % 5));
      while (i % 10 == 0 && reached < i && !failed && b.now() < limit)
        co_await b.sleep(milliseconds(1));
    }
  };
  auto follow = [&]() -> awaitable<void> {
    for (;;) {
      const Snapshot snapshot = co_await b.read(reader);
      reached = status_of(snapshot);
      if (reached == last) co_return;
      auto changed = co_await reader.changed_since(snapshot.index(), b.in(patience));
      failed = !changed.has_value();
      if (!failed) continue;
      const bool slept = changed.error().is(errc::timed_out);
      const Snapshot now = co_await b.read(reader);
      expect(!slept || status_of(now) == reached,
             fmt::format("a waiter that had read {} slept for {} although {} was written",
                         reached,
                         to_text(patience),
                         status_of(now)));
      must(std::move(changed), "changed_since");
    }
  };
  std::vector<awaitable<void>> both;
  both.push_back(write());
  both.push_back(follow());
  co_await all(std::move(both));
}

awaitable<void> several_waiters(Bench& b) {
  Store& writer = b.client();
  Store& waiter = b.client();
  co_await b.put(writer, "leader", "n1");
  const TimePoint deadline = b.in(seconds(20));
  auto wait = [&]() -> awaitable<void> {
    const TimePoint latest = deadline - seconds(1);
    co_await wait_until(b, waiter, deadline, leader_is_gone);
    expect(b.now() < latest, "one of several waiters was not woken");
  };
  std::vector<awaitable<void>> work;
  for (int i = 0; i < 5; ++i) work.push_back(wait());
  work.push_back(b.erase(writer, "leader"));
  co_await all(std::move(work));
}

constexpr auto beside = Case::Company::beside_others;

}  // namespace

std::span<const Case> change_cases() noexcept {
  static const std::array list = {
      Case{"wakes_on_put",
           "changed_since() wakes on a put, of another client and of one's own",
           beside,
           {},
           wakes_on_put},
      Case{"wakes_on_erase", "changed_since() wakes on an erase", beside, {}, wakes_on_erase},
      Case{"wakes_on_end_session",
           "changed_since() wakes when a session with bound keys is ended",
           beside,
           {},
           wakes_on_end_session},
      Case{"wakes_on_expiry",
           "changed_since() wakes when a session with bound keys runs out",
           beside,
           {},
           wakes_on_expiry},
      Case{"times_out",
           "changed_since() times out at its deadline when nothing changes",
           beside,
           {},
           times_out},
      Case{"index_zero", "the index zero lies before everything", beside, {}, index_zero},
      Case{"nothing_is_missed",
           "no change is missed between a read and the changed_since() that goes on from it",
           beside,
           {},
           nothing_is_missed},
      Case{"several_waiters",
           "a change wakes every waiter of a client",
           beside,
           {},
           several_waiters},
  };
  return list;
}

}  // namespace spilo::testing::dcs_conformance
