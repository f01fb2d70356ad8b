#include "cli/edit_document.hpp"

#include <doctest/doctest.h>

#include "spilo/config/yaml.hpp"

using namespace spilo;
using namespace spilo::cli;

namespace {

std::string after(const char* document, const char* assignment, bool parameter = false) {
  auto value = *json::parse(document);
  const auto done = apply_assignment(value, assignment, parameter);
  return done.has_value() ? json::dump(value) : done.error().detail();
}

}  // namespace

TEST_CASE("-s sets a key by its path, with YAML's types") {
  CHECK(after(R"({"ttl":30})", "ttl=20") == R"({"ttl":20})");
  CHECK(after("{}", "a.b.c=on") == R"({"a":{"b":{"c":true}}})");
  CHECK(after("{}", "a=x=y") == R"({"a":"x=y"})");
  CHECK(after("{}", "slots={s1: {type: physical}}") == R"({"slots":{"s1":{"type":"physical"}}})");
}

TEST_CASE("what follows postgresql.parameters is one key") {
  CHECK(after("{}", "postgresql.parameters.pg_stat_statements.max=100") ==
        R"({"postgresql":{"parameters":{"pg_stat_statements.max":100}}})");
  CHECK(after("{}", "auto_explain.log_analyze=on", true) ==
        R"({"postgresql":{"parameters":{"auto_explain.log_analyze":true}}})");
}

TEST_CASE("null removes the key and the parents that are empty then") {
  CHECK(after(R"({"ttl":30,"a":{"b":{"c":1}}})", "a.b.c=null") == R"({"ttl":30})");
  CHECK(after(R"({"a":{"b":1,"c":2}})", "a.b=") == R"({"a":{"c":2}})");
  CHECK(after(R"({"ttl":30})", "a.b.c=null") == R"({"ttl":30})");
}

TEST_CASE("what is no assignment is refused with the cure") {
  CHECK(after("{}", "ttl").find("KEY=VALUE is needed") != std::string::npos);
  CHECK(after("{}", "=1").find("KEY=VALUE is needed") != std::string::npos);
  CHECK(after("{}", "a..b=1").find("a part between the dots is empty") != std::string::npos);
  CHECK(after("{}", "a=[1").find("a") == 0);
}

TEST_CASE("the difference of two texts is unified, with three lines around each change") {
  CHECK(unified_diff("a\nb\n", "a\nb\n").empty());
  CHECK(unified_diff("a\nttl: 10\n", "a\nttl: 20\n") ==
        "---\n+++\n@@ -1,2 +1,2 @@\n a\n-ttl: 10\n+ttl: 20\n");
  CHECK(unified_diff("", "x\n") == "---\n+++\n@@ -0,0 +1 @@\n+x\n");
  CHECK(unified_diff("1\n2\n3\n4\n5\n6\n7\n8\n9\n", "0\n2\n3\n4\n5\n6\n7\n8\n0\n") ==
        "---\n+++\n@@ -1,4 +1,4 @@\n-1\n+0\n 2\n 3\n 4\n@@ -6,4 +6,4 @@\n 6\n 7\n 8\n-9\n+0\n");
}
