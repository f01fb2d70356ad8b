// /dev/watchdog on top of the guard (contract 3.17): resets the whole machine when the agent is
// gone and the guard with it, for example because the host froze.
#pragma once

#include <string>

#include "spilo/core/log.hpp"
#include "spilo/ports/guard.hpp"

namespace spilo {

struct WatchdogOptions {
  enum class Mode { off, automatic, required };
  Mode mode = Mode::automatic;
  std::string device = "/dev/watchdog";
  // How long before the end of the lease the machine is reset, in seconds; -1: half the ttl.
  int safety_margin = 5;
  // `driver: testing`: `device` is a fifo, written to in text: "Ctimeout=N\n", "1", "V".
  bool testing_driver = false;
};

// One strand of execution. Its calls are single writes to a character device.
class DeviceWatchdog final : public Watchdog {
 public:
  explicit DeviceWatchdog(WatchdogOptions options, Logger logger = {});
  ~DeviceWatchdog() override;
  DeviceWatchdog(const DeviceWatchdog&) = delete;
  DeviceWatchdog& operator=(const DeviceWatchdog&) = delete;

  // Opens the device and sets its timeout; again with other figures moves the timeout. Success
  // without a device when the mode is off, or automatic and there is none, or it can't be used
  // (told once in the log, as a warning).
  //   invalid_argument  the timeout (ttl less safety_margin) is below loop_wait
  //   unavailable       the device can't be opened, or refuses the timeout
  // In mode required both leave the watchdog inactive.
  Result<void> activate(Duration ttl, Duration loop_wait) override;
  // unavailable: the write failed; the device resets the machine soon.
  Result<void> keepalive() override;
  // Tells the device that nobody needs it any more. One that can't be told (nowayout) resets the
  // machine, which the log says.
  void disable() override;
  bool required() const noexcept override;
  bool active() const noexcept { return fd_ >= 0; }

 private:
  Result<void> open_with(int timeout_s);
  Result<void> set_timeout(int timeout_s);

  WatchdogOptions options_;
  Logger logger_;
  int fd_ = -1;
  int timeout_s_ = 0;
  bool warned_ = false;
};

}  // namespace spilo
