#include "spilo/pg/command.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/deferred.hpp>
#include <boost/asio/experimental/parallel_group.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>

namespace spilo::pg {
namespace asio = boost::asio;
using Descriptor = asio::posix::stream_descriptor;

namespace {

constexpr std::size_t kept_bytes = 32 * 1024;

// Keeps the beginning and the end of a long output: the first error and the last one.
class KeptOutput {
 public:
  void add(std::string_view piece) {
    const auto room = kept_bytes - std::min(kept_bytes, head_.size());
    head_ += piece.substr(0, room);
    piece.remove_prefix(std::min(room, piece.size()));
    tail_ += piece;
    if (tail_.size() > 2 * kept_bytes) {
      tail_.erase(0, tail_.size() - kept_bytes);
      cut_ = true;
    }
  }
  std::string take() {
    if (cut_) head_ += "\n[…]\n";
    return head_ + tail_;
  }

 private:
  std::string head_;
  std::string tail_;
  bool cut_ = false;
};

class FileDescriptor {
 public:
  explicit FileDescriptor(int fd) noexcept : fd_(fd) {}
  ~FileDescriptor() { reset(); }
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  int get() const noexcept { return fd_; }
  int release() noexcept { return std::exchange(fd_, -1); }
  void reset() noexcept {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }

 private:
  int fd_;
};

bool is_forbidden(std::string_view name) noexcept {
  return name.starts_with("SPILO_") || name.starts_with("PATRONI_") ||
         name.starts_with("KUBERNETES_") || name == "NOTIFY_SOCKET" || name == "WATCHDOG_USEC" ||
         name == "WATCHDOG_PID" || name.starts_with("LISTEN_");
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> out;
  out.reserve(texts.size() + 1);
  for (auto& text : texts) out.push_back(text.data());
  out.push_back(nullptr);
  return out;
}

// Session leader of a process, from /proc/<pid>/stat; 0 when it is gone.
pid_t session_of(const char* pid) {
  std::array<char, 512> buffer{};
  const FileDescriptor fd(::open(fmt::format("/proc/{}/stat", pid).c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) return 0;
  const auto got = ::read(fd.get(), buffer.data(), buffer.size() - 1);
  if (got <= 0) return 0;
  // The command name is in parentheses and may contain anything; fields are counted behind it.
  const char* after = std::strrchr(buffer.data(), ')');
  if (after == nullptr) return 0;
  char state = 0;
  int parent = 0;
  int group = 0;
  int session = 0;
  if (std::sscanf(after + 1, " %c %d %d %d", &state, &parent, &group, &session) != 4) return 0;
  return state == 'Z' ? 0 : session;
}

int reap(pid_t pid) noexcept {
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return status;
}

}  // namespace

std::string Outcome::how() const {
  if (WIFSIGNALED(status)) return fmt::format("signal {}", WTERMSIG(status));
  return fmt::format("exit status {}", WEXITSTATUS(status));
}

std::string Outcome::last_words() const {
  std::string_view text = output;
  while (!text.empty() && std::strchr(" \t\r\n", text.back()) != nullptr) text.remove_suffix(1);
  constexpr std::size_t limit = 400;
  if (text.size() > limit) {
    text.remove_prefix(text.size() - limit);
    const auto line = text.find('\n');
    if (line != std::string_view::npos && line + 1 < text.size()) text.remove_prefix(line + 1);
  }
  std::string out;
  for (const char c : text) {
    if (c == '\r') continue;
    if (c == '\n') {
      out += " | ";
    } else {
      out += c;
    }
  }
  return out.empty() ? "(it said nothing)" : out;
}

std::vector<std::string> child_environment(const std::map<std::string, std::string>& added) {
  std::vector<std::string> out;
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    const auto name = text.substr(0, text.find('='));
    if (!is_forbidden(name) && added.find(std::string(name)) == added.end()) out.emplace_back(text);
  }
  for (const auto& [name, value] : added) out.push_back(name + "=" + value);
  return out;
}

Result<pid_t> start_program(const Command& command, int output) {
  auto argv_texts = command.argv;
  auto env_texts = child_environment(command.environment);
  auto argv = pointers(argv_texts);
  auto env = pointers(env_texts);
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_t actions;
  ::posix_spawnattr_init(&attributes);
  ::posix_spawn_file_actions_init(&actions);
  sigset_t every;
  sigset_t none;
  sigfillset(&every);
  sigemptyset(&none);
  ::posix_spawnattr_setsigdefault(&attributes, &every);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setflags(
      &attributes,
      static_cast<short>(POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK));
  ::posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_adddup2(&actions, output, 1);
  ::posix_spawn_file_actions_adddup2(&actions, output, 2);
  ::posix_spawn_file_actions_addclosefrom_np(&actions, 3);
  if (!command.working_directory.empty())
    ::posix_spawn_file_actions_addchdir_np(&actions, command.working_directory.c_str());
  pid_t pid = 0;
  const int problem = ::posix_spawnp(&pid, argv[0], &actions, &attributes, argv.data(), env.data());
  ::posix_spawn_file_actions_destroy(&actions);
  ::posix_spawnattr_destroy(&attributes);
  if (problem != 0)
    return Error(errc::command_failed,
                 fmt::format("start {}: {}", command.argv.at(0), std::strerror(problem)));
  return pid;
}

int open_pidfd(pid_t pid) noexcept {
  return static_cast<int>(::syscall(SYS_pidfd_open, pid, 0));
}

bool has_ended(int pidfd) noexcept {
  pollfd entry{pidfd, POLLIN, 0};
  return pidfd < 0 || ::poll(&entry, 1, 0) > 0;
}

void kill_session(pid_t leader) noexcept {
  if (leader <= 1) return;
  ::kill(-leader, SIGKILL);
  DIR* proc = ::opendir("/proc");
  if (proc == nullptr) return;
  while (const dirent* entry = ::readdir(proc)) {
    if (entry->d_name[0] < '1' || entry->d_name[0] > '9') continue;
    if (session_of(entry->d_name) == leader)
      ::kill(static_cast<pid_t>(std::atol(entry->d_name)), SIGKILL);
  }
  ::closedir(proc);
}

bool reap_killed(pid_t pid) noexcept {
  const FileDescriptor pidfd(open_pidfd(pid));
  pollfd entry{pidfd.get(), POLLIN, 0};
  if (pidfd.get() >= 0) ::poll(&entry, 1, 200);
  return ::waitpid(pid, nullptr, WNOHANG) != 0;
}

asio::awaitable<bool> wait_for_end(Clock& clock, pid_t pid, TimePoint deadline) {
  auto executor = co_await asio::this_coro::executor;
  co_await asio::this_coro::throw_if_cancelled(false);
  const int fd = open_pidfd(pid);
  if (fd < 0) co_return errno == ESRCH;
  Descriptor ended(executor, fd);
  while (!has_ended(fd)) {
    auto group = asio::experimental::make_parallel_group(
        ended.async_wait(Descriptor::wait_read, asio::deferred),
        asio::co_spawn(executor, sleep_until(clock, deadline), asio::deferred));
    auto outcome =
        co_await group.async_wait(asio::experimental::wait_for_one(), asio::use_awaitable);
    const auto state = co_await asio::this_coro::cancellation_state;
    if (state.cancelled() != asio::cancellation_type::none) break;
    if (std::get<0>(outcome)[0] == 1 && clock.now() >= deadline) break;
  }
  co_return has_ended(fd);
}

Async<Outcome> run_program(Clock& clock,
                           Command command,
                           TimePoint deadline,
                           std::function<bool(std::string_view)> on_output) {
  auto executor = co_await asio::this_coro::executor;
  co_await asio::this_coro::throw_if_cancelled(false);
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0)
    co_return Error(errc::command_failed, fmt::format("pipe: {}", std::strerror(errno)));
  Descriptor pipe(executor, ends[0]);
  FileDescriptor write_end(ends[1]);
  pipe.non_blocking(true);
  const auto started = start_program(command, write_end.get());
  write_end.reset();
  if (started.has_error()) co_return started.error();
  const pid_t pid = *started;
  const int pidfd = open_pidfd(pid);
  if (pidfd < 0) {
    const int problem = errno;
    kill_session(pid);
    reap_killed(pid);
    co_return Error(errc::command_failed,
                    fmt::format("watch {}: {}", command.argv.at(0), std::strerror(problem)));
  }
  Descriptor ended(executor, pidfd);
  KeptOutput kept;
  std::array<char, 16 * 1024> buffer{};
  bool wanted = true;
  bool pipe_open = true;
  const auto drain = [&] {
    for (;;) {
      const auto got = ::read(pipe.native_handle(), buffer.data(), buffer.size());
      if (got > 0) {
        const std::string_view piece(buffer.data(), static_cast<std::size_t>(got));
        kept.add(piece);
        if (on_output && !on_output(piece)) wanted = false;
        continue;
      }
      if (got < 0 && errno == EINTR) continue;
      if (got == 0 || errno != EAGAIN) pipe_open = false;
      return;
    }
  };
  for (;;) {
    bool late = false;
    if (pipe_open) {
      auto group = asio::experimental::make_parallel_group(
          ended.async_wait(Descriptor::wait_read, asio::deferred),
          asio::co_spawn(executor, sleep_until(clock, deadline), asio::deferred),
          pipe.async_wait(Descriptor::wait_read, asio::deferred));
      auto outcome =
          co_await group.async_wait(asio::experimental::wait_for_one(), asio::use_awaitable);
      late = std::get<0>(outcome)[0] == 1 && clock.now() >= deadline;
    } else {
      auto group = asio::experimental::make_parallel_group(
          ended.async_wait(Descriptor::wait_read, asio::deferred),
          asio::co_spawn(executor, sleep_until(clock, deadline), asio::deferred));
      auto outcome =
          co_await group.async_wait(asio::experimental::wait_for_one(), asio::use_awaitable);
      late = std::get<0>(outcome)[0] == 1 && clock.now() >= deadline;
    }
    // Asked before the last look at the pipe, so that nothing is lost.
    const bool over = has_ended(ended.native_handle());
    drain();
    if (over) break;
    const auto state = co_await asio::this_coro::cancellation_state;
    const bool cancelled = state.cancelled() != asio::cancellation_type::none;
    if (!late && !cancelled && wanted) continue;
    kill_session(pid);
    reap_killed(pid);
    drain();
    const Outcome so_far(0, kept.take());
    const auto what =
        fmt::format("{} was ended; its last words: {}", command.argv.at(0), so_far.last_words());
    if (late && !cancelled) co_return Error(errc::timed_out, what);
    co_return Error(errc::cancelled, what);
  }
  // What it left behind in its session would go on writing where the next step reads. Before it is
  // reaped: until then its number is nobody else's.
  kill_session(pid);
  const int status = reap(pid);
  co_return Outcome(status, kept.take());
}

std::optional<std::vector<std::string>> split_command_line(std::string_view text) {
  std::vector<std::string> words;
  std::string word;
  bool in_word = false;
  char quote = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quote == '\'') {
      if (c == '\'') {
        quote = 0;
      } else {
        word += c;
      }
    } else if (c == '\\') {
      if (i + 1 >= text.size()) return std::nullopt;
      const char next = text[++i];
      // Inside double quotes a backslash stands for itself before anything but " and itself.
      if (quote == '"' && next != '"' && next != '\\') word += '\\';
      word += next;
      in_word = true;
    } else if (quote == '"') {
      if (c == '"') {
        quote = 0;
      } else {
        word += c;
      }
    } else if (c == '\'' || c == '"') {
      quote = c;
      in_word = true;
    } else if (c == ' ' || c == '\t' || c == '\n') {
      if (in_word) words.push_back(std::move(word));
      word.clear();
      in_word = false;
    } else {
      word += c;
      in_word = true;
    }
  }
  if (quote != 0) return std::nullopt;
  if (in_word) words.push_back(std::move(word));
  return words;
}

}  // namespace spilo::pg
