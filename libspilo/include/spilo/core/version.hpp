// Versions of keys in a store: part of the pure layers, because a decision carries the versions it
// was based on.
#pragma once

#include <compare>
#include <cstdint>

namespace spilo::dcs {

// Opaque per-key version for compare-and-set; equality only, never do arithmetic on it.
//   era    identifies this life of the key and only grows over the life of the store: etcd
//   create_revision, Consul CreateIndex,
//          ZooKeeper czxid, SQLite the row's creation number. The leader key's era is the fencing
//          token of that grant.
//   count  changes with every write of the key: etcd mod_revision, Consul ModifyIndex, ZooKeeper
//   dataVersion, SQLite row version.
struct Version {
  std::uint64_t era = 0;
  std::uint64_t count = 0;
  bool operator==(const Version&) const = default;
};

// Position of the whole subtree, for Store::changed_since(). Zero means "before everything".
struct Index {
  std::uint64_t value = 0;
  auto operator<=>(const Index&) const = default;
};

}  // namespace spilo::dcs
