#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "impl.hpp"

namespace spilo::pg {

// One callback at a time: a newer one ends an older one with its children, because it knows better
// what this node is. on_reload is apart, so that it does not end a change of role.
void PgController::Impl::run_callback(const std::string& action, const std::string& role) {
  const auto configured = options.callbacks.find(action);
  if (configured == options.callbacks.end() || configured->second.empty() || bootstrapping) return;
  const auto words = split_command_line(configured->second);
  if (!words || words->empty()) {
    log.warning("callback {}: a quote is not closed: {}", action, configured->second);
    return;
  }
  const bool slot = action == "on_reload";
  if (const auto running = callback_pid[slot]; running != 0) {
    kill_session(running);
    reap_killed(running);
    callback_pid[slot] = 0;
    callback_watch[slot].stop();
  }
  Command command;
  command.argv = *words;
  command.arg(action).arg(role).arg(options.scope.str());
  const int out = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
  const auto started = start_program(command, out);
  ::close(out);
  if (started.has_error()) {
    log.warning("callback {}: {}", action, started.error().text());
    return;
  }
  callback_pid[slot] = *started;
  callback_watch[slot].watch(
      executor, *started, [weak = weak_from_this(), slot, action](pid_t pid) {
        const auto self = weak.lock();
        int status = 0;
        ::waitpid(pid, &status, WNOHANG);
        if (!self || self->callback_pid[slot] != pid) return;
        self->callback_pid[slot] = 0;
        self->callback_watch[slot].stop();
        if (status != 0)
          self->log.warning("callback {} ended with {}", action, Outcome(status, {}).how());
      });
}

}  // namespace spilo::pg
