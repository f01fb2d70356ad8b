// The brain: a pure function from facts to effects, and the object that folds events into facts. No
// I/O, no clock, no threads.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "spilo/ha/effect.hpp"
#include "spilo/ha/event.hpp"
#include "spilo/ha/facts.hpp"

namespace spilo::ha {

struct Decision {
  std::vector<Effect> effects;
  Memory memory;
  TimePoint wake_at{};    // call again no later than this
  std::string_view rule;  // "lease-expiring": stable, documented, greppable
  std::string
      summary;  // what the node is doing and why, one sentence with the values it was decided on
  bool operator==(const Decision&) const = default;
};

// Pure: equal arguments give equal results. The rule order is in ha/decide.cpp on one screen.
Decision decide(const Identity& identity, const Facts& facts, const Memory& memory);

// Do we hold the lock, as far as the facts show: the key names us, is bound to our present session,
// and that session is valid now.
bool holds_lock(const Identity& identity, const Facts& facts) noexcept;
// Until when nobody else can lead: the end of our lease (with failsafe: of the members' promise),
// zero without either.
TimePoint safe_until(const Identity& identity, const Facts& facts, const Memory& memory) noexcept;
// When the guard must end the server: safe_until less drift and a hard stop. Zero: nothing to
// guard, stand down. Nothing: leave the guard as it is (a writable server without a lock that we
// know of, right after a restart of the agent: the deadline of the last life stands).
std::optional<TimePoint> guard_deadline(const Identity& identity,
                                        const Facts& facts,
                                        const Memory& memory) noexcept;
// Where guard_deadline is nothing and a running primary binds the lock to a new session: what the
// guard may hold at most, whatever it was told in an earlier life. Once that write is done the old
// session bounds nothing any more, and the new one may end earlier (a shorter ttl); its answer may
// be lost, or we with it. An agent that has a promise of its own (failsafe, reclaim) holds to that.
std::optional<TimePoint> guard_limit(const Identity& identity, const Facts& facts) noexcept;
// What this node publishes about itself (contract 2): "running", "creating replica", …; "primary",
// "replica", "demoted", …
std::string member_state(const Identity& identity, const Facts& facts, const Memory& memory);
std::string member_role(const Identity& identity, const Facts& facts, const Memory& memory);
// The timing in force: the store's configuration, else the local one.
const Timing& timing(const Identity& identity, const Facts& facts) noexcept;

// Folds an event into the facts, then decides.
class Machine {
 public:
  explicit Machine(Identity identity) : identity_(std::move(identity)) {}
  Decision step(TimePoint now, WallTime wall, Event event);
  const Identity& identity() const noexcept { return identity_; }
  const Facts& facts() const noexcept { return facts_; }
  const Memory& memory() const noexcept { return memory_; }

 private:
  void fold(Event event);
  void mark_started(const std::vector<Effect>& effects);

  Identity identity_;
  Facts facts_;
  Memory memory_;
};

// A rule either decides or passes. Rules are tried in order; the first to decide wins.
struct NamedRule {
  std::string_view name;
  std::string_view sentence;
};
// Every rule a decision can name, in the order they are tried; `spiloctl rules` prints them.
std::span<const NamedRule> rules() noexcept;

}  // namespace spilo::ha
