// Time as values. A clock type without now(): time enters the program only through ports::Clock, so
// the pure layers cannot look at a clock and the simulator decides what time it is.
#pragma once

#include <chrono>

namespace spilo {

// Counts from an arbitrary start, never steps, and goes on while the machine is suspended
// (CLOCK_BOOTTIME in production).
struct MonotonicTime {
  using duration = std::chrono::nanoseconds;
  using rep = duration::rep;
  using period = duration::period;
  using time_point = std::chrono::time_point<MonotonicTime>;
  static constexpr bool is_steady = true;
};

using Duration = MonotonicTime::duration;
using TimePoint = MonotonicTime::time_point;

// The clock on the wall: for schedules and display only, never for a lease. It may step.
using WallTime = std::chrono::sys_time<std::chrono::milliseconds>;

}  // namespace spilo
