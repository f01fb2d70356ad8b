#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <set>

#include "impl.hpp"

namespace spilo::pg {

namespace {

Error file_error(std::string_view what, const std::string& path) {
  const auto code = errno == ENOENT ? errc::not_found : errc::command_failed;
  return Error(code, fmt::format("{} {}: {}", what, path, std::strerror(errno)));
}

// Where a data directory goes on elsewhere: what pg_wal and the links in pg_tblspc point to.
Result<std::set<std::string>> places_elsewhere(const std::string& directory) {
  std::vector<std::string> links{directory + "/pg_wal"};
  const auto spaces = directory + "/pg_tblspc";
  if (DIR* open = ::opendir(spaces.c_str())) {
    while (const dirent* entry = ::readdir(open))
      if (entry->d_name[0] != '.') links.push_back(spaces + "/" + entry->d_name);
    ::closedir(open);
  } else if (errno != ENOENT) {
    return file_error("read", spaces);
  }
  std::set<std::string> out;
  for (const auto& link : links) {
    char target[4096];
    const auto length = ::readlink(link.c_str(), target, sizeof target);
    if (length < 0 && errno != EINVAL && errno != ENOENT) return file_error("read", link);
    if (length > 0 && target[0] == '/') out.emplace(target, static_cast<std::size_t>(length));
  }
  return out;
}

}  // namespace

bool exists(const std::string& path) noexcept {
  struct stat info {};
  return ::lstat(path.c_str(), &info) == 0;
}

bool is_mount_point(const std::string& path) noexcept {
  struct statx info {};
  if (::statx(AT_FDCWD, path.c_str(), AT_SYMLINK_NOFOLLOW, STATX_TYPE, &info) != 0) return false;
  if ((info.stx_attributes_mask & STATX_ATTR_MOUNT_ROOT) != 0)
    return (info.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;
  struct statx above {};
  return ::statx(AT_FDCWD, parent_of(path).c_str(), 0, STATX_TYPE, &above) == 0 &&
         (above.stx_dev_major != info.stx_dev_major || above.stx_dev_minor != info.stx_dev_minor);
}

std::string parent_of(const std::string& path) {
  const auto slash = path.find_last_of('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

bool is_stamp(std::string_view text) {
  constexpr std::string_view digits = "0123456789";
  const auto first = std::min(text.find_first_not_of(digits), text.size());
  if (first < 10) return false;
  text.remove_prefix(first);
  return text.empty() || (text.size() > 1 && text.front() == '.' &&
                          text.find_first_not_of(digits, 1) == std::string_view::npos);
}

bool own_place(std::string_view path) {
  const auto suffix = path.rfind(place_suffix);
  return suffix != std::string_view::npos && is_stamp(path.substr(suffix + place_suffix.size()));
}

void sync_directory(const std::string& path) noexcept {
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  ::fsync(fd);
  ::close(fd);
}

Result<std::string> read_file(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return file_error("open", path);
  std::string out;
  char buffer[16384];
  for (;;) {
    const auto got = ::read(fd, buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      const auto error = file_error("read", path);
      ::close(fd);
      return error;
    }
    if (got == 0) break;
    out.append(buffer, static_cast<std::size_t>(got));
  }
  ::close(fd);
  return out;
}

Result<void> write_file(const std::string& path, std::string_view content, mode_t mode) {
  const auto present = read_file(path);
  if (present.has_value() && *present == content) {
    ::chmod(path.c_str(), mode);
    return {};
  }
  const auto temporary = path + ".tmp";
  ::unlink(temporary.c_str());
  const int fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
  if (fd < 0) return file_error("create", temporary);
  ::fchmod(fd, mode);
  while (!content.empty()) {
    const auto put = ::write(fd, content.data(), content.size());
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) {
      const auto error = file_error("write", temporary);
      ::close(fd);
      ::unlink(temporary.c_str());
      return error;
    }
    content.remove_prefix(static_cast<std::size_t>(put));
  }
  const bool synced = ::fsync(fd) == 0;
  ::close(fd);
  if (!synced || ::rename(temporary.c_str(), path.c_str()) != 0) {
    const auto error = file_error("replace", path);
    ::unlink(temporary.c_str());
    return error;
  }
  sync_directory(parent_of(path));
  return {};
}

std::string PgController::Impl::conf_path() const {
  return fmt::format("{}/{}.conf", config_dir, options.config_base_name);
}

Result<void> PgController::Impl::write_passfile() {
  return write_file(passfile, passfile_text(options), 0600);
}

Result<void> PgController::Impl::write_configuration(const std::optional<Following>& following) {
  if (auto written = write_passfile(); written.has_error()) return written;
  const auto base_name = options.config_base_name + ".base.conf";
  const auto base = fmt::format("{}/{}", config_dir, base_name);
  if (options.custom_conf.empty() && !exists(base)) {
    // The file that initdb or an administrator wrote becomes the base of ours, once.
    if (exists(conf_path())) {
      if (::rename(conf_path().c_str(), base.c_str()) != 0) return file_error("rename to", base);
    } else if (auto made = write_file(base, "", 0600); made.has_error()) {
      return made;
    }
  }
  const auto hba = config_dir + "/pg_hba.conf";
  const auto ident = config_dir + "/pg_ident.conf";
  const auto included = options.custom_conf.empty() ? base_name : options.custom_conf;
  const auto text = render_postgresql_conf(settings, included, following, hba, ident);
  if (auto written = write_file(conf_path(), text, 0600); written.has_error()) return written;
  if (!settings.own_hba_file && !settings.pg_hba.empty()) {
    auto written = write_file(hba, render_lines(settings.pg_hba), 0600);
    if (written.has_error()) return written;
  }
  if (!settings.own_ident_file) {
    // A missing pg_ident.conf is an error for the server; an empty one is not.
    if (!settings.pg_ident.empty() || !exists(ident)) {
      auto written = write_file(ident, render_lines(settings.pg_ident), 0600);
      if (written.has_error()) return written;
    }
  }
  const auto auto_conf = options.data_dir + "/postgresql.auto.conf";
  if (const auto present = read_file(auto_conf); present.has_value()) {
    const auto cleaned = without_recovery_parameters(*present);
    if (cleaned.size() < present->size()) {
      auto written = write_file(auto_conf, cleaned, 0600);
      if (written.has_error()) return written;
    }
  }
  current_following = following;
  return write_dynamic_config();
}

// The cluster's configuration as it was last known, under Patroni's name for it: for tools that look for it, and for an agent
// whose store is empty or away.
std::string PgController::Impl::dynamic_config_path() const {
  return options.data_dir + "/patroni.dynamic.json";
}

Result<void> PgController::Impl::write_dynamic_config() {
  if (dynamic.document.is_null()) return {};
  return write_file(dynamic_config_path(), json::dump(dynamic.document), 0600);
}

// Writes the configuration and lets PostgreSQL judge it: what it would refuse is dropped with a
// warning, because one odd value must not keep a server down.
Async<void> PgController::Impl::validate_configuration(std::optional<Following> following) {
  for (int round = 0; round < 20; ++round) {
    auto written = write_configuration(following);
    if (written.has_error()) co_return written.error();
    std::string fingerprint;
    for (const auto& [name, value] : settings.parameters) fingerprint += name + '=' + value + '\n';
    for (const auto& [name, value] : settings.recovery) fingerprint += name + '=' + value + '\n';
    for (const auto& [name, value] : settings.fixed) fingerprint += name + '=' + value + '\n';
    if (fingerprint == validated) co_return Result<void>{};
    Command command(program("postgres"));
    std::vector<Assignment> none;
    for (auto& argument : postmaster_arguments(settings, options.data_dir, conf_path(), none))
      command.arg(std::move(argument));
    command.arg("--lc_messages=C").arg("-C").arg("server_version");
    command.env("LC_ALL", "C");
    const auto outcome =
        co_await run_program(clock, command, clock.now() + std::chrono::seconds(10));
    if (outcome.has_error()) co_return outcome.error().in("check the configuration");
    auto candidates = settings.parameters;
    candidates.insert(candidates.end(), settings.recovery.begin(), settings.recovery.end());
    const auto blamed =
        outcome->ok() ? std::vector<std::string>{} : blamed_parameters(outcome->output, candidates);
    if (blamed.empty()) {
      // Not ours to repair (pg_hba, the base file): the start itself will say what is wrong.
      if (outcome->ok()) validated = fingerprint;
      co_return Result<void>{};
    }
    for (const auto& name : blamed) {
      log.warning("postgresql.parameters.{} is dropped, PostgreSQL refuses it: {}",
                  name,
                  outcome->last_words());
      drop_parameter(settings, name);
    }
  }
  co_return Error(errc::invalid_argument, "the configuration could not be made acceptable");
}

Result<void> PgController::Impl::set_standby_signal(bool standby) {
  const auto path = options.data_dir + "/standby.signal";
  ::unlink((options.data_dir + "/recovery.signal").c_str());
  if (standby) {
    if (exists(path)) return {};
    return write_file(path, "", 0600);
  }
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) return file_error("remove", path);
  sync_directory(options.data_dir);
  return {};
}

std::vector<Assignment> PgController::Impl::raised_parameters(bool as_primary) const {
  std::vector<Assignment> out;
  if (as_primary) return out;
  const auto control = read_control_file(options.data_dir);
  if (control.has_error()) return out;
  // A replica with less than its primary had would refuse to start.
  const auto raise = [&](const char* name, int needed) {
    const auto* wanted = settings.fixed_value(name);
    if (wanted != nullptr && std::atoi(wanted->c_str()) < needed)
      out.emplace_back(name, std::to_string(needed));
  };
  raise("max_connections", control->max_connections);
  raise("max_prepared_transactions", control->max_prepared_xacts);
  raise("max_locks_per_transaction", control->max_locks_per_xact);
  raise("max_worker_processes", control->max_worker_processes);
  raise("max_wal_senders", control->max_wal_senders);
  return out;
}

Result<std::string> PgController::Impl::move_aside(const std::string& path,
                                                   const std::string& kind) {
  if (!exists(path)) return std::string();
  const auto stamp =
      std::chrono::duration_cast<std::chrono::seconds>(clock.wall_now().time_since_epoch());
  auto target = fmt::format("{}.{}-{}", options.data_dir, kind, stamp.count());
  for (int i = 1; exists(target); ++i)
    target = fmt::format("{}.{}-{}.{}", options.data_dir, kind, stamp.count(), i);
  if (::rename(path.c_str(), target.c_str()) != 0) return file_error("rename to " + target, path);
  sync_directory(parent_of(options.data_dir));
  log.info("{} is kept as {}", path, target);
  return target;
}

Async<void> PgController::Impl::remove_tree(std::string path) {
  if (!exists(path)) co_return Result<void>{};
  Command command("rm");
  command.arg("-rf").arg("--").arg(path);
  const auto outcome = co_await run_program(clock, command, clock.now() + std::chrono::hours(1));
  if (outcome.has_error()) co_return outcome.error().in("remove " + path);
  if (!outcome->ok())
    co_return Error(errc::command_failed,
                    fmt::format("remove {}: {}", path, outcome->last_words()));
  co_return Result<void>{};
}

Async<void> PgController::Impl::remove_data_directory(std::string path) {
  // A place that has not its name from us may be somebody else's too, however it came into these links.
  const auto in_use = places_elsewhere(options.data_dir);
  if (in_use.has_error()) co_return in_use.error();
  const auto places = places_elsewhere(path);
  if (places.has_error()) co_return places.error();
  for (const auto& place : *places) {
    if (in_use->contains(place)) continue;
    if (!own_place(place)) {
      log.warning("{} is removed, but what it has in {} is left: it is the place that was configured; "
                  "empty it if no other server uses it",
                  path,
                  place);
      continue;
    }
    auto removed = co_await remove_tree(place);
    if (removed.has_error()) co_return removed.error();
  }
  co_return co_await remove_tree(path);
}

}  // namespace spilo::pg
