#include <dirent.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>

#include "impl.hpp"
#include "spilo/guard/end_server.hpp"
#include "spilo/model/codec.hpp"

namespace spilo::pg {
using namespace std::chrono_literals;

namespace {

constexpr Duration probe_every = 3s;
constexpr Duration probe_limit = 3s;
constexpr Duration settings_every = 30s;

// Everything an observation wants of a running server, in one round trip. The role is taken once:
// what must not be called in the other role sits behind a CASE on it. A primary that was promoted
// has other recovery targets in its files than it started with; no restart is needed for that.
constexpr const char* observation = R"(
SELECT r.rec,
  current_setting('server_version_num'),
  to_char(pg_postmaster_start_time(), 'YYYY-MM-DD HH24:MI:SS.US') ||
    to_char(pg_postmaster_start_time(), 'TZH:TZM'),
  (SELECT system_identifier FROM pg_control_system()),
  current_setting('data_directory'),
  CASE WHEN r.rec THEN NULL
       ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int END,
  CASE WHEN r.rec THEN NULL ELSE pg_current_wal_flush_lsn() END,
  pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn(),
  CASE WHEN r.rec THEN pg_is_wal_replay_paused() END,
  to_char(pg_last_xact_replay_timestamp(), 'YYYY-MM-DD HH24:MI:SS.US') ||
    to_char(pg_last_xact_replay_timestamp(), 'TZH:TZM'),
  w.pid, w.status, w.written_lsn, w.received_tli,
  current_setting('primary_conninfo'), current_setting('primary_slot_name'),
  current_setting('restore_command'),
  (SELECT json_agg(json_build_object('a', application_name, 'u', usename, 'c', client_addr,
      's', state, 'y', sync_state, 'p', sync_priority, 'w', write_lsn, 'f', flush_lsn,
      'r', replay_lsn)) FROM pg_stat_replication),
  (SELECT json_agg(slot_name ORDER BY slot_name) FROM pg_replication_slots
    WHERE slot_type = 'physical' AND NOT temporary),
  CASE WHEN $1::boolean THEN (SELECT json_agg(json_build_object('n', s.name,
      'v', current_setting(s.name), 'p', s.pending_restart, 'f',
      CASE WHEN s.pending_restart THEN (SELECT f.setting FROM pg_file_settings f
        WHERE f.name = s.name ORDER BY f.seqno DESC LIMIT 1) END))
    FROM pg_settings s WHERE s.name = ANY ($2::text[]) OR (s.pending_restart AND
      (r.rec OR s.name !~ '^(recovery_target|restore_command|primary_)'))) END
FROM (SELECT pg_is_in_recovery() AS rec OFFSET 0) r LEFT JOIN pg_stat_wal_receiver w ON true)";

enum Column : std::size_t {
  in_recovery,
  server_version,
  start_time,
  system_id,
  data_directory,
  timeline,
  flushed,
  received,
  replayed,
  paused,
  replayed_at,
  receiver_pid,
  receiver_status,
  written,
  received_timeline,
  conninfo,
  slot,
  restore_command,
  senders,
  slots,
  settings_json
};

int to_number(std::string_view text) {
  int value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}
Lsn to_lsn(std::string_view text) {
  return parse_lsn(text).value_or(Lsn{});
}

std::string host_and_port(const std::string& conninfo) {
  const auto params = parse_conninfo(conninfo);
  if (!params) return {};
  const auto* host = params->find("host");
  const auto* port = params->find("port");
  if (host == nullptr) return {};
  return fmt::format("{}:{}", *host, port != nullptr ? *port : "5432");
}

std::vector<WalSender> wal_senders(std::string_view text) {
  std::vector<WalSender> out;
  if (text.empty()) return out;
  const auto parsed = json::parse(text);
  const auto* rows = parsed.has_value() ? parsed->as_array() : nullptr;
  if (rows == nullptr) return out;
  for (const auto& row : *rows) {
    WalSender sender;
    sender.application_name = row.get_string("a");
    sender.user = row.get_string("u");
    sender.client_addr = row.get_string("c");
    sender.state = row.get_string("s");
    sender.sync_state = row.get_string("y");
    sender.sync_priority = static_cast<int>(row.get_int("p").value_or(0));
    sender.write_lsn = to_lsn(row.get_string("w"));
    sender.flush_lsn = to_lsn(row.get_string("f"));
    sender.replay_lsn = to_lsn(row.get_string("r"));
    out.push_back(std::move(sender));
  }
  return out;
}

bool is_stopped_process(pid_t pid) {
  const auto text = read_file(fmt::format("/proc/{}/stat", pid));
  if (text.has_error()) return false;
  const auto end = text->rfind(')');
  return end != std::string::npos && end + 2 < text->size() && (*text)[end + 2] == 'T';
}

// When a file was last written, as the key `history` tells times; empty when that can't be known.
std::string written_at(const std::string& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) return {};
  const auto since = std::chrono::seconds(info.st_mtim.tv_sec) +
                     std::chrono::milliseconds(info.st_mtim.tv_nsec / 1'000'000);
  return codec::dump_wall_time(WallTime(since));
}

std::string first_foreign_entry(const std::string& path) {
  std::string out;
  DIR* directory = ::opendir(path.c_str());
  if (directory == nullptr) return out;
  while (const dirent* entry = ::readdir(directory)) {
    const std::string_view name = entry->d_name;
    if (name == "." || name == ".." || name == "lost+found") continue;
    out = name;
    break;
  }
  ::closedir(directory);
  return out;
}

}  // namespace

void PgController::Impl::look_at_directory(NodeView& view) {
  const auto& path = options.data_dir;
  const auto unusable = [&](std::string why) {
    view.data_dir = NodeView::DataDir::unusable;
    view.problem = std::move(why);
  };
  if (::geteuid() == 0)
    return unusable(
        "PostgreSQL refuses to run as root, so the agent must not be root either: "
        "start it as the user that owns " +
        path);
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) {
    if (errno != ENOENT)
      return unusable(
          fmt::format("data_dir {} can't be looked at by this user (id {}): {}; correct data_dir, or "
                      "let the user into the directories above it",
                      path,
                      ::geteuid(),
                      std::strerror(errno)));
    view.data_dir = NodeView::DataDir::empty;
    if (::access(parent_of(path).c_str(), W_OK | X_OK) != 0)
      unusable(
          fmt::format("data_dir {} does not exist and can't be created in {} by this user (id {}): "
                      "{}; create that directory and give it to the user, or correct data_dir",
                      path,
                      parent_of(path),
                      ::geteuid(),
                      std::strerror(errno)));
    return;
  }
  if (!S_ISDIR(info.st_mode)) return unusable("data_dir " + path + " is not a directory");
  if (info.st_uid != ::geteuid())
    return unusable(
        fmt::format("data_dir {} belongs to user id {}, but this agent runs as user id "
                    "{}: start it as the owner, or give the directory to it",
                    path,
                    info.st_uid,
                    ::geteuid()));
  if (::access(path.c_str(), R_OK | W_OK | X_OK) != 0)
    return unusable(
        fmt::format("data_dir {} is not writable: {}; chmod 700 it", path, std::strerror(errno)));
  const auto version = read_file(path + "/PG_VERSION");
  if (version.has_error()) {
    const auto entry = first_foreign_entry(path);
    if (entry.empty()) {
      view.data_dir = NodeView::DataDir::empty;
    } else {
      unusable(
          fmt::format("data_dir {} is not empty (it has {}), but has no PG_VERSION: it is no "
                      "PostgreSQL data directory and is left alone; empty it, or correct "
                      "data_dir",
                      path,
                      entry));
    }
    return;
  }
  if (major != 0 && to_number(*version) != major)
    return unusable(
        fmt::format("data_dir {} is of PostgreSQL {}, the programs in {} are of {}: "
                    "set bin_dir to the right version",
                    path,
                    to_number(*version),
                    options.bin_dir.empty() ? "PATH" : options.bin_dir,
                    major));
  if ((info.st_mode & 0027) != 0)
    return unusable(fmt::format(
        "data_dir {} has mode {:04o}: PostgreSQL wants 0700 or 0750", path, info.st_mode & 07777));
  view.data_dir = NodeView::DataDir::initialized;
}

void PgController::Impl::look_at_control_file(NodeView& view) {
  const auto control = read_control_file(options.data_dir);
  if (control.has_error()) {
    view.data_dir = NodeView::DataDir::unusable;
    view.problem = control.error().text();
    return;
  }
  view.system_id = control->system_id;
  view.control_state = control->state;
  view.checkpoint_lsn = control->checkpoint;
  view.control_timeline = control->timeline;
  wal_segment_bytes = control->wal_segment_size;
  if (control->shut_down()) view.checkpoint_end = checkpoint_record_end(*control);
  view.can_rewind =
      (control->checksums || control->wal_log_hints) && has_pg_rewind && settings.use_pg_rewind;
  const bool standby = control->was_in_recovery() || exists(options.data_dir + "/standby.signal");
  view.role = standby ? NodeView::Role::replica : NodeView::Role::primary;
  view.timeline = control->timeline;
  if (standby) {
    if (to_int(control->min_recovery_timeline) > to_int(view.timeline))
      view.timeline = control->min_recovery_timeline;
    view.replayed = std::max(control->min_recovery_point, control->checkpoint);
  } else if (control->shut_down()) {
    view.flushed = view.checkpoint_end;
  } else {
    view.flushed = control->checkpoint;
  }
  if (exists(rewinding_marker))
    view.problem = "pg_rewind was interrupted: this directory must not be started, only rejoined";
}

// A directory or programs that can't be used say nothing about the server that runs there. Whoever
// takes it for down gives its lock away while it acknowledges commits.
void PgController::Impl::look_for_server(NodeView& view) {
  const auto file = live_postmaster();
  guard::DirectoryId id;
  const bool visible = guard::directory_id(options.data_dir.c_str(), id) == 0;
  if (!file && (!visible || !guard::server_processes_exist(options.data_dir.c_str()))) return;
  if (file) {
    adopt(file->pid);
    view.postmaster_pid = file->pid;
  }
  view.process = NodeView::Process::hung;
  // What can't be known is taken for what needs more care.
  view.role = exists(options.data_dir + "/standby.signal") ? NodeView::Role::replica
                                                           : NodeView::Role::primary;
}

void PgController::Impl::report_down(NodeView& view) {
  if (postmaster.pid() != 0 || !orphans_checked) postmaster_ended(postmaster.pid());
  if (!orphans_checked && guard::server_processes_exist(options.data_dir.c_str())) {
    view.process = NodeView::Process::hung;
    view.problem = "the postmaster is gone, but processes of its server can't be killed yet";
    return;
  }
  const bool clean =
      view.control_state == "shut down" || view.control_state == "shut down in recovery";
  view.process = clean ? NodeView::Process::stopped : NodeView::Process::crashed;
}

// The server said something else than an answer, or nothing.
void PgController::Impl::without_answer(NodeView& view,
                                        const PostmasterFile& file,
                                        const Error& error) {
  view.problem = error.text();
  if (stopping || file.status == "stopping") {
    view.process = NodeView::Process::stopping;
  } else if (error.is(errc::denied) || error.is(errc::command_failed)) {
    view.process = NodeView::Process::running;  // it answers; we have no access
  } else if (file.status == "starting" || file.status.empty() || file.single_user) {
    view.process = NodeView::Process::starting;
  } else if (error.is(errc::unavailable) && !sqlstate_in(error.detail()).empty()) {
    view.process = NodeView::Process::starting;  // 57P03 with "ready": recovering from a crash
  } else {
    view.process = NodeView::Process::hung;
  }
}

Async<NodeView> PgController::Impl::observe(TimePoint deadline) {
  const auto began = clock.now();
  auto answers = co_await disk_answers(deadline);
  if (answers.has_value()) {
    auto view = co_await observe_now(deadline);
    seen = seen || view.has_value();
    co_return view;
  }
  // What was known stays, and the caller has it. An agent that knows nothing yet must not take the
  // directory for an empty one, or the server for down.
  if (seen) co_return answers.error();
  NodeView view;
  view.observed_at = began;
  view.data_dir = NodeView::DataDir::unusable;
  view.process = NodeView::Process::hung;
  view.role = NodeView::Role::primary;
  view.problem = answers.error().detail();
  co_return view;
}

Async<NodeView> PgController::Impl::observe_now(TimePoint deadline) {
  NodeView view;
  view.observed_at = clock.now();
  auto programs = co_await ensure_programs();
  end_moved_server();
  if (!task_running) finish_swap();
  look_at_directory(view);
  if (programs.has_error() && view.data_dir != NodeView::DataDir::unusable) {
    view.data_dir = NodeView::DataDir::unusable;
    view.problem = programs.error().text();
  }
  if (view.data_dir == NodeView::DataDir::unusable) {
    look_for_server(view);
    co_return view;
  }
  if (!task_running && exists(creating_marker)) {
    recover_interrupted_bootstrap();
    look_at_directory(view);
  }
  if (view.data_dir != NodeView::DataDir::initialized) co_return view;
  look_at_control_file(view);
  if (view.data_dir == NodeView::DataDir::unusable) {
    look_for_server(view);
    co_return view;
  }
  const auto file = live_postmaster();
  if (!file) {
    // The server may have ended between the two looks; what it wrote last counts.
    look_at_control_file(view);
    report_down(view);
    co_return view;
  }
  // The recovery that a task of ours runs is reaped by that task, which needs its exit status.
  if (!file->single_user || !task_running) adopt(file->pid);
  view.postmaster_pid = file->pid;
  // Crash recovery by a single-user server is nobody's primary, whatever the directory looks like:
  // nobody can connect to it.
  if (file->single_user) view.role = NodeView::Role::unknown;
  auto answer = co_await ask_server(&view, *file, deadline);
  if (answer.has_error()) {
    if (!live_postmaster()) {
      view.postmaster_pid = 0;
      look_at_control_file(view);
      report_down(view);
      co_return view;
    }
    without_answer(view, *file, answer.error());
  } else {
    view.process = stopping ? NodeView::Process::stopping : NodeView::Process::running;
    start_probe(*file);
    if (frozen) {
      view.process = NodeView::Process::hung;
      view.problem = "the postmaster does not answer new connections";
    }
    forget_old_directories(view);
    if (view.role == NodeView::Role::primary && !task_running && !closed &&
        marks_offered_by != file->pid) {
      marks_offered_by = file->pid;
      spawn(archive_marks(), "archive the marks");
    }
  }
  co_return view;
}

Async<void> PgController::Impl::ask_server(NodeView* view,
                                           const PostmasterFile& file,
                                           TimePoint deadline) {
  if (file.single_user || file.status == "starting")
    co_return Error(errc::unavailable, "PostgreSQL is starting");
  // A kept connection may have been closed by an administrator: that is no news about the server.
  for (int attempt = 0; attempt < 2; ++attempt) {
    const bool kept = idle != nullptr;
    auto taken = co_await take(deadline);
    if (taken.has_error()) co_return taken.error();
    auto connection = std::move(*taken);
    auto answer = co_await ask_connection(connection.get(), view, deadline);
    const bool lost = !connection->usable();
    if (!lost) give_back(std::move(connection));
    if (answer.has_value() || !lost || !kept || clock.now() >= deadline) co_return answer;
  }
  co_return Error(errc::timed_out, "PostgreSQL closes our connections");
}

Async<void> PgController::Impl::ask_connection(Connection* connection,
                                               NodeView* view,
                                               TimePoint deadline) {
  const bool with_settings = settings_stale || clock.now() - settings_read_at > settings_every;
  std::string names = "{";
  for (const auto& [name, value] : settings.fixed) names += (names.size() > 1 ? "," : "") + name;
  names += "}";
  std::vector<std::string> params;
  params.emplace_back(with_settings ? "t" : "f");
  params.push_back(names);
  Result<Rows> rows = Error(errc::unavailable);
  for (int attempt = 0; attempt < 2; ++attempt) {
    rows = co_await connection->query_prepared("observe", observation, params, deadline);
    // The end of a recovery between two columns fails the statement once.
    if (rows.has_value() || !connection->usable()) break;
  }
  if (rows.has_error()) {
    // No answer to a statement: not the same as a refused login.
    const auto& error = rows.error();
    if (connection->sqlstate() == "57014") co_return Error(errc::timed_out, error.detail());
    co_return error;
  }
  // Somebody else's server on our port would otherwise be taken for ours.
  if (!view->system_id.empty() && rows->text(0, Column::system_id) != view->system_id.str())
    co_return Error(errc::command_failed,
                    fmt::format("the server that answers on port {} has system identifier {}, not "
                                "{}: another PostgreSQL uses our port",
                                options.port,
                                rows->text(0, Column::system_id),
                                view->system_id.str()));
  take_answer(*rows, *view, with_settings);
  if (view->role == NodeView::Role::replica) {
    // Statements can't tell it, and the control file is behind for as long as nothing was flushed.
    const bool told = to_number(rows->text(0, Column::received_timeline)) > 0;
    if (told) {
      replay_timeline = view->timeline;
      replay_timeline_at = view->replayed;
      replay_timeline_of = view->postmaster_pid;
    } else {
      const auto found = co_await find_replay_timeline(view, deadline);
      if (found.has_error()) log.debug("{}", found.error().text());
    }
  }
  co_return Result<void>{};
}

// The timeline of a standby that has no WAL receiver just now. Asked once for each position: a
// standby that replays nothing stays on its timeline.
Async<void> PgController::Impl::find_replay_timeline(NodeView* view, TimePoint deadline) {
  const bool known = replay_timeline_of == view->postmaster_pid;
  if (known) view->timeline = std::max(view->timeline, replay_timeline);
  if (known && replay_timeline_at == view->replayed) co_return Result<void>{};
  const auto file = live_postmaster();
  if (!file) co_return Result<void>{};
  auto params = local_params(*file, false);
  // Physical replication would need a line of its own in pg_hba.conf.
  params.set("replication", "database");
  auto opened = co_await Connection::open(clock, params, deadline);
  if (opened.has_error()) co_return opened.error().in("IDENTIFY_SYSTEM");
  const auto connection = std::move(*opened);
  const auto answer = co_await connection->query("IDENTIFY_SYSTEM", deadline);
  if (answer.has_error()) co_return answer.error().in("IDENTIFY_SYSTEM");
  const TimelineId line{static_cast<std::uint32_t>(to_number(answer->text(0, 1)))};
  view->timeline = std::max(view->timeline, line);
  replay_timeline = view->timeline;
  replay_timeline_at = view->replayed;
  replay_timeline_of = view->postmaster_pid;
  co_return Result<void>{};
}

void PgController::Impl::take_answer(const Rows& rows, NodeView& view, bool with_settings) {
  const bool replica = rows.is_true(0, Column::in_recovery);
  view.role = replica ? NodeView::Role::replica : NodeView::Role::primary;
  view.server_version = to_number(rows.text(0, Column::server_version));
  view.start_time = rows.text(0, Column::start_time);
  view.restore_command = rows.text(0, Column::restore_command);
  view.wal_senders = wal_senders(rows.text(0, Column::senders));
  if (const auto parsed = json::parse(rows.text(0, Column::slots)); parsed.has_value()) {
    if (const auto* names = parsed->as_array())
      for (const auto& name : *names)
        if (const auto* text = name.as_string()) view.slots.push_back(*text);
  }
  view.flushed = replica ? Lsn{} : to_lsn(rows.text(0, Column::flushed));
  view.replayed = replica ? to_lsn(rows.text(0, Column::replayed)) : Lsn{};
  if (replica) {
    view.received =
        std::max(to_lsn(rows.text(0, Column::received)), to_lsn(rows.text(0, Column::written)));
    view.replay_paused = rows.is_true(0, Column::paused);
    view.replayed_timestamp = rows.text(0, Column::replayed_at);
    view.streaming = rows.text(0, Column::receiver_status) == "streaming";
    if (const int line = to_number(rows.text(0, Column::received_timeline)); line > 0) {
      view.timeline = TimelineId{static_cast<std::uint32_t>(line)};
    } else {
      view.timeline = timeline_of_wal(view.timeline, std::max(view.received, view.replayed));
    }
    seen_conninfo = rows.text(0, Column::conninfo);
    seen_slot = rows.text(0, Column::slot);
    view.upstream = host_and_port(seen_conninfo);
    const int receiver = to_number(rows.text(0, Column::receiver_pid));
    if (receiver > 0 && view.streaming) {
      wal_receiver.watch(executor, receiver, [weak = weak_from_this()](pid_t) {
        const auto self = weak.lock();
        if (!self || self->closed) return;
        self->wal_receiver.stop();
        self->changed();
      });
    }
  } else {
    view.timeline =
        TimelineId{static_cast<std::uint32_t>(to_number(rows.text(0, Column::timeline)))};
    wal_receiver.stop();
    view.history = timeline_history(view.timeline);
  }
  if (with_settings) take_settings(rows.text(0, Column::settings_json));
  view.pending_restart = pending_restart;
  view.pending_restart_reason = pending_reasons;
}

// Without a WAL receiver PostgreSQL does not say which timeline a standby is on, and the control file
// knows the last restartpoint's only, which may be many promotions old. The WAL itself tells: it is in
// a segment of the newest timeline that has one at this place.
TimelineId PgController::Impl::timeline_of_wal(TimelineId known, Lsn end) const {
  constexpr std::uint32_t promotions_max = 64;  // between two restartpoints
  if (to_int(end) == 0 || wal_segment_bytes == 0) return known;
  const std::uint64_t segment = (to_int(end) - 1) / wal_segment_bytes;
  const std::uint64_t per_file_name = 0x1'0000'0000 / wal_segment_bytes;
  for (auto line = to_int(known) + promotions_max; line > to_int(known); --line)
    if (exists(fmt::format("{}/pg_wal/{:08X}{:08X}{:08X}",
                           options.data_dir,
                           line,
                           segment / per_file_name,
                           segment % per_file_name)))
      return TimelineId{line};
  return known;
}

// The file is written once, at the promotion, and never changed: read it once too.
const std::vector<HistoryLine>& PgController::Impl::timeline_history(TimelineId line) {
  if (line == history_of) return history_lines;
  history_lines.clear();
  if (to_int(line) > 1) {
    const auto path = fmt::format("{}/pg_wal/{:08X}.history", options.data_dir, to_int(line));
    const auto text = read_file(path);
    if (text.has_error()) return history_lines;  // not yet, or no more: asked again
    history_lines = parse_history_lines(*text);
    if (!history_lines.empty()) history_lines.back().timestamp = written_at(path);
  }
  history_of = line;
  return history_lines;
}

// What would be different after a restart: PostgreSQL's own opinion, and the parameters of the
// command line, of which it can't know that we would give others.
void PgController::Impl::take_settings(std::string_view text) {
  settings_stale = false;
  settings_read_at = clock.now();
  pending_reasons = json::Value();
  const auto parsed = json::parse(text);
  const auto* rows = parsed.has_value() ? parsed->as_array() : nullptr;
  if (rows != nullptr) {
    for (const auto& row : *rows) {
      const auto name = row.get_string("n");
      const auto now = row.get_string("v");
      const auto* fixed = settings.fixed_value(name);
      std::string next = now;
      if (fixed != nullptr) {
        next = *fixed;
      } else if (row.get_bool("p")) {
        next = row.get_string("f", "(default)");
      }
      if (next == now && !(row.get_bool("p") && fixed == nullptr)) continue;
      auto reason = json::Value::object();
      reason.set("old_value", now).set("new_value", next);
      pending_reasons.set(name, reason);
    }
  }
  pending_restart = !pending_reasons.is_null();
}

void PgController::Impl::start_probe(const PostmasterFile& file) {
  const bool doubt = frozen || is_stopped_process(file.pid);
  if (probing || closed || (!doubt && clock.now() - probed_at < probe_every)) return;
  probing = true;
  spawn(probe(file), "new-connection probe");
}

Async<void> PgController::Impl::probe(PostmasterFile file) {
  const auto self = shared_from_this();
  const auto host = local_host(file, options.use_unix_socket);
  const int port = file.port != 0 ? file.port : options.port;
  const auto limit = clock.now() + probe_limit;
  const auto answer = co_await probe_new_connection(clock, host, port, limit);
  probing = false;
  probed_at = clock.now();
  if (closed || postmaster.pid() != file.pid) co_return Result<void>{};
  // Refused or unreachable is no sign of a frozen postmaster; only silence is.
  const bool silent = answer.has_value() && !*answer;
  if (silent != frozen) {
    frozen = silent;
    if (silent)
      log.warning("PostgreSQL (process {}) did not answer a new connection for {} s",
                  file.pid,
                  std::chrono::duration_cast<std::chrono::seconds>(probe_limit).count());
    changed();
  }
  co_return Result<void>{};
}

// Once the new copy streams, the directories that it replaced have done their duty.
void PgController::Impl::forget_old_directories(const NodeView& view) {
  if (!old_directories || removing_old || task_running || !view.streaming) return;
  const auto parent = parent_of(options.data_dir);
  const auto prefix = options.data_dir.substr(options.data_dir.find_last_of('/') + 1) + ".old-";
  std::string found;
  if (DIR* directory = ::opendir(parent.c_str())) {
    while (const dirent* entry = ::readdir(directory)) {
      const std::string_view name = entry->d_name;
      if (!name.starts_with(prefix) || !is_stamp(name.substr(prefix.size()))) continue;
      auto path = parent + "/" + entry->d_name;
      // Of another cluster, or in use: not what we replaced.
      const auto control = read_control_file(path);
      if (control.has_value() && control->system_id != view.system_id) continue;
      if (!guard::server_processes_exist(path.c_str())) found = std::move(path);
    }
    ::closedir(directory);
  }
  old_directories = !found.empty();
  if (found.empty()) return;
  removing_old = true;
  log.info("the new copy streams: removing {}", found);
  struct Work {
    static Async<void> run(std::shared_ptr<Impl> self, std::string path) {
      auto removed = co_await self->remove_data_directory(path);
      self->removing_old = false;
      // Try again only at the next start, should it fail.
      if (removed.has_error()) self->old_directories = false;
      co_return removed;
    }
  };
  spawn(Work::run(shared_from_this(), found), "remove " + found);
}

}  // namespace spilo::pg
