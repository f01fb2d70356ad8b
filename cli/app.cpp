#include "cli/app.hpp"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <ctime>
#include <iostream>
#include <iterator>

#include "spilo/runtime/with_deadline.hpp"

namespace spilo::cli {
namespace {

class SystemTerminal final : public Terminal {
 public:
  void out(std::string_view text) override { std::cout << text << std::flush; }
  void err(std::string_view text) override { std::cerr << text << std::flush; }
  std::optional<std::string> read_line() override {
    std::string line;
    if (!std::getline(std::cin, line)) return std::nullopt;
    return line;
  }
  std::string read_all() override {
    return std::string(std::istreambuf_iterator<char>(std::cin), {});
  }
  bool stdin_is_terminal() override { return ::isatty(STDIN_FILENO) == 1; }
  bool stdout_is_terminal() override { return ::isatty(STDOUT_FILENO) == 1; }
};

std::string trimmed(std::string text) {
  const auto blank = [](unsigned char c) { return std::isspace(c) != 0; };
  while (!text.empty() && blank(static_cast<unsigned char>(text.back()))) text.pop_back();
  std::size_t skip = 0;
  while (skip < text.size() && blank(static_cast<unsigned char>(text[skip]))) ++skip;
  return text.substr(skip);
}

Stop aborted(Terminal& terminal) {
  const bool person = terminal.stdin_is_terminal();
  return Stop(Exit::error,
              person ? "Aborted!"
                     : "Aborted! The question needs an answer and standard input has none; --force "
                       "asks nothing.");
}

}  // namespace

std::unique_ptr<Terminal> system_terminal() {
  return std::make_unique<SystemTerminal>();
}

App::App(GlobalOptions options, Terminal& terminal)
    : options_(std::move(options)), terminal_(terminal), clock_(io_.get_executor()) {}

std::string App::ask(std::string_view question, std::optional<std::string> otherwise) {
  for (;;) {
    terminal_.out(otherwise ? fmt::format("{} [{}]: ", question, *otherwise)
                            : fmt::format("{}: ", question));
    const auto line = terminal_.read_line();
    if (!line) {
      terminal_.out("\n");
      throw aborted(terminal_);
    }
    auto answer = trimmed(*line);
    if (!answer.empty()) return answer;
    if (otherwise) return *otherwise;
  }
}

bool App::confirm(std::string_view question) {
  for (;;) {
    terminal_.out(fmt::format("{} [y/N]: ", question));
    const auto line = terminal_.read_line();
    if (!line) {
      terminal_.out("\n");
      throw aborted(terminal_);
    }
    auto answer = trimmed(*line);
    std::transform(answer.begin(), answer.end(), answer.begin(), [](unsigned char c) {
      return static_cast<char>(std::tolower(c));
    });
    if (answer == "y" || answer == "yes") return true;
    if (answer.empty() || answer == "n" || answer == "no") return false;
    terminal_.out("Please answer y or n.\n");
  }
}

bool App::run_until(const std::function<bool()>& condition, TimePoint until) {
  // The timer only ends the wait for handlers; whether it or something else woke us is decided by
  // the clock.
  struct Timer {
    static Async<void> run(Clock& clock, TimePoint at) {
      co_await sleep_until(clock, at);
      co_return Result<void>();
    }
  };
  Pending<void> timer(io_, Timer::run(clock_, until));
  while (!condition()) {
    if (timer.done()) return condition();
    if (io_.stopped()) io_.restart();
    io_.run_one();
  }
  return true;
}

std::string App::stamp() const {
  const std::time_t now = std::chrono::system_clock::to_time_t(clock_.wall_now());
  std::tm local{};
  ::localtime_r(&now, &local);
  return fmt::format("{:%Y-%m-%d %H:%M:%S}", local);
}

}  // namespace spilo::cli
