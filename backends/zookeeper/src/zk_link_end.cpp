// The ends of a link: leaving a server, leaving a session to its time, closing a session.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <unistd.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cerrno>
#include <string_view>
#include <utility>

#include "spilo/runtime/with_deadline.hpp"
#include "zk_link.hpp"

namespace spilo::zookeeper {
namespace asio = boost::asio;
using Descriptor = asio::posix::stream_descriptor;

// Puts something that is no socket in the place of the library's, so that it finds its connection
// broken and answers every request. Not from inside a callback.
void Link::drop_connection() {
  if (handle_ == nullptr) return;
  const Entered entered(*this);
  int fd = -1;
  int interest = 0;
  timeval limit{};
  const int rc = zookeeper_interest(handle_, &fd, &interest, &limit);
  if (rc == ZOK && fd >= 0) {
    const int nothing = ::open("/dev/null", O_RDWR | O_CLOEXEC);
    if (nothing >= 0) {
      ::dup3(nothing, fd, O_CLOEXEC);
      ::close(nothing);
    } else {
      ::shutdown(fd, SHUT_RDWR);
    }
    // What was received before a shutdown is still read, packet by packet.
    for (int packets = 0; packets < 10'000; ++packets)
      if (zookeeper_process(handle_, ZOOKEEPER_READ) != ZOK) break;
  }
  look_at_state();
}

// Sending failed inside a call: the library has closed the connection, but would send what is
// queued to the next server.
void Link::flush_unsent() {
  trouble_ = "sending failed";
  drop_connection();
}

void Link::leave_silent_server(TimePoint since) {
  if (!is_connected() || heard_ >= since) return;
  logger_.warning("zookeeper: {} does not answer, trying the next server", server());
  trouble_ = fmt::format("{} did not answer", server());
  stop_waiting();
  drop_connection();
  turn();
}

void Link::close_quietly() noexcept {
  if (handle_ == nullptr) return;
  stop_waiting();
  events_ = {};
  logger_ = Logger();
  if (is_connected()) drop_connection();
  const Entered entered(*this);
  zookeeper_close(std::exchange(handle_, nullptr));
  was_connected_ = false;
  news_.tell();
}

namespace {

// A wait on a descriptor of ours: readable, or an error.
Async<void> readable(Descriptor& descriptor) {
  constexpr auto token = asio::as_tuple(asio::use_awaitable);
  co_await asio::this_coro::throw_if_cancelled(false);
  const auto [ec] = co_await descriptor.async_wait(Descriptor::wait_read, token);
  if (ec) co_return Error(ec);
  co_return boost::system::in_place_value;
}

// Reads what the server sends until its answer to the close request, the second one of `bytes`.
Async<void> read_farewell(Clock& clock, Descriptor& descriptor, TimePoint deadline) {
  std::string bytes;
  for (;;) {
    char buffer[4096];
    const auto got = ::recv(descriptor.native_handle(), buffer, sizeof buffer, MSG_DONTWAIT);
    if (got > 0) {
      bytes.append(buffer, static_cast<std::size_t>(got));
      const auto answers = count_answers(bytes);
      if (answers.count < 2) continue;
      if (answers.last_is_good) co_return boost::system::in_place_value;
      co_return Error(errc::ambiguous, "the server refused to close the session");
    }
    if (got == 0 || (errno != EAGAIN && errno != EINTR))
      co_return Error(errc::ambiguous, "the connection broke before the session was closed");
    const auto more = co_await with_deadline(clock, deadline, readable(descriptor));
    if (more.has_error())
      co_return Error(errc::ambiguous, "closing the session was not confirmed before the deadline");
  }
}

}  // namespace

Async<void> Link::end_session(TimePoint deadline) {
  const auto self = shared_from_this();
  const auto undone = [this](std::string_view why) {
    return Error(errc::unavailable,
                 fmt::format("zookeeper {}: the session was not closed: {}", server(), why));
  };
  while (outstanding_ > 0) {
    const auto idle = co_await news_.wait(deadline);
    if (idle.has_error() && outstanding_ > 0) co_return undone("earlier requests are not answered");
  }
  if (!is_connected()) co_return undone("not connected");
  // From here on the answers are left in the socket.
  ending_ = true;
  const auto request = batch();
  sync(request, "/");
  stop_waiting();
  int fd = -1;
  int interest = 0;
  timeval limit{};
  int rc = ZOK;
  {
    const Entered entered(*this);
    rc = zookeeper_interest(handle_, &fd, &interest, &limit);
  }
  const int own = rc == ZOK && is_connected() ? ::fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1;
  if (own < 0) {
    ending_ = false;
    turn();
    co_return undone("the connection broke");
  }
  Descriptor descriptor(executor_, own);
  const auto answered = co_await with_deadline(clock_, deadline, readable(descriptor));
  if (answered.has_error() || handle_ == nullptr) {
    ending_ = false;
    turn();
    co_return undone("no answer before the deadline");
  }
  logger_.info("zookeeper: closing session {}", session_name(identity().client_id).str());
  {
    const Entered entered(*this);
    events_ = {};
    zookeeper_close(std::exchange(handle_, nullptr));
  }
  was_connected_ = false;
  news_.tell();
  const auto closed = co_await read_farewell(clock_, descriptor, deadline);
  if (closed.has_error()) co_return closed.error().in("zookeeper: end of the session");
  co_return boost::system::in_place_value;
}

}  // namespace spilo::zookeeper
