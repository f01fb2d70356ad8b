#include "spilo/node/data_dir_lock.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace spilo::node {

DataDirLock::~DataDirLock() {
  if (fd_ >= 0) ::close(fd_);
}

Result<DataDirLock> DataDirLock::take(const std::string& data_dir) {
  std::string path = data_dir;
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  const auto file = path + ".lock";
  int fd = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  const bool has_text = fd >= 0;
  if (!has_text) fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0)
    return Error(errc::unavailable,
                 fmt::format("neither {} nor {} can be opened: {}", file, path, std::strerror(errno)));
  DataDirLock lock(fd);
  int failed = 0;
  do {
    failed = ::flock(fd, LOCK_EX | LOCK_NB) == 0 ? 0 : errno;
  } while (failed == EINTR);
  if (failed == EWOULDBLOCK) {
    char owner[32] = {};
    if (!has_text || ::pread(fd, owner, sizeof owner - 1, 0) < 0) owner[0] = '\0';
    owner[std::strcspn(owner, "\n")] = '\0';
    return Error(errc::conflict,
                 fmt::format("another agent{}{} manages {}: two agents on one data directory; end "
                             "one of them",
                             owner[0] != '\0' ? ", process " : "",
                             owner,
                             path));
  }
  if (failed != 0)
    return Error(errc::unavailable,
                 fmt::format("{} can't be locked: {}", has_text ? file : path, std::strerror(failed)));
  if (has_text && ::ftruncate(fd, 0) == 0) {
    const auto owner = fmt::format("{}\n", ::getpid());
    // Only for people: the lock itself does not depend on it.
    [[maybe_unused]] const auto n = ::pwrite(fd, owner.data(), owner.size(), 0);
  }
  return lock;
}

}  // namespace spilo::node
