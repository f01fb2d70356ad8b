// Waits for the disk, so that the event loop does not. Internal.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/experimental/channel.hpp>
#include <memory>
#include <string>

namespace spilo::sqlite {

// A thread that does nothing but fdatasync() and checkpoints, made when it is first needed.
//
// Measured: a commit with synchronous=FULL keeps the loop, and the lock of the file, for 2 ms on a
// quiet disk and for 40 ms and more beside a busy one, without any upper bound; a PostgreSQL
// checkpoint makes such disks. Meanwhile no lease of any node that shares the file could be
// renewed. A commit with synchronous=NORMAL takes 0.1 ms either way. So the transaction is made
// visible first and the answer waits for the disk here, where it delays nothing else.
class Flusher {
 public:
  using Signal = boost::asio::experimental::channel<void(boost::system::error_code)>;

  Flusher(boost::asio::any_io_executor executor, std::string file);
  // Waits for what the disk is doing for us just now.
  ~Flusher();
  Flusher(const Flusher&) = delete;
  Flusher& operator=(const Flusher&) = delete;

  // Puts everything that is in the log by now onto the disk, then sends the outcome. Requests that
  // come while the disk works share the next turn.
  std::shared_ptr<Signal> flush();
  // Copies the log into the database, so that the log can start again. Does nothing when that is
  // going on already.
  void checkpoint();

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace spilo::sqlite
