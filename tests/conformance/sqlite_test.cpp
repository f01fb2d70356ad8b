// The SQLite adapter: the conformance suite, and what only a file can get wrong.
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <sqlite3.h>
#include <sys/stat.h>

#include <fstream>

#include "sqlite_subject.hpp"
#include "support/run.hpp"

using namespace spilo;
using namespace spilo::test;
using namespace std::chrono_literals;

namespace {

Result<dcs::Snapshot> read(SqliteSubject& subject, dcs::Store& store) {
  return run(subject.context(),
             store.read(dcs::Freshness::linearizable, subject.clock().now() + 2s));
}

Result<dcs::Committed> put(SqliteSubject& subject,
                           dcs::Store& store,
                           std::string key,
                           dcs::Binding binding = dcs::Binding::permanent) {
  dcs::Transaction change;
  change.put(std::move(key), "x", binding);
  return run(subject.context(), store.commit(std::move(change), subject.clock().now() + 2s));
}

Result<dcs::Lease> renew(SqliteSubject& subject, dcs::Store& store, Duration ttl = 2s) {
  return run(subject.context(), store.renew(ttl, subject.clock().now() + 2s));
}

void run_sql(const std::string& file, const std::string& sql) {
  sqlite3* db = nullptr;
  REQUIRE(sqlite3_open(file.c_str(), &db) == SQLITE_OK);
  CHECK(sqlite3_exec(db, sql.c_str(), nullptr, nullptr, nullptr) == SQLITE_OK);
  sqlite3_close(db);
}

// What opening `file` gives, for a read and for a write alike.
Error refusal(const std::string& file) {
  boost::asio::io_context io{1};
  SystemClock clock(io.get_executor());
  sqlite::Options options;
  options.file = file;
  options.scope = Scope("demo");
  sqlite::SqliteStore store(io.get_executor(), clock, std::move(options));
  auto first = run(io, store.read(dcs::Freshness::linearizable, clock.now() + 1s));
  REQUIRE(first.has_error());
  dcs::Transaction change;
  change.put("config", "{}");
  auto second = run(io, store.commit(std::move(change), clock.now() + 1s));
  REQUIRE(second.has_error());
  CHECK(second.error().code() == first.error().code());
  // A file that can't be opened is a certain failure: nothing was written anywhere.
  CHECK(is_certain(second.error()));
  CHECK_MESSAGE(first.error().detail().find(file) != std::string::npos, first.error().text());
  return first.error();
}

bool mentions(const Error& error, std::string_view text) {
  return error.detail().find(text) != std::string::npos;
}

}  // namespace

TEST_CASE("sqlite: the conformance suite") {
  TempDir folder;
  SqliteSubject subject(folder);
  testing::dcs_conformance::check_conformance(subject);
}

TEST_CASE("sqlite: each file that can't be used has its own error") {
  TempDir folder;
  const auto missing = refusal(folder / "no/such/store.db");
  CHECK_MESSAGE((missing.is(errc::unavailable) && mentions(missing, "create it")), missing.text());

  const auto directory = refusal(folder.path());
  CHECK_MESSAGE(directory.is(errc::invalid_argument), directory.text());

  // Not even root may create a file there.
  const auto unwritable = refusal("/sys/store.db");
  CHECK_MESSAGE(unwritable.is(errc::denied), unwritable.text());

  std::ofstream(folder / "text.db") << std::string(5000, 'x');
  const auto text = refusal(folder / "text.db");
  CHECK_MESSAGE((text.is(errc::invalid_argument) && mentions(text, "not an SQLite database")),
                text.text());

  run_sql(folder / "foreign.db", "CREATE TABLE customers(id); PRAGMA user_version = 7");
  const auto foreign = refusal(folder / "foreign.db");
  CHECK_MESSAGE((foreign.is(errc::invalid_argument) && mentions(foreign, "another program")),
                foreign.text());

  {
    SqliteSubject subject(folder);
    REQUIRE(put(subject, subject.client(Scope("demo")), "config").has_value());
  }
  run_sql(folder / "store.db", "PRAGMA user_version = 2");
  const auto newer = refusal(folder / "store.db");
  CHECK_MESSAGE((newer.is(errc::unsupported) && mentions(newer, "version 2")), newer.text());
}

TEST_CASE("sqlite: a foreign database is left as it was") {
  TempDir folder;
  run_sql(folder / "foreign.db", "CREATE TABLE customers(id)");
  const auto content = [&] {
    std::ifstream in(folder / "foreign.db", std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(in), {});
  };
  const std::string before = content();
  refusal(folder / "foreign.db");
  CHECK(content() == before);
  CHECK(!std::filesystem::exists(folder / "foreign.db-wal"));
}

TEST_CASE("sqlite: a ttl beyond the limits is refused with the limits") {
  TempDir folder;
  SqliteSubject subject(folder);
  auto& store = subject.client(Scope("demo"));
  const auto low = renew(subject, store, 999ms);
  REQUIRE(low.has_error());
  CHECK(low.error().is(errc::invalid_argument));
  CHECK_MESSAGE(mentions(low.error(), "1000 ms"), low.error().text());
  CHECK(renew(subject, store, 1s).has_value());
  CHECK(renew(subject, store, 25h).has_error());
}

TEST_CASE("sqlite: sessions of an earlier boot are over at once") {
  TempDir folder;
  SqliteSubject subject(folder);
  auto& before = subject.client(Scope("demo"), "boot one");
  auto& after = subject.client(Scope("demo"), "boot two");
  REQUIRE(renew(subject, before, 1h).has_value());
  REQUIRE(put(subject, before, "leader", dcs::Binding::session).has_value());
  REQUIRE(put(subject, before, "config").has_value());
  const auto seen = read(subject, after);
  REQUIRE(seen.has_value());
  CHECK(seen->find("leader") == nullptr);
  CHECK(seen->find("config") != nullptr);
  dcs::Transaction take;
  take.require("leader", dcs::Condition::absent()).put("leader", "after");
  CHECK(run(subject.context(), after.commit(std::move(take), subject.clock().now() + 2s))
            .has_value());
  CHECK(renew(subject, before, 1h).error().is(errc::session_lost));
}

TEST_CASE("sqlite: when the file is deleted or replaced, its sessions are lost and nothing hangs") {
  TempDir folder;
  SqliteSubject subject(folder);
  auto& store = subject.client(Scope("demo"));
  auto& other = subject.client(Scope("demo"));
  REQUIRE(put(subject, other, "config").has_value());
  REQUIRE(renew(subject, store).has_value());
  REQUIRE(put(subject, store, "leader", dcs::Binding::session).has_value());
  for (const char* suffix : {"", "-wal", "-shm", "-wake"})
    std::filesystem::remove(subject.file() + suffix);
  auto lost = renew(subject, store);
  REQUIRE(lost.has_error());
  CHECK_MESSAGE(lost.error().is(errc::session_lost), lost.error().text());
  CHECK(renew(subject, store).has_value());
  const auto seen = read(subject, store);
  REQUIRE(seen.has_value());
  CHECK(seen->all().empty());
  // A waiter is woken through the new files, also by a client that had the old ones open.
  std::vector<std::string> order;
  boost::asio::co_spawn(subject.context(),
                        store.changed_since(seen->index(), subject.clock().now() + 5s),
                        [&](std::exception_ptr failure, Result<dcs::Index> changed) {
                          if (failure) std::rethrow_exception(failure);
                          order.push_back(changed.has_value() ? "woken" : changed.error().text());
                        });
  REQUIRE(put(subject, other, "config").has_value());
  CHECK(run_until(
      subject.context(), [&] { return !order.empty(); }, 3s));
  CHECK(order == std::vector<std::string>{"woken"});
}

TEST_CASE("sqlite: renewals of other sessions do not return from changed_since") {
  TempDir folder;
  SqliteSubject subject(folder);
  auto& leader = subject.client(Scope("demo"));
  auto& waiter = subject.client(Scope("demo"));
  REQUIRE(renew(subject, leader).has_value());
  REQUIRE(put(subject, leader, "leader", dcs::Binding::session).has_value());
  const auto seen = read(subject, waiter);
  REQUIRE(seen.has_value());
  bool ended = false;
  boost::asio::co_spawn(subject.context(),
                        waiter.changed_since(seen->index(), subject.clock().now() + 600ms),
                        [&](std::exception_ptr failure, Result<dcs::Index> changed) {
                          if (failure) std::rethrow_exception(failure);
                          CHECK(changed.has_error());
                          CHECK(changed.error().is(errc::timed_out));
                          ended = true;
                        });
  int renewals = 0;
  while (!ended) {
    REQUIRE(renew(subject, leader).has_value());
    ++renewals;
    run(subject.context(), [](Clock& clock) -> Async<bool> {
      co_return co_await sleep_until(clock, clock.now() + 10ms);
    }(subject.clock()));
  }
  CHECK(renewals > 5);
}

TEST_CASE("sqlite: the log of the database does not grow without end") {
  TempDir folder;
  SqliteSubject subject(folder);
  auto& store = subject.client(Scope("demo"));
  const std::string large(200'000, 'v');
  std::uintmax_t largest = 0;
  for (int i = 0; i < 150; ++i) {
    dcs::Transaction change;
    change.put("config", large + fmt::format("{}", i));
    REQUIRE(run(subject.context(), store.commit(std::move(change), subject.clock().now() + 10s))
                .has_value());
    largest = std::max(largest, std::filesystem::file_size(subject.file() + "-wal"));
  }
  // 30 MB were written; a checkpoint is due each 4 MB, and some more may be written until it is
  // done.
  CHECK(largest > 3'000'000);
  CHECK(largest < 15'000'000);
}
