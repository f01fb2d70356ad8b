#include "spilo/model/dynamic_config.hpp"

#include <doctest/doctest.h>

#include "spilo/model/spelling.hpp"

using namespace spilo;
using namespace std::chrono_literals;

namespace {

json::Value parsed(std::string_view text) {
  auto value = json::parse(text);
  REQUIRE_MESSAGE(value.has_value(), text);
  return *value;
}

}  // namespace

TEST_CASE("dynamic configuration: defaults are ours") {
  const auto config = parse_dynamic_config(json::Value::object());
  REQUIRE(config);
  DynamicConfig defaults;
  defaults.document = json::Value::object();
  CHECK(*config == defaults);
  CHECK(config->timing.ttl == 10s);
  CHECK(config->timing.loop_wait == 2s);
  CHECK(config->timing.retry_timeout == 4s);
  CHECK(config->failsafe_mode);
  CHECK(config->check_timeline);
}

TEST_CASE("dynamic configuration: every key is read, also in the forms that Patroni takes") {
  const auto config = parse_dynamic_config(parsed(
      R"({"ttl":"30","loop_wait":10,"retry_timeout":10.0,"maximum_lag_on_failover":"5",
          "master_start_timeout":0,"primary_stop_timeout":"1min","max_timelines_history":7,"pause":"on",
          "failsafe_mode":false,"check_timeline":"no","synchronous_mode":"Quorum","synchronous_mode_strict":1,
          "synchronous_node_count":2,"member_slots_ttl":"2h","postgresql":{"use_slots":"off"},"own":{"x":1}})"));
  REQUIRE(config);
  CHECK(config->timing == Timing{30s, 10s, 10s});
  CHECK(config->maximum_lag_on_failover == 5);
  CHECK(config->primary_start_timeout == 0s);
  CHECK(config->primary_stop_timeout == 60s);
  CHECK(config->max_timelines_history == 7);
  CHECK(config->pause);
  CHECK_FALSE(config->failsafe_mode);
  CHECK_FALSE(config->check_timeline);
  CHECK(config->synchronous_mode);
  CHECK(config->quorum_mode);
  CHECK(config->synchronous_mode_strict);
  CHECK(config->synchronous_node_count == 2);
  CHECK(config->member_slots_ttl == 2h);
  CHECK_FALSE(config->use_slots);
  CHECK(config->document.find_path("own.x") != nullptr);
}

TEST_CASE(
    "dynamic configuration: a value that can't be used gives its default, a timing none at all") {
  CHECK(parse_dynamic_config(parsed(R"({"maximum_lag_on_failover":"10MB"})"))
            ->maximum_lag_on_failover == 1048576);
  CHECK(parse_dynamic_config(parsed(R"({"primary_start_timeout":-1})"))->primary_start_timeout ==
        300s);
  CHECK(parse_dynamic_config(parsed(R"({"pause":"maybe"})"))->pause == false);
  for (const char* text : {"null",
                           "[]",
                           "1",
                           R"({"ttl":"30s"})",
                           R"({"loop_wait":[]})",
                           R"({"retry_timeout":1.5})",
                           R"({"ttl":99999999999999})"})
    CHECK_FALSE_MESSAGE(parse_dynamic_config(parsed(text)).has_value(), text);
}

TEST_CASE("dynamic configuration: stored sums that do not fit are adjusted, ttl stays") {
  struct Row {
    int ttl, loop_wait, retry_timeout;
    Timing adjusted;
  };
  const Row rows[] = {
      {30, 10, 10, {30s, 10s, 10s}},
      {20, 10, 10, {20s, 1s, 9s}},
      {25, 10, 10, {25s, 5s, 10s}},
      {20, 10, 3, {20s, 10s, 3s}},
      {1, 0, 0, {3s, 1s, 1s}},
      {3, 10, 10, {3s, 1s, 1s}},
      {4, 2, 2, {4s, 1s, 1s}},
  };
  for (const auto& row : rows) {
    CAPTURE(row.ttl);
    auto document = json::Value::object();
    document.set("ttl", row.ttl)
        .set("loop_wait", row.loop_wait)
        .set("retry_timeout", row.retry_timeout);
    const auto config = parse_dynamic_config(document);
    REQUIRE(config);
    CHECK(config->timing == row.adjusted);
    CHECK(config->document == document);
  }
}

TEST_CASE(
    "a standby cluster counts when it says where its data comes from, and is never synchronous") {
  CHECK_FALSE(parse_dynamic_config(parsed(R"({"standby_cluster":{}})"))->standby_cluster);
  CHECK_FALSE(parse_dynamic_config(parsed(R"({"standby_cluster":{"host":""}})"))->standby_cluster);
  const auto config =
      parse_dynamic_config(parsed(R"({"standby_cluster":{"port":5432},"synchronous_mode":true})"));
  CHECK(config->standby_cluster);
  CHECK_FALSE(config->synchronous_mode);
}

TEST_CASE("what is fine has no violations") {
  for (
      const char* text :
      {"{}",
       R"({"ttl":30,"loop_wait":10,"retry_timeout":10})",
       R"({"ttl":3,"loop_wait":1,"retry_timeout":1})",
       R"({"ttl":null,"pause":null})",
       R"({"ttl":"30","synchronous_mode":"quorum","synchronous_node_count":1,"failsafe_mode":"on"})",
       R"({"slots":{"a_1":null,"b":{"type":"physical"}},"ignore_slots":[{"name":"x"}],"own_key":1})",
       R"({"standby_cluster":{"host":"h","port":5432}})",
       R"({"member_slots_ttl":"30min","maximum_lag_on_syncnode":-1})",
       R"({"postgresql":{"use_pg_rewind":true,"parameters":{"max_connections":200,"wal_level":"logical"},"pg_hba":["local all all trust"]}})",
       R"({"postgresql":{"create_replica_methods":["base_backup"],"base_backup":{"command":"x"}}})"}) {
    const auto violations = validate_dynamic_config(parsed(text));
    CHECK_MESSAGE(violations.empty(), text, ": ", violations.empty() ? "" : violations[0].message);
  }
}

TEST_CASE("each violation names the value, the rule and the cure") {
  struct Row {
    const char* text;
    const char* path;
    const char* message;
  };
  const Row rows[] = {
      {R"({"ttl":20,"loop_wait":10,"retry_timeout":10})",
       "ttl",
       "loop_wait + 2*retry_timeout = 10 + 2*10 = 30 seconds must not be more than ttl = 20: a "
       "store "
       "that is slow for that long would cost the primary its lock; set ttl to at least 30, or "
       "retry_timeout to at most 5"},
      {R"({"loop_wait":10,"retry_timeout":10})",
       "ttl",
       "loop_wait + 2*retry_timeout = 10 + 2*10 = 30 seconds must not be more than ttl = 10 "
       "(default): "
       "a store that is slow for that long would cost the primary its lock; set ttl to at least "
       "30, or "
       "lower loop_wait and retry_timeout"},
      {R"({"ttl":5})",
       "ttl",
       "loop_wait + 2*retry_timeout = 2 (default) + 2*4 (default) = 10 seconds must not be more "
       "than "
       "ttl = 5: a store that is slow for that long would cost the primary its lock; set ttl to at "
       "least 10, or retry_timeout to at most 1"},
      {R"({"ttl":2})", "ttl", "must be at least 3 seconds, but is 2"},
      {R"({"ttl":"10s"})",
       "ttl",
       "must be a whole number of seconds without a unit, but is the text \"10s\"; write for "
       "example "
       "\"ttl: 3\""},
      {R"({"ttl":true})",
       "ttl",
       "must be a whole number of seconds without a unit, but is true; write for example \"ttl: "
       "3\""},
      {R"({"ttl":31536001})", "ttl", "must be at most 31536000 seconds, but is 31536001"},
      {R"({"maximum_lag_on_failover":"10MB"})",
       "maximum_lag_on_failover",
       "must be a whole number of bytes without a unit, but is the text \"10MB\"; write for "
       "example "
       "\"maximum_lag_on_failover: 1\""},
      {R"({"synchronous_node_count":0})",
       "synchronous_node_count",
       "must be at least 1 nodes, but is 0"},
      {R"({"synchronous_mode":"maybe"})",
       "synchronous_mode",
       "must be on, off or quorum, but is the text \"maybe\""},
      {R"({"failsafe_mode":[]})", "failsafe_mode", "must be true or false, but is a list"},
      {R"({"member_slots_ttl":"30 minutes"})",
       "member_slots_ttl",
       "must be a time such as 1800, 30min or 2h (units, in exactly this spelling: us ms s min h "
       "d), "
       "but is the text \"30 minutes\""},
      {R"({"loop_wiat":10})", "loop_wiat", "unknown key, did you mean loop_wait?"},
      {R"({"failsafe-mode":true})", "failsafe-mode", "unknown key, did you mean failsafe_mode?"},
      {R"({"postgresql":{"paramters":{}}})",
       "postgresql.paramters",
       "unknown key, did you mean postgresql.parameters?"},
      {R"({"postgresql":[]})", "postgresql", "must be an object, but is a list"},
      {R"({"postgresql":{"parameters":"x"}})",
       "postgresql.parameters",
       "must be an object such as {max_connections: 200}, but is the text \"x\""},
      {R"({"postgresql":{"parameters":{"max_connections":5}}})",
       "postgresql.parameters.max_connections",
       "must be a whole number, at least 25, but is 5"},
      {R"({"postgresql":{"parameters":{"wal_level":"minimal"}}})",
       "postgresql.parameters.wal_level",
       "must be replica or logical, or nobody can follow, but is the text \"minimal\""},
      {R"({"postgresql":{"pg_hba":"local"}})",
       "postgresql.pg_hba",
       "must be a list of lines, but is the text \"local\""},
      {R"({"slots":{"A":null}})",
       "slots.A",
       "is no slot name: only lower-case letters, digits and underscores, at most 63"},
      {R"({"standby_cluster":{"hots":"x"}})",
       "standby_cluster.hots",
       "unknown key, did you mean standby_cluster.host?"},
      {R"([])", "", "the configuration must be an object, but is a list"},
  };
  for (const auto& row : rows) {
    CAPTURE(row.text);
    const auto violations = validate_dynamic_config(parsed(row.text));
    REQUIRE(violations.size() == 1);
    CHECK(violations[0].path == row.path);
    CHECK(violations[0].message == row.message);
  }
}

TEST_CASE("all violations are reported at once") {
  const auto violations = validate_dynamic_config(
      parsed(R"({"ttl":"x","loop_wait":0,"pasue":true,"postgresql":{"parameters":[]}})"));
  std::vector<std::string> paths;
  for (const auto& one : violations) paths.push_back(one.path);
  CHECK(paths == std::vector<std::string>{"pasue", "ttl", "loop_wait", "postgresql.parameters"});
}

TEST_CASE("durations and sizes have exactly these units") {
  const std::pair<const char*, Duration> durations[] = {{"10", 10s},
                                                        {"\"10\"", 10s},
                                                        {"\"10us\"", 10us},
                                                        {"\"10ms\"", 10ms},
                                                        {"\"10 s\"", 10s},
                                                        {"\"10min\"", 10min},
                                                        {"\"2h\"", 2h},
                                                        {"\"1d\"", 24h},
                                                        {"\"-1\"", -1s},
                                                        {"2.0", 2s}};
  for (const auto& [text, value] : durations) CHECK(parse_duration(parsed(text)) == value);
  CHECK(parse_duration(json::Value(5), 1ms) == 5ms);
  for (const char* bad : {"\"\"",
                          "\"10S\"",
                          "\"10 minutes\"",
                          "\"s\"",
                          "true",
                          "null",
                          "1.5",
                          "\"99999999999d\"",
                          "\"1e3\""})
    CHECK_FALSE_MESSAGE(parse_duration(parsed(bad)).has_value(), bad);
  CHECK(parse_bytes(json::Value("16MB")) == 16 * 1024 * 1024);
  CHECK(parse_bytes(json::Value("1kB")) == 1024);
  CHECK(parse_bytes(json::Value("3 TB")) == 3LL << 40);
  CHECK(parse_bytes(json::Value("7B")) == 7);
  for (const char* bad : {"10mb", "10KB", "10M", "9999999999TB"})
    CHECK_FALSE_MESSAGE(parse_bytes(json::Value(bad)).has_value(), bad);
}

TEST_CASE("closest_name finds slips, and leaves own names alone") {
  constexpr std::string_view known[] = {"parameters", "listen", "ttl", "pg_hba", "loop_wait"};
  CHECK(closest_name("paramters", known) == "parameters");
  CHECK(closest_name("lisetn", known) == "listen");
  CHECK(closest_name("tll", known) == "ttl");
  CHECK(closest_name("pg-hba", known) == "pg_hba");
  CHECK(closest_name("LOOP_WAIT", known) == "loop_wait");
  CHECK(closest_name("parameters", known).empty());
  CHECK(closest_name("wal_e", known).empty());
  CHECK(closest_name("", known).empty());
  CHECK(closest_name(std::string(500, 'x'), known).empty());
}
