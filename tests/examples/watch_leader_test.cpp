// examples/watch_leader: on a store file whose leader key is changed through the library.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <boost/asio/io_context.hpp>
#include <fstream>

#include "example.hpp"
#include "spilo/model/keys.hpp"
#include "spilo/runtime/system_clock.hpp"
#include "spilo/sqlite/sqlite_store.hpp"
#include "support/run.hpp"

using namespace spilo;
using namespace spilo::test;
using namespace std::chrono_literals;

namespace {

// A node of the cluster "demo", as far as its leader key goes.
class Leader {
 public:
  explicit Leader(const std::string& file) : clock_(io_.get_executor()) {
    sqlite::Options options;
    options.file = file;
    options.scope = Scope("demo");
    store_ = std::make_unique<sqlite::SqliteStore>(io_.get_executor(), clock_, std::move(options));
  }
  // Returns the token of the grant.
  std::uint64_t lead(const std::string& name) {
    REQUIRE(run(io_, store_->renew(10s, clock_.now() + 10s)).has_value());
    dcs::Transaction take;
    take.put(keys::leader, name, dcs::Binding::session);
    const auto done = run(io_, store_->commit(std::move(take), clock_.now() + 10s));
    REQUIRE(done.has_value());
    return done->version_of(keys::leader)->era;
  }
  void leave() { REQUIRE(run(io_, store_->end_session(clock_.now() + 10s)).has_value()); }
  void disturb() {
    dcs::Transaction change;
    change.put(keys::status, "{}");
    REQUIRE(run(io_, store_->commit(std::move(change), clock_.now() + 10s)).has_value());
  }

 private:
  boost::asio::io_context io_{1};
  SystemClock clock_;
  std::unique_ptr<sqlite::SqliteStore> store_;
};

// "2026-01-31 12:00:00  n1 leads, token 3" without its time.
std::vector<std::string> events_of(const Process& process) {
  std::vector<std::string> events;
  for (const auto& line : lines_of(process.log()))
    if (line.size() > 21 && line[4] == '-') events.push_back(line.substr(21));
  return events;
}

void follow_changes(const TempDir& folder, std::vector<std::string> command) {
  Leader leader(folder / "store.db");
  const auto first = leader.lead("n1");
  Process watcher(std::move(command), folder / "watcher.log");
  wait_for_text(watcher, fmt::format("n1 leads, token {}", first));
  leader.disturb();
  leader.leave();
  wait_for_text(watcher, "nobody leads");
  const auto second = leader.lead("n2");
  REQUIRE(second > first);
  wait_for_text(watcher, fmt::format("n2 leads, token {}", second));
  CHECK(watcher.running());
  // Each change once, and nothing else.
  CHECK(events_of(watcher) == std::vector<std::string>{fmt::format("n1 leads, token {}", first),
                                                       "nobody leads",
                                                       fmt::format("n2 leads, token {}", second)});
}

}  // namespace

TEST_CASE("watch_leader: prints each change of the leader, by the store's URL") {
  TempDir folder;
  follow_changes(folder, {WATCH_LEADER_PROGRAM, "sqlite://" + folder / "store.db", "demo"});
}

TEST_CASE("watch_leader: prints each change of the leader, by the node's configuration") {
  TempDir folder;
  std::ofstream(folder / "node.yml")
      << "scope: demo\nname: n1\nsqlite: {path: " << folder / "store.db"
      << "}\n";
  follow_changes(folder, {WATCH_LEADER_PROGRAM, folder / "node.yml"});
}

TEST_CASE("watch_leader: says what is wrong with its arguments") {
  TempDir folder;
  Process missing({WATCH_LEADER_PROGRAM, "sqlite://" + folder / "none.db", "demo"},
                  folder / "missing.log");
  REQUIRE(missing.wait(20s));
  CHECK(WEXITSTATUS(missing.status()) == 1);
  CHECK_MESSAGE(missing.log().find("there is no file " + folder / "none.db") != std::string::npos,
                missing.log());
  Process scheme({WATCH_LEADER_PROGRAM, "mysql://h", "demo"}, folder / "scheme.log");
  REQUIRE(scheme.wait(20s));
  CHECK(WEXITSTATUS(scheme.status()) == 1);
  CHECK_MESSAGE(scheme.log().find("the scheme must be") != std::string::npos, scheme.log());
}
