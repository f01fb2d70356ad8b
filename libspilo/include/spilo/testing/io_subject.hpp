// The part of a conformance Subject that every store with real files or servers shares: a real
// io_context and the real clock.
//
//   class MySubject final : public dcs_conformance::IoSubject {
//     std::string name() const override { return "mine"; }
//     dcs::Store& make_client(Scope scope) override { … on io().get_executor() and clock() … }
//     Duration ttl() const override { return 2s; }
//     Duration expiry_slack() const override { return 500ms; }
//     …
//   };
//   MySubject subject;
//   return dcs_conformance::run_and_print(subject, stdout);
//
// The clients of a derived class must be destroyed before this base, which the order of destruction
// gives by itself.
#pragma once

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <exception>
#include <stdexcept>
#include <utility>

#include "spilo/runtime/system_clock.hpp"
#include "spilo/testing/dcs_conformance.hpp"

namespace spilo::testing::dcs_conformance {

class IoSubject : public Subject {
 public:
  IoSubject() : io_(1), clock_(io_.get_executor()) {}

  Clock& clock() override { return clock_; }
  // A client's background work may keep the context busy for ever, so the end of `work` is what
  // counts.
  void run_until(boost::asio::awaitable<void> work) override {
    bool ended = false;
    std::exception_ptr failure;
    boost::asio::co_spawn(io_, std::move(work), [&](std::exception_ptr thrown) {
      failure = thrown;
      ended = true;
    });
    while (!ended) {
      if (io_.stopped()) io_.restart();
      if (io_.run_one() == 0 && !ended)
        throw std::logic_error("the case waits for something that nobody will complete");
    }
    if (failure) std::rethrow_exception(failure);
  }

 protected:
  boost::asio::io_context& io() noexcept { return io_; }
  SystemClock& system_clock() noexcept { return clock_; }

 private:
  boost::asio::io_context io_;
  SystemClock clock_;
};

}  // namespace spilo::testing::dcs_conformance
