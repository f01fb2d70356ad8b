// Conformance cases about keys, versions and transactions.
#include <algorithm>
#include <array>

#include "dcs_conformance_bench.hpp"

namespace spilo::testing::dcs_conformance {
namespace {

awaitable<void> round_trip(Bench& b) {
  Store& writer = b.client();
  Store& reader = b.client();
  std::vector<std::pair<std::string, std::string>> samples;
  samples.emplace_back("empty", "");
  samples.emplace_back("quotes", R"(it's "quoted" \ back; DROP TABLE keys; -- %s $1 ?1)");
  samples.emplace_back("utf8", "Grüße, 日本語, \xF0\x9F\x90\x98, e\xCC\x81");
  samples.emplace_back("control", "line\r\nnext\ttab\x01\x7F end ");
  samples.emplace_back("json", R"({"conn_url":"postgres://h:5432/p","a":[1,2,{"b":null}]})");
  samples.emplace_back("members/n-1.example_2", "a key as members have it");
  if (b.subject().keeps_nul()) samples.emplace_back("nul", std::string("a\0b\0\0c", 6));
  std::string large;
  while (large.size() < 100'000) large += fmt::format("{},", large.size());
  samples.emplace_back("large", large);
  for (const auto& [key, value] : samples) co_await b.put(writer, key, value);

  const Snapshot snapshot = co_await b.read(reader);
  expect(snapshot.all().size() == samples.size(),
         fmt::format("wrote {} keys, read {}", samples.size(), snapshot.all().size()));
  for (const auto& [key, value] : samples) {
    const Entry* entry = snapshot.find(key);
    expect(entry != nullptr, "key " + key + " is missing");
    expect(entry->value == value,
           fmt::format("key {}: wrote {} bytes, read {} bytes, not the same",
                       key,
                       value.size(),
                       entry->value.size()));
    expect(entry->owner.empty(), "key " + key + " is permanent but has an owner");
  }
}

awaitable<void> sorted_snapshot(Bench& b) {
  Store& store = b.client();
  // A key that sorts between "members" and "members/" in byte order shows an adapter that mistakes
  // prefixes for folders.
  for (const char* key : {"status", "members/n2", "leader", "members/n10", "members-old", "config"})
    co_await b.put(store, key, key);
  co_await b.put(store, "members/n1", "x");
  const Snapshot snapshot = co_await b.read(store);
  expect(std::ranges::is_sorted(snapshot.all(), {}, &Entry::key), "the snapshot is not sorted");
  std::string found;
  for (const Entry& entry : snapshot.under("members/")) found += entry.key + " ";
  expect(found == "members/n1 members/n10 members/n2 ", "under(\"members/\") gives: " + found);
  expect(snapshot.under("nothing/").empty(), "under(\"nothing/\") gives something");
  expect(snapshot.find("members") == nullptr, "find(\"members\") gives a key that was never put");
}

awaitable<void> create_and_count(Bench& b, Store& store, std::string value, int& won) {
  auto done = co_await b.create(store, "leader", value);
  if (done.has_value()) {
    ++won;
  } else {
    must_fail(done, errc::conflict, "create by " + value);
  }
}

awaitable<void> absent_wins_once(Bench& b) {
  std::vector<Store*> clients;
  for (int i = 0; i < 4; ++i) clients.push_back(&b.client());
  for (int round = 0; round < 5; ++round) {
    int won = 0;
    std::vector<awaitable<void>> writers;
    for (int i = 0; i < 24; ++i)
      writers.push_back(create_and_count(
          b, *clients[static_cast<std::size_t>(i) % 4], fmt::format("w{}", i), won));
    co_await all(std::move(writers));
    expect(won == 1, fmt::format("round {}: {} of 24 writers created the same key", round, won));
    co_await b.erase(*clients[0], "leader");
  }
}

awaitable<Result<Committed>> put_at(
    Bench& b, Store& store, std::string key, Version version, std::string value) {
  Transaction change;
  change.require(key, Condition::at(version)).put(key, std::move(value));
  auto done = co_await store.commit(std::move(change), b.soon());
  co_return done;
}

awaitable<void> compare_and_set(Bench& b) {
  Store& one = b.client();
  Store& two = b.client();
  const Version first = co_await b.put(one, "config", "1");
  const Version second = co_await b.put(two, "config", "2");
  expect(!(first == second), "a second write has the version of the first");
  auto stale = co_await put_at(b, one, "config", first, "stale");
  must_fail(stale, errc::conflict, "a write at a stale version");
  auto after_stale = co_await b.get(two, "config");
  expect(after_stale && after_stale->value == "2",
         "a write at a stale version was done all the same");
  auto current = co_await put_at(b, one, "config", second, "3");
  must(std::move(current), "a write at the current version");
  auto again = co_await put_at(b, one, "config", second, "4");
  must_fail(again, errc::conflict, "a second write at a version that was used up");
  auto missing = co_await put_at(b, one, "nothing", second, "5");
  must_fail(missing, errc::conflict, "a write at a version of a key that does not exist");
  auto created = co_await b.create(two, "config", "6");
  must_fail(created, errc::conflict, "require absent on a key that exists");
  auto last = co_await b.get(two, "config");
  expect(last && last->value == "3", "the value is not the one of the last write that succeeded");
}

awaitable<void> compare_and_count(Bench& b, Store& store, Version at, int i, int& won) {
  auto done = co_await put_at(b, store, "counter", at, fmt::format("{}", i));
  if (done.has_value()) {
    ++won;
  } else {
    must_fail(done, errc::conflict, "a concurrent write at one version");
  }
}

awaitable<void> compare_and_set_once(Bench& b) {
  Store& one = b.client();
  Store& two = b.client();
  const Version at = co_await b.put(one, "counter", "start");
  int won = 0;
  std::vector<awaitable<void>> writers;
  for (int i = 0; i < 16; ++i)
    writers.push_back(compare_and_count(b, i % 2 == 0 ? one : two, at, i, won));
  co_await all(std::move(writers));
  expect(won == 1, fmt::format("{} of 16 writers won at the same version", won));
}

awaitable<void> all_or_nothing(Bench& b) {
  Store& store = b.client();
  Store& other = b.client();
  const Version leader = co_await b.put(store, "leader", "n1");
  const Version sync = co_await b.put(store, "sync", "old");
  co_await b.put(store, "failover", "n2");

  Transaction bad;
  bad.require("leader", Condition::at(leader)).require("sync", Condition::absent());
  bad.put("status", "written").put("sync", "written").erase("failover");
  auto refused = co_await store.commit(std::move(bad), b.soon());
  must_fail(refused, errc::conflict, "a transaction with one requirement that does not hold");
  const Snapshot before = co_await b.read(other);
  expect(before.find("status") == nullptr && before.find("failover") != nullptr &&
             before.find("sync")->value == "old",
         "a part of a refused transaction was done");

  Transaction good;
  good.require("leader", Condition::at(leader)).require("sync", Condition::at(sync));
  good.put("status", "written").put("sync", "written").erase("failover");
  auto done = co_await store.commit(std::move(good), b.soon());
  const Committed committed = must(std::move(done), "a transaction whose requirements hold");
  const Snapshot after = co_await b.read(other);
  expect(after.find("status") != nullptr && after.find("sync")->value == "written" &&
             after.find("failover") == nullptr,
         "a part of a transaction that succeeded was not done");
  expect(committed.version_of("status") == after.find("status")->version &&
             committed.version_of("sync") == after.find("sync")->version,
         "the versions of a transaction of three changes are not what the next read shows");
  expect(after.find("leader")->version == leader, "a requirement alone changed the key's version");
}

awaitable<void> erase_missing(Bench& b) {
  Store& store = b.client();
  co_await b.erase(store, "never/there");
  co_await b.put(store, "here", "x");
  co_await b.erase(store, "here");
  co_await b.erase(store, "here");
  const Snapshot snapshot = co_await b.read(store);
  expect(snapshot.all().empty(), "an erased key is still there");
}

awaitable<void> era_is_a_fencing_token(Bench& b) {
  Store& store = b.client();
  Version last;
  for (int life = 0; life < 3; ++life) {
    const Version created = co_await b.put(store, "leader", "n1");
    expect(created.era > last.era,
           fmt::format("the key was created again, and its era went from {} to {}",
                       to_text(last),
                       to_text(created)));
    const Version rewritten = co_await b.put(store, "leader", "n1");
    expect(rewritten.era == created.era, "a rewrite changed the era");
    expect(rewritten.count != created.count, "a rewrite did not change the count");
    last = rewritten;
    // Another key's writes must not disturb it.
    co_await b.put(store, "status", fmt::format("{}", life));
    const auto seen = co_await b.get(store, "leader");
    expect(seen && seen->version == rewritten, "a write of another key changed the version");
    co_await b.erase(store, "leader");
  }
}

awaitable<void> committed_version(Bench& b) {
  Store& writer = b.client();
  Store& reader = b.client();
  for (int i = 0; i < 3; ++i) {
    const Version written = co_await b.put(writer, "history", fmt::format("[{}]", i));
    const auto seen = co_await b.get(reader, "history");
    expect(seen && seen->version == written,
           fmt::format("the commit says {}, the next read says {}",
                       to_text(written),
                       seen ? to_text(seen->version) : "nothing"));
  }
  Transaction change;
  change.put("a", "1").erase("history");
  auto done = co_await writer.commit(std::move(change), b.soon());
  const Committed committed = must(std::move(done), "put and erase");
  expect(!committed.version_of("history"), "an erased key has a version");
  expect(!committed.version_of("other"), "a key that was not written has a version");
}

awaitable<void> value_too_large(Bench& b) {
  Store& store = b.client();
  const std::size_t most = store.limits().value_bytes_max;
  expect(most >= 100'000, fmt::format("value_bytes_max is {}; a cluster needs 100,000", most));
  if (most > 16'000'000) co_return;  // nothing that anybody would meet
  Transaction change;
  change.put("small", "x").put("large", std::string(most + 1, 'v'));
  auto done = co_await store.commit(std::move(change), b.soon());
  must_fail(done, errc::invalid_argument, "a value above value_bytes_max");
  expect(done.error().detail().find(fmt::format("{}", most)) != std::string::npos,
         "the error does not name the limit: " + done.error().detail());
  const Snapshot snapshot = co_await b.read(store);
  expect(snapshot.all().empty(), "a part of the refused transaction was done");
}

awaitable<void> scopes_are_apart(Bench& b) {
  // One name is the beginning of the other: a prefix without its separator would show the keys of
  // both.
  Store& one = b.client_of(b.scope());
  Store& two = b.client_of(b.scope() + "2");
  co_await b.put(one, "leader", "of one");
  co_await b.put(two, "leader", "of two");
  co_await b.put(two, "config", "of two");
  const Snapshot first = co_await b.read(one);
  const Snapshot second = co_await b.read(two);
  expect(first.all().size() == 1 && first.find("leader")->value == "of one",
         "the first scope shows something of the second");
  expect(second.all().size() == 2 && second.find("leader")->value == "of two",
         "the second scope shows something of the first");
  co_await b.erase(one, "leader");
  const auto left = co_await b.get(two, "leader");
  expect(left.has_value(), "erasing in one scope erased in the other");
}

awaitable<void> put_checked(Bench& b, Store& store, int i) {
  const auto key = fmt::format("members/n{}", i);
  const Version written = co_await b.put(store, key, key);
  const auto seen = co_await b.get(store, key);
  expect(seen && seen->value == key && seen->version == written,
         "an operation got the answer of another one: " + key);
}

awaitable<void> read_checked(Bench& b, Store& store) {
  const Snapshot snapshot = co_await b.read(store);
  for (const Entry& entry : snapshot.all())
    expect(entry.value == entry.key, "a read shows a value of another key: " + entry.key);
}

awaitable<void> overlapping(Bench& b) {
  Store& store = b.client();
  std::vector<awaitable<void>> work;
  for (int i = 0; i < 20; ++i) {
    work.push_back(put_checked(b, store, i));
    work.push_back(read_checked(b, store));
  }
  co_await all(std::move(work));
  const Snapshot snapshot = co_await b.read(store);
  expect(snapshot.all().size() == 20, "not every one of 20 overlapping writes is there");
}

constexpr auto beside = Case::Company::beside_others;

}  // namespace

std::span<const Case> key_cases() noexcept {
  static const std::array list = {
      Case{"round_trip",
           "any text, quotes, UTF-8, control characters and 100 KB, is read as it was written",
           beside,
           {},
           round_trip},
      Case{"sorted_snapshot",
           "a snapshot is sorted by key, and under() gives exactly the keys with that prefix",
           beside,
           {},
           sorted_snapshot},
      Case{"absent_wins_once",
           "of many writers that require a key to be absent exactly one creates it",
           beside,
           {},
           absent_wins_once},
      Case{"compare_and_set",
           "a write at a stale version is a conflict and does nothing, one at the current version "
           "wins",
           beside,
           {},
           compare_and_set},
      Case{"compare_and_set_once",
           "of many concurrent writers at one version exactly one wins",
           beside,
           {},
           compare_and_set_once},
      Case{"all_or_nothing",
           "a transaction of several keys is done as a whole or not at all",
           beside,
           {},
           all_or_nothing},
      Case{"erase_missing", "erasing what is not there is no error", beside, {}, erase_missing},
      Case{"era_is_a_fencing_token",
           "a key that is created again has a greater era, one that is rewritten keeps it",
           beside,
           {},
           era_is_a_fencing_token},
      Case{"committed_version",
           "the version that a commit answers is the one that the next read shows",
           beside,
           {},
           committed_version},
      Case{"value_too_large",
           "a value above the limit is an invalid argument whose text names the limit, and nothing "
           "is done",
           beside,
           {},
           value_too_large},
      Case{"scopes_are_apart",
           "two scopes of one store do not see each other",
           beside,
           {},
           scopes_are_apart},
      Case{"overlapping",
           "operations of one client that overlap each get their own answer",
           beside,
           {},
           overlapping},
  };
  return list;
}

}  // namespace spilo::testing::dcs_conformance
