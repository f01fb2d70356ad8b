// spilo-guard: ends one PostgreSQL server when its deadline passes.
//
// Started by guard/process_guard.cpp, once per data directory: spilo-guard DATA_DIRECTORY LOG_FILE,
// with the shared page as descriptor 3. It holds no lease and takes no decision; all it knows is a
// deadline on the boot-time clock that a living agent keeps moving. It outlives the agent on
// purpose and ends by itself once there is neither an agent nor a deadline.
//
// Nothing is allocated after start, and everything it runs is locked into memory: it must work when
// the machine is out of memory, which is one way for an agent to get stuck.
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "../guard/guard_page.hpp"
#include "spilo/guard/end_server.hpp"

namespace {

using namespace spilo::guard;

enum Exit : int { exit_ok = 0, exit_usage = 2, exit_bad_page = 3, exit_no_timer = 4 };

struct Guard {
  const char* data_dir = nullptr;
  const char* log_path = nullptr;
  GuardPage* page = nullptr;
  DirectoryId directory;  // as last seen: the directory may be renamed under a running server
  bool directory_known = false;
  int timer = -1;
  int signals = -1;
  int agent_fd = -1;
  std::uint64_t agent = 0;  // the owner that agent_fd belongs to
};

// One line of text in a fixed buffer.
struct Line {
  Line& add(const char* piece) noexcept {
    const auto room = sizeof text - 1 - used;
    const auto n = ::strnlen(piece, room);
    std::memcpy(text + used, piece, n);
    used += n;
    text[used] = '\0';
    return *this;
  }
  Line& add(std::int64_t value) noexcept {
    char digits[24];
    int at = sizeof digits - 1;
    digits[at] = '\0';
    auto rest =
        value < 0 ? 0 - static_cast<std::uint64_t>(value) : static_cast<std::uint64_t>(value);
    do {
      digits[--at] = static_cast<char>('0' + rest % 10);
      rest /= 10;
    } while (rest != 0);
    if (value < 0) digits[--at] = '-';
    return add(digits + at);
  }
  char text[1024] = {};
  std::size_t used = 0;
};

// Where people look: the log file beside the data directory, and the system's log. Both best effort
// and only after the server has gone, because either may block.
void report(const Guard& guard, Line line) noexcept {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  Line stamped;
  stamped.add("unix time ").add(now.tv_sec).add(": ").add(line.text).add("\n");
  if (guard.log_path[0] != '\0') {
    const int fd = ::open(
        guard.log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    if (fd >= 0) {
      [[maybe_unused]] const auto n = ::write(fd, stamped.text, stamped.used);
      ::close(fd);
    }
  }
  const int log = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (log < 0) return;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, "/dev/log", 9);
  Line entry;
  entry.add("<27>spilo-guard[").add(std::int64_t{::getpid()}).add("]: ").add(line.text);
  ::sendto(log,
           entry.text,
           entry.used,
           MSG_NOSIGNAL | MSG_DONTWAIT,
           reinterpret_cast<const sockaddr*>(&address),
           sizeof address);
  ::close(log);
}

// Watches the agent that owns us now. Without one, agent_fd is -1.
void follow_owner(Guard& guard) noexcept {
  const auto owner = guard.page->owner.load();
  if (owner == guard.agent) return;
  if (guard.agent_fd >= 0) ::close(guard.agent_fd);
  guard.agent_fd = -1;
  guard.agent = owner;
  const int pid = owner_pid(owner);
  if (pid == 0) return;
  guard.agent_fd = static_cast<int>(::syscall(SYS_pidfd_open, pid, 0));
}

// Notes the death of the agent in the page, so that the next one may adopt us.
void notice_agent_death(Guard& guard) noexcept {
  if (owner_pid(guard.agent) == 0) return;
  if (guard.agent_fd >= 0) {
    pollfd fd{guard.agent_fd, POLLIN, 0};
    if (::poll(&fd, 1, 0) == 0) return;
  }
  auto expected = guard.agent;
  guard.page->owner.compare_exchange_strong(expected, make_owner(owner_count(guard.agent), 0));
  follow_owner(guard);
}

bool leave(Guard& guard) noexcept {
  auto expected = guard.agent;
  return guard.page->owner.compare_exchange_strong(expected, owner_leaving);
}

// The deadline has passed: ends every process of the server. Called again for as long as the
// deadline stays passed and the agent has not said that it knows: a frozen agent that wakes in the
// middle of starting a server must not get away with it.
bool end_now(Guard& guard, std::int64_t deadline) noexcept {
  DirectoryId id;
  if (directory_id(guard.data_dir, id) == 0) {
    // Moved away and replaced: the server may still run where it was.
    if (guard.directory_known && !(id == guard.directory)) end_server(guard.directory, 0, 500);
    guard.directory = id;
    guard.directory_known = true;
  }
  if (!guard.directory_known) return true;  // there never was a directory, hence no server
  const auto result = end_server(guard.directory, postmaster_pid(guard.data_dir), 2000);
  if (result.killed == 0 && deadline == deadline_passed) return result.complete();

  auto& page = *guard.page;
  const auto done = boot_ns();
  if (deadline > 0) page.fired_deadline_ns.store(deadline);
  page.fired_done_ns.store(done);
  page.fired_killed.store(result.killed);
  page.fired_remaining.store(result.remaining);
  page.fired_error.store(result.error);
  page.fired_count.fetch_add(1);
  // A process in uninterruptible I/O takes our signal again and again: told once, and when it went.
  if (deadline == deadline_passed && !result.complete()) return false;
  Line line;
  line.add("ended PostgreSQL in ")
      .add(guard.data_dir)
      .add(": the agent did not renew its lease in time; ");
  line.add(std::int64_t{result.killed}).add(" signals, ");
  line.add(std::int64_t{result.remaining}).add(" processes left, ");
  line.add((done - page.fired_deadline_ns.load()) / 1000).add(" us after the deadline");
  if (result.error != 0) line.add(", errno ").add(std::int64_t{result.error});
  report(guard, line);
  return result.complete();
}

void sleep_until(Guard& guard, std::int64_t wake, std::int64_t seen_deadline) noexcept {
  guard.page->wakes_at_ns.store(wake);
  // The agent may have moved the deadline before it could see that we sleep past it.
  if (guard.page->deadline_ns.load() != seen_deadline) return;
  itimerspec spec{};
  if (wake != wake_never) {
    spec.it_value.tv_sec = wake / 1'000'000'000;
    spec.it_value.tv_nsec = wake % 1'000'000'000;
  }
  ::timerfd_settime(guard.timer, TFD_TIMER_ABSTIME, &spec, nullptr);
  pollfd fds[3] = {
      {guard.timer, POLLIN, 0}, {guard.signals, POLLIN, 0}, {guard.agent_fd, POLLIN, 0}};
  ::poll(fds, guard.agent_fd >= 0 ? 3U : 2U, -1);
  std::uint64_t expirations = 0;
  signalfd_siginfo signal{};
  [[maybe_unused]] auto n = ::read(guard.timer, &expirations, sizeof expirations);
  while (::read(guard.signals, &signal, sizeof signal) > 0) n = 0;
}

int watch(Guard& guard) noexcept {
  constexpr std::int64_t look_again_ns = 100'000'000;
  for (;;) {
    follow_owner(guard);
    notice_agent_death(guard);
    const bool orphan = owner_pid(guard.agent) == 0;
    auto deadline = guard.page->deadline_ns.load();
    const auto now = boot_ns();
    if (deadline > 0 && now >= deadline) {
      const auto passed = deadline;
      if (!guard.page->deadline_ns.compare_exchange_strong(deadline, deadline_passed)) continue;
      end_now(guard, passed);
      continue;
    }
    bool ended = false;
    if (deadline == deadline_passed) ended = end_now(guard, deadline);
    if (orphan && (deadline == deadline_none || ended)) {
      if (leave(guard)) return exit_ok;
      continue;
    }
    const auto wake = deadline > 0                  ? deadline
                      : deadline == deadline_passed ? now + look_again_ns
                                                    : wake_never;
    sleep_until(guard, wake, deadline);
  }
}

void write_small(const char* path, const char* text, bool& done) noexcept {
  const int fd = ::open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return;
  done = ::write(fd, text, std::strlen(text)) > 0;
  ::close(fd);
}

// Asks the system for everything that helps to be on time. None of it is required.
std::uint32_t protect() noexcept {
  std::uint32_t got = 0;
  // Pages are locked as they are first touched; the rehearsal in prepare() touches what we need.
  // That keeps a fraction of what locking the whole C library would.
  if (::mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) == 0) got |= has_locked_memory;
  bool exempt = false;
  write_small("/proc/self/oom_score_adj", "-1000", exempt);
  if (exempt) got |= has_oom_exemption;
  sched_param param{};
  param.sched_priority = 1;
  if (::sched_setscheduler(0, SCHED_RR | SCHED_RESET_ON_FORK, &param) == 0)
    got |= has_realtime;
  else
    ::setpriority(PRIO_PROCESS, 0, -20);
  return got;
}

// Our own session, so that no terminal and no kill of the agent's process group reaches us, and
// nothing of the agent's: a descriptor kept here would keep its ports taken.
void detach() noexcept {
  ::setsid();
  ::prctl(PR_SET_NAME, "spilo-guard");
  ::umask(077);
  [[maybe_unused]] const int moved = ::chdir("/");
  const int null = ::open("/dev/null", O_RDWR);
  for (int fd = 0; fd <= 2 && null >= 0; ++fd) ::dup2(null, fd);
  ::fcntl(page_fd, F_SETFD, FD_CLOEXEC);
  struct sigaction ignore {};
  ignore.sa_handler = SIG_IGN;
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGPIPE, SIGUSR2, SIGTSTP, SIGTTOU})
    ::sigaction(signal, &ignore, nullptr);
}

int prepare(Guard& guard) noexcept {
  void* memory = ::mmap(nullptr, page_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, page_fd, 0);
  if (memory == MAP_FAILED) return exit_bad_page;
  guard.page = static_cast<GuardPage*>(memory);
  if (guard.page->magic != page_magic || guard.page->layout != page_layout) return exit_bad_page;
  sigset_t wake;
  ::sigemptyset(&wake);
  ::sigaddset(&wake, SIGUSR1);
  ::sigprocmask(SIG_SETMASK, &wake, nullptr);
  guard.signals = ::signalfd(-1, &wake, SFD_NONBLOCK | SFD_CLOEXEC);
  guard.timer = ::timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK | TFD_CLOEXEC);
  if (guard.signals < 0 || guard.timer < 0) return exit_no_timer;
  guard.page->protection.store(protect());
  // The rehearsal: everything that the emergency needs is in memory from here on.
  if (directory_id(guard.data_dir, guard.directory) == 0) guard.directory_known = true;
  const DirectoryId nobody{~std::uint64_t{0}, ~std::uint64_t{0}, 0};
  end_server(nobody, 0, 0);
  is_server_process(::getpid(), guard.directory);
  postmaster_pid(guard.data_dir);
  follow_owner(guard);
  return exit_ok;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3 || argv[1][0] != '/') {
    constexpr char usage[] =
        "spilo-guard is started by spilod and by programs that embed libspilo; it is of no use by "
        "hand.\n";
    [[maybe_unused]] const auto n = ::write(STDERR_FILENO, usage, sizeof usage - 1);
    return exit_usage;
  }
  // A grandchild of the agent: nobody's child to wait for, whatever the agent does with SIGCHLD.
  ::syscall(SYS_close_range, page_fd + 1, ~0U, 0);
  int ready[2];
  if (::pipe2(ready, O_CLOEXEC) != 0) return exit_no_timer;
  const auto child = ::fork();
  if (child < 0) return exit_no_timer;
  if (child > 0) {
    ::close(ready[1]);
    char status = exit_no_timer;
    [[maybe_unused]] const auto n = ::read(ready[0], &status, 1);
    return status;
  }
  ::close(ready[0]);
  detach();
  Guard guard;
  guard.data_dir = argv[1];
  guard.log_path = argv[2];
  const auto status = static_cast<char>(prepare(guard));
  if (status == exit_ok) guard.page->guard_pid.store(::getpid());
  [[maybe_unused]] const auto n = ::write(ready[1], &status, 1);
  ::close(ready[1]);
  return status == exit_ok ? watch(guard) : status;
}
