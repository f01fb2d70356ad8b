#include "srv_lookup.hpp"

#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <resolv.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <charconv>
#include <cstring>
#include <memory>
#include <string_view>
#include <utility>

#include "spilo/runtime/with_deadline.hpp"

namespace spilo::etcd {
namespace asio = boost::asio;
namespace {

// Shared by the thread that asks and the coroutine that waits; whoever leaves last frees it.
struct Lookup {
  Lookup() : ready(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}
  ~Lookup() {
    if (ready >= 0) ::close(ready);
  }
  Lookup(const Lookup&) = delete;
  Lookup& operator=(const Lookup&) = delete;

  // Written before the thread starts.
  std::vector<SrvRecords> names;
  sockaddr_in name_server{};  // its port is 0: those of /etc/resolv.conf
  int seconds_of_try = 1;
  // Written by the thread before it sets `done`.
  SrvRecords found;
  std::string problem;
  std::atomic<bool> done = false;
  int ready;  // readable once it is done
};

// Answers of the resolver that settle the matter: the name has no such record.
bool says_no(int code) noexcept {
  return code == HOST_NOT_FOUND || code == NO_DATA;
}

void ask_in_turn(Lookup& lookup, struct __res_state& resolver) {
  std::vector<unsigned char> answer(NS_MAXMSG);
  for (auto& one : lookup.names) {
    const int size = ::res_nquery(&resolver,
                                  one.name.c_str(),
                                  ns_c_in,
                                  ns_t_srv,
                                  answer.data(),
                                  static_cast<int>(answer.size()));
    if (size < 0) {
      if (says_no(resolver.res_h_errno)) continue;
      lookup.problem = fmt::format("{}: {}", one.name, ::hstrerror(resolver.res_h_errno));
      return;
    }
    // The resolver tells how large the answer would have been.
    auto targets =
        parse_srv_answer(answer.data(), std::min(static_cast<std::size_t>(size), answer.size()));
    if (targets.has_error()) {
      lookup.problem = fmt::format("{}: {}", one.name, targets.error().detail());
      return;
    }
    if (targets->empty()) continue;
    one.targets = std::move(*targets);
    lookup.found = std::move(one);
    return;
  }
  lookup.problem = fmt::format("there is no SRV record {}, nor one of the other {} names",
                               lookup.names.front().name,
                               lookup.names.size() - 1);
}

void ask(Lookup& lookup) {
  struct __res_state resolver;
  std::memset(&resolver, 0, sizeof resolver);
  if (::res_ninit(&resolver) != 0) {
    lookup.problem = "the C library's resolver can't be set up: is /etc/resolv.conf readable?";
    return;
  }
  if (lookup.name_server.sin_port != 0) {
    resolver.nsaddr_list[0] = lookup.name_server;
    resolver.nscount = 1;
  }
  resolver.retrans = lookup.seconds_of_try;
  resolver.retry = 2;
  resolver.options |= RES_USE_EDNS0;  // room for more than a few records without TCP
  ask_in_turn(lookup, resolver);
  ::res_nclose(&resolver);
}

void* thread_main(void* argument) noexcept {
  const std::unique_ptr<std::shared_ptr<Lookup>> lookup(
      static_cast<std::shared_ptr<Lookup>*>(argument));
  try {
    ask(**lookup);
  } catch (const std::exception& failure) {
    (*lookup)->problem = failure.what();
  }
  (*lookup)->done.store(true, std::memory_order_release);
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto written = ::write((*lookup)->ready, &one, sizeof one);
  return nullptr;
}

// Detached, with a small stack, and deaf to the signals that the program waits for elsewhere.
int start_thread(std::shared_ptr<Lookup> lookup) {
  pthread_attr_t attributes;
  ::pthread_attr_init(&attributes);
  ::pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  ::pthread_attr_setstacksize(&attributes, 512 * 1024);
  sigset_t all;
  sigset_t before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  auto argument = std::make_unique<std::shared_ptr<Lookup>>(std::move(lookup));
  pthread_t thread;
  const int failed = ::pthread_create(&thread, &attributes, thread_main, argument.get());
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  ::pthread_attr_destroy(&attributes);
  if (failed == 0) static_cast<void>(argument.release());
  return failed;
}

Async<void> wait_for(asio::any_io_executor executor, std::shared_ptr<Lookup> lookup) {
  co_await asio::this_coro::throw_if_cancelled(false);
  const int own = ::fcntl(lookup->ready, F_DUPFD_CLOEXEC, 0);
  if (own < 0)
    co_return Error(errc::unavailable,
                    fmt::format("no descriptor is left: {}", std::strerror(errno)));
  asio::posix::stream_descriptor readable(executor, own);
  while (!lookup->done.load(std::memory_order_acquire)) {
    const auto waited = co_await readable.async_wait(asio::posix::stream_descriptor::wait_read,
                                                     asio::as_tuple(asio::use_awaitable));
    const auto state = co_await asio::this_coro::cancellation_state;
    if (state.cancelled() != asio::cancellation_type::none) co_return Error(errc::cancelled);
    if (const auto ec = std::get<0>(waited)) co_return Error(errc::unavailable, ec.message());
  }
  co_return boost::system::in_place_value;
}

bool parse_name_server(std::string_view text, sockaddr_in& out) {
  const auto colon = text.rfind(':');
  if (colon == std::string_view::npos) return false;
  std::uint16_t port = 0;
  const auto* end = text.data() + text.size();
  const auto [at, ec] = std::from_chars(text.data() + colon + 1, end, port);
  out.sin_family = AF_INET;
  out.sin_port = htons(port);
  return ec == std::errc() && at == end && port != 0 &&
         ::inet_pton(AF_INET, std::string(text.substr(0, colon)).c_str(), &out.sin_addr) == 1;
}

}  // namespace

Async<SrvRecords> find_srv(asio::any_io_executor executor,
                           Clock& clock,
                           std::string domain,
                           std::string suffix,
                           std::string name_server,
                           TimePoint deadline) {
  const auto what = fmt::format("looking up the SRV records of {}", domain);
  auto lookup = std::make_shared<Lookup>();
  lookup->names = srv_names(domain, suffix);
  if (!name_server.empty() && !parse_name_server(name_server, lookup->name_server))
    co_return Error(
        errc::invalid_argument,
        fmt::format("{}: the name server must be an IPv4 address with a port, but is {}",
                    what,
                    name_server));
  const auto left = std::chrono::duration_cast<std::chrono::seconds>(deadline - clock.now());
  lookup->seconds_of_try = static_cast<int>(std::clamp<std::int64_t>(left.count() / 4, 1, 5));
  const int failed = lookup->ready < 0 ? EMFILE : start_thread(lookup);
  if (failed != 0)
    co_return Error(errc::unavailable,
                    fmt::format("{}: can't start it: {}", what, std::strerror(failed)));
  const auto waited = co_await with_deadline(clock, deadline, wait_for(executor, lookup), what);
  if (waited.has_error() && waited.error().is(errc::timed_out))
    co_return Error(errc::unavailable, what + ": no answer from the name service in time");
  if (waited.has_error()) co_return waited.error();
  if (lookup->found.targets.empty())
    co_return Error(errc::unavailable, fmt::format("{}: {}", what, lookup->problem));
  co_return std::move(lookup->found);
}

}  // namespace spilo::etcd
