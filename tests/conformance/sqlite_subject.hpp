// What the tests of the SQLite adapter share.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "conformance/doctest_glue.hpp"
#include "spilo/sqlite/sqlite_store.hpp"
#include "support/process.hpp"

namespace spilo::test {

inline bool says(const Process& process, const std::string& text) {
  return process.log().find(text) != std::string::npos;
}

// Clients of one file. Its "server" is the lock of the file: it is frozen by a process that takes
// it and is stopped.
class SqliteSubject : public testing::dcs_conformance::IoSubject {
 public:
  explicit SqliteSubject(const TempDir& folder) : folder_(folder), file_(folder / "store.db") {}

  std::string name() const override { return "sqlite"; }
  Duration ttl() const override { return std::chrono::seconds(2); }
  Duration expiry_slack() const override { return std::chrono::milliseconds(300); }
  dcs::Store& make_client(Scope scope) override { return client(std::move(scope)); }

  dcs::Store& client(Scope scope, std::string boot_id = {}) {
    sqlite::Options options;
    options.file = file_;
    options.scope = std::move(scope);
    options.boot_id = std::move(boot_id);
    clients_.push_back(
        std::make_unique<sqlite::SqliteStore>(io().get_executor(), clock(), std::move(options)));
    return *clients_.back();
  }

  std::optional<std::string> why_not(testing::dcs_conformance::Fault fault) const override {
    using testing::dcs_conformance::Fault;
    switch (fault) {
      case Fault::freeze_server:
        return {};
      case Fault::cut_answers:
        return "an embedded store has no answer that could be cut off";
      case Fault::restart_server:
      case Fault::kill_leader:
        return "an embedded store has no server";
    }
    return "unknown fault";
  }
  boost::asio::awaitable<void> freeze_server() override {
    std::vector<std::string> command = {SPILO_SQLITE_PEER, "lock", file_};
    locker_ = std::make_unique<Process>(std::move(command), folder_ / "locker.log");
    if (!wait_until([&] { return says(*locker_, "locked"); }, std::chrono::seconds(10)))
      throw std::runtime_error("the peer can't lock the file: " + locker_->log());
    locker_->freeze();
    co_return;
  }
  // Killing it is what frees the lock; a thawed writer would go on and free it as well.
  boost::asio::awaitable<void> thaw_server() override {
    locker_.reset();
    co_return;
  }

  const std::string& file() const noexcept { return file_; }
  boost::asio::io_context& context() noexcept { return io(); }

 private:
  const TempDir& folder_;
  std::string file_;
  std::vector<std::unique_ptr<dcs::Store>> clients_;
  std::unique_ptr<Process> locker_;
};

}  // namespace spilo::test
