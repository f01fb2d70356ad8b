// Child processes for tests and benchmarks: started with arguments, output captured in a file,
// ended by their own id. Everything happens in a directory of its own below /tmp.
#pragma once

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace spilo::test {

// While it is set, a child that goes away shows its log; so it does while an exception is on its
// way, unless the program shows logs by itself.
inline bool something_failed = false;
inline bool logs_with_exceptions = true;

// A directory that goes away with the object.
class TempDir {
 public:
  TempDir() {
    std::string pattern = "/tmp/spilo-test-XXXXXX";
    if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("mkdtemp failed");
    path_ = pattern;
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  const std::string& path() const noexcept { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

// Fifty TCP ports that are this process's until it ends, by a lock: other tests run beside it. They
// lie below those that the kernel gives to clients (32768 and above), so a server that is stopped
// finds its port free when it starts again. examples/cluster.sh takes its ports in the same way.
inline std::uint16_t claim_ports() {
  constexpr int blocks = 400;
  const std::string directory = "/tmp/spilo-ports";
  if (::mkdir(directory.c_str(), 0777) == 0) ::chmod(directory.c_str(), 01777);
  for (int i = 0; i < blocks; ++i) {
    const int block = (::getpid() + i) % blocks;
    const auto file = directory + "/" + std::to_string(block);
    // Another user's file can be locked, but O_CREAT on it may be refused.
    int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_CREAT, 0644);
    if (fd < 0) continue;
    if (::flock(fd, LOCK_EX | LOCK_NB) == 0) return static_cast<std::uint16_t>(12000 + block * 50);
    ::close(fd);
  }
  throw std::runtime_error("no free ports: something holds all the locks in " + directory);
}

// A TCP port of the loopback interface that nobody listens on. The same one is not given twice by one
// process, nor to another that lives.
inline std::uint16_t free_port() {
  static std::uint16_t next = 0;
  static std::uint16_t end = 0;
  for (int tries = 0; tries < 1000; ++tries) {
    if (next == end) {
      next = claim_ports();
      end = static_cast<std::uint16_t>(next + 50);
    }
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int reuse = 1;  // what was closed a moment ago is in nobody's way
    ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &reuse, sizeof reuse);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(next);
    const bool bound = ::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
    ::close(fd);
    const auto port = next++;
    if (bound) return port;
  }
  throw std::runtime_error("no free port");
}

// Waits for an observed state, never for a time: polls `condition` until it holds or the limit is
// over.
template <class Condition>
bool wait_until(Condition condition, std::chrono::milliseconds limit) {
  const auto end = std::chrono::steady_clock::now() + limit;
  while (!condition()) {
    if (std::chrono::steady_clock::now() >= end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

inline bool accepts_connections(std::uint16_t port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const bool ok = ::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  ::close(fd);
  return ok;
}

// A child process. It also dies when the test program does. The destructor kills it, and prints its
// log when something has failed.
class Process {
 public:
  Process() = default;
  Process(std::vector<std::string> command, std::string log_file)
      : command_(std::move(command)), log_file_(std::move(log_file)) {
    start();
  }
  ~Process() {
    end(SIGKILL);
    const bool thrown = logs_with_exceptions && std::uncaught_exceptions() > 0;
    if ((thrown || something_failed) && !log_file_.empty())
      std::fprintf(stderr, "---- log of %s ----\n%s", command_.front().c_str(), log().c_str());
  }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  void start() {
    if (running()) return;
    std::vector<char*> arguments;
    for (auto& text : command_) arguments.push_back(text.data());
    arguments.push_back(nullptr);
    const int log = ::open(log_file_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    const pid_t parent = ::getpid();
    pid_ = ::fork();
    if (pid_ < 0) throw std::runtime_error("fork failed");
    if (pid_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (::getppid() != parent) ::_exit(126);
      ::dup2(log, 1);
      ::dup2(log, 2);
      ::execvp(arguments.front(), arguments.data());
      ::_exit(127);
    }
    ::close(log);
  }
  void signal(int number) const {
    if (pid_ > 0) ::kill(pid_, number);
  }
  // Stops it, and returns when every one of its threads has stopped: until then it may still answer.
  void freeze() const {
    if (pid_ <= 0) return;
    signal(SIGSTOP);
    siginfo_t ignored{};
    ::waitid(P_PID, static_cast<id_t>(pid_), &ignored, WSTOPPED | WEXITED | WNOWAIT);
  }
  // Sends the signal and waits for the end; SIGKILL follows after the limit. Returns the exit
  // status of waitpid().
  int end(int number, std::chrono::milliseconds limit = std::chrono::seconds(10)) {
    if (pid_ <= 0) return status_;
    signal(number);
    signal(SIGCONT);  // a stopped process would not see it
    if (!wait_until([&] { return !running(); }, limit)) {
      signal(SIGKILL);
      ::waitpid(pid_, &status_, 0);
      pid_ = -1;
    }
    return status_;
  }
  // Waits for the child to end by itself.
  bool wait(std::chrono::milliseconds limit) {
    return wait_until([&] { return !running(); }, limit);
  }
  bool running() {
    if (pid_ <= 0) return false;
    if (::waitpid(pid_, &status_, WNOHANG) != pid_) return true;
    pid_ = -1;
    return false;
  }
  pid_t pid() const noexcept { return pid_; }
  int status() const noexcept { return status_; }
  std::string log() const {
    std::ifstream in(log_file_);
    return std::string(std::istreambuf_iterator<char>(in), {});
  }

 private:
  std::vector<std::string> command_;
  std::string log_file_;
  pid_t pid_ = -1;
  int status_ = 0;
};

// Runs a command to its end; throws with its output when it fails.
inline std::string run_command(std::vector<std::string> command, const std::string& log_file) {
  const auto name = command.front();
  Process process(std::move(command), log_file);
  process.wait(std::chrono::seconds(60));
  if (process.running() || process.status() != 0)
    throw std::runtime_error(name + " failed: " + process.log());
  return process.log();
}

}  // namespace spilo::test
