// store_proxy ADDRESS PORT TARGET_PORT DELAY_MS: stands between the nodes and a store on the same
// address. SIGUSR1: answers take DELAY_MS longer from now on. SIGUSR2: they pass at once again.
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <functional>

#include "support/flaky_proxy.hpp"

int main(int argc, char** argv) {
  if (argc != 5) {
    std::fprintf(stderr, "usage: store_proxy ADDRESS PORT TARGET_PORT DELAY_MS\n");
    return 2;
  }
  boost::asio::io_context io{1};
  const auto port = static_cast<std::uint16_t>(std::atoi(argv[2]));
  const auto target = static_cast<std::uint16_t>(std::atoi(argv[3]));
  spilo::test::FlakyProxy proxy(io, target, port, boost::asio::ip::make_address(argv[1]));
  const std::chrono::milliseconds delay(std::atoi(argv[4]));
  boost::asio::signal_set signals(io, SIGUSR1, SIGUSR2);
  std::function<void(boost::system::error_code, int)> told =
      [&](boost::system::error_code ec, int signal) {
        if (ec) return;
        proxy.delay_answers(signal == SIGUSR1 ? delay : std::chrono::milliseconds(0));
        signals.async_wait(told);
      };
  signals.async_wait(told);
  io.run();
}
