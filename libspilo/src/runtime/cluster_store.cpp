#include "spilo/runtime/cluster_store.hpp"

#include <algorithm>

#include "spilo/model/codec.hpp"
#include "spilo/model/keys.hpp"

namespace spilo {
namespace {

dcs::Condition at_or_absent(dcs::Version version) {
  return version == dcs::Version{} ? dcs::Condition::absent() : dcs::Condition::at(version);
}

void require_lock(dcs::Transaction& transaction, const LeaderKey& held) {
  transaction.require(keys::leader, dcs::Condition::at(held.version));
}

// A commit that succeeded says what it wrote. A store that does not has done something we can't
// rely on, so that the caller has to read again.
Result<dcs::Version> written(const Result<dcs::Committed>& committed, const std::string& key) {
  if (!committed) return committed.error().in("writing " + key);
  if (const auto version = committed->version_of(key)) return *version;
  return Error(errc::ambiguous, "writing " + key + ": the store reported no version of it");
}

ClusterStatus parse_optime(const dcs::Snapshot& snapshot) {
  if (const auto* status = snapshot.find(keys::status)) return codec::parse_status(status->value);
  if (const auto* optime = snapshot.find(keys::optime)) return codec::parse_status(optime->value);
  return {};
}

std::vector<Member> parse_members(const dcs::Snapshot& snapshot) {
  const std::string_view prefix = keys::members;
  std::vector<Member> out;
  for (const auto& entry : snapshot.under(prefix)) {
    if (entry.key.size() == prefix.size()) continue;
    auto member = codec::parse_member(NodeName(entry.key.substr(prefix.size())), entry.value);
    member.session = entry.owner;
    out.push_back(std::move(member));
  }
  std::ranges::sort(out, {}, &Member::name);
  return out;
}

}  // namespace

ClusterView parse_cluster(const dcs::Snapshot& snapshot, TimePoint read_started) {
  ClusterView out;
  if (const auto* entry = snapshot.find(keys::initialize)) {
    out.initialize = entry->value;
    out.initialize_version = entry->version;
    out.initialize_session = entry->owner;
  }
  if (const auto* entry = snapshot.find(keys::leader))
    out.leader = LeaderKey{NodeName(entry->value), entry->version, entry->owner};
  out.members = parse_members(snapshot);
  if (const auto* entry = snapshot.find(keys::config)) {
    if (const auto document = json::parse(entry->value))
      out.config = parse_dynamic_config(*document);
    out.config_version = entry->version;
  }
  if (const auto* entry = snapshot.find(keys::failover)) {
    out.failover = codec::parse_failover(entry->value);
    out.failover.version = entry->version;
  }
  if (const auto* entry = snapshot.find(keys::sync)) {
    out.sync = codec::parse_sync(entry->value);
    out.sync.version = entry->version;
  }
  if (const auto* entry = snapshot.find(keys::history))
    out.history = codec::parse_history(entry->value);
  out.status = parse_optime(snapshot);
  if (const auto* entry = snapshot.find(keys::failsafe)) {
    out.failsafe = codec::parse_failsafe(entry->value);
    out.failsafe_version = entry->version;
  }
  if (const auto* entry = snapshot.find(keys::term)) {
    out.term = codec::parse_term(entry->value);
    out.term.version = entry->version;
  }
  out.index = snapshot.index();
  out.read_started = read_started;
  return out;
}

Async<ClusterView> ClusterStore::load(dcs::Freshness freshness, TimePoint deadline) {
  const auto started = clock_.now();  // before the read: what it shows may be as old as that
  const auto snapshot = co_await store_.read(freshness, deadline);
  if (!snapshot) co_return snapshot.error().in("reading the cluster");
  auto view = parse_cluster(*snapshot, started);
  co_return view;
}

Async<std::pair<LeaderKey, Term>> ClusterStore::acquire_lock(NodeName self,
                                                             SessionId session,
                                                             ha::AcquireLock order,
                                                             TimePoint deadline) {
  Term term;
  term.number = order.term.number + 1;
  term.holder = self;
  term.timeline = order.timeline;
  term.reserved = order.reserved;
  dcs::Transaction transaction;
  transaction.require(keys::leader,
                      order.rebind ? dcs::Condition::at(*order.rebind) : dcs::Condition::absent());
  transaction.require(keys::term, at_or_absent(order.term.version));
  transaction.put(keys::leader, self.str(), dcs::Binding::session);
  transaction.put(keys::term, codec::dump_term(term));
  const auto committed = co_await store_.commit(std::move(transaction), deadline);

  const auto lock = written(committed, keys::leader);
  if (!lock) co_return lock.error();
  const auto count = written(committed, keys::term);
  if (!count) co_return count.error();
  term.version = *count;
  LeaderKey key;
  key.holder = std::move(self);
  key.version = *lock;
  key.session = std::move(session);
  std::pair<LeaderKey, Term> granted(std::move(key), std::move(term));
  co_return granted;
}

Async<void> ClusterStore::release_lock(ha::ReleaseLock order, TimePoint deadline) {
  dcs::Transaction transaction;
  require_lock(transaction, order.held);
  transaction.erase(keys::leader);
  // Whoever waits because of a promise to us learns that it may go on.
  if (order.term && order.term->version != dcs::Version{}) {
    order.term->released = true;
    transaction.require(keys::term, dcs::Condition::at(order.term->version));
    transaction.put(keys::term, codec::dump_term(*order.term));
  }
  if (!order.status.empty()) transaction.put(keys::status, std::move(order.status));
  const auto committed = co_await store_.commit(std::move(transaction), deadline);
  if (!committed) co_return committed.error().in("releasing the lock");
  co_return Result<void>();
}

Async<void> ClusterStore::publish_member(NodeName self, std::string value, TimePoint deadline) {
  const auto key = keys::member(self);
  dcs::Transaction transaction;
  transaction.put(key, std::move(value), dcs::Binding::session);
  const auto committed = co_await store_.commit(std::move(transaction), deadline);
  if (!committed) co_return committed.error().in("writing " + key);
  co_return Result<void>();
}

Async<dcs::Version> ClusterStore::write(std::string key,
                                        std::string value,
                                        std::optional<dcs::Version> at,
                                        std::optional<LeaderKey> fence,
                                        TimePoint deadline,
                                        dcs::Binding binding) {
  dcs::Transaction transaction;
  if (fence) require_lock(transaction, *fence);
  if (at) transaction.require(key, at_or_absent(*at));
  transaction.put(key, std::move(value), binding);
  const auto committed = co_await store_.commit(std::move(transaction), deadline);
  co_return written(committed, key);
}

Async<void> ClusterStore::erase(std::string key, dcs::Version at, TimePoint deadline) {
  dcs::Transaction transaction;
  transaction.require(key, dcs::Condition::at(at));
  transaction.erase(key);
  const auto committed = co_await store_.commit(std::move(transaction), deadline);
  if (!committed) co_return committed.error().in("erasing " + key);
  co_return Result<void>();
}

Async<void> ClusterStore::erase_all(TimePoint deadline) {
  const auto snapshot = co_await store_.read(dcs::Freshness::linearizable, deadline);
  if (!snapshot) co_return snapshot.error().in("reading what is to be erased");
  for (const auto& entry : snapshot->all()) {
    dcs::Transaction transaction;
    transaction.erase(entry.key);
    const auto committed = co_await store_.commit(std::move(transaction), deadline);
    if (!committed) co_return committed.error().in("erasing " + entry.key);
  }
  co_return Result<void>();
}

}  // namespace spilo
