#include "spilo/guard/device_watchdog.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/watchdog.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace spilo {
namespace {

bool write_all(int fd, std::string_view text) noexcept {
  return ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

int to_seconds(Duration time) noexcept {
  return static_cast<int>(std::chrono::duration_cast<std::chrono::seconds>(time).count());
}

}  // namespace

DeviceWatchdog::DeviceWatchdog(WatchdogOptions options, Logger logger)
    : options_(std::move(options)), logger_(std::move(logger)) {}

// A descriptor that is closed without the letter V leaves the device running: that is what an agent
// that ends while its server may still be writable needs. disable() is the orderly way.
DeviceWatchdog::~DeviceWatchdog() {
  if (fd_ >= 0) ::close(fd_);
}

bool DeviceWatchdog::required() const noexcept {
  return options_.mode == WatchdogOptions::Mode::required;
}

Result<void> DeviceWatchdog::set_timeout(int timeout_s) {
  if (options_.testing_driver) {
    if (!write_all(fd_, fmt::format("Ctimeout={}\n", timeout_s)))
      return Error(
          errc::unavailable,
          fmt::format(
              "watchdog {}: setting the timeout: {}", options_.device, std::strerror(errno)));
    return {};
  }
  int granted = timeout_s;
  if (::ioctl(fd_, WDIOC_SETTIMEOUT, &granted) != 0)
    return Error(errc::unavailable,
                 fmt::format("watchdog {}: setting the timeout to {} s: {}",
                             options_.device,
                             timeout_s,
                             std::strerror(errno)));
  // Drivers round. A longer timeout than asked for would end after the lease.
  if (granted > timeout_s)
    return Error(errc::unavailable,
                 fmt::format("watchdog {}: asked for a timeout of {} s, the device gives {} s: too "
                             "long to protect the lease; raise ttl",
                             options_.device,
                             timeout_s,
                             granted));
  return {};
}

Result<void> DeviceWatchdog::open_with(int timeout_s) {
  if (fd_ < 0) {
    // Not blocking, because a fifo without a reader would hold the whole agent.
    fd_ = ::open(options_.device.c_str(), O_WRONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd_ < 0)
      return Error(errc::unavailable,
                   fmt::format("watchdog {}: can't be opened: {}; load a driver (softdog) and give "
                               "our user the right to write to it, or set watchdog.mode to off",
                               options_.device,
                               std::strerror(errno)));
    timeout_s_ = 0;
  }
  if (timeout_s == timeout_s_) return {};
  auto set = set_timeout(timeout_s);
  if (!set) {
    disable();
    return set;
  }
  timeout_s_ = timeout_s;
  return {};
}

Result<void> DeviceWatchdog::activate(Duration ttl, Duration loop_wait) {
  if (options_.mode == WatchdogOptions::Mode::off) return {};
  // Most machines have no such device, and nobody asked for one.
  if (!required() && ::access(options_.device.c_str(), F_OK) != 0) return {};
  const int ttl_s = to_seconds(ttl);
  const int timeout_s = options_.safety_margin < 0 ? ttl_s / 2 : ttl_s - options_.safety_margin;
  Result<void> done;
  if (timeout_s < 1 || timeout_s < to_seconds(loop_wait))
    done = Error(
        errc::invalid_argument,
        fmt::format("watchdog {}: ttl {} s less safety_margin leaves a timeout of {} s, which "
                    "must be at least loop_wait = {} s; raise ttl or lower "
                    "watchdog.safety_margin",
                    options_.device,
                    ttl_s,
                    timeout_s,
                    to_seconds(loop_wait)));
  else
    done = open_with(timeout_s);
  if (done) {
    warned_ = false;
    return keepalive();
  }
  if (required()) return done;
  if (!warned_) logger_.warning("{}; going on without it", done.error().detail());
  warned_ = true;
  return {};
}

Result<void> DeviceWatchdog::keepalive() {
  if (fd_ < 0 || write_all(fd_, "1")) return {};
  return Error(errc::unavailable,
               fmt::format("watchdog {}: keep-alive: {}", options_.device, std::strerror(errno)));
}

void DeviceWatchdog::disable() {
  if (fd_ < 0) return;
  if (!write_all(fd_, "V"))
    logger_.error("watchdog {}: it could not be told to stop ({}): it may reset the machine",
                  options_.device,
                  std::strerror(errno));
  ::close(fd_);
  fd_ = -1;
  timeout_s_ = 0;
}

}  // namespace spilo
