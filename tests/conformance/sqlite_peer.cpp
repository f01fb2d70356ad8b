// Another process on the file of an SQLite store, for tests that need one: to be killed, to be
// frozen, to write from outside.
//   lock FILE               takes the write lock, says "locked", and keeps it until it is killed
//   hold FILE SCOPE TTL_MS  opens a session, binds the key "leader", and renews; says "valid
//   NANOSECONDS" after each renewal write FILE SCOPE COUNT PAUSE_MS
//                           puts 1, 2, … as the key "status"; says "wrote VALUE NANOSECONDS", the
//                           time after it, for each
//   silent FILE SCOPE       changes the key "status" as a writer that is killed between its COMMIT
//   and its announcement
#include <fcntl.h>
#include <fmt/core.h>
#include <sqlite3.h>
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>

#include "spilo/runtime/system_clock.hpp"
#include "spilo/sqlite/sqlite_store.hpp"

using namespace spilo;
using namespace std::chrono_literals;
namespace asio = boost::asio;

namespace {

void say(const std::string& line) {
  fmt::print("{}\n", line);
  std::fflush(stdout);
}

void check(const Error& error) {
  fmt::print(stderr, "peer: {}\n", error.text());
  std::_Exit(1);
}

struct Peer {
  Peer(std::string file, std::string scope) : clock(io.get_executor()) {
    sqlite::Options options;
    options.file = std::move(file);
    options.scope = Scope(std::move(scope));
    options.log = Logger(LogLevel::warning, [](LogLevel, std::string_view text) {
      fmt::print(stderr, "peer: {}\n", text);
    });
    store = std::make_unique<sqlite::SqliteStore>(io.get_executor(), clock, std::move(options));
  }
  void run(asio::awaitable<void> work) {
    asio::co_spawn(io, std::move(work), [](std::exception_ptr failure) {
      if (failure) std::rethrow_exception(failure);
    });
    io.run();
  }
  asio::io_context io{1};
  SystemClock clock;
  std::unique_ptr<sqlite::SqliteStore> store;
};

asio::awaitable<void> put(Peer& peer, std::string key, std::string value, dcs::Binding binding) {
  dcs::Transaction change;
  change.put(std::move(key), std::move(value), binding);
  auto done = co_await peer.store->commit(std::move(change), peer.clock.now() + 10s);
  if (!done.has_value()) check(done.error());
}

asio::awaitable<void> hold(Peer& peer, Duration ttl) {
  for (bool first = true;; first = false) {
    auto lease = co_await peer.store->renew(ttl, peer.clock.now() + 10s);
    if (!lease.has_value()) check(lease.error());
    if (first) co_await put(peer, "leader", "peer", dcs::Binding::session);
    say(fmt::format("valid {}", lease->valid_until.time_since_epoch().count()));
    co_await sleep_until(peer.clock, peer.clock.now() + ttl / 3);
  }
}

asio::awaitable<void> write(Peer& peer, int count, Duration pause) {
  for (int i = 1; i <= count; ++i) {
    co_await put(peer, "status", fmt::format("{}", i), dcs::Binding::permanent);
    say(fmt::format("wrote {} {}", i, peer.clock.now().time_since_epoch().count()));
    co_await sleep_until(peer.clock, peer.clock.now() + pause);
  }
}

sqlite3* open_raw(const char* file) {
  sqlite3* db = nullptr;
  if (sqlite3_open(file, &db) != SQLITE_OK) std::_Exit(1);
  sqlite3_busy_timeout(db, 5000);
  return db;
}

void run_raw(sqlite3* db, const std::string& sql) {
  if (sqlite3_exec(db, sql.c_str(), nullptr, nullptr, nullptr) == SQLITE_OK) return;
  fmt::print(stderr, "peer: {}: {}\n", sql, sqlite3_errmsg(db));
  std::_Exit(1);
}

[[noreturn]] void lock(const char* file) {
  run_raw(open_raw(file), "BEGIN IMMEDIATE");
  say("locked");
  for (;;) ::pause();
}

[[noreturn]] void silent(const std::string& file, const std::string& scope) {
  sqlite3* db = open_raw(file.c_str());
  run_raw(db, "BEGIN IMMEDIATE");
  run_raw(db, "UPDATE meta SET counter = counter + 1");
  run_raw(db,
          "UPDATE keys SET value = 'silent', count = (SELECT counter FROM meta) "
          "WHERE key = 'status' AND scope = '" +
              scope + "'");
  run_raw(db,
          "UPDATE scopes SET changed = (SELECT counter FROM meta) WHERE scope = '" + scope + "'");
  const int wake = ::open((file + "-wake").c_str(), O_WRONLY | O_CLOEXEC);
  [[maybe_unused]] const auto written = ::pwrite(wake, ".", 1, 0);
  // Long enough for the waiter to have looked and seen nothing.
  ::usleep(10'000);
  run_raw(db, "COMMIT");
  std::_Exit(0);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "";
  if (mode == "lock" && argc == 3) lock(argv[2]);
  if (mode == "silent" && argc == 4) silent(argv[2], argv[3]);
  if (mode == "hold" && argc == 5) {
    Peer peer(argv[2], argv[3]);
    peer.run(hold(peer, std::chrono::milliseconds(std::atoi(argv[4]))));
  }
  if (mode == "write" && argc == 6) {
    Peer peer(argv[2], argv[3]);
    peer.run(write(peer, std::atoi(argv[4]), std::chrono::milliseconds(std::atoi(argv[5]))));
    return 0;
  }
  return 2;
}
