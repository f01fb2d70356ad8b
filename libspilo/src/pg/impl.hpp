// The state of a PgController and everything it can do; the bodies are in files by topic:
// controller.cpp (dispatch), observe.cpp, disk.cpp, files.cpp (configuration), instance.cpp (start, stop,
// promote), upstream.cpp, rejoin_task.cpp, clone.cpp, bootstrap.cpp, slots.cpp, callbacks.cpp.
#pragma once

#include <sys/types.h>

#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "settings.hpp"
#include "spilo/pg/command.hpp"
#include "spilo/pg/connection.hpp"
#include "spilo/pg/control_file.hpp"
#include "spilo/pg/controller.hpp"
#include "spilo/pg/rejoin.hpp"

namespace spilo::pg {

// Tells once when a process has ended, through its pidfd; also for processes that are not ours.
class ProcessWatch {
 public:
  void watch(const boost::asio::any_io_executor& executor,
             pid_t pid,
             std::function<void(pid_t)> ended);
  void stop();
  pid_t pid() const noexcept { return pid_; }
  // It is watched, and has not ended yet: also before anybody was told of its end.
  bool alive() const noexcept;

 private:
  static void arm(const std::shared_ptr<boost::asio::posix::stream_descriptor>& descriptor,
                  pid_t pid,
                  std::function<void(pid_t)> ended);
  std::shared_ptr<boost::asio::posix::stream_descriptor> descriptor_;
  pid_t pid_ = 0;
};

// postmaster.pid
struct PostmasterFile {
  pid_t pid = 0;
  bool single_user = false;
  int port = 0;
  std::string socket_dir;
  std::string status;  // "starting", "stopping", "ready", "standby", or empty
};
std::optional<PostmasterFile> read_postmaster_file(const std::string& data_dir);

// Asks a server whether it would take a new connection: the cheapest question that a postmaster
// must answer itself (SSLRequest). False: no answer by the deadline. Nothing of the sort is logged
// by the server. Refused and unreachable are an Error.
Async<bool> probe_new_connection(Clock& clock, std::string host, int port, TimePoint deadline);

std::optional<ConnectParams> parse_conninfo(const std::string& text);
boost::asio::awaitable<bool> cancelled();

Result<std::string> read_file(const std::string& path);
// Atomically, and only when the content differs.
Result<void> write_file(const std::string& path, std::string_view content, mode_t mode);
bool exists(const std::string& path) noexcept;
bool is_mount_point(const std::string& path) noexcept;
void end_writers_of(const std::string& directory);
Error mount_point_error(const std::string& data_dir);
void sync_directory(const std::string& path) noexcept;
std::string parent_of(const std::string& path);
// "1764035161" or "1764035161.2": what we append to names. What people have named otherwise is theirs.
bool is_stamp(std::string_view text);
// A place for pg_wal or a tablespace that we have named: PATH.spilo-<seconds>. Those alone are ever removed.
constexpr std::string_view place_suffix = ".spilo-";
bool own_place(std::string_view path);

struct UpstreamState {
  SystemId system_id;
  TimelineId timeline{};
  Lsn flush{};
  bool in_recovery = false;
  std::vector<TimelineEnd> history;
};

struct PgController::Impl : std::enable_shared_from_this<PgController::Impl> {
  Impl(boost::asio::any_io_executor ex, Clock& c, PgOptions o, Logger l);

  // controller.cpp
  void apply_settings();
  Async<void> perform(ha::Task task);
  Async<void> dispatch(ha::Task task);
  Async<void> reload();
  void close();
  void spawn(Async<void> work, std::string what);
  void changed();
  std::string program(const std::string& name) const;
  // Learns the version of the programs, once.
  Async<void> ensure_programs();
  void say(std::string text) { progress = std::move(text); }

  // observe.cpp
  Async<NodeView> observe(TimePoint deadline);
  Async<NodeView> observe_now(TimePoint deadline);
  void look_at_directory(NodeView& view);
  void look_at_control_file(NodeView& view);
  void look_for_server(NodeView& view);
  Async<void> ask_server(NodeView* view, const PostmasterFile& file, TimePoint deadline);
  Async<void> ask_connection(Connection* connection, NodeView* view, TimePoint deadline);
  Async<void> find_replay_timeline(NodeView* view, TimePoint deadline);
  void take_answer(const Rows& rows, NodeView& view, bool with_settings);
  const std::vector<HistoryLine>& timeline_history(TimelineId line);
  TimelineId timeline_of_wal(TimelineId known, Lsn end) const;
  void take_settings(std::string_view text);
  void without_answer(NodeView& view, const PostmasterFile& file, const Error& error);
  void start_probe(const PostmasterFile& file);
  Async<void> probe(PostmasterFile file);
  void report_down(NodeView& view);
  void forget_old_directories(const NodeView& view);

  // disk.cpp
  // timed_out: reading files of the data directory would block.
  Async<void> disk_answers(TimePoint deadline);

  // instance.cpp
  std::optional<PostmasterFile> live_postmaster();
  // Sends a signal to that postmaster, and to nobody who was given its number since. False: it has
  // ended.
  bool signal_postmaster(pid_t pid, int signal);
  void end_moved_server();
  void adopt(pid_t pid);
  void postmaster_ended(pid_t pid);
  Result<void> kill_now();
  Async<void> start_server(bool as_primary, std::optional<Following> following, Duration timeout);
  Result<void> check_port();
  void accept_stale_pid_file(Command& command) const;
  Result<pid_t> spawn_postmaster(bool as_primary);
  Async<void> wait_until_ready(TimePoint deadline, std::uint64_t log_begin);
  Async<void> stop_server(ha::StopMode mode, bool checkpoint_first, Duration timeout);
  Async<void> restart(ha::Task task);
  Async<void> promote(ha::Task task);
  Async<void> ask_for_promotion(PostmasterFile file,
                                Result<std::unique_ptr<Connection>> taken,
                                TimePoint deadline);
  Async<void> wait_promoted(std::unique_ptr<Connection> connection,
                            pid_t startup,
                            TimePoint deadline);
  void wake_startup_process(pid_t startup);
  Async<void> checkpoint(TimePoint deadline);
  Async<void> background_checkpoint();
  ConnectParams local_params(const PostmasterFile& file, bool statement_timeout) const;
  std::string local_host(const PostmasterFile& file, bool unix_socket) const;
  Async<std::unique_ptr<Connection>> take(TimePoint deadline);
  void give_back(std::unique_ptr<Connection> connection);
  std::string server_words(std::uint64_t log_begin) const;

  // timelines.cpp
  Result<void> take_lower_timelines(TimelineId first_free);
  void remove_topmost_marks();
  Result<void> check_new_timeline(TimelineId first_free) const;
  Async<void> archive_marks();
  Result<void> may_write(std::string_view what) const;

  // files.cpp
  Result<void> write_configuration(const std::optional<Following>& following);
  Async<void> validate_configuration(std::optional<Following> following);
  Result<void> set_standby_signal(bool standby);
  Result<void> write_passfile();
  std::string conf_path() const;
  std::string dynamic_config_path() const;
  Result<void> write_dynamic_config();
  std::vector<Assignment> raised_parameters(bool as_primary) const;
  // The new path; empty when there was nothing.
  Result<std::string> move_aside(const std::string& path, const std::string& kind);
  Async<void> remove_tree(std::string path);
  // A data directory that is needed no more, with what we made for it elsewhere.
  Async<void> remove_data_directory(std::string path);

  // upstream.cpp
  ConnectParams upstream_params(const ha::Upstream& upstream, const Credentials& account) const;
  const Credentials& rewind_account() const;
  Async<UpstreamState> ask_upstream(ha::Upstream upstream, TimePoint deadline);
  Async<Following> following(ha::Upstream upstream);
  Async<void> ensure_slot(ha::Upstream upstream, std::string slot, TimePoint deadline);
  Async<void> follow(ha::Task task);
  Async<void> wait_for_checkpoint_on(ha::Upstream upstream, TimePoint deadline);

  // rejoin_task.cpp
  Async<void> start(ha::Task task);
  Async<void> rejoin(ha::Task task);
  Async<RejoinFacts> rejoin_facts(ha::Task task);
  Async<void> repair(ha::Task task, RejoinDecision decision);
  Async<void> recover_single_user();
  Async<void> rewind(ha::Upstream upstream);
  Async<void> run_rewind(ha::Upstream upstream, bool dry);
  Async<std::optional<Lsn>> find_wal_end(ControlData control, TimePoint deadline);

  // clone.cpp
  Async<void> clone(ha::Task task);
  Async<void> copy_from(ha::Upstream upstream);
  Async<void> clean_leftovers();
  Async<std::vector<std::string>> tablespace_mappings(ha::Upstream upstream);
  std::string free_place(const std::string& path) const;
  Result<void> mark_copy_complete();
  Result<void> swap_in();
  void finish_swap();

  // bootstrap.cpp
  Async<void> bootstrap(ha::Task task);
  Async<void> bootstrap_steps(ha::Task task);
  Async<void> run_initdb();
  Async<void> create_users();
  Async<void> run_post_bootstrap();
  void recover_interrupted_bootstrap();

  // slots.cpp
  Async<void> sync_slots(std::vector<std::string> wanted,
                         std::vector<std::pair<std::string, Lsn>> positions,
                         TimePoint deadline);

  // callbacks.cpp
  void run_callback(const std::string& action, const std::string& role);

  boost::asio::any_io_executor executor;
  Clock& clock;
  PgOptions options;
  Logger log;
  DynamicConfig dynamic;
  Settings settings;
  bool settings_warned = false;
  int major = 0;  // of the programs; 0: not known yet
  bool has_pg_rewind = false;
  std::string program_problem;
  std::string config_dir;
  std::string passfile;
  std::string log_file;
  std::string new_dir;
  std::string rewinding_marker;
  std::string creating_marker;
  std::string copying_marker;  // exists: new_dir is ours; "building" or "complete <inode>"
  std::string kept_failure;  // the directory of the last creation that failed
  TimePoint may_write_until = TimePoint::max();

  std::function<void()> wake;
  std::string progress;
  std::list<std::shared_ptr<boost::asio::cancellation_signal>> background;
  bool closed = false;

  // The postmaster that we watch; a child of ours or an adopted one.
  ProcessWatch postmaster;
  ProcessWatch wal_receiver;
  pid_t child = 0;               // the postmaster that we started, until it is reaped
  int child_status = 0;          // how the last one ended
  bool stopping = false;         // we told it to stop
  bool orphans_checked = false;  // no process of a dead postmaster is left

  std::unique_ptr<Connection> idle;
  pid_t idle_of = 0;

  // New-connection probe.
  bool probing = false;
  bool frozen = false;
  TimePoint probed_at{};

  // The end of its pipe, while a thread looks whether the disk answers.
  std::shared_ptr<boost::asio::posix::stream_descriptor> looking;
  bool late_look_awaited = false;
  bool seen = false;  // an observation has come to its end

  bool task_running = false;
  bool bootstrapping = false;
  bool checkpoint_running = false;
  std::optional<Following> current_following;  // what the files say now; none: unknown or primary
  std::string validated;                       // configuration that PostgreSQL accepted
  std::string seen_conninfo;
  std::string seen_slot;
  std::uint32_t wal_segment_bytes = 0;
  TimelineId history_of{};
  std::vector<HistoryLine> history_lines;  // the lines of that timeline's history file
  TimePoint settings_read_at{};
  TimelineId replay_timeline{};  // of a standby, as it was last known
  Lsn replay_timeline_at{};      // at that position
  pid_t replay_timeline_of = 0;  // of that server
  pid_t marks_offered_by = 0;    // the primary whose archive was offered the marks
  bool settings_stale = true;
  json::Value pending_reasons;
  bool pending_restart = false;
  bool old_directories = true;  // there may be some
  bool removing_old = false;

  // Callbacks: `true` for on_reload, which has a slot of its own.
  std::map<bool, pid_t> callback_pid;
  std::map<bool, ProcessWatch> callback_watch;
};

}  // namespace spilo::pg
