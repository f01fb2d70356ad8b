#include "database.hpp"

#include <fmt/format.h>

namespace spilo::sqlite {
namespace {

[[noreturn]] void fail(sqlite3* handle, int code) {
  const char* text = handle != nullptr ? sqlite3_errmsg(handle) : sqlite3_errstr(code);
  throw SqlFailure(code, fmt::format("{} (SQLite code {})", text, code));
}

}  // namespace

// ---- statements --------------------------------------------------------------------------------

Statement::Statement(Database& database, const char* sql) {
  sqlite3_stmt* made = nullptr;
  const int code =
      sqlite3_prepare_v3(database.handle(), sql, -1, SQLITE_PREPARE_PERSISTENT, &made, nullptr);
  if (code != SQLITE_OK) fail(database.handle(), code);
  statement_.reset(made);
}

Use::~Use() {
  sqlite3_reset(statement_);
  sqlite3_clear_bindings(statement_);
}

void Use::check(int code) const {
  if (code != SQLITE_OK) fail(sqlite3_db_handle(statement_), code);
}

Use& Use::text(int parameter, std::string_view value) {
  // The length goes along, and an empty view may have a null pointer, which SQLite would bind as
  // NULL.
  const char* data = value.empty() ? "" : value.data();
  check(sqlite3_bind_text64(statement_, parameter, data, value.size(), SQLITE_STATIC, SQLITE_UTF8));
  return *this;
}

Use& Use::blob(int parameter, std::string_view value) {
  const char* data = value.empty() ? "" : value.data();
  check(sqlite3_bind_blob64(statement_, parameter, data, value.size(), SQLITE_STATIC));
  return *this;
}

Use& Use::integer(int parameter, std::int64_t value) {
  check(sqlite3_bind_int64(statement_, parameter, value));
  return *this;
}

Use& Use::null(int parameter) {
  check(sqlite3_bind_null(statement_, parameter));
  return *this;
}

bool Use::step() {
  const int code = sqlite3_step(statement_);
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) return false;
  fail(sqlite3_db_handle(statement_), code);
}

void Use::run() {
  while (step()) {
  }
}

std::int64_t Use::integer_at(int column) const noexcept {
  return sqlite3_column_int64(statement_, column);
}

std::string Use::text_at(int column) const {
  // The pointer first, then the size: SQLite's documented order.
  const void* data = sqlite3_column_blob(statement_, column);
  const int size = sqlite3_column_bytes(statement_, column);
  if (data == nullptr) return {};
  return std::string(static_cast<const char*>(data), static_cast<std::size_t>(size));
}

bool Use::is_null(int column) const noexcept {
  return sqlite3_column_type(statement_, column) == SQLITE_NULL;
}

// ---- the database ------------------------------------------------------------------------------

Database::Database(const std::string& file) {
  sqlite3* made = nullptr;
  // NOMUTEX: one thread uses it. EXRESCODE: errors name the system call that failed.
  const int flags =
      SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE;
  const int code = sqlite3_open_v2(file.c_str(), &made, flags, nullptr);
  handle_.reset(made);
  if (code != SQLITE_OK) fail(made, code);
  // Waiting for a lock would block the event loop; the store repeats the attempt instead.
  sqlite3_busy_timeout(made, 0);
  // Replaces SQLite's own hook, which does a checkpoint in the midst of a commit: checkpoints are
  // the Flusher's.
  sqlite3_wal_hook(
      made,
      [](void* pages, sqlite3*, const char*, int count) {
        *static_cast<int*>(pages) = count;
        return SQLITE_OK;
      },
      log_pages_.get());
}

void Database::run(const char* sql) {
  const int code = sqlite3_exec(handle(), sql, nullptr, nullptr, nullptr);
  if (code != SQLITE_OK) fail(handle(), code);
}

std::int64_t Database::integer(const char* sql) {
  const Statement statement(*this, sql);
  auto row = statement.use();
  return row.step() ? row.integer_at(0) : 0;
}

std::string Database::text(const char* sql) {
  const Statement statement(*this, sql);
  auto row = statement.use();
  return row.step() ? row.text_at(0) : std::string();
}

bool Database::has_moved() const noexcept {
  int moved = 0;
  sqlite3_file_control(handle(), "main", SQLITE_FCNTL_HAS_MOVED, &moved);
  return moved != 0;
}

// ---- transactions ------------------------------------------------------------------------------

bool WriteTransaction::begin() {
  const int code = sqlite3_exec(database_.handle(), "BEGIN IMMEDIATE", nullptr, nullptr, nullptr);
  if ((code & 0xff) == SQLITE_BUSY) return false;
  if (code != SQLITE_OK) fail(database_.handle(), code);
  open_ = true;
  return true;
}

void WriteTransaction::commit() {
  database_.run("COMMIT");
  open_ = false;
}

WriteTransaction::~WriteTransaction() {
  // After some failures SQLite has rolled back by itself, and a second time would be an error.
  if (open_ && sqlite3_get_autocommit(database_.handle()) == 0)
    sqlite3_exec(database_.handle(), "ROLLBACK", nullptr, nullptr, nullptr);
}

ReadTransaction::ReadTransaction(Database& database) : database_(database) {
  database_.run("BEGIN");
}

ReadTransaction::~ReadTransaction() {
  if (sqlite3_get_autocommit(database_.handle()) == 0)
    sqlite3_exec(database_.handle(), "COMMIT", nullptr, nullptr, nullptr);
}

}  // namespace spilo::sqlite
