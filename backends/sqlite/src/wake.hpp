// How the processes that share a file wake one another. Internal.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/experimental/channel.hpp>
#include <memory>
#include <string>

#include "spilo/core/error.hpp"

namespace spilo::sqlite {

// A file beside the database. A writer writes one byte into it when it has committed a change;
// inotify tells the waiters.
//
// The log of SQLite itself would be the wrong file to watch: it is written before the commit
// becomes visible (that happens in shared memory, which makes no event), so a waiter could look too
// early, see nothing and sleep through the change; and every renewal would wake everybody. To keep
// a change from going unnoticed when its writer is killed between its COMMIT and its announcement,
// the writer also announces it just before, and a waiter that was woken but sees nothing looks
// again a little later.
class Wake {
 public:
  using Signal = boost::asio::experimental::channel<void(boost::system::error_code)>;

  explicit Wake(boost::asio::any_io_executor executor);
  ~Wake();
  Wake(const Wake&) = delete;
  Wake& operator=(const Wake&) = delete;

  // Opens or creates the file and watches it; does nothing when it does so already. Call it before
  // looking at the state that is to be waited for.
  Result<void> open(const std::string& file);
  void close() noexcept;
  // False when the kernel has no inotify instance left for us: then the caller has to look by
  // itself now and then.
  bool is_listening() const noexcept;
  void announce() noexcept;  // to every waiter, of this process and the others

  // A waiter from its construction to its destruction. What happens between two receptions is never
  // lost.
  class Waiter {
   public:
    explicit Waiter(Wake& wake);
    ~Waiter();
    Waiter(const Waiter&) = delete;
    Waiter& operator=(const Waiter&) = delete;
    Signal& signal() noexcept { return signal_; }

   private:
    Wake& wake_;
    Signal signal_;
  };

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace spilo::sqlite
