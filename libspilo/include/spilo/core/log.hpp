// A logger is a value: a level and a function. There is no global logger; whoever wants to say
// something was handed one.
#pragma once

#include <fmt/core.h>

#include <functional>
#include <string>
#include <string_view>
#include <utility>

namespace spilo {

enum class LogLevel { debug, info, warning, error, critical };
std::string_view to_text(LogLevel level) noexcept;  // "DEBUG" … "CRITICAL"

class Logger {
 public:
  using Sink = std::function<void(LogLevel, std::string_view message)>;

  Logger() = default;  // says nothing
  Logger(LogLevel threshold, Sink sink) : threshold_(threshold), sink_(std::move(sink)) {}

  bool enabled(LogLevel level) const noexcept { return sink_ && level >= threshold_; }
  void write(LogLevel level, std::string_view message) const {
    if (enabled(level)) sink_(level, message);
  }

  // Formatting is skipped below the level.
  template <class... Args>
  void log(LogLevel level, fmt::format_string<Args...> text, Args&&... args) const {
    if (enabled(level)) sink_(level, fmt::format(text, std::forward<Args>(args)...));
  }
  template <class... Args>
  void debug(fmt::format_string<Args...> text, Args&&... args) const {
    log(LogLevel::debug, text, std::forward<Args>(args)...);
  }
  template <class... Args>
  void info(fmt::format_string<Args...> text, Args&&... args) const {
    log(LogLevel::info, text, std::forward<Args>(args)...);
  }
  template <class... Args>
  void warning(fmt::format_string<Args...> text, Args&&... args) const {
    log(LogLevel::warning, text, std::forward<Args>(args)...);
  }
  template <class... Args>
  void error(fmt::format_string<Args...> text, Args&&... args) const {
    log(LogLevel::error, text, std::forward<Args>(args)...);
  }

 private:
  LogLevel threshold_ = LogLevel::info;
  Sink sink_;
};

}  // namespace spilo
