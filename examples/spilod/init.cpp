#include "init.hpp"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

namespace spilod {
namespace {

volatile sig_atomic_t child = 0;

void hand_on(int signal) {
  if (child > 0) ::kill(static_cast<pid_t>(child), signal);
}

}  // namespace

void become_init_if_first() {
  if (::getpid() != 1) return;
  // Nothing is handed on before there is somebody to hand it to.
  sigset_t all, before;
  ::sigfillset(&all);
  ::sigprocmask(SIG_SETMASK, &all, &before);
  const pid_t pid = ::fork();
  if (pid < 0) {
    std::fprintf(stderr, "spilod: fork: %s\n", std::strerror(errno));
    std::exit(1);
  }
  if (pid == 0) {
    ::sigprocmask(SIG_SETMASK, &before, nullptr);
    return;
  }
  child = pid;
  struct sigaction action {};
  action.sa_handler = hand_on;
  action.sa_flags = SA_RESTART;
  for (const int signal : {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGABRT, SIGUSR1, SIGUSR2})
    ::sigaction(signal, &action, nullptr);
  ::sigprocmask(SIG_SETMASK, &before, nullptr);
  for (;;) {
    int status = 0;
    const pid_t ended = ::wait(&status);
    if (ended < 0 && errno == ECHILD) std::exit(1);
    if (ended != pid) continue;
    std::exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
  }
}

}  // namespace spilod
