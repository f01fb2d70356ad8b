#include <fmt/format.h>
#include <libpq-fe.h>

#include <csignal>

#include "impl.hpp"

namespace spilo::pg {
using namespace std::chrono_literals;

std::optional<ConnectParams> parse_conninfo(const std::string& text) {
  char* problem = nullptr;
  PQconninfoOption* parsed = PQconninfoParse(text.c_str(), &problem);
  if (problem != nullptr) PQfreemem(problem);
  if (parsed == nullptr) return std::nullopt;
  ConnectParams out;
  for (auto* option = parsed; option->keyword != nullptr; ++option)
    if (option->val != nullptr) out.set(option->keyword, option->val);
  PQconninfoFree(parsed);
  return out;
}

const Credentials& PgController::Impl::rewind_account() const {
  return options.rewind.username.empty() ? options.superuser : options.rewind;
}

// How to reach that member with one of our accounts. The conn_url of a member has no credentials;
// what else it says about users is not trusted.
ConnectParams PgController::Impl::upstream_params(const ha::Upstream& upstream,
                                                  const Credentials& account) const {
  ConnectParams out;
  const auto parsed = parse_conninfo(upstream.conn_url);
  const auto add = [&](const char* key, const std::string& value) {
    if (!value.empty()) out.set(key, value);
  };
  if (parsed) {
    for (const char* key : {"host", "port", "dbname"})
      if (const auto* value = parsed->find(key)) add(key, *value);
  }
  if (out.find("port") == nullptr) out.set("port", "5432");
  if (out.find("dbname") == nullptr) out.set("dbname", options.database);
  add("user", account.username);
  add("password", account.password);
  add("sslmode", account.sslmode);
  add("sslcert", account.sslcert);
  add("sslkey", account.sslkey);
  add("sslpassword", account.sslpassword);
  add("sslrootcert", account.sslrootcert);
  add("sslcrl", account.sslcrl);
  add("gssencmode", account.gssencmode);
  add("channel_binding", account.channel_binding);
  out.set("application_name", options.name.str());
  return out;
}

namespace {

std::uint32_t to_timeline(std::string_view text) {
  std::uint32_t value = 0;
  for (const char c : text)
    if (c >= '0' && c <= '9') value = value * 10 + static_cast<std::uint32_t>(c - '0');
  return value;
}

}  // namespace

Async<UpstreamState> PgController::Impl::ask_upstream(ha::Upstream upstream, TimePoint deadline) {
  auto params = upstream_params(upstream, options.replication);
  params.set("replication", "true");
  auto opened = co_await Connection::open(clock, params, deadline);
  if (opened.has_error()) co_return opened.error().in("ask the upstream " + upstream.name.str());
  const auto connection = std::move(*opened);
  const auto identity = co_await connection->query("IDENTIFY_SYSTEM", deadline);
  if (identity.has_error())
    co_return identity.error().in("ask the upstream " + upstream.name.str());
  UpstreamState out;
  out.system_id = SystemId(std::string(identity->text(0, 0)));
  out.timeline = TimelineId{to_timeline(identity->text(0, 1))};
  out.flush = parse_lsn(identity->text(0, 2)).value_or(Lsn{});
  out.in_recovery = connection->parameter("in_hot_standby") == "on";  // PostgreSQL 14 and later
  if (to_int(out.timeline) > 1) {
    const auto statement = fmt::format("TIMELINE_HISTORY {}", to_int(out.timeline));
    const auto history = co_await connection->query(statement, deadline);
    if (history.has_error())
      co_return history.error().in("ask the upstream " + upstream.name.str());
    out.history = parse_timeline_history(history->text(0, 1));
  }
  co_return out;
}

// Makes sure that our slot exists before we stream from it: the upstream may learn of us later.
Async<void> PgController::Impl::ensure_slot(ha::Upstream upstream,
                                            std::string slot,
                                            TimePoint deadline) {
  auto params = upstream_params(upstream, options.replication);
  params.set("replication", "true");
  auto opened = co_await Connection::open(clock, params, deadline);
  if (opened.has_error()) co_return opened.error();
  const auto connection = std::move(*opened);
  const auto statement =
      fmt::format("CREATE_REPLICATION_SLOT {} PHYSICAL RESERVE_WAL", sql_identifier(slot));
  const auto made = co_await connection->query(statement, deadline);
  if (made.has_error() && connection->sqlstate() != "42710") co_return made.error();
  co_return Result<void>{};
}

// The configuration that follows `upstream`, after an attempt to have our slot there.
Async<Following> PgController::Impl::following(ha::Upstream upstream) {
  Following out;
  if (upstream.conn_url.empty()) co_return out;
  if (!parse_conninfo(upstream.conn_url))
    co_return Error(
        errc::invalid_argument,
        fmt::format(
            "the address of {} can't be understood: {}", upstream.name.str(), upstream.conn_url));
  const auto params = upstream_params(upstream, options.replication);
  out.conninfo = primary_conninfo(options, params, passfile, major);
  if (!settings.use_slots) co_return out;
  out.slot = slot_name_of(options.name.str());
  auto ready = co_await ensure_slot(upstream, out.slot, clock.now() + 2s);
  // Not fatal: the upstream may be starting, and it makes slots for its members by itself.
  if (ready.has_error())
    log.info("slot {} on {}: {}", out.slot, upstream.name.str(), ready.error().text());
  co_return out;
}

Async<void> PgController::Impl::follow(ha::Task task) {
  const auto file = live_postmaster();
  if (!file) co_return Error(errc::unavailable, "follow: PostgreSQL is not running");
  say("following " + task.upstream.name.str());
  auto made = co_await following(task.upstream);
  if (made.has_error()) co_return made.error();
  if (co_await cancelled()) co_return Error(errc::cancelled, "follow");
  const Following wanted = std::move(*made);
  auto valid = co_await validate_configuration(wanted);
  if (valid.has_error()) co_return valid.error();
  if (!signal_postmaster(file->pid, SIGHUP))
    co_return Error(errc::unavailable, "follow: the postmaster is gone");
  settings_stale = true;
  // The signal travels from the postmaster to its children: until a session sees it, nothing can
  // be said.
  const auto deadline = clock.now() + 10s;
  Duration pause = 1ms;
  for (;;) {
    if (co_await cancelled()) co_return Error(errc::cancelled, "follow");
    auto taken = co_await take(deadline);
    if (taken.has_error()) co_return taken.error().in("follow");
    auto connection = std::move(*taken);
    const auto answer = co_await connection->query(
        "SELECT current_setting('primary_conninfo'), current_setting('primary_slot_name'), "
        "pg_is_in_recovery()",
        deadline);
    give_back(std::move(connection));
    if (answer.has_error()) co_return answer.error().in("follow");
    if (answer->text(0, 2) == "f")
      co_return Error(errc::command_failed, "follow: this server is a primary");
    if (answer->text(0, 0) == wanted.conninfo && answer->text(0, 1) == wanted.slot)
      co_return Result<void>{};
    if (clock.now() >= deadline)
      co_return Error(errc::timed_out,
                      "follow: the server does not take the new primary_conninfo; a setting in "
                      "postgresql.auto.conf or on its command line wins over ours");
    co_await sleep_until(clock, clock.now() + pause);
    pause = std::min<Duration>(pause * 2, 50ms);
  }
}

// pg_rewind believes the control file of the source, which names the new timeline only after the
// first checkpoint behind the promotion.
Async<void> PgController::Impl::wait_for_checkpoint_on(ha::Upstream upstream, TimePoint deadline) {
  const auto params = upstream_params(upstream, rewind_account());
  auto opened = co_await Connection::open(clock, params, clock.now() + 5s);
  if (opened.has_error()) co_return opened.error().in("before pg_rewind");
  const auto connection = std::move(*opened);
  bool asked = false;
  Duration pause = 10ms;
  for (;;) {
    if (co_await cancelled()) co_return Error(errc::cancelled, "rejoin");
    const auto answer = co_await connection->query(
        "SELECT pg_is_in_recovery(), CASE WHEN pg_is_in_recovery() THEN true ELSE "
        "(SELECT timeline_id FROM pg_control_checkpoint()) = "
        "('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int END",
        clock.now() + 5s);
    if (answer.has_error()) co_return answer.error().in("before pg_rewind");
    if (answer->is_true(0, 1)) co_return Result<void>{};
    if (clock.now() >= deadline)
      co_return Error(errc::timed_out,
                      upstream.name.str() +
                          " has not finished its first checkpoint after the "
                          "promotion, which pg_rewind needs");
    if (!asked) {
      // Only some accounts may; the new primary does it by itself as well.
      asked = true;
      co_await connection->query("CHECKPOINT", deadline);
      if (!connection->usable())
        co_return Error(errc::timed_out, "CHECKPOINT on " + upstream.name.str());
      continue;
    }
    co_await sleep_until(clock, clock.now() + pause);
    pause = std::min<Duration>(pause * 2, 200ms);
  }
}

}  // namespace spilo::pg
