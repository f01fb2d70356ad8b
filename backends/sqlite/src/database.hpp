// SQLite's C interface as values: a database, its statements, its write transaction. Internal.
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "spilo/core/error.hpp"

namespace spilo::sqlite {

// Thrown by the functions below and caught at the store's port, where it becomes an Error; never
// seen outside the adapter.
class SqlFailure {
 public:
  SqlFailure(int code, std::string text) : code_(code), text_(std::move(text)) {}
  int code() const noexcept { return code_ & 0xff; }  // the primary result code
  const std::string& text() const noexcept { return text_; }
  // Another connection has the lock, or repairs the file: nothing was done, try again.
  bool is_busy() const noexcept { return code() == SQLITE_BUSY || code() == SQLITE_LOCKED; }

 private:
  int code_;
  std::string text_;
};

class Database;

// A prepared statement in one use: binds, steps, and is reset at the end of its life.
class Use {
 public:
  explicit Use(sqlite3_stmt* statement) : statement_(statement) {}
  ~Use();
  Use(const Use&) = delete;
  Use& operator=(const Use&) = delete;

  // Parameters and columns count from 1 and 0. What is bound must outlive the use.
  Use& text(int parameter, std::string_view value);
  Use& blob(int parameter, std::string_view value);
  Use& integer(int parameter, std::int64_t value);
  Use& null(int parameter);
  bool step();  // true: there is a row
  void run();   // for statements whose rows don't matter

  std::int64_t integer_at(int column) const noexcept;
  std::string text_at(int column) const;
  bool is_null(int column) const noexcept;

 private:
  void check(int code) const;
  sqlite3_stmt* statement_;
};

class Statement {
 public:
  Statement(Database& database, const char* sql);
  Use use() const { return Use(statement_.get()); }

 private:
  struct Finalize {
    void operator()(sqlite3_stmt* statement) const noexcept { sqlite3_finalize(statement); }
  };
  std::unique_ptr<sqlite3_stmt, Finalize> statement_;
};

class Database {
 public:
  // Opens or creates the file; nothing is read from it yet.
  explicit Database(const std::string& file);

  sqlite3* handle() const noexcept { return handle_.get(); }
  void run(const char* sql);
  std::int64_t integer(const char* sql);
  std::string text(const char* sql);
  int changes() const noexcept { return sqlite3_changes(handle()); }
  bool is_read_only() const noexcept { return sqlite3_db_readonly(handle(), "main") == 1; }
  // The file of this name is no longer the one that was opened.
  bool has_moved() const noexcept;

  // How many pages the write-ahead log had after the last transaction of this connection.
  int log_pages() const noexcept { return *log_pages_; }

 private:
  struct Close {
    void operator()(sqlite3* handle) const noexcept { sqlite3_close_v2(handle); }
  };
  // At a fixed place, because SQLite keeps a pointer to it, and declared first, because the
  // connection must go before it.
  std::unique_ptr<int> log_pages_ = std::make_unique<int>(0);
  std::unique_ptr<sqlite3, Close> handle_;
};

// BEGIN IMMEDIATE to COMMIT; rolled back at the end of its life when it was not committed.
class WriteTransaction {
 public:
  explicit WriteTransaction(Database& database) : database_(database) {}
  ~WriteTransaction();
  WriteTransaction(const WriteTransaction&) = delete;
  WriteTransaction& operator=(const WriteTransaction&) = delete;

  bool begin();  // false: another connection writes just now
  // Throws SqlFailure; unless that is_busy(), it is unknown whether the transaction will be found
  // after a crash.
  void commit();

 private:
  Database& database_;
  bool open_ = false;
};

// A consistent view for several SELECTs.
class ReadTransaction {
 public:
  explicit ReadTransaction(Database& database);
  ~ReadTransaction();
  ReadTransaction(const ReadTransaction&) = delete;
  ReadTransaction& operator=(const ReadTransaction&) = delete;

 private:
  Database& database_;
};

}  // namespace spilo::sqlite
