// What every verb of spiloctl has at hand: its options, a terminal, a clock, and the way to wait for
// the library's operations. One per process; one thread.
#pragma once

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cli/exit.hpp"
#include "spilo/ports/async.hpp"
#include "spilo/runtime/system_clock.hpp"

namespace spilo::cli {

struct GlobalOptions {
  std::string program = "spiloctl";
  std::string config_file;  // -c
  std::string dcs_url;      // -d
  std::string node_url;     // --node
  bool insecure = false;    // -k
  bool compat = false;      // exit codes and texts of patronictl
};

// The people's side: standard output for results, standard error for everything else.
class Terminal {
 public:
  virtual ~Terminal() = default;
  virtual void out(std::string_view text) = 0;  // as it is; flushed
  virtual void err(std::string_view text) = 0;
  // The next line of standard input, without its end; nothing at its end.
  virtual std::optional<std::string> read_line() = 0;
  virtual std::string read_all() = 0;
  virtual bool stdin_is_terminal() = 0;
  virtual bool stdout_is_terminal() = 0;
};
std::unique_ptr<Terminal> system_terminal();

// An operation on its way. Destroying it cancels the operation and waits until it has unwound.
template <class T>
class Pending {
 public:
  Pending(boost::asio::io_context& io, Async<T> operation) : io_(io) {
    boost::asio::co_spawn(
        io,
        std::move(operation),
        boost::asio::bind_cancellation_slot(
            cancel_.slot(), [this](std::exception_ptr failure, Result<T> result) {
              failure_ = failure;
              result_.emplace(std::move(result));
            }));
  }
  Pending(const Pending&) = delete;
  Pending& operator=(const Pending&) = delete;
  ~Pending() {
    if (done()) return;
    cancel();
    while (!done()) step();
  }

  bool done() const noexcept { return result_.has_value() || failure_ != nullptr; }
  void cancel() { cancel_.emit(boost::asio::cancellation_type::terminal); }
  Result<T> get() {
    while (!done()) step();
    if (failure_) std::rethrow_exception(failure_);
    return std::move(*result_);
  }

 private:
  void step() {
    if (io_.stopped()) io_.restart();
    if (io_.run_one() == 0 && !done())
      throw std::logic_error("an operation ended without a result: nothing is left to wait for");
  }

  boost::asio::io_context& io_;
  boost::asio::cancellation_signal cancel_;
  std::optional<Result<T>> result_;
  std::exception_ptr failure_;
};

class App {
 public:
  App(GlobalOptions options, Terminal& terminal);

  const GlobalOptions& options() const noexcept { return options_; }
  Terminal& terminal() noexcept { return terminal_; }
  boost::asio::io_context& io() noexcept { return io_; }
  SystemClock& clock() noexcept { return clock_; }
  TimePoint in(Duration time) const noexcept { return clock_.now() + time; }

  // One line each.
  void say(std::string_view line) { terminal_.out(std::string(line) + "\n"); }
  void note(std::string_view line) { terminal_.err(std::string(line) + "\n"); }
  void print(std::string_view text) { terminal_.out(text); }

  // Asks until there is an answer; without one at the end of the input: Stop "Aborted!".
  // `otherwise` stands in brackets and is taken for an empty answer; none: an answer is required.
  std::string ask(std::string_view question, std::optional<std::string> otherwise = std::nullopt);
  bool confirm(std::string_view question);

  // Runs until the operation has ended; other operations go on meanwhile.
  template <class T>
  Result<T> wait(Async<T> operation) {
    Pending<T> pending(io_, std::move(operation));
    return pending.get();
  }
  template <class T>
  std::unique_ptr<Pending<T>> start(Async<T> operation) {
    return std::make_unique<Pending<T>>(io_, std::move(operation));
  }
  // Runs handlers until the condition holds; false when `until` came first.
  bool run_until(const std::function<bool()>& condition, TimePoint until);

  // "2026-01-02 03:04:05" in local time, as patronictl stamps its messages.
  std::string stamp() const;

  // Exit code of an action that the API answered with something else than success.
  Exit refused(Exit code = Exit::refused) const noexcept {
    return options_.compat ? Exit::done : code;
  }

 private:
  GlobalOptions options_;
  Terminal& terminal_;
  boost::asio::io_context io_{1};
  SystemClock clock_;
};

}  // namespace spilo::cli
