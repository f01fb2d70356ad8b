#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstring>

#include "impl.hpp"
#include "spilo/guard/end_server.hpp"

namespace spilo::pg {
using namespace std::chrono_literals;
namespace asio = boost::asio;

namespace {
pid_t to_pid(std::string_view text) {
  pid_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}
}  // namespace

void ProcessWatch::watch(const asio::any_io_executor& executor,
                         pid_t pid,
                         std::function<void(pid_t)> ended) {
  if (pid == pid_ && descriptor_) return;
  stop();
  const int fd = open_pidfd(pid);
  pid_ = pid;
  if (fd < 0) {
    // Gone already: told like any other end, but never from inside this call.
    asio::post(executor, [pid, ended = std::move(ended)] { ended(pid); });
    return;
  }
  descriptor_ = std::make_shared<asio::posix::stream_descriptor>(executor, fd);
  arm(descriptor_, pid, std::move(ended));
}

void ProcessWatch::arm(const std::shared_ptr<asio::posix::stream_descriptor>& descriptor,
                       pid_t pid,
                       std::function<void(pid_t)> ended) {
  descriptor->async_wait(
      asio::posix::stream_descriptor::wait_read,
      [pid, descriptor, ended = std::move(ended)](const boost::system::error_code& ec) mutable {
        if (ec || !descriptor->is_open()) return;
        if (!has_ended(descriptor->native_handle())) {
          arm(descriptor, pid, std::move(ended));  // a readiness that was not ours
        } else {
          ended(pid);
        }
      });
}

bool ProcessWatch::alive() const noexcept {
  return descriptor_ && !has_ended(descriptor_->native_handle());
}

void ProcessWatch::stop() {
  if (descriptor_) {
    boost::system::error_code ignored;
    descriptor_->close(ignored);
    descriptor_.reset();
  }
  pid_ = 0;
}

std::optional<PostmasterFile> read_postmaster_file(const std::string& data_dir) {
  const auto text = read_file(data_dir + "/postmaster.pid");
  if (text.has_error()) return std::nullopt;
  std::vector<std::string> lines;
  std::string_view rest = *text;
  while (!rest.empty()) {
    const auto end = rest.find('\n');
    std::string line(rest.substr(0, end));
    while (!line.empty() && line.back() == ' ') line.pop_back();
    lines.push_back(std::move(line));
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
  }
  lines.resize(8);
  const auto number = [](const std::string& line) {
    int value = 0;
    std::from_chars(line.data(), line.data() + line.size(), value);
    return value;
  };
  PostmasterFile out;
  out.pid = number(lines[0]);
  out.single_user = out.pid < 0;  // a single-user backend writes its negative id
  out.pid = std::abs(out.pid);
  out.port = number(lines[3]);
  out.socket_dir = lines[4];
  out.status = lines[7];
  if (out.pid <= 1) return std::nullopt;
  return out;
}

std::optional<PostmasterFile> PgController::Impl::live_postmaster() {
  guard::DirectoryId id;
  const bool visible = guard::directory_id(options.data_dir.c_str(), id) == 0;
  if (visible) {
    auto file = read_postmaster_file(options.data_dir);
    if (file && guard::is_server_process(file->pid, id)) return file;
  }
  if (child != 0) {  // started, but not yet known by its file
    PostmasterFile starting;
    starting.pid = child;
    starting.status = "starting";
    return starting;
  }
  // A file or a directory that can't be read just now says nothing about a server that is watched.
  if (postmaster.alive() && (!visible || guard::is_server_process(postmaster.pid(), id))) {
    PostmasterFile known;
    known.pid = postmaster.pid();
    return known;
  }
  return std::nullopt;
}

bool PgController::Impl::signal_postmaster(pid_t pid, int signal) {
  if (pid == child) return ::kill(pid, signal) == 0;  // its number is its own until we reap it
  const int pidfd = open_pidfd(pid);
  if (pidfd < 0) return false;
  guard::DirectoryId id;
  // Asked behind the descriptor: it stays that of the process that we looked at.
  const bool ours =
      (pid == postmaster.pid() && postmaster.alive()) ||
      (guard::directory_id(options.data_dir.c_str(), id) == 0 && guard::is_server_process(pid, id));
  const bool sent = ours && ::syscall(SYS_pidfd_send_signal, pidfd, signal, nullptr, 0) == 0;
  ::close(pidfd);
  return sent;
}

// A server whose directory was moved away goes on in it, and we would look at another directory and
// take it for down: then somebody else leads while it still acknowledges commits.
void PgController::Impl::end_moved_server() {
  const pid_t pid = postmaster.pid();
  if (task_running || !postmaster.alive()) return;
  guard::DirectoryId id;
  const int problem = guard::directory_id(options.data_dir.c_str(), id);
  if (problem != 0 && problem != ENOENT && problem != ENOTDIR) return;  // it can't be seen just now
  if (problem == 0 && guard::is_server_process(pid, id)) return;
  guard::DirectoryId home;
  if (guard::directory_id(fmt::format("/proc/{}/cwd", pid).c_str(), home) != 0) return;
  if (!guard::is_server_process(pid, home)) return;
  log.error("data_dir {} was moved away under the running PostgreSQL (process {}): ending it",
            options.data_dir,
            pid);
  const auto ended = guard::end_server(home, pid, 2000);
  if (!ended.complete())
    log.error("{} of its processes remain after {} ms", ended.remaining, ended.took_ns / 1'000'000);
  postmaster_ended(pid);
}

void PgController::Impl::adopt(pid_t pid) {
  if (postmaster.pid() == pid) return;
  orphans_checked = false;
  idle.reset();
  frozen = false;
  postmaster.watch(executor, pid, [weak = weak_from_this()](pid_t ended) {
    const auto self = weak.lock();
    if (!self || self->closed) return;
    self->postmaster_ended(ended);
    self->changed();
  });
}

// What is left of a server whose postmaster is gone may still acknowledge commits, so it ends now.
void PgController::Impl::postmaster_ended(pid_t pid) {
  if (pid != 0) {
    // Also one that an earlier controller of this process started: as a zombie it would still hold
    // its id, which PostgreSQL takes for a living postmaster.
    int status = 0;
    const auto reaped = ::waitpid(pid, &status, WNOHANG);
    if (reaped == 0) return;  // a child of ours that lives
    if (reaped == pid) child_status = status;
    if (pid == child) child = 0;
    // Of another parent: it has ended only when nothing but that can be the reason why it is not
    // seen.
    const int pidfd = reaped == pid ? -1 : open_pidfd(pid);
    const bool lives = reaped != pid && (pidfd >= 0 ? !has_ended(pidfd) : errno != ESRCH);
    if (pidfd >= 0) ::close(pidfd);
    if (lives) return;
  }
  if (postmaster.pid() == pid) postmaster.stop();
  wal_receiver.stop();
  idle.reset();
  stopping = false;
  frozen = false;
  if (const auto file = live_postmaster(); file && file->pid != pid) return;
  // A file that is there and can't be read may name a server that lives.
  const auto file = read_file(options.data_dir + "/postmaster.pid");
  if (file.has_error() && !file.error().is(errc::not_found)) return;
  const auto ended = guard::end_server(options.data_dir.c_str());
  orphans_checked = ended.complete();
  if (ended.killed > 0)
    log.warning("postmaster {} ended and left processes behind: {} killed, {} remaining",
                pid,
                ended.killed,
                ended.remaining);
}

Result<void> PgController::Impl::kill_now() {
  // A postmaster that was just started may not work in the data directory yet. One that does is not
  // the first to end, so that its walsenders can finish (end_server.hpp).
  guard::DirectoryId id;
  if (child != 0 && (guard::directory_id(options.data_dir.c_str(), id) != 0 ||
                     !guard::is_server_process(child, id)))
    ::kill(child, SIGKILL);
  auto ended = guard::end_server(options.data_dir.c_str());
  guard::DirectoryId home;
  // Its directory may have been moved away.
  if (postmaster.alive() &&
      guard::directory_id(fmt::format("/proc/{}/cwd", postmaster.pid()).c_str(), home) == 0 &&
      guard::is_server_process(postmaster.pid(), home))
    ended = guard::end_server(home, postmaster.pid(), 2000);
  if (const pid_t pid = child != 0 ? child : postmaster.pid(); pid != 0) {
    int status = 0;
    if (::waitpid(pid, &status, WNOHANG) == pid) {
      child_status = status;
      child = 0;
    }
  }
  if (ended.error == ENOENT) return {};
  if (!ended.complete())
    return Error(errc::command_failed,
                 fmt::format("kill the server of {}: {} processes remain after {} ms{}{}",
                             options.data_dir,
                             ended.remaining,
                             ended.took_ns / 1'000'000,
                             ended.error != 0 ? ": " : "",
                             ended.error != 0 ? std::strerror(ended.error) : ""));
  orphans_checked = true;
  return {};
}

std::string PgController::Impl::local_host(const PostmasterFile& file, bool unix_socket) const {
  if (unix_socket && file.socket_dir.starts_with('/')) return file.socket_dir;
  return local_address(options.listen);
}

ConnectParams PgController::Impl::local_params(const PostmasterFile& file,
                                               bool statement_timeout) const {
  ConnectParams out;
  const auto& account = options.superuser;
  const auto add = [&](const char* key, const std::string& value) {
    if (!value.empty()) out.set(key, value);
  };
  add("host", local_host(file, options.use_unix_socket));
  out.set("port", std::to_string(file.port != 0 ? file.port : options.port));
  add("dbname", options.database);
  add("user", account.username);
  add("password", account.password);
  add("sslmode", account.sslmode);
  add("sslcert", account.sslcert);
  add("sslkey", account.sslkey);
  add("sslpassword", account.sslpassword);
  add("sslrootcert", account.sslrootcert);
  add("sslcrl", account.sslcrl);
  add("gssencmode", account.gssencmode);
  add("channel_binding", account.channel_binding);
  out.set("application_name", "libspilo");
  out.set("client_encoding", "UTF8");
  out.set("options",
          fmt::format("-c statement_timeout={} -c lock_timeout=0 -c search_path=pg_catalog "
                      "-c pg_stat_statements.track=none -c lc_messages=C "
                      "-c synchronous_commit=local -c default_transaction_read_only=off",
                      statement_timeout ? 2000 : 0));
  return out;
}

Async<std::unique_ptr<Connection>> PgController::Impl::take(TimePoint deadline) {
  const auto file = live_postmaster();
  if (!file) co_return Error(errc::unavailable, "PostgreSQL is not running");
  if (idle && idle_of == file->pid && idle->usable()) co_return std::move(idle);
  idle.reset();
  const auto params = local_params(*file, true);
  auto opened = co_await Connection::open(clock, params, deadline);
  if (opened.has_value() || opened.error().is(errc::denied) ||
      opened.error().is(errc::command_failed)) {
    probed_at = clock.now();  // it answered a newcomer
    if (frozen) changed();
    frozen = false;
  }
  co_return opened;
}

void PgController::Impl::give_back(std::unique_ptr<Connection> connection) {
  const auto pid = postmaster.pid();
  if (!connection || !connection->usable() || pid == 0 || closed) return;
  idle = std::move(connection);
  idle_of = pid;
}

std::string PgController::Impl::server_words(std::uint64_t log_begin) const {
  const auto text = read_file(log_file);
  if (text.has_error() || text->size() <= log_begin) return "nothing in " + log_file;
  std::string_view tail = *text;
  tail.remove_prefix(log_begin);
  // The lines that say why, from the first one on; else the end.
  std::string chosen;
  while (!tail.empty() && chosen.size() < 800) {
    const auto end = tail.find('\n');
    const auto line = tail.substr(0, end);
    for (const char* mark : {"FATAL", "PANIC", "ERROR", "could not", "HINT"}) {
      if (line.find(mark) == std::string_view::npos) continue;
      if (!chosen.empty()) chosen += " | ";
      chosen += line;
      break;
    }
    tail.remove_prefix(end == std::string_view::npos ? tail.size() : end + 1);
  }
  if (!chosen.empty()) return chosen;
  const Outcome words(0, text->substr(log_begin));
  return words.last_words();
}

// A stale postmaster.pid would stop PostgreSQL when somebody else has that number now, or when the
// old postmaster is a zombie that nobody has reaped yet.
void PgController::Impl::accept_stale_pid_file(Command& command) const {
  if (const auto stale = read_postmaster_file(options.data_dir))
    command.env("PG_GRANDPARENT_PID", std::to_string(stale->pid));
}

Result<pid_t> PgController::Impl::spawn_postmaster(bool as_primary) {
  Command command(program("postgres"));
  const auto raised = raised_parameters(as_primary);
  for (auto& argument : postmaster_arguments(settings, options.data_dir, conf_path(), raised))
    command.arg(std::move(argument));
  if (!options.krbsrvname.empty()) command.env("PGKRBSRVNAME", options.krbsrvname);
  accept_stale_pid_file(command);
  const int out = ::open(log_file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (out < 0)
    return Error(errc::command_failed,
                 fmt::format("open the server's log {}: {}", log_file, std::strerror(errno)));
  auto started = start_program(command, out);
  ::close(out);
  if (started.has_value()) {
    child = *started;
    adopt(*started);
  }
  return started;
}

Async<void> PgController::Impl::start_server(bool as_primary,
                                             std::optional<Following> wanted,
                                             Duration timeout) {
  if (exists(rewinding_marker))
    co_return Error(errc::command_failed,
                    fmt::format("{} says that pg_rewind was interrupted, so these files must not "
                                "be started: rejoin or reinitialize this member",
                                rewinding_marker));
  const auto deadline = clock.now() + (timeout > Duration{} ? timeout : options.pg_ctl_timeout);
  if (live_postmaster()) co_return Error(errc::command_failed, "PostgreSQL is running already");
  postmaster_ended(postmaster.pid());
  if (!orphans_checked)
    co_return Error(errc::command_failed,
                    "processes of the old server are left and can't be killed");
  say("starting PostgreSQL");
  auto valid = co_await validate_configuration(wanted);
  if (valid.has_error()) co_return valid.error();
  auto signalled = set_standby_signal(!as_primary);
  if (signalled.has_error()) co_return signalled.error();
  // Who cancels a start has lost the right to it: the last moment to see that.
  if (co_await cancelled()) co_return Error(errc::cancelled, "start PostgreSQL");
  struct stat info {};
  const auto log_begin =
      ::stat(log_file.c_str(), &info) == 0 ? static_cast<std::uint64_t>(info.st_size) : 0;
  remove_topmost_marks();
  if (as_primary) {
    // Not earlier: whatever came before may have taken its time.
    const auto allowed = may_write("start PostgreSQL as the primary");
    if (allowed.has_error()) co_return allowed.error();
  }
  const auto pid = spawn_postmaster(as_primary);
  if (pid.has_error()) co_return pid.error();
  settings_stale = true;
  co_return co_await wait_until_ready(deadline, log_begin);
}

Async<void> PgController::Impl::wait_until_ready(TimePoint deadline, std::uint64_t log_begin) {
  const auto begun = clock.now();
  Duration pause = 1ms;
  for (;;) {
    if (co_await cancelled()) co_return Error(errc::cancelled, "start PostgreSQL");
    if (child != 0) postmaster_ended(child);
    if (child == 0) {
      const Outcome ended(child_status, {});
      co_return Error(errc::command_failed,
                      fmt::format("PostgreSQL ended with {} while it was starting; it said: {}",
                                  ended.how(),
                                  server_words(log_begin)));
    }
    const auto file = read_postmaster_file(options.data_dir);
    if (file && (file->status == "ready" || file->status == "standby")) {
      const auto attempt = std::min(deadline, clock.now() + 3s);
      auto connection = co_await take(attempt);
      if (connection.has_value()) {
        give_back(std::move(*connection));
        co_return Result<void>{};
      }
      const auto& error = connection.error();
      if (error.is(errc::denied) || error.is(errc::command_failed)) {
        log.warning("PostgreSQL is up, but we can't use it: {}", error.text());
        co_return Result<void>{};
      }
    }
    if (clock.now() >= deadline)
      co_return Error(errc::timed_out,
                      "PostgreSQL does not accept connections yet; it goes on starting");
    co_await sleep_until(clock, clock.now() + pause);
    pause = std::min<Duration>(pause * 2, clock.now() - begun < 5s ? 10ms : 200ms);
  }
}

Async<void> PgController::Impl::checkpoint(TimePoint deadline) {
  const auto file = live_postmaster();
  if (!file) co_return Error(errc::unavailable, "CHECKPOINT: PostgreSQL is not running");
  const auto params = local_params(*file, false);
  const auto attempt = std::min(deadline, clock.now() + 5s);
  auto connection = co_await Connection::open(clock, params, attempt);
  if (connection.has_error()) co_return connection.error().in("CHECKPOINT");
  auto done = co_await (*connection)->query("CHECKPOINT", deadline);
  if (done.has_error()) co_return done.error().in("CHECKPOINT");
  co_return Result<void>{};
}

Async<void> PgController::Impl::background_checkpoint() {
  const auto self = shared_from_this();
  checkpoint_running = true;
  auto done = co_await checkpoint(clock.now() + 10min);
  checkpoint_running = false;
  if (done.has_error()) log.warning("after the promotion: {}", done.error().text());
  changed();
  co_return done;
}

Async<void> PgController::Impl::stop_server(ha::StopMode mode,
                                            bool checkpoint_first,
                                            Duration timeout) {
  const auto deadline = clock.now() + (timeout > Duration{} ? timeout : options.pg_ctl_timeout);
  const auto file = live_postmaster();
  if (!file) {
    postmaster_ended(postmaster.pid());
    co_return Result<void>{};
  }
  adopt(file->pid);
  const bool fast = mode == ha::StopMode::fast;
  if (fast && checkpoint_first) {
    say("CHECKPOINT before the stop");
    auto done = co_await checkpoint(deadline);
    // The shutdown writes one anyway; it only takes longer.
    if (done.has_error()) log.warning("{}", done.error().text());
  }
  if (co_await cancelled()) co_return Error(errc::cancelled, "stop PostgreSQL");
  say(fast ? "stopping PostgreSQL" : "stopping PostgreSQL at once");
  stopping = true;
  signal_postmaster(file->pid, fast ? SIGINT : SIGQUIT);
  const auto limit = fast ? deadline : std::min(deadline, clock.now() + 300ms);
  const bool ended = co_await wait_for_end(clock, file->pid, limit);
  if (!ended && fast) {
    if (co_await cancelled()) co_return Error(errc::cancelled, "stop PostgreSQL");
    co_return Error(errc::timed_out,
                    fmt::format("PostgreSQL (process {}) is still shutting down after {} s; a "
                                "slow checkpoint, archive_command or replica holds it, or it hangs",
                                file->pid,
                                std::chrono::duration_cast<std::chrono::seconds>(
                                    timeout > Duration{} ? timeout : options.pg_ctl_timeout)
                                    .count()));
  }
  if (!ended) {
    auto killed = kill_now();
    if (killed.has_error()) co_return killed.error();
    // A killed child is a zombie until it is reaped; its end is a matter of microseconds now.
    co_await wait_for_end(clock, file->pid, clock.now() + 2s);
  }
  postmaster_ended(file->pid);
  if (!orphans_checked)
    co_return Error(errc::command_failed,
                    "the postmaster ended, but processes of its server can't be killed");
  co_return Result<void>{};
}

Async<void> PgController::Impl::restart(ha::Task task) {
  NodeView view;
  look_at_control_file(view);
  const bool standby = exists(options.data_dir + "/standby.signal");
  std::optional<Following> wanted;
  if (standby && !task.upstream.conn_url.empty()) {
    auto made = co_await following(task.upstream);
    if (made.has_error()) co_return made.error();
    wanted = *made;
  } else if (standby) {
    wanted = current_following;
    if (!wanted) {
      wanted.emplace();
      wanted->conninfo = seen_conninfo;
      wanted->slot = seen_slot;
    }
  }
  auto stopped = co_await stop_server(ha::StopMode::fast, !standby, task.timeout);
  if (stopped.has_error()) co_return stopped.error();
  if (co_await cancelled()) co_return Error(errc::cancelled, "restart PostgreSQL");
  co_return co_await start_server(!standby, wanted, task.timeout);
}

Async<void> PgController::Impl::promote(ha::Task task) {
  const auto deadline =
      clock.now() + (task.timeout > Duration{} ? task.timeout : options.pg_ctl_timeout);
  const auto file = live_postmaster();
  if (!file) co_return Error(errc::unavailable, "promote: PostgreSQL is not running");
  adopt(file->pid);
  say("promoting");
  const auto attempt = std::min(deadline, clock.now() + 2s);
  auto taken = co_await take(attempt);
  if (co_await cancelled()) co_return Error(errc::cancelled, "promote");
  const auto allowed = may_write("promote");
  if (allowed.has_error()) co_return allowed.error();
  if (task.timeline_min != TimelineId{}) {
    const auto marked = take_lower_timelines(task.timeline_min);
    if (marked.has_error()) co_return marked.error();
  }
  auto promoted = co_await ask_for_promotion(*file, std::move(taken), deadline);
  if (promoted.has_value() && task.timeline_min != TimelineId{})
    promoted = check_new_timeline(task.timeline_min);
  if (promoted.has_error()) {
    // A promotion that was asked for can't be called off: it may end at any time, when somebody
    // else leads already. Only the end of the server ends it; it is a replica when it is started
    // again.
    log.warning("{}; ending PostgreSQL, or it would become a primary later",
                promoted.error().text());
    const auto killed = kill_now();
    if (killed.has_error()) log.error("{}", killed.error().text());
    // Not left to our next start: somebody else may start it.
    if (killed.has_value()) remove_topmost_marks();
    co_return promoted.error();
  }
  current_following.reset();
  // pg_rewind of the others needs the new timeline in the control file.
  if (!checkpoint_running) spawn(background_checkpoint(), "checkpoint after promotion");
  co_return Result<void>{};
}

Async<void> PgController::Impl::ask_for_promotion(PostmasterFile file,
                                                  Result<std::unique_ptr<Connection>> taken,
                                                  TimePoint deadline) {
  std::unique_ptr<Connection> connection;
  bool asked = false;
  pid_t startup = 0;
  if (taken.has_value()) {
    connection = std::move(*taken);
    const auto attempt = std::min(deadline, clock.now() + 2s);
    auto answer = co_await connection->query(
        "SELECT pg_promote(false), (SELECT pid FROM pg_stat_activity WHERE backend_type = "
        "'startup')",
        attempt);
    asked = answer.has_value();
    if (asked) startup = to_pid(answer->text(0, 1));
    // "recovery is not in progress": it is a primary already, which the wait finds out.
    if (!asked && connection->sqlstate() == "55000") asked = true;
    if (!asked) log.warning("pg_promote: {}", answer.error().text());
  } else {
    log.warning("promote without a connection: {}", taken.error().text());
  }
  if (!asked) {
    // What `pg_ctl promote` does.
    auto written = write_file(options.data_dir + "/promote", "", 0600);
    if (written.has_error()) co_return written.error();
    if (!signal_postmaster(file.pid, SIGUSR1))
      co_return Error(errc::unavailable, "promote: the postmaster is gone");
  }
  co_return co_await wait_promoted(std::move(connection), startup, deadline);
}

// A startup process that has just lost its stream may note the promotion and sleep all the same,
// until wal_retrieve_retry_interval is over. Reading its configuration again wakes it and does
// nothing else.
void PgController::Impl::wake_startup_process(pid_t startup) {
  if (startup > 0)
    signal_postmaster(startup, SIGHUP);  // which looks whether it still is of our server
}

Async<void> PgController::Impl::wait_promoted(std::unique_ptr<Connection> connection,
                                              pid_t startup,
                                              TimePoint deadline) {
  Duration pause = 1ms;
  // Soon, because that is when it happens; then ever less often, because replaying what was
  // received may take long and is not to be held up.
  Duration until_wake = 3ms;
  auto wake_at = clock.now() + until_wake;
  for (;;) {
    if (co_await cancelled()) co_return Error(errc::cancelled, "promote");
    const auto file = live_postmaster();
    if (!file)
      co_return Error(errc::command_failed, "PostgreSQL ended while it was being promoted");
    const auto attempt = std::min(deadline, clock.now() + 2s);
    if (!connection || !connection->usable()) {
      auto taken = co_await take(attempt);
      if (taken.has_value()) connection = std::move(*taken);
    }
    bool done = false;
    if (connection && connection->usable()) {
      const auto answer = co_await connection->query("SELECT pg_is_in_recovery()", attempt);
      done = answer.has_value() && answer->text(0, 0) == "f";
    } else {
      const auto control = read_control_file(options.data_dir);
      done = control.has_value() && control->state == "in production";
    }
    if (done) {
      give_back(std::move(connection));
      co_return Result<void>{};
    }
    if (clock.now() >= deadline)
      co_return Error(errc::timed_out, "promote: PostgreSQL is still in recovery");
    if (clock.now() >= wake_at) {
      wake_startup_process(startup);
      until_wake *= 2;
      wake_at = clock.now() + until_wake;
    }
    co_await sleep_until(clock, clock.now() + pause);
    pause = std::min<Duration>(pause * 2, 10ms);
  }
}

}  // namespace spilo::pg
