// A postmaster with children that do nothing but note the time, so that a test sees when each of
// them last ran: postgres DIRECTORY CHILDREN TICKS. Like the real one's, its processes work in the
// directory; unlike the real one's, they notice nothing, not even the death of the postmaster.
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <string>

namespace {
[[noreturn]] void tick(std::atomic<std::int64_t>& place) {
  for (;;) {
    timespec now{};
    ::clock_gettime(CLOCK_BOOTTIME, &now);
    place.store(std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec);
    ::usleep(500);
  }
}
}  // namespace

int main(int argc, char** argv) {
  if (argc != 4 || ::chdir(argv[1]) != 0) return 2;
  ::setsid();
  ::signal(SIGTERM, SIG_IGN);
  const int children = std::atoi(argv[2]);
  const int fd = ::open(argv[3], O_RDWR | O_CREAT, 0600);
  if (fd < 0 || ::ftruncate(fd, 4096) != 0) return 3;
  void* memory = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) return 4;
  auto* ticks = static_cast<std::atomic<std::int64_t>*>(memory);
  for (int child = 1; child <= children; ++child) {
    if (::fork() != 0) continue;
    if (child % 2 == 0) ::setsid();    // some leave the group
    if (child == 1) ::raise(SIGSTOP);  // one is stopped, as by a debugger
    tick(ticks[child]);
  }
  if (std::FILE* out = std::fopen("postmaster.pid", "w")) {
    std::fprintf(out, "%d\n%s\n", ::getpid(), argv[1]);
    std::fclose(out);
  }
  tick(ticks[0]);
}
