#include "spilo/testing/dcs_conformance.hpp"

#include <boost/asio/deferred.hpp>
#include <boost/asio/experimental/parallel_group.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <exception>

#include "dcs_conformance_bench.hpp"
#include "spilo/core/assert.hpp"
#include "spilo/runtime/with_deadline.hpp"

namespace spilo::testing::dcs_conformance {
namespace asio = boost::asio;

std::string_view to_text(Fault fault) noexcept {
  switch (fault) {
    case Fault::freeze_server:
      return "freeze_server";
    case Fault::cut_answers:
      return "cut_answers";
    case Fault::restart_server:
      return "restart_server";
    case Fault::kill_leader:
      return "kill_leader";
  }
  return "unknown fault";
}

std::optional<std::string> Subject::why_not(Fault) const {
  return "the subject implements no such hook";
}
namespace {
// Why_not() has promised a hook that the subject does not override.
Failed without(std::string_view hook) {
  return Failed(
      fmt::format("why_not() says that the subject can do it, but it overrides no {}()", hook));
}
}  // namespace

awaitable<void> Subject::freeze_server() {
  throw without("freeze_server");
}
awaitable<void> Subject::thaw_server() {
  throw without("thaw_server");
}
awaitable<void> Subject::cut_answers(bool) {
  throw without("cut_answers");
}
awaitable<void> Subject::restart_server() {
  throw without("restart_server");
}
awaitable<void> Subject::kill_leader() {
  throw without("kill_leader");
}
awaitable<void> Subject::revive_leader() {
  throw without("revive_leader");
}

// ---- Bench -------------------------------------------------------------------------------------

awaitable<Version> Bench::put(Store& store, std::string key, std::string value, Binding binding) {
  Transaction change;
  change.put(key, std::move(value), binding);
  auto done = co_await store.commit(std::move(change), soon());
  const auto written = must(std::move(done), "put " + key).version_of(key);
  expect(written.has_value(), "put " + key + ": the commit does not tell the version it wrote");
  co_return *written;
}

awaitable<void> Bench::erase(Store& store, std::string key) {
  Transaction change;
  change.erase(key);
  auto done = co_await store.commit(std::move(change), soon());
  must(std::move(done), "erase " + key);
}

awaitable<Snapshot> Bench::read(Store& store) {
  auto snapshot = co_await store.read(Freshness::linearizable, soon());
  co_return must(std::move(snapshot), "read");
}

awaitable<Lease> Bench::renew(Store& store) {
  auto lease = co_await store.renew(ttl(), soon());
  co_return must(std::move(lease), "renew");
}

awaitable<void> Bench::end_session(Store& store) {
  // A connection may break on a busy machine: then it is asked for again, as a client would.
  Result<void> ended = Error(errc::ambiguous);
  for (int tries = 0; tries < 3 && ended.has_error() && ended.error().is(errc::ambiguous); ++tries)
    ended = co_await store.end_session(soon());
  must(std::move(ended), "end_session");
}

awaitable<std::optional<Entry>> Bench::get(Store& store, std::string key) {
  const Snapshot snapshot = co_await read(store);
  const Entry* entry = snapshot.find(key);
  std::optional<Entry> found;
  if (entry != nullptr) found = *entry;
  co_return found;
}

awaitable<Result<Committed>> Bench::create(Store& store,
                                           std::string key,
                                           std::string value,
                                           Binding binding) {
  Transaction change;
  change.require(key, Condition::absent()).put(key, std::move(value), binding);
  auto done = co_await store.commit(std::move(change), soon());
  co_return done;
}

awaitable<void> Bench::sleep(Duration duration) {
  const bool waited = co_await sleep_until(clock(), in(duration));
  expect(waited, "the wait was cancelled");
}

awaitable<void> all(std::vector<awaitable<void>> work) {
  if (work.empty()) co_return;
  auto executor = co_await asio::this_coro::executor;
  using Started =
      decltype(asio::co_spawn(executor, std::declval<awaitable<void>>(), asio::deferred));
  std::vector<Started> started;
  started.reserve(work.size());
  for (auto& one : work)
    started.push_back(asio::co_spawn(executor, std::move(one), asio::deferred));
  auto group = asio::experimental::make_parallel_group(std::move(started));
  auto outcome = co_await group.async_wait(asio::experimental::wait_for_all(), asio::use_awaitable);
  for (const auto& failure : std::get<1>(outcome))
    if (failure) std::rethrow_exception(failure);
}

// ---- the runner --------------------------------------------------------------------------------

namespace {

// A case that takes longer than this by the subject's clock hangs.
constexpr Duration case_limit = seconds(120);

Async<bool> as_operation(awaitable<void> work) {
  co_await std::move(work);
  co_return true;
}

// Ends what a failed case may have left behind, so that the next one starts with a healthy server.
awaitable<void> heal(Subject& subject, Fault fault) {
  switch (fault) {
    case Fault::freeze_server:
      co_await subject.thaw_server();
      break;
    case Fault::cut_answers:
      co_await subject.cut_answers(false);
      break;
    case Fault::restart_server:
      break;
    case Fault::kill_leader:
      co_await subject.revive_leader();
      break;
  }
}

std::string text_of(std::exception_ptr failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const Failed& failed) {
    return failed.text;
  } catch (const std::exception& exception) {
    return fmt::format("an exception crossed the port: {}", exception.what());
  } catch (...) {
    return "an unknown exception crossed the port";
  }
}

awaitable<void> run_one(Bench& bench, const Case& one, Outcome& outcome) {
  const TimePoint started = bench.now();
  std::exception_ptr failure;
  try {
    auto ended =
        co_await with_deadline(bench.clock(), started + case_limit, as_operation(one.run(bench)));
    if (!ended.has_value()) throw Failed("hangs: not over after " + to_text(case_limit));
    outcome.verdict = Verdict::passed;
  } catch (...) {
    failure = std::current_exception();
  }
  if (failure && one.needs) {
    try {
      co_await heal(bench.subject(), *one.needs);
    } catch (...) {
      // The case's own failure says more than the one of its cleaning up.
    }
  }
  if (failure) {
    outcome.verdict = Verdict::failed;
    outcome.text = text_of(failure);
  }
  outcome.took = bench.now() - started;
}

// True when the case has to run; otherwise the outcome says why it is skipped.
bool prepare(const Subject& subject, const Case& one, Outcome& outcome) {
  outcome.name = std::string(one.name);
  outcome.sentence = std::string(one.sentence);
  if (!one.needs) return true;
  const auto reason = subject.why_not(*one.needs);
  if (!reason) return true;
  outcome.verdict = Verdict::skipped;
  outcome.text = fmt::format("needs {}: {}", to_text(*one.needs), *reason);
  return false;
}

// Unique in this store: the time is part of it, because a server may still hold what an earlier run
// left.
std::string fresh_scope(Subject& subject, std::string_view name) {
  return fmt::format("conformance-{}-{}", subject.clock().now().time_since_epoch().count(), name);
}

awaitable<void> run_and_report(Bench& bench,
                               const Case& one,
                               Outcome& outcome,
                               const std::function<void(const Outcome&)>& report) {
  co_await run_one(bench, one, outcome);
  if (report) report(outcome);
}

}  // namespace

std::span<const Case> cases() noexcept {
  static const std::vector<Case> list = [] {
    std::vector<Case> joined;
    for (const auto part :
         {key_cases(), session_cases(), change_cases(), fault_cases(), takeover_cases()})
      joined.insert(joined.end(), part.begin(), part.end());
    return joined;
  }();
  return list;
}

Outcome run_case(Subject& subject, const Case& one) {
  Outcome outcome;
  if (!prepare(subject, one, outcome)) return outcome;
  Bench bench(subject, fresh_scope(subject, one.name));
  subject.run_until(run_one(bench, one, outcome));
  return outcome;
}

std::vector<Outcome> run_all(Subject& subject,
                             std::function<void(const Outcome&)> report,
                             std::string_view only) {
  std::vector<const Case*> chosen;
  for (const Case& one : cases())
    if (one.name.starts_with(only)) chosen.push_back(&one);
  std::vector<Outcome> outcomes(chosen.size());
  std::vector<Bench> benches;
  benches.reserve(chosen.size());
  std::vector<awaitable<void>> together;
  std::vector<std::size_t> alone;
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    benches.emplace_back(subject, fresh_scope(subject, chosen[i]->name));
    if (!prepare(subject, *chosen[i], outcomes[i])) {
      if (report) report(outcomes[i]);
    } else if (chosen[i]->company == Case::Company::alone) {
      alone.push_back(i);
    } else {
      together.push_back(run_and_report(benches[i], *chosen[i], outcomes[i], report));
    }
  }
  subject.run_until(all(std::move(together)));
  for (const std::size_t i : alone)
    subject.run_until(run_and_report(benches[i], *chosen[i], outcomes[i], report));
  return outcomes;
}

std::string to_text(const Outcome& outcome) {
  constexpr std::string_view words[] = {"passed", "FAILED", "skipped"};
  const auto word = words[static_cast<std::size_t>(outcome.verdict)];
  auto line = fmt::format(
      "{:<8}{:>9}  {}: {}", word, to_text(outcome.took), outcome.name, outcome.sentence);
  if (!outcome.text.empty()) line += "\n                   " + outcome.text;
  return line;
}

int run_and_print(Subject& subject, std::FILE* out, std::string_view only) {
  const TimePoint started = subject.clock().now();
  int counts[3] = {};
  run_all(
      subject,
      [&](const Outcome& outcome) {
        ++counts[static_cast<std::size_t>(outcome.verdict)];
        fmt::print(out, "{}\n", to_text(outcome));
        std::fflush(out);
      },
      only);
  fmt::print(out,
             "{}: {} passed, {} failed, {} skipped in {}\n",
             subject.name(),
             counts[0],
             counts[1],
             counts[2],
             to_text(subject.clock().now() - started));
  return counts[1];
}

}  // namespace spilo::testing::dcs_conformance
