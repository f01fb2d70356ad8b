// lock_demo: several processes count in one file, one at a time, and no count is lost or made twice
// whatever happens to whoever holds the lock.
//
//   lock_demo sqlite:///tmp/demo.db /tmp/count n1     in one terminal
//   lock_demo sqlite:///tmp/demo.db /tmp/count n2     in another; then stop, freeze or kill one
//
// A lock alone can't promise that: its holder may be frozen between looking at the lock and
// writing, and wake up when somebody else holds it. So every write carries the token of the grant
// it was made under, and the file takes the part of a resource that knows tokens: a line (TOKEN
// COUNT NAME) whose token is smaller than one above it does not count. The token of a later grant
// is always greater, so what a stale holder writes is refused, however late it comes.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <exception>
#include <fstream>
#include <stdexcept>
#include <string>

#include "spilo/config/load.hpp"
#include "spilo/open_store.hpp"
#include "spilo/runtime/election.hpp"
#include "spilo/runtime/system_clock.hpp"

namespace {

using namespace spilo;
using namespace std::chrono_literals;
using boost::asio::awaitable;

void say(const std::string& text) {
  fmt::print("{}\n", text);
  std::fflush(stdout);
}

void rethrow(std::exception_ptr failure) {
  if (failure) std::rethrow_exception(failure);
}

struct Count {
  std::uint64_t token = 0;  // the greatest one so far: older ones are refused
  std::uint64_t value = 0;
};

Count read_count(const std::string& file) {
  Count count;
  std::ifstream in(file);
  std::uint64_t token = 0, value = 0;
  for (std::string name; in >> token >> value >> name;)
    if (token >= count.token) count = {token, value};
  return count;
}

// One write of one line is atomic. Whether it counts is seen when it is there: what was checked
// before may be long ago.
void increment(const std::string& file, std::uint64_t token, const std::string& name) {
  const auto mine = read_count(file).value + 1;
  const auto line = fmt::format("{} {} {}\n", token, mine, name);
  const int fd = ::open(file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd < 0 || ::write(fd, line.data(), line.size()) != static_cast<ssize_t>(line.size()))
    throw std::runtime_error("can't write " + file);
  ::close(fd);
  const auto now = read_count(file);
  say(now.token > token ? fmt::format("refused: token {} is older than {}", token, now.token)
                        : fmt::format("counted {} with token {}", mine, token));
}

awaitable<void> work(
    Election& election, Clock& clock, const bool& leaving, std::string file, std::string name) {
  while (!leaving) {
    // One would ask still_held() here, so that work is not done in vain. What makes it safe is the
    // token, and this program is here to show that.
    if (const auto token = election.token()) increment(file, *token, name);
    co_await sleep_until(clock, clock.now() + 50ms);
  }
}

awaitable<void> leave(Election& election, Clock& clock, bool& leaving) {
  leaving = true;
  const auto released = co_await election.resign(clock.now() + 5s);
  say(released == Released::yes ? "gave the lock away" : "the lock is free when its lease ends");
  election.stop();
}

int run(Result<config::StoreOptions> options, std::string file, std::string name) {
  boost::asio::io_context io(1);
  SystemClock clock(io.get_executor());
  StoreRequest request;
  if (options.has_value()) request.options = *options;
  request.options.scope = Scope("lock_demo");
  auto opened = options.has_value() ? open_store(io.get_executor(), clock, request)
                                    : Result<OpenedStore>(options.error());
  if (opened.has_error()) {
    fmt::print(stderr, "lock_demo: {}\n", opened.error().text());
    return 1;
  }
  Election::Options wanted;
  wanted.self = NodeName(name);
  wanted.ttl = 2s;
  Election::Listener listener;
  listener.acquired = [](std::uint64_t token) { say(fmt::format("acquired, token {}", token)); };
  listener.at_risk = [](TimePoint) { say("at risk: the lease was not renewed in time"); };
  listener.lost = [](std::uint64_t token, std::string why) {
    say(fmt::format("lost, token {}: {}", token, why));
  };
  Election election(io.get_executor(), *opened->store, clock, wanted, listener);

  boost::asio::co_spawn(
      io, election.run(), [](std::exception_ptr failure, Result<void>) { rethrow(failure); });
  bool leaving = false;
  boost::asio::co_spawn(io, work(election, clock, leaving, file, name), rethrow);
  boost::asio::signal_set signals(io, SIGTERM, SIGINT);
  signals.async_wait([&](boost::system::error_code, int) {
    boost::asio::co_spawn(io, leave(election, clock, leaving), rethrow);
  });
  io.run();
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    fmt::print(stderr, "usage: lock_demo STORE_URL FILE NAME\n");
    return 2;
  }
  return run(config::parse_store_url(argv[1]), argv[2], argv[3]);
}
