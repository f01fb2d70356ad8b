// An empty data directory, and a cluster that does not exist yet (contract 3.4 and 3.5).
#include <array>

#include "plan.hpp"
#include "spilo/model/keys.hpp"

namespace spilo::ha {
namespace {

bool empty(const Plan& plan) {
  return plan.node->data_dir == NodeView::DataDir::empty;
}

bool backing_off(Plan& plan) {
  if (plan.now >= plan.mem.attempt_not_before) return false;
  plan.wake_at(plan.mem.attempt_not_before);
  return true;
}

std::string last_failure(const Plan& plan) {
  const auto& last = plan.f.last_task;
  return last && last->failure ? ": " + last->failure->text() : "";
}

bool data_dir_unusable(Plan& plan) {
  if (plan.node->data_dir != NodeView::DataDir::unusable) return false;
  // A server that runs there all the same goes on under the lock that it has.
  if (plan.lock_mine && plan.node->down()) plan.release();
  return plan.say("the data directory can't be used and is left alone: {}", plan.node->problem);
}

bool release_without_data(Plan& plan) {
  if (!empty(plan) || !plan.lock_mine || plan.mem.bootstrapped_here || !plan.node->down())
    return false;
  plan.release();
  return plan.say("released leader key voluntarily as data dir empty and currently leader");
}

bool empty_while_paused(Plan& plan) {
  if (!empty(plan) || !plan.paused) return false;
  return plan.say("running with empty data directory");
}

bool clone(Plan& plan) {
  if (!empty(plan) || !plan.leader_other) return false;
  const auto* leader = plan.leader_member();
  if (leader == nullptr || leader->conn_url.empty())
    return plan.say("waiting for {}, the leader, to publish its address",
                    plan.cluster->leader->holder.str());
  if (leader->role != "primary" && leader->role != "standby_leader")
    return plan.say("waiting for {}, the leader, to run as a primary", leader->name.str());
  if (backing_off(plan)) return plan.say("waiting before copying again{}", last_failure(plan));
  Upstream source = upstream_of(plan);
  for (const auto& member : plan.cluster->members)
    if (member.name != plan.id.node && member.name != leader->name && member.tags.clonefrom &&
        member.state == "running" && !member.conn_url.empty())
      source = Upstream{.name = member.name,
                        .conn_url = member.conn_url,
                        .api_url = member.api_url,
                        .timeline = member.timeline};
  plan.start(
      Task{.kind = TaskKind::clone, .upstream = source, .reason = "the data directory is empty"});
  return plan.say("trying to bootstrap from {} '{}'",
                  source.name == leader->name ? "leader" : "replica",
                  source.name.str());
}

bool claim_is_ours(const Plan& plan) {
  return !plan.f.session.empty() && plan.f.session == plan.mem.claim_session;
}

bool give_up_bootstrap(Plan& plan) {
  const auto& last = plan.f.last_task;
  if (!plan.mem.bootstrapped_here || plan.lock_mine || !last || !last->failure ||
      last->task.kind != TaskKind::bootstrap)
    return false;
  // Only our own claim: another node's looks the same.
  if (plan.cluster->initialize && plan.cluster->initialize->empty() && claim_is_ours(plan)) {
    plan.emit_once(InFlight::initialize,
                   EraseKey{.kind = InFlight::initialize,
                            .key = keys::initialize,
                            .at = plan.cluster->initialize_version});
    return plan.say("giving the cluster's claim back, creating it failed: {}",
                    last->failure->text());
  }
  plan.mem.bootstrapped_here = false;
  return plan.say("creating the cluster failed: {}", last->failure->text());
}

bool bootstrap(Plan& plan) {
  if (!empty(plan) || !plan.mem.bootstrapped_here) return false;
  if (!claim_is_ours(plan) || !plan.deadline || plan.now >= *plan.deadline) {
    plan.mem.bootstrapped_here = false;
    return plan.say("our claim to create the cluster has expired");
  }
  if (!plan.f.guard_ready)
    return plan.say("not creating the cluster yet, the guard is not ready: {}", plan.f.guard_problem);
  // The first start already runs with the parameters that the cluster is to have.
  if (auto config = parse_dynamic_config(plan.id.bootstrap_dcs); config && !plan.id.bootstrap_dcs.is_null())
    plan.emit(Configure{std::move(*config)});
  plan.start(
      Task{.kind = TaskKind::bootstrap, .reason = "this node won the race to create the cluster"});
  return plan.say("trying to bootstrap a new cluster");
}

bool claim_cluster(Plan& plan) {
  if (!empty(plan) || !plan.unlocked || plan.cluster->initialize) return false;
  if (!plan.id.can_bootstrap)
    return plan.say(
        "waiting for leader to bootstrap: this node's configuration has no bootstrap section");
  if (plan.id.tags.nofailover)
    return plan.say("waiting for leader to bootstrap: this node is tagged nofailover");
  if (backing_off(plan))
    return plan.say("waiting before creating the cluster again{}", last_failure(plan));
  if (plan.f.session.empty()) return plan.say("waiting for a session with the store");
  // A store that was wiped looks like a new one. Who has seen data elsewhere does not create a
  // second cluster beside it.
  for (const auto& [name, member] : plan.f.known_members)
    if (name != plan.id.node && !member.role.empty() && member.role != "uninitialized")
      return plan.say(
          "not creating a cluster: the store does not know one, but {} has data ({}). A primary "
          "restores the keys by itself; if there is none left, name a leader with a manual "
          "failover. If that member is gone for good, restart this agent",
          name.str(),
          member.role);
  constexpr Duration pace = 200ms;
  if (plan.mem.claim_failed_at != TimePoint{} && plan.now < plan.mem.claim_failed_at + pace) {
    plan.wake_at(plan.mem.claim_failed_at + pace);
    return plan.say("waiting before claiming the cluster again");
  }
  // Bound to our session: a node that dies while it creates the cluster does not block the others
  // for ever.
  plan.emit_once(InFlight::initialize,
                 WriteKey{.kind = InFlight::initialize,
                          .key = keys::initialize,
                          .value = "",
                          .at = dcs::Version{},
                          .session_bound = true});
  return plan.say("trying to win the race to create the cluster");
}

bool wait_for_leader(Plan& plan) {
  if (!empty(plan)) return false;
  return plan.say("waiting for leader to bootstrap{}",
                  plan.cluster->initialize && !plan.cluster->initialize->empty()
                      ? ": the cluster exists, but nobody leads it just now"
                      : "");
}

bool claim_for_data(Plan& plan) {
  if (!plan.unlocked || plan.paused) return false;
  if (plan.node->role != NodeView::Role::primary || !is_valid(plan.node->system_id)) return false;
  const auto& cluster = *plan.cluster;
  // Our own claim, and the cluster that it was for is complete, but its server went down before we had
  // the lock.
  const bool ours = cluster.initialize && cluster.initialize->empty() && !plan.f.session.empty() &&
                    cluster.initialize_session == plan.f.session;
  if (cluster.initialize && !ours) return false;
  plan.mem.bootstrapped_here = false;
  plan.emit_once(InFlight::initialize,
                 WriteKey{.kind = InFlight::initialize,
                          .key = keys::initialize,
                          .value = plan.node->system_id.str(),
                          .at = cluster.initialize_version});
  return plan.say("claiming the cluster for the data directory that exists here");
}

constexpr std::array table = {
    RuleEntry{"data-dir-unusable",
              "A data directory that can't be used is never touched.",
              data_dir_unusable},
    RuleEntry{"release-without-data", "Who has no data does not lead.", release_without_data},
    RuleEntry{"empty-while-paused", "Nothing is created while paused.", empty_while_paused},
    RuleEntry{"clone", "An empty node copies a running cluster.", clone},
    RuleEntry{
        "give-up-bootstrap", "A failed creation frees the claim for others.", give_up_bootstrap},
    RuleEntry{"bootstrap", "The winner of the race creates the cluster.", bootstrap},
    RuleEntry{"claim-cluster", "Empty nodes race to create the cluster.", claim_cluster},
    RuleEntry{"wait-for-leader", "An empty node waits for somebody to copy.", wait_for_leader},
    RuleEntry{
        "claim-for-data",
        "An existing primary's data directory becomes the cluster that the store does not know.",
        claim_for_data},
};

}  // namespace

std::span<const RuleEntry> bootstrap_rules() noexcept {
  return table;
}

}  // namespace spilo::ha
