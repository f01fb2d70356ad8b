// Whose programs and as whom: what everything that starts PostgreSQL needs to know.
#pragma once

#include <grp.h>
#include <pwd.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

namespace spilo::test {

// Becomes `postgres` (or `nobody`) when the tests run as root, before anything else happens.
inline bool become_unprivileged() {
  if (::geteuid() != 0) return true;
  const passwd* user = ::getpwnam("postgres");
  if (user == nullptr) user = ::getpwnam("nobody");
  if (user == nullptr) return false;
  if (::setgroups(0, nullptr) != 0 || ::setgid(user->pw_gid) != 0 || ::setuid(user->pw_uid) != 0)
    return false;
  ::prctl(PR_SET_DUMPABLE, 1);
  ::setenv("HOME", "/tmp", 1);
  return ::chdir("/tmp") == 0;
}

// The newest version whose programs are installed where Debian puts them; empty: in PATH.
inline std::string programs_directory() {
  if (const char* given = std::getenv("SPILO_TEST_PG_BIN")) return given;
  for (int major = 17; major >= 13; --major) {
    const auto path = "/usr/lib/postgresql/" + std::to_string(major) + "/bin";
    if (::access((path + "/postgres").c_str(), X_OK) == 0) return path;
  }
  return {};
}

}  // namespace spilo::test
