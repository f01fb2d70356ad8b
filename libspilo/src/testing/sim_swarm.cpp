#include "spilo/testing/sim_swarm.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <exception>

#include "spilo/core/json.hpp"
#include "spilo/model/keys.hpp"
#include "spilo/runtime/cluster_store.hpp"

namespace spilo::testing {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr std::pair<Plant, std::string_view> plant_names[] = {
    {Plant::none, "none"},
    {Plant::no_guard, "no-guard"},
    {Plant::no_lease_margin, "no-lease-margin"},
    {Plant::no_token_check, "no-token-check"},
    {Plant::no_timeline_check, "no-timeline-check"},
};

double in_seconds(Duration span) {
  return std::chrono::duration<double>(span).count();
}

// Disturbs one cluster until the time of faults is over.
class Nemesis {
 public:
  Nemesis(SimCluster& cluster, const SwarmPlan& plan)
      : cluster_(cluster),
        plan_(plan),
        world_(cluster.world()),
        rng_(world_.rng().fork("nemesis")) {
    const auto& w = plan.weights;
    add(w.crash_agent, &Nemesis::crash_agent);
    add(w.freeze_agent, &Nemesis::freeze_agent);
    add(w.kill_server, &Nemesis::kill_server);
    add(w.hang_server, &Nemesis::hang_server);
    add(w.kill_host, &Nemesis::kill_host);
    add(w.stop_agent, &Nemesis::stop_agent);
    add(w.cut_store, &Nemesis::cut_store);
    add(w.cut_hosts, &Nemesis::cut_hosts);
    add(w.isolate, &Nemesis::isolate);
    add(w.store_down, &Nemesis::store_down);
    add(w.store_flaky, &Nemesis::store_flaky);
    add(w.guard_dies, &Nemesis::guard_dies);
    add(w.step_wall, &Nemesis::step_wall);
    add(w.bad_server, &Nemesis::bad_server);
    add(w.lag, &Nemesis::lag);
    add(w.lose_data, &Nemesis::lose_data);
    add(w.switchover, &Nemesis::switchover);
    add(w.request, &Nemesis::request);
    add(w.expire_early, &Nemesis::expire_early);
    add(w.wipe_store, &Nemesis::wipe_store);
    add(w.change_ttl, &Nemesis::change_ttl);
  }

  std::uint64_t strike_until(TimePoint end) {
    std::uint64_t count = 0;
    while (world_.now() < end && world_.violations().empty()) {
      world_.run_for(rng_.between(milliseconds(100), plan_.fault_gap_max));
      if (total_ == 0) continue;
      auto chosen = rng_.below(total_);
      for (const auto& [weight, action] : actions_) {
        if (chosen < weight) {
          (this->*action)();
          ++count;
          break;
        }
        chosen -= weight;
      }
    }
    return count;
  }
  bool wiped() const noexcept { return wiped_; }
  // Half of the operators leave a longer one.
  void may_restore_ttl() {
    if (plan_.weights.change_ttl > 0 && rng_.chance(500)) set_ttl(plan_.cluster.timing.ttl);
  }

 private:
  using Action = void (Nemesis::*)();
  void add(unsigned weight, Action action) {
    if (weight == 0) return;
    actions_.emplace_back(weight, action);
    total_ += weight;
  }
  // The primary more often than the others: that is where it hurts.
  std::size_t victim() {
    if (const auto leader = cluster_.leader(); leader && rng_.chance(500)) return *leader;
    return rng_.below(cluster_.size());
  }
  Duration length() { return rng_.between(milliseconds(100), plan_.fault_length_max); }
  void say(std::string text) { world_.trace("NEMESIS", text); }
  void undo_later(std::function<void()> undo) { world_.after(length(), std::move(undo)); }
  // The longest that is in force at any time.
  Duration ttl() const { return plan_.cluster.timing.ttl * plan_.cluster.ttl_factor_max; }

  void crash_agent() {
    const auto host = victim();
    cluster_.restart_after = rng_.between(milliseconds(50), ttl());
    // An agent and its guard at once, here or by a freeze, are more than the guard promises.
    if (!cluster_.guard(host).alive()) break_promises();
    cluster_.crash_agent(host);
  }
  void freeze_agent() {
    const auto host = victim();
    const auto span = rng_.between(milliseconds(100), ttl() * 2);
    say(fmt::format("freezes agent {} for {:.1f}s", cluster_.name(host), in_seconds(span)));
    if (!cluster_.guard(host).alive()) break_promises();
    cluster_.freeze_agent(host, span);
  }
  void kill_server() { cluster_.server(victim()).kill("kill -9"); }
  void hang_server() {
    const auto host = victim();
    say(fmt::format("hangs the server of {}", cluster_.name(host)));
    cluster_.server(host).hang(length());
  }
  void kill_host() {
    cluster_.restart_after = rng_.between(milliseconds(500), ttl() * 2);
    cluster_.kill_host(victim());
  }
  void stop_agent() {
    const auto host = victim();
    say(fmt::format("stops agent {} in order", cluster_.name(host)));
    cluster_.restart_after = rng_.between(milliseconds(50), ttl());
    cluster_.stop_agent(host);
  }
  void cut_store() {
    const auto node = cluster_.node(victim());
    say(fmt::format("cuts {} from the store", world_.name(node)));
    cluster_.dcs().link(node).cut = true;
    undo_later([this, node] { cluster_.dcs().link(node).cut = false; });
  }
  void cut_hosts() {
    const auto a = victim();
    const auto b = rng_.below(cluster_.size());
    if (a == b) return;
    const bool both = rng_.chance(600);
    say(fmt::format("cuts {} {} {}", cluster_.name(a), both ? "and" : "to", cluster_.name(b)));
    cluster_.network().cut(a, b);
    if (both) cluster_.network().cut(b, a);
    undo_later([this] { cluster_.network().heal(); });
  }
  void isolate() {
    const auto host = victim();
    const auto node = cluster_.node(host);
    say(fmt::format("isolates {}", cluster_.name(host)));
    cluster_.dcs().link(node).cut = true;
    for (std::size_t other = 0; other < cluster_.size(); ++other)
      if (other != host) cluster_.network().cut_both(host, other);
    undo_later([this, node] {
      cluster_.dcs().link(node).cut = false;
      cluster_.network().heal();
    });
  }
  void store_down() {
    const auto how = rng_.chance(500) ? SimDcs::Down::refusing : SimDcs::Down::silent;
    say(how == SimDcs::Down::refusing ? "takes the store down, refusing"
                                      : "takes the store down, silent");
    cluster_.dcs().set_down(how);
    undo_later([this] {
      say("brings the store back");
      cluster_.dcs().set_down(SimDcs::Down::no);
    });
  }
  void store_flaky() {
    const auto node = cluster_.node(victim());
    auto& link = cluster_.dcs().link(node);
    link.refuse_permille = static_cast<unsigned>(rng_.below(200));
    link.lose_request_permille = static_cast<unsigned>(rng_.below(300));
    link.lose_answer_permille = static_cast<unsigned>(rng_.below(300));
    link.stale_permille = static_cast<unsigned>(rng_.below(500));
    link.stale_max = rng_.between(milliseconds(1), seconds(10));
    link.slow_permille = static_cast<unsigned>(rng_.below(300));
    link.slow_max = rng_.between(milliseconds(10), ttl());
    say(fmt::format("makes the store unreliable for {}", world_.name(node)));
    undo_later([this, node] {
      const bool cut = cluster_.dcs().link(node).cut;
      cluster_.dcs().link(node) = StoreLink{};
      cluster_.dcs().link(node).cut = cut;
    });
  }
  // Not while its agent can't start another: two processes that fail at once are more than the
  // guard promises.
  void guard_dies() {
    const auto host = victim();
    if (!cluster_.agent_runs(host) || world_.paused(cluster_.node(host))) return;
    if (rng_.chance(300)) {
      say(fmt::format("lets no guard start on {}", cluster_.name(host)));
      cluster_.guard(host).broken = true;
      undo_later([this, host] { cluster_.guard(host).broken = false; });
    }
    cluster_.guard(host).die();
  }
  void step_wall() {
    const auto host = victim();
    const auto by = milliseconds(rng_.between(-3'600'000, 3'600'000));
    say(fmt::format("steps the wall clock of {} by {} ms", cluster_.name(host), by.count()));
    world_.clock(cluster_.node(host)).step_wall(by);
  }
  void bad_server() {
    const auto host = victim();
    auto& faults = cluster_.server(host).faults;
    faults.promote_fails_permille = static_cast<unsigned>(rng_.below(600));
    faults.rewind_fails_permille = static_cast<unsigned>(rng_.below(600));
    faults.copy_fails_permille = static_cast<unsigned>(rng_.below(600));
    faults.start_fails_permille = static_cast<unsigned>(rng_.below(600));
    faults.slow_stop_permille = static_cast<unsigned>(rng_.below(600));
    faults.recovery_max = rng_.between(seconds(1), seconds(20));
    faults.promote_max = rng_.between(milliseconds(500), ttl());
    say(fmt::format("makes the server of {} unreliable", cluster_.name(host)));
    undo_later([this, host] { cluster_.server(host).faults = ServerFaults{}; });
  }
  void lag() {
    const auto host = victim();
    cluster_.server(host).faults.replication_lag = rng_.between(milliseconds(50), seconds(5));
    say(fmt::format("makes {} lag", cluster_.name(host)));
    undo_later([this, host] { cluster_.server(host).faults.replication_lag = Duration(0); });
  }
  // Only a standby that streams from the primary: the others may be the last copy of something.
  void lose_data() {
    const auto leader = cluster_.leader();
    const auto host = rng_.below(cluster_.size());
    if (!leader || host == *leader || !cluster_.server(host).streaming()) return;
    say(fmt::format("replaces the disk of {}", cluster_.name(host)));
    cluster_.server(host).lose_data();
  }
  void switchover() {
    const auto leader = cluster_.leader();
    const bool named = rng_.chance(700);
    const auto candidate = named ? cluster_.name(rng_.below(cluster_.size())) : std::string();
    const auto from = leader && rng_.chance(800) ? cluster_.name(*leader) : std::string();
    if (candidate.empty() && from.empty()) return;
    // Who names a leader by hand has seen to it that no other runs where the store can't tell.
    if (!leader && from.empty() && writable_elsewhere(candidate)) return;
    say(fmt::format("asks for a switchover from '{}' to '{}'", from, candidate));
    cluster_.request_switchover(from, candidate);
  }
  bool writable_elsewhere(const std::string& candidate) {
    for (std::size_t host = 0; host < cluster_.size(); ++host)
      if (cluster_.name(host) != candidate && cluster_.server(host).writable()) return true;
    return false;
  }
  void request() {
    ha::OperatorRequest request;
    const auto kind = rng_.below(3);
    request.kind = kind == 0   ? ha::OperatorRequest::Kind::restart
                   : kind == 1 ? ha::OperatorRequest::Kind::reinitialize
                               : ha::OperatorRequest::Kind::reload;
    request.force = rng_.chance(300);
    const auto host = victim();
    say(fmt::format("asks {} for {}",
                    cluster_.name(host),
                    kind == 0   ? "a restart"
                    : kind == 1 ? "a reinitialize"
                                : "a reload"));
    cluster_.ask(host, request);
  }
  void break_promises() {
    cluster_.truth().promises_broken_until =
        world_.now() + ttl() * 2 + plan_.linger_max + seconds(5);
  }
  void expire_early() {
    const auto host = victim();
    say(fmt::format("lets the store forget the sessions of {}", cluster_.name(host)));
    break_promises();
    cluster_.dcs().expire_sessions(cluster_.node(host));
  }
  void wipe_store() {
    say("wipes the store");
    break_promises();
    wiped_ = true;
    cluster_.dcs().wipe(rng_.chance(500));
  }

  // Never below the one that the other times of the plan fit into.
  void change_ttl() {
    set_ttl(plan_.cluster.timing.ttl *
            static_cast<int>(rng_.between(1, plan_.cluster.ttl_factor_max)));
  }
  void set_ttl(Duration ttl) {
    const auto entry = cluster_.dcs().peek(cluster_.scope(), keys::config);
    if (!entry) return;
    auto document = json::parse(entry->value);
    if (document.has_error()) return;
    document->set("ttl", std::int64_t{ttl / seconds(1)});
    say(fmt::format("sets the ttl to {} s", ttl / seconds(1)));
    cluster_.dcs().put(cluster_.scope(), keys::config, json::dump(*document));
  }

  SimCluster& cluster_;
  const SwarmPlan& plan_;
  SimWorld& world_;
  Rng rng_;
  std::vector<std::pair<unsigned, Action>> actions_;
  unsigned total_ = 0;
  bool wiped_ = false;
};

// The documented cure for a wiped store without a primary: name the node that has most.
void name_a_leader(SimCluster& cluster) {
  std::size_t best = 0;
  for (std::size_t host = 1; host < cluster.size(); ++host) {
    const auto& a = cluster.server(host).data();
    const auto& b = cluster.server(best).data();
    if (std::pair(a.timeline(), a.end()) > std::pair(b.timeline(), b.end())) best = host;
  }
  cluster.world().trace("OPERATOR", fmt::format("names {} to lead", cluster.name(best)));
  cluster.request_switchover("", cluster.name(best));
}

// A node whose cluster was created by somebody else meanwhile says so and ends; its operator
// empties the directory.
void cure_foreign_data(SimCluster& cluster) {
  const auto key = cluster.dcs().peek(cluster.scope(), keys::initialize);
  if (!key || !is_valid(SystemId(key->value))) return;
  for (std::size_t host = 0; host < cluster.size(); ++host) {
    auto& server = cluster.server(host);
    if (!server.data().initialized || server.data().system_id.str() == key->value) continue;
    cluster.world().trace("OPERATOR", fmt::format("empties {}", cluster.name(host)));
    server.lose_data();
  }
}

bool recover(SimCluster& cluster, Duration limit) {
  const auto end = cluster.world().now() + limit;
  while (cluster.world().now() < end && cluster.world().violations().empty()) {
    if (cluster.run_until_healthy(seconds(5))) return true;
    cure_foreign_data(cluster);
  }
  return false;
}

// After healing: one leader, everybody streams, and it stays like that.
void expect_recovery(SimCluster& cluster, const SwarmPlan& plan, bool wiped, SwarmReport& report) {
  auto& world = cluster.world();
  const auto healed = world.now();
  const auto ttl = plan.cluster.timing.ttl * plan.cluster.ttl_factor_max;
  const auto limit = ttl * 4 + plan.linger_max + seconds(120);
  bool healthy = recover(cluster, limit);
  if (!healthy && wiped && world.violations().empty()) {
    name_a_leader(cluster);
    healthy = recover(cluster, limit);
  }
  report.recovery = world.now() - healed;
  if (!world.violations().empty()) return;
  if (!healthy) {
    world.violation(fmt::format("liveness: {:.0f}s after healing: {}",
                                in_seconds(world.now() - healed),
                                cluster.unhealthy()));
    return;
  }
  // A request of the time of faults may still be carried out, once its leader has read it; and a
  // stop, once the server has ended.
  world.run_for(plan.cluster.timing.loop_wait * 3);
  world.run_until(
      [&] {
        const auto view = parse_cluster(cluster.dcs().snapshot(cluster.scope()), TimePoint{});
        return (!view.failover.requested() && !cluster.agent_stops()) ||
               !world.violations().empty();
      },
      limit);
  cluster.run_until_healthy(limit);
  const auto promotions = cluster.promotions();
  world.run_for(plan.cluster.timing.loop_wait * 10);
  if (!cluster.unhealthy().empty() && world.violations().empty())
    world.violation("liveness: healthy, and then again not: " + cluster.unhealthy());
  if (cluster.promotions() != promotions)
    world.violation("liveness: the primary changes although nothing is wrong");
}

void expect_switchover(SimCluster& cluster, const SwarmPlan& plan) {
  auto& world = cluster.world();
  const auto leader = cluster.leader();
  if (!leader || cluster.size() < 2 || !world.violations().empty()) return;
  const auto candidate = (*leader + 1) % cluster.size();
  world.trace(
      "OPERATOR",
      fmt::format("switchover from {} to {}", cluster.name(*leader), cluster.name(candidate)));
  cluster.commits().expect_all(cluster.server(*leader));
  cluster.request_switchover(cluster.name(*leader), cluster.name(candidate));
  const auto limit = plan.cluster.timing.ttl * plan.cluster.ttl_factor_max * 2 + seconds(30);
  world.run_until([&] { return cluster.leader() == candidate || !world.violations().empty(); },
                  limit);
  if (cluster.leader() != candidate && world.violations().empty())
    world.violation(fmt::format("liveness: the switchover to {} did not happen within {:.0f}s",
                                cluster.name(candidate),
                                in_seconds(limit)));
  if (!cluster.run_until_healthy(limit) && world.violations().empty())
    world.violation("liveness: not healthy after the switchover: " + cluster.unhealthy());
}

}  // namespace

std::string_view to_text(Plant plant) noexcept {
  for (const auto& [value, name] : plant_names)
    if (value == plant) return name;
  return "?";
}

std::optional<Plant> parse_plant(std::string_view text) noexcept {
  for (const auto& [value, name] : plant_names)
    if (name == text) return value;
  return {};
}

SwarmPlan draw_plan(std::uint64_t seed, std::optional<std::size_t> nodes, Plant plant) {
  Rng rng = Rng(seed).fork("plan");
  SwarmPlan plan;
  plan.plant = plant;
  auto& cluster = plan.cluster;
  cluster.seed = seed;
  const std::size_t sizes[] = {2, 3, 3, 3, 3, 4, 5};
  cluster.nodes = sizes[rng.below(std::size(sizes))];
  if (nodes) cluster.nodes = *nodes;
  const std::pair<int, int> timings[] = {{3, 1}, {5, 2}, {10, 4}, {20, 8}};
  const auto [ttl, retry] = timings[rng.below(std::size(timings))];
  cluster.timing.ttl = seconds(ttl);
  cluster.timing.retry_timeout = seconds(retry);
  cluster.timing.loop_wait = seconds(rng.between(1, ttl - 2 * retry));
  cluster.failsafe = rng.chance(600);
  cluster.primary_start_timeout = rng.chance(400) ? seconds(0) : seconds(rng.between(1, 60));
  cluster.wait_for_all_standbys = rng.chance(300);
  cluster.commit_interval = rng.between(milliseconds(40), milliseconds(400));
  cluster.drift_ppm_max = static_cast<int>(rng.below(1000));
  cluster.store_drift_ppm = static_cast<int>(rng.between(-1000, 1000));
  if (rng.chance(300))
    for (std::size_t i = 0; i < cluster.nodes; ++i)
      cluster.failover_priority.push_back(static_cast<int>(rng.between(1, 3)));
  plan.fault_phase = rng.between(seconds(20), seconds(90));
  plan.fault_gap_max = rng.between(seconds(1), seconds(15));
  plan.fault_length_max = rng.between(seconds(1), seconds(ttl * 3));
  if (rng.chance(400)) plan.linger_max = rng.between(seconds(0), seconds(ttl));
  auto& w = plan.weights;
  for (auto* weight : {&w.crash_agent,
                       &w.freeze_agent,
                       &w.kill_server,
                       &w.hang_server,
                       &w.kill_host,
                       &w.stop_agent,
                       &w.cut_store,
                       &w.cut_hosts,
                       &w.isolate,
                       &w.store_down,
                       &w.store_flaky,
                       &w.guard_dies,
                       &w.step_wall,
                       &w.bad_server,
                       &w.lag,
                       &w.lose_data,
                       &w.switchover,
                       &w.request})
    if (rng.chance(400)) *weight = static_cast<unsigned>(rng.between(1, 10));
  if (rng.chance(70)) w.expire_early = static_cast<unsigned>(rng.between(1, 5));
  if (rng.chance(40)) w.wipe_store = 1;
  if (rng.chance(250)) {
    w.change_ttl = static_cast<unsigned>(rng.between(1, 10));
    cluster.ttl_factor_max = 4;
  }
  cluster.store_ttl_is_fixed = rng.chance(500);
  switch (plant) {
    case Plant::none:
      break;
    case Plant::no_guard:
      cluster.no_guard = true;
      break;
    case Plant::no_lease_margin:
      cluster.plant.no_lease_margin = true;
      break;
    case Plant::no_token_check:
      cluster.plant.no_token_check = true;
      break;
    case Plant::no_timeline_check:
      cluster.plant.no_timeline_check = true;
      break;
  }
  return plan;
}

std::string SwarmPlan::text() const {
  const auto& c = cluster;
  const auto& w = weights;
  return fmt::format(
      "seed {} plant {}: {} nodes, ttl {} loop_wait {} retry_timeout {}, failsafe {}, start "
      "timeout {}s, "
      "commits wait for {} every {} ms, drift {} and {} ppm, linger {:.1f}s; faults for {:.0f}s, "
      "gap {:.1f}s, length "
      "{:.1f}s; crash {} freeze {} pgkill {} hang {} power {} stop {} cutstore {} cut {} isolate "
      "{} storedown {} flaky {} "
      "guard {} wall {} bad {} lag {} disk {} switchover {} request {} expire {} wipe {} ttl {}",
      c.seed,
      to_text(plant),
      c.nodes,
      in_seconds(c.timing.ttl),
      in_seconds(c.timing.loop_wait),
      in_seconds(c.timing.retry_timeout),
      c.failsafe,
      in_seconds(c.primary_start_timeout),
      c.wait_for_all_standbys ? "all" : "none",
      c.commit_interval.count() / 1'000'000,
      c.drift_ppm_max,
      c.store_drift_ppm,
      in_seconds(linger_max),
      in_seconds(fault_phase),
      in_seconds(fault_gap_max),
      in_seconds(fault_length_max),
      w.crash_agent,
      w.freeze_agent,
      w.kill_server,
      w.hang_server,
      w.kill_host,
      w.stop_agent,
      w.cut_store,
      w.cut_hosts,
      w.isolate,
      w.store_down,
      w.store_flaky,
      w.guard_dies,
      w.step_wall,
      w.bad_server,
      w.lag,
      w.lose_data,
      w.switchover,
      w.request,
      w.expire_early,
      w.wipe_store,
      w.change_ttl);
}

SwarmReport run_swarm(const SwarmPlan& plan, std::function<void(std::string_view)> trace) {
  SwarmReport report;
  SimCluster cluster(plan.cluster);
  auto& world = cluster.world();
  if (trace) world.trace_to(std::move(trace));
  try {
    cluster.dcs().linger(plan.linger_max);
    cluster.start_all();
    Nemesis nemesis(cluster, plan);
    // Half of the runs are disturbed from the first moment on, the others only once the cluster is
    // there.
    if (world.rng().chance(500)) cluster.run_until_healthy(seconds(60));
    report.faults = nemesis.strike_until(world.now() + plan.fault_phase);
    if (world.violations().empty()) {
      cluster.restart_after = seconds(1);
      world.trace("NEMESIS", "heals everything");
      cluster.heal();
      nemesis.may_restore_ttl();
      expect_recovery(cluster, plan, nemesis.wiped(), report);
      expect_switchover(cluster, plan);
      cluster.requests().check_all_answered();
    }
    report.violations = world.violations();
  } catch (const std::exception& failure) {
    report.violations = world.violations();
    report.violations.push_back(fmt::format("exception: {}", failure.what()));
  }
  report.last_lines.assign(world.last_lines().begin(), world.last_lines().end());
  report.hash = world.hash();
  report.steps = cluster.steps();
  report.promotions = cluster.promotions();
  report.rows = cluster.rows();
  report.acknowledged = cluster.commits().acknowledged_count() + cluster.commits().lost_count();
  report.lost = cluster.commits().lost_count();
  report.requests = cluster.requests().answered_count();
  for (std::size_t host = 0; host < cluster.size(); ++host)
    report.guard_fired += cluster.guard(host).fired();
  report.virtual_time = world.now() - TimePoint();
  return report;
}

}  // namespace spilo::testing
