// ISO 8601 as Python prints it and as people type it.
#include <fmt/format.h>

#include <charconv>
#include <chrono>

#include "spilo/model/codec.hpp"

namespace spilo::codec {
namespace {

// Reads from the front of a text; every method says whether it found what it looked for.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : rest_(text) {}

  // Exactly `digits` decimal digits.
  bool number(std::size_t digits, int& out) {
    if (rest_.size() < digits) return false;
    out = 0;
    for (std::size_t i = 0; i < digits; ++i) {
      if (rest_[i] < '0' || rest_[i] > '9') return false;
      out = out * 10 + (rest_[i] - '0');
    }
    rest_.remove_prefix(digits);
    return true;
  }
  bool one_of(std::string_view letters) {
    if (rest_.empty() || letters.find(rest_.front()) == std::string_view::npos) return false;
    rest_.remove_prefix(1);
    return true;
  }
  bool digit_follows() const { return !rest_.empty() && rest_[0] >= '0' && rest_[0] <= '9'; }
  std::string_view rest() const { return rest_; }
  char take() {
    const char first = rest_.front();
    rest_.remove_prefix(1);
    return first;
  }

 private:
  std::string_view rest_;
};

// ".123456": milliseconds, cut rather than rounded; any number of digits.
bool scan_fraction(Scanner& in, int& milliseconds) {
  if (!in.digit_follows()) return false;
  for (int scale = 100; in.digit_follows(); scale /= 10) milliseconds += (in.take() - '0') * scale;
  return true;
}

// "Z", "UTC", "+02", "+0200", "+02:00"; minutes east of Greenwich.
std::optional<int> scan_offset(Scanner& in) {
  in.one_of(" ");
  const auto rest = in.rest();
  if (rest == "Z" || rest == "z" || rest == "UTC" || rest == "utc") return 0;
  if (rest.empty() || (rest[0] != '+' && rest[0] != '-')) return {};
  const int sign = in.take() == '-' ? -1 : 1;
  int hours = 0;
  int minutes = 0;
  if (!in.number(2, hours)) return {};
  if (!in.rest().empty()) {
    in.one_of(":");
    if (!in.number(2, minutes)) return {};
  }
  if (!in.rest().empty() || hours > 23 || minutes > 59) return {};
  return sign * (hours * 60 + minutes);
}

}  // namespace

std::optional<WallTime> parse_wall_time(std::string_view text) {
  using namespace std::chrono;
  Scanner in(text);
  int y = 0, mo = 0, d = 0, h = 0, mi = 0, s = 0, ms = 0;
  if (!in.number(4, y) || !in.one_of("-") || !in.number(2, mo) || !in.one_of("-") ||
      !in.number(2, d) || !in.one_of("Tt ") || !in.number(2, h) || !in.one_of(":") ||
      !in.number(2, mi))
    return {};
  if (in.one_of(":")) {
    if (!in.number(2, s)) return {};
    if (in.one_of(".,") && !scan_fraction(in, ms)) return {};
  }
  const auto offset = scan_offset(in);
  const year_month_day date{
      year{y}, month{static_cast<unsigned>(mo)}, day{static_cast<unsigned>(d)}};
  if (!offset || y < 1 || !date.ok() || h > 23 || mi > 59 || s > 59) return {};
  return WallTime(sys_days{date}) + hours{h} + minutes{mi - *offset} + seconds{s} +
         milliseconds{ms};
}

std::string dump_wall_time(WallTime time) {
  using namespace std::chrono;
  const auto midnight = floor<days>(time);
  const year_month_day date{midnight};
  const hh_mm_ss clock{time - midnight};
  auto text = fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
                          static_cast<int>(date.year()),
                          static_cast<unsigned>(date.month()),
                          static_cast<unsigned>(date.day()),
                          clock.hours().count(),
                          clock.minutes().count(),
                          clock.seconds().count());
  if (clock.subseconds().count() != 0)
    text += fmt::format(".{:06}", clock.subseconds().count() * 1000);
  return text + "+00:00";
}

}  // namespace spilo::codec
