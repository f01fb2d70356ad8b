// Structured concurrency for code that starts operations and goes on: nothing it started outlives
// it unnoticed.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <exception>
#include <functional>
#include <list>
#include <memory>
#include <utility>

namespace spilo {

// One strand of execution. Keep it alive (by the shared state it hands to the operations) until
// idle().
class OperationSet : public std::enable_shared_from_this<OperationSet> {
 public:
  using Id = std::uint64_t;
  // `failed` is called when an operation ends with an exception: a broken invariant. `ended` after
  // each end.
  OperationSet(boost::asio::any_io_executor executor,
               std::function<void(std::exception_ptr)> failed,
               std::function<void()> ended)
      : executor_(std::move(executor)), failed_(std::move(failed)), ended_(std::move(ended)) {}

  Id start(boost::asio::awaitable<void> operation) {
    auto entry = std::make_shared<Entry>();
    entry->id = ++last_id_;
    entries_.push_back(entry);
    auto done = [self = shared_from_this(), entry](std::exception_ptr failure) {
      self->entries_.remove(entry);
      if (failure && self->failed_) self->failed_(failure);
      if (self->ended_) self->ended_();
    };
    boost::asio::co_spawn(
        executor_,
        std::move(operation),
        boost::asio::bind_cancellation_slot(entry->signal.slot(), std::move(done)));
    return entry->id;
  }

  // Terminal cancellation; the operation ends soon, through `ended`.
  void cancel(Id id) {
    for (const auto& entry : entries_) {
      if (entry->id != id) continue;
      const auto keep = entry;  // it may end and be removed while it is being told
      keep->signal.emit(boost::asio::cancellation_type::terminal);
      return;
    }
  }
  void cancel_all() {
    const auto all = entries_;
    for (const auto& entry : all) entry->signal.emit(boost::asio::cancellation_type::terminal);
  }
  bool idle() const noexcept { return entries_.empty(); }
  // Forgets the callbacks: their owner is going away.
  void abandon() {
    failed_ = nullptr;
    ended_ = nullptr;
  }

 private:
  struct Entry {
    Id id = 0;
    boost::asio::cancellation_signal signal;
  };
  boost::asio::any_io_executor executor_;
  std::function<void(std::exception_ptr)> failed_;
  std::function<void()> ended_;
  std::list<std::shared_ptr<Entry>> entries_;
  Id last_id_ = 0;
};

}  // namespace spilo
