#include "flusher.hpp"

#include <fcntl.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>
#include <cerrno>
#include <optional>
#include <utility>
#include <vector>

namespace spilo::sqlite {
namespace asio = boost::asio;
using boost::system::error_code;

namespace {

error_code last_error() {
  return {errno, boost::system::system_category()};
}

std::string folder_of(const std::string& file) {
  const auto slash = file.rfind('/');
  return slash == std::string::npos ? "." : file.substr(0, slash + 1);
}

class Descriptor {
 public:
  Descriptor(const std::string& path, int flags)
      : number(::open(path.c_str(), flags | O_RDONLY | O_CLOEXEC)) {}
  ~Descriptor() {
    if (number >= 0) ::close(number);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  const int number;
};

// Used on the thread only.
class Log {
 public:
  explicit Log(std::string file) : file_(std::move(file)) {}

  // SQLite takes no locks on the log file itself, so opening and closing it here harms none of its
  // locks.
  error_code flush() {
    const Descriptor log(file_ + "-wal", 0);
    struct stat seen {};
    if (log.number < 0 || ::fstat(log.number, &seen) != 0 || ::fdatasync(log.number) != 0)
      return last_error();
    // A log that was created since has to be found after a power failure as well.
    if (seen.st_ino == in_folder_) return {};
    const Descriptor folder(folder_of(file_), O_DIRECTORY);
    if (folder.number < 0 || ::fsync(folder.number) != 0) return last_error();
    in_folder_ = seen.st_ino;
    return {};
  }
  const std::string& file() const noexcept { return file_; }

 private:
  std::string file_;
  ino_t in_folder_ = 0;
};

// On the thread, with a connection of its own. Whatever goes wrong, the log stays as it is and a
// later checkpoint does it.
void copy_log(const std::string& file) {
  sqlite3* db = nullptr;
  if (sqlite3_open_v2(file.c_str(), &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, nullptr) ==
      SQLITE_OK)
    sqlite3_wal_checkpoint_v2(db, nullptr, SQLITE_CHECKPOINT_PASSIVE, nullptr, nullptr);
  sqlite3_close(db);
}

}  // namespace

// Everything but the log happens on the executor.
struct Flusher::State : std::enable_shared_from_this<Flusher::State> {
  using Batch = std::vector<std::shared_ptr<Signal>>;

  State(asio::any_io_executor ex, std::string name)
      : executor(std::move(ex)), log(std::make_shared<Log>(std::move(name))) {}

  asio::thread_pool& worker() {
    if (!pool) pool.emplace(1);
    return *pool;
  }

  void start() {
    flushing = true;
    auto batch = std::exchange(waiting, {});
    asio::post(worker(), [log = log, ex = executor, self = weak_from_this(), batch]() mutable {
      const error_code outcome = log->flush();
      asio::post(ex, [self = std::move(self), batch = std::move(batch), outcome] {
        for (const auto& signal : batch) signal->try_send(outcome);
        if (const auto state = self.lock()) state->flushed();
      });
    });
  }

  void flushed() {
    flushing = false;
    if (!waiting.empty()) start();
  }

  asio::any_io_executor executor;
  std::shared_ptr<Log> log;
  Batch waiting;
  bool flushing = false;
  bool checkpointing = false;
  std::optional<asio::thread_pool> pool;
};

Flusher::Flusher(asio::any_io_executor executor, std::string file)
    : state_(std::make_shared<State>(std::move(executor), std::move(file))) {}

Flusher::~Flusher() {
  if (state_->pool) state_->pool->join();
}

std::shared_ptr<Flusher::Signal> Flusher::flush() {
  auto signal = std::make_shared<Signal>(state_->executor, 1);
  state_->waiting.push_back(signal);
  if (!state_->flushing) state_->start();
  return signal;
}

void Flusher::checkpoint() {
  if (state_->checkpointing) return;
  state_->checkpointing = true;
  asio::post(state_->worker(),
             [log = state_->log, ex = state_->executor, self = state_->weak_from_this()]() mutable {
               copy_log(log->file());
               asio::post(ex, [self = std::move(self)] {
                 if (const auto state = self.lock()) state->checkpointing = false;
               });
             });
}

}  // namespace spilo::sqlite
