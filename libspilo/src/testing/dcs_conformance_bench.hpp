// What the cases of the conformance suite are written with. A case is a coroutine that throws
// Failed at the first surprise.
#pragma once

#include <fmt/format.h>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/this_coro.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "spilo/testing/dcs_conformance.hpp"

namespace spilo::testing::dcs_conformance {

using boost::asio::awaitable;
using dcs::Binding;
using dcs::Committed;
using dcs::Condition;
using dcs::Entry;
using dcs::Freshness;
using dcs::Index;
using dcs::Lease;
using dcs::Snapshot;
using dcs::Store;
using dcs::Transaction;
using dcs::Version;
using std::chrono::milliseconds;
using std::chrono::seconds;

// Thrown by a case, caught by the runner; never crosses the store's port.
class Failed {
 public:
  explicit Failed(std::string what) : text(std::move(what)) {}
  std::string text;
};

inline void expect(bool held, std::string_view what) {
  if (!held) throw Failed(std::string(what));
}

inline std::string to_text(Duration duration) {
  return fmt::format("{:.3f} s", std::chrono::duration<double>(duration).count());
}
inline std::string to_text(Version version) {
  return fmt::format("{}/{}", version.era, version.count);
}

// The value, or Failed with the error's text.
template <class T>
T must(Result<T> result, std::string_view what) {
  if (!result.has_value())
    throw Failed(fmt::format("{}: expected success, got: {}", what, result.error().text()));
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

template <class T>
void must_fail(const Result<T>& result, errc code, std::string_view what) {
  if (result.has_value())
    throw Failed(fmt::format("{}: expected \"{}\", got success", what, Error(code).text()));
  if (!result.error().is(code))
    throw Failed(fmt::format(
        "{}: expected \"{}\", got: {}", what, Error(code).text(), result.error().text()));
}

// The subject, and a scope that no other case and no earlier run has used.
class Bench {
 public:
  Bench(Subject& subject, std::string scope) : subject_(subject), scope_(std::move(scope)) {}

  Subject& subject() noexcept { return subject_; }
  Clock& clock() noexcept { return subject_.clock(); }
  TimePoint now() const noexcept { return subject_.clock().now(); }
  TimePoint in(Duration duration) const noexcept { return now() + duration; }
  // A deadline for operations that are expected to answer.
  TimePoint soon() const noexcept { return now() + seconds(10); }
  Duration ttl() const noexcept { return subject_.ttl(); }
  const std::string& scope() const noexcept { return scope_; }
  Store& client() { return subject_.make_client(Scope(scope_)); }
  Store& client_of(std::string scope) { return subject_.make_client(Scope(std::move(scope))); }

  // Operations that must succeed. put and put_at return the version that was written.
  awaitable<Version> put(Store& store,
                         std::string key,
                         std::string value,
                         Binding binding = Binding::permanent);
  awaitable<void> erase(Store& store, std::string key);
  awaitable<Snapshot> read(Store& store);
  awaitable<Lease> renew(Store& store);
  awaitable<void> end_session(Store& store);
  // The entry, or nothing.
  awaitable<std::optional<Entry>> get(Store& store, std::string key);
  // One attempt to create a key that must not exist.
  awaitable<Result<Committed>> create(Store& store,
                                      std::string key,
                                      std::string value,
                                      Binding binding = Binding::permanent);
  awaitable<void> sleep(Duration duration);

 private:
  Subject& subject_;
  std::string scope_;
};

// What the operations of several servers' clients meet while those servers can't answer; see
// dcs_conformance_faults.cpp.
void expect_silence(const Error& error, std::string_view what);
void expect_unknown(const Error& error, std::string_view what);
// Read and write until the server answers again; Failed when it does not within 20 s.
awaitable<Snapshot> read_again(Bench& b, Store& store);
awaitable<void> write_again(Bench& b, Store& store, std::string key, std::string value);

// Runs all of them side by side; throws the first failure after every one has ended.
awaitable<void> all(std::vector<awaitable<void>> work);

// Each file of cases contributes its list.
std::span<const Case> key_cases() noexcept;
std::span<const Case> session_cases() noexcept;
std::span<const Case> change_cases() noexcept;
std::span<const Case> fault_cases() noexcept;
std::span<const Case> takeover_cases() noexcept;

}  // namespace spilo::testing::dcs_conformance
