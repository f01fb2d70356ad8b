#include "spilo/guard/process_guard.hpp"

#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include "guard_page.hpp"

extern char** environ;

namespace spilo {
namespace {

namespace page_rules = guard;
using page_rules::GuardPage;

Error system_error(std::string what) {
  const int code = errno;
  return Error(errc::command_failed, fmt::format("{}: {}", what, std::strerror(code)));
}

// A descriptor with an owner.
class Fd {
 public:
  explicit Fd(int fd = -1) noexcept : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    if (this != &other) reset(std::exchange(other.fd_, -1));
    return *this;
  }
  ~Fd() { reset(); }
  void reset(int fd = -1) noexcept {
    if (fd_ >= 0) ::close(fd_);
    fd_ = fd;
  }
  int get() const noexcept { return fd_; }
  explicit operator bool() const noexcept { return fd_ >= 0; }

 private:
  int fd_;
};

Fd open_pidfd(int pid) noexcept {
  return Fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
}

bool has_ended(const Fd& pidfd) noexcept {
  pollfd fd{pidfd.get(), POLLIN, 0};
  return !pidfd || ::poll(&fd, 1, 0) != 0;
}

void send_signal(const Fd& pidfd, int signal) noexcept {
  ::syscall(SYS_pidfd_send_signal, pidfd.get(), signal, nullptr, 0);
}

bool process_runs(int pid) noexcept {
  return pid > 0 && !has_ended(open_pidfd(pid));
}

std::string read_text(const std::string& path) {
  const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::array<char, 8192> buffer;
  const auto n = fd ? ::read(fd.get(), buffer.data(), buffer.size()) : -1;
  return n > 0 ? std::string(buffer.data(), static_cast<std::size_t>(n)) : std::string();
}

// A guard process and the page it shares.
struct Link {
  int pid = 0;
  Fd process;
  GuardPage* page = nullptr;

  Link() = default;
  Link(Link&& other) noexcept
      : pid(other.pid),
        process(std::move(other.process)),
        page(std::exchange(other.page, nullptr)) {}
  Link& operator=(Link&& other) noexcept {
    std::swap(pid, other.pid);
    std::swap(process, other.process);
    std::swap(page, other.page);
    return *this;
  }
  ~Link() {
    if (page != nullptr) ::munmap(page, page_rules::page_bytes);
  }
};

GuardPage* map_page(int fd) noexcept {
  void* memory = ::mmap(nullptr, page_rules::page_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  return memory == MAP_FAILED ? nullptr : static_cast<GuardPage*>(memory);
}

// Is that process a guard of this directory? By its command line and by the page it holds.
std::optional<Link> look_at(int pid, const std::string& data_dir) {
  const std::string folder = fmt::format("/proc/{}/", pid);
  if (read_text(folder + "comm") != "spilo-guard\n") return std::nullopt;
  const std::string arguments = read_text(folder + "cmdline");
  const auto first = arguments.find('\0');
  if (first == std::string::npos || arguments.c_str() + first + 1 != data_dir) return std::nullopt;
  Link link;
  link.pid = pid;
  link.process = open_pidfd(pid);
  const std::string path = folder + fmt::format("fd/{}", page_rules::page_fd);
  const Fd memory(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  struct stat info {};
  if (!memory || ::fstat(memory.get(), &info) != 0 || info.st_uid != ::geteuid() ||
      info.st_size != static_cast<off_t>(page_rules::page_bytes) || has_ended(link.process))
    return std::nullopt;
  link.page = map_page(memory.get());
  if (link.page == nullptr || link.page->magic != page_rules::page_magic) return std::nullopt;
  return link;
}

std::vector<Link> find_guards(const std::string& data_dir) {
  std::vector<Link> found;
  DIR* proc = ::opendir("/proc");
  if (proc == nullptr) return found;
  while (const dirent* entry = ::readdir(proc)) {
    if (entry->d_name[0] < '1' || entry->d_name[0] > '9') continue;
    if (auto link = look_at(std::atoi(entry->d_name), data_dir)) found.push_back(std::move(*link));
  }
  ::closedir(proc);
  return found;
}

// Two agents that start at the same moment must not start two guards: the folder around the data
// directory is locked while one looks and starts. Best effort where we may not open it.
Result<Fd> lock_folder(const std::string& data_dir) {
  const auto slash = data_dir.find_last_of('/');
  const std::string folder = slash == 0 ? "/" : data_dir.substr(0, slash);
  Fd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return fd;
  for (int attempt = 0; ::flock(fd.get(), LOCK_EX | LOCK_NB) != 0; ++attempt) {
    if (errno != EWOULDBLOCK && errno != EINTR) return fd;
    if (attempt == 250)
      return Error(errc::unavailable,
                   fmt::format("guard of {}: another agent has been starting one for 500 ms and "
                               "holds the lock of {}",
                               data_dir,
                               folder));
    ::poll(nullptr, 0, 2);
  }
  return fd;
}

Result<Fd> make_page_memory() {
  Fd memory(::memfd_create("spilo-guard", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!memory || ::ftruncate(memory.get(), page_rules::page_bytes) != 0 ||
      ::fcntl(memory.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
    return system_error("guard: creating the shared page");
  return memory;
}

// Runs the program and waits, for at most two seconds, until it says that it watches: its first
// process ends then, and the guard is nobody's child.
Result<void> run_program(const std::string& program,
                         const GuardOptions& options,
                         const Fd& memory) {
  const std::string command = fmt::format("guard: starting {} for {}", program, options.data_dir);
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawnattr_init(&attributes);
  ::posix_spawn_file_actions_adddup2(&actions, memory.get(), page_rules::page_fd);
  sigset_t none, all;
  ::sigemptyset(&none);
  ::sigfillset(&all);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setsigdefault(&attributes, &all);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  std::array<std::string, 3> words{"spilo-guard", options.data_dir, options.log_file};
  std::array<char*, 4> argv{words[0].data(), words[1].data(), words[2].data(), nullptr};
  char path[] = "PATH=/usr/bin:/bin";
  std::array<char*, 2> environment{path, nullptr};
  pid_t pid = 0;
  const int failed =
      ::posix_spawn(&pid, program.c_str(), &actions, &attributes, argv.data(), environment.data());
  ::posix_spawn_file_actions_destroy(&actions);
  ::posix_spawnattr_destroy(&attributes);
  if (failed != 0)
    return Error(errc::command_failed, fmt::format("{}: {}", command, std::strerror(failed)));
  const Fd process = open_pidfd(pid);
  pollfd ended{process.get(), POLLIN, 0};
  const bool in_time = ::poll(&ended, 1, 2000) > 0;
  if (!in_time) ::kill(pid, SIGKILL);
  int status = 0;
  // An application that lets the kernel reap its children leaves nothing to wait for.
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (in_time && WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
  return Error(errc::command_failed,
               in_time ? fmt::format("{}: it ended at once, with status {} (wait status {})",
                                     command,
                                     WEXITSTATUS(status),
                                     status)
                       : fmt::format("{}: it did not get ready within 2 s", command));
}

std::string directory_of_running_program() {
  std::array<char, 4096> target;
  const auto n = ::readlink("/proc/self/exe", target.data(), target.size());
  if (n <= 0) return {};
  const std::string path(target.data(), static_cast<std::size_t>(n));
  return path.substr(0, path.find_last_of('/'));
}

// Empty when this code is part of the program itself, as it is with static libraries.
std::string directory_of_this_library() {
  static const char here = 0;
  Dl_info info{};
  if (::dladdr(&here, &info) == 0 || info.dli_fname == nullptr ||
      std::strstr(info.dli_fname, ".so") == nullptr)
    return {};
  std::array<char, PATH_MAX> target;
  if (::realpath(info.dli_fname, target.data()) == nullptr) return {};
  const std::string path(target.data());
  return path.substr(0, path.find_last_of('/'));
}

}  // namespace

Result<std::string> find_guard_program() {
  std::vector<std::string> places;
  if (const char* named = std::getenv("SPILO_GUARD_PATH"); named != nullptr && named[0] != '\0')
    places.emplace_back(named);
  if (const auto here = directory_of_running_program(); !here.empty()) {
    places.push_back(here + "/spilo-guard");
    places.push_back(here + "/../libexec/spilo/spilo-guard");
  }
  if (const auto library = directory_of_this_library(); !library.empty())
    places.push_back(library + "/" SPILO_GUARD_FROM_LIBRARY);
  places.emplace_back(SPILO_GUARD_INSTALLED);
  std::string tried;
  for (const auto& place : places) {
    if (::access(place.c_str(), X_OK) == 0) return place;
    tried += (tried.empty() ? "" : ", ") + place;
  }
  return Error(errc::not_found,
               fmt::format("no executable spilo-guard (looked at {}); install it, set "
                           "SPILO_GUARD_PATH, or turn the guard off with `guard: off`",
                           tried));
}

struct ProcessGuard::Impl : std::enable_shared_from_this<ProcessGuard::Impl> {
  Impl(boost::asio::any_io_executor ex, GuardOptions opts, Logger log)
      : options(std::move(opts)), logger(std::move(log)), death(std::move(ex)) {
    if (options.log_file.empty()) options.log_file = options.data_dir + ".guard.log";
  }

  bool alive() const noexcept {
    return link.page != nullptr && link.page->owner.load() == owner && !has_ended(link.process);
  }

  void watch_death() {
    boost::system::error_code ignored;
    death.cancel(ignored);
    death.close(ignored);
    const int copy = ::fcntl(link.process.get(), F_DUPFD_CLOEXEC, 0);
    if (copy < 0) return;
    death.assign(copy, ignored);
    death.async_wait(boost::asio::posix::stream_descriptor::wait_read,
                     [self = weak_from_this(), pid = link.pid](boost::system::error_code ec) {
                       const auto impl = self.lock();
                       if (ec || !impl || impl->link.pid != pid) return;
                       impl->logger.error(
                           "guard of {}: process {} has died, PostgreSQL is not guarded",
                           impl->options.data_dir,
                           pid);
                       if (impl->wake) impl->wake();
                     });
  }

  // Tells what the guard did while we did not look.
  void report_firing() {
    const auto count = link.page->fired_count.load();
    if (count == seen_fired) return;
    seen_fired = count;
    logger.error(
        "guard of {}: it ended PostgreSQL because the lease was not renewed in time: {} signals, "
        "{} "
        "processes left, done {:.1f} ms after the deadline",
        options.data_dir,
        link.page->fired_killed.load(),
        link.page->fired_remaining.load(),
        static_cast<double>(link.page->fired_done_ns.load() - link.page->fired_deadline_ns.load()) /
            1e6);
  }

  void take(Link next, std::uint64_t as_owner) {
    link = std::move(next);
    owner = as_owner;
    seen_fired = link.page->fired_count.load();
    called_ns = 0;
    lateness_told = false;
    watch_death();
    send_signal(link.process, SIGUSR1);
  }

  // adopted: true; not adoptable (it is about to leave): false; it belongs to somebody: conflict.
  Result<bool> adopt(Link candidate) {
    auto expected = candidate.page->owner.load();
    for (;;) {
      if (expected == page_rules::owner_leaving) return false;
      const int other = page_rules::owner_pid(expected);
      if (other != 0 && other != ::getpid() && process_runs(other))
        return Error(errc::conflict,
                     fmt::format("guard of {}: it belongs to process {}, which runs: two agents on "
                                 "one data directory; end one of them",
                                 options.data_dir,
                                 other));
      const auto mine = page_rules::make_owner(page_rules::owner_count(expected) + 1,
                                               static_cast<std::uint32_t>(::getpid()));
      if (!candidate.page->owner.compare_exchange_strong(expected, mine)) continue;
      const auto deadline = candidate.page->deadline_ns.load();
      logger.info("guard of {}: adopted process {}{}",
                  options.data_dir,
                  candidate.pid,
                  deadline > 0
                      ? fmt::format(", which ends PostgreSQL in {} ms unless the lease is renewed",
                                    (deadline - page_rules::boot_ns()) / 1'000'000)
                      : std::string());
      take(std::move(candidate), mine);
      return true;
    }
  }

  Result<void> start(std::int64_t deadline) {
    std::string program = options.program;
    if (program.empty()) {
      const auto found = find_guard_program();
      if (!found) return found.error();
      program = *found;
    }
    auto memory = make_page_memory();
    if (!memory) return memory.error();
    Link next;
    next.page = map_page(memory->get());
    if (next.page == nullptr) return system_error("guard: mapping the shared page");
    auto& page = *next.page;
    page.magic = page_rules::page_magic;
    page.layout = page_rules::page_layout;
    const auto mine = page_rules::make_owner(1, static_cast<std::uint32_t>(::getpid()));
    page.owner.store(mine);
    page.deadline_ns.store(deadline);
    if (auto started = run_program(program, options, *memory); !started) {
      // It may still come: then it finds neither an owner nor a deadline, and leaves.
      page.deadline_ns.store(page_rules::deadline_none);
      page.owner.store(page_rules::owner_leaving);
      return started;
    }
    next.pid = page.guard_pid.load();
    next.process = open_pidfd(next.pid);
    if (!next.process)
      return system_error(fmt::format("guard of {}: it died at once", options.data_dir));
    const auto protection = page.protection.load();
    logger.info("guard of {}: process {} watches{}{}{}",
                options.data_dir,
                next.pid,
                (protection & page_rules::has_locked_memory) != 0 ? ", memory locked" : "",
                (protection & page_rules::has_realtime) != 0 ? ", real-time priority" : "",
                (protection & page_rules::has_oom_exemption) != 0
                    ? ", never chosen when memory is short"
                    : "");
    take(std::move(next), mine);
    return {};
  }

  Result<void> ensure() {
    if (alive()) {
      report_firing();
      return {};
    }
    // A guard that died left its deadline with us; it goes on being in force.
    auto deadline = link.page != nullptr ? link.page->deadline_ns.load() : 0;
    auto lock = lock_folder(options.data_dir);
    if (!lock) return lock.error();
    std::vector<Link> obsolete;
    for (auto& candidate : find_guards(options.data_dir)) {
      const auto theirs = candidate.page->deadline_ns.load();
      if (candidate.page->layout != page_rules::page_layout) {
        // Of another version of the library: ours takes its deadline over, then it goes.
        if (theirs > 0 && (deadline <= 0 || theirs < deadline)) deadline = theirs;
        obsolete.push_back(std::move(candidate));
        continue;
      }
      auto adopted = adopt(std::move(candidate));
      if (!adopted) return adopted.error();
      if (*adopted) {
        if (deadline > 0 && link.page->deadline_ns.load() == 0) set_deadline(deadline);
        return {};
      }
    }
    auto started = start(deadline);
    if (!started) return started;
    for (const auto& old : obsolete) send_signal(old.process, SIGKILL);
    return {};
  }

  void set_deadline(std::int64_t deadline) {
    link.page->deadline_ns.store(deadline);
    // Most often the deadline moves away from where the guard will look anyway: then that is all.
    const auto wakes = link.page->wakes_at_ns.load();
    if (deadline > 0 && deadline < wakes) {
      if (called_ns == 0) {
        called_ns = page_rules::boot_ns();
        wakes_when_called = wakes;
      }
      send_signal(link.process, SIGUSR1);
    }
  }

  // A guard that was stopped (SIGSTOP) or hangs protects nobody, although it lives. It tells when it
  // looks at the deadline again, so it can be seen to be late.
  std::int64_t late_ns() {
    const auto wakes = link.page->wakes_at_ns.load();
    if (wakes == 0) return 0;  // it has only just begun
    if (wakes != wakes_when_called) called_ns = 0;
    const auto due = called_ns != 0 ? std::min(called_ns, wakes) : wakes;
    return page_rules::boot_ns() - due;
  }

  // False: there is none that does its work.
  bool wake_up_guard() {
    constexpr std::int64_t second = 1'000'000'000;
    const auto late = late_ns();
    if (late < second) {
      lateness_told = false;
      return true;
    }
    if (!std::exchange(lateness_told, true))
      logger.warning("guard of {}: process {} should have looked at its deadline {:.1f} s ago; if "
                     "somebody has stopped it, it goes on now",
                     options.data_dir,
                     link.pid,
                     static_cast<double>(late) / 1e9);
    send_signal(link.process, SIGCONT);
    if (late < 5 * second) return true;
    logger.error("guard of {}: process {} does not do its work, another one takes its place",
                 options.data_dir,
                 link.pid);
    send_signal(link.process, SIGKILL);
    pollfd ended{link.process.get(), POLLIN, 0};
    ::poll(&ended, 1, 100);
    return false;
  }

  GuardOptions options;
  Logger logger;
  boost::asio::posix::stream_descriptor death;
  Link link;
  std::uint64_t owner = 0;
  std::uint32_t seen_fired = 0;
  std::int64_t called_ns = 0;  // when it was told to look, and has not been seen to; 0: it has
  std::int64_t wakes_when_called = 0;
  bool lateness_told = false;
  std::function<void()> wake;
};

ProcessGuard::ProcessGuard(boost::asio::any_io_executor executor,
                           GuardOptions options,
                           Logger logger)
    : impl_(std::make_shared<Impl>(std::move(executor), std::move(options), std::move(logger))) {}

ProcessGuard::~ProcessGuard() {
  boost::system::error_code ignored;
  impl_->death.close(ignored);
  if (impl_->link.page == nullptr) return;
  // As if we had died: our process may well live on.
  auto expected = impl_->owner;
  impl_->link.page->owner.compare_exchange_strong(
      expected, page_rules::make_owner(page_rules::owner_count(expected), 0));
  send_signal(impl_->link.process, SIGUSR1);
}

Result<void> ProcessGuard::ensure() {
  return impl_->ensure();
}

Result<void> ProcessGuard::hold_until(TimePoint deadline) {
  if (!impl_->alive() || !impl_->wake_up_guard())
    return Error(errc::unavailable,
                 fmt::format("guard of {}: there is none, PostgreSQL is not guarded",
                             impl_->options.data_dir));
  impl_->report_firing();
  // Zero and below have meanings of their own; a time that early is past in any case.
  const auto ns = deadline.time_since_epoch().count();
  impl_->set_deadline(ns > 0 ? ns : 1);
  return {};
}

Result<void> ProcessGuard::hold_no_longer_than(TimePoint limit) {
  const auto ns = impl_->link.page != nullptr ? impl_->link.page->deadline_ns.load()
                                               : page_rules::deadline_none;
  const bool later = ns == page_rules::deadline_none || ns > limit.time_since_epoch().count();
  return later ? hold_until(limit) : Result<void>();
}

Result<void> ProcessGuard::stand_down() {
  if (impl_->link.page == nullptr) return {};
  impl_->report_firing();
  impl_->set_deadline(page_rules::deadline_none);
  return {};
}

bool ProcessGuard::alive() const noexcept {
  return impl_->alive();
}

void ProcessGuard::on_death(std::function<void()> wake) {
  impl_->wake = std::move(wake);
}

int ProcessGuard::pid() const noexcept {
  return impl_->alive() ? impl_->link.pid : 0;
}

unsigned ProcessGuard::fired() const noexcept {
  return impl_->link.page != nullptr ? impl_->link.page->fired_count.load() : 0;
}

TimePoint ProcessGuard::deadline() const noexcept {
  const auto ns = impl_->link.page != nullptr ? impl_->link.page->deadline_ns.load() : 0;
  return ns > 0 ? TimePoint(Duration(ns)) : TimePoint();
}

}  // namespace spilo
