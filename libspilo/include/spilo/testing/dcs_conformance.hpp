// The definition of dcs::Store in code: named cases that every adapter has to pass, ours and yours.
//
// To prove a store, implement Subject for it and call run_and_print(subject, stdout); it returns
// the number of failed cases. The suite depends on no test framework. It looks at time only through
// the subject's clock and waits only through the subject's executor, so it runs against real
// servers on an io_context and against a simulator in virtual time alike. All of it happens on one
// thread, inside Subject::run_until.
//
// With a real store the suite takes about twelve times the least ttl: cases that only wait run side
// by side, each in a scope of its own; cases that break the server, or count the descriptors of the
// process, run alone afterwards.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <cstdio>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "spilo/core/ids.hpp"
#include "spilo/core/time.hpp"
#include "spilo/ports/clock.hpp"
#include "spilo/ports/dcs.hpp"

namespace spilo::testing::dcs_conformance {

// What can be done to the server behind the store. A case that needs a fault which the subject
// can't cause is skipped.
enum class Fault {
  freeze_server,   // the server answers nothing, and refuses nothing either, until it is thawed
  cut_answers,     // requests reach the server and take effect, their answers are lost
  restart_server,  // the server stops and comes back with what it had stored
  kill_leader,     // of several servers the one that leads dies, the others go on without it
};
std::string_view to_text(Fault fault) noexcept;

// The store under test. Every member is called on the thread that called run_case() or run_all().
class Subject {
 public:
  virtual ~Subject() = default;

  virtual std::string name() const = 0;  // "sqlite"; for the report
  virtual Clock& clock() = 0;
  // Starts `work` on the executor that the clients use and drives that executor until `work` has
  // completed. Rethrows what it throws. Called once for each case or group of cases, never from
  // inside itself.
  virtual void run_until(boost::asio::awaitable<void> work) = 0;
  // Another client of the same server, with a session of its own, rooted at `scope`. Called from
  // inside run_until. The suite uses the reference until that run_until has returned; the subject
  // owns the client and may destroy it any time after that.
  virtual dcs::Store& make_client(Scope scope) = 0;

  // The least ttl that the store grants exactly as asked for; at least 1 s, because expiry is
  // observed while it runs out.
  virtual Duration ttl() const = 0;
  // A key of a silent session is gone at the latest this long after the holder's own valid_until.
  virtual Duration expiry_slack() const = 0;
  // Another client's change wakes a waiter within this time, also on a busy machine.
  virtual Duration wake_within() const { return std::chrono::seconds(1); }
  // After kill_leader the others answer again within this time.
  virtual Duration takeover_within() const { return std::chrono::seconds(10); }
  // False when a value can't carry NUL bytes.
  virtual bool keeps_nul() const { return true; }
  // From now on this client must not keep its session alive by itself. Only stores whose client
  // library pings on its own (ZooKeeper) have something to do here; the suite simply stops calling
  // renew() on it.
  virtual void silence(dcs::Store& client) { static_cast<void>(client); }

  // Why the subject can't cause this fault, or nothing when it can; then the matching hooks must be
  // implemented. Each hook completes when the fault is in effect, or over; the suite always ends a
  // fault that it began, also when a case fails.
  virtual std::optional<std::string> why_not(Fault fault) const;
  virtual boost::asio::awaitable<void> freeze_server();
  virtual boost::asio::awaitable<void> thaw_server();
  virtual boost::asio::awaitable<void> cut_answers(bool cut);
  virtual boost::asio::awaitable<void> restart_server();
  // Completes when the leader is dead; nobody needs to have taken over yet. Its end brings the dead
  // one back, and may be called without a beginning.
  virtual boost::asio::awaitable<void> kill_leader();
  virtual boost::asio::awaitable<void> revive_leader();
};

class Bench;  // what a case works with; internal

class Case {
 public:
  using Run = boost::asio::awaitable<void> (*)(Bench& bench);
  // Where a case may run: beside others in its own scope, or alone.
  enum class Company { beside_others, alone };

  std::string_view name;      // "absent_wins_once"
  std::string_view sentence;  // what it proves
  Company company = Company::beside_others;
  std::optional<Fault> needs;
  Run run = nullptr;
};
std::span<const Case> cases() noexcept;

enum class Verdict { passed, failed, skipped };

class Outcome {
 public:
  std::string name;
  std::string sentence;
  Verdict verdict = Verdict::failed;
  std::string text;  // failed: what was expected and what came back; skipped: why
  Duration took{};   // by the subject's clock
};

Outcome run_case(Subject& subject, const Case& one);
// Runs the cases whose name begins with `only` (all of them when it is empty) and reports each as
// it ends.
std::vector<Outcome> run_all(Subject& subject,
                             std::function<void(const Outcome&)> report = {},
                             std::string_view only = {});
// "passed   1.02 s  absent_wins_once: of many …", one line.
std::string to_text(const Outcome& outcome);
// Prints a line for each case and a summary; returns how many failed.
int run_and_print(Subject& subject, std::FILE* out, std::string_view only = {});

}  // namespace spilo::testing::dcs_conformance
