// The SQLite adapter between processes: one is killed, one is frozen, one writes from outside.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <sstream>

#include "sqlite_subject.hpp"
#include "support/run.hpp"

using namespace spilo;
using namespace spilo::test;
using namespace std::chrono_literals;
namespace asio = boost::asio;

namespace {

std::vector<std::string> peer(std::string mode, const std::string& file) {
  std::vector<std::string> command = {SPILO_SQLITE_PEER, std::move(mode), file};
  return command;
}

std::vector<std::string> peer(std::string mode,
                              const std::string& file,
                              const std::vector<std::string>& more) {
  auto command = peer(std::move(mode), file);
  command.insert(command.end(), more.begin(), more.end());
  return command;
}

// The time in the last line "valid NANOSECONDS".
TimePoint last_valid(const std::string& log) {
  const auto at = log.rfind("valid ");
  REQUIRE(at != std::string::npos);
  return TimePoint(Duration(std::stoll(log.substr(at + 6))));
}

asio::awaitable<void> follow(SqliteSubject& subject,
                             dcs::Store& store,
                             TimePoint limit,
                             std::function<bool(const dcs::Snapshot&)> until) {
  for (;;) {
    auto snapshot = co_await store.read(dcs::Freshness::linearizable, limit);
    if (!snapshot.has_value()) throw std::runtime_error(snapshot.error().text());
    if (until(*snapshot)) co_return;
    auto changed = co_await store.changed_since(snapshot->index(), limit);
    if (!changed.has_value()) throw std::runtime_error(changed.error().text());
    if (subject.clock().now() >= limit) throw std::runtime_error("it took too long");
  }
}

std::string value_of(const dcs::Snapshot& snapshot, std::string_view key) {
  const auto* entry = snapshot.find(key);
  return entry != nullptr ? entry->value : "";
}

}  // namespace

TEST_CASE("sqlite: the key of a killed process is free when its lease is over, not before") {
  TempDir folder;
  SqliteSubject subject(folder);
  auto& store = subject.client(Scope("demo"));
  Process holder(peer("hold", subject.file(), {"demo", "1500"}), folder / "holder.log");
  // It has renewed at least once, so the key is there and the lease is not the first one.
  REQUIRE(wait_until(
      [&] {
        const auto log = holder.log();
        return log.find("valid") != log.rfind("valid");
      },
      20s));
  holder.end(SIGKILL);
  const TimePoint valid_until = last_valid(holder.log());
  TimePoint gone{};
  bool was_there = false;
  subject.run_until(
      follow(subject, store, subject.clock().now() + 10s, [&](const dcs::Snapshot& s) {
        was_there = was_there || value_of(s, "leader") == "peer";
        gone = subject.clock().now();
        return value_of(s, "leader").empty();
      }));
  CHECK(was_there);
  // The last renewal may have been killed between its COMMIT and its message: then the key lives up
  // to a third of the ttl longer.
  CHECK(gone >= valid_until);
  CHECK(gone <= valid_until + 500ms + 300ms);
  MESSAGE("noticed ",
          std::chrono::duration<double, std::milli>(gone - valid_until).count(),
          " ms after valid_until");
}

TEST_CASE("sqlite: a change by another process wakes a waiter at once") {
  TempDir folder;
  SqliteSubject subject(folder);
  auto& store = subject.client(Scope("demo"));
  constexpr int count = 50;
  Process writer(peer("write", subject.file(), {"demo", fmt::format("{}", count), "20"}),
                 folder / "writer.log");
  std::map<std::string, TimePoint> seen;
  subject.run_until(
      follow(subject, store, subject.clock().now() + 30s, [&](const dcs::Snapshot& s) {
        seen.try_emplace(value_of(s, "status"), subject.clock().now());
        return value_of(s, "status") == fmt::format("{}", count);
      }));
  REQUIRE(writer.wait(10s));
  std::istringstream lines(writer.log());
  std::vector<double> delays_ms;
  std::string word;
  std::string value;
  long long at = 0;
  while (lines >> word >> value >> at)
    if (const auto found = seen.find(value); found != seen.end())
      delays_ms.push_back(
          std::chrono::duration<double, std::milli>(found->second - TimePoint(Duration(at)))
              .count());
  REQUIRE(delays_ms.size() > count / 2);
  std::ranges::sort(delays_ms);
  const double median = delays_ms[delays_ms.size() / 2];
  MESSAGE("median ", median, " ms, largest ", delays_ms.back(), " ms after the writer's return");
  CHECK(median < 20.0);
}

TEST_CASE("sqlite: a change whose writer was killed before it could announce it is seen") {
  TempDir folder;
  SqliteSubject subject(folder);
  auto& store = subject.client(Scope("demo"));
  dcs::Transaction change;
  change.put("status", "loud");
  REQUIRE(run(subject.context(), store.commit(std::move(change), subject.clock().now() + 5s))
              .has_value());
  std::unique_ptr<Process> silent;
  const TimePoint started = subject.clock().now();
  subject.run_until(follow(subject, store, started + 20s, [&](const dcs::Snapshot& s) {
    if (!silent)
      silent = std::make_unique<Process>(peer("silent", subject.file(), {"demo"}),
                                         folder / "silent.log");
    return value_of(s, "status") == "silent";
  }));
  CHECK(subject.clock().now() - started < 10s);
}

TEST_CASE("sqlite: a frozen process that holds the lock blocks no event loop") {
  TempDir folder;
  SqliteSubject subject(folder);
  auto& store = subject.client(Scope("demo"));
  const auto lease = run(subject.context(), store.renew(5s, subject.clock().now() + 5s));
  REQUIRE(lease.has_value());
  subject.run_until(subject.freeze_server());
  bool ended = false;
  const TimePoint deadline = subject.clock().now() + 700ms;
  asio::co_spawn(subject.context(),
                 store.renew(5s, deadline),
                 [&](std::exception_ptr failure, Result<dcs::Lease> renewed) {
                   if (failure) std::rethrow_exception(failure);
                   CHECK(renewed.has_error());
                   CHECK(renewed.error().is(errc::unavailable));
                   // The one who has to act is told whom to act on.
                   const auto text = renewed.error().detail();
                   CHECK_MESSAGE(text.find("(sqlite_peer) held the lock") != std::string::npos,
                                 text);
                   ended = true;
                 });
  Duration longest{};
  subject.run_until([](Clock& clock, bool& over, Duration& worst) -> asio::awaitable<void> {
    TimePoint last = clock.now();
    while (!over) {
      co_await sleep_until(clock, last + 1ms);
      const TimePoint now = clock.now();
      worst = std::max(worst, now - last);
      last = now;
    }
  }(subject.clock(), ended, longest));
  const TimePoint over = subject.clock().now();
  CHECK(over >= deadline);
  CHECK(over < deadline + 200ms);
  // Reads go on: whoever only wants to show the cluster is not affected.
  const auto seen =
      run(subject.context(), store.read(dcs::Freshness::linearizable, subject.clock().now() + 1s));
  CHECK(seen.has_value());
  MESSAGE("longest pause of the loop ",
          std::chrono::duration<double, std::milli>(longest).count(),
          " ms");
  CHECK(longest < 100ms);
  subject.run_until(subject.thaw_server());
  CHECK(run(subject.context(), store.renew(5s, subject.clock().now() + 5s)).has_value());
}

TEST_CASE("sqlite: several processes create the file at the same time") {
  TempDir folder;
  SqliteSubject subject(folder);
  std::vector<std::unique_ptr<Process>> writers;
  for (int i = 0; i < 5; ++i) {
    const auto scope = fmt::format("scope{}", i);
    writers.push_back(std::make_unique<Process>(peer("write", subject.file(), {scope, "20", "0"}),
                                                folder / (scope + ".log")));
  }
  for (auto& writer : writers) {
    REQUIRE(writer->wait(30s));
    CHECK_MESSAGE(writer->status() == 0, writer->log());
  }
  std::map<std::uint64_t, int> counts;
  for (int i = 0; i < 5; ++i) {
    auto& store = subject.client(Scope(fmt::format("scope{}", i)));
    const auto seen = run(subject.context(),
                          store.read(dcs::Freshness::linearizable, subject.clock().now() + 5s));
    REQUIRE(seen.has_value());
    REQUIRE(value_of(*seen, "status") == "20");
    ++counts[seen->find("status")->version.count];
  }
  // One counter for all: no number was given twice.
  CHECK(counts.size() == 5);
  CHECK(counts.rbegin()->first == 100);
}
