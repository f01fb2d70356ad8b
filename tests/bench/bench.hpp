// What all parts of spilo-bench share: how it waits, how it fails, how it is told to stop.
#pragma once

#include <signal.h>

#include <chrono>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace bench {

// SIGINT or SIGTERM came. Every wait then ends by throwing Interrupted, and the destructors on the
// way out end what was started.
extern volatile sig_atomic_t stop_asked;
struct Interrupted {};

// Something did not come about; the text says what and where to look.
struct Failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Lets the time pass.
void rest(std::chrono::milliseconds time);

// Waits for an observed state. Throws Failure, naming it, when the limit is over.
template <class Condition>
void await(const std::string& what, std::chrono::seconds limit, Condition condition) {
  const auto end = std::chrono::steady_clock::now() + limit;
  while (!condition()) {
    if (std::chrono::steady_clock::now() >= end)
      throw Failure("waited " + std::to_string(limit.count()) + " s for this: " + what);
    rest(std::chrono::milliseconds(5));
  }
}

// A whole file; empty when it can't be read.
std::string slurp(const std::string& path);
// Runs a program to its end, its output in `log_file`; throws Failure when it fails.
void run_program(std::vector<std::string> command, const std::string& log_file);

// One statement on a connection of its own: the first column of the first row. Throws Failure.
std::string sql(const std::string& conninfo, const std::string& statement);

// All processes whose working directory is that one: a PostgreSQL server.
std::vector<pid_t> processes_in(const std::string& directory);
pid_t postmaster_of(const std::string& data_dir);  // 0: none

}  // namespace bench
