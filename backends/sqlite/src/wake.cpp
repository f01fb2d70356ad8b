#include "wake.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

namespace spilo::sqlite {
namespace asio = boost::asio;

struct Wake::State : std::enable_shared_from_this<Wake::State> {
  explicit State(asio::any_io_executor ex) : executor(std::move(ex)), events(executor) {}

  void signal_all() {
    // Full means that the waiter has an unread signal already.
    for (Signal* signal : waiters) signal->try_send(boost::system::error_code{});
  }

  // One wait serves all waiters; an idle store must not keep its io_context busy, so there is none
  // without them.
  void arm() {
    if (armed || waiters.empty() || !events.is_open()) return;
    armed = true;
    events.async_wait(asio::posix::stream_descriptor::wait_read,
                      [self = weak_from_this()](boost::system::error_code ec) {
                        const auto state = self.lock();
                        if (!state) return;
                        state->armed = false;
                        if (!ec) {
                          state->drain();
                          state->signal_all();
                        }
                        state->arm();
                      });
  }

  // What the events say does not matter: those who wait look for themselves.
  void drain() {
    alignas(inotify_event) char buffer[4096];
    while (::read(events.native_handle(), buffer, sizeof buffer) > 0) {
    }
  }

  void close() noexcept {
    boost::system::error_code ignored;
    events.close(ignored);
    if (file >= 0) ::close(std::exchange(file, -1));
  }

  asio::any_io_executor executor;
  asio::posix::stream_descriptor events;
  std::vector<Signal*> waiters;
  int file = -1;
  bool armed = false;
};

Wake::Wake(asio::any_io_executor executor) : state_(std::make_shared<State>(std::move(executor))) {}
Wake::~Wake() {
  state_->close();
}
void Wake::close() noexcept {
  state_->close();
}
bool Wake::is_listening() const noexcept {
  return state_->events.is_open();
}

Result<void> Wake::open(const std::string& file) {
  State& state = *state_;
  // Deleted or replaced by somebody: nobody would hear us in the old one.
  struct stat seen {};
  if (state.file >= 0 && (::fstat(state.file, &seen) != 0 || seen.st_nlink == 0)) state.close();
  if (state.file >= 0) return {};
  state.file = ::open(file.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
  if (state.file < 0) {
    const int failed = errno;
    return Error(
        failed == EACCES || failed == EPERM || failed == EROFS ? errc::denied : errc::unavailable,
        fmt::format("open {}: {}", file, std::strerror(failed)));
  }
  const int events = ::inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  if (events < 0) return {};  // is_listening() tells
  if (::inotify_add_watch(events, file.c_str(), IN_MODIFY | IN_DELETE_SELF | IN_ATTRIB) < 0) {
    ::close(events);
    return {};
  }
  state.events.assign(events);
  state.arm();
  return {};
}

void Wake::announce() noexcept {
  // Should the byte not get through, the waiters of other processes look again at their next event;
  // ours are told anyway.
  if (state_->file >= 0) {
    const char byte = '.';
    [[maybe_unused]] const auto written = ::pwrite(state_->file, &byte, 1, 0);
  }
  state_->signal_all();
}

Wake::Waiter::Waiter(Wake& wake) : wake_(wake), signal_(wake.state_->executor, 1) {
  wake_.state_->waiters.push_back(&signal_);
  wake_.state_->arm();
}

Wake::Waiter::~Waiter() {
  State& state = *wake_.state_;
  std::erase(state.waiters, &signal_);
  boost::system::error_code ignored;
  if (state.waiters.empty() && state.armed) state.events.cancel(ignored);
}

}  // namespace spilo::sqlite
