#include "program.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <fstream>
#include <stdexcept>

#include "spilo/model/codec.hpp"

namespace example {

using namespace std::chrono_literals;
using namespace spilo;
using ha::TaskKind;

namespace {

constexpr int looks_every_ms = 10;

// One cluster's nodes must agree on it; where there is no data, any number will do.
constexpr const char* system_id = "7000000000000000001";

std::int64_t boot_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_BOOTTIME, &now);
  return std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

// ---- the keeper: a process of its own between agent and program ---------------------------------
//
// It is the program's parent, so the program can't end unnoticed and its id can't be used again
// behind our back. It ends the program when the lease is over, or when the agent is gone and there
// is no lease to wait for, and then itself. When the keeper dies, the kernel ends the program.
// Forked from a process that may have threads: nothing but system calls.

bool must_end(const Program::Page& page, pid_t agent) {
  const auto deadline = page.deadline_ns.load();
  return deadline != 0 ? boot_ns() >= deadline : ::getppid() != agent;
}

[[noreturn]] void keep(Program::Page& page, int lock, char* const* command, pid_t agent) {
  ::setsid();  // what somebody types at the agent's terminal is not for us
  // The agent's connections and files are its own.
  ::dup2(lock, 3);
  ::fcntl(3, F_SETFD, FD_CLOEXEC);
  ::close_range(4, ~0U, 0);
  // A program of this node's last life may still be running, until its own deadline.
  while (::flock(3, LOCK_EX | LOCK_NB) != 0) {
    if (must_end(page, agent) || page.order.load() != 0) ::_exit(1);
    ::poll(nullptr, 0, looks_every_ms);
  }
  const pid_t program = ::fork();
  if (program < 0) ::_exit(1);
  if (program == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::setpgid(0, 0);
    sigset_t none;
    ::sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    ::execvp(command[0], command);
    ::_exit(127);
  }
  ::setpgid(program, program);
  page.program.store(program);
  const int end = static_cast<int>(::syscall(SYS_pidfd_open, program, 0));
  for (;;) {
    if (::waitpid(program, nullptr, WNOHANG) == program) ::_exit(0);
    if (must_end(page, agent)) ::kill(-program, SIGKILL);
    if (const int order = page.order.exchange(0); order != 0) ::kill(-program, order);
    pollfd ended{end, POLLIN, 0};
    ::poll(&ended, 1, looks_every_ms);
  }
}

Error system_error(const std::string& what) {
  return Error(errc::command_failed, fmt::format("{}: {}", what, std::strerror(errno)));
}

}  // namespace

Program::Program(boost::asio::any_io_executor executor,
                 Clock& clock,
                 std::string directory,
                 std::vector<std::string> command)
    : clock_(clock),
      directory_(std::move(directory)),
      command_(std::move(command)),
      keeper_end_(std::move(executor)) {
  void* memory =
      ::mmap(nullptr, sizeof(Page), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::runtime_error("no shared memory");
  page_ = new (memory) Page{};
}

// The keeper goes on, as it does when the agent is killed.
Program::~Program() {
  ::munmap(page_, sizeof(Page));
}

// ---- the guard ----------------------------------------------------------------------------------

Result<void> Program::hold_until(TimePoint deadline) {
  page_->deadline_ns.store(std::max<std::int64_t>(deadline.time_since_epoch().count(), 1));
  return {};
}

Result<void> Program::hold_no_longer_than(TimePoint limit) {
  const auto ns = page_->deadline_ns.load();
  return ns == 0 || ns > limit.time_since_epoch().count() ? hold_until(limit) : Result<void>();
}

Result<void> Program::stand_down() {
  page_->deadline_ns.store(0);
  return {};
}

// ---- the hands ----------------------------------------------------------------------------------

Async<NodeView> Program::observe(TimePoint) {
  NodeView view;
  view.observed_at = clock_.now();
  if (!leads_ && ::access((directory_ + "/member").c_str(), F_OK) != 0) co_return view;  // empty
  view.data_dir = NodeView::DataDir::initialized;
  view.system_id = SystemId(system_id);
  view.timeline = view.control_timeline = TimelineId{1};
  view.flushed = view.received = view.replayed = view.checkpoint_end = Lsn{1};
  if (leads_) {
    view.role = NodeView::Role::primary;
    view.process = keeper_ != 0        ? NodeView::Process::running
                   : stopped_in_order_ ? NodeView::Process::stopped
                                       : NodeView::Process::crashed;
    view.control_state = stopped_in_order_ && keeper_ == 0 ? "shut down" : "in production";
    view.postmaster_pid = keeper_ != 0 ? page_->program.load() : 0;
  } else {
    view.role = NodeView::Role::replica;
    view.process = follows_ ? NodeView::Process::running : NodeView::Process::stopped;
    view.control_state = "in archive recovery";
    view.upstream = upstream_;
    view.streaming = !upstream_.empty();
  }
  co_return view;
}

Async<void> Program::perform(ha::Task task) {
  Result<void> done;
  switch (task.kind) {
    case TaskKind::start:
      if (!task.as_primary) co_return follow(task);
      done = co_await start();
      break;
    case TaskKind::bootstrap:
    case TaskKind::promote:
      done = co_await start();
      break;
    case TaskKind::restart:
      done = co_await stop(5s);
      if (done.has_value() && leads_) done = co_await start();
      break;
    case TaskKind::stop:
      done = co_await stop(5s);
      break;
    case TaskKind::clone:
    case TaskKind::rejoin:
    case TaskKind::follow:
      done = follow(task);
      break;
    case TaskKind::reload:
      // The cluster's configuration is known, so the store knows the cluster. Before that a node
      // that dies while it creates one must be free to create it anew.
      done = join_cluster();
      break;
    case TaskKind::checkpoint:
      break;
  }
  co_return done;
}

Result<void> Program::kill_now() {
  if (keeper_ == 0) return {};
  page_->order.store(SIGKILL);
  const int end = static_cast<int>(::syscall(SYS_pidfd_open, keeper_, 0));
  pollfd ended{end, POLLIN, 0};
  const bool gone = ::poll(&ended, 1, 1000) == 1;
  ::close(end);
  if (!gone) return Error(errc::timed_out, "the program is still there a second after SIGKILL");
  keeper_ended();
  return {};
}

Async<void> Program::start() {
  if (clock_.now() >= may_run_until_)
    co_return Error(errc::session_lost, "start: the lease is over by now");
  const std::string lock_file = directory_ + "/lock";
  const int lock = ::open(lock_file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (lock < 0) co_return system_error("can't open " + lock_file);
  std::vector<char*> command;
  for (auto& word : command_) command.push_back(word.data());
  command.push_back(nullptr);
  page_->order.store(0);
  page_->program.store(0);
  const pid_t agent = ::getpid();
  keeper_ = ::fork();
  if (keeper_ == 0) keep(*page_, lock, command.data(), agent);
  ::close(lock);
  if (keeper_ < 0) {
    keeper_ = 0;
    co_return system_error("can't fork");
  }
  leads_ = true;
  follows_ = stopped_in_order_ = false;
  keeper_end_.assign(static_cast<int>(::syscall(SYS_pidfd_open, keeper_, 0)));
  keeper_end_.async_wait(boost::asio::posix::stream_descriptor::wait_read,
                         [this](boost::system::error_code ec) {
                           if (!ec) keeper_ended();
                         });
  while (page_->program.load() == 0 && keeper_ != 0) {
    const bool waited = co_await sleep_until(clock_, clock_.now() + 5ms);
    if (!waited) break;
  }
  if (page_->program.load() == 0) co_return Error(errc::command_failed, "it did not start");
  co_return Result<void>();
}

Async<void> Program::stop(Duration patience) {
  if (keeper_ != 0) page_->order.store(SIGTERM);
  const TimePoint limit = clock_.now() + patience;
  while (keeper_ != 0) {
    if (clock_.now() >= limit) page_->order.store(SIGKILL);
    const bool waited = co_await sleep_until(clock_, clock_.now() + 5ms);
    if (!waited) co_return Error(errc::cancelled, "the stop was cancelled");
  }
  stopped_in_order_ = true;
  follows_ = false;
  co_return Result<void>();
}

Result<void> Program::follow(const ha::Task& task) {
  leads_ = false;
  follows_ = true;
  const auto at = codec::parse_conn_url(task.upstream.conn_url);
  upstream_ = at ? codec::to_text(*at) : "";
  return join_cluster();
}

// From now on this node knows that its cluster exists, also in its next life.
Result<void> Program::join_cluster() const {
  std::ofstream file(directory_ + "/member");
  file << system_id << '\n';
  if (!file.flush()) return system_error("can't write " + directory_ + "/member");
  return {};
}

void Program::keeper_ended() {
  if (keeper_ == 0) return;
  boost::system::error_code ignored;
  keeper_end_.close(ignored);
  ::waitpid(keeper_, nullptr, 0);
  keeper_ = 0;
  if (wake_) wake_();
}

}  // namespace example
