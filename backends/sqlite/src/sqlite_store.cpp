#include "spilo/sqlite/sqlite_store.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cstdio>
#include <random>
#include <utility>

#include "flusher.hpp"
#include "lock_holder.hpp"
#include "spilo/runtime/with_deadline.hpp"
#include "store_file.hpp"
#include "wake.hpp"

namespace spilo::sqlite {
namespace asio = boost::asio;
using std::chrono::hours;
using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

namespace {

constexpr Duration ttl_min = seconds(1);
constexpr Duration ttl_max = hours(24);
constexpr std::size_t value_bytes_max = std::size_t{1} << 20;

// The pause before the n-th attempt for a lock. A healthy writer holds it for less than a
// millisecond, plus one flush of the disk; the pauses grow, so that a crowd on a slow disk does not
// wake all the time.
constexpr Duration first_pause = microseconds(500);
constexpr Duration longest_pause = milliseconds(10);

// After a wake-up that showed nothing: the writer may have been killed between its COMMIT and its
// announcement, see wake.hpp.
constexpr Duration looks_again[] = {milliseconds(30), milliseconds(300), seconds(2)};

// A longer log makes reads slower and the file larger; 1,000 pages are 4 MiB.
constexpr int checkpoint_pages = 1000;

// Without inotify a waiter has to look by itself.
constexpr Duration look_without_inotify = milliseconds(50);

std::string kernel_boot_id() {
  char text[64] = {};
  if (std::FILE* file = std::fopen("/proc/sys/kernel/random/boot_id", "re")) {
    [[maybe_unused]] const auto got = std::fread(text, 1, sizeof text - 1, file);
    std::fclose(file);
  }
  std::string id(text);
  while (!id.empty() && id.back() == '\n') id.pop_back();
  return id.empty() ? "unknown boot" : id;
}

// Success, the error code that was sent through the channel, or errc::cancelled when the wait for
// it was.
Async<bool> receive(Wake::Signal& signal) {
  constexpr auto token = asio::as_tuple(asio::use_awaitable);
  const auto [ec] = co_await signal.async_receive(token);
  const auto state = co_await asio::this_coro::cancellation_state;
  if (state.cancelled() != asio::cancellation_type::none) co_return Error(errc::cancelled);
  if (ec) co_return Error(ec);
  co_return true;
}

}  // namespace

class SqliteStore::Impl {
 public:
  Impl(asio::any_io_executor ex, Clock& clk, Options options)
      : executor(ex),
        clock(clk),
        log(options.log),
        file(clk,
             options.file,
             options.scope.str(),
             options.boot_id.empty() ? kernel_boot_id() : options.boot_id,
             options.log),
        wake(ex),
        wake_file(options.file + "-wake") {
    if (options.survive_power_failure) flusher.emplace(ex, options.file);
    file.on_commit([](void* self) { static_cast<Wake*>(self)->announce(); }, &wake);
  }

  // Before each attempt. The first one only lets others run: a caller in a tight loop must not
  // starve a renewal. The later ones wait until whoever has the lock may be done. Fails when it is
  // too late for another attempt; until then nothing was done.
  Async<void> turn(std::string_view what, TimePoint deadline, errc late, int attempt);
  // Waits until what was committed is on the disk.
  Async<void> flush(TimePoint deadline);
  // After each transaction.
  void keep_log_short() {
    if (flusher && file.log_pages() >= checkpoint_pages) flusher->checkpoint();
  }
  // Waits for an announcement or until `at`; true when there was one.
  Async<bool> wait(Wake::Waiter& waiter, TimePoint at);
  Error refuse(std::string_view what, std::string text) const {
    return Error(errc::invalid_argument, fmt::format("{}: {}: {}", file.name(), what, text));
  }
  std::optional<Error> refuse(const dcs::Transaction& transaction) const;

  asio::any_io_executor executor;
  Clock& clock;
  Logger log;
  StoreFile file;
  Wake wake;
  std::string wake_file;
  std::optional<Flusher> flusher;
  std::string session;
  // Only for the jitter of pauses: the order of attempts, never what they do.
  std::minstd_rand jitter{std::random_device{}()};
};

Async<void> SqliteStore::Impl::turn(std::string_view what,
                                    TimePoint deadline,
                                    errc late,
                                    int attempt) {
  co_await asio::this_coro::throw_if_cancelled(false);
  if (attempt == 0) {
    co_await asio::post(executor, asio::use_awaitable);
  } else {
    const Duration pause = std::min(longest_pause, first_pause * attempt);
    std::uniform_int_distribution<Duration::rep> share(pause.count() / 2, pause.count());
    const TimePoint at = std::min(deadline, clock.now() + Duration(share(jitter)));
    co_await sleep_until(clock, at);
  }
  const auto state = co_await asio::this_coro::cancellation_state;
  if (state.cancelled() != asio::cancellation_type::none)
    co_return Error(errc::cancelled,
                    fmt::format("{}: {}: cancelled before it was done", file.name(), what));
  if (clock.now() < deadline) co_return Result<void>();
  if (attempt == 0)
    co_return Error(late, fmt::format("{}: {}: the deadline passed", file.name(), what));
  co_return Error(late,
                  fmt::format("{}: {}: {} held the lock of the file up to the deadline, in {} "
                              "attempts; if it is frozen, thaw or kill it",
                              file.name(),
                              what,
                              lock_holder(file.name()),
                              attempt));
}

Async<bool> SqliteStore::Impl::wait(Wake::Waiter& waiter, TimePoint at) {
  auto woken = co_await with_deadline(clock, at, receive(waiter.signal()));
  if (woken.has_value()) co_return true;
  const Error error = woken.error();
  if (error.is(errc::timed_out)) co_return false;
  co_return error.in(file.name() + ": changed_since");
}

Async<void> SqliteStore::Impl::flush(TimePoint deadline) {
  const std::shared_ptr<Flusher::Signal> flushed = flusher->flush();
  auto outcome = co_await with_deadline(clock, deadline, receive(*flushed));
  if (outcome.has_value()) co_return Result<void>();
  const Error error = outcome.error();
  if (error.is(errc::cancelled))
    co_return error.in(file.name() + ": commit: cancelled while the disk was writing");
  const auto why = error.is(errc::timed_out)
                       ? std::string("the disk did not confirm it up to the deadline")
                       : "writing it to the disk failed: " + error.code().message();
  co_return Error(
      errc::ambiguous,
      fmt::format(
          "{}: commit: others see it, but a power failure may undo it: {}", file.name(), why));
}

std::optional<Error> SqliteStore::Impl::refuse(const dcs::Transaction& transaction) const {
  for (const auto& change : transaction.changes()) {
    if (change.key.empty()) return refuse("commit", "a key is empty");
    if (change.value && change.value->size() > value_bytes_max)
      return refuse("commit",
                    fmt::format("the value of {} has {} bytes, the limit is {}",
                                change.key,
                                change.value->size(),
                                value_bytes_max));
  }
  return {};
}

SqliteStore::SqliteStore(asio::any_io_executor executor, Clock& clock, Options options)
    : impl_(std::make_unique<Impl>(std::move(executor), clock, std::move(options))) {}

SqliteStore::~SqliteStore() = default;

dcs::Limits SqliteStore::limits() const noexcept {
  return dcs::Limits{ttl_min, ttl_max, value_bytes_max};
}

Async<dcs::Snapshot> SqliteStore::read(dcs::Freshness, TimePoint deadline) {
  for (int attempt = 0;; ++attempt) {
    auto ready = co_await impl_->turn("read", deadline, errc::timed_out, attempt);
    if (!ready.has_value()) co_return ready.error();
    auto snapshot = impl_->file.read();
    if (snapshot) co_return std::move(*snapshot);
  }
}

Async<dcs::Committed> SqliteStore::commit(dcs::Transaction transaction, TimePoint deadline) {
  if (auto refused = impl_->refuse(transaction)) co_return *refused;
  for (int attempt = 0;; ++attempt) {
    auto ready = co_await impl_->turn("commit", deadline, errc::unavailable, attempt);
    if (!ready.has_value()) co_return ready.error();
    if (auto opened = impl_->wake.open(impl_->wake_file); !opened.has_value())
      impl_->log.warning("{}: others are told late: {}", impl_->file.name(), opened.error().text());
    auto written = impl_->file.commit(transaction, impl_->session);
    if (!written) continue;
    if (!written->has_value()) co_return written->error();
    if ((*written)->is_changed) {
      impl_->wake.announce();
      impl_->keep_log_short();
      if (impl_->flusher) {
        auto flushed = co_await impl_->flush(deadline);
        if (!flushed.has_value()) co_return flushed.error();
      }
    }
    co_return std::move((*written)->committed);
  }
}

Async<dcs::Lease> SqliteStore::renew(Duration ttl, TimePoint deadline) {
  if (ttl < ttl_min || ttl > ttl_max) {
    const auto text = fmt::format("the ttl is {} ms, the limits are {} ms and {} ms",
                                  ttl / milliseconds(1),
                                  ttl_min / milliseconds(1),
                                  ttl_max / milliseconds(1));
    co_return impl_->refuse("renew", text);
  }
  for (int attempt = 0;; ++attempt) {
    auto ready = co_await impl_->turn("renew", deadline, errc::unavailable, attempt);
    if (!ready.has_value()) co_return ready.error();
    auto renewed = impl_->file.renew(impl_->session, ttl);
    if (!renewed) continue;
    if (!renewed->has_value()) {
      const Error error = renewed->error();
      // Reported once; the next call opens another session.
      if (error.is(errc::session_lost)) impl_->session.clear();
      co_return error;
    }
    impl_->session = (*renewed)->session.str();
    impl_->keep_log_short();
    co_return std::move(**renewed);
  }
}

Async<void> SqliteStore::end_session(TimePoint deadline) {
  if (impl_->session.empty()) co_return Result<void>();
  for (int attempt = 0;; ++attempt) {
    auto ready = co_await impl_->turn("end_session", deadline, errc::unavailable, attempt);
    if (!ready.has_value()) co_return ready.error();
    auto ended = impl_->file.end_session(impl_->session);
    if (!ended) continue;
    if (!ended->has_value()) co_return ended->error();
    impl_->session.clear();
    if (**ended) impl_->wake.announce();
    co_return Result<void>();
  }
}

Async<dcs::Index> SqliteStore::changed_since(dcs::Index seen, TimePoint deadline) {
  Wake::Waiter waiter(impl_->wake);
  std::size_t looks = std::size(looks_again);
  for (int attempt = 0;;) {
    auto ready = co_await impl_->turn("changed_since", deadline, errc::timed_out, attempt);
    if (!ready.has_value()) co_return ready.error();
    // Watch first, look then: what happens in between is signalled.
    if (auto opened = impl_->wake.open(impl_->wake_file); !opened.has_value())
      impl_->log.debug("{}: looking by itself: {}", impl_->file.name(), opened.error().text());
    auto position = impl_->file.position();
    if (!position) {
      ++attempt;
      continue;
    }
    if (!position->has_value()) co_return position->error();
    // Unequal, not greater: when the file was replaced its numbers start again.
    if ((*position)->index != seen) co_return (*position)->index;
    const auto expiry = (*position)->next_expiry;
    if (expiry && *expiry <= impl_->clock.now()) {
      // Everybody who waits does this at the same time; the one who gets the lock wakes the others.
      auto purged = impl_->file.purge();
      if (purged && !purged->has_value()) co_return purged->error();
      if (purged && **purged) impl_->wake.announce();
      attempt = purged ? 0 : attempt + 1;
      continue;
    }
    attempt = 0;
    TimePoint until = expiry ? std::min(deadline, *expiry) : deadline;
    const TimePoint now = impl_->clock.now();
    if (looks < std::size(looks_again)) until = std::min(until, now + looks_again[looks++]);
    if (!impl_->wake.is_listening()) until = std::min(until, now + look_without_inotify);
    auto woken = co_await impl_->wait(waiter, until);
    if (!woken.has_value()) co_return woken.error();
    if (*woken) looks = 0;
  }
}

}  // namespace spilo::sqlite
