// Conformance cases about deadlines, cancellation, lost answers and leaks.
#include <dirent.h>
#include <malloc.h>

#include <algorithm>
#include <array>
#include <functional>
#include <random>

#include "dcs_conformance_bench.hpp"
#include "spilo/runtime/with_deadline.hpp"

namespace spilo::testing::dcs_conformance {

// "No answer with authority": what a read may say when the server does not answer.
void expect_silence(const Error& error, std::string_view what) {
  expect(error.is(errc::unavailable) || error.is(errc::timed_out),
         fmt::format("{}: expected unavailable or timed_out, got: {}", what, error.text()));
  expect(!error.detail().empty(), fmt::format("{}: the error has no text", what));
}

// What a write may say: certainly not done, or maybe done; never anything about conditions or
// sessions.
void expect_unknown(const Error& error, std::string_view what) {
  expect(error.is(errc::unavailable) || error.is(errc::ambiguous) || error.is(errc::timed_out),
         fmt::format("{}: expected unavailable or ambiguous, got: {}", what, error.text()));
  expect(!error.detail().empty(), fmt::format("{}: the error has no text", what));
}

// Reads until the server answers again.
awaitable<Snapshot> read_again(Bench& b, Store& store) {
  const TimePoint limit = b.in(seconds(20));
  for (;;) {
    auto snapshot = co_await store.read(Freshness::linearizable, b.in(seconds(2)));
    if (snapshot.has_value()) co_return std::move(*snapshot);
    expect(b.now() < limit, "the store does not recover: " + snapshot.error().text());
    co_await b.sleep(milliseconds(50));
  }
}

awaitable<void> write_again(Bench& b, Store& store, std::string key, std::string value) {
  const TimePoint limit = b.in(seconds(20));
  for (;;) {
    Transaction change;
    change.put(key, value);
    auto done = co_await store.commit(std::move(change), b.in(seconds(2)));
    if (done.has_value()) co_return;
    expect_unknown(done.error(), "a write to a server that comes back");
    expect(b.now() < limit, "the store does not recover: " + done.error().text());
    co_await b.sleep(milliseconds(50));
  }
}

namespace {

constexpr Duration tolerance = milliseconds(500);  // how late an operation may obey its deadline

// ---- a frozen server ---------------------------------------------------------------------------

awaitable<void> frozen_read(Bench& b, Store& store, TimePoint deadline) {
  // A store that answers reads while it can't write may succeed.
  auto snapshot = co_await store.read(Freshness::linearizable, deadline);
  if (!snapshot.has_value()) expect_silence(snapshot.error(), "read of a frozen server");
  expect(
      b.now() <= deadline + tolerance,
      "read of a frozen server came back " + to_text(b.now() - deadline) + " after its deadline");
}

awaitable<void> frozen_commit(Bench& b, Store& store, TimePoint deadline, bool& certain) {
  Transaction change;
  change.put("config", "written while frozen");
  auto done = co_await store.commit(std::move(change), deadline);
  expect(!done.has_value(), "a commit to a frozen server reports success");
  expect_unknown(done.error(), "commit to a frozen server");
  certain = is_certain(done.error());
  expect(
      b.now() <= deadline + tolerance,
      "commit to a frozen server came back " + to_text(b.now() - deadline) + " after its deadline");
}

awaitable<void> frozen_renew(Bench& b, Store& store, TimePoint deadline) {
  auto lease = co_await store.renew(b.ttl(), deadline);
  expect(!lease.has_value(), "renew() of a frozen server reports success");
  expect_unknown(lease.error(), "renew() of a frozen server");
  expect(b.now() <= deadline + tolerance,
         "renew() of a frozen server came back " + to_text(b.now() - deadline) +
             " after its deadline");
}

awaitable<void> frozen_wait(Bench& b, Store& store, Index seen, TimePoint deadline) {
  // A spurious return is allowed; the caller's next read then meets the frozen server.
  auto changed = co_await store.changed_since(seen, deadline);
  if (!changed.has_value()) expect_silence(changed.error(), "changed_since() of a frozen server");
  expect(b.now() <= deadline + tolerance,
         "changed_since() of a frozen server came back " + to_text(b.now() - deadline) +
             " after its deadline");
}

awaitable<void> frozen_end(Bench& b, Store& store, TimePoint deadline) {
  auto ended = co_await store.end_session(deadline);
  expect(!ended.has_value(), "end_session() of a frozen server reports success");
  expect_unknown(ended.error(), "end_session() of a frozen server");
  expect(b.now() <= deadline + tolerance,
         "end_session() of a frozen server came back " + to_text(b.now() - deadline) +
             " after its deadline");
}

awaitable<void> frozen_server(Bench& b) {
  Store& store = b.client();
  Store& ending = b.client();
  co_await b.renew(store);
  co_await b.renew(ending);
  co_await b.put(store, "config", "before");
  const Snapshot before = co_await b.read(store);
  co_await b.subject().freeze_server();
  const TimePoint deadline = b.in(milliseconds(500));
  bool certain = false;
  std::vector<awaitable<void>> work;
  work.push_back(frozen_read(b, store, deadline));
  work.push_back(frozen_commit(b, store, deadline, certain));
  work.push_back(frozen_renew(b, store, deadline));
  work.push_back(frozen_wait(b, store, before.index(), deadline));
  work.push_back(frozen_end(b, ending, deadline));
  co_await all(std::move(work));
  co_await b.subject().thaw_server();
  const Snapshot first = co_await read_again(b, store);
  expect(first.find("config") != nullptr, "the server lost a key while it was frozen");
  if (certain) {
    // A server that got the request before it froze would carry it out now; a failure that is
    // certain excludes that.
    const TimePoint end = b.in(milliseconds(500));
    while (b.now() < end) {
      const Snapshot later = co_await read_again(b, store);
      expect(later.find("config")->value == "before",
             "a commit that was certainly not done was done after the thaw");
      co_await b.sleep(milliseconds(20));
    }
  }
  co_await write_again(b, store, "config", "after");
}

// ---- lost answers ------------------------------------------------------------------------------

awaitable<void> cut_answers(Bench& b) {
  Store& store = b.client();
  Store& ender = b.client();
  co_await b.renew(store);
  co_await b.renew(ender);
  co_await b.put(store, "config", "before");
  co_await b.put(store, "count", "0");
  co_await b.subject().cut_answers(true);

  Transaction change;
  change.put("config", "after").put("count", "1");
  auto done = co_await store.commit(std::move(change), b.in(milliseconds(500)));
  expect(!done.has_value(), "a commit whose answer was lost reports success");
  expect(!is_certain(done.error()),
         "a commit that reached the server but got no answer claims certainly not to be done: " +
             done.error().text());
  must_fail(done, errc::ambiguous, "a commit whose answer was lost");
  auto lease = co_await store.renew(b.ttl(), b.in(milliseconds(300)));
  expect(!lease.has_value(), "a renewal whose answer was lost reports success");
  expect_unknown(lease.error(), "a renewal whose answer was lost");
  auto snapshot = co_await store.read(Freshness::linearizable, b.in(milliseconds(300)));
  expect(!snapshot.has_value(), "a read whose answer was lost reports success");
  expect_silence(snapshot.error(), "a read whose answer was lost");
  auto ended = co_await ender.end_session(b.in(milliseconds(300)));
  expect(!ended.has_value(), "an end_session() whose answer was lost reports success");
  expect_unknown(ended.error(), "an end_session() whose answer was lost");

  co_await b.subject().cut_answers(false);
  const Snapshot after = co_await read_again(b, store);
  const Entry* config = after.find("config");
  const Entry* count = after.find("count");
  expect(config != nullptr && count != nullptr, "a key vanished with the answer");
  const bool is_old = config->value == "before" && count->value == "0";
  const bool is_new = config->value == "after" && count->value == "1";
  expect(is_old || is_new,
         "after an ambiguous commit the state is neither the old nor the new one: " +
             config->value + ", " + count->value);
  co_await write_again(b, store, "config", "again");
}

// ---- a restart ---------------------------------------------------------------------------------

awaitable<void> restarted_server(Bench& b) {
  Store& store = b.client();
  Store& waiter = b.client();
  co_await b.put(store, "config", "kept");
  const auto seen = co_await b.get(store, "config");
  co_await b.subject().restart_server();
  const Snapshot after = co_await read_again(b, store);
  const Entry* config = after.find("config");
  expect(config != nullptr && config->value == "kept", "a permanent key did not survive a restart");
  expect(config->version == seen->version, "a restart changed the version of a key");
  co_await write_again(b, store, "config", "again");
  // A client that was idle meanwhile gets its notifications as before.
  const Snapshot base = co_await read_again(b, waiter);
  const TimePoint limit = b.in(seconds(20));
  co_await write_again(b, store, "failover", "now");
  for (Index at = base.index(); b.now() < limit;) {
    auto changed = co_await waiter.changed_since(at, b.in(seconds(2)));
    if (changed.has_value()) at = *changed;
    const Snapshot now = co_await read_again(b, waiter);
    if (now.find("failover") != nullptr) co_return;
  }
  throw Failed("after a restart changes are not seen");
}

// ---- cancellation ------------------------------------------------------------------------------

template <class T>
Async<bool> to_its_end(Async<T> op) {
  auto done = co_await std::move(op);
  static_cast<void>(done);
  co_return true;
}

// Cancels `op` after `delay`; whatever it answers, it must end soon.
template <class T>
awaitable<void> cut_short(Bench& b, Async<T> op, Duration delay, std::string what) {
  const TimePoint started = b.now();
  auto ended = co_await with_deadline(b.clock(), started + delay, to_its_end(std::move(op)));
  static_cast<void>(ended);
  const Duration took = b.now() - started;
  expect(
      took <= delay + tolerance,
      "a cancelled " + what + " ended only " + to_text(took - delay) + " after its cancellation");
}

awaitable<void> cancellation(Bench& b) {
  Store& store = b.client();
  Store& other = b.client();
  std::mt19937_64 random(20240607);
  const auto delay = [&] {
    // From "before it began" to "surely after it ended", most of them short.
    constexpr std::array<int, 6> bounds_us = {0, 50, 200, 1'000, 3'000, 8'000};
    const int bound = bounds_us[random() % bounds_us.size()];
    return Duration(
        std::chrono::microseconds(static_cast<int>(random() % (static_cast<unsigned>(bound) + 1))));
  };
  const TimePoint far = b.in(seconds(60));
  for (int round = 0; round < 30; ++round) {
    const auto text = fmt::format("{}", round);
    Transaction change;
    change.put("config", text).put("status", text);
    Transaction bound;
    bound.put("leader", text, Binding::session);
    co_await cut_short(b, store.read(Freshness::linearizable, far), delay(), "read");
    co_await cut_short(b, store.commit(std::move(change), far), delay(), "commit");
    co_await cut_short(b, store.renew(b.ttl(), far), delay(), "renew()");
    co_await cut_short(b, store.commit(std::move(bound), far), delay(), "bound commit");
    const Snapshot seen = co_await b.read(store);
    co_await cut_short(b, store.changed_since(seen.index(), far), delay(), "changed_since()");
    co_await cut_short(b, store.end_session(far), delay(), "end_session()");
    const Entry* config = seen.find("config");
    const Entry* status = seen.find("status");
    expect((config == nullptr) == (status == nullptr), "half of a cancelled transaction was done");
    expect(config == nullptr || config->value == status->value,
           "half of a cancelled transaction was done");
  }
  // The store is as usable as before. A session may be open or lost by now; at most one renewal
  // tells so.
  auto first = co_await store.renew(b.ttl(), b.soon());
  if (!first.has_value()) {
    must_fail(first, errc::session_lost, "renew() after cancellations");
    co_await b.renew(store);
  }
  const Version written = co_await b.put(store, "config", "at last", Binding::session);
  const auto seen = co_await b.get(other, "config");
  expect(seen && seen->value == "at last" && seen->version == written,
         "after cancellations a write is not what is read");
  co_await b.end_session(store);
}

awaitable<void> past_deadline(Bench& b) {
  Store& store = b.client();
  const TimePoint past = b.now() - milliseconds(1);
  auto snapshot = co_await store.read(Freshness::linearizable, past);
  if (!snapshot.has_value()) expect_silence(snapshot.error(), "a read after its deadline");
  Transaction change;
  change.put("config", "late");
  auto done = co_await store.commit(std::move(change), past);
  const bool reported = done.has_value();
  if (!reported) expect_unknown(done.error(), "a commit after its deadline");
  const bool certain = !reported && is_certain(done.error());
  auto changed = co_await store.changed_since(Index{~std::uint64_t{0} >> 1}, past);
  if (!changed.has_value()) expect_silence(changed.error(), "changed_since() after its deadline");
  const auto seen = co_await b.get(store, "config");
  expect(!certain || !seen, "a commit that was certainly not done was done");
  expect(!reported || seen, "a commit that reported success was not done");
}

// ---- leaks -------------------------------------------------------------------------------------

int open_descriptors() {
  DIR* folder = ::opendir("/proc/self/fd");
  if (folder == nullptr) return -1;
  int count = 0;
  while (::readdir(folder) != nullptr) ++count;
  ::closedir(folder);
  return count;
}

// Bytes that the process has allocated and not freed; zero where nobody counts them (another C
// library, a sanitizer).
std::size_t allocated_bytes() {
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 33)
  const auto heap = ::mallinfo2();
  return heap.uordblks + heap.hblkhd;
#else
  return 0;
#endif
}

awaitable<void> a_round_of_everything(Bench& b, Store& store, std::string own_key, int i) {
  co_await b.renew(store);
  co_await b.put(store, "status", fmt::format("{:08}", i));
  co_await b.put(store, own_key, "bound", Binding::session);
  const Snapshot seen = co_await b.read(store);
  co_await cut_short(
      b, store.changed_since(seen.index(), b.soon()), milliseconds(1), "changed_since()");
  co_await cut_short(b, store.read(Freshness::linearizable, b.soon()), Duration{}, "read");
  auto conflict = co_await b.create(store, "status", "x");
  must_fail(conflict, errc::conflict, "create a key that exists");
  // The end of a session costs a store more than all the rest.
  if (i % 5 == 0) {
    co_await b.end_session(store);
  } else {
    co_await b.erase(store, own_key);
  }
}

awaitable<void> rounds_of_everything(Bench& b, Store& store, std::string own_key, int rounds) {
  for (int i = 0; i < rounds; ++i) co_await a_round_of_everything(b, store, own_key, i);
  co_await b.end_session(store);
}

awaitable<void> no_leaks(Bench& b) {
  constexpr int clients = 10;
  constexpr int rounds_of_lap =
      25;  // of eight operations each: five laps of ten clients are 10,000
  std::vector<Store*> stores;
  for (int i = 0; i < clients; ++i) stores.push_back(&b.client());
  const auto lap = [&] {
    std::vector<awaitable<void>> work;
    for (int i = 0; i < clients; ++i)
      work.push_back(rounds_of_everything(
          b, *stores[static_cast<std::size_t>(i)], fmt::format("members/n{}", i), rounds_of_lap));
    return all(std::move(work));
  };
  // Two laps fill what is kept on purpose: connections, caches. The others must not add to it.
  for (int i = 0; i < 2; ++i) co_await lap();
  const int descriptors = open_descriptors();
  const std::size_t bytes = allocated_bytes();
  expect(descriptors > 0, "can't list /proc/self/fd");
  for (int i = 0; i < 3; ++i) co_await lap();
  const int more_descriptors = open_descriptors() - descriptors;
  const std::size_t bytes_after = allocated_bytes();
  // A pool may still have grown by a connection or two; a leak would show thousands.
  expect(
      more_descriptors <= 2 * clients,
      fmt::format("{} descriptors, {} more 6,000 operations later", descriptors, more_descriptors));
  // A connection has its buffers, in the subject's proxy as well. What is lost once in each round
  // would be 750 times its size: the rest is 700 bytes a round.
  const std::size_t tolerated =
      512 * 1024 + 64 * 1024 * static_cast<std::size_t>(std::max(0, more_descriptors));
  expect(bytes_after <= bytes + tolerated,
         fmt::format("{} bytes allocated, and {} 6,000 operations later", bytes, bytes_after));
}

constexpr auto beside = Case::Company::beside_others;
constexpr auto alone = Case::Company::alone;

}  // namespace

std::span<const Case> fault_cases() noexcept {
  static const std::array list = {
      Case{"cancellation",
           "an operation that is cancelled at any point ends at once and leaves the store usable",
           alone,
           {},
           cancellation},
      Case{"past_deadline",
           "an operation whose deadline has passed already says so, and tells no lie about what it "
           "did",
           beside,
           {},
           past_deadline},
      Case{"no_leaks",
           "10,000 operations, cancelled and failed ones among them, leave no descriptor and no "
           "memory behind",
           alone,
           {},
           no_leaks},
      Case{"frozen_server",
           "every operation obeys its deadline while the server is frozen, and the store recovers",
           alone,
           Fault::freeze_server,
           frozen_server},
      Case{"cut_answers",
           "a write whose answer is lost is ambiguous, and the state is the old one or the new one",
           alone,
           Fault::cut_answers,
           cut_answers},
      Case{"restarted_server",
           "the store goes on by itself after a restart of the server, and nothing stored is lost",
           alone,
           Fault::restart_server,
           restarted_server},
  };
  return list;
}

}  // namespace spilo::testing::dcs_conformance
