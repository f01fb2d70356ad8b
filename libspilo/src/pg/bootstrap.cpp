#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/asio/ip/tcp.hpp>
#include <cerrno>
#include <cstring>
#include <utility>

#include "impl.hpp"

namespace spilo::pg {
using namespace std::chrono_literals;
namespace asio = boost::asio;

namespace {

bool is_forbidden(std::string_view name) {
  for (const char* taken : {"pgdata", "nosync", "no-sync", "pwfile", "sync-only", "version"})
    if (name == taken) return true;
  return false;
}

std::string creating_mark(const SystemId& id) {
  return "a new cluster is being created: " + id.str() + "\n";
}

std::string create_role(const Credentials& account, std::string_view attributes) {
  const auto password =
      account.password.empty() ? "" : " PASSWORD " + sql_literal(account.password);
  const auto name = sql_identifier(account.username);
  const auto body = fmt::format(
      "BEGIN IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = {0}) THEN "
      "ALTER ROLE {1} WITH {2}{3}; ELSE CREATE ROLE {1} WITH {2}{3}; END IF; END;",
      sql_literal(account.username),
      name,
      attributes,
      password);
  return "DO " + sql_literal(body);
}

}  // namespace

// A cluster whose creation was interrupted has never been anybody's: it is moved out of the way,
// so that the creation can begin again. The marker names it; any other one is somebody's.
void PgController::Impl::recover_interrupted_bootstrap() {
  const auto mark = read_file(creating_marker);
  const auto control = read_control_file(options.data_dir);
  // Not to be read just now: the next look may tell.
  if (mark.has_error() || (control.has_error() && exists(options.data_dir + "/PG_VERSION"))) return;
  if (control.has_error() || *mark != creating_mark(control->system_id)) {
    log.warning("the creation of a cluster was interrupted ({}) before it was in place",
                creating_marker);
    ::unlink(creating_marker.c_str());
    return;
  }
  log.warning("the creation of this cluster was interrupted ({}): it is set aside",
              creating_marker);
  const auto killed = kill_now();
  if (killed.has_error()) {
    log.error("{}", killed.error().text());
    return;
  }
  postmaster_ended(postmaster.pid());
  const auto moved = move_aside(options.data_dir, "failed");
  if (moved.has_error()) {
    log.error("{}", moved.error().text());
    return;
  }
  ::unlink(creating_marker.c_str());
}

Async<void> PgController::Impl::run_initdb() {
  auto cleaned = co_await clean_leftovers();
  if (cleaned.has_error()) co_return cleaned.error();
  auto marked = write_file(copying_marker, "building\n", 0600);
  if (marked.has_error()) co_return marked.error();
  Command command(program("initdb"));
  bool auth_given = false;
  for (const auto& [name, value] : options.initdb) {
    if (is_forbidden(name)) {
      log.warning("bootstrap.initdb.{} is not used: libspilo decides it", name);
      continue;
    }
    auth_given = auth_given || name.starts_with("auth");
    command.arg(value.empty() ? "--" + name : fmt::format("--{}={}", name, value));
  }
  const auto password_file = new_dir + ".pw";
  if (!options.superuser.username.empty()) command.arg("--username=" + options.superuser.username);
  if (!options.superuser.password.empty()) {
    auto written = write_file(password_file, options.superuser.password + "\n", 0600);
    if (written.has_error()) co_return written.error();
    command.arg("--pwfile=" + password_file);
    // initdb's own default lets everybody on this machine in.
    if (!auth_given) command.arg("--auth=scram-sha-256");
  }
  command.arg("--pgdata=" + new_dir);
  command.env("LC_MESSAGES", "C");
  say("initdb");
  const auto outcome = co_await run_program(clock, command, clock.now() + 10min);
  ::unlink(password_file.c_str());
  if (outcome.has_error()) co_return outcome.error();
  if (!outcome->ok())
    co_return Error(errc::command_failed,
                    fmt::format("initdb ended with {}: {}", outcome->how(), outcome->last_words()));
  co_return Result<void>{};
}

Async<void> PgController::Impl::bootstrap(ha::Task task) {
  NodeView view;
  look_at_directory(view);
  if (view.data_dir != NodeView::DataDir::empty)
    co_return Error(
        errc::invalid_argument,
        fmt::format("a new cluster needs an empty data_dir: {}",
                    view.problem.empty() ? options.data_dir + " has one already" : view.problem));
  bootstrapping = true;
  auto done = co_await bootstrap_steps(task);
  bootstrapping = false;
  if (done.has_value()) co_return done;
  if (exists(options.data_dir + "/PG_VERSION")) {
    auto killed = kill_now();
    if (killed.has_error()) log.error("{}", killed.error().text());
    postmaster_ended(postmaster.pid());
    auto moved = move_aside(options.data_dir, "failed");
    if (moved.has_error()) co_return done;  // the marker stays and says why
    // Attempts are repeated, perhaps for a whole night: one of them is enough to look at.
    const auto before = std::exchange(kept_failure, *moved);
    if (!before.empty()) {
      auto removed = co_await remove_tree(before);
      if (removed.has_error()) log.warning("{}", removed.error().text());
    }
  }
  ::unlink(creating_marker.c_str());
  co_return done;
}

// Before hours are spent on data that no server could serve then.
Result<void> PgController::Impl::check_port() {
  if (live_postmaster()) return {};  // our own has it
  std::string_view rest = options.listen;
  while (!rest.empty()) {
    const auto comma = rest.find(',');
    std::string host(rest.substr(0, comma));
    rest.remove_prefix(comma == rest.npos ? rest.size() : comma + 1);
    std::erase(host, ' ');
    if (host == "*") host = "0.0.0.0";
    if (host == "localhost") host = "127.0.0.1";
    boost::system::error_code ec;
    const auto address = asio::ip::make_address(host, ec);
    if (ec) continue;  // PostgreSQL will say what it thinks of a name
    const asio::ip::tcp::endpoint where(address, static_cast<std::uint16_t>(options.port));
    asio::ip::tcp::acceptor socket(executor);
    socket.open(where.protocol(), ec);
    if (ec) continue;
    socket.set_option(asio::ip::tcp::acceptor::reuse_address(true), ec);
    socket.bind(where, ec);
    if (ec == asio::error::address_in_use)
      return Error(errc::unavailable,
                   fmt::format("port {} on {} is taken by another process; end that one (`ss -ltnp` "
                               "names it) or change postgresql.listen",
                               options.port,
                               host));
  }
  return {};
}

Async<void> PgController::Impl::bootstrap_steps(ha::Task task) {
  auto free = check_port();
  if (free.has_error()) co_return free.error();
  auto marked = write_file(creating_marker, "a new cluster is being created\n", 0600);
  if (marked.has_error())
    co_return marked.error().in(
        "a new cluster is built beside data_dir, so its parent directory "
        "must be writable");
  if (is_mount_point(options.data_dir)) co_return mount_point_error(options.data_dir);
  auto made = co_await run_initdb();
  if (made.has_error()) co_return made.error();
  if (co_await cancelled()) co_return Error(errc::cancelled, "bootstrap");
  const auto control = read_control_file(new_dir);
  if (control.has_error()) co_return control.error().in("what initdb made is not usable");
  marked = write_file(creating_marker, creating_mark(control->system_id), 0600);
  if (marked.has_error()) co_return marked.error();
  if (!settings.own_hba_file && settings.pg_hba.empty() && !options.bootstrap_pg_hba.empty()) {
    auto hba = read_file(new_dir + "/pg_hba.conf");
    if (hba.has_error()) co_return hba.error();
    std::string text = *hba;
    for (const auto& line : options.bootstrap_pg_hba) text += line + "\n";
    auto written = write_file(new_dir + "/pg_hba.conf", text, 0600);
    if (written.has_error()) co_return written.error();
  }
  auto swapped = swap_in();
  if (swapped.has_error()) co_return swapped.error();
  validated.clear();
  std::optional<Following> none;
  auto started = co_await start_server(true, none, task.timeout);
  if (started.has_error()) co_return started.error();
  auto users = co_await create_users();
  if (users.has_error()) co_return users.error();
  if (co_await cancelled()) co_return Error(errc::cancelled, "bootstrap");
  auto posted = co_await run_post_bootstrap();
  if (posted.has_error()) co_return posted.error();
  ::unlink(creating_marker.c_str());
  sync_directory(parent_of(options.data_dir));
  co_return Result<void>{};
}

Async<void> PgController::Impl::create_users() {
  say("creating users");
  const auto file = live_postmaster();
  if (!file) co_return Error(errc::unavailable, "PostgreSQL ended before its users were created");
  auto opened = co_await Connection::open(clock, local_params(*file, true), clock.now() + 10s);
  if (opened.has_error()) co_return opened.error().in("create users");
  const auto connection = std::move(*opened);
  std::vector<std::string> statements;
  // Passwords must not reach the server's log, and nobody may have to wait for a standby that does
  // not exist yet.
  for (const char* setting : {"log_statement=none",
                              "log_min_duration_statement=-1",
                              "log_min_error_statement=panic",
                              "log_min_duration_sample=-1",
                              "synchronous_commit=local"}) {
    const std::string_view text = setting;
    const auto equals = text.find('=');
    statements.push_back(
        fmt::format("SET {} = '{}'", text.substr(0, equals), text.substr(equals + 1)));
  }
  if (!options.replication.username.empty() &&
      options.replication.username != options.superuser.username)
    statements.push_back(create_role(options.replication, "LOGIN REPLICATION"));
  if (!options.rewind.username.empty() && options.rewind.username != options.superuser.username) {
    const bool replicates = options.rewind.username == options.replication.username;
    statements.push_back(create_role(options.rewind, replicates ? "LOGIN REPLICATION" : "LOGIN"));
    const auto name = sql_identifier(options.rewind.username);
    for (const char* function : {"pg_ls_dir(text, boolean, boolean)",
                                 "pg_stat_file(text, boolean)",
                                 "pg_read_binary_file(text)",
                                 "pg_read_binary_file(text, bigint, bigint, boolean)"})
      statements.push_back(
          fmt::format("GRANT EXECUTE ON FUNCTION pg_catalog.{} TO {}", function, name));
  }
  for (const auto& statement : statements) {
    const auto done = co_await connection->query(statement, clock.now() + 10s);
    if (done.has_error()) co_return done.error().in("create users");
  }
  co_return Result<void>{};
}

Async<void> PgController::Impl::run_post_bootstrap() {
  if (options.post_bootstrap.empty()) co_return Result<void>{};
  const auto words = split_command_line(options.post_bootstrap);
  if (!words || words->empty())
    co_return Error(errc::invalid_argument,
                    "bootstrap.post_bootstrap: a quote is not closed: " + options.post_bootstrap);
  const auto file = live_postmaster();
  if (!file) co_return Error(errc::unavailable, "PostgreSQL ended before post_bootstrap");
  const auto params = local_params(*file, true);
  std::vector<Assignment> pairs;
  for (const char* key : {"host", "port", "user", "dbname", "sslmode"})
    if (const auto* value = params.find(key)) pairs.emplace_back(key, *value);
  Command command;
  command.argv = *words;
  command.arg(conninfo_text(pairs));
  command.env("PGPASSFILE", passfile);
  command.env("PGOPTIONS", "-c synchronous_commit=local -c statement_timeout=0");
  say("running post_bootstrap");
  const auto outcome = co_await run_program(clock, command, clock.now() + 1h);
  if (outcome.has_error()) co_return outcome.error().in("post_bootstrap");
  if (!outcome->ok())
    co_return Error(
        errc::command_failed,
        fmt::format("post_bootstrap ended with {}: {}", outcome->how(), outcome->last_words()));
  co_return Result<void>{};
}

}  // namespace spilo::pg
