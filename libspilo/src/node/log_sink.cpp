#include "spilo/node/log_sink.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <utility>

#include "spilo/core/json.hpp"

namespace spilo {
namespace {

std::string timestamp(std::int64_t at) {
  const auto seconds = static_cast<std::time_t>(at / 1000);
  std::tm local{};
  ::localtime_r(&seconds, &local);
  return fmt::format("{:04}-{:02}-{:02} {:02}:{:02}:{:02},{:03}",
                     local.tm_year + 1900,
                     local.tm_mon + 1,
                     local.tm_mday,
                     local.tm_hour,
                     local.tm_min,
                     local.tm_sec,
                     at % 1000);
}

// A message is one line: what came from a server or a client may not forge another.
std::string on_one_line(std::string_view message) {
  std::string out(message);
  while (!out.empty() && (out.back() == '\n' || out.back() == '\r')) out.pop_back();
  for (char& c : out)
    if (static_cast<unsigned char>(c) < 0x20) c = ' ';
  return out;
}

void write_all(int fd, std::string_view text) noexcept {
  while (!text.empty()) {
    const auto n = ::write(fd, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;
    text.remove_prefix(static_cast<std::size_t>(n));
  }
}

// The idle node's two lines, which repeat with each heartbeat.
bool is_heartbeat(std::string_view message) noexcept {
  return message.starts_with("no action. ") || message.starts_with("Lock owner: ");
}

class File {
 public:
  explicit File(const config::LogOptions& options)
      : options_(options), path_(options.dir + "/patroni.log") {}
  ~File() {
    if (fd_ >= 0) ::close(fd_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  void write(std::string_view line) {
    if (fd_ >= 0 && written_ + static_cast<std::int64_t>(line.size()) > options_.file_bytes)
      rotate();
    if (fd_ < 0) open();
    write_all(fd_ >= 0 ? fd_ : STDERR_FILENO, line);
    written_ += static_cast<std::int64_t>(line.size());
  }

 private:
  void open() {
    fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (fd_ < 0) {
      if (!told_)
        write_all(STDERR_FILENO,
                  fmt::format(
                      "log file {}: {}; logging to standard error\n", path_, std::strerror(errno)));
      told_ = true;
      return;
    }
    told_ = false;
    if (options_.mode != 0) ::fchmod(fd_, static_cast<mode_t>(options_.mode));
    struct stat info {};
    ::fstat(fd_, &info);
    written_ = info.st_size;
  }
  // patroni.log.1 is the youngest of the old ones.
  void rotate() {
    ::close(fd_);
    fd_ = -1;
    if (options_.files <= 0) {
      ::unlink(path_.c_str());
      return;
    }
    for (int n = options_.files; n > 1; --n)
      std::rename(fmt::format("{}.{}", path_, n - 1).c_str(),
                  fmt::format("{}.{}", path_, n).c_str());
    std::rename(path_.c_str(), fmt::format("{}.1", path_).c_str());
  }

  config::LogOptions options_;
  std::string path_;
  int fd_ = -1;
  std::int64_t written_ = 0;
  bool told_ = false;
};

struct Sink {
  Sink(const config::LogOptions& o, std::string l) : options(o), label(std::move(l)), file(o) {}

  void write(LogLevel level, std::string_view message) {
    if (options.deduplicate_heartbeat_logs && is_heartbeat(message)) {
      if (message == last_heartbeat) return;
      last_heartbeat = message;
    }
    const auto now = std::chrono::duration_cast<std::chrono::milliseconds>(
                         std::chrono::system_clock::now().time_since_epoch())
                         .count();
    const auto line =
        label.empty() ? format_log_line(options, level, message, now)
                      : format_log_line(options, level, fmt::format("{}: {}", label, message), now);
    if (options.dir.empty())
      write_all(STDERR_FILENO, line);
    else
      file.write(line);
  }

  config::LogOptions options;
  std::string label;
  File file;
  std::string last_heartbeat;
};

}  // namespace

std::string format_log_line(const config::LogOptions& options,
                            LogLevel level,
                            std::string_view message,
                            std::int64_t at) {
  const auto text = on_one_line(message);
  if (!options.json) return fmt::format("{} {}: {}\n", timestamp(at), to_text(level), text);
  json::Value line = json::Value::object();
  line.set("asctime", timestamp(at));
  line.set("levelname", to_text(level));
  line.set("message", text);
  for (const auto& [name, value] : options.static_fields) line.set(name, value);
  return json::dump(line, json::Style::spaced) + "\n";
}

Logger make_logger(const config::LogOptions& options, std::string label) {
  const auto sink = std::make_shared<Sink>(options, std::move(label));
  return Logger(options.level,
                [sink](LogLevel level, std::string_view message) { sink->write(level, message); });
}

}  // namespace spilo
