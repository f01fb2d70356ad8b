// A store that libspilo knows nothing of: one directory, whose file `state` holds everything and is
// replaced as a whole, under a lock. An example of an adapter outside of the tree: simple rather
// than fast, correct, and with the suite as the judge of that. One thing it leaves to better ones:
// a commit waits for the disk on the event loop, so a slow disk delays the renewals of this
// process.
//
// Any number of clients, in any number of processes of one machine, may share the directory.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "spilo/core/ids.hpp"
#include "spilo/ports/clock.hpp"
#include "spilo/ports/dcs.hpp"

namespace example {

using spilo::Async;
using spilo::Duration;
using spilo::Error;
using spilo::Result;
using spilo::TimePoint;
namespace dcs = spilo::dcs;

// What the file holds. `counter` grows with every change and is never set back: the source of all
// versions and indexes.
struct State {
  struct Key {
    std::string value;
    dcs::Version version;
    std::string owner;  // the session that it is bound to; empty: permanent
  };
  struct Session {
    TimePoint expires{};
    std::string scope;
  };
  std::string boot_id;
  std::uint64_t counter = 1;
  std::map<std::string, Session> sessions;
  std::map<std::pair<std::string, std::string>, Key> keys;  // by scope and name
  std::map<std::string, std::uint64_t> changed;             // by scope: counter of its last change
};

class DirectoryStore final : public dcs::Store {
 public:
  // The directory must exist. The clock must be the same for all clients of the directory and go on
  // while the machine is suspended: spilo::SystemClock. The clock outlives the store.
  DirectoryStore(spilo::Clock& clock, std::string directory, spilo::Scope scope);

  dcs::Limits limits() const noexcept override;
  Async<dcs::Snapshot> read(dcs::Freshness freshness, TimePoint deadline) override;
  Async<dcs::Committed> commit(dcs::Transaction transaction, TimePoint deadline) override;
  Async<dcs::Lease> renew(Duration ttl, TimePoint deadline) override;
  Async<void> end_session(TimePoint deadline) override;
  Async<dcs::Index> changed_since(dcs::Index seen, TimePoint deadline) override;

 private:
  class Locked;
  Async<std::shared_ptr<Locked>> lock(const char* verb, TimePoint deadline);
  Error failed(spilo::errc code, const char* verb, const std::string& what) const;
  std::string name_new_session(State& state) const;

  spilo::Clock& clock_;
  std::string directory_;
  std::string scope_;
  std::string session_;
};

}  // namespace example
