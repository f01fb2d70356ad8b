// Readiness for systemd (Type=notify), without its library.
#pragma once

#include <string>
#include <string_view>

namespace spilo {

// Sends to the socket named in NOTIFY_SOCKET. Does nothing when there is none; never blocks.
class SystemdNotifier {
 public:
  SystemdNotifier() = default;
  explicit SystemdNotifier(std::string socket) : socket_(std::move(socket)) {}
  void ready() const;      // READY=1
  void reloading() const;  // RELOADING=1 with the time that Type=notify-reload asks for
  void stopping() const;   // STOPPING=1
  void status(std::string_view text) const;

 private:
  void send(std::string_view text) const;
  std::string socket_;
};

}  // namespace spilo
