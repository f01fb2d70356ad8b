#include "spilo/config/yaml.hpp"

#include <doctest/doctest.h>

#include <random>

using namespace spilo;
using namespace spilo::config;

namespace {

std::string read(std::string_view text) {
  const auto document = parse_yaml(text);
  REQUIRE_MESSAGE(document.has_value(), document.error().detail());
  return json::dump(document->value);
}
std::string refused(std::string_view text) {
  const auto document = parse_yaml(text);
  REQUIRE_MESSAGE(document.has_error(), text);
  return document.error().detail();
}

}  // namespace

TEST_CASE("yaml: plain scalars mean what YAML 1.1 says") {
  const std::pair<const char*, const char*> rows[] = {
      {"on", "true"},
      {"Off", "false"},
      {"yes", "true"},
      {"NO", "false"},
      {"true", "true"},
      {"y", "\"y\""},
      {"oN", "\"oN\""},
      {"~", "null"},
      {"null", "null"},
      {"", "null"},
      {"10", "10"},
      {"-7", "-7"},
      {"+7", "7"},
      {"0", "0"},
      {"010", "8"},
      {"0644", "420"},
      {"-010", "-8"},
      {"08", "\"08\""},
      {"0x1F", "31"},
      {"0b101", "5"},
      {"1_000", "1000"},
      {"1:30", "90"},
      {"1:30:00", "5400"},
      {"1:60", "\"1:60\""},
      {"1:", "{\"1\":null}"},
      {"1e3", "\"1e3\""},
      {"1.5", "1.5"},
      {"1.", "1.0"},
      {".5", "0.5"},
      {"1.5e+3", "1500.0"},
      {"1.5e3", "\"1.5e3\""},
      {"-.5", "\"-.5\""},
      {"2026-01-01", "\"2026-01-01\""},
      {"127.0.0.1", "\"127.0.0.1\""},
      {"127.0.0.1:8008", "\"127.0.0.1:8008\""},
      {"10MB", "\"10MB\""},
      {"'10'", "\"10\""},
      {"\"on\"", "\"on\""},
      {"!!str 10", "\"10\""},
      {"!!int '10'", "10"},
      {"99999999999999999999", "\"99999999999999999999\""},
      {"a b", "\"a b\""},
      {"9223372036854775807", "9223372036854775807"},
  };
  for (const auto& row : rows) {
    const auto& text = row.first;  // clang 14 can't capture a structured binding
    const auto& expected = row.second;
    CAPTURE(text);
    CHECK(read(text) == expected);
  }
}

TEST_CASE("yaml: structure, order, anchors, merge keys") {
  CHECK(read("b: 1\na: [x, {y: on}]\nc: |\n  t\n") == R"({"b":1,"a":["x",{"y":true}],"c":"t\n"})");
  CHECK(read("base: &b {x: 1, y: 2}\nn:\n  <<: *b\n  y: 3\n") ==
        R"({"base":{"x":1,"y":2},"n":{"x":1,"y":3}})");
  CHECK(read("n:\n  y: 3\n  <<: [{y: 4, x: 5}, {x: 6, z: 7}]\n") == R"({"n":{"y":3,"x":5,"z":7}})");
  CHECK(read("on: 1\n2: x\n") == R"({"on":1,"2":"x"})");
  CHECK(read("# nothing\n") == "null");
}

TEST_CASE("yaml: keys know their lines, and duplicates are reported") {
  const auto document = parse_yaml("a: 1\nb:\n  c: 2\n  d: 3\n  c: 4\na: 5\n");
  REQUIRE(document.has_value());
  CHECK(document->lines.at("b.c") == 5);
  CHECK(json::dump(document->value) == R"({"a":5,"b":{"c":4,"d":3}})");
  REQUIRE(document->duplicates.size() == 2);
  CHECK(document->duplicates[0].path == "b.c");
  CHECK(document->duplicates[0].line == 5);
  CHECK(document->duplicates[0].first_line == 3);
  CHECK(document->duplicates[1].path == "a");
}

TEST_CASE("yaml: what can't be read says where") {
  CHECK(refused("a: [1\nb: 2\n").starts_with("line 2, column 2: "));
  CHECK(refused("a: b: c").starts_with("line 1, "));
  CHECK(refused("a: 1\n---\nb: 2\n") == "holds 2 YAML documents (separated by ---), must be one");
  // yaml-cpp would never get past these.
  for (const char* stuck : {",", ",a: b\n", "---\n,a\n", "# c\n, x\n"})
    CHECK(refused(stuck).find("nothing can begin with what stands here") != std::string::npos);
  CHECK(refused("a: !!python/object:os.system x").find("tag") != std::string::npos);
  CHECK(refused("a: !own x").find("tag") != std::string::npos);
  CHECK(refused("? [a, b]\n: c").find("a key must be a text") != std::string::npos);
  CHECK(refused("a: *missing").starts_with("line 1, "));
  CHECK(refused("<<: 5").find("must be followed by a mapping") != std::string::npos);
  CHECK(refused(std::string(100, '[') + std::string(100, ']')).find("nested deeper") !=
        std::string::npos);
  CHECK_FALSE(parse_yaml(std::string(100000, '[')).has_value());
  std::string bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n";
  for (char name = 'b'; name < 'j'; ++name) {
    bomb += std::string(1, name) + ": &" + name + " [";
    for (int i = 0; i < 9; ++i) bomb += std::string(i ? ",*" : "*") + static_cast<char>(name - 1);
    bomb += "]\n";
  }
  CHECK(refused(bomb).find("aliases repeat too much") != std::string::npos);
}

TEST_CASE("yaml: written as show-config prints it") {
  const auto value = json::parse(
      R"({"ttl":30,"postgresql":{"use_pg_rewind":true,"parameters":{"wal_level":"on","max":"100","x.y":1.5,"t":"2026-01-01"},"pg_hba":["host all all 0.0.0.0/0 md5","local all"],"e":{},"l":[]},"n":null,"s":"it's: # x","m":"a\nb","nested":[["a",1],{"k":"v","a":"-"}],"on":"=","esc":"a: b","emp":""})");
  REQUIRE(value.has_value());
  CHECK(dump_yaml(*value) == R"(emp: ''
esc: 'a: b'
m: "a\nb"
n: null
nested:
- - a
  - 1
- a: '-'
  k: v
'on': '='
postgresql:
  e: {}
  l: []
  parameters:
    max: '100'
    t: '2026-01-01'
    wal_level: 'on'
    x.y: 1.5
  pg_hba:
  - host all all 0.0.0.0/0 md5
  - local all
  use_pg_rewind: true
s: 'it''s: # x'
ttl: 30
)");
  CHECK(dump_yaml(json::Value("x")) == "x\n");
  CHECK(dump_yaml(json::Value::object()) == "{}\n");
  CHECK(dump_yaml(json::Value(1e20)) == "1.0e+20\n");
}

TEST_CASE("yaml: every text and number survives being written and read") {
  std::mt19937 random(7);
  constexpr std::string_view alphabet =
      " \t\n:#-?'\"\\{}[],&*!|>%@`0123456789._eE+~abonyfxNO=<\x7f\x01";
  for (int round = 0; round < 3000; ++round) {
    std::string text;
    for (auto size = random() % 8; size > 0; --size) text += alphabet[random() % alphabet.size()];
    auto value = json::Value::object();
    value.set("k" + text, text);
    auto list = json::Value::array();
    list.push(text).push(json::Value(static_cast<std::int64_t>(random()) - 2147483648));
    list.push(json::Value(static_cast<double>(random()) / 1e5));
    value.set("l", std::move(list));
    const auto written = dump_yaml(value, KeyOrder::as_is);
    CAPTURE(written);
    const auto back = parse_yaml(written);
    REQUIRE(back.has_value());
    CHECK(back->value == value);
  }
}

TEST_CASE("yaml: a key may be longer than a reader looks for its colon") {
  for (const std::size_t size : {900u, 1000u, 1024u, 5000u}) {
    auto list = json::Value::array();
    list.push("x");
    auto value = json::Value::object();
    value.set(std::string(size, 'k'), 1).set(std::string(size, 'l'), list);
    value.set(std::string(size, '\x02'), json::Value::object().set(std::string(size, 'm'), list));
    const auto back = parse_yaml(dump_yaml(value, KeyOrder::as_is));
    REQUIRE_MESSAGE(back.has_value(), back.error().text());
    CHECK(back->value == value);
  }
}

TEST_CASE("yaml: mutated files never throw") {
  const std::string seed =
      "scope: batman\nname: &n a\npostgresql:\n  listen: '*:5432'\n  parameters: {a: 1, b: [x, "
      "*n]}\n"
      "  pg_hba:\n  - host all all 0.0.0.0/0 md5\n  <<: {x: 0x1F}\nt: |\n  text\n  more\nz: !!str "
      "5\n";
  std::mt19937 random(9);
  std::size_t fine = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string text = seed;
    for (auto edits = 1 + random() % 4; edits > 0; --edits) {
      const auto at = random() % text.size();
      if (random() % 2 == 0)
        text[at] = static_cast<char>(random() % 256);
      else
        text.insert(at, 1, ":\n -[]{}&*!|'\"#?"[random() % 15]);
    }
    if (const auto document = parse_yaml(text)) {
      ++fine;
      (void)dump_yaml(document->value);
    }
  }
  CHECK(fine > 50);
}
