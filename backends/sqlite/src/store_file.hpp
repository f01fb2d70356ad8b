// The tables in the file, and one attempt of each operation on them. No waiting here, and no Asio.
// Internal.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "spilo/core/error.hpp"
#include "spilo/core/log.hpp"
#include "spilo/core/time.hpp"
#include "spilo/ports/clock.hpp"
#include "spilo/ports/dcs.hpp"

namespace spilo::sqlite {

// What an attempt gives: nothing when another process has the lock and the attempt is to be
// repeated.
template <class T>
using Attempt = std::optional<Result<T>>;

class StoreFile {
 public:
  StoreFile(Clock& clock, std::string file, std::string scope, std::string boot_id, Logger log);
  ~StoreFile();

  const std::string& name() const noexcept { return file_; }

  class Position {
   public:
    dcs::Index index;  // of the last change below the scope
    std::optional<TimePoint>
        next_expiry;  // when the first session with keys in the scope ends, if nobody renews it
  };
  class Written {
   public:
    dcs::Committed committed;
    bool is_changed = false;
  };

  // `announce` is called just before a COMMIT that changes keys, while the lock is held.
  using Announce = void (*)(void* context);
  void on_commit(Announce announce, void* context) noexcept;

  Attempt<dcs::Snapshot> read();
  Attempt<Written> commit(const dcs::Transaction& transaction, const std::string& session);
  // An empty session opens a new one. session_lost: the old one is gone.
  Attempt<dcs::Lease> renew(const std::string& session, Duration ttl);
  Attempt<bool> end_session(const std::string& session);  // true when keys were deleted with it
  Attempt<Position> position();
  // How long the write-ahead log is; it starts again some time after a checkpoint.
  int log_pages() const noexcept;
  Attempt<bool> purge();  // deletes what has expired; true when there were keys

 private:
  struct Tables;
  class Change;

  template <class T, class Work>
  Attempt<T> attempt(std::string_view what, Work work);
  Error explain(std::string_view what, const class SqlFailure& failure) const;
  std::optional<Error> open();
  std::optional<Error> refuse_foreign();
  void create_tables();
  Error cannot_open(const SqlFailure& failure) const;
  bool is_alive(const std::string& session, TimePoint now);
  bool holds(const dcs::Transaction::Requirement& requirement);
  std::optional<Error> check(const dcs::Transaction& transaction,
                             const std::string& session,
                             TimePoint now);
  void finish(class WriteTransaction& transaction, bool is_changed);

  Clock& clock_;
  std::string file_;
  std::string scope_;
  std::string boot_id_;
  Logger log_;
  Announce announce_ = nullptr;
  void* announce_context_ = nullptr;
  std::unique_ptr<Tables> tables_;
};

}  // namespace spilo::sqlite
