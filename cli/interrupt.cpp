#include "cli/interrupt.hpp"

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstring>

namespace spilo::cli {
namespace {

constexpr const char* aborted = "\nAborted!\n";
// A signal handler can be told things in no other way.
std::atomic<const char*> notice{aborted};
std::atomic<int> code{static_cast<int>(Exit::error)};
static_assert(std::atomic<const char*>::is_always_lock_free);

void on_interrupt(int) {
  const char* text = notice.load();
  // There is nobody left to tell when this fails.
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, text, std::strlen(text));
  ::_exit(code.load());
}

}  // namespace

void install_interrupt_handler() {
  struct sigaction action {};
  action.sa_handler = on_interrupt;
  ::sigaction(SIGINT, &action, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
}

InterruptNotice::InterruptNotice(const char* text, Exit exit_code) noexcept {
  code.store(static_cast<int>(exit_code));
  notice.store(text);
}

InterruptNotice::~InterruptNotice() {
  notice.store(aborted);
  code.store(static_cast<int>(Exit::error));
}

}  // namespace spilo::cli
