// supervise_anything: keeps a program running on exactly one of several nodes. The supervisor that
// keeps one PostgreSQL writable does it; the program is behind the same port (program.hpp).
//
//   supervise_anything sqlite:///tmp/demo.db demo n1 /tmp/n1 ./worker --verbose
//   supervise_anything sqlite:///tmp/demo.db demo n2 /tmp/n2 ./worker --verbose
//
// Stop, freeze or kill an agent, or the program itself. The program ends before it starts anywhere
// else, whatever happens to its agent: its keeper holds the deadline of the lease. SIGTERM stops in
// order, with the program. `spiloctl -d STORE list SCOPE` shows the nodes.
#include <fmt/chrono.h>
#include <fmt/format.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <cstdlib>
#include <exception>
#include <string>
#include <vector>

#include "program.hpp"
#include "spilo/config/load.hpp"
#include "spilo/open_store.hpp"
#include "spilo/runtime/supervisor.hpp"
#include "spilo/runtime/system_clock.hpp"

namespace {

using namespace spilo;
using namespace std::chrono_literals;

// Nobody is asked how far it is: there is nothing to be behind with.
class NoPeers final : public Peers {
 public:
  Async<PeerStatus> probe(NodeName node, std::string, TimePoint) override {
    PeerStatus status;
    status.node = node;
    co_return status;
  }
  Async<FailsafeAnswer> ask_failsafe(NodeName node, std::string, std::string, TimePoint) override {
    FailsafeAnswer answer;
    answer.node = node;
    co_return answer;
  }
};

ha::Identity identity(const std::string& scope, const std::string& name) {
  ha::Identity id;
  id.scope = Scope(scope);
  id.node = NodeName(name);
  id.conn_url = fmt::format("postgres://{}:1/none", name);  // tells the nodes apart, no more
  id.timing = {.ttl = 5s, .loop_wait = 1s, .retry_timeout = 2s};
  id.bootstrap_dcs.set("ttl", 5);
  id.bootstrap_dcs.set("loop_wait", 1);
  id.bootstrap_dcs.set("retry_timeout", 2);
  id.bootstrap_dcs.set("failsafe_mode", false);  // it would need peers to ask
  return id;
}

void log_line(LogLevel level, std::string_view text) {
  fmt::print("{:%T} {}: {}\n", fmt::localtime(std::time(nullptr)), to_text(level), text);
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 6) {
    fmt::print(stderr, "usage: supervise_anything STORE_URL SCOPE NAME DIRECTORY COMMAND…\n");
    return 2;
  }
  boost::asio::io_context io(1);
  SystemClock clock(io.get_executor());
  StoreRequest request;
  auto options = config::parse_store_url(argv[1]);
  if (options.has_value()) request.options = *options;
  request.options.scope = Scope(argv[2]);
  auto opened = options.has_value() ? open_store(io.get_executor(), clock, request)
                                    : Result<OpenedStore>(options.error());
  if (opened.has_error()) {
    fmt::print(stderr, "supervise_anything: {}\n", opened.error().text());
    return 1;
  }
  example::Program program(
      io.get_executor(), clock, argv[4], std::vector<std::string>(argv + 5, argv + argc));
  NoPeers peers;
  NoWatchdog watchdog;
  StatusBoard board;
  Supervisor supervisor(Ports{clock, *opened->store, program, peers, program, watchdog, board},
                        identity(argv[2], argv[3]),
                        Logger(LogLevel::info, log_line));

  int status = 1;
  boost::asio::signal_set signals(io, SIGTERM, SIGINT);
  signals.async_wait([&](boost::system::error_code ec, int) {
    if (!ec) supervisor.post(ha::StopAsked{});
  });
  boost::asio::co_spawn(io, supervisor.run(), [&](std::exception_ptr failure, Result<int> ended) {
    if (failure) std::rethrow_exception(failure);
    if (ended.has_value()) status = *ended;
    signals.cancel();
  });
  io.run();
  return status;
}
