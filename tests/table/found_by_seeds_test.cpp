// What the simulator found: each row is one mistake that a seed showed, as a decision.
#include <doctest/doctest.h>

#include <algorithm>

#include "rows.hpp"
#include "spilo/model/keys.hpp"

using namespace spilo;
using namespace spilo::tables;
using ha::TaskKind;

namespace {

void nobody_leads_and(Case& c, TimePoint agent_started) {
  c.nobody_leads();
  c.memory.started_at = agent_started;
}

void hand_over_failed(Case& c) {
  c.i_lead();
  c.request("n1", "n3");
  c.stopped();
  c.node().checkpoint_end = Lsn{1100};
  c.memory.handover = ha::Handover{.candidate = NodeName("n3"), .started = t0 - 10s};
  c.facts.last_task =
      ha::FinishedTask{.id = ha::TaskId{3}, .task = {.kind = TaskKind::stop}, .finished = t0 - 5s};
  c.memory.last_callback_task = ha::TaskId{3};
  c.unreachable("n3");
}

template <class T>
const T* find(const ha::Decision& decision) {
  for (const auto& effect : decision.effects)
    if (const auto* found = std::get_if<T>(&effect)) return found;
  return nullptr;
}

}  // namespace

TEST_CASE("found by seeds: who may have forgotten a promise, or gave none") {
  check({
      {"712: also the named candidate asks everybody, in the first ttl of its agent",
       [](Case& c) {
         nobody_leads_and(c, t0 - 1s);
         c.request("n2", "n1");
         c.unreachable("n2");
         c.answered("n3", 900);
       },
       "race-elsewhere",
       {}},
      {"who races by itself does too",
       [](Case& c) {
         nobody_leads_and(c, t0 - 1s);
         c.unreachable("n2");
         c.answered("n3", 900);
       },
       "race-elsewhere",
       {}},
      {"an answer that does not say that its server is no primary is none",
       [](Case& c) {
         nobody_leads_and(c, t0 - 1s);
         c.answered("n2", 900).answered = false;
         c.answered("n3", 900);
       },
       "race-elsewhere",
       {}},
      {"after the first ttl an agent remembers what it has promised",
       [](Case& c) {
         nobody_leads_and(c, t0 - 11s);
         c.unreachable("n2");
         c.answered("n3", 900);
       },
       "acquire-lock",
       {"acquire-lock term=3"}},
      {"a leader that gave the lock back itself lives nowhere",
       [](Case& c) {
         nobody_leads_and(c, t0 - 1s);
         c.cluster().term.released = true;
         c.unreachable("n2");
         c.answered("n3", 900);
       },
       "acquire-lock",
       {"acquire-lock term=3"}},
      {"who is not listed in failsafe was never asked, so it asks: a member is silent",
       [](Case& c) {
         c.nobody_leads();
         c.cluster().failsafe->erase(NodeName("n1"));
         c.unreachable("n2");
         c.answered("n3", 900);
       },
       "race-elsewhere",
       {}},
      {"an operator who names it knows that the silent one is gone for good",
       [](Case& c) {
         c.nobody_leads();
         c.cluster().failsafe->erase(NodeName("n1"));
         c.request("", "n1");
         c.unreachable("n2");
         c.answered("n3", 900);
       },
       "race-by-request",
       {"acquire-lock term=3"}},
      {"7369: but not against that one's own word that it leads",
       [](Case& c) {
         c.nobody_leads();
         c.cluster().failsafe->erase(NodeName("n1"));
         c.request("", "n1");
         c.answered("n2", 0).in_recovery = false;
         c.answered("n3", 900);
       },
       "race-by-request",
       {}},
      {"7369: and not before it had a moment to say so",
       [](Case& c) {
         c.nobody_leads();
         c.cluster().failsafe->erase(NodeName("n1"));
         c.request("", "n1");
         c.answered("n3", 900);
       },
       "race-by-request",
       {"probe n2"}},
      {"all have answered: it may race",
       [](Case& c) {
         c.nobody_leads();
         c.cluster().failsafe->erase(NodeName("n1"));
         c.answered("n2", 900);
         c.answered("n3", 900);
       },
       "acquire-lock",
       {"acquire-lock term=3"}},
      {"324: who is ahead of us, but not listed, is waited for",
       [](Case& c) {
         c.nobody_leads();
         c.cluster().failsafe->erase(NodeName("n3"));
         c.unreachable("n2");
         c.answered("n3", 2000);
       },
       "acquire-lock",
       {}},
      {"but not without end",
       [](Case& c) {
         c.nobody_leads();
         c.memory.unlocked_since = t0 - 21s;
         c.cluster().failsafe->erase(NodeName("n3"));
         c.unreachable("n2");
         c.answered("n3", 2000);
       },
       "acquire-lock",
       {"acquire-lock term=3"}},
      {"301: a promise is void once its holder gave the lock back itself",
       [](Case& c) {
         c.nobody_leads();
         c.request("n2", "n1");
         c.memory.promise.leader = NodeName("n2");
         c.memory.promise.until = t0 + 5s;
         c.cluster().term.released = true;
       },
       "race-by-request",
       {"acquire-lock term=3"}},
      {"not when somebody else gave it back",
       [](Case& c) {
         c.nobody_leads();
         c.request("n2", "n1");
         c.memory.promise.leader = NodeName("n3");
         c.memory.promise.until = t0 + 5s;
         c.cluster().term.released = true;
       },
       "race-promised",
       {}},
      {"721: a longer log on a timeline that is too old stands in nobody's way",
       [](Case& c) {
         c.nobody_leads();
         c.unreachable("n2");
         c.answered("n3", 2000).timeline = TimelineId{1};
       },
       "acquire-lock",
       {"acquire-lock term=3"}},
  });
}

TEST_CASE("found by seeds: a lock that may be gone is no lock") {
  check({
      {"1314: a hand-over that failed starts no primary after the lease",
       [](Case& c) {
         hand_over_failed(c);
         c.facts.session_valid_until = t0 - 1ms;
       },
       "start-server",
       {"start-task start"}},
      {"1248: nor while a release of the lock is unanswered",
       [](Case& c) {
         hand_over_failed(c);
         c.facts.lock_in_doubt = true;
         c.facts.lock_changed_at = t0 - 1ms;
         c.facts.cluster_stale = true;
       },
       "releasing",
       {"read-cluster"}},
      {"nor on what is nearly over",
       [](Case& c) {
         hand_over_failed(c);
         c.facts.session_valid_until = t0 + 1s;
       },
       "restart-in-place",
       {}},
      {"909: a release that was refused is not repeated before the store was read again",
       [](Case& c) {
         c.i_lead();
         c.crashed();
         c.config().primary_start_timeout = 0s;
         c.answered("n2", 1000);
         c.answered("n3", 1000);
         c.facts.lock_in_doubt = true;
         c.facts.lock_changed_at = t0 - 1ms;
         c.facts.cluster_stale = true;
       },
       "releasing",
       {"read-cluster"}},
      {"a release that was not answered may come late: the lock is bound anew, at another version",
       [](Case& c) {
         c.i_lead();
         c.crashed();
         c.facts.lock_in_doubt = true;
         c.facts.lock_changed_at = t0 - 1s;
         c.memory.release_unanswered = c.cluster().leader->version;
       },
       "rebind-lock",
       {"acquire-lock rebind term=3"}},
      {"a crashed primary is not started on a lease that is nearly over",
       [](Case& c) {
         c.i_lead();
         c.crashed();
         c.facts.session_valid_until = t0 + 1s;
       },
       "restart-in-place",
       {}},
      {"nor while it gives the lock away",
       [](Case& c) {
         c.i_lead();
         c.crashed();
         c.facts.in_flight = {ha::InFlight::release};
       },
       "releasing",
       {}},
  });
}

TEST_CASE("found by seeds: a stop that does not end, a cluster that the store does not know") {
  const auto lost_cluster = [](Case& c) {
    c.node() = NodeView{};
    c.node().observed_at = t0 - 100ms;
    c.memory.last_callback_role.clear();
    c.cluster().leader.reset();
    c.cluster().initialize.reset();
    c.memory.unlocked_since = t0 - 1s;
  };
  check({
      {"385: a server that stops, and nobody waits for it, is ended after a while",
       [](Case& c) {
         c.node().process = NodeView::Process::stopping;
         c.memory.stopping_since = t0 - 5s;
       },
       "stop-stuck",
       {"kill-server: it does not come to an end of its stop"}},
      {"not at once",
       [](Case& c) {
         c.node().process = NodeView::Process::stopping;
         c.memory.stopping_since = t0 - 1s;
       },
       "server-starting",
       {}},
      {"725: who knows of data elsewhere creates no second cluster in a store that was wiped",
       lost_cluster,
       "claim-cluster",
       {}},
      {"258: a complete new cluster whose server went down before it had the lock claims itself",
       [](Case& c) {
         c.nobody_leads();
         c.stopped();
         c.node().role = NodeView::Role::primary;
         c.cluster().initialize = "";
         c.cluster().initialize_version = {70, 70};
         c.cluster().initialize_session = SessionId("s1");
         c.memory.bootstrapped_here = true;
         c.memory.claim_session = SessionId("s1");
       },
       "claim-for-data",
       {"write initialize=7268616322854375442"}},
      {"and is not started as a replica of nobody while another node's claim stands",
       [](Case& c) {
         c.nobody_leads();
         c.stopped();
         c.node().role = NodeView::Role::primary;
         c.cluster().initialize = "";
         c.cluster().initialize_session = SessionId("s9");
       },
       "start-server",
       {}},
  });
}

TEST_CASE("found by seeds: a claim whose answer was lost is ours all the same (835)") {
  auto c = healthy();
  ha::Machine machine(c.id);
  machine.step(t0, WallTime{}, ha::LeaseRenewed{SessionId("s1"), t0 + 10s});
  ClusterView view;
  view.initialize = "";
  view.initialize_version = {70, 70};
  view.initialize_session = SessionId("s1");
  view.read_started = t0 + 1ms;
  machine.step(t0 + 2ms, WallTime{}, ha::ClusterRead{view});
  CHECK(machine.memory().bootstrapped_here);
  CHECK(machine.memory().claim_session == SessionId("s1"));

  ha::Machine other(c.id);
  other.step(t0, WallTime{}, ha::LeaseRenewed{SessionId("s2"), t0 + 10s});
  other.step(t0 + 2ms, WallTime{}, ha::ClusterRead{view});
  CHECK(!other.memory().bootstrapped_here);
}

TEST_CASE("found by seeds: no two promotions begin a timeline of the same number (747)") {
  // The grant reserves a number that no grant before it had.
  auto c = healthy();
  c.nobody_leads();
  c.unreachable("n2");
  c.answered("n3", 900);
  c.cluster().term.reserved = TimelineId{3};  // n2's promotion, of which nobody here has seen anything
  auto decision = ha::decide(c.id, c.facts, c.memory);
  REQUIRE(find<ha::AcquireLock>(decision) != nullptr);
  CHECK(find<ha::AcquireLock>(decision)->reserved == TimelineId{4});
  // A primary that takes its lock again goes on with its own timeline.
  c = healthy();
  c.i_lead();
  c.lead("n1", "s0");
  c.memory.reclaim_until = t0 + 5s;
  decision = ha::decide(c.id, c.facts, c.memory);
  REQUIRE(find<ha::AcquireLock>(decision) != nullptr);
  CHECK(find<ha::AcquireLock>(decision)->reserved == TimelineId{2});
  // PostgreSQL would choose 3: it is told only where that is too low.
  c = healthy();
  c.lead("n1", "s1");
  c.cluster().term.reserved = TimelineId{3};
  decision = ha::decide(c.id, c.facts, c.memory);
  REQUIRE(find<ha::StartTask>(decision) != nullptr);
  CHECK(find<ha::StartTask>(decision)->task.timeline_min == TimelineId{});
  c.cluster().term.reserved = TimelineId{4};
  decision = ha::decide(c.id, c.facts, c.memory);
  CHECK(find<ha::StartTask>(decision)->task.timeline_min == TimelineId{4});
}

TEST_CASE("found by seeds: a store that was wiped does not give a number twice (4217)") {
  // n3 is named by an operator while the node that led last is away, with a timeline that it began unseen.
  auto c = healthy();
  c.nobody_leads();
  c.wiped();
  c.request("", "n1");
  c.unreachable("n2");
  c.answered("n3", 900);
  const auto decision = ha::decide(c.id, c.facts, c.memory);
  REQUIRE(find<ha::AcquireLock>(decision) != nullptr);
  CHECK(to_int(find<ha::AcquireLock>(decision)->reserved) > 10);
}

TEST_CASE("found by seeds: an old directory that is the first in a wiped store does not lead at once (6086)") {
  // n1's agent has just started and claimed the cluster for its old data; the others' keys went with the
  // store, and they have more.
  auto c = healthy();
  c.nobody_leads();
  c.wiped();
  c.cluster().initialize = tables::system_id.str();
  c.cluster().members.clear();
  c.facts.known_members.clear();
  c.memory.started_at = t0 - 300ms;
  auto decision = ha::decide(c.id, c.facts, c.memory);
  CHECK(decision.rule == "race-unknown");
  CHECK(find<ha::AcquireLock>(decision) == nullptr);
  CHECK(decision.wake_at <= c.memory.unlocked_since + 10s);
  // Nobody came: it is what there is.
  c.memory.unlocked_since = t0 - 11s;
  c.node().observed_at = t0;
  decision = ha::decide(c.id, c.facts, c.memory);
  CHECK(find<ha::AcquireLock>(decision) != nullptr);
}

TEST_CASE("found by seeds: a leader whose new server hangs still says what cluster it is (6887)") {
  // The claim to create the cluster is bound to the creator's session, and goes with it.
  auto c = healthy();
  c.i_lead();
  c.cluster().initialize = "";
  c.node().process = NodeView::Process::hung;
  c.memory.hung_since = t0 - 1s;
  const auto decision = ha::decide(c.id, c.facts, c.memory);
  CHECK(decision.rule == "server-hung");
  const auto* write = find<ha::WriteKey>(decision);
  REQUIRE(write != nullptr);
  CHECK(write->key == keys::initialize);
  CHECK(write->value == tables::system_id.str());
}

TEST_CASE("found by seeds: a list of failsafe that may have been written counts (12827, 15009)") {
  const auto outage = [](Case& c) {
    c.i_lead();
    c.facts.store_answers = false;
    c.facts.session_valid_until = t0 + 2s;
    c.cluster().failsafe_version = dcs::Version{5, 1};
    c.memory.failsafe_offered_at = c.cluster().failsafe_version;
  };
  const auto list = [](std::initializer_list<const char*> names) {
    std::map<NodeName, std::string> out;
    for (const auto* name : names) out[NodeName(name)] = std::string("http://") + name;
    return out;
  };
  check({
      {"whom it adds is asked too",
       [&](Case& c) {
         outage(c);
         c.memory.failsafe_offered = {list({"n1", "n2", "n3", "n4"})};
       },
       "keep-lock",
       {"ask-failsafe n2 n3 n4"}},
      {"and has to promise",
       [&](Case& c) {
         outage(c);
         c.facts.session_valid_until = t0 + 1s;
         c.memory.failsafe_offered = {list({"n1", "n2", "n3", "n4"})};
         c.memory.failsafe_asked_at = t0 - 100ms;
         for (const auto* name : {"n2", "n3"})
           c.facts.failsafe_answers[NodeName(name)] = FailsafeAnswer{NodeName(name), true};
       },
       "lease-expiring",
       {"start-task stop"}},
      {"one without us binds nobody: nobody is asked",
       [&](Case& c) {
         outage(c);
         c.memory.failsafe_offered = {list({"n1", "n2", "n3"}), list({})};
       },
       "keep-lock",
       {}},
      {"an agent that was not granted the lock in this life can't know what the one before has written",
       [&](Case& c) {
         outage(c);
         c.memory.last_term = Term{};
         c.facts.session = SessionId("s9");
       },
       "rebind-lock",
       {"acquire-lock rebind term=3"}},
      {"no list is written while others' promises outlast the lease",
       [&](Case& c) {
         c.i_lead();
         c.cluster().failsafe->erase(NodeName("n3"));
         c.memory.failsafe_until = c.facts.session_valid_until + 1s;
       },
       "keep-lock",
       {}},
  });

  // One that is in doubt is settled by another write, also when the list that was read is the right one.
  {
    auto c = healthy();
    c.i_lead();
    c.memory.failsafe_offered_at = c.cluster().failsafe_version;
    c.memory.failsafe_offered = {list({"n1", "n2", "n3", "n4"})};
    CHECK(find<ha::WriteKey>(ha::decide(c.id, c.facts, c.memory)) != nullptr);
  }

  auto c = healthy();
  c.i_lead();
  c.cluster().failsafe->erase(NodeName("n3"));
  c.cluster().failsafe_version = dcs::Version{5, 1};
  const auto decision = ha::decide(c.id, c.facts, c.memory);
  const auto* write = find<ha::WriteKey>(decision);
  REQUIRE(write != nullptr);
  CHECK(write->at == c.cluster().failsafe_version);  // a late duplicate replaces no younger list
  CHECK(decision.memory.failsafe_offered.size() == 1);
}

TEST_CASE("found by seeds: a promise to a leader ends when somebody else has led since (12923)") {
  ha::Machine machine(healthy().id);
  const auto read = [&](TimePoint started, std::uint64_t term, const char* holder) {
    auto view = healthy().cluster();
    view.leader.reset();
    view.term.number = term;
    view.term.holder = NodeName(holder);
    view.read_started = started;
    machine.step(started + 1ms, {}, ha::ClusterRead{view});
    return machine.memory().promise.until;
  };
  read(t0, 3, "n2");
  machine.step(t0 + 1s, {}, ha::FailsafeHeard{NodeName("n2"), "", "", 1, 60s});
  const auto until = machine.memory().promise.until;
  REQUIRE(until == t0 + 61s);
  CHECK(read(t0 + 999ms, 4, "n3") == until);  // begun before: n2 may have led after n3
  CHECK(read(t0 + 2s, 3, "n3") == until);     // no younger term than was known: a store that was put back
  CHECK(read(t0 + 3s, 5, "n2") == until);     // its own
  CHECK(read(t0 + 4s, 6, "n3") == TimePoint{});

  // Two leaders in one ttl: a late question of the first must not void what the second counts on.
  machine.step(t0 + 5s, {}, ha::FailsafeHeard{NodeName("n3"), "", "", 2, 60s});
  machine.step(t0 + 6s, {}, ha::FailsafeHeard{NodeName("n2"), "", "", 3, 60s});
  CHECK(read(t0 + 7s, 7, "n3") == t0 + 66s);
}

TEST_CASE("a write that the store refuses for good is not repeated with every read") {
  ha::Machine machine(healthy().id);
  auto c = healthy();
  c.i_lead();
  c.cluster().failsafe->erase(NodeName("n3"));
  c.facts.write_refused_at = t0 - 100ms;
  CHECK(find<ha::WriteKey>(ha::decide(c.id, c.facts, c.memory)) == nullptr);
  c.facts.write_refused_at = t0 - ha::timing(c.id, c.facts).loop_wait;
  CHECK(find<ha::WriteKey>(ha::decide(c.id, c.facts, c.memory)) != nullptr);
  machine.step(t0, {}, ha::WriteFailed{ha::InFlight::history, Error(errc::denied, "no rights")});
  CHECK(machine.facts().write_refused_at == t0);
  machine.step(t0 + 1s, {}, ha::WriteFailed{ha::InFlight::history, Error(errc::conflict, "another version")});
  CHECK(machine.facts().write_refused_at == t0);
}
