// What Ctrl-C says and how it ends the program: an operation on the cluster goes on without us.
#pragma once

#include "cli/exit.hpp"

namespace spilo::cli {

// Installs the handler: "Aborted!" and exit code 1, unless a notice is in force. For main().
void install_interrupt_handler();

// While it lives, Ctrl-C prints this text, which must be a literal, and ends with this code.
class InterruptNotice {
 public:
  InterruptNotice(const char* text, Exit code) noexcept;
  ~InterruptNotice();
  InterruptNotice(const InterruptNotice&) = delete;
  InterruptNotice& operator=(const InterruptNotice&) = delete;
};

}  // namespace spilo::cli
