#include "store_file.hpp"

#include <fmt/format.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "database.hpp"

namespace spilo::sqlite {
namespace {

// What tells our files from those of other programs, and their versions from one another.
constexpr std::int64_t application_id = 0x73706c6f;  // "splo"
constexpr std::int64_t schema_version = 1;

// meta.counter grows with each transaction that changes keys and never starts again: it numbers
// versions and indexes alike. scopes.changed is its value at the last change below that scope.
// Renewals touch nothing but their row in sessions.
constexpr const char* schema = R"(
CREATE TABLE meta(id INTEGER PRIMARY KEY CHECK (id = 1), counter INTEGER NOT NULL);
INSERT INTO meta VALUES (1, 0);
CREATE TABLE scopes(scope TEXT PRIMARY KEY, changed INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE sessions(id TEXT PRIMARY KEY, scope TEXT NOT NULL, boot TEXT NOT NULL,
                      ttl_ns INTEGER NOT NULL, expires_ns INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE keys(scope TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL,
                  era INTEGER NOT NULL, count INTEGER NOT NULL, owner TEXT, PRIMARY KEY (scope, key));
CREATE INDEX keys_by_owner ON keys(owner) WHERE owner IS NOT NULL;
PRAGMA application_id = 1936747631;
PRAGMA user_version = 1;
)";
static_assert(application_id == 1936747631 && schema_version == 1, "the schema says so too");

std::int64_t to_ns(TimePoint at) {
  return at.time_since_epoch().count();
}

std::string new_session_id() {
  unsigned char bytes[16] = {};
  // Up to 256 bytes getrandom() neither fails nor is interrupted once the kernel has entropy.
  while (::getrandom(bytes, sizeof bytes, 0) != static_cast<ssize_t>(sizeof bytes)) {
  }
  std::string id;
  for (const unsigned char byte : bytes) id += fmt::format("{:02x}", byte);
  return id;
}

std::string folder_of(const std::string& file) {
  const auto slash = file.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : file.substr(0, slash);
}

}  // namespace

struct StoreFile::Tables {
  explicit Tables(const std::string& file) : database(file) {}
  // Prepared once the tables are there.
  void prepare() {
    const auto make = [this](std::optional<Statement>& statement, const char* sql) {
      statement.emplace(database, sql);
    };
    make(expired, "SELECT id, scope FROM sessions WHERE boot <> ?1 OR expires_ns <= ?2");
    make(delete_bound, "DELETE FROM keys WHERE owner = ?1");
    make(delete_session, "DELETE FROM sessions WHERE id = ?1");
    make(count_up, "UPDATE meta SET counter = counter + 1 RETURNING counter");
    make(mark, "INSERT INTO scopes VALUES (?1, ?2) ON CONFLICT (scope) DO UPDATE SET changed = ?2");
    make(get_session,
         "SELECT expires_ns FROM sessions WHERE id = ?1 AND boot = ?2 AND expires_ns > ?3");
    make(add_session, "INSERT INTO sessions VALUES (?1, ?2, ?3, ?4, ?5)");
    make(extend_session, "UPDATE sessions SET ttl_ns = ?2, expires_ns = ?3 WHERE id = ?1");
    make(get_version, "SELECT era, count FROM keys WHERE scope = ?1 AND key = ?2");
    make(put,
         "INSERT INTO keys VALUES (?1, ?2, ?3, ?4, ?4, ?5) ON CONFLICT (scope, key) "
         "DO UPDATE SET value = ?3, count = ?4, owner = ?5 RETURNING era");
    make(erase, "DELETE FROM keys WHERE scope = ?1 AND key = ?2");
    make(get_index, "SELECT changed FROM scopes WHERE scope = ?1");
    // A key whose session is over is not shown, although nobody may have found the time to delete
    // it yet.
    make(get_keys,
         "SELECT k.key, k.value, k.era, k.count, k.owner FROM keys k "
         "LEFT JOIN sessions s ON s.id = k.owner WHERE k.scope = ?1 AND "
         "(k.owner IS NULL OR (s.boot = ?2 AND s.expires_ns > ?3))");
    make(get_expiry,
         "SELECT min(CASE WHEN boot = ?2 THEN expires_ns ELSE 0 END) FROM sessions "
         "WHERE scope = ?1 AND EXISTS (SELECT 1 FROM keys WHERE owner = id)");
  }

  Database database;
  std::optional<Statement> expired, delete_bound, delete_session, count_up, mark, get_session,
      add_session, extend_session, get_version, put, erase, get_index, get_keys, get_expiry;
};

// The numbers of one write transaction: the counter is moved once, when the first change comes, and
// each scope marked once.
class StoreFile::Change {
 public:
  explicit Change(Tables& tables) : tables_(tables) {}

  std::int64_t number(std::string_view scope) {
    if (number_ == 0) {
      auto row = tables_.count_up->use();
      row.step();
      number_ = row.integer_at(0);
      row.run();
    }
    tables_.mark->use().text(1, scope).integer(2, number_).run();
    return number_;
  }
  bool is_made() const noexcept { return number_ != 0; }

  // Ends a session. True when keys went with it.
  bool end(const std::string& session, const std::string& scope) {
    tables_.delete_bound->use().text(1, session).run();
    const bool had_keys = tables_.database.changes() > 0;
    tables_.delete_session->use().text(1, session).run();
    if (had_keys) number(scope);
    return had_keys;
  }

  // Ends every session that is over. What the reader hides is what this deletes: both compare with
  // the same clock.
  void purge(const std::string& boot_id, TimePoint now) {
    std::vector<std::pair<std::string, std::string>> over;
    {
      auto row = tables_.expired->use();
      row.text(1, boot_id).integer(2, to_ns(now));
      while (row.step()) over.emplace_back(row.text_at(0), row.text_at(1));
    }
    for (const auto& [session, scope] : over) end(session, scope);
    is_purged_ = !over.empty();
  }
  // There is something to commit, be it only the rows of sessions that had no keys.
  bool is_needed() const noexcept { return is_made() || is_purged_; }

 private:
  Tables& tables_;
  std::int64_t number_ = 0;
  bool is_purged_ = false;
};

StoreFile::StoreFile(
    Clock& clock, std::string file, std::string scope, std::string boot_id, Logger log)
    : clock_(clock),
      file_(std::move(file)),
      scope_(std::move(scope)),
      boot_id_(std::move(boot_id)),
      log_(std::move(log)) {}

StoreFile::~StoreFile() = default;

void StoreFile::on_commit(Announce announce, void* context) noexcept {
  announce_ = announce;
  announce_context_ = context;
}

// ---- opening -----------------------------------------------------------------------------------

Error StoreFile::cannot_open(const SqlFailure& failure) const {
  const std::string folder = folder_of(file_);
  struct stat seen {};
  if (::stat(folder.c_str(), &seen) != 0) {
    const int failed = errno;
    return Error(failed == EACCES ? errc::denied : errc::unavailable,
                 fmt::format("{}: its directory {} can't be used: {}; create it",
                             file_,
                             folder,
                             std::strerror(failed)));
  }
  if (!S_ISDIR(seen.st_mode))
    return Error(errc::invalid_argument, fmt::format("{}: {} is no directory", file_, folder));
  if (::stat(file_.c_str(), &seen) == 0 && S_ISDIR(seen.st_mode))
    return Error(errc::invalid_argument, fmt::format("{}: it is a directory, not a file", file_));
  if (::access(folder.c_str(), W_OK | X_OK) != 0)
    return Error(errc::denied,
                 fmt::format("{}: its directory {} is not writable for user {}: {}",
                             file_,
                             folder,
                             ::geteuid(),
                             std::strerror(errno)));
  return Error(errc::denied, fmt::format("{}: it can't be opened: {}", file_, failure.text()));
}

std::optional<Error> StoreFile::refuse_foreign() {
  Database& database = tables_->database;
  std::int64_t id = 0;
  std::int64_t version = 0;
  std::int64_t objects = 0;
  {
    // One view for all three: somebody may be creating the tables just now.
    const ReadTransaction view(database);
    id = database.integer("PRAGMA application_id");
    version = database.integer("PRAGMA user_version");
    objects = database.integer("SELECT count(*) FROM sqlite_schema");
  }
  if (id == application_id && version == schema_version) return {};
  if (id == application_id)
    return Error(errc::unsupported,
                 fmt::format("{}: its schema has version {}, this program knows version {}; "
                             "upgrade this program",
                             file_,
                             version,
                             schema_version));
  if (id == 0 && version == 0 && objects == 0) {
    create_tables();
    return {};
  }
  return Error(errc::invalid_argument,
               fmt::format("{}: it is another program's database (application id {:#x}, {} tables "
                           "and indexes); name another file",
                           file_,
                           id,
                           objects));
}

void StoreFile::create_tables() {
  Database& database = tables_->database;
  // Before the tables, so that nobody ever meets our tables in another mode.
  if (database.text("PRAGMA journal_mode=WAL") != "wal")
    throw SqlFailure(SQLITE_NOLFS, "the file system can't do a write-ahead log with shared memory");
  WriteTransaction transaction(database);
  if (!transaction.begin()) throw SqlFailure(SQLITE_BUSY, "somebody else creates the tables");
  // Somebody else may have been faster.
  if (database.integer("SELECT count(*) FROM sqlite_schema") == 0) {
    database.run(schema);
    transaction.commit();
    log_.info("{}: created the tables of the store", file_);
  }
}

// Opens the file unless it is open already and still the one of that name.
std::optional<Error> StoreFile::open() {
  if (tables_ && tables_->database.has_moved()) {
    log_.error(
        "{}: the file was deleted or replaced while it was open; every session in it is lost",
        file_);
    tables_.reset();
  }
  if (tables_) return {};
  try {
    tables_ = std::make_unique<Tables>(file_);
    if (tables_->database.is_read_only())
      throw SqlFailure(SQLITE_READONLY, "it may be read, but not written");
    if (auto refused = refuse_foreign()) {
      tables_.reset();
      return refused;
    }
    Database& database = tables_->database;
    // A COMMIT does not wait for the disk; flushing is up to the caller, see flusher.hpp.
    database.run("PRAGMA synchronous=NORMAL");
    database.run("PRAGMA cache_size=-512");
    database.run("PRAGMA journal_size_limit=16777216");
    tables_->prepare();
    return {};
  } catch (const SqlFailure& failure) {
    tables_.reset();
    switch (failure.code()) {
      case SQLITE_CANTOPEN:
        return cannot_open(failure);
      case SQLITE_NOTADB:
        return Error(errc::invalid_argument,
                     fmt::format("{}: it is not an SQLite database; name another file", file_));
      case SQLITE_NOLFS:
        return Error(errc::unsupported, fmt::format("{}: {}", file_, failure.text()));
      default:
        throw;
    }
  }
}

// ---- attempts ----------------------------------------------------------------------------------

Error StoreFile::explain(std::string_view what, const SqlFailure& failure) const {
  const auto text = fmt::format("{}: {}: {}", file_, what, failure.text());
  switch (failure.code()) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return Error(errc::protocol, text + "; restore or delete the file");
    case SQLITE_PERM:
    case SQLITE_READONLY:
    case SQLITE_AUTH:
      return Error(errc::denied, text);
    case SQLITE_TOOBIG:
      return Error(errc::invalid_argument, text);
    default:
      return Error(errc::unavailable, text);
  }
}

// One attempt: opens the file if need be, does the work, and makes an Error of what SQLite throws.
// Until COMMIT every failure is a certain one, because the transaction is rolled back; finish()
// makes those of COMMIT itself ambiguous.
template <class T, class Work>
Attempt<T> StoreFile::attempt(std::string_view what, Work work) {
  try {
    if (auto failed = open()) return Result<T>(*failed);
    return work();
  } catch (const SqlFailure& failure) {
    if (failure.is_busy()) return {};
    log_.warning("{}: {}: {}", file_, what, failure.text());
    Error error = explain(what, failure);
    // The next attempt starts afresh: what SQLite remembers may be what is wrong.
    if (failure.code() != SQLITE_FULL && failure.code() != SQLITE_TOOBIG) tables_.reset();
    return Result<T>(std::move(error));
  } catch (const Error& error) {
    tables_.reset();
    return Result<T>(error);
  }
}

void StoreFile::finish(WriteTransaction& transaction, bool is_changed) {
  if (is_changed && announce_ != nullptr) announce_(announce_context_);
  try {
    transaction.commit();
  } catch (const SqlFailure& failure) {
    if (failure.is_busy()) throw;
    throw Error(errc::ambiguous,
                fmt::format("{}: COMMIT failed, and what it wrote may be found after a crash: {}",
                            file_,
                            failure.text()));
  }
}

Attempt<dcs::Snapshot> StoreFile::read() {
  return attempt<dcs::Snapshot>("read", [&]() -> Attempt<dcs::Snapshot> {
    const ReadTransaction view(tables_->database);
    dcs::Index index;
    {
      auto row = tables_->get_index->use();
      row.text(1, scope_);
      if (row.step()) index.value = static_cast<std::uint64_t>(row.integer_at(0));
    }
    std::vector<dcs::Entry> entries;
    auto row = tables_->get_keys->use();
    row.text(1, scope_).text(2, boot_id_).integer(3, to_ns(clock_.now()));
    while (row.step()) {
      const dcs::Version version{static_cast<std::uint64_t>(row.integer_at(2)),
                                 static_cast<std::uint64_t>(row.integer_at(3))};
      entries.emplace_back(row.text_at(0), row.text_at(1), version, SessionId(row.text_at(4)));
    }
    return Result<dcs::Snapshot>(dcs::Snapshot(std::move(entries), index, true));
  });
}

bool StoreFile::is_alive(const std::string& session, TimePoint now) {
  if (session.empty()) return false;
  auto row = tables_->get_session->use();
  row.text(1, session).text(2, boot_id_).integer(3, to_ns(now));
  return row.step();
}

bool StoreFile::holds(const dcs::Transaction::Requirement& requirement) {
  auto row = tables_->get_version->use();
  row.text(1, scope_).text(2, requirement.key);
  const bool exists = row.step();
  if (requirement.condition.kind() == dcs::Condition::Kind::absent) return !exists;
  if (!exists) return false;
  const dcs::Version version{static_cast<std::uint64_t>(row.integer_at(0)),
                             static_cast<std::uint64_t>(row.integer_at(1))};
  return version == requirement.condition.version();
}

// Why the transaction can't be done, if so. The session comes first: whoever lost it usually lost
// its key as well, and then the conflict is only a consequence.
std::optional<Error> StoreFile::check(const dcs::Transaction& transaction,
                                      const std::string& session,
                                      TimePoint now) {
  for (const auto& change : transaction.changes()) {
    if (change.binding != dcs::Binding::session || is_alive(session, now)) continue;
    return Error(errc::session_lost,
                 fmt::format("{}: commit: bind {} to session {}: {}",
                             file_,
                             change.key,
                             session.empty() ? "(none)" : session,
                             session.empty() ? "no session was opened" : "it has expired"));
  }
  for (const auto& requirement : transaction.requirements()) {
    if (holds(requirement)) continue;
    const bool absent = requirement.condition.kind() == dcs::Condition::Kind::absent;
    const auto wanted = requirement.condition.version();
    return Error(errc::conflict,
                 absent ? fmt::format("{}: commit: {} exists", file_, requirement.key)
                        : fmt::format("{}: commit: {} is not at version {}/{}",
                                      file_,
                                      requirement.key,
                                      wanted.era,
                                      wanted.count));
  }
  return {};
}

Attempt<StoreFile::Written> StoreFile::commit(const dcs::Transaction& transaction,
                                              const std::string& session) {
  return attempt<Written>("commit", [&]() -> Attempt<Written> {
    WriteTransaction write(tables_->database);
    if (!write.begin()) return {};
    const TimePoint now = clock_.now();
    Change change(*tables_);
    change.purge(boot_id_, now);
    // Rolls the purge back as well; it will be found again.
    if (auto refused = check(transaction, session, now)) return Result<Written>(*refused);
    std::vector<std::pair<std::string, dcs::Version>> versions;
    for (const auto& one : transaction.changes()) {
      if (!one.value) {
        tables_->erase->use().text(1, scope_).text(2, one.key).run();
        if (tables_->database.changes() > 0) change.number(scope_);
        std::erase_if(versions, [&](const auto& written) { return written.first == one.key; });
        continue;
      }
      const std::int64_t number = change.number(scope_);
      auto row = tables_->put->use();
      row.text(1, scope_).text(2, one.key).blob(3, *one.value).integer(4, number);
      if (one.binding == dcs::Binding::session) row.text(5, session);
      row.step();
      const dcs::Version version{static_cast<std::uint64_t>(row.integer_at(0)),
                                 static_cast<std::uint64_t>(number)};
      row.run();
      std::erase_if(versions, [&](const auto& written) { return written.first == one.key; });
      versions.emplace_back(one.key, version);
    }
    if (change.is_needed()) finish(write, change.is_made());
    return Result<Written>(Written{dcs::Committed(std::move(versions)), change.is_made()});
  });
}

Attempt<dcs::Lease> StoreFile::renew(const std::string& session, Duration ttl) {
  return attempt<dcs::Lease>("renew", [&]() -> Attempt<dcs::Lease> {
    // Taken before anything is written: what is stored below is later, so the holder never believes
    // longer than the others wait.
    const TimePoint before = clock_.now();
    WriteTransaction write(tables_->database);
    if (!write.begin()) return {};
    const TimePoint now = clock_.now();
    auto expires = to_ns(now + ttl);
    dcs::Lease lease(SessionId(session), before + ttl);
    if (session.empty()) {
      lease.session = SessionId(new_session_id());
      tables_->add_session->use()
          .text(1, lease.session.str())
          .text(2, scope_)
          .text(3, boot_id_)
          .integer(4, ttl.count())
          .integer(5, expires)
          .run();
      finish(write, false);
      return Result<dcs::Lease>(std::move(lease));
    }
    const auto lost = [&] {
      return Error(errc::session_lost,
                   fmt::format("{}: renew: session {} has expired", file_, session));
    };
    std::int64_t old_expires = 0;  // may be in a guard, and the answer to this may never get there
    {
      auto row = tables_->get_session->use();
      row.text(1, session).text(2, boot_id_).integer(3, to_ns(now));
      if (!row.step()) return Result<dcs::Lease>(lost());
      old_expires = row.integer_at(0);
    }
    expires = std::max(expires, old_expires);
    tables_->extend_session->use()
        .text(1, session)
        .integer(2, ttl.count())
        .integer(3, expires)
        .run();
    // A process that was frozen on the way here must not bring a session back that readers have
    // seen ending.
    if (to_ns(clock_.now()) >= old_expires) return Result<dcs::Lease>(lost());
    finish(write, false);
    return Result<dcs::Lease>(std::move(lease));
  });
}

Attempt<bool> StoreFile::end_session(const std::string& session) {
  return attempt<bool>("end_session", [&]() -> Attempt<bool> {
    WriteTransaction write(tables_->database);
    if (!write.begin()) return {};
    Change change(*tables_);
    change.end(session, scope_);
    finish(write, change.is_made());
    return Result<bool>(change.is_made());
  });
}

Attempt<StoreFile::Position> StoreFile::position() {
  return attempt<Position>("changed_since", [&]() -> Attempt<Position> {
    const ReadTransaction view(tables_->database);
    Position position;
    {
      auto row = tables_->get_index->use();
      row.text(1, scope_);
      if (row.step()) position.index.value = static_cast<std::uint64_t>(row.integer_at(0));
    }
    auto row = tables_->get_expiry->use();
    row.text(1, scope_).text(2, boot_id_);
    if (row.step() && !row.is_null(0))
      position.next_expiry = TimePoint(Duration(row.integer_at(0)));
    return Result<Position>(position);
  });
}

int StoreFile::log_pages() const noexcept {
  return tables_ ? tables_->database.log_pages() : 0;
}

Attempt<bool> StoreFile::purge() {
  return attempt<bool>("purge", [&]() -> Attempt<bool> {
    WriteTransaction write(tables_->database);
    if (!write.begin()) return {};
    Change change(*tables_);
    change.purge(boot_id_, clock_.now());
    if (change.is_needed()) finish(write, change.is_made());
    return Result<bool>(change.is_made());
  });
}

}  // namespace spilo::sqlite
