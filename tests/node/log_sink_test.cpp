#include "spilo/node/log_sink.hpp"

#include <doctest/doctest.h>
#include <stdlib.h>
#include <time.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "spilo/core/json.hpp"
#include "support/process.hpp"

namespace {

using namespace spilo;
using namespace spilo::test;

std::string read(const std::string& path) {
  std::ifstream in(path);
  return std::string(std::istreambuf_iterator<char>(in), {});
}

struct UtcClock {
  UtcClock() {
    ::setenv("TZ", "UTC", 1);
    ::tzset();
  }
} const utc;

}  // namespace

TEST_CASE("a line is what log readers of Patroni expect") {
  config::LogOptions options;
  CHECK(format_log_line(options, LogLevel::info, "no action. I am (n1)", 1767322984678) ==
        "2026-01-02 03:03:04,678 INFO: no action. I am (n1)\n");
  CHECK(format_log_line(options, LogLevel::warning, "x", 1767322984005).find(",005 WARNING: x") !=
        std::string::npos);
}

TEST_CASE("what came from elsewhere can't forge a line") {
  config::LogOptions options;
  const auto line = format_log_line(
      options, LogLevel::error, "server said: bad\n2026-01-01 00:00:00,000 INFO: fine\x1b[2J\n", 0);
  CHECK(std::count(line.begin(), line.end(), '\n') == 1);
  CHECK(line.find('\x1b') == std::string::npos);
  CHECK(line.back() == '\n');
}

TEST_CASE("JSON lines carry the static fields") {
  config::LogOptions options;
  options.json = true;
  options.static_fields = {{"app", "spilo"}, {"site", "a\"b"}};
  const auto line = format_log_line(options, LogLevel::critical, "it \"broke\"", 1767322984678);
  const auto parsed = json::parse(line);
  REQUIRE(parsed.has_value());
  CHECK(parsed->get_string("asctime") == "2026-01-02 03:03:04,678");
  CHECK(parsed->get_string("levelname") == "CRITICAL");
  CHECK(parsed->get_string("message") == "it \"broke\"");
  CHECK(parsed->get_string("app") == "spilo");
  CHECK(parsed->get_string("site") == "a\"b");
}

TEST_CASE("log files are rotated by size, and a level keeps lines out") {
  TempDir dir;
  config::LogOptions options;
  options.dir = dir.path();
  options.file_bytes = 200;
  options.files = 2;
  options.mode = 0600;
  options.level = LogLevel::warning;
  const auto logger = make_logger(options, "demo");
  logger.info("not this one");
  for (int n = 0; n < 20; ++n) logger.warning("message number {}", n);
  const auto path = dir / "patroni.log";
  CHECK(read(path).find("WARNING: demo: message number 19\n") != std::string::npos);
  CHECK(std::filesystem::file_size(path) <= 200);
  CHECK(std::filesystem::exists(path + ".1"));
  CHECK(std::filesystem::exists(path + ".2"));
  CHECK(!std::filesystem::exists(path + ".3"));
  CHECK(read(path + ".1").find("message number") != std::string::npos);
  CHECK(read(path).find("not this one") == std::string::npos);
  CHECK((std::filesystem::status(path).permissions() & std::filesystem::perms::all) ==
        (std::filesystem::perms::owner_read | std::filesystem::perms::owner_write));
}

TEST_CASE("repeated heartbeats are kept out when asked for") {
  TempDir dir;
  config::LogOptions options;
  options.dir = dir.path();
  options.deduplicate_heartbeat_logs = true;
  const auto logger = make_logger(options);
  for (int n = 0; n < 3; ++n) logger.info("no action. I am (n1), the leader with the lock");
  logger.info("promoted");
  for (int n = 0; n < 2; ++n) logger.info("promoted");
  const auto text = read(dir / "patroni.log");
  CHECK(std::count(text.begin(), text.end(), '\n') == 4);
}
