// Child programs: initdb, pg_basebackup, pg_rewind, scripts of the user. Started in a session of
// their own, so that a whole tree can be ended; output is read with a limit; nothing blocks.
#pragma once

#include <sys/types.h>

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "spilo/ports/async.hpp"
#include "spilo/ports/clock.hpp"

namespace spilo::pg {

// A class with constructors, hence safe beside co_await.
class Command {
 public:
  Command() = default;
  explicit Command(std::string program) : argv{std::move(program)} {}
  Command& arg(std::string text) & {
    argv.push_back(std::move(text));
    return *this;
  }
  Command& env(std::string name, std::string value) & {
    environment[std::move(name)] = std::move(value);
    return *this;
  }
  std::vector<std::string> argv;  // argv[0] is looked up in PATH when it has no slash
  std::map<std::string, std::string> environment;  // added to the cleaned environment
  std::string output_file;  // append stdout and stderr there instead of capturing them
  std::string working_directory;
};

// How a program ended.
class Outcome {
 public:
  Outcome() = default;
  Outcome(int wait_status, std::string text) : status(wait_status), output(std::move(text)) {}
  int status = 0;      // as waitpid() gives it
  std::string output;  // stdout and stderr together: the first and last 32 KiB
  bool ok() const noexcept { return status == 0; }
  std::string how() const;         // "exit status 1", "signal 9"
  std::string last_words() const;  // the last non-empty lines of the output, at most 400 bytes
};

// The environment of a child: ours without SPILO_*, PATRONI_*, KUBERNETES_* and NOTIFY_SOCKET.
std::vector<std::string> child_environment(const std::map<std::string, std::string>& added);

// Starts a program in its own session, with stdin from /dev/null, no descriptor of ours, default
// signal dispositions and an empty mask. `output` is its stdout and stderr (the caller closes it).
//   command_failed   it could not be started, and why
Result<pid_t> start_program(const Command& command, int output);

// A descriptor that becomes readable when the process ends, -1 when it is gone already.
int open_pidfd(pid_t pid) noexcept;
// Has the process behind that descriptor ended? Ask after every wait: Asio may complete one on a
// readiness that belonged to an earlier descriptor of the same slot.
bool has_ended(int pidfd) noexcept;

// Kills every process of that session (the children of a program that start_program began).
void kill_session(pid_t leader) noexcept;

// Reaps a child that was sent SIGKILL. It gets 200 ms for that; false: something uninterruptible
// keeps it, and nobody is to wait for it.
bool reap_killed(pid_t pid) noexcept;

// Completes when the process has ended. False: the deadline came first, or cancelled.
boost::asio::awaitable<bool> wait_for_end(Clock& clock, pid_t pid, TimePoint deadline);

// Runs a program to its end. At the deadline or when cancelled its whole session is killed and
// reaped. `on_output` sees each piece of output as it comes; returning false ends the program.
//   command_failed   could not be started
//   timed_out        deadline; the last words are in the text
//   cancelled        we were told to stop, or on_output said so
// A program that ran and failed is no Error here: see Outcome.
Async<Outcome> run_program(Clock& clock,
                           Command command,
                           TimePoint deadline,
                           std::function<bool(std::string_view)> on_output = {});

// Splits a command line as a shell would (quotes and backslashes), without running one. Nothing on
// an unbalanced quote.
std::optional<std::vector<std::string>> split_command_line(std::string_view text);

}  // namespace spilo::pg
