#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>

#include "impl.hpp"
#include "spilo/guard/end_server.hpp"

namespace spilo::pg {
using namespace std::chrono_literals;

namespace {

// What the marker beside new_dir says until the copy is complete.
constexpr std::string_view copy_building = "building\n";

std::string copy_complete(const guard::DirectoryId& id) {
  return fmt::format("complete {}\n", id.inode);
}

// A copy of terabytes may take days, but it must move: this long without a sign of life ends it.
constexpr Duration stall_limit = 15min;

// "1234/5678 kB (21%), 0/1 tablespace" as people read it.
std::string copy_progress(std::string_view piece) {
  const auto unit = piece.rfind(" kB (");
  if (unit == std::string_view::npos) return {};
  const auto slash = piece.rfind('/', unit);
  if (slash == std::string_view::npos) return {};
  auto begin = slash;
  while (begin > 0 && piece[begin - 1] >= '0' && piece[begin - 1] <= '9') --begin;
  const auto gigabytes = [](std::string_view digits) {
    return std::strtod(std::string(digits).c_str(), nullptr) / (1024.0 * 1024.0);
  };
  return fmt::format("copying {:.1f} of {:.1f} GB",
                     gigabytes(piece.substr(begin, slash - begin)),
                     gigabytes(piece.substr(slash + 1, unit - slash - 1)));
}

bool is_forbidden(std::string_view name) {
  for (const char* taken : {"pgdata",
                            "format",
                            "wal-method",
                            "xlog-method",
                            "gzip",
                            "version",
                            "dbname",
                            "host",
                            "port",
                            "username",
                            "password",
                            "no-sync"})
    if (name == taken) return true;
  return false;
}

}  // namespace

// A pg_basebackup or pg_rewind of an agent that died goes on until it notices, and names its files
// by their paths: it would write into what takes the place of its directory.
void end_writers_of(const std::string& directory) {
  const std::string end(1, '\0');
  const auto copying = "--pgdata=" + directory + end;
  const auto rewinding = end + "-D" + end + directory + end;
  DIR* proc = ::opendir("/proc");
  if (proc == nullptr) return;
  while (const dirent* entry = ::readdir(proc)) {
    if (entry->d_name[0] < '1' || entry->d_name[0] > '9') continue;
    const auto words = read_file(fmt::format("/proc/{}/cmdline", entry->d_name));
    if (words.has_error()) continue;
    const bool rewinds = words->find("pg_rewind") != std::string::npos &&
                         words->find(rewinding) != std::string::npos;
    if (!rewinds && words->find(copying) == std::string::npos) continue;
    ::kill(static_cast<pid_t>(std::atol(entry->d_name)), SIGKILL);
  }
  ::closedir(proc);
}

Error mount_point_error(const std::string& data_dir) {
  return Error(errc::unsupported,
               fmt::format("data_dir {} is a mount point and can't be replaced by a rename: set "
                           "data_dir to a directory below it",
                           data_dir));
}

Async<void> PgController::Impl::clean_leftovers() {
  ::unlink((new_dir + ".pw").c_str());  // of an initdb that was killed
  if (!exists(new_dir)) {
    ::unlink(copying_marker.c_str());
    co_return Result<void>{};
  }
  end_writers_of(new_dir);
  // Not begun by us, as far as anybody can say: it may be the only copy of somebody's work.
  if (read_file(copying_marker).has_error()) {
    const auto moved = move_aside(new_dir, "found");
    if (moved.has_error()) co_return moved.error();
    co_return Result<void>{};
  }
  log.info("removing what an interrupted copy or creation left: {}", new_dir);
  auto removed = co_await remove_data_directory(new_dir);
  if (removed.has_value()) ::unlink(copying_marker.c_str());
  co_return removed;
}

// A place outside of the data directory (of a tablespace, or of pg_wal) is either free for the copy, or
// a new one beside it is used: the old one is needed until the new copy streams.
std::string PgController::Impl::free_place(const std::string& path) const {
  bool in_use = false;
  if (DIR* directory = ::opendir(path.c_str())) {
    while (const dirent* entry = ::readdir(directory)) in_use = in_use || entry->d_name[0] != '.';
    ::closedir(directory);
  }
  if (!in_use) return path;
  const auto stamp =
      std::chrono::duration_cast<std::chrono::seconds>(clock.wall_now().time_since_epoch());
  const auto configured = own_place(path) ? path.substr(0, path.rfind(place_suffix)) : path;
  // Two nodes of one host may begin in the same second.
  const auto node = std::hash<std::string>()(options.data_dir) % 1'000'000;
  return fmt::format("{}{}{}.{}", configured, place_suffix, stamp.count(), node);
}

Async<std::vector<std::string>> PgController::Impl::tablespace_mappings(ha::Upstream upstream) {
  std::vector<std::string> out;
  const auto params = upstream_params(upstream, rewind_account());
  auto opened = co_await Connection::open(clock, params, clock.now() + 5s);
  if (opened.has_error()) {
    // Without rights to look there, pg_basebackup says itself what it can't do.
    log.info("tablespaces of {}: {}", upstream.name.str(), opened.error().text());
    co_return out;
  }
  const auto connection = std::move(*opened);
  const auto rows = co_await connection->query(
      "SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE "
      "pg_tablespace_location(oid) LIKE '/%'",
      clock.now() + 5s);
  if (rows.has_error()) co_return out;
  for (std::size_t row = 0; row < rows->all().size(); ++row) {
    const std::string location(rows->text(row, 0));
    const auto place = free_place(location);
    if (place != location) out.push_back(fmt::format("{}={}", location, place));
  }
  co_return out;
}

Async<void> PgController::Impl::copy_from(ha::Upstream upstream) {
  auto cleaned = co_await clean_leftovers();
  if (cleaned.has_error()) co_return cleaned.error();
  auto marked = write_file(copying_marker, copy_building, 0600);
  if (marked.has_error()) co_return marked.error();
  auto written = write_passfile();
  if (written.has_error()) co_return written.error();
  auto mappings = co_await tablespace_mappings(upstream);
  if (mappings.has_error()) co_return mappings.error();
  const auto params = upstream_params(upstream, options.replication);
  std::vector<Assignment> pairs;
  for (const auto& [key, value] : params.all())
    if (key != "password" && key != "sslpassword" && key != "dbname")
      pairs.emplace_back(key, value);
  Command command(program("pg_basebackup"));
  command.arg("--pgdata=" + new_dir).arg("-X").arg("stream").arg("--progress").arg("--no-password");
  command.arg("--dbname=" + conninfo_text(pairs));
  bool checkpoint_given = false;
  for (const auto& [name, value] : options.basebackup) {
    if (is_forbidden(name)) {
      log.warning("postgresql.basebackup.{} is not used: libspilo decides it", name);
      continue;
    }
    checkpoint_given = checkpoint_given || name == "checkpoint";
    const auto given = name == "waldir" ? free_place(value) : value;
    command.arg(given.empty() ? "--" + name : fmt::format("--{}={}", name, given));
  }
  if (!checkpoint_given) command.arg("--checkpoint=fast");
  for (const auto& mapping : *mappings) command.arg("--tablespace-mapping=" + mapping);
  command.env("PGPASSFILE", passfile).env("LC_ALL", "C");
  say("copying from " + upstream.name.str() + ": waiting for its checkpoint");
  // Every line of progress that differs from the last one is a sign of life.
  auto alive_at = std::make_shared<TimePoint>(clock.now());
  std::string last_line;
  const auto show = [this, alive_at, &last_line](std::string_view piece) {
    if (auto text = copy_progress(piece); !text.empty()) say(std::move(text));
    if (piece != last_line) *alive_at = clock.now();
    last_line = piece;
    return clock.now() - *alive_at < stall_limit;
  };
  const std::function<bool(std::string_view)> on_output = show;
  const auto limit = clock.now() + std::chrono::hours(24 * 7);
  const auto outcome = co_await run_program(clock, command, limit, on_output);
  if (outcome.has_error()) co_return outcome.error();
  if (!outcome->ok())
    co_return Error(errc::command_failed,
                    fmt::format("pg_basebackup from {} ended with {}: {}{}",
                                upstream.name.str(),
                                outcome->how(),
                                outcome->last_words(),
                                refused_login_cure(outcome->last_words())));
  co_return Result<void>{};
}

// From here on the copy is worth keeping: should we end between the two renames of swap_in(), there
// is no data directory, and finish_swap() puts it in place.
Result<void> PgController::Impl::mark_copy_complete() {
  guard::DirectoryId id;
  if (const int problem = guard::directory_id(new_dir.c_str(), id); problem != 0)
    return Error(errc::command_failed, fmt::format("{}: {}", new_dir, std::strerror(problem)));
  return write_file(copying_marker, copy_complete(id), 0600);
}

void PgController::Impl::finish_swap() {
  const auto mark = read_file(copying_marker);
  if (mark.has_error() || *mark == copy_building) return;
  guard::DirectoryId id;
  if (guard::directory_id(new_dir.c_str(), id) == 0 && *mark == copy_complete(id)) {
    if (exists(options.data_dir)) {
      // The swap had not begun. What is there is not touched, and the copy is out of date.
      const auto stale = write_file(copying_marker, copy_building, 0600);
      if (stale.has_error()) log.warning("{}", stale.error().text());
      return;
    }
    log.warning("{} is complete, but was not put in place: it becomes {}", new_dir, options.data_dir);
    if (::rename(new_dir.c_str(), options.data_dir.c_str()) != 0) {
      log.error("rename {} to {}: {}", new_dir, options.data_dir, std::strerror(errno));
      return;
    }
    sync_directory(parent_of(options.data_dir));
  } else if (guard::directory_id(options.data_dir.c_str(), id) != 0 ||
             *mark != copy_complete(id)) {
    if (!exists(new_dir)) ::unlink(copying_marker.c_str());
    return;
  }
  validated.clear();
  ::unlink(rewinding_marker.c_str());  // it spoke of the old files
  ::unlink(copying_marker.c_str());
}

// The complete copy takes the place of the data directory; what was there is kept.
Result<void> PgController::Impl::swap_in() {
  const auto control = read_control_file(new_dir);
  if (control.has_error()) return control.error().in("the copy is not usable");
  if (exists(options.data_dir) && ::rmdir(options.data_dir.c_str()) != 0) {
    if (errno == EBUSY) return mount_point_error(options.data_dir);
    auto moved = move_aside(options.data_dir, "old");
    if (moved.has_error()) return moved.error();
    old_directories = true;
  }
  if (::rename(new_dir.c_str(), options.data_dir.c_str()) != 0)
    return Error(
        errc::command_failed,
        fmt::format("rename {} to {}: {}", new_dir, options.data_dir, std::strerror(errno)));
  sync_directory(parent_of(options.data_dir));
  ::unlink(rewinding_marker.c_str());  // it spoke of the old files
  ::unlink(copying_marker.c_str());
  sync_directory(parent_of(options.data_dir));
  return {};
}

Async<void> PgController::Impl::clone(ha::Task task) {
  if (task.upstream.conn_url.empty())
    co_return Error(errc::invalid_argument, "a copy needs a member to copy from");
  if (::access(parent_of(options.data_dir).c_str(), W_OK | X_OK) != 0)
    co_return Error(errc::denied,
                    fmt::format("{} is not writable ({}), but the copy is built beside data_dir: "
                                "give the directory to this user",
                                parent_of(options.data_dir),
                                std::strerror(errno)));
  // Before hours of copying, not after them.
  if (is_mount_point(options.data_dir)) co_return mount_point_error(options.data_dir);
  if (live_postmaster()) {
    auto stopped = co_await stop_server(ha::StopMode::immediate, false, task.timeout);
    if (stopped.has_error()) co_return stopped.error();
  }
  auto free = check_port();
  if (free.has_error()) co_return free.error();
  // With our slot there already, no WAL that follows the copy can vanish before we stream.
  auto made = co_await following(task.upstream);
  if (made.has_error()) co_return made.error();
  auto copied = co_await copy_from(task.upstream);
  if (copied.has_error()) {
    auto cleaned = co_await clean_leftovers();
    if (cleaned.has_error()) log.warning("{}", cleaned.error().text());
    co_return copied.error().in("copy from " + task.upstream.name.str());
  }
  if (co_await cancelled()) co_return Error(errc::cancelled, "copy");
  auto complete = mark_copy_complete();
  if (complete.has_error()) co_return complete.error();
  auto swapped = swap_in();
  if (swapped.has_error()) co_return swapped.error();
  validated.clear();
  std::optional<Following> wanted;
  wanted = *made;
  auto started = co_await start_server(false, wanted, task.timeout);
  if (started.has_error())
    co_return started.error().in("the copy is complete, but it does not start");
  co_return Result<void>{};
}

}  // namespace spilo::pg
