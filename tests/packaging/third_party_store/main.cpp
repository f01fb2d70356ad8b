// Proves DirectoryStore: what a third party writes to run the conformance suite against its store.
//
//   third_party_store suite                runs the whole suite; the exit status says whether it
//   passed third_party_store mutants              each mutated store must fail the case that looks
//   for its
//                                          mistake, and the store without one must pass them all
//   third_party_store count DIRECTORY N    adds 1 to a key N times by compare-and-set, beside other
//                                          processes that do the same
#include <fcntl.h>
#include <fmt/format.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "directory_store.hpp"
#include "mutants.hpp"
#include "spilo/testing/io_subject.hpp"

namespace {

using namespace example;
namespace conformance = spilo::testing::dcs_conformance;

class TempDirectory {
 public:
  TempDirectory() {
    // In memory, because it is not the disk of a busy machine that is to be judged.
    const bool memory = ::access("/dev/shm", W_OK) == 0;
    std::string pattern =
        memory ? "/dev/shm/spilo-third-party-XXXXXX" : "/tmp/spilo-third-party-XXXXXX";
    if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("mkdtemp failed");
    path_ = pattern;
  }
  ~TempDirectory() { std::filesystem::remove_all(path_); }
  TempDirectory(const TempDirectory&) = delete;
  TempDirectory& operator=(const TempDirectory&) = delete;
  const std::string& path() const noexcept { return path_; }

 private:
  std::string path_;
};

// The clients share one directory. Its "server" is the lock: who takes it and does nothing freezes
// the store.
class DirectorySubject final : public conformance::IoSubject {
 public:
  using Wrap =
      std::function<std::unique_ptr<dcs::Store>(spilo::Clock&, std::unique_ptr<dcs::Store>)>;
  explicit DirectorySubject(Wrap wrap = {}) : wrap_(std::move(wrap)) {}

  std::string name() const override { return "directory"; }
  dcs::Store& make_client(spilo::Scope scope) override {
    std::unique_ptr<dcs::Store> store =
        std::make_unique<DirectoryStore>(clock(), directory_.path(), std::move(scope));
    if (wrap_) store = wrap_(clock(), std::move(store));
    clients_.push_back(std::move(store));
    return *clients_.back();
  }
  Duration ttl() const override { return 1s; }
  Duration expiry_slack() const override { return 300ms; }

  std::optional<std::string> why_not(conformance::Fault fault) const override {
    if (fault == conformance::Fault::freeze_server) return {};
    return "a directory has no server";
  }
  boost::asio::awaitable<void> freeze_server() override {
    frozen_ = ::open((directory_.path() + "/lock").c_str(), O_RDWR | O_CLOEXEC);
    // Nobody holds it over a suspension, so it is free now.
    if (frozen_ < 0 || ::flock(frozen_, LOCK_EX | LOCK_NB) != 0)
      throw std::runtime_error("can't take the lock");
    co_return;
  }
  boost::asio::awaitable<void> thaw_server() override {
    ::close(frozen_);
    co_return;
  }

 private:
  Wrap wrap_;
  TempDirectory directory_;
  std::vector<std::unique_ptr<dcs::Store>> clients_;
  int frozen_ = -1;
};

// How the case that looks for a mistake ends, with the mistake and without.
conformance::Outcome judge(const Mutation& mutation, Mistake mistake) {
  for (const auto& one : conformance::cases()) {
    if (one.name != mutation.found_by) continue;
    DirectorySubject subject([&](spilo::Clock& clock, std::unique_ptr<dcs::Store> right) {
      return std::make_unique<MutantStore>(clock, std::move(right), mistake, mutation.delay);
    });
    return conformance::run_case(subject, one);
  }
  throw std::runtime_error("the suite has no case " + std::string(mutation.found_by));
}

int judge_mutants() {
  std::size_t found = 0;
  for (const auto& mutation : mutations) {
    const auto outcome = judge(mutation, mutation.mistake);
    bool good = outcome.verdict == conformance::Verdict::failed;
    fmt::print("{:<8} {:<19} {}\n", good ? "found" : "MISSED", mutation.name, to_text(outcome));
    if (mutation.delay > Duration{}) {
      const auto right = judge(mutation, Mistake::none);
      good = good && right.verdict == conformance::Verdict::passed;
      fmt::print("{:<28} {}\n", "  without the mistake", to_text(right));
    }
    std::fflush(stdout);
    if (good) ++found;
  }
  fmt::print("{} of {} mistakes were found\n", found, mutations.size());
  return found == mutations.size() ? 0 : 1;
}

boost::asio::awaitable<void> count(spilo::Clock& clock, dcs::Store& store, int rounds) {
  for (int done = 0; done < rounds;) {
    auto seen = co_await store.read(dcs::Freshness::linearizable, clock.now() + 10s);
    if (seen.has_error()) throw std::runtime_error(seen.error().text());
    const auto* entry = seen->find("count");
    const int value = entry != nullptr ? std::stoi(entry->value) : 0;
    dcs::Transaction next;
    next.require("count",
                 entry != nullptr ? dcs::Condition::at(entry->version) : dcs::Condition::absent());
    next.put("count", std::to_string(value + 1));
    auto written = co_await store.commit(std::move(next), clock.now() + 10s);
    if (written.has_value()) ++done;
    if (written.has_error() && !written.error().is(errc::conflict))
      throw std::runtime_error(written.error().text());
    if (written.has_value() && done == rounds) fmt::print("{}\n", value + 1);
  }
}

class Context final : public conformance::IoSubject {  // a clock and an executor, nothing else
 public:
  std::string name() const override { return ""; }
  dcs::Store& make_client(spilo::Scope) override { throw std::logic_error("not used"); }
  Duration ttl() const override { return 1s; }
  Duration expiry_slack() const override { return 1s; }
};

}  // namespace

int main(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "";
  if (mode == "suite" && argc == 2) {
    DirectorySubject subject;
    return conformance::run_and_print(subject, stdout) == 0 ? 0 : 1;
  }
  if (mode == "mutants" && argc == 2) return judge_mutants();
  if (mode == "count" && argc == 4) {
    Context context;
    DirectoryStore store(context.clock(), argv[2], spilo::Scope("count"));
    context.run_until(count(context.clock(), store, std::stoi(argv[3])));
    return 0;
  }
  std::fputs("usage: third_party_store suite | mutants | count DIRECTORY N\n", stderr);
  return 2;
}
