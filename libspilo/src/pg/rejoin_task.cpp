#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include "impl.hpp"

namespace spilo::pg {
using namespace std::chrono_literals;

namespace {

constexpr Duration rewind_limit = std::chrono::hours(6);
constexpr Duration recovery_limit = std::chrono::hours(6);

Async<void> ok() {
  co_return Result<void>{};
}

}  // namespace

Async<void> PgController::Impl::start(ha::Task task) {
  if (const auto file = live_postmaster()) {
    // Adopted meanwhile: what was asked for is there.
    adopt(file->pid);
    if (!task.as_primary && !task.upstream.conn_url.empty()) co_return co_await follow(task);
    co_return co_await ok();
  }
  if (task.as_primary) {
    std::optional<Following> none;
    co_return co_await start_server(true, none, task.timeout);
  }
  if (exists(rewinding_marker) && !task.upstream.conn_url.empty()) co_return co_await rejoin(task);
  auto made = co_await following(task.upstream);
  if (made.has_error()) co_return made.error();
  if (co_await cancelled()) co_return Error(errc::cancelled, "start PostgreSQL");
  std::optional<Following> wanted;
  wanted = *made;
  co_return co_await start_server(false, wanted, task.timeout);
}

Async<std::optional<Lsn>> PgController::Impl::find_wal_end(ControlData control,
                                                           TimePoint deadline) {
  std::optional<Lsn> out;
  if (major < 14) co_return out;  // has no --quiet: the output would be as long as the WAL
  Command command(program("pg_waldump"));
  command.arg("--quiet").arg("--path=" + options.data_dir + "/pg_wal");
  command.arg(fmt::format("--timeline={}", to_int(control.timeline)));
  command.arg("--start=" + to_text(control.redo));
  command.env("LC_ALL", "C");
  const auto outcome = co_await run_program(clock, command, deadline);
  if (outcome.has_error()) co_return outcome.error();
  // "error in WAL record at A: invalid record length at B: wanted 24, got 0": the WAL ends at B.
  // Any other ending is left to a real recovery.
  const std::string_view text = outcome->output;
  constexpr std::string_view mark = ": invalid record length at ";
  const auto at = text.rfind(mark);
  if (at == std::string_view::npos) co_return out;
  const auto rest = text.substr(at + mark.size());
  out = parse_lsn(rest.substr(0, rest.find_first_of(": \n")));
  co_return out;
}

Async<RejoinFacts> PgController::Impl::rejoin_facts(ha::Task task) {
  const auto control = read_control_file(options.data_dir);
  if (control.has_error()) co_return control.error();
  RejoinFacts facts;
  facts.local = *control;
  facts.full_copy_wanted = task.force;
  facts.unfinished_rewind = exists(rewinding_marker);
  facts.copy_allowed = settings.copy_on_diverged_timelines;
  facts.rewind_possible =
      settings.use_pg_rewind && has_pg_rewind && (control->wal_log_hints || control->checksums);
  if (facts.full_copy_wanted) co_return facts;
  const bool was_primary = !control->was_in_recovery();
  if (was_primary && !control->clean()) {
    auto end = co_await find_wal_end(*control, clock.now() + 10s);
    if (end.has_value()) facts.local_wal_end = *end;
  }
  const auto line = std::max(control->timeline, control->min_recovery_timeline);
  const auto history =
      read_file(fmt::format("{}/pg_wal/{:08X}.history", options.data_dir, to_int(line)));
  if (history.has_value()) facts.local_history = parse_timeline_history(*history);
  // A former primary can only decide against a server that has finished its promotion.
  const auto patience = clock.now() + 10s;
  Duration pause = 5ms;
  for (;;) {
    auto state = co_await ask_upstream(task.upstream, clock.now() + 5s);
    if (state.has_error()) co_return state.error();
    facts.upstream_system_id = state->system_id;
    facts.upstream_timeline = state->timeline;
    facts.upstream_flush = state->flush;
    facts.upstream_in_recovery = state->in_recovery;
    facts.upstream_history = state->history;
    if (!was_primary || !state->in_recovery) break;
    if (co_await cancelled()) co_return Error(errc::cancelled, "rejoin");
    if (clock.now() >= patience)
      co_return Error(errc::unavailable,
                      fmt::format("rejoin: {} is not a primary (yet), so a former primary can't "
                                  "compare its history",
                                  task.upstream.name.str()));
    co_await sleep_until(clock, clock.now() + pause);
    pause = std::min<Duration>(pause * 2, 100ms);
  }
  co_return facts;
}

Async<void> PgController::Impl::rejoin(ha::Task task) {
  if (task.upstream.conn_url.empty())
    co_return Error(errc::invalid_argument, "rejoin needs an upstream");
  if (live_postmaster()) {
    if (exists(options.data_dir + "/standby.signal")) {
      // A standby is not stopped for nothing: with the upstream out of reach there is nobody to
      // compare with or to copy from, its readers want it, and it may be asked to lead soon.
      const auto answers = co_await ask_upstream(task.upstream, clock.now() + 2s);
      if (answers.has_error()) co_return answers.error().in("rejoin");
    }
    auto stopped = co_await stop_server(ha::StopMode::fast, false, task.timeout);
    if (stopped.has_error() && !stopped.error().is(errc::timed_out)) co_return stopped.error();
    if (stopped.has_error()) {
      auto killed = co_await stop_server(ha::StopMode::immediate, false, task.timeout);
      if (killed.has_error()) co_return killed.error();
    }
  }
  postmaster_ended(postmaster.pid());
  if (exists(rewinding_marker)) end_writers_of(options.data_dir);
  if (!exists(options.data_dir + "/global/pg_control")) co_return co_await clone(task);
  for (int round = 0; round < 3; ++round) {
    if (co_await cancelled()) co_return Error(errc::cancelled, "rejoin");
    say("comparing our history with " + task.upstream.name.str());
    auto facts = co_await rejoin_facts(task);
    if (facts.has_error()) co_return facts.error().in("rejoin");
    const auto decision = decide_rejoin(*facts);
    log.info("rejoin {}: {}: {}", task.upstream.name.str(), to_text(decision.step), decision.why);
    if (decision.step != RejoinStep::recover_first) co_return co_await repair(task, decision);
    auto recovered = co_await recover_single_user();
    if (recovered.has_error()) co_return recovered.error();
  }
  co_return Error(errc::command_failed, "rejoin: crash recovery does not end in a clean shutdown");
}

Async<void> PgController::Impl::repair(ha::Task task, RejoinDecision decision) {
  if (decision.step == RejoinStep::refuse)
    co_return Error(errc::command_failed, "rejoin: " + decision.why);
  if (decision.step == RejoinStep::rewind) {
    auto done = co_await rewind(task.upstream);
    if (co_await cancelled()) co_return Error(errc::cancelled, "rejoin: pg_rewind");
    if (done.has_error()) {
      if (!settings.copy_on_rewind_failure)
        co_return done.error().in("rejoin (remove_data_directory_on_rewind_failure is off)");
      log.warning(
          "{}; copying everything from {} instead", done.error().text(), task.upstream.name.str());
      co_return co_await clone(task);
    }
  }
  if (decision.step == RejoinStep::full_copy) co_return co_await clone(task);
  auto made = co_await following(task.upstream);
  if (made.has_error()) co_return made.error();
  std::optional<Following> wanted;
  wanted = *made;
  co_return co_await start_server(false, wanted, task.timeout);
}

// Crash recovery without becoming a primary for anybody: a single-user server with its input at
// the end.
Async<void> PgController::Impl::recover_single_user() {
  say("crash recovery");
  std::optional<Following> none;
  auto valid = co_await validate_configuration(none);
  if (valid.has_error()) co_return valid.error();
  auto signalled = set_standby_signal(false);
  if (signalled.has_error()) co_return signalled.error();
  Command command(program("postgres"));
  command.arg("--single");
  std::vector<Assignment> raised;
  for (auto& argument : postmaster_arguments(settings, options.data_dir, conf_path(), raised))
    command.arg(std::move(argument));
  command.arg("--archive_mode=on").arg("--archive_command=false").arg("template1");
  accept_stale_pid_file(command);
  const auto outcome = co_await run_program(clock, command, clock.now() + recovery_limit);
  if (outcome.has_error()) co_return outcome.error().in("crash recovery");
  if (!outcome->ok())
    co_return Error(
        errc::command_failed,
        fmt::format("crash recovery ended with {}: {}", outcome->how(), outcome->last_words()));
  co_return Result<void>{};
}

// First without changing anything: privileges, reachability and missing WAL show before the first
// file is touched. From then on a marker says that the files are mixed.
Async<void> PgController::Impl::rewind(ha::Upstream upstream) {
  say("waiting for the first checkpoint of " + upstream.name.str());
  auto ready = co_await wait_for_checkpoint_on(upstream, clock.now() + 60s);
  if (ready.has_error()) co_return ready.error();
  auto written = write_passfile();
  if (written.has_error()) co_return written.error();
  auto checked = co_await run_rewind(upstream, true);
  if (checked.has_error()) co_return checked.error().in("pg_rewind would fail");
  if (co_await cancelled()) co_return Error(errc::cancelled, "pg_rewind");
  auto marked = write_file(rewinding_marker, "pg_rewind is changing the data directory\n", 0600);
  if (marked.has_error()) co_return marked.error();
  auto done = co_await run_rewind(upstream, false);
  if (done.has_error()) co_return done.error();
  ::unlink(rewinding_marker.c_str());
  sync_directory(parent_of(options.data_dir));
  co_return Result<void>{};
}

Async<void> PgController::Impl::run_rewind(ha::Upstream upstream, bool dry) {
  auto source = upstream_params(upstream, rewind_account());
  std::vector<Assignment> pairs;
  for (const auto& [key, value] : source.all())
    if (key != "password" && key != "sslpassword") pairs.emplace_back(key, value);
  Command command(program("pg_rewind"));
  command.arg("-D").arg(options.data_dir).arg("--progress");
  command.arg("--source-server=" + conninfo_text(pairs));
  if (dry) command.arg("--dry-run");
  bool restores = false;
  for (const auto& [name, value] : settings.recovery)
    restores = restores || (name == "restore_command" && !value.empty());
  if (restores && (major >= 15 || config_dir == options.data_dir)) {
    command.arg("--restore-target-wal");
    if (major >= 15) command.arg("--config-file=" + conf_path());
  }
  for (const auto& [name, value] : options.rewind_options)
    command.arg(value.empty() ? "--" + name : fmt::format("--{}={}", name, value));
  command.env("PGPASSFILE", passfile).env("PGOPTIONS", "-c statement_timeout=0");
  command.env("LC_ALL", "C");
  const std::string what = dry ? "checking whether pg_rewind can work" : "pg_rewind";
  say(what);
  const auto limit = clock.now() + (dry ? Duration(1h) : rewind_limit);
  const auto show = [this, &what](std::string_view piece) {
    // "123456/654321 kB (18%) copied"
    const auto percent = piece.rfind("%)");
    const auto open = percent == std::string_view::npos ? percent : piece.rfind('(', percent);
    if (open != std::string_view::npos)
      say(fmt::format("{}: {}", what, piece.substr(open + 1, percent - open)));
    return true;
  };
  const std::function<bool(std::string_view)> on_output = show;
  const auto outcome = co_await run_program(clock, command, limit, on_output);
  if (outcome.has_error()) co_return outcome.error();
  if (!outcome->ok())
    co_return Error(errc::command_failed,
                    fmt::format("pg_rewind from {}{} ended with {}: {}",
                                upstream.name.str(),
                                dry ? " (dry run)" : "",
                                outcome->how(),
                                outcome->last_words()));
  co_return Result<void>{};
}

}  // namespace spilo::pg
