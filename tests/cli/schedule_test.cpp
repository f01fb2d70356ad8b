#include "cli/schedule.hpp"

#include <doctest/doctest.h>

#include <cstdlib>
#include <ctime>

using namespace spilo;
using namespace spilo::cli;

namespace {

constexpr WallTime at(long long seconds) {
  return WallTime(std::chrono::seconds(seconds));
}

constexpr auto may_6 = at(1778051289);  // 2026-05-06T07:08:09Z

struct BerlinTime {
  BerlinTime() { set("CET-1CEST,M3.5.0,M10.5.0/3"); }
  ~BerlinTime() { set("UTC"); }
  static void set(const char* zone) {
    ::setenv("TZ", zone, 1);
    ::tzset();
  }
};

}  // namespace

TEST_CASE("a time with a zone is that time") {
  CHECK(parse_schedule("2026-05-06T07:08:09Z", WallTime{}) == may_6);
  CHECK(parse_schedule("2026-05-06 07:08:09+00:00", WallTime{}) == may_6);
  CHECK(parse_schedule("2026-05-06T09:08:09+02:00", WallTime{}) == may_6);
  CHECK(parse_schedule("2026-05-06T09:08:09 +02", WallTime{}) == may_6);
  CHECK(parse_schedule("2026-05-06T03:38:09-0330", WallTime{}) == may_6);
  CHECK(parse_schedule("2026-05-06T07:08:09.250Z", WallTime{}) ==
        may_6 + std::chrono::milliseconds(250));
  CHECK(parse_schedule("2026-05-06T07:08Z", WallTime{}) == at(1778051280));
}

TEST_CASE("a time without a zone is local, summer time included") {
  const BerlinTime zone;
  CHECK(parse_schedule("2026-05-06T09:08:09", WallTime{}) == may_6);
  CHECK(parse_schedule("2026-01-06T09:08", WallTime{}) == at(1767686880));
}

TEST_CASE("a time of day is the next one") {
  const BerlinTime zone;
  CHECK(parse_schedule("09:30", may_6) == at(1778052600));
  CHECK(parse_schedule("09:00", may_6) == at(1778050800 + 86400));
}

TEST_CASE("what is no time is refused") {
  for (const char* text : {"", "tomorrow", "2026-13-06T07:08", "2026-02-30T07:08", "2026-05-06",
                           "2026-05-06T24:00", "2026-05-06T07:08 CET", "2026-05-06T07:08Zulu",
                           "25:00", "07:08 am", "2026/05/06T07:08"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_schedule(text, may_6).has_value());
  }
}
