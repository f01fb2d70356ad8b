#include "directory_store.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/this_coro.hpp>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

namespace example {

using namespace std::chrono_literals;
using spilo::errc;

namespace {

constexpr Duration look_again = 5ms;  // while somebody else holds the lock, or nothing has changed
constexpr Duration ttl_min = 1s;
constexpr Duration ttl_max = 24h;
constexpr std::size_t value_bytes_max = 1 << 20;

// ---- the file: numbers and texts, each text with its length before it ---------------------------

void put(std::ostream& out, const std::string& text) {
  out << text.size() << ':' << text << ' ';
}

std::string take(std::istream& in) {
  std::size_t size = 0;
  char colon = 0;
  in >> size >> colon;
  if (!in || colon != ':' || size > 16 * value_bytes_max) {
    in.setstate(std::ios::failbit);
    return {};
  }
  std::string text(size, '\0');
  in.read(text.data(), static_cast<std::streamsize>(size));
  return text;
}

std::string dump(const State& state) {
  std::ostringstream out;
  put(out, state.boot_id);
  out << state.counter << ' ' << state.sessions.size() << ' ' << state.keys.size() << ' '
      << state.changed.size() << '\n';
  for (const auto& [name, session] : state.sessions) {
    put(out, name);
    put(out, session.scope);
    out << session.expires.time_since_epoch().count() << '\n';
  }
  for (const auto& [path, key] : state.keys) {
    put(out, path.first);
    put(out, path.second);
    put(out, key.value);
    put(out, key.owner);
    out << key.version.era << ' ' << key.version.count << '\n';
  }
  for (const auto& [scope, at] : state.changed) {
    put(out, scope);
    out << at << '\n';
  }
  out << "end\n";
  return out.str();
}

bool parse(std::istream& in, State& state) {
  std::size_t sessions = 0, keys = 0, scopes = 0;
  state.boot_id = take(in);
  in >> state.counter >> sessions >> keys >> scopes;
  for (std::size_t i = 0; in && i < sessions; ++i) {
    auto& session = state.sessions[take(in)];
    Duration::rep expires = 0;
    session.scope = take(in);
    in >> expires;
    session.expires = TimePoint(Duration(expires));
  }
  for (std::size_t i = 0; in && i < keys; ++i) {
    auto scope = take(in);
    auto& key = state.keys[{std::move(scope), take(in)}];
    key.value = take(in);
    key.owner = take(in);
    in >> key.version.era >> key.version.count;
  }
  for (std::size_t i = 0; in && i < scopes; ++i) {
    auto& at = state.changed[take(in)];
    in >> at;
  }
  std::string end;
  return in >> end && end == "end";
}

std::string this_boot() {
  std::string id;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> id;
  return id;
}

// ---- what happens to a state --------------------------------------------------------------------

void erase_key(State& state, const std::pair<std::string, std::string>& path) {
  if (state.keys.erase(path) > 0) state.changed[path.first] = ++state.counter;
}

void drop_session(State& state, const std::string& name) {
  std::erase_if(state.keys, [&](const auto& entry) {
    const bool bound = entry.second.owner == name;
    if (bound) state.changed[entry.first.first] = ++state.counter;
    return bound;
  });
  state.sessions.erase(name);
}

// Whoever comes first after a session's end removes it: nobody has to run for that.
bool drop_expired(State& state, TimePoint now) {
  std::vector<std::string> over;
  const auto boot = this_boot();
  for (const auto& [name, session] : state.sessions)
    if (state.boot_id != boot || now >= session.expires) over.push_back(name);
  for (const auto& name : over) drop_session(state, name);
  state.boot_id = boot;
  return !over.empty();
}

bool holds(const State& state,
           const std::string& scope,
           const dcs::Transaction::Requirement& required) {
  const auto at = state.keys.find({scope, required.key});
  if (required.condition.kind() == dcs::Condition::Kind::absent) return at == state.keys.end();
  return at != state.keys.end() && at->second.version == required.condition.version();
}

}  // namespace

// ---- the lock, and the file under it ------------------------------------------------------------

// While it lives nobody else reads or writes. Never kept over a co_await.
class DirectoryStore::Locked {
 public:
  Locked(int fd, std::string directory) : fd_(fd), directory_(std::move(directory)) {}
  ~Locked() { ::close(fd_); }
  Locked(const Locked&) = delete;
  Locked& operator=(const Locked&) = delete;

  bool load() {
    std::ifstream in(directory_ + "/state", std::ios::binary);
    return !in ? ::access((directory_ + "/state").c_str(), F_OK) != 0 : parse(in, state);
  }

  // Up to the rename nothing has happened: unavailable, certainly not done. After it everybody sees
  // the change, but a power failure might take it back until the directory is on the disk:
  // ambiguous.
  // A commit waits for the disk, because its versions must not be given twice, not even after a
  // power failure. What only concerns sessions does not: none of them outlives the boot.
  enum class Disk { wait_for, leave_alone };
  Result<void> save(Disk disk) {
    const auto text = dump(state);
    const std::string next = directory_ + "/state.next";
    const int fd = ::open(next.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) return problem(errc::unavailable, "can't create " + next);
    const bool written =
        ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()) &&
        (disk == Disk::leave_alone || ::fdatasync(fd) == 0);
    const auto bad = problem(errc::unavailable, "can't write " + next);
    ::close(fd);
    if (!written) return bad;
    if (::rename(next.c_str(), (directory_ + "/state").c_str()) != 0)
      return problem(errc::unavailable, "can't rename " + next);
    if (disk == Disk::leave_alone) return {};
    const int folder = ::open(directory_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const bool kept = folder >= 0 && ::fsync(folder) == 0;
    const auto unsure = problem(errc::ambiguous, "can't flush " + directory_);
    if (folder >= 0) ::close(folder);
    if (!kept) return unsure;
    return {};
  }

  State state;

 private:
  static Error problem(errc code, const std::string& what) {
    return Error(code, fmt::format("{}: {}", what, std::strerror(errno)));
  }
  int fd_;
  std::string directory_;
};

DirectoryStore::DirectoryStore(spilo::Clock& clock, std::string directory, spilo::Scope scope)
    : clock_(clock), directory_(std::move(directory)), scope_(scope.str()) {}

Error DirectoryStore::failed(errc code, const char* verb, const std::string& what) const {
  return Error(code, fmt::format("directory {}: {}: {}", directory_, verb, what));
}

// Tries until the deadline and never blocks: whoever has the lock may be frozen. Nothing was done
// yet when this fails, so it is unavailable, and never ambiguous, for reads and writes alike.
Async<std::shared_ptr<DirectoryStore::Locked>> DirectoryStore::lock(const char* verb,
                                                                    TimePoint deadline) {
  co_await boost::asio::this_coro::throw_if_cancelled(false);
  const std::string path = directory_ + "/lock";
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0)
    co_return failed(
        errc::unavailable, verb, "can't open lock: " + std::string(std::strerror(errno)));
  auto locked = std::make_shared<Locked>(fd, directory_);
  while (clock_.now() < deadline) {
    const auto state = co_await boost::asio::this_coro::cancellation_state;
    if (state.cancelled() != boost::asio::cancellation_type::none)
      co_return failed(errc::cancelled, verb, "cancelled before it was done");
    if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
      const auto next = std::min(deadline, clock_.now() + look_again);
      co_await spilo::sleep_until(clock_, next);
      continue;
    }
    if (!locked->load()) co_return failed(errc::protocol, verb, "the file `state` is damaged");
    if (drop_expired(locked->state, clock_.now()))
      if (auto saved = locked->save(Locked::Disk::leave_alone); saved.has_error())
        co_return failed(errc::unavailable, verb, saved.error().text());
    co_return locked;
  }
  co_return failed(errc::unavailable, verb, "the lock was not free before the deadline");
}

// ---- the six verbs ------------------------------------------------------------------------------

dcs::Limits DirectoryStore::limits() const noexcept {
  return {
      .session_ttl_min = ttl_min, .session_ttl_max = ttl_max, .value_bytes_max = value_bytes_max};
}

Async<dcs::Snapshot> DirectoryStore::read(dcs::Freshness, TimePoint deadline) {
  auto locked = co_await lock("read", deadline);
  if (locked.has_error()) co_return locked.error();
  const State& state = (*locked)->state;
  std::vector<dcs::Entry> entries;
  for (const auto& [path, key] : state.keys)
    if (path.first == scope_)
      entries.emplace_back(path.second, key.value, key.version, spilo::SessionId(key.owner));
  const auto changed = state.changed.find(scope_);
  const dcs::Index index{changed == state.changed.end() ? 1 : changed->second};
  co_return dcs::Snapshot(std::move(entries), index, true);
}

Async<dcs::Committed> DirectoryStore::commit(dcs::Transaction transaction, TimePoint deadline) {
  for (const auto& change : transaction.changes())
    if (change.value && change.value->size() > value_bytes_max)
      co_return failed(errc::invalid_argument,
                       "commit",
                       fmt::format("{} has {} bytes, at most {} are allowed",
                                   change.key,
                                   change.value->size(),
                                   value_bytes_max));
  auto locked = co_await lock("commit", deadline);
  if (locked.has_error()) co_return locked.error();
  State& state = (*locked)->state;
  for (const auto& required : transaction.requirements())
    if (!holds(state, scope_, required))
      co_return failed(errc::conflict, "commit", required.key + " is not as required");
  std::vector<std::pair<std::string, dcs::Version>> written;
  for (const auto& change : transaction.changes()) {
    const std::pair path(scope_, change.key);
    if (!change.value) {
      erase_key(state, path);
      continue;
    }
    const bool bound = change.binding == dcs::Binding::session;
    if (bound && !state.sessions.contains(session_))
      co_return failed(errc::session_lost, "commit", "no session to bind " + change.key + " to");
    const auto at = ++state.counter;
    auto& key = state.keys[path];
    key.value = *change.value;
    key.version.count = at;
    if (key.version.era == 0) key.version.era = at;
    key.owner = bound ? session_ : "";
    state.changed[scope_] = at;
    written.emplace_back(change.key, key.version);
  }
  if (auto saved = (*locked)->save(Locked::Disk::wait_for); saved.has_error())
    co_return saved.error().in("directory " + directory_ + ": commit");
  co_return dcs::Committed(std::move(written));
}

std::string DirectoryStore::name_new_session(State& state) const {
  return fmt::format("{}-{}", state.boot_id.substr(0, 8), ++state.counter);
}

Async<dcs::Lease> DirectoryStore::renew(Duration ttl, TimePoint deadline) {
  if (ttl < ttl_min || ttl > ttl_max)
    co_return failed(errc::invalid_argument, "renew", "the ttl must be between 1 s and 24 h");
  auto locked = co_await lock("renew", deadline);
  if (locked.has_error()) co_return locked.error();
  State& state = (*locked)->state;
  const bool lost = !session_.empty() && !state.sessions.contains(session_);
  if (lost) {
    session_.clear();
    co_return failed(errc::session_lost, "renew", "the session has run out");
  }
  // The lease rule: what we believe ends no later than what the others wait for. Both are this one
  // time here, because one clock serves all; with a server it is the time before the request.
  // What an earlier renewal promised stays, also when this one asks for less: see Store::renew().
  TimePoint until = clock_.now() + ttl;
  auto name = session_.empty() ? name_new_session(state) : session_;
  if (const auto known = state.sessions.find(name); known != state.sessions.end())
    until = std::max(until, known->second.expires);
  state.sessions[name] = {until, scope_};
  if (auto saved = (*locked)->save(Locked::Disk::leave_alone); saved.has_error())
    co_return saved.error().in("directory " + directory_ + ": renew");
  session_ = name;
  co_return dcs::Lease(spilo::SessionId(std::move(name)), until);
}

Async<void> DirectoryStore::end_session(TimePoint deadline) {
  if (session_.empty()) co_return Result<void>();
  auto locked = co_await lock("end_session", deadline);
  if (locked.has_error()) co_return locked.error();
  drop_session((*locked)->state, session_);
  if (auto saved = (*locked)->save(Locked::Disk::leave_alone); saved.has_error())
    co_return saved.error().in("directory " + directory_ + ": end_session");
  session_.clear();
  co_return Result<void>();
}

// Level-triggered: it compares what was seen with what is, so it does not matter when the change
// was. Each look drops the sessions that have run out, which is how a waiter learns of their end.
Async<dcs::Index> DirectoryStore::changed_since(dcs::Index seen, TimePoint deadline) {
  for (;;) {
    auto snapshot = co_await read(dcs::Freshness::linearizable, deadline);
    if (snapshot.has_error()) {
      const bool late = clock_.now() >= deadline;
      co_return late ? failed(errc::timed_out, "changed_since", snapshot.error().detail())
                     : snapshot.error();
    }
    if (snapshot->index() > seen) co_return snapshot->index();
    const auto next = std::min(deadline, clock_.now() + look_again);
    const bool waited = co_await spilo::sleep_until(clock_, next);
    if (!waited) co_return failed(errc::cancelled, "changed_since", "cancelled");
    if (clock_.now() >= deadline)
      co_return failed(errc::timed_out, "changed_since", "nothing has changed");
  }
}

}  // namespace example
