// The number of the timeline that a promotion begins.
//
// PostgreSQL takes the first number after its own that has no history file. Where a promotion of
// another server was seen by nobody, that is the number it has used, and if both began at the same
// place, nothing can tell the two apart any more: a server with the one would go on with the other.
// So the cluster gives each number once (Term::reserved), and the lower ones are marked as taken, by
// history files without content, before pg_promote(). The marks stay: a standby fetches the history
// file of every number up to its primary's, and whoever restores from an archive goes up to the first
// number that is missing there, so a primary that archives gives its marks to the archive too.
// A running standby does not follow a mark, because that names no parent; but one that is started
// would take it for its target, if no higher number follows it. Such a mark, left by a promotion or a
// fetch that was interrupted, is removed first. (All of this is the same in PostgreSQL 13 to 17.)
#include <dirent.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <set>

#include "impl.hpp"

namespace spilo::pg {
using namespace std::chrono_literals;

namespace {

constexpr std::string_view mark_text = "# taken: spilo\n";
constexpr Duration archive_patience = 180s;  // PostgreSQL tries again every minute

struct WalFile {
  std::string path;
  std::uint32_t timeline = 0;
  bool history = false;
};

// Segments ("000000010000000000000003") and history files ("00000002.history").
std::vector<WalFile> list_wal(const std::string& directory) {
  std::vector<WalFile> out;
  DIR* open = ::opendir(directory.c_str());
  if (open == nullptr) return out;
  while (const auto* entry = ::readdir(open)) {
    const std::string_view name = entry->d_name;
    const bool history = name.size() == 16 && name.ends_with(".history");
    if (!history && name.size() != 24) continue;
    WalFile file;
    file.history = history;
    const auto end = name.data() + 8;
    const auto number = std::from_chars(name.data(), end, file.timeline, 16);
    if (number.ec != std::errc{} || number.ptr != end) continue;
    file.path = directory + "/" + std::string(name);
    out.push_back(std::move(file));
  }
  ::closedir(open);
  return out;
}

bool is_mark(const WalFile& file) {
  if (!file.history) return false;
  const auto text = read_file(file.path);
  return text.has_value() && *text == mark_text;
}

}  // namespace

Result<void> PgController::Impl::take_lower_timelines(TimelineId first_free) {
  const auto directory = options.data_dir + "/pg_wal";
  const auto control = read_control_file(options.data_dir);
  if (control.has_error()) return control.error();
  auto own = to_int(std::max(control->timeline, control->min_recovery_timeline));
  if (replay_timeline_of != 0 && replay_timeline_of == postmaster.pid()) {
    own = std::max(own, to_int(replay_timeline));  // as the server said
  } else {
    // Not below what may be its line; it may be the one of a promotion that nobody saw just as well.
    for (const auto& file : list_wal(directory))
      if (!file.history) own = std::max(own, file.timeline);
  }
  for (auto number = own + 1; number < to_int(first_free); ++number) {
    const auto path = fmt::format("{}/{:08X}.history", directory, number);
    if (exists(path)) continue;
    auto written = write_file(path, mark_text, 0600);
    if (written.has_error()) return written.error().in("marking a timeline as taken");
  }
  return {};
}

// PostgreSQL starts with the last number of an unbroken row of history files.
void PgController::Impl::remove_topmost_marks() {
  std::set<std::uint32_t> known;
  std::vector<WalFile> marks;
  for (auto& file : list_wal(options.data_dir + "/pg_wal")) {
    if (!file.history) continue;
    known.insert(file.timeline);
    if (is_mark(file)) marks.push_back(std::move(file));
  }
  std::ranges::sort(marks, std::ranges::greater(), &WalFile::timeline);
  for (const auto& file : marks) {
    if (known.contains(file.timeline + 1)) continue;
    ::unlink(file.path.c_str());
    known.erase(file.timeline);
  }
}

// The numbers below are marked, but nobody knows them all: better no primary than two histories with
// one number. PostgreSQL writes the new number there before it lets anybody write, and the file needs
// neither a connection nor time, for the want of which a good primary would have to end.
Result<void> PgController::Impl::check_new_timeline(TimelineId first_free) const {
  const auto control = read_control_file(options.data_dir);
  if (control.has_error()) return control.error().in("promote: which timeline?");
  const auto line = std::max(control->timeline, control->min_recovery_timeline);
  if (line >= first_free) return {};
  return Error(errc::command_failed,
               fmt::format("PostgreSQL has begun timeline {}, but a promotion that nobody saw may have "
                           "begun every one below {} already: this member needs a full copy",
                           to_int(line),
                           to_int(first_free)));
}

// The archive gets the marks as it gets the history files that PostgreSQL writes, but from the top and
// one by one: under a number that it does not have, no standby could start from it. It may have a file
// of that name, of the promotion that nobody saw, and refuse another one; then it lacks no number, and
// nothing must hold the WAL up behind it. Whatever ends this is made up for by who sees the primary
// next.
Async<void> PgController::Impl::archive_marks() {
  const auto served_by = postmaster.pid();
  auto files = list_wal(options.data_dir + "/pg_wal");
  std::erase_if(files, [](const WalFile& file) { return !file.history; });
  if (std::ranges::none_of(files, is_mark)) co_return Result<void>{};
  // The next look at this primary tries again; not one beside this.
  const auto not_offered = [this](Error why) {
    marks_offered_by = 0;
    return why;
  };
  auto taken = co_await take(clock.now() + 5s);
  if (taken.has_error()) co_return not_offered(taken.error());
  auto connection = std::move(*taken);
  const auto mode = co_await connection->query("SHOW archive_mode", clock.now() + 5s);
  if (mode.has_error()) co_return not_offered(mode.error());
  const bool archives = mode->text(0, 0) != "off";
  give_back(std::move(connection));
  if (!archives) co_return Result<void>{};
  std::ranges::sort(files, std::ranges::greater(), &WalFile::timeline);
  for (const auto& file : files) {
    const auto slash = file.path.find_last_of('/');
    const auto status = file.path.substr(0, slash) + "/archive_status" + file.path.substr(slash);
    const auto ready = status + ".ready";
    const auto done = status + ".done";
    const bool mark = is_mark(file);
    if (mark && !exists(done)) {
      auto offered = write_file(ready, "", 0600);
      if (offered.has_error()) co_return not_offered(offered.error());
    }
    const auto limit = clock.now() + archive_patience;
    Duration pause = 100ms;
    while (exists(ready)) {
      if (mark && clock.now() >= limit && ::rename(ready.c_str(), done.c_str()) == 0) {
        log.warning("the archive did not take {} within {} s, so it is not offered any longer. If the "
                    "archive has no file of that name, a restore of an older backup needs "
                    "recovery_target_timeline to be the number of a timeline above; 'latest' finds none",
                    file.path,
                    std::chrono::duration_cast<std::chrono::seconds>(archive_patience).count());
        break;
      }
      const bool slept = co_await sleep_until(clock, clock.now() + pause);
      if (!slept || postmaster.pid() != served_by) co_return Result<void>{};
      pause = std::min<Duration>(pause * 2, 5s);
    }
  }
  co_return Result<void>{};
}

Result<void> PgController::Impl::may_write(std::string_view what) const {
  if (clock.now() < may_write_until) return {};
  return Error(errc::session_lost,
               fmt::format("{}: the lease is over by now, so the server must not become writable",
                           what));
}

}  // namespace spilo::pg
