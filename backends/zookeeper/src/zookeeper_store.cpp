#include "spilo/zookeeper/zookeeper_store.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/this_coro.hpp>
#include <optional>
#include <set>
#include <utility>

#include "zk_session.hpp"

namespace spilo::zookeeper {
namespace asio = boost::asio;
namespace {

using namespace std::chrono_literals;

// A server refuses a request of 1 MiB; the rest is for keys and the other parts of a transaction.
constexpr std::size_t value_bytes_max = 1'000'000;
constexpr std::size_t transaction_bytes_max = 1'040'000;
// How often a transaction is planned anew because others were faster. Each time somebody got on.
constexpr int attempts_max = 50;
constexpr Duration retry_pause = 20ms;

// A znode that only holds others together is no key. Ours have no data at all; Patroni's have empty
// data, like its key `initialize` at first, so those are known by their children and their names.
bool is_folder(std::string_view key, const Reply& reply) {
  if (reply.is_null) return true;
  if (!reply.value.empty()) return false;
  return reply.node.children > 0 || key == "members" || key == "optime";
}

// What is read of a scope, step by step.
struct Tree {
  std::vector<std::string> to_list;  // folders whose children are not known yet, by key
  std::vector<std::string> to_get;
  std::set<std::string> listed;
  std::vector<std::pair<std::string, Reply>> found;
  Node root;
};

Error late(errc code, std::string_view what) {
  return Error(code, fmt::format("zookeeper: {}: no answer before the deadline", what));
}

std::optional<Error> refuse(const dcs::Transaction& transaction, bool has_session) {
  std::size_t bytes = 0;
  const auto refused = [](std::string text) {
    return Error(errc::invalid_argument, "zookeeper: " + text);
  };
  for (const auto& [key, condition] : transaction.requirements())
    if (const auto why = why_no_key(key)) return refused(fmt::format("the key {} {}", key, *why));
  for (const auto& [key, value, binding] : transaction.changes()) {
    if (const auto why = why_no_key(key)) return refused(fmt::format("the key {} {}", key, *why));
    if (value && value->size() > value_bytes_max)
      return refused(fmt::format(
          "the value of {} has {} bytes, {} is the limit", key, value->size(), value_bytes_max));
    bytes += key.size() + (value ? value->size() : 0) + 64;
    if (binding == dcs::Binding::session && !has_session)
      return Error(errc::session_lost,
                   fmt::format("zookeeper: commit binds {} to a session, and none is open", key));
  }
  if (bytes > transaction_bytes_max)
    return refused(
        fmt::format("the transaction has {} bytes, {} is the limit", bytes, transaction_bytes_max));
  return {};
}

bool is_bound(const dcs::Transaction& transaction) {
  return std::ranges::any_of(transaction.changes(), [](const auto& change) {
    return change.binding == dcs::Binding::session;
  });
}

bool puts_something(const dcs::Transaction& transaction) {
  return std::ranges::any_of(transaction.changes(),
                             [](const auto& change) { return change.value.has_value(); });
}

}  // namespace

std::string base_path(std::string_view chroot, std::string_view name_space, const Scope& scope) {
  const auto whole = fmt::format("/{}/{}/{}", chroot, name_space, scope.str());
  std::string out;
  for (const char c : whole)
    if (c != '/' || !out.ends_with('/')) out += c;
  while (out.ends_with('/')) out.pop_back();
  return out;
}

struct ZookeeperStore::Impl : std::enable_shared_from_this<ZookeeperStore::Impl> {
  Impl(asio::any_io_executor executor, Clock& time, Options options)
      : clock(time),
        base(options.base),
        news(executor, time),
        session(std::make_shared<Session>(executor, time, std::move(options), events())) {}

  Session::Events events() {
    Session::Events out;
    out.changed = [this](std::string_view path) {
      if (path.size() > base.size()) known.erase(std::string(path.substr(base.size() + 1)));
      something_happened();
    };
    out.reset = [this] {
      known.clear();
      something_happened();
    };
    return out;
  }
  void something_happened() {
    ++generation;
    news.tell();
  }
  std::string path(std::string_view key) const { return fmt::format("{}/{}", base, key); }

  Async<dcs::Snapshot> read(dcs::Freshness freshness, TimePoint deadline);
  Async<dcs::Snapshot> read_once(std::shared_ptr<Link> link, bool synced, TimePoint deadline);
  Async<bool> read_root(std::shared_ptr<Link> link, bool synced, Tree& tree, TimePoint deadline);
  Async<void> read_level(std::shared_ptr<Link> link, Tree& tree, TimePoint deadline);
  Async<dcs::Committed> commit(dcs::Transaction transaction, TimePoint deadline);
  Async<void> look(std::shared_ptr<Link> link,
                   const dcs::Transaction& transaction,
                   TimePoint deadline);
  Async<void> make_folders(std::shared_ptr<Link> link,
                           std::vector<std::string> folders,
                           TimePoint deadline);
  Async<std::optional<dcs::Committed>> attempt(std::shared_ptr<Link> link,
                                               const Plan& plan,
                                               TimePoint deadline);
  Async<dcs::Index> changed_since(dcs::Index seen, TimePoint deadline);

  Clock& clock;
  std::string base;
  Known known;
  // Counts what the watches and the connection told us. What a read armed is armed as long as
  // nothing has been told since the read began.
  std::uint64_t generation = 1;
  std::uint64_t armed_at = 0;
  std::set<std::string> folders{"members"};  // asked for at once; others are found on the way
  News news;
  std::shared_ptr<Session> session;
};

// ---- reading -----------------------------------------------------------------------------------

// The scope's own znode and its children. False when there is none; then its creation is watched.
Async<bool> ZookeeperStore::Impl::read_root(std::shared_ptr<Link> link,
                                            bool synced,
                                            Tree& tree,
                                            TimePoint deadline) {
  const auto batch = link->batch();
  // The scope's znode is looked at before everything below it: see Known.
  if (synced) link->sync(batch, base);
  link->get(batch, base, true);
  link->children(batch, base, true);
  const std::vector<std::string> guesses(folders.begin(), folders.end());
  for (const auto& folder : guesses) link->children(batch, path(folder), true);
  const auto answered = co_await batch->wait(deadline);
  if (answered.has_error()) co_return answered.error();
  std::size_t at = 0;
  if (synced && batch->replies[at].rc != ZOK)
    co_return error_of(batch->replies[at].rc, true, false, "read: sync");
  at += synced ? 1 : 0;
  const Reply& root = batch->replies[at];
  const Reply& names = batch->replies[at + 1];
  if (root.rc == ZNONODE || names.rc == ZNONODE) {
    const auto watch = link->batch();
    link->exists(watch, base, true);
    const auto watched = co_await watch->wait(deadline);
    if (watched.has_error()) co_return watched.error();
    const int rc = watch->replies.front().rc;
    if (rc == ZNONODE) co_return false;
    if (rc == ZOK)
      co_return Error(errc::unavailable, "zookeeper: read: the scope appeared just now");
    co_return error_of(rc, true, false, "read " + base);
  }
  for (const Reply* reply : {&root, &names})
    if (reply->rc != ZOK) co_return error_of(reply->rc, reply->sent, false, "read " + base);
  tree.root = root.node;
  tree.to_get = names.names;
  for (std::size_t i = 0; i < guesses.size(); ++i) {
    const Reply& reply = batch->replies[at + 2 + i];
    if (reply.rc != ZOK) continue;  // it is found out on the way
    tree.listed.insert(guesses[i]);
    for (const auto& name : reply.names) tree.to_get.push_back(guesses[i] + "/" + name);
  }
  co_return true;
}

Async<void> ZookeeperStore::Impl::read_level(std::shared_ptr<Link> link,
                                             Tree& tree,
                                             TimePoint deadline) {
  const auto batch = link->batch();
  const auto keys = std::exchange(tree.to_get, {});
  const auto lists = std::exchange(tree.to_list, {});
  for (const auto& key : keys) link->get(batch, path(key), true);
  for (const auto& key : lists) link->children(batch, path(key), true);
  const auto answered = co_await batch->wait(deadline);
  if (answered.has_error()) co_return answered.error();
  for (std::size_t i = 0; i < batch->replies.size(); ++i) {
    Reply& reply = batch->replies[i];
    const bool is_list = i >= keys.size();
    const auto& key = is_list ? lists[i - keys.size()] : keys[i];
    // Gone meanwhile: the watch on what it was in has fired.
    if (reply.rc == ZNONODE) continue;
    if (reply.rc != ZOK) co_return error_of(reply.rc, reply.sent, false, "read " + path(key));
    if (is_list) {
      for (const auto& name : reply.names) tree.to_get.push_back(key + "/" + name);
      continue;
    }
    const bool folder = is_folder(key, reply);
    if ((folder || reply.node.children > 0) && tree.listed.insert(key).second) {
      tree.to_list.push_back(key);
      folders.insert(key);
    }
    if (!folder) tree.found.emplace_back(key, std::move(reply));
  }
  co_return boost::system::in_place_value;
}

Async<dcs::Snapshot> ZookeeperStore::Impl::read_once(std::shared_ptr<Link> link,
                                                     bool synced,
                                                     TimePoint deadline) {
  const auto began = generation;
  Tree tree;
  const auto exists = co_await read_root(link, synced, tree, deadline);
  if (exists.has_error()) co_return exists.error();
  while (!tree.to_get.empty() || !tree.to_list.empty()) {
    const auto read = co_await read_level(link, tree, deadline);
    if (read.has_error()) co_return read.error();
  }
  std::vector<dcs::Entry> entries;
  if (*exists) known.see_life(tree.root.version);
  for (auto& [key, reply] : tree.found) {
    known.put(key, reply.node);
    entries.emplace_back(
        key, std::move(reply.value), version_of(reply.node), session_name(reply.node.owner));
  }
  armed_at = std::max(armed_at, began);
  co_return dcs::Snapshot(std::move(entries), dcs::Index{began}, false);
}

Async<dcs::Snapshot> ZookeeperStore::Impl::read(dcs::Freshness freshness, TimePoint deadline) {
  const auto self = shared_from_this();
  const bool synced = freshness == dcs::Freshness::linearizable;
  for (;;) {
    const auto link = co_await session->link(deadline);
    if (link.has_error()) co_return link.error().in("read");
    const TimePoint sent = clock.now();
    auto snapshot = co_await read_once(*link, synced, deadline);
    if (snapshot.has_value()) co_return snapshot;
    const Error error = snapshot.error();
    if (error.is(errc::timed_out)) {
      if (clock.now() - sent >= 1s) (*link)->leave_silent_server(sent);
      co_return late(errc::timed_out, "read");
    }
    if (!error.is(errc::unavailable) && !error.is(errc::session_lost)) co_return error;
    // The connection broke, or the scope changed its shape: reading again harms nobody.
    const bool slept = co_await sleep_until(clock, std::min(deadline, clock.now() + retry_pause));
    if (!slept) co_return Error(errc::cancelled, "zookeeper: read");
    if (clock.now() >= deadline) co_return Error(errc::unavailable, error.detail());
  }
}

// ---- writing -----------------------------------------------------------------------------------

// Looks at every key of the transaction, and at the scope's own znode before them.
Async<void> ZookeeperStore::Impl::look(std::shared_ptr<Link> link,
                                       const dcs::Transaction& transaction,
                                       TimePoint deadline) {
  const Known nothing;
  const auto keys = unknown_keys(transaction, nothing);
  const auto batch = link->batch();
  link->sync(batch, base);
  link->exists(batch, base, false);
  for (const auto& key : keys) link->exists(batch, path(key), false);
  const auto answered = co_await batch->wait(deadline);
  if (answered.has_error()) co_return answered.error();
  for (const Reply& reply : batch->replies)
    if (reply.rc != ZOK && reply.rc != ZNONODE)
      co_return error_of(reply.rc, reply.sent, false, "commit: looking at " + base);
  const Reply& root = batch->replies[1];
  if (root.rc == ZOK) {
    known.see_life(root.node.version);
  } else {
    known.clear();
  }
  for (std::size_t i = 0; i < keys.size(); ++i) {
    const Reply& reply = batch->replies[i + 2];
    if (reply.rc == ZOK && root.rc == ZOK) {
      known.put(keys[i], reply.node);
    } else {
      known.erase(keys[i]);
    }
  }
  if (root.rc == ZNONODE && puts_something(transaction)) {
    std::vector<std::string> missing;
    for (auto slash = base.find('/', 1); slash != std::string::npos;
         slash = base.find('/', slash + 1))
      missing.push_back(base.substr(0, slash));
    missing.push_back(base);
    const auto made = co_await make_folders(link, std::move(missing), deadline);
    if (made.has_error()) co_return made.error();
    co_return co_await look(link, transaction, deadline);
  }
  co_return boost::system::in_place_value;
}

Async<void> ZookeeperStore::Impl::make_folders(std::shared_ptr<Link> link,
                                               std::vector<std::string> missing,
                                               TimePoint deadline) {
  const auto batch = link->batch();
  for (const auto& folder : missing) link->create_folder(batch, folder);
  const auto answered = co_await batch->wait(deadline);
  if (answered.has_error()) co_return answered.error();
  // A folder that exists may lie in one that we may not touch; the innermost one is what counts.
  const Reply& last = batch->replies.back();
  if (last.rc == ZOK || last.rc == ZNODEEXISTS) co_return boost::system::in_place_value;
  for (std::size_t i = 0; i < missing.size(); ++i)
    if (const Reply& reply = batch->replies[i]; reply.rc == ZNOAUTH)
      co_return error_of(ZNOAUTH, reply.sent, false, "creating the folder " + missing[i]);
  co_return error_of(last.rc, last.sent, false, "creating the folder " + missing.back());
}

// One multi. Nothing: others were faster, certainly not done.
Async<std::optional<dcs::Committed>> ZookeeperStore::Impl::attempt(std::shared_ptr<Link> link,
                                                                   const Plan& plan,
                                                                   TimePoint deadline) {
  std::optional<dcs::Committed> nothing;
  const auto batch = link->batch();
  const TimePoint sent = clock.now();
  link->multi(batch, plan.steps);
  const auto answered = co_await batch->wait(deadline);
  const Reply& reply = batch->replies.front();
  if (answered.has_error()) {
    if (answered.error().is(errc::cancelled))
      co_return Error(errc::cancelled, "zookeeper: commit: cancelled while it was on its way");
    if (clock.now() - sent >= 1s) link->leave_silent_server(sent);
    co_return late(errc::ambiguous, "commit");
  }
  if (!reply.sent && !link->is_connected()) co_return nothing;
  if (reply.rc == ZBADVERSION || reply.rc == ZNODEEXISTS) co_return nothing;
  if (reply.rc == ZNONODE) {
    const auto missing = folders_of(plan);
    if (missing.empty()) co_return nothing;
    const auto made = co_await make_folders(link, missing, deadline);
    if (made.has_error() && made.error().is(errc::timed_out))
      co_return late(errc::unavailable, "commit: creating folders");
    if (made.has_error()) co_return made.error();
    co_return nothing;
  }
  if (reply.rc != ZOK) co_return error_of(reply.rc, reply.sent, true, "commit below " + base);
  if (plan.life_step) known.see_own_life(reply.nodes[*plan.life_step].version);
  for (const auto& key : plan.erased) known.erase(key);
  std::vector<std::pair<std::string, dcs::Version>> versions;
  for (const auto& [key, step] : plan.written) {
    known.put(key, reply.nodes[step]);
    versions.emplace_back(key, version_of(reply.nodes[step]));
  }
  co_return std::optional<dcs::Committed>(dcs::Committed(std::move(versions)));
}

Async<dcs::Committed> ZookeeperStore::Impl::commit(dcs::Transaction transaction,
                                                   TimePoint deadline) {
  const auto self = shared_from_this();
  const bool bound = is_bound(transaction);
  if (const auto refused = refuse(transaction, session->is_open())) co_return *refused;
  bool fresh = false;
  for (int attempts = 0; attempts < attempts_max; ++attempts) {
    const auto link = co_await session->link(deadline);
    if (bound && !session->is_open())
      co_return Error(errc::session_lost, "zookeeper: commit: the session is gone");
    if (link.has_error()) co_return link.error().in("commit");
    if (fresh) {
      const auto looked = co_await look(*link, transaction, deadline);
      if (looked.has_error()) {
        const Error error = looked.error();
        if (error.is(errc::timed_out)) co_return late(errc::unavailable, "commit: looking at keys");
        if (error.is(errc::session_lost) ||
            (error.is(errc::unavailable) && !(*link)->is_connected()))
          continue;
        co_return error;
      }
    }
    const auto plan = make_plan(transaction, known, fresh, base, session->number());
    if (plan.has_error()) co_return plan.error().in("zookeeper: commit");
    if (!*plan && fresh)  // nothing is there, and nothing is put there
      co_return dcs::Committed();
    fresh = true;
    if (!*plan) continue;
    if ((*plan)->steps.empty()) co_return dcs::Committed();
    const auto done = co_await attempt(*link, **plan, deadline);
    if (done.has_error()) {
      const Error error = done.error();
      if (!error.is(errc::session_lost)) co_return error;
      if (bound) co_return error;
      continue;
    }
    if (*done) co_return **done;
  }
  co_return Error(
      errc::unavailable,
      fmt::format("zookeeper: commit below {}: others were faster {} times", base, attempts_max));
}

// ---- changes -----------------------------------------------------------------------------------

Async<dcs::Index> ZookeeperStore::Impl::changed_since(dcs::Index seen, TimePoint deadline) {
  const auto self = shared_from_this();
  co_await asio::this_coro::throw_if_cancelled(false);
  for (;;) {
    const auto state = co_await asio::this_coro::cancellation_state;
    if (session->is_shut() || state.cancelled() != asio::cancellation_type::none)
      co_return Error(errc::cancelled, "zookeeper: waiting for a change");
    if (generation > seen.value) co_return dcs::Index{generation};
    if (clock.now() >= deadline)
      co_return Error(errc::timed_out, "zookeeper: no change before the deadline");
    if (armed_at != generation) {
      // Whoever waits without having read: what happened before the watches are set is unknown.
      const auto armed = co_await read(dcs::Freshness::local_replica, deadline);
      if (armed.has_error()) {
        if (armed.error().is(errc::unavailable) || armed.error().is(errc::timed_out)) continue;
        co_return armed.error();
      }
      if (armed_at != generation) continue;
      something_happened();
      armed_at = generation;
      continue;
    }
    const auto told = co_await news.wait(deadline);
    if (told.has_error() && told.error().is(errc::cancelled))
      co_return Error(errc::cancelled, "zookeeper: waiting for a change");
  }
}

// ---- the interface -----------------------------------------------------------------------------

ZookeeperStore::ZookeeperStore(asio::any_io_executor executor, Clock& clock, Options options)
    : impl_(std::make_shared<Impl>(std::move(executor), clock, std::move(options))) {}

ZookeeperStore::~ZookeeperStore() {
  impl_->session->close_quietly();
  impl_->news.tell();
}

dcs::Limits ZookeeperStore::limits() const noexcept {
  return dcs::Limits{session_ttl_min, session_ttl_max, value_bytes_max};
}

namespace {

// An operation begins when it is awaited, and the store may be gone by then: it is handed its own
// share of what it works with.
template <class T, class Impl, class... Arguments>
Async<T> with(std::shared_ptr<Impl> impl,
              Async<T> (Impl::*operation)(Arguments...),
              Arguments... arguments) {
  co_return co_await ((*impl).*operation)(std::move(arguments)...);
}

}  // namespace

Async<dcs::Snapshot> ZookeeperStore::read(dcs::Freshness freshness, TimePoint deadline) {
  return with(impl_, &Impl::read, freshness, deadline);
}
Async<dcs::Committed> ZookeeperStore::commit(dcs::Transaction transaction, TimePoint deadline) {
  return with(impl_, &Impl::commit, std::move(transaction), deadline);
}
Async<dcs::Lease> ZookeeperStore::renew(Duration ttl, TimePoint deadline) {
  return with(impl_->session, &Session::renew, ttl, deadline);
}
Async<void> ZookeeperStore::end_session(TimePoint deadline) {
  return with(impl_->session, &Session::end, deadline);
}
Async<dcs::Index> ZookeeperStore::changed_since(dcs::Index seen, TimePoint deadline) {
  return with(impl_, &Impl::changed_since, seen, deadline);
}

}  // namespace spilo::zookeeper
