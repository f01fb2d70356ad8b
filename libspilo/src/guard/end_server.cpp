#include "spilo/guard/end_server.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <ctime>

namespace spilo::guard {
namespace {

std::int64_t monotonic_ns() noexcept {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

// "/proc/<pid>/<leaf>" without a formatting library.
struct ProcPath {
  ProcPath(int pid, const char* leaf) noexcept {
    char digits[16];
    int n = 0;
    for (unsigned rest = static_cast<unsigned>(pid); n == 0 || rest != 0; rest /= 10)
      digits[n++] = static_cast<char>('0' + rest % 10);
    char* out = text;
    std::memcpy(out, "/proc/", 6);
    out += 6;
    while (n > 0) *out++ = digits[--n];
    *out++ = '/';
    std::strncpy(out, leaf, 16);
  }
  char text[48] = {};
};

int read_small(const char* path, char* buffer, std::size_t size) noexcept {
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return -1;
  const auto n = ::read(fd, buffer, size - 1);
  ::close(fd);
  if (n < 0) return -1;
  buffer[n] = '\0';
  return static_cast<int>(n);
}

// The program's file name says "postgres" (also "(deleted)" after an upgrade of the package, or
// with a distributor's prefix), or the kernel's name of the process does.
bool runs_postgres(int pid) noexcept {
  char target[4096];
  const auto n = ::readlink(ProcPath(pid, "exe").text, target, sizeof target - 1);
  if (n > 0) {
    target[n] = '\0';
    const char* slash = std::strrchr(target, '/');
    const char* name = slash != nullptr ? slash + 1 : target;
    if (std::strstr(name, "postgres") != nullptr || std::strstr(name, "postmaster") != nullptr)
      return true;
  }
  char name[64];
  return read_small(ProcPath(pid, "comm").text, name, sizeof name) > 0 &&
         (std::strncmp(name, "postgres", 8) == 0 || std::strncmp(name, "postmaster", 10) == 0);
}

int pidfd_open(int pid) noexcept {
  return static_cast<int>(::syscall(SYS_pidfd_open, pid, 0));
}

enum class Signalled { sent, not_a_server, failed };

// The process is looked at once more after its descriptor was taken: if the id was used again in
// between, the signal goes to the process that has ended, and not to a stranger.
Signalled signal_verified(
    int signal, int pid, const DirectoryId& id, int& last_fd, int& error) noexcept {
  if (!is_server_process(pid, id)) return Signalled::not_a_server;
  const int fd = pidfd_open(pid);
  const bool old_kernel = fd < 0 && errno == ENOSYS;
  if (fd < 0 && !old_kernel) return Signalled::not_a_server;  // gone meanwhile
  if (!is_server_process(pid, id)) {
    if (fd >= 0) ::close(fd);
    return Signalled::not_a_server;
  }
  const auto failed =
      old_kernel ? ::kill(pid, signal) : ::syscall(SYS_pidfd_send_signal, fd, signal, nullptr, 0);
  const int why = failed != 0 ? errno : 0;
  if (fd >= 0) {
    if (last_fd >= 0) ::close(last_fd);
    last_fd = fd;
  }
  if (why == ESRCH) return Signalled::not_a_server;
  if (why == 0) return Signalled::sent;
  if (error == 0) error = why;
  return Signalled::failed;
}

// "postgres: [CLUSTER: ]walsender USER HOST(PORT) streaming 0/3000060": PostgreSQL 13 to 17 set the
// first title of a process also with update_process_title off. A client's process that is taken
// for one because of its names lives for as long as the walsenders may, no longer.
bool is_walsender(int pid) noexcept {
  char title[256];
  return read_small(ProcPath(pid, "cmdline").text, title, sizeof title) > 0 &&
         std::strstr(title, "walsender ") != nullptr;
}

// Runs, or waits for a disk: it has something to do. One that waits for its socket or its latch has
// sent what there is, or can't.
bool is_busy(int pid) noexcept {
  char stat[512];
  if (read_small(ProcPath(pid, "stat").text, stat, sizeof stat) <= 0) return false;
  const char* name_end = std::strrchr(stat, ')');
  return name_end != nullptr && name_end[1] == ' ' && (name_end[2] == 'R' || name_end[2] == 'D');
}

// Calls visit(pid) for every process; false from visit() ends the walk. Returns 0 or errno.
template <class Visit>
int each_process(Visit visit) noexcept {
  const int fd = ::open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return errno;
  alignas(dirent64) char buffer[16 * 1024];
  int error = 0;
  for (bool going_on = true; going_on;) {
    const auto n = ::syscall(SYS_getdents64, fd, buffer, sizeof buffer);
    if (n < 0) error = errno;
    if (n <= 0) break;
    for (long at = 0; at < n && going_on;) {
      const auto* entry = reinterpret_cast<const dirent64*>(buffer + at);
      at += entry->d_reclen;
      if (entry->d_name[0] < '1' || entry->d_name[0] > '9') continue;
      going_on = visit(std::atoi(entry->d_name));
    }
  }
  ::close(fd);
  return error;
}

// A client that was told "committed" may be ahead of what the walsenders have sent, by the moment
// that they need to run: PostgreSQL wakes them before it answers. So those who talk to clients end
// first, with the postmaster stopped, which would otherwise end everybody; from here on nothing is
// acknowledged, and the walsenders get until they rest, for `limit_ms` at most.
int end_all_but_walsenders(const DirectoryId& id, int postmaster, int limit_ms) noexcept {
  const auto started = monotonic_ns();
  int killed = 0;
  int last_fd = -1;
  int error = 0;  // whatever is left here is met again by end_server
  const bool stopped =
      postmaster > 0 && signal_verified(SIGSTOP, postmaster, id, last_fd, error) == Signalled::sent;
  each_process([&](int pid) {
    if ((stopped && pid == postmaster) || is_walsender(pid)) return true;
    if (signal_verified(SIGKILL, pid, id, last_fd, error) == Signalled::sent) ++killed;
    return true;
  });
  for (;;) {
    bool busy = false;
    each_process([&](int pid) {
      busy = is_walsender(pid) && is_busy(pid) && is_server_process(pid, id);
      return !busy;
    });
    if (!busy || monotonic_ns() - started >= std::int64_t{limit_ms} * 1'000'000) break;
    ::poll(nullptr, 0, 1);
  }
  if (last_fd >= 0) ::close(last_fd);
  return killed;
}

}  // namespace

int directory_id(const char* data_dir, DirectoryId& id) noexcept {
  struct statx info {};
  if (::statx(
          AT_FDCWD, data_dir, AT_STATX_DONT_SYNC, STATX_TYPE | STATX_INO | STATX_BTIME, &info) != 0)
    return errno;
  if (!S_ISDIR(info.stx_mode)) return ENOTDIR;
  id.device = (std::uint64_t{info.stx_dev_major} << 32) | info.stx_dev_minor;
  id.inode = info.stx_ino;
  id.born_ns = (info.stx_mask & STATX_BTIME) != 0
                   ? info.stx_btime.tv_sec * 1'000'000'000 + info.stx_btime.tv_nsec
                   : 0;
  return 0;
}

int postmaster_pid(const char* data_dir) noexcept {
  char path[4096];
  const auto length = std::strlen(data_dir);
  constexpr char leaf[] = "/postmaster.pid";
  if (length + sizeof leaf > sizeof path) return 0;
  std::memcpy(path, data_dir, length);
  std::memcpy(path + length, leaf, sizeof leaf);
  char text[32];
  if (read_small(path, text, sizeof text) <= 0) return 0;
  // A single-user server writes its id negated.
  return std::abs(std::atoi(text));
}

bool is_server_process(int pid, const DirectoryId& id) noexcept {
  if (pid <= 0) return false;
  // A process that has ended and waits for its parent has no working directory any more.
  DirectoryId where;
  if (directory_id(ProcPath(pid, "cwd").text, where) != 0) return false;
  return where == id && runs_postgres(pid);
}

EndResult end_server(const DirectoryId& id, int postmaster, int limit_ms) noexcept {
  const auto started = monotonic_ns();
  EndResult result;
  int last_fd = -1;
  result.killed = end_all_but_walsenders(id, postmaster, limit_ms < 50 ? limit_ms : 50);
  // Of the rest the postmaster first: after it nothing is forked any more.
  if (postmaster > 0 &&
      signal_verified(SIGKILL, postmaster, id, last_fd, result.error) == Signalled::sent)
    ++result.killed;
  // Two looks in a row must find nothing: a child that was forked behind the first look's back, by
  // a postmaster that was gone when the look came to it, is found by the second.
  for (int clean = 0; clean < 2;) {
    int seen = 0;
    const int failure = each_process([&](int pid) {
      const auto outcome = signal_verified(SIGKILL, pid, id, last_fd, result.error);
      if (outcome != Signalled::not_a_server) ++seen;
      if (outcome == Signalled::sent) ++result.killed;
      return true;
    });
    if (failure != 0) {
      result.error = failure;
      break;
    }
    result.remaining = seen;
    clean = seen == 0 ? clean + 1 : 0;
    const auto left_ms = limit_ms - (monotonic_ns() - started) / 1'000'000;
    if (seen > 0 && left_ms <= 0) break;
    if (seen > 0) {
      // Woken by the end of the process that was signalled last, most often the last to go.
      pollfd ended{last_fd, POLLIN, 0};
      ::poll(&ended, last_fd >= 0 ? 1U : 0U, static_cast<int>(left_ms < 5 ? left_ms : 5));
    }
  }
  if (last_fd >= 0) ::close(last_fd);
  // A signal that was refused is no news once the process is gone all the same.
  if (result.remaining == 0 && (result.error == EPERM || result.error == ESRCH)) result.error = 0;
  result.took_ns = monotonic_ns() - started;
  return result;
}

EndResult end_server(const char* data_dir, int limit_ms) noexcept {
  DirectoryId id;
  if (const int error = directory_id(data_dir, id); error != 0) {
    EndResult result;
    // Without the directory no server can have been started in it by that name.
    result.error = error == ENOENT ? 0 : error;
    return result;
  }
  return end_server(id, postmaster_pid(data_dir), limit_ms);
}

bool server_processes_exist(const char* data_dir) noexcept {
  DirectoryId id;
  if (const int error = directory_id(data_dir, id); error != 0) return error != ENOENT;
  if (is_server_process(postmaster_pid(data_dir), id)) return true;
  bool found = false;
  const int error = each_process([&](int pid) {
    found = is_server_process(pid, id);
    return !found;
  });
  return found || error != 0;
}

}  // namespace spilo::guard
