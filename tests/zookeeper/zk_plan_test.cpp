// How transactions become multis, by table: what is checked, what is rewritten, what must be looked
// at first.
#include "zk_plan.hpp"

#include <doctest/doctest.h>
#include <fmt/format.h>

using namespace spilo;
using namespace spilo::zookeeper;

namespace {

constexpr std::int64_t us = 0xa1;
constexpr std::int64_t them = 0xb2;

// The scope's znode at 5; config permanent at 3, leader ours at 1, members/n1 another session's.
Known usual() {
  Known known;
  known.see_life(5);
  known.put("config", Node{100, 3, 0, 0});
  known.put("leader", Node{200, 1, us, 0});
  known.put("members/n1", Node{300, 7, them, 0});
  return known;
}

std::string shown(const Result<std::optional<Plan>>& plan) {
  if (plan.has_error()) return "refused: " + plan.error().text();
  if (!*plan) return "look";
  std::string out;
  for (const auto& step : (*plan)->steps) {
    constexpr const char* verbs[] = {"check", "create", "set", "erase"};
    out += fmt::format(
        "{}{} {}", out.empty() ? "" : ", ", verbs[static_cast<std::size_t>(step.kind)], step.path);
    if (step.kind == Step::Kind::create) {
      if (step.ephemeral) out += " bound";
    } else if (step.version >= 0) {
      out += fmt::format(" at {}", step.version);
    }
  }
  return out;
}

std::string planned(const dcs::Transaction& transaction, const Known& known, bool fresh = true) {
  return shown(make_plan(transaction, known, fresh, "/s", us));
}

dcs::Condition at(std::uint64_t era, std::uint64_t count) {
  return dcs::Condition::at(dcs::Version{era, count});
}

}  // namespace

TEST_CASE("plan: a put of what exists checks the life that it relies on") {
  dcs::Transaction put;
  put.put("config", "x");
  CHECK(planned(put, usual()) == "check /s at 5, set /s/config");
  dcs::Transaction bound;
  bound.put("leader", "n1", dcs::Binding::session);
  CHECK(planned(bound, usual()) == "check /s at 5, set /s/leader");
}

TEST_CASE("plan: creating rewrites the scope's znode, and needs no look when absence is required") {
  dcs::Transaction race;
  race.require("initialize", dcs::Condition::absent());
  race.put("initialize", "", dcs::Binding::session);
  CHECK(planned(race, Known(), false) == "set /s, create /s/initialize bound, set /s/initialize");
  dcs::Transaction put;
  put.put("status", "1");
  CHECK(planned(put, usual(), false) == "look");
  CHECK(planned(put, usual(), true) == "set /s, create /s/status, set /s/status");
}

TEST_CASE(
    "plan: a requirement at a version compares the life, and checks it with the scope's znode") {
  dcs::Transaction fenced;
  fenced.require("leader", at(200, 1));
  fenced.put("config", "x");
  CHECK(planned(fenced, usual()) == "check /s at 5, check /s/leader at 1, set /s/config");
  // The same dataVersion in another life.
  dcs::Transaction stale;
  stale.require("leader", at(199, 1));
  stale.put("config", "x");
  CHECK(planned(stale, usual(), false) == "look");
  CHECK(planned(stale, usual()).starts_with("refused: leader is required at version 199/1"));
  dcs::Transaction missing;
  missing.require("sync", at(1, 0));
  missing.put("sync", "x");
  CHECK(planned(missing, usual(), false) == "look");
  CHECK(planned(missing, usual()).starts_with("refused: sync is required at a version"));
}

TEST_CASE("plan: taking a key from another session is erasing and creating in one step") {
  dcs::Transaction rebind;
  rebind.require("members/n1", at(300, 7));
  rebind.put("members/n1", "x", dcs::Binding::session);
  CHECK(planned(rebind, usual()) ==
        "set /s at 5, erase /s/members/n1 at 7, create /s/members/n1 bound, set /s/members/n1");
  dcs::Transaction unbind;
  unbind.put("leader", "x");
  CHECK(planned(unbind, usual()) ==
        "set /s at 5, erase /s/leader at 1, create /s/leader, set /s/leader");
}

TEST_CASE("plan: erasing, and requiring that nothing is there") {
  dcs::Transaction release;
  release.require("leader", at(200, 1));
  release.erase("leader");
  CHECK(planned(release, usual()) == "check /s at 5, erase /s/leader at 1");
  dcs::Transaction gone;
  gone.erase("sync");
  CHECK(planned(gone, usual(), false) == "look");
  CHECK(planned(gone, usual()) == "check /s at 5");
  dcs::Transaction guarded;
  guarded.require("sync", dcs::Condition::absent());
  guarded.put("config", "x");
  CHECK(planned(guarded, usual(), false) == "look");
  CHECK(planned(guarded, usual()) == "check /s at 5, set /s/config");
  dcs::Transaction refused;
  refused.require("config", dcs::Condition::absent());
  refused.put("config", "x");
  CHECK(planned(refused, usual(), false) == "look");
  CHECK(planned(refused, usual()).starts_with("refused: config is required to be absent"));
}

TEST_CASE("plan: of several changes of a key the last one counts") {
  dcs::Transaction twice;
  twice.put("config", "x");
  twice.erase("config");
  CHECK(planned(twice, usual()) == "check /s at 5, erase /s/config");
}

TEST_CASE("known: what was seen in an earlier life of the scope is forgotten") {
  auto known = usual();
  known.see_life(5);
  CHECK(known.find("config") != nullptr);
  known.see_own_life(6);  // our own creation, and nobody's in between
  CHECK(known.find("config") != nullptr);
  known.see_own_life(8);  // somebody created something
  CHECK(known.find("config") == nullptr);
  known.put("config", Node{});
  known.see_life(9);
  CHECK(known.find("config") == nullptr);
  CHECK(known.life() == 9);
}

TEST_CASE("folders above what is created, outermost first") {
  dcs::Transaction put;
  put.put("members/n2", "x");
  Known known;
  known.see_life(1);
  const auto plan = make_plan(put, known, true, "/a/s", us);
  REQUIRE(plan.has_value());
  CHECK(folders_of(**plan) == std::vector<std::string>{"/a", "/a/s", "/a/s/members"});
}

TEST_CASE("answers are counted whole, without events and pings") {
  const auto frame = [](std::int32_t xid, std::int32_t err, std::string body = {}) {
    std::string out;
    const auto word = [&](std::uint32_t value) {
      for (int shift = 24; shift >= 0; shift -= 8) out += static_cast<char>(value >> shift);
    };
    word(static_cast<std::uint32_t>(16 + body.size()));
    word(static_cast<std::uint32_t>(xid));
    word(0);
    word(7);
    word(static_cast<std::uint32_t>(err));
    return out + body;
  };
  CHECK(count_answers("").count == 0);
  const auto first = frame(1'700'000'000, 0, "/x");
  for (std::size_t cut = 0; cut < first.size(); ++cut)
    CHECK(count_answers(std::string_view(first).substr(0, cut)).count == 0);
  CHECK(count_answers(first + frame(-1, 0, "event") + frame(-2, 0)).count == 1);
  const auto both = count_answers(first + frame(-1, 0) + frame(1'700'000'001, 0));
  CHECK(both.count == 2);
  CHECK(both.last_is_good);
  CHECK_FALSE(count_answers(first + frame(1'700'000'001, -112)).last_is_good);
}
