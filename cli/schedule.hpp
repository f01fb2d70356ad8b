// Points of time as people write them. Pure but for the local time zone, which the C library knows.
#pragma once

#include <optional>
#include <string_view>

#include "spilo/core/time.hpp"

namespace spilo::cli {

// "2026-05-06T07:08", "2026-05-06 07:08:09+02:00", "2026-05-06T07:08:09Z", or "07:08" for the next
// time that the clock shows it. Without a zone it is local time. Nothing when it can't be read.
std::optional<WallTime> parse_schedule(std::string_view text, WallTime now);

}  // namespace spilo::cli
