// switchover and failover (patroni-contract 6.3).
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "cli/cluster.hpp"
#include "cli/cluster_table.hpp"
#include "cli/commands/commands.hpp"
#include "cli/phase_watch.hpp"
#include "cli/schedule.hpp"
#include "spilo/model/codec.hpp"
#include "spilo/model/keys.hpp"

namespace spilo::cli {
namespace {

using namespace std::chrono_literals;

struct Request {
  bool switchover = true;
  std::string leader;     // empty: a failover of a cluster without one, or from whoever leads
  std::string candidate;  // empty: whoever is best
  std::optional<WallTime> at;

  std::string action() const { return switchover ? "switchover" : "failover"; }
  std::string Action() const { return switchover ? "Switchover" : "Failover"; }
  std::string done() const { return switchover ? "switched over" : "failed over"; }
  std::string body() const {
    json::Value out = json::Value::object();
    if (!candidate.empty()) out.set("candidate", candidate);
    if (!leader.empty() && switchover) out.set("leader", leader);
    if (at) out.set("scheduled_at", codec::dump_wall_time(*at));
    return json::dump(out, json::Style::spaced);
  }
};

struct Outcome {
  Exit code = Exit::done;
  std::string text;    // one sentence
  bool table = false;  // show the cluster afterwards
};

void print_table(App& app, const Picture& picture) {
  app.print(render_members(picture.document, picture.view.initialize, ListOptions{}));
}

std::string quoted_list(const std::vector<std::string>& names) {
  std::vector<std::string> quoted;
  for (const auto& name : names) quoted.push_back("'" + name + "'");
  return fmt::format("[{}]", fmt::join(quoted, ", "));
}

std::string holder(const ClusterView& view) {
  return view.leader ? view.leader->holder.str() : std::string();
}

std::vector<std::string> candidates_of(const ClusterView& view) {
  std::vector<std::string> names;
  for (const auto& member : view.members)
    if (!is_leader(member, view) && !member.tags.nofailover) names.push_back(member.name.str());
  std::sort(names.begin(), names.end());
  return names;
}

// The questions of the contract, in its order; with --force nothing is asked.
void choose_leader(App& app, const Cluster& cluster, const VerbOptions& options,
                   const ClusterView& view, Request& request) {
  const std::string current = holder(view);
  if (!request.switchover) {
    request.leader = current;
    return;
  }
  if (current.empty())
    throw Stop(Exit::error,
               "This cluster has no leader. A switchover needs one that can hand over; `" +
                   app.options().program + " failover` promotes a member that you name.");
  request.leader = options.leader;
  if (request.leader.empty())
    request.leader = options.force ? current : app.ask("Primary", current);
  if (request.leader != current)
    throw Stop(Exit::error,
               fmt::format("Member {} is not the leader of cluster {}: {} is.",
                           request.leader, cluster.name(), current));
}

void choose_candidate(App& app, const Cluster& cluster, const VerbOptions& options,
                      const ClusterView& view, Request& request) {
  const auto names = candidates_of(view);
  if (names.empty())
    throw Stop(Exit::error,
               fmt::format("No candidates found to {} to. Every other member is missing or tagged "
                           "nofailover.",
                           request.action()));
  request.candidate = options.candidate;
  if (request.candidate.empty() && !options.force)
    request.candidate = app.ask(fmt::format("Candidate {}", quoted_list(names)), "");
  if (request.candidate.empty()) {
    if (!request.switchover)
      throw Stop(Exit::error, "Failover could be performed only to a specific candidate");
    if (view.config && view.config->pause)
      throw Stop(Exit::error,
                 "Switchover is possible only to a specific candidate in a paused state");
    return;
  }
  if (request.candidate == request.leader)
    throw Stop(Exit::error,
               request.switchover
                   ? "Switchover target and source are the same."
                   : fmt::format("Member {} is already the leader of cluster {}",
                                 request.candidate, cluster.name()));
  if (std::find(names.begin(), names.end(), request.candidate) == names.end())
    throw Stop(Exit::error,
               fmt::format("Member {} does not exist in cluster {} or is tagged as nofailover. "
                           "Candidates are {}.",
                           request.candidate, cluster.name(), quoted_list(names)));
}

void choose_time(App& app, const VerbOptions& options, const ClusterView& view, Request& request) {
  std::string text = options.scheduled;
  if (text.empty())
    text = options.force ? "now"
                         : app.ask(fmt::format("When should the switchover take place (e.g. {} )",
                                               app.stamp().substr(0, 16).replace(10, 1, "T")),
                                   "now");
  if (text == "now") return;
  request.at = parse_schedule(text, app.clock().wall_now());
  if (!request.at)
    throw Stop(Exit::usage,
               fmt::format("Unable to parse scheduled timestamp ({}). It should be in an "
                           "unambiguous format, e.g. 2026-05-06T07:08+02:00",
                           text));
  if (view.config && view.config->pause)
    throw Stop(Exit::error, "Can't schedule switchover in the paused state");
  if (*request.at <= app.clock().wall_now())
    throw Stop(Exit::error, fmt::format("Cannot schedule switchover in the past ({})", text));
}

void ask_consent(App& app, const Cluster& cluster, const VerbOptions& options,
                 const ClusterView& view, const Request& request) {
  if (options.force) return;
  const bool sync = view.config && view.config->synchronous_mode && !view.sync.leader.empty();
  const auto& voters = view.sync.voters;
  if (!request.switchover && sync &&
      std::find(voters.begin(), voters.end(), NodeName(request.candidate)) == voters.end() &&
      !app.confirm(fmt::format(
          "{} is not synchronous: commits that it lacks would be lost. Fail over to it anyway?",
          request.candidate)))
    throw Stop(Exit::error, "Aborted " + request.action());
  const std::string demoting =
      request.leader.empty() ? "" : ", demoting current leader " + request.leader;
  const std::string question =
      request.at ? fmt::format("Are you sure you want to schedule {} of cluster {} at {}{}?",
                               request.action(), cluster.name(),
                               codec::dump_wall_time(*request.at), demoting)
                 : fmt::format("Are you sure you want to {} cluster {}{}?", request.action(),
                               cluster.name(), demoting);
  if (!app.confirm(question)) throw Stop(Exit::error, "Aborted " + request.action());
}

// Another node leads now: the sentences are those of the API (contract 5.8).
Outcome arrived(const Request& request, const std::string& now) {
  Outcome out;
  out.table = true;
  if (request.candidate.empty() || request.candidate == now) {
    out.text = fmt::format("Successfully {} to \"{}\"", request.done(), now);
    return out;
  }
  out.code = Exit::failed;
  out.text = fmt::format("{} to \"{}\" instead of \"{}\"",
                         request.switchover ? "Switched over" : "Failed over", now,
                         request.candidate);
  return out;
}

Outcome no_outcome(const Request& request, std::chrono::seconds after) {
  Outcome out;
  out.code = Exit::unknown;
  out.text = fmt::format(
      "{} status unknown after {} seconds; the operation may still be in progress. Look at "
      "`spiloctl list` and `spiloctl why` before trying again.",
      request.Action(), after.count());
  return out;
}

Outcome from_answer(const Request& request, const Answer& answer) {
  Outcome out;
  const std::string body = brief(answer);
  if (answer.ok()) {
    out.text = body;
    out.table = true;
    if (body.find(" instead of ") != body.npos) out.code = Exit::failed;
    return out;
  }
  const bool unknown = body.find("status unknown") != body.npos;
  out.text = fmt::format("{} {}, details: {}, {}", request.Action(),
                         unknown ? "result unknown" : "failed", answer.status, body);
  const bool began = body == "Switchover failed" || body == "Failover failed";
  out.code = unknown ? Exit::unknown : began ? Exit::failed : Exit::refused;
  if (answer.status == 401 || answer.status == 403)
    out.text += "\nThe node refuses requests that change something. Give it the credentials in the "
                "section `ctl` of the configuration, or use the node's own machine.";
  return out;
}

class Handover {
 public:
  Handover(App& app, Cluster& cluster, const VerbOptions& options, Request request, Picture before)
      : app_(app),
        cluster_(cluster),
        options_(options),
        request_(std::move(request)),
        before_(std::move(before)),
        phases_(cluster_, before_.view.members) {
    const auto loop_wait = before_.view.config ? before_.view.config->timing.loop_wait
                                               : Timing{}.loop_wait;
    limit_ = std::chrono::ceil<std::chrono::seconds>(2 * std::max<Duration>(10s, loop_wait) + 10s);
    if (options.timeout_s > 0)
      limit_ = std::chrono::ceil<std::chrono::seconds>(
          std::chrono::duration<double>(options.timeout_s));
    until_ = app.in(limit_);
  }

  Outcome run() {
    shows_phases_ = !app_.options().compat && !request_.at;
    if (shows_phases_) phases_.begin();
    const auto* target = before_.view.member(
        NodeName(request_.leader.empty() ? request_.candidate : request_.leader));
    Result<Answer> answer = Error(errc::unavailable, "no member key of the leader is in the store");
    if (target && !target->api_url.empty()) {
      answer = post(*target, "/" + request_.action());
      if (accepted_) return accepted();
      const bool old_daemon =
          answer.has_value() && answer->status == 501 &&
          answer->body.find("Server does not support this operation") != std::string::npos;
      if (old_daemon) answer = post(*target, "/failover");
      if (accepted_) return accepted();
    }
    if (answer.has_value()) return from_answer(request_, *answer);
    return without_api(answer.error());
  }

  void print_phases() {
    if (shows_phases_) phases_.print_new(2s);
  }

 private:
  // Sends the request and shows what happens until the node answers.
  Result<Answer> post(const Member& target, const std::string& path) {
    auto answer = app_.start(
        cluster_.call(target.api_url, "POST", path, request_.body(), until_ + 1s));
    dcs::Index seen = before_.view.index;
    while (!answer->done()) {
      auto change = app_.start(cluster_.changed(seen, app_.in(1s)));
      app_.run_until([&] { return answer->done() || change->done(); }, app_.in(2s));
      if (answer->done()) break;
      const auto now = app_.wait(cluster_.read(app_.in(1s)));
      if (now.has_value()) {
        seen = now->view.index;
        const bool visible = now->view.failover.requested() ||
                             holder(now->view) != holder(before_.view);
        if (options_.no_wait && visible) {
          accepted_ = true;
          return Error(errc::cancelled, "not waited for");
        }
      }
      if (shows_phases_) phases_.print_new(1s);
    }
    return answer->get();
  }

  Outcome accepted() const {
    Outcome out;
    out.text = request_.Action() + " accepted; it goes on without this program.";
    return out;
  }

  // The node's REST interface gave no answer: the request can be left in the store itself, where
  // the leader, or the candidate, finds it.
  Outcome without_api(const Error& error) {
    if (!cluster_.has_store())
      throw Stop(Exit::error,
                 fmt::format("The node gave no answer: {}. Without a store (-c or -d) there is no "
                             "other way to ask for a {}.",
                             error.text(), request_.action()));
    Picture now = cluster_.load();
    if (!is_certain(error)) {
      // It was sent: don't ask twice for what is under way.
      if (holder(now.view) != holder(before_.view) || now.view.failover.requested())
        return await_outcome();
    }
    app_.say(fmt::format("{} Could not {} using Patroni api, falling back to DCS", app_.stamp(),
                         request_.action()));
    if (!app_.options().compat) app_.note(error.text());
    FailoverRequest wanted;
    if (request_.switchover) wanted.leader = NodeName(request_.leader);
    wanted.candidate = NodeName(request_.candidate);
    wanted.scheduled_at = request_.at;
    const auto written = app_.wait(cluster_.store().write(
        keys::failover, codec::dump_failover(wanted), now.view.failover.version, std::nullopt,
        app_.in(10s)));
    if (written.has_error()) {
      const bool certain = is_certain(written.error());
      throw Stop(certain ? Exit::error : Exit::unknown,
                 fmt::format("The request could not be written to {}: {}{}", cluster_.where(),
                             written.error().text(),
                             certain ? "" : "\nIt may have been written all the same: look at "
                                            "`spiloctl list` before trying again."));
    }
    Outcome out;
    out.table = true;
    if (app_.options().compat || options_.no_wait || request_.at) {
      out.text = request_.at ? request_.Action() + " scheduled"
                             : request_.Action() + " requested in " + cluster_.where();
      return out;
    }
    return await_outcome();
  }

  // The request is in the store: what became of it?
  Outcome await_outcome() {
    while (app_.clock().now() < until_) {
      const auto now = app_.wait(cluster_.read(app_.in(2s)));
      dcs::Index seen = before_.view.index;
      if (now.has_value()) {
        seen = now->view.index;
        const std::string leads = holder(now->view);
        if (!leads.empty() && leads != holder(before_.view)) return arrived(request_, leads);
        if (!leads.empty() && !now->view.failover.requested()) {
          Outcome out;
          out.code = Exit::failed;
          out.text = fmt::format("{} failed: {} still leads and has dropped the request. `spiloctl "
                                 "why` shows its reason.",
                                 request_.Action(), leads);
          return out;
        }
      }
      if (shows_phases_) phases_.print_new(1s);
      app_.wait(cluster_.changed(seen, std::min(until_, app_.in(1s)))).value();
    }
    return no_outcome(request_, limit_);
  }

  App& app_;
  Cluster& cluster_;
  const VerbOptions& options_;
  Request request_;
  Picture before_;
  PhaseWatch phases_;
  bool shows_phases_ = false;
  bool accepted_ = false;
  std::chrono::seconds limit_{};
  TimePoint until_{};
};

Exit run(App& app, const VerbOptions& options, bool is_switchover) {
  Cluster cluster(app, load_settings(app), cluster_word(options));
  const Picture picture = cluster.load();
  require_members(cluster, picture.view);
  app.say("Current cluster topology");
  print_table(app, picture);

  Request request;
  request.switchover = is_switchover;
  choose_leader(app, cluster, options, picture.view, request);
  choose_candidate(app, cluster, options, picture.view, request);
  if (is_switchover) choose_time(app, options, picture.view, request);
  ask_consent(app, cluster, options, picture.view, request);

  const TimePoint start = app.clock().now();
  Handover handover(app, cluster, options, request, picture);
  const Outcome outcome = handover.run();
  const double seconds = std::chrono::duration<double>(app.clock().now() - start).count();
  handover.print_phases();
  if (outcome.code == Exit::done || outcome.table)
    app.say(fmt::format("{} {}", app.stamp(), outcome.text));
  else
    app.say(outcome.text);
  if (!app.options().compat && !request.at) app.say(fmt::format("It took {:.3f} s.", seconds));
  if (outcome.table) print_table(app, cluster.load());
  return outcome.code == Exit::done ? Exit::done : app.refused(outcome.code);
}

}  // namespace

Exit switchover(App& app, const VerbOptions& options) {
  return run(app, options, true);
}

Exit failover(App& app, const VerbOptions& options) {
  return run(app, options, false);
}

}  // namespace spilo::cli
