#include "cli/schedule.hpp"

#include <ctime>
#include <string>

namespace spilo::cli {
namespace {

// Reads what is left of a text from the front.
class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text) {}
  bool done() const noexcept { return text_.empty(); }
  bool take(char wanted) {
    if (text_.empty() || text_.front() != wanted) return false;
    text_.remove_prefix(1);
    return true;
  }
  std::optional<int> number(std::size_t digits) {
    if (text_.size() < digits) return std::nullopt;
    int value = 0;
    for (const char digit : text_.substr(0, digits)) {
      if (digit < '0' || digit > '9') return std::nullopt;
      value = value * 10 + (digit - '0');
    }
    text_.remove_prefix(digits);
    return value;
  }
  std::chrono::milliseconds fraction() {
    int value = 0;
    int scale = 1000;
    while (!text_.empty() && text_.front() >= '0' && text_.front() <= '9') {
      if (scale > 1) value = value * 10 + (text_.front() - '0'), scale /= 10;
      text_.remove_prefix(1);
    }
    return std::chrono::milliseconds(value * scale);
  }

 private:
  std::string_view text_;
};

struct Clock24 {
  int hour = 0, minute = 0, second = 0;
  std::chrono::milliseconds fraction{};
};

std::optional<Clock24> read_clock(Reader& in) {
  Clock24 out;
  const auto hour = in.number(2);
  if (!hour || *hour > 23 || !in.take(':')) return std::nullopt;
  const auto minute = in.number(2);
  if (!minute || *minute > 59) return std::nullopt;
  out.hour = *hour;
  out.minute = *minute;
  if (!in.take(':')) return out;
  const auto second = in.number(2);
  if (!second || *second > 59) return std::nullopt;
  out.second = *second;
  if (in.take('.')) out.fraction = in.fraction();
  return out;
}

// Z, +hh, +hhmm or +hh:mm. Nothing in `offset` means local time; false: not a zone.
bool read_zone(Reader& in, std::optional<std::chrono::minutes>& offset) {
  in.take(' ');
  if (in.done()) return true;
  if (in.take('Z')) {
    offset = std::chrono::minutes(0);
    return in.done();
  }
  const int sign = in.take('+') ? 1 : in.take('-') ? -1 : 0;
  if (sign == 0) return false;
  const auto hours = in.number(2);
  if (!hours || *hours > 15) return false;
  in.take(':');
  const auto minutes = in.done() ? std::optional<int>(0) : in.number(2);
  if (!minutes || *minutes > 59 || !in.done()) return false;
  offset = std::chrono::minutes(sign * (*hours * 60 + *minutes));
  return true;
}

WallTime from_local(int year, int month, int day, const Clock24& at) {
  std::tm local{};
  local.tm_year = year - 1900;
  local.tm_mon = month - 1;
  local.tm_mday = day;
  local.tm_hour = at.hour;
  local.tm_min = at.minute;
  local.tm_sec = at.second;
  local.tm_isdst = -1;
  return WallTime(std::chrono::seconds(std::mktime(&local))) + at.fraction;
}

std::optional<WallTime> next_time_of_day(Reader in, WallTime now) {
  const auto at = read_clock(in);
  if (!at || !in.done()) return std::nullopt;
  const auto seconds =
      static_cast<std::time_t>(std::chrono::floor<std::chrono::seconds>(now.time_since_epoch()).count());
  std::tm today{};
  ::localtime_r(&seconds, &today);
  const auto then = from_local(today.tm_year + 1900, today.tm_mon + 1, today.tm_mday, *at);
  if (then > now) return then;
  return from_local(today.tm_year + 1900, today.tm_mon + 1, today.tm_mday + 1, *at);
}

}  // namespace

std::optional<WallTime> parse_schedule(std::string_view text, WallTime now) {
  if (text.size() > 2 && text[2] == ':') return next_time_of_day(Reader(text), now);
  Reader in(text);
  const auto year = in.number(4);
  if (!year || !in.take('-')) return std::nullopt;
  const auto month = in.number(2);
  if (!month || !in.take('-')) return std::nullopt;
  const auto day = in.number(2);
  if (!day || !(in.take('T') || in.take(' '))) return std::nullopt;
  const std::chrono::year_month_day date{std::chrono::year(*year),
                                         std::chrono::month(static_cast<unsigned>(*month)),
                                         std::chrono::day(static_cast<unsigned>(*day))};
  const auto at = read_clock(in);
  std::optional<std::chrono::minutes> offset;
  if (!date.ok() || !at || !read_zone(in, offset)) return std::nullopt;
  if (!offset) return from_local(*year, *month, *day, *at);
  return WallTime(std::chrono::sys_days(date).time_since_epoch() + std::chrono::hours(at->hour) +
                  std::chrono::minutes(at->minute) + std::chrono::seconds(at->second) +
                  at->fraction - *offset);
}

}  // namespace spilo::cli
