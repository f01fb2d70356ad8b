#include "spilo/config/edit.hpp"

#include <doctest/doctest.h>

#include <random>

#include "spilo/config/yaml.hpp"

using namespace spilo;
using namespace spilo::config;

namespace {

// Applies a unified diff, so that what it says can be checked against the text it should make.
std::string patched(const std::string& before, const std::string& diff) {
  std::vector<std::string> lines;
  for (std::size_t at = 0; at < before.size();) {
    const auto end = before.find('\n', at);
    lines.push_back(before.substr(at, end - at));
    at = end + 1;
  }
  std::string out;
  std::size_t next = 0;
  for (std::size_t at = 0; at < diff.size();) {
    const auto end = diff.find('\n', at);
    const auto line = diff.substr(at, end - at);
    at = end + 1;
    if (line.starts_with("---") || line.starts_with("+++")) continue;
    if (line.starts_with("@@")) {
      const auto first = std::stoul(line.substr(4));
      const auto comma = line.find(',');
      const bool none = comma < line.find('+') && line.substr(comma, 3) == ",0 ";
      for (const auto start = none ? first : first - 1; next < start; ++next)
        out += lines[next] + "\n";
    } else if (line[0] == '+') {
      out += line.substr(1) + "\n";
    } else {
      REQUIRE(lines.at(next) == line.substr(1));
      if (line[0] == ' ') out += lines[next] + "\n";
      ++next;
    }
  }
  for (; next < lines.size(); ++next) out += lines[next] + "\n";
  return out;
}

}  // namespace

TEST_CASE("edit: settings by path") {
  const char* start =
      R"({"ttl":30,"postgresql":{"parameters":{"a.b":1,"work_mem":"4MB"}},"slots":{"x":{"type":"physical"}}})";
  const std::pair<const char*, const char*> rows[] = {
      {"ttl=20",
       R"({"ttl":20,"postgresql":{"parameters":{"a.b":1,"work_mem":"4MB"}},"slots":{"x":{"type":"physical"}}})"},
      {" pause = on",
       R"({"ttl":30,"postgresql":{"parameters":{"a.b":1,"work_mem":"4MB"}},"slots":{"x":{"type":"physical"}},"pause":true})"},
      {"slots.x=null", R"({"ttl":30,"postgresql":{"parameters":{"a.b":1,"work_mem":"4MB"}}})"},
      {"slots.x.type=", R"({"ttl":30,"postgresql":{"parameters":{"a.b":1,"work_mem":"4MB"}}})"},
      {"slots.y={type: logical, database: d}",
       R"({"ttl":30,"postgresql":{"parameters":{"a.b":1,"work_mem":"4MB"}},"slots":{"x":{"type":"physical"},"y":{"type":"logical","database":"d"}}})"},
      {"postgresql.parameters.a.b=null",
       R"({"ttl":30,"postgresql":{"parameters":{"work_mem":"4MB"}},"slots":{"x":{"type":"physical"}}})"},
      {"ttl.x=1",
       R"({"ttl":{"x":1},"postgresql":{"parameters":{"a.b":1,"work_mem":"4MB"}},"slots":{"x":{"type":"physical"}}})"},
      {"none.x=null", start},
      {"none.x.y=null", start},
  };
  for (const auto& row : rows) {
    const auto& setting = row.first;  // clang 14 can't capture a structured binding
    const auto& result = row.second;
    CAPTURE(setting);
    auto config = *json::parse(start);
    REQUIRE(apply_setting(config, setting).has_value());
    CHECK(json::dump(config) == result);
  }
  auto config = json::Value::object();
  REQUIRE(apply_parameter(config, " pg_stat.x = 'on'").has_value());
  CHECK(json::dump(config) == R"({"postgresql":{"parameters":{"pg_stat.x":"on"}}})");
  REQUIRE(apply_parameter(config, "pg_stat.x=").has_value());
  CHECK(json::dump(config) == "{}");
  for (const char* bad : {"ttl", "", "=1", "a..b=1", ".a=1", "a=[1", "a.=1"}) {
    CAPTURE(bad);
    const auto refused = apply_setting(config, bad);
    REQUIRE(refused.has_error());
    CHECK(refused.error().is(errc::invalid_argument));
    CHECK(refused.error().detail().starts_with("Invalid parameter setting "));
    CHECK(json::dump(config) == "{}");
  }
}

TEST_CASE("edit: the difference is what diff -u shows") {
  CHECK(unified_diff("a\nb\n", "a\nb\n").empty());
  CHECK(unified_diff("", "").empty());
  CHECK(unified_diff("loop_wait: 10\nttl: 30\n", "loop_wait: 10\nttl: 20\n") ==
        "--- \n+++ \n@@ -1,2 +1,2 @@\n loop_wait: 10\n-ttl: 30\n+ttl: 20\n");
  CHECK(unified_diff("", "a\n", "x", "y") == "--- x\n+++ y\n@@ -0,0 +1 @@\n+a\n");
  CHECK(unified_diff("a\n", "") == "--- \n+++ \n@@ -1 +0,0 @@\n-a\n");
  CHECK(
      unified_diff("1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12\n",
                   "1\nx\n2\n3\n4\n5\n6\n7\n8\n9\n10\n12\n") ==
      "--- \n+++ \n@@ -1,4 +1,5 @@\n 1\n+x\n 2\n 3\n 4\n@@ -8,5 +9,4 @@\n 8\n 9\n 10\n-11\n 12\n");
}

TEST_CASE("edit: applying the difference of random texts makes the second of the first") {
  std::mt19937 random(5);
  for (int round = 0; round < 400; ++round) {
    const auto text = [&] {
      std::string out;
      for (auto lines = random() % 25; lines > 0; --lines)
        out += std::string(1, "abcde"[random() % 5]) + "\n";
      return out;
    };
    const auto before = text();
    auto after = random() % 2 == 0 ? text() : before;
    if (!after.empty()) after.replace(2 * (random() % (after.size() / 2)), 1, "z");
    const auto diff = unified_diff(before, after);
    CAPTURE(before);
    CAPTURE(diff);
    CHECK(diff.empty() == (before == after));
    CHECK(patched(before, diff) == after);
  }
}

TEST_CASE("edit: any assignment is either applied or refused") {
  std::mt19937 random(6);
  constexpr std::string_view alphabet = "ab.=:{}[] '\"\n-postgresql";
  for (int round = 0; round < 2000; ++round) {
    std::string setting;
    for (auto size = random() % 14; size > 0; --size)
      setting += alphabet[random() % alphabet.size()];
    auto config = *json::parse(R"({"a":{"b":1},"postgresql":{"parameters":{"a":1}}})");
    const auto before = config;
    const auto result = apply_setting(config, setting);
    CHECK(config.is_object());
    if (!result) CHECK(config == before);
  }
}
