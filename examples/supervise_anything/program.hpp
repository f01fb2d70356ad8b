// Two ports of libspilo for a program that is not PostgreSQL: the hands that start and stop it
// (spilo::Postgres), and the guard that ends it when nobody else can (spilo::Guard).
//
// What the supervisor calls a primary is a node on which the program runs; a replica is one on
// which it does not. There is no data, so every copy of it is complete, and copying takes no time.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <string>
#include <vector>

#include "spilo/ports/clock.hpp"
#include "spilo/ports/guard.hpp"
#include "spilo/ports/postgres.hpp"

namespace example {

class Program final : public spilo::Postgres, public spilo::Guard {
 public:
  // `directory` is this node's own: it remembers that the node belongs to a cluster, and keeps two
  // programs of one node apart. It must exist.
  Program(boost::asio::any_io_executor executor,
          spilo::Clock& clock,
          std::string directory,
          std::vector<std::string> command);
  ~Program() override;

  // ---- the hands ----
  spilo::Async<spilo::NodeView> observe(spilo::TimePoint deadline) override;
  spilo::Async<void> perform(spilo::ha::Task task) override;
  void may_write_until(spilo::TimePoint until) override { may_run_until_ = until; }
  spilo::Result<void> kill_now() override;
  void on_change(std::function<void()> wake) override { wake_ = std::move(wake); }
  // What only PostgreSQL has.
  spilo::Async<void> sync_slots(std::vector<std::string>,
                                std::vector<std::pair<std::string, spilo::Lsn>>,
                                spilo::TimePoint) override {
    co_return spilo::Result<void>();
  }
  void configure(const spilo::DynamicConfig&) override {}
  std::string progress() const override { return {}; }
  void run_callback(std::string, std::string) override {}

  // ---- the guard ----
  // Each program is born with a keeper, so there is nothing to make sure of before, and no program
  // is ever without one.
  spilo::Result<void> ensure() override { return {}; }
  spilo::Result<void> hold_until(spilo::TimePoint deadline) override;
  spilo::Result<void> hold_no_longer_than(spilo::TimePoint limit) override;
  spilo::Result<void> stand_down() override;
  bool alive() const noexcept override { return true; }
  void on_death(std::function<void()>) override {}

  // What agent and keeper share: a page of memory.
  struct Page {
    std::atomic<std::int64_t> deadline_ns;  // on the boot-time clock; 0: none
    std::atomic<int> order;                 // a signal for the program; 0: none
    std::atomic<int> program;               // its process id, once it runs
  };

 private:
  spilo::Async<void> start();
  spilo::Async<void> stop(spilo::Duration patience);
  spilo::Result<void> follow(const spilo::ha::Task& task);
  spilo::Result<void> join_cluster() const;
  void keeper_ended();

  spilo::Clock& clock_;
  std::string directory_;
  std::vector<std::string> command_;
  Page* page_;
  pid_t keeper_ = 0;  // 0: the program does not run
  boost::asio::posix::stream_descriptor keeper_end_;
  bool leads_ = false;
  spilo::TimePoint may_run_until_ = spilo::TimePoint::max();
  bool follows_ = false;
  bool stopped_in_order_ = true;
  std::string upstream_;
  std::function<void()> wake_;
};

}  // namespace example
