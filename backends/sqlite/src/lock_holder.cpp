#include "lock_holder.hpp"

#include <fmt/format.h>
#include <sys/stat.h>

#include <fstream>
#include <sstream>
#include <string_view>

namespace spilo::sqlite {
namespace {

// The byte of the -shm file that stands for "I write", by SQLite's documented file format.
constexpr std::string_view write_lock_byte = "120";

std::string command_of(const std::string& pid) {
  std::ifstream in("/proc/" + pid + "/comm");
  std::string name;
  std::getline(in, name);
  return name;
}

}  // namespace

// The kernel's list, not F_GETLK: that needs a descriptor of the file, and closing any descriptor
// of a file drops all the locks that this process has on it, those of SQLite among them.
std::string lock_holder(const std::string& file) {
  struct stat seen {};
  if (::stat((file + "-shm").c_str(), &seen) != 0) return "another process";
  const auto inode = fmt::format(":{}", seen.st_ino);
  std::ifstream locks("/proc/locks");
  for (std::string line; std::getline(locks, line);) {
    // "7: POSIX  ADVISORY  WRITE 1234 fd:01:5678 120 120"
    std::istringstream words(line);
    std::string number, kind, advisory, access, pid, where, first;
    words >> number >> kind >> advisory >> access >> pid >> where >> first;
    if (access != "WRITE" || first != write_lock_byte || !where.ends_with(inode)) continue;
    const std::string name = command_of(pid);
    return name.empty() ? "process " + pid : fmt::format("process {} ({})", pid, name);
  }
  return "another process";
}

}  // namespace spilo::sqlite
