// Ends a PostgreSQL server without asking it: the hard stop behind every fence.
//
// Plain C++ over system calls: no Boost, no heap, no locks, no library state, so that the guard
// program can run it with everything locked into memory, and any process can run it at any time.
// Thread-safe.
#pragma once

#include <cstdint>

namespace spilo::guard {

struct EndResult {
  int killed = 0;  // processes that were sent SIGKILL, each counted once per pass that saw it
  int remaining =
      0;          // still there when the time was over: uninterruptible I/O, or not ours to kill
  int error = 0;  // errno of the first thing that went wrong; 0: nothing did
  std::int64_t took_ns = 0;  // until the last process was gone, or until the limit

  // Nothing of that server runs any more. False also when that could not be found out.
  bool complete() const noexcept { return remaining == 0 && error == 0; }
};

// Which directory a server runs in. A server is recognised by its working directory, never by a
// process id alone: ids are used again, and postmaster.pid may be stale or gone.
// The time of birth tells a directory from a later one that was given the same inode.
struct DirectoryId {
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  std::int64_t born_ns = 0;  // 0 where the file system does not know
  bool operator==(const DirectoryId&) const = default;
};

// 0, or errno when `data_dir` is no directory or can't be looked at.
int directory_id(const char* data_dir, DirectoryId& id) noexcept;

// Stops the postmaster (from postmaster.pid, when it really is a postgres process in that
// directory), so that nothing is forked any more and nobody notices what follows; sends SIGKILL to
// every postgres process whose working directory is `data_dir` but the walsenders, which get until
// they have sent what clients were told is committed, 50 ms at most; then to these and the
// postmaster, and looks again until two looks in a row found none or `limit_ms` is over.
// Milliseconds, unless a process sits in uninterruptible I/O. Processes of programs other than
// postgres (a shell in the directory, an archive command) are left alone. No server at all is
// success with killed == 0.
EndResult end_server(const char* data_dir, int limit_ms = 2000) noexcept;
// The same for a directory that has been identified before: it may have been renamed since.
EndResult end_server(const DirectoryId& id, int postmaster_pid, int limit_ms) noexcept;

// True while any postgres process works in `data_dir`; also when that can't be found out, because a
// caller asks this before it assumes that nobody writes there.
bool server_processes_exist(const char* data_dir) noexcept;

// The first line of postmaster.pid, 0 when there is none. Only a hint.
int postmaster_pid(const char* data_dir) noexcept;
// A live postgres process (no zombie) that works in that directory?
bool is_server_process(int pid, const DirectoryId& id) noexcept;

}  // namespace spilo::guard
