#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "guard/ok.hpp"
#include "spilo/guard/device_watchdog.hpp"
#include "support/process.hpp"

namespace {

using namespace spilo;
using namespace spilo::test;
using namespace std::chrono_literals;

struct Fifo {
  Fifo() {
    REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
    fd = ::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  }
  ~Fifo() { ::close(fd); }
  std::string read() const {
    char buffer[256];
    const auto n = ::read(fd, buffer, sizeof buffer);
    return n > 0 ? std::string(buffer, static_cast<std::size_t>(n)) : std::string();
  }
  TempDir dir;
  std::string path = dir / "watchdog";
  int fd = -1;
};

WatchdogOptions testing(const std::string& device) {
  WatchdogOptions options;
  options.device = device;
  options.testing_driver = true;
  return options;
}

}  // namespace

TEST_CASE("the watchdog's protocol") {
  Fifo fifo;
  DeviceWatchdog dog(testing(fifo.path));
  CHECK(!dog.active());
  REQUIRE(ok(dog.activate(30s, 10s)));
  CHECK(dog.active());
  CHECK(fifo.read() == "Ctimeout=25\n1");
  REQUIRE(ok(dog.keepalive()));
  CHECK(fifo.read() == "1");
  // The same figures again only keep it alive; other figures move the timeout.
  REQUIRE(ok(dog.activate(30s, 10s)));
  CHECK(fifo.read() == "1");
  REQUIRE(ok(dog.activate(20s, 10s)));
  CHECK(fifo.read() == "Ctimeout=15\n1");
  dog.disable();
  CHECK(!dog.active());
  CHECK(fifo.read() == "V");
  REQUIRE(ok(dog.keepalive()));
  CHECK(fifo.read().empty());
}

TEST_CASE("the watchdog of an agent that ends out of order is left running") {
  Fifo fifo;
  {
    DeviceWatchdog dog(testing(fifo.path));
    REQUIRE(ok(dog.activate(30s, 10s)));
    fifo.read();
  }
  CHECK(fifo.read().empty());
}

TEST_CASE(
    "safety_margin -1 is half the ttl, and an impossible sum is refused where it is required") {
  Fifo fifo;
  auto options = testing(fifo.path);
  options.safety_margin = -1;
  {
    DeviceWatchdog dog(options);
    REQUIRE(ok(dog.activate(30s, 10s)));
    CHECK(fifo.read() == "Ctimeout=15\n1");
    dog.disable();
    fifo.read();
  }
  options.safety_margin = 25;
  std::vector<std::string> told;
  const Logger logger(LogLevel::warning,
                      [&](LogLevel, std::string_view text) { told.emplace_back(text); });
  DeviceWatchdog automatic(options, logger);
  CHECK(ok(automatic.activate(30s, 10s)));
  CHECK(ok(automatic.activate(30s, 10s)));
  CHECK(!automatic.active());
  REQUIRE(told.size() == 1);
  CHECK(told.front().find("loop_wait = 10 s") != std::string::npos);
  options.mode = WatchdogOptions::Mode::required;
  DeviceWatchdog required(options);
  const auto refused = required.activate(30s, 10s);
  REQUIRE(!refused.has_value());
  CHECK(refused.error().is(errc::invalid_argument));
}

TEST_CASE("a device that is not there matters only where it is required") {
  TempDir dir;
  auto options = testing(dir / "nothing");
  DeviceWatchdog automatic(options);
  CHECK(ok(automatic.activate(30s, 10s)));
  CHECK(!automatic.required());
  options.mode = WatchdogOptions::Mode::required;
  DeviceWatchdog required(options);
  CHECK(required.required());
  const auto refused = required.activate(30s, 10s);
  REQUIRE(!refused.has_value());
  CHECK(refused.error().is(errc::unavailable));
  CHECK(refused.error().detail().find("nothing") != std::string::npos);
  options.mode = WatchdogOptions::Mode::off;
  DeviceWatchdog off(options);
  CHECK(ok(off.activate(30s, 10s)));
}

TEST_CASE("a file that is no watchdog refuses the timeout") {
  TempDir dir;
  WatchdogOptions options;
  options.device = dir / "file";
  options.mode = WatchdogOptions::Mode::required;
  ::close(::open(options.device.c_str(), O_CREAT | O_WRONLY, 0600));
  DeviceWatchdog dog(options);
  const auto refused = dog.activate(30s, 10s);
  REQUIRE(!refused.has_value());
  CHECK(refused.error().is(errc::unavailable));
  CHECK(!dog.active());
}
