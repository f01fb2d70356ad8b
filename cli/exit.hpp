// How spiloctl ends.
#pragma once

#include <string>
#include <utility>

namespace spilo::cli {

enum class Exit : int {
  done = 0,     // done, or nothing was to be done
  error = 1,    // a precondition does not hold, or the store or the API can't be reached: not done
  usage = 2,    // wrong arguments
  refused = 3,  // the cluster refused: certainly not done
  failed = 4,   // it began and failed
  unknown = 5,  // it may still be going on: look before trying again
};

// Ends the verb with a message. The only exception of this program: thrown where a verb can't go on,
// caught in one place.
class Stop {
 public:
  Stop(Exit code, std::string message) : code_(code), message_(std::move(message)) {}
  Exit code() const noexcept { return code_; }
  const std::string& message() const noexcept { return message_; }

 private:
  Exit code_;
  std::string message_;
};

}  // namespace spilo::cli
