// Whether the file system of the data directory answers.
//
// A read from an NFS server that is away, or from a disk that dies, does not return, and with it would
// stand the one thread of the agent: renewals too, so that a standby with a stalled disk would lose
// its keys, and a primary its lease, over something that PostgreSQL may not even have noticed. So a
// thread reads first what an observation or a task reads, and the loop follows when it has come back.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <system_error>
#include <thread>

#include "impl.hpp"
#include "spilo/runtime/with_deadline.hpp"

namespace spilo::pg {
namespace asio = boost::asio;
namespace {

using Descriptor = asio::posix::stream_descriptor;

// What goes wrong, short of standing still, is told by who reads next.
void touch(const std::string& path) noexcept {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return;
  char buffer[8192];
  while (::read(fd, buffer, sizeof buffer) > 0) {
  }
  ::close(fd);
}

Async<void> wait_for(std::shared_ptr<Descriptor> look) {
  const auto waited =
      co_await look->async_wait(Descriptor::wait_read, asio::as_tuple(asio::use_awaitable));
  if (std::get<0>(waited)) co_return Error(errc::cancelled);
  co_return Result<void>{};
}

}  // namespace

Async<void> PgController::Impl::disk_answers(TimePoint deadline) {
  if (!looking) {
    int ends[2];
    // Without descriptors or threads: as if the disk were well, which it mostly is.
    if (::pipe2(ends, O_CLOEXEC) != 0) co_return Result<void>{};
    std::vector<std::string> paths;
    const auto& dir = options.data_dir;
    for (const char* file : {"/PG_VERSION", "/postmaster.pid", "/global/pg_control", "/standby.signal"})
      paths.push_back(dir + file);
    for (const auto* marker : {&copying_marker, &creating_marker, &rewinding_marker})
      paths.push_back(*marker);
    looking = std::make_shared<Descriptor>(executor, ends[0]);
    try {
      // It has nothing of ours, because it may come back when all of it is gone. The end of the pipe
      // is its word.
      std::thread([paths = std::move(paths), told = ends[1]] {
        for (const auto& path : paths) touch(path);
        ::close(told);
      }).detach();
    } catch (const std::system_error&) {
      ::close(ends[1]);
    }
  }
  const auto look = looking;
  const auto came = co_await with_deadline(clock, deadline, wait_for(look));
  if (came.has_value()) {
    if (looking == look) looking.reset();
    co_return Result<void>{};
  }
  if (came.error().is(errc::timed_out) && !late_look_awaited) {
    late_look_awaited = true;
    look->async_wait(Descriptor::wait_read,
                     [look, weak = weak_from_this()](const boost::system::error_code& ec) {
                       const auto self = weak.lock();
                       if (ec || !self || self->closed) return;
                       self->late_look_awaited = false;
                       if (self->looking == look) self->looking.reset();
                       self->changed();
                     });
  }
  co_return Error(came.error().code(),
                  fmt::format("the file system of data_dir {} does not answer", options.data_dir));
}

}  // namespace spilo::pg
