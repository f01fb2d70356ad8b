#include "spilo/pg/connection.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <libpq-fe.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/deferred.hpp>
#include <boost/asio/experimental/parallel_group.hpp>
#include <boost/asio/ip/address.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cctype>
#include <set>

namespace spilo::pg {
namespace asio = boost::asio;
using Descriptor = asio::posix::stream_descriptor;

namespace {

struct Finish {
  void operator()(PGconn* connection) const noexcept { PQfinish(connection); }
};
struct Clear {
  void operator()(PGresult* result) const noexcept { PQclear(result); }
};
using ConnectionPtr = std::unique_ptr<PGconn, Finish>;
using ResultPtr = std::unique_ptr<PGresult, Clear>;

std::string one_line(const char* message) {
  std::string out = message != nullptr ? message : "";
  // Where in PostgreSQL's source it happened: part of the verbose form, of no use to anybody here.
  for (auto at = out.find("\nLOCATION:"); at != out.npos; at = out.find("\nLOCATION:", at))
    out.erase(at, std::min(out.find('\n', at + 1), out.size()) - at);
  while (!out.empty() && std::isspace(static_cast<unsigned char>(out.back()))) out.pop_back();
  std::replace(out.begin(), out.end(), '\n', ' ');
  return out;
}

void ignore_notice(void*, const char*) {}

// Waits until libpq's socket is ready. libpq may close it and open another under the same number,
// so each wait has a duplicate of its own.
asio::awaitable<bool> wait_socket(Clock& clock,
                                  int socket,
                                  Descriptor::wait_type direction,
                                  TimePoint deadline) {
  auto executor = co_await asio::this_coro::executor;
  const int copy = ::fcntl(socket, F_DUPFD_CLOEXEC, 0);
  if (copy < 0) co_return false;
  Descriptor descriptor(executor, copy);
  auto group = asio::experimental::make_parallel_group(
      descriptor.async_wait(direction, asio::deferred),
      asio::co_spawn(executor, sleep_until(clock, deadline), asio::deferred));
  auto outcome = co_await group.async_wait(asio::experimental::wait_for_one(), asio::use_awaitable);
  co_return std::get<0>(outcome)[0] == 0 && !std::get<1>(outcome);
}

}  // namespace

std::string_view refused_login_cure(std::string_view message) {
  const auto has = [&](std::string_view part) { return message.find(part) != message.npos; };
  if (has("password authentication failed"))
    return "; the password under postgresql.authentication is not the one that this server has: "
           "correct it there, or with ALTER ROLE on the primary";
  if (has("no pg_hba.conf entry"))
    return "; that server lets it in with a line in its postgresql.pg_hba";
  return {};
}

namespace {

errc connect_errc(std::string_view message) {
  const auto state = sqlstate_in(message);
  if (state == "57P03" || state == "57P01" || state == "57P02") return errc::unavailable;
  if (state.starts_with("28")) return errc::denied;
  if (!state.empty()) return errc::command_failed;
  // libpq's own refusals before anything was sent.
  if (message.find("no password supplied") != std::string_view::npos) return errc::denied;
  return errc::unavailable;
}

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> out;
  for (;;) {
    const auto at = text.find(separator);
    out.emplace_back(text.substr(0, at));
    if (at == std::string_view::npos) return out;
    text.remove_prefix(at + 1);
  }
}

// The addresses of one host: itself when it is one already or a socket directory.
Async<std::vector<std::string>> resolve(Clock& clock, std::string host, TimePoint deadline) {
  std::vector<std::string> out;
  boost::system::error_code ec;
  asio::ip::make_address(host, ec);
  if (!ec) {
    out.push_back(host);
    co_return out;
  }
  if (host == "localhost") {
    out.emplace_back("127.0.0.1");
    out.emplace_back("::1");
    co_return out;
  }
  auto executor = co_await asio::this_coro::executor;
  asio::ip::tcp::resolver resolver(executor);
  const std::string service;
  auto group = asio::experimental::make_parallel_group(
      resolver.async_resolve(host, service, asio::deferred),
      asio::co_spawn(executor, sleep_until(clock, deadline), asio::deferred));
  auto outcome = co_await group.async_wait(asio::experimental::wait_for_one(), asio::use_awaitable);
  if (std::get<0>(outcome)[0] != 0)
    co_return Error(errc::timed_out, fmt::format("resolve {}: no answer", host));
  if (std::get<1>(outcome))
    co_return Error(errc::unavailable,
                    fmt::format("resolve {}: {}", host, std::get<1>(outcome).message()));
  std::set<std::string> seen;
  for (const auto& entry : std::get<2>(outcome)) {
    auto text = entry.endpoint().address().to_string();
    if (seen.insert(text).second) out.push_back(std::move(text));
  }
  co_return out;
}

// Replaces host names by addresses ("hostaddr"), because libpq resolves with a blocking call.
Async<ConnectParams> with_addresses(Clock& clock, ConnectParams params, TimePoint deadline) {
  const auto* host = params.find("host");
  if (host == nullptr || host->empty() || params.find("hostaddr") != nullptr) co_return params;
  const auto hosts = split(*host, ',');
  const auto* port = params.find("port");
  const auto ports = split(port != nullptr ? *port : "", ',');
  std::string names;
  std::string addresses;
  std::string numbers;
  Error last;
  bool any_name = false;
  for (std::size_t i = 0; i < hosts.size(); ++i) {
    std::vector<std::string> found;
    if (hosts[i].starts_with('/')) {
      found.emplace_back();
    } else {
      auto resolved = co_await resolve(clock, hosts[i], deadline);
      if (resolved.has_error()) {
        last = resolved.error();
        continue;
      }
      found = std::move(*resolved);
    }
    for (const auto& address : found) {
      const char* comma = any_name ? "," : "";
      names += comma + hosts[i];
      addresses += comma + address;
      numbers += comma + (ports.size() == 1 ? ports[0] : ports[std::min(i, ports.size() - 1)]);
      any_name = true;
    }
  }
  if (!any_name) co_return last;
  params.set("host", names);
  if (addresses.find_first_not_of(',') != std::string::npos) params.set("hostaddr", addresses);
  if (port != nullptr) params.set("port", numbers);
  co_return params;
}

}  // namespace

std::string_view Rows::text(std::size_t row, std::size_t column) const noexcept {
  if (row >= rows_.size() || column >= rows_[row].size() || !rows_[row][column]) return {};
  return *rows_[row][column];
}

ConnectParams& ConnectParams::set(std::string keyword, std::string value) & {
  for (auto& [key, present] : params_) {
    if (key != keyword) continue;
    present = std::move(value);
    return *this;
  }
  params_.emplace_back(std::move(keyword), std::move(value));
  return *this;
}

const std::string* ConnectParams::find(std::string_view keyword) const noexcept {
  for (const auto& [key, value] : params_)
    if (key == keyword) return &value;
  return nullptr;
}

std::string ConnectParams::where() const {
  const auto value = [&](std::string_view key) {
    const auto* found = find(key);
    return found != nullptr ? *found : std::string();
  };
  return fmt::format(
      "{}:{}/{} as {}", value("host"), value("port"), value("dbname"), value("user"));
}

struct Connection::Impl {
  Impl(Clock& c, std::string text) : clock(c), where(std::move(text)) {}
  Clock& clock;
  std::string where;
  ConnectionPtr pg;
  std::string sqlstate;
  std::set<std::string> prepared;

  void drop() { pg.reset(); }

  Async<Rows> lost(std::string why, bool cancelled) {
    sqlstate.clear();
    const auto text = fmt::format("PostgreSQL at {}: {}", where, why);
    drop();
    co_return Error(cancelled ? errc::cancelled : errc::ambiguous, text);
  }

  // Sends what is buffered and reads all results; the first failure wins.
  Async<Rows> finish(TimePoint deadline) {
    co_await asio::this_coro::throw_if_cancelled(false);
    std::vector<Rows::Row> rows;
    std::string failure;
    const auto is_cancelled = [](const asio::cancellation_state& state) {
      return state.cancelled() != asio::cancellation_type::none;
    };
    for (int left = 1; left == 1;) {
      left = PQflush(pg.get());
      if (left < 0) co_return co_await lost(one_line(PQerrorMessage(pg.get())), false);
      if (left == 0) break;
      const bool ready =
          co_await wait_socket(clock, PQsocket(pg.get()), Descriptor::wait_write, deadline);
      const auto state = co_await asio::this_coro::cancellation_state;
      if (!ready) co_return co_await lost("could not send by the deadline", is_cancelled(state));
    }
    sqlstate.clear();
    for (;;) {
      while (PQisBusy(pg.get()) != 0) {
        const bool ready =
            co_await wait_socket(clock, PQsocket(pg.get()), Descriptor::wait_read, deadline);
        const auto state = co_await asio::this_coro::cancellation_state;
        if (!ready) co_return co_await lost("no answer by the deadline", is_cancelled(state));
        if (PQconsumeInput(pg.get()) == 0)
          co_return co_await lost(one_line(PQerrorMessage(pg.get())), false);
      }
      const ResultPtr result(PQgetResult(pg.get()));
      if (!result) break;
      const auto status = PQresultStatus(result.get());
      if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK || status == PGRES_EMPTY_QUERY) {
        read_rows(result.get(), rows);
      } else if (failure.empty()) {
        const char* code = PQresultErrorField(result.get(), PG_DIAG_SQLSTATE);
        if (code != nullptr) sqlstate = code;
        failure = one_line(PQresultErrorMessage(result.get()));
        if (failure.empty()) failure = "it answered nothing that can be used";
      }
    }
    if (PQstatus(pg.get()) != CONNECTION_OK) {
      const auto state = sqlstate;
      if (failure.empty()) failure = "the connection was lost";
      auto answer = co_await lost(failure, false);
      sqlstate = state;
      co_return answer;
    }
    if (!failure.empty())
      co_return Error(errc::command_failed, fmt::format("PostgreSQL at {}: {}", where, failure));
    co_return Rows(std::move(rows));
  }

  static void read_rows(const PGresult* result, std::vector<Rows::Row>& rows) {
    for (int row = 0; row < PQntuples(result); ++row) {
      auto& values = rows.emplace_back();
      for (int column = 0; column < PQnfields(result); ++column) {
        auto& value = values.emplace_back();
        if (PQgetisnull(result, row, column) == 0)
          value.emplace(PQgetvalue(result, row, column),
                        static_cast<std::size_t>(PQgetlength(result, row, column)));
      }
    }
  }
};

Connection::Connection(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Connection::~Connection() = default;

Async<std::unique_ptr<Connection>> Connection::open(Clock& clock,
                                                    ConnectParams wanted,
                                                    TimePoint deadline) {
  co_await asio::this_coro::throw_if_cancelled(false);
  const auto where = wanted.where();
  auto resolved = co_await with_addresses(clock, std::move(wanted), deadline);
  if (resolved.has_error()) co_return resolved.error().in("connect to PostgreSQL at " + where);
  const ConnectParams params = std::move(*resolved);
  std::vector<const char*> keywords;
  std::vector<const char*> values;
  for (const auto& [keyword, value] : params.all()) {
    keywords.push_back(keyword.c_str());
    values.push_back(value.c_str());
  }
  keywords.push_back(nullptr);
  values.push_back(nullptr);
  auto impl = std::make_unique<Impl>(clock, where);
  impl->pg.reset(PQconnectStartParams(keywords.data(), values.data(), 0));
  PGconn* pg = impl->pg.get();
  if (pg == nullptr) throw std::bad_alloc();
  // The verbose form carries the SQLSTATE, which tells "starting" from "refused" in any language.
  PQsetErrorVerbosity(pg, PQERRORS_VERBOSE);
  PQsetNoticeProcessor(pg, ignore_notice, nullptr);
  auto polled = PQstatus(pg) == CONNECTION_BAD ? PGRES_POLLING_FAILED : PGRES_POLLING_WRITING;
  while (polled != PGRES_POLLING_OK && polled != PGRES_POLLING_FAILED) {
    const auto direction =
        polled == PGRES_POLLING_READING ? Descriptor::wait_read : Descriptor::wait_write;
    const bool ready = co_await wait_socket(clock, PQsocket(pg), direction, deadline);
    const auto state = co_await asio::this_coro::cancellation_state;
    if (state.cancelled() != asio::cancellation_type::none)
      co_return Error(errc::cancelled, "connect to PostgreSQL at " + where);
    if (!ready)
      co_return Error(errc::timed_out,
                      fmt::format("connect to PostgreSQL at {}: no answer in time", where));
    polled = PQconnectPoll(pg);
  }
  if (polled == PGRES_POLLING_FAILED) {
    const auto message = one_line(PQerrorMessage(pg));
    co_return Error(connect_errc(message),
                    fmt::format("connect to PostgreSQL at {}: {}{}",
                                where,
                                message,
                                refused_login_cure(message)));
  }
  PQsetErrorVerbosity(pg, PQERRORS_DEFAULT);
  PQsetnonblocking(pg, 1);
  co_return std::unique_ptr<Connection>(new Connection(std::move(impl)));
}

Async<Rows> Connection::query(std::string sql, TimePoint deadline) {
  if (!usable()) co_return Error(errc::unavailable, "the connection is closed");
  if (PQsendQuery(impl_->pg.get(), sql.c_str()) == 0)
    co_return co_await impl_->lost(one_line(PQerrorMessage(impl_->pg.get())), false);
  co_return co_await impl_->finish(deadline);
}

Async<Rows> Connection::query(std::string sql,
                              std::vector<std::string> params,
                              TimePoint deadline) {
  if (!usable()) co_return Error(errc::unavailable, "the connection is closed");
  std::vector<const char*> values;
  for (const auto& param : params) values.push_back(param.c_str());
  if (PQsendQueryParams(impl_->pg.get(),
                        sql.c_str(),
                        static_cast<int>(values.size()),
                        nullptr,
                        values.data(),
                        nullptr,
                        nullptr,
                        0) == 0)
    co_return co_await impl_->lost(one_line(PQerrorMessage(impl_->pg.get())), false);
  co_return co_await impl_->finish(deadline);
}

Async<Rows> Connection::query_prepared(std::string name,
                                       std::string sql,
                                       std::vector<std::string> params,
                                       TimePoint deadline) {
  if (!usable()) co_return Error(errc::unavailable, "the connection is closed");
  if (!impl_->prepared.contains(name)) {
    if (PQsendPrepare(impl_->pg.get(), name.c_str(), sql.c_str(), 0, nullptr) == 0)
      co_return co_await impl_->lost(one_line(PQerrorMessage(impl_->pg.get())), false);
    auto ready = co_await impl_->finish(deadline);
    if (ready.has_error()) co_return ready;
    impl_->prepared.insert(name);
  }
  std::vector<const char*> values;
  for (const auto& param : params) values.push_back(param.c_str());
  if (PQsendQueryPrepared(impl_->pg.get(),
                          name.c_str(),
                          static_cast<int>(values.size()),
                          values.data(),
                          nullptr,
                          nullptr,
                          0) == 0)
    co_return co_await impl_->lost(one_line(PQerrorMessage(impl_->pg.get())), false);
  co_return co_await impl_->finish(deadline);
}

bool Connection::usable() const noexcept {
  return impl_->pg && PQstatus(impl_->pg.get()) == CONNECTION_OK;
}
int Connection::server_version() const noexcept {
  return impl_->pg ? PQserverVersion(impl_->pg.get()) : 0;
}
const std::string& Connection::sqlstate() const noexcept {
  return impl_->sqlstate;
}
std::string Connection::parameter(const char* name) const {
  const char* value = impl_->pg ? PQparameterStatus(impl_->pg.get(), name) : nullptr;
  return value != nullptr ? value : "";
}

std::string sql_literal(std::string_view text) {
  std::string out = text.find('\\') == std::string_view::npos ? "'" : " E'";
  for (const char c : text) {
    if (c == '\'' || c == '\\') out += c;
    out += c;
  }
  return out + "'";
}

std::string sql_identifier(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"') out += c;
    out += c;
  }
  return out + "\"";
}

std::string sqlstate_in(std::string_view message) {
  // "SEVERITY:  XXXXX: text"; the severity is localised, the shape is not. The last one is asked
  // for: with several addresses the messages of all of them are there.
  std::string found;
  for (std::size_t at = message.find(":  "); at != std::string_view::npos;
       at = message.find(":  ", at + 1)) {
    const auto code = message.substr(at + 3, 6);
    if (code.size() < 6 || code[5] != ':') continue;
    if (std::all_of(code.begin(), code.begin() + 5, [](char c) {
          return std::isdigit(static_cast<unsigned char>(c)) || (c >= 'A' && c <= 'Z');
        })) {
      found = std::string(code.substr(0, 5));
      if (found == "57P03") return found;
    }
  }
  return found;
}

}  // namespace spilo::pg
