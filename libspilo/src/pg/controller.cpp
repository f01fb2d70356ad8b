#include "spilo/pg/controller.hpp"

#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/this_coro.hpp>
#include <charconv>
#include <csignal>

#include "impl.hpp"

namespace spilo::pg {
using namespace std::chrono_literals;
namespace asio = boost::asio;

asio::awaitable<bool> cancelled() {
  const auto state = co_await asio::this_coro::cancellation_state;
  co_return state.cancelled() != asio::cancellation_type::none;
}

PgController::Impl::Impl(asio::any_io_executor ex, Clock& c, PgOptions o, Logger l)
    : executor(std::move(ex)), clock(c), options(std::move(o)), log(std::move(l)) {
  while (options.data_dir.size() > 1 && options.data_dir.back() == '/') options.data_dir.pop_back();
  config_dir = options.config_dir.empty() ? options.data_dir : options.config_dir;
  passfile = options.pgpass.empty() ? options.data_dir + ".pgpass" : options.pgpass;
  log_file = options.log_file.empty() ? options.data_dir + ".log" : options.log_file;
  new_dir = options.data_dir + ".new";
  rewinding_marker = options.data_dir + ".rewinding";
  creating_marker = options.data_dir + ".creating";
  copying_marker = options.data_dir + ".copying";
}

std::string PgController::Impl::program(const std::string& name) const {
  const auto renamed = options.bin_name.find(name);
  const auto& file = renamed != options.bin_name.end() ? renamed->second : name;
  if (options.bin_dir.empty() || file.find('/') != std::string::npos) return file;
  return options.bin_dir + "/" + file;
}

void PgController::Impl::apply_settings() {
  settings = effective_settings(options, dynamic, major);
  settings_stale = true;
  for (const auto& warning : settings.warnings) log.warning("{}", warning);
}

Async<void> PgController::Impl::ensure_programs() {
  if (major != 0) co_return Result<void>{};
  Command command(program("postgres"));
  command.arg("--version");
  const auto outcome = co_await run_program(clock, command, clock.now() + 5s);
  if (outcome.has_error()) co_return outcome.error().in("set bin_dir or PATH");
  // "postgres (PostgreSQL) 15.14 (Debian …)"
  const std::string_view text = outcome->output;
  const auto mark = text.find("(PostgreSQL) ");
  int version = 0;
  if (mark != std::string_view::npos)
    std::from_chars(text.data() + mark + 13, text.data() + text.size(), version);
  if (!outcome->ok() || version == 0)
    co_return Error(errc::unsupported,
                    fmt::format("{} --version: {}", command.argv[0], outcome->last_words()));
  if (version < 13)
    co_return Error(errc::unsupported,
                    fmt::format("PostgreSQL {} is too old: 13 is the first one", version));
  Command rewind(program("pg_rewind"));
  rewind.arg("--version");
  const auto rewinds = co_await run_program(clock, rewind, clock.now() + 5s);
  has_pg_rewind = rewinds.has_value() && rewinds->ok();
  major = version;
  apply_settings();
  co_return Result<void>{};
}

void PgController::Impl::changed() {
  if (wake && !closed) wake();
}

namespace {
// Work begins some time after it was spawned, and the controller may be gone by then.
Async<void> holding(std::shared_ptr<void>, Async<void> work) {
  co_return co_await std::move(work);
}
}  // namespace

// Work that nobody waits for. It holds the state itself and ends when the controller goes.
void PgController::Impl::spawn(Async<void> work, std::string what) {
  auto signal = std::make_shared<asio::cancellation_signal>();
  background.push_back(signal);
  asio::co_spawn(executor,
                 holding(shared_from_this(), std::move(work)),
                 asio::bind_cancellation_slot(
                     signal->slot(),
                     [weak = weak_from_this(), signal, what = std::move(what)](
                         const std::exception_ptr& failure, const Result<void>& result) {
                       const auto self = weak.lock();
                       if (self) self->background.remove(signal);
                       if (failure) {
                         // A cancelled coroutine unwinds by an exception; any other one is a bug.
                         if (!self || self->closed) return;
                         std::rethrow_exception(failure);
                       }
                       if (self && !self->closed && result.has_error())
                         self->log.debug("{}: {}", what, result.error().text());
                     }));
}

void PgController::Impl::close() {
  closed = true;
  wake = nullptr;
  postmaster.stop();
  wal_receiver.stop();
  for (auto& [slot, watch] : callback_watch) watch.stop();
  idle.reset();
  // A look that nobody answers would keep the executor busy for ever.
  if (looking)
    asio::dispatch(executor, [look = std::exchange(looking, nullptr)] {
      boost::system::error_code ignored;
      look->cancel(ignored);
    });
  // On the executor, where co_spawn's own handler passes it on at once: otherwise it would keep a bare
  // pointer into the signal until later, when the work may have ended and the signal be gone.
  asio::dispatch(executor, [running = background] {
    for (const auto& signal : running) signal->emit(asio::cancellation_type::terminal);
  });
}

Async<void> PgController::Impl::reload() {
  const auto file = live_postmaster();
  apply_settings();
  std::optional<Following> wanted = current_following;
  if (!wanted && exists(options.data_dir + "/standby.signal")) {
    // Adopted: keep following what it follows.
    wanted.emplace();
    wanted->conninfo = seen_conninfo;
    wanted->slot = seen_slot;
  }
  auto valid = co_await validate_configuration(wanted);
  if (valid.has_error()) co_return valid.error();
  if (!file) co_return Result<void>{};
  if (!signal_postmaster(file->pid, SIGHUP))
    co_return Error(errc::unavailable, "reload: the postmaster is gone");
  settings_stale = true;
  co_return Result<void>{};
}

Async<void> PgController::Impl::dispatch(ha::Task task) {
  switch (task.kind) {
    case ha::TaskKind::bootstrap:
      co_return co_await bootstrap(task);
    case ha::TaskKind::clone:
      co_return co_await clone(task);
    case ha::TaskKind::start:
      co_return co_await start(task);
    case ha::TaskKind::stop:
      co_return co_await stop_server(task.mode, task.checkpoint_first, task.timeout);
    case ha::TaskKind::restart:
      co_return co_await restart(task);
    case ha::TaskKind::promote:
      co_return co_await promote(task);
    case ha::TaskKind::follow:
      co_return co_await follow(task);
    case ha::TaskKind::rejoin:
      co_return co_await rejoin(task);
    case ha::TaskKind::reload:
      co_return co_await reload();
    case ha::TaskKind::checkpoint:
      co_return co_await checkpoint(clock.now() + 10min);
  }
  co_return Error(errc::unsupported, "unknown task");
}

Async<void> PgController::Impl::perform(ha::Task task) {
  if (::geteuid() == 0)
    co_return Error(errc::denied,
                    "PostgreSQL refuses to run as root, so the agent must not be root either");
  if (task_running) co_return Error(errc::conflict, "another task is running");
  task_running = true;
  auto programs = co_await disk_answers(clock.now() + 5s);
  if (programs.has_value()) programs = co_await ensure_programs();
  Result<void> done = programs;
  if (programs.has_value()) {
    finish_swap();
    NodeView view;
    look_at_directory(view);
    // A foreign or broken directory is never touched.
    if (view.data_dir == NodeView::DataDir::unusable && task.kind != ha::TaskKind::stop) {
      done = Error(errc::denied, view.problem);
    } else {
      done = co_await dispatch(task);
    }
  }
  task_running = false;
  progress.clear();
  if (done.has_error() && co_await cancelled())
    co_return Error(errc::cancelled, done.error().text());
  co_return done;
}

PgController::PgController(asio::any_io_executor executor,
                           Clock& clock,
                           PgOptions options,
                           Logger logger)
    : impl_(std::make_shared<Impl>(
          std::move(executor), clock, std::move(options), std::move(logger))) {}

PgController::~PgController() {
  impl_->close();
}

Async<NodeView> PgController::observe(TimePoint deadline) {
  const auto self = impl_;
  co_await asio::this_coro::throw_if_cancelled(false);
  co_return co_await self->observe(deadline);
}
Async<void> PgController::perform(ha::Task task) {
  const auto self = impl_;
  co_await asio::this_coro::throw_if_cancelled(false);
  co_return co_await self->perform(std::move(task));
}
Async<void> PgController::sync_slots(std::vector<std::string> wanted,
                                     std::vector<std::pair<std::string, Lsn>> positions,
                                     TimePoint deadline) {
  const auto self = impl_;
  co_await asio::this_coro::throw_if_cancelled(false);
  co_return co_await self->sync_slots(std::move(wanted), std::move(positions), deadline);
}
void PgController::configure(const DynamicConfig& config) {
  if (impl_->dynamic == config) return;
  impl_->dynamic = config;
  if (impl_->major != 0) impl_->apply_settings();
}
std::optional<DynamicConfig> PgController::last_config() const {
  const auto text = read_file(impl_->dynamic_config_path());
  if (text.has_error()) return {};
  const auto document = json::parse(*text);
  if (document.has_error() || document->is_null()) return {};
  return parse_dynamic_config(*document);
}
void PgController::reconfigure(PgOptions options) {
  options.data_dir = impl_->options.data_dir;
  options.name = impl_->options.name;
  options.scope = impl_->options.scope;
  impl_->options = std::move(options);
  if (impl_->major != 0) impl_->apply_settings();
}
void PgController::may_write_until(TimePoint until) {
  impl_->may_write_until = until;
}

Result<void> PgController::kill_now() {
  return impl_->kill_now();
}
void PgController::on_change(std::function<void()> wake) {
  impl_->wake = std::move(wake);
}
std::string PgController::progress() const {
  return impl_->progress;
}
void PgController::run_callback(std::string action, std::string role) {
  impl_->run_callback(action, role);
}

}  // namespace spilo::pg
