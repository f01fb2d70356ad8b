// Runs one operation to its end on a test's io_context. Other work of the context goes on
// meanwhile.
#pragma once

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <chrono>
#include <exception>
#include <stdexcept>
#include <utility>

#include "spilo/ports/async.hpp"

namespace spilo::test {

template <class T>
Result<T> run(boost::asio::io_context& io,
              Async<T> operation,
              std::chrono::seconds limit = std::chrono::seconds(60)) {
  Result<T> out = Error(errc::unsupported, "the operation has not ended");
  bool done = false;
  std::exception_ptr failed;
  boost::asio::co_spawn(
      io, std::move(operation), [&](std::exception_ptr failure, Result<T> result) {
        failed = failure;
        out = std::move(result);
        done = true;
      });
  const auto end = std::chrono::steady_clock::now() + limit;
  io.restart();
  while (!done && std::chrono::steady_clock::now() < end) io.run_one_until(end);
  if (!done)
    throw std::runtime_error("an operation did not end in time: its deadline did not hold");
  if (failed) std::rethrow_exception(failed);
  return out;
}

// Lets the context work until the condition holds.
template <class Condition>
bool run_until(boost::asio::io_context& io, Condition condition, std::chrono::milliseconds limit) {
  const auto end = std::chrono::steady_clock::now() + limit;
  io.restart();
  while (!condition()) {
    if (std::chrono::steady_clock::now() >= end) return false;
    io.run_one_for(std::chrono::milliseconds(10));
    if (io.stopped()) io.restart();
  }
  return true;
}

}  // namespace spilo::test
