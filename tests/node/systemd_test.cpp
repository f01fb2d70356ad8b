#include "spilo/node/systemd.hpp"

#include <doctest/doctest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "support/process.hpp"

namespace {

using namespace spilo;
using namespace spilo::test;

class Listener {
 public:
  explicit Listener(const std::string& path)
      : fd_(::socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    REQUIRE(::bind(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  }
  ~Listener() { ::close(fd_); }
  std::string next() const {
    char buffer[512];
    const auto n = ::recv(fd_, buffer, sizeof buffer, 0);
    return n < 0 ? "nothing" : std::string(buffer, static_cast<std::size_t>(n));
  }

 private:
  int fd_;
};

}  // namespace

TEST_CASE("systemd is told") {
  TempDir dir;
  const Listener listener(dir / "notify");
  const SystemdNotifier notifier(dir / "notify");
  notifier.ready();
  CHECK(listener.next() == "READY=1");
  notifier.reloading();
  CHECK(listener.next().starts_with("RELOADING=1\nMONOTONIC_USEC="));
  notifier.status("leading\nwith the lock");
  CHECK(listener.next() == "STATUS=leading");
  notifier.stopping();
  CHECK(listener.next() == "STOPPING=1");
}

TEST_CASE("without systemd, or with a socket that can't be reached, nothing happens") {
  TempDir dir;
  const Listener listener(dir / "notify");
  SystemdNotifier().ready();
  SystemdNotifier(dir / "no-such-socket").ready();
  SystemdNotifier(std::string(300, 'x')).ready();
  CHECK(listener.next() == "nothing");
}
