// Guards a directory and renews until it is stopped: guard_agent DIRECTORY LEASE_MS RENEW_MS.
// Prints "ready GUARD_PID" once it holds the first deadline.
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>

#include "spilo/guard/process_guard.hpp"
#include "spilo/runtime/system_clock.hpp"

namespace {

boost::asio::awaitable<int> renew(spilo::Clock& clock,
                                  spilo::ProcessGuard& guard,
                                  spilo::Duration lease,
                                  spilo::Duration every) {
  bool told = false;
  for (;;) {
    if (const auto ready = guard.ensure(); !ready) {
      std::printf("%s\n", ready.error().text().c_str());
      co_return 1;
    }
    const auto now = clock.now();
    if (!guard.hold_until(now + lease)) co_return 1;
    if (!told) std::printf("ready %d\n", guard.pid());
    std::fflush(stdout);
    told = true;
    co_await spilo::sleep_until(clock, now + every);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  boost::asio::io_context io(1);
  spilo::SystemClock clock(io.get_executor());
  spilo::GuardOptions options;
  options.data_dir = argv[1];
  spilo::ProcessGuard guard(io.get_executor(), options);
  int status = 0;
  boost::asio::co_spawn(io,
                        renew(clock,
                              guard,
                              std::chrono::milliseconds(std::atoi(argv[2])),
                              std::chrono::milliseconds(std::atoi(argv[3]))),
                        [&](std::exception_ptr failure, int result) {
                          if (failure) std::rethrow_exception(failure);
                          status = result;
                        });
  io.run();
  return status;
}
