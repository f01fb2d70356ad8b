// The number of the timeline that a promotion begins.
//
// PostgreSQL takes the first number after its own that has no history file. Where a promotion of
// another server was seen by nobody, that is the number it has used, and if both began at the same
// place, nothing can tell the two apart any more: a server with the one would go on with the other.
// So the cluster gives each number once (Term::reserved), and the lower ones are marked as taken, by
// history files without content, before pg_promote(). The marks stay: a standby fetches the history
// file of every number up to its primary's. A running standby does not follow a mark, because that
// names no parent; but one that is started would take it for its target, if it is the highest number
// that there is. Such a mark, left by a promotion or a fetch that was interrupted, is removed first.
#include <dirent.h>
#include <fmt/format.h>
#include <unistd.h>

#include <charconv>

#include "impl.hpp"

namespace spilo::pg {
namespace {

constexpr std::string_view mark = "# taken: spilo\n";

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

}  // namespace

Result<void> PgController::Impl::take_lower_timelines(TimelineId first_free) {
  const auto directory = options.data_dir + "/pg_wal";
  const auto control = read_control_file(options.data_dir);
  if (control.has_error()) return control.error();
  auto own = to_int(std::max(control->timeline, control->min_recovery_timeline));
  for (const auto& file : list_wal(directory))
    if (!file.history) own = std::max(own, file.timeline);
  for (auto number = own + 1; number < to_int(first_free); ++number) {
    const auto path = fmt::format("{}/{:08X}.history", directory, number);
    if (exists(path)) continue;
    auto written = write_file(path, mark, 0600);
    if (written.has_error()) return written.error().in("marking a timeline as taken");
  }
  return {};
}

void PgController::Impl::remove_topmost_marks() {
  std::uint32_t highest = 0;
  std::vector<WalFile> marks;
  for (auto& file : list_wal(options.data_dir + "/pg_wal")) {
    const auto text = file.history ? read_file(file.path) : Result<std::string>(std::string());
    if (file.history && text.has_value() && *text == mark) {
      marks.push_back(std::move(file));
    } else {
      highest = std::max(highest, file.timeline);
    }
  }
  for (const auto& file : marks)
    if (file.timeline > highest) ::unlink(file.path.c_str());
}

Result<void> PgController::Impl::may_write(std::string_view what) const {
  if (clock.now() < may_write_until) return {};
  return Error(errc::session_lost,
               fmt::format("{}: the lease is over by now, so the server must not become writable",
                           what));
}

}  // namespace spilo::pg
