// libpq on Asio: one connection, non-blocking, with a deadline for everything. A connection that
// does not answer is dropped, never cancelled: PQcancel connects synchronously.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "spilo/ports/async.hpp"
#include "spilo/ports/clock.hpp"

namespace spilo::pg {

// The answer to one statement: text values, nothing for NULL.
class Rows {
 public:
  using Row = std::vector<std::optional<std::string>>;
  Rows() = default;
  explicit Rows(std::vector<Row> rows) : rows_(std::move(rows)) {}
  const std::vector<Row>& all() const noexcept { return rows_; }
  bool empty() const noexcept { return rows_.empty(); }
  // The value of a column of a row; empty text for NULL and for what is not there.
  std::string_view text(std::size_t row, std::size_t column) const noexcept;
  bool is_true(std::size_t row, std::size_t column) const noexcept {
    return text(row, column) == "t";
  }

 private:
  std::vector<Row> rows_;
};

// Keywords and values as PQconnectStartParams takes them, in order. Passwords are here and nowhere
// in a text that could be logged.
class ConnectParams {
 public:
  ConnectParams& set(std::string keyword, std::string value) &;
  const std::string* find(std::string_view keyword) const noexcept;
  const std::vector<std::pair<std::string, std::string>>& all() const noexcept { return params_; }
  // "host:port/database as user", for error texts.
  std::string where() const;

 private:
  std::vector<std::pair<std::string, std::string>> params_;
};

// One strand of execution, one operation at a time.
class Connection {
 public:
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // Host names are resolved without blocking.
  //   unavailable      refused, reset, or the server is starting or stopping (57P03; see sqlstate
  //                    in the text)
  //   denied           authentication failed or pg_hba.conf has no line for us
  //   timed_out        no answer by the deadline
  //   command_failed   the server answered something else: too many clients, no such database
  static Async<std::unique_ptr<Connection>> open(Clock& clock,
                                                 ConnectParams params,
                                                 TimePoint deadline);

  // Runs one statement; with parameters ($1 …) in the extended protocol.
  //   command_failed   the server refused the statement; sqlstate() has the code
  //   ambiguous        the connection was lost or the deadline came: it may have been done. The
  //                    connection is closed then.
  Async<Rows> query(std::string sql, TimePoint deadline);
  Async<Rows> query(std::string sql, std::vector<std::string> params, TimePoint deadline);
  // Parses once per connection, under `name`; the same sql must be given each time.
  Async<Rows> query_prepared(std::string name,
                             std::string sql,
                             std::vector<std::string> params,
                             TimePoint deadline);

  bool usable() const noexcept;
  int server_version() const noexcept;
  const std::string& sqlstate() const noexcept;  // of the last failure, "" otherwise
  // A parameter that the server reports by itself (in_hot_standby, …), "" when it does not.
  std::string parameter(const char* name) const;

 private:
  struct Impl;
  explicit Connection(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Text as an SQL literal, standard_conforming_strings or not.
std::string sql_literal(std::string_view text);
std::string sql_identifier(std::string_view text);

// The five characters of an SQLSTATE in a verbose server message ("FATAL:  57P03: …"), or nothing.
std::string sqlstate_in(std::string_view message);

// What to do about a login that a server refused, to be appended to its message; empty for others.
std::string_view refused_login_cure(std::string_view message);

}  // namespace spilo::pg
