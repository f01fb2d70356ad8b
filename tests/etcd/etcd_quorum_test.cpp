// What a node sees of a cluster of three whose members fail one after another. The times are
// printed.
#include <doctest/doctest.h>

#include "etcd/etcd_world.hpp"

using namespace spilo;
using namespace spilo::test;
using namespace std::chrono_literals;

namespace {
const auto no_etcd = doctest::skip(!have_etcd());

double ms(Duration time) {
  return std::chrono::duration<double, std::milli>(time).count();
}

// What a lease keeper does, beside a waiter: renewals twice a second, each with the lease's end as
// its deadline.
class Keeper {
 public:
  Keeper(EtcdWorld& w, dcs::Store& store, Duration ttl) : w_(w), store_(store), ttl_(ttl) {
    const auto lease = w_.renew(store_, ttl_, 10s);
    REQUIRE_MESSAGE(lease.has_value(), lease.error().text());
    lease_ = *lease;
    const auto put = w_.put(store_, "leader", "n1", 10s, dcs::Binding::session);
    REQUIRE_MESSAGE(put.has_value(), put.error().text());
    const auto read = w_.read(store_, 10s);
    REQUIRE_MESSAGE(read.has_value(), read.error().text());
    version_ = read->find("leader")->version;
    seen_ = read->index();
  }
  // Until the condition holds and one renewal more has succeeded. Returns how long the longest of
  // them took.
  template <class Condition>
  Duration renew_until(const char* what, Condition condition, Duration limit = 20s) {
    Duration longest{};
    const auto began = w_.clock.now();
    for (bool last = false; !last;) {
      last = condition();
      REQUIRE(w_.clock.now() - began < limit);
      const auto sent = w_.clock.now();
      const auto renewed = run(w_.io, store_.renew(ttl_, lease_.valid_until));
      REQUIRE_MESSAGE(renewed.has_value(), what, ": ", renewed.error().text(), "\n", w_.log);
      longest = std::max(longest, w_.clock.now() - sent);
      CHECK(renewed->session == lease_.session);
      lease_ = *renewed;
      // The half second between two renewals belongs to the waiter.
      const auto changed = w_.changed(store_, seen_, 500ms);
      if (changed.has_value()) {
        const auto read = w_.read(store_, 10s);
        REQUIRE_MESSAGE(read.has_value(), read.error().text());
        CHECK(read->find("leader")->version == version_);
        seen_ = read->index();
        const auto* status = read->find("status");
        shown = status != nullptr ? status->value : "";
      }
    }
    std::printf("%-48s longest renewal %7.1f ms\n", what, ms(longest));
    return longest;
  }
  std::string shown;  // what the waiter has seen of "status"

 private:
  EtcdWorld& w_;
  dcs::Store& store_;
  Duration ttl_;
  dcs::Lease lease_;
  dcs::Version version_;
  dcs::Index seen_;
};

}  // namespace

TEST_CASE("no renewal fails and no change is missed while a quorum lives" * no_etcd) {
  EtcdCluster etcd(3);
  EtcdWorld w;
  // One endpoint is configured, and the list of members is what saves us.
  auto& store = w.store(std::vector<net::Url>(1, etcd[0].url()));
  etcd::Options other;
  other.seed = 7;
  auto& writer = w.store(etcd.urls(), other);
  Keeper keeper(w, store, 10s);
  // Writes go on beside the renewals. While a leader is being elected one may be ambiguous; the
  // next one says it again.
  int count = 0;
  std::size_t under_way = 0;
  const auto seen_since = [&](int first) {
    return [&, first] {
      dcs::Transaction change;
      change.put("status", std::to_string(++count));
      ++under_way;
      boost::asio::co_spawn(w.io,
                            writer.commit(std::move(change), w.in(3s)),
                            [&](std::exception_ptr failure, Result<dcs::Committed>) {
                              if (failure) std::rethrow_exception(failure);
                              --under_way;
                            });
      return !keeper.shown.empty() && std::stoi(keeper.shown) >= first;
    };
  };
  const auto go_on = [&](const char* what) {
    return keeper.renew_until(what, seen_since(count + 1));
  };
  go_on("healthy");
  auto leader = leader_of(w, etcd);
  const auto follower = leader == 1 ? 2u : 1u;

  etcd[follower].process().end(SIGKILL);
  CHECK(go_on("a follower killed") < 3s);
  etcd[follower].restart();

  etcd[0].process().end(SIGKILL);
  CHECK(go_on("the member that we talk to killed") < 8s);
  etcd[0].restart();

  leader = leader_of(w, etcd);
  etcd[leader].process().end(SIGKILL);
  CHECK(go_on("the leader killed") < 8s);
  etcd[leader].restart();

  leader = leader_of(w, etcd);
  etcd[leader].process().freeze();
  CHECK(go_on("the leader frozen") < 8s);
  etcd[leader].process().signal(SIGCONT);
  go_on("the old leader thawed");

  // Two of three frozen: the one that answers has no authority; the lease is not lost by it, and
  // the watch comes back.
  leader = leader_of(w, etcd);
  for (std::size_t i = 0; i < 3; ++i)
    if (i != leader) etcd[i].process().freeze();
  const auto cut_off = w.read(store, 1500ms);
  REQUIRE(cut_off.has_error());
  CHECK_MESSAGE((cut_off.error().is(errc::unavailable) || cut_off.error().is(errc::timed_out)),
                cut_off.error().text());
  for (std::size_t i = 0; i < 3; ++i) etcd[i].process().signal(SIGCONT);
  go_on("two of three thawed");

  // A member that comes back empty belongs to another cluster: passed over.
  const auto wiped = leader_of(w, etcd) == 2 ? 1u : 2u;
  etcd[wiped].process().end(SIGKILL);
  std::filesystem::remove_all(etcd.dir() / fmt::format("m{}.etcd", wiped));
  const EtcdMember impostor(
      etcd.dir(), fmt::format("m{}", wiped), etcd[wiped].port(), free_port(), "");
  REQUIRE(impostor.wait_ready());
  go_on("a member replaced by a stranger");
  CHECK(run_until(
      w.io, [&] { return under_way == 0; }, 10s));
}
