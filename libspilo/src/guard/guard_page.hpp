// The page of memory that an agent shares with the guard of its data directory, and the rules by
// which both write it. Kept to plain types and lock-free atomics: the guard program has no library.
#pragma once

#include <atomic>
#include <cstdint>
#include <ctime>

namespace spilo::guard {

constexpr std::uint64_t page_magic = 0x6472617567697073;  // "spiguard"
constexpr std::uint32_t page_layout = 1;
constexpr int page_fd = 3;  // where the guard program finds the page, and its adopter too
constexpr std::size_t page_bytes = 4096;

// deadline_ns: a time of CLOCK_BOOTTIME, or one of these.
constexpr std::int64_t deadline_none = 0;     // nothing to guard
constexpr std::int64_t deadline_passed = -1;  // the guard is ending the server, or has ended it
constexpr std::int64_t wake_never = INT64_MAX;

// Protection that the guard could get from the system.
constexpr std::uint32_t has_locked_memory = 1;
constexpr std::uint32_t has_realtime = 2;
constexpr std::uint32_t has_oom_exemption = 4;

// The agent that owns a guard: its process id, and a count that tells two owners with the same id
// apart. 0 is the guard's last word: it leaves, and whoever wants a guard starts another.
constexpr std::uint64_t owner_leaving = 0;
constexpr std::uint64_t make_owner(std::uint32_t count, std::uint32_t pid) noexcept {
  return (std::uint64_t{count} << 32) | pid;
}
constexpr std::uint32_t owner_count(std::uint64_t owner) noexcept {
  return static_cast<std::uint32_t>(owner >> 32);
}
constexpr int owner_pid(std::uint64_t owner) noexcept {
  return static_cast<int>(owner & 0xffffffffU);
}

struct GuardPage {
  // The first four members keep their places in every layout, so that a newer agent can take the
  // deadline over from an older guard.
  std::uint64_t magic;
  std::uint32_t layout;
  std::uint32_t reserved;
  // The agent stores; the guard only exchanges a deadline that has passed for deadline_passed, so a
  // deadline that was moved in time always wins.
  std::atomic<std::int64_t> deadline_ns;
  // Exchanged by compare-and-swap only. The guard replaces a dead agent's id by 0 (the count
  // stays).
  std::atomic<std::uint64_t> owner;

  // When the guard looks at the deadline again by itself. It stores this before it checks the
  // deadline a last time, and the agent reads it after it stored a deadline: one of them sees the
  // other's (both are sequentially consistent). Only a deadline before it needs a signal.
  std::atomic<std::int64_t> wakes_at_ns;
  std::atomic<std::int32_t> guard_pid;  // 0 until the guard is ready
  std::atomic<std::uint32_t> protection;

  // The last time the guard ended a server; written before fired_count grows.
  std::atomic<std::int64_t> fired_deadline_ns;
  std::atomic<std::int64_t> fired_done_ns;
  std::atomic<std::int32_t> fired_killed;
  std::atomic<std::int32_t> fired_remaining;
  std::atomic<std::int32_t> fired_error;
  std::atomic<std::uint32_t> fired_count;
};
static_assert(sizeof(GuardPage) <= page_bytes);
static_assert(std::atomic<std::int64_t>::is_always_lock_free);

inline std::int64_t boot_ns() noexcept {
  timespec now{};
  ::clock_gettime(CLOCK_BOOTTIME, &now);
  return std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

}  // namespace spilo::guard
