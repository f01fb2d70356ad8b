#include <doctest/doctest.h>

#include "spilo/core/json.hpp"

using namespace spilo;

TEST_CASE("json keeps order, escapes to ASCII and reads back what it wrote") {
  const auto value = json::parse(R"({"b":1,"a":[true,null,1.5,"é\n\ud83d\ude00"]})");
  REQUIRE(value.has_value());
  CHECK(json::dump(*value) == R"({"b":1,"a":[true,null,1.5,"\u00e9\n\ud83d\ude00"]})");
  CHECK(json::dump(*value, json::Style::spaced) ==
        R"({"b": 1, "a": [true, null, 1.5, "\u00e9\n\ud83d\ude00"]})");
}

TEST_CASE("json refuses what is not one document") {
  for (const char* text : {"", "{", "{} x", "[1,]", "nul", "\"\\ud800\""}) {
    CAPTURE(text);
    const auto value = json::parse(text);
    REQUIRE(value.has_error());
    CHECK(value.error().is(errc::protocol));
  }
  CHECK(json::parse(std::string(40, '[') + std::string(40, ']')).has_error());
}

TEST_CASE("merge_patch merges objects, removes nulls and ignores equal text") {
  auto target = *json::parse(R"({"ttl":30,"postgresql":{"parameters":{"a":1,"b":2}}})");
  CHECK_FALSE(json::merge_patch(target, *json::parse(R"({"ttl":"30"})")));
  CHECK(json::merge_patch(
      target, *json::parse(R"({"postgresql":{"parameters":{"a":null}},"x":{"y":null}})")));
  CHECK(json::dump(target) == R"({"ttl":30,"postgresql":{"parameters":{"b":2}},"x":{}})");
}
