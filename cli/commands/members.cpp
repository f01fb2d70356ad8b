// Verbs that ask members to do something: restart, reinit, reload, flush (patroni-contract 6.2).
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <random>

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

std::string names_of(const std::vector<Member>& members) {
  std::vector<std::string> names;
  for (const auto& member : members) names.push_back(member.name.str());
  return fmt::format("{}", fmt::join(names, ", "));
}

void show(App& app, const Picture& picture) {
  app.print(render_members(picture.document, picture.view.initialize, ListOptions{}));
}

void ask_consent(App& app, const VerbOptions& options, const std::string& action,
                 const std::vector<Member>& members) {
  if (options.force) return;
  if (!app.confirm(
          fmt::format("Are you sure you want to {} members {}?", action, names_of(members))))
    throw Stop(Exit::error, "Aborted " + action);
}

Exit worse(Exit a, Exit b) {
  return std::max(a, b);
}

// A member that gave no answer.
Exit unanswered(App& app, const std::string& action, const Member& member, const Error& error) {
  const bool certain = is_certain(error);
  app.say(fmt::format("Failed: {} for member {}: {}{}", action, member.name.str(), error.text(),
                      certain ? ". Is its daemon running?"
                              : ". It may be going on all the same: look at `spiloctl list`."));
  return certain ? Exit::error : Exit::unknown;
}

// A member that said no.
Exit declined(App& app, const std::string& action, const Member& member, const Answer& answer) {
  app.say(fmt::format("Failed: {} for member {}, status code={}, ({})", action, member.name.str(),
                      answer.status, brief(answer)));
  if (answer.status == 401 || answer.status == 403)
    app.note("The node refuses requests that change something. Give it the credentials in the "
             "section `ctl` of the configuration, or use the node's own machine.");
  return app.refused();
}

Result<Answer> request(Cluster& cluster, const Member& member, const char* method,
                       const char* path, const json::Value& body, Duration limit) {
  auto& app = cluster.app();
  const auto* object = body.as_object();
  const bool empty = object == nullptr || object->empty();
  return app.wait(cluster.call(member.api_url, method, path,
                               empty ? std::string() : json::dump(body, json::Style::spaced),
                               app.in(limit)));
}

Duration seconds(double value) {
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(value));
}

struct RestartPlan {
  json::Value body = json::Value::object();
  bool scheduled = false;
  Duration limit = 330s;
};

RestartPlan plan_restart(App& app, const VerbOptions& options, const ClusterView& view) {
  RestartPlan plan;
  if (options.pending) plan.body.set("restart_pending", true);
  std::string version = options.pg_version;
  if (version.empty() && !options.force)
    version = app.ask("Restart if the PostgreSQL version is less than provided (e.g. 15.2)", "");
  if (!version.empty()) plan.body.set("postgres_version", version);
  if (!options.scheduled.empty() && options.scheduled != "now") {
    const auto at = parse_schedule(options.scheduled, app.clock().wall_now());
    if (!at)
      throw Stop(Exit::usage,
                 fmt::format("Unable to parse scheduled timestamp ({}). It should be in an "
                             "unambiguous format, e.g. 2026-05-06T07:08+02:00",
                             options.scheduled));
    if (view.config && view.config->pause)
      throw Stop(Exit::error, "Can't schedule restart in the paused state");
    plan.body.set("schedule", codec::dump_wall_time(*at));
    plan.scheduled = true;
  }
  if (!options.restart_timeout.empty()) {
    plan.body.set("timeout", options.restart_timeout);
    if (const auto limit = parse_duration(json::Value(options.restart_timeout)))
      plan.limit = *limit + 30s;
  }
  return plan;
}

Exit restart_one(Cluster& cluster, const VerbOptions& options, const RestartPlan& plan,
                 const Member& member) {
  auto& app = cluster.app();
  if (plan.scheduled && options.force && !member.scheduled_restart.is_null()) {
    const auto deleted = request(cluster, member, "DELETE", "/restart", {}, 10s);
    if (deleted.has_error()) return unanswered(app, "flush", member, deleted.error());
  }
  PhaseWatch watch(cluster, {member}, PhaseWatch::Shows::everything);
  const bool follows = !app.options().compat && !plan.scheduled && !options.no_wait;
  if (follows) watch.begin();
  const TimePoint start = app.clock().now();
  auto pending = app.start(cluster.call(member.api_url, "POST", "/restart",
                                        json::dump(plan.body, json::Style::spaced),
                                        app.in(plan.limit)));
  while (!pending->done()) {
    app.run_until([&] { return pending->done(); }, app.in(1s));
    if (follows) watch.print_new(1s);
    if (options.no_wait && !pending->done()) {
      app.say(fmt::format("Requested: restart on member {}; it goes on without this program",
                          member.name.str()));
      return Exit::done;
    }
  }
  const auto answer = pending->get();
  if (answer.has_error()) return unanswered(app, "restart", member, answer.error());
  if (answer->status == 409) {
    app.say(fmt::format("Failed: another restart is already scheduled on member {}",
                        member.name.str()));
    return app.refused();
  }
  if (!answer->ok()) return declined(app, "restart", member, *answer);
  app.say(fmt::format("Success: restart {}on member {}", answer->status == 202 ? "scheduled " : "",
                      member.name.str()));
  if (follows)
    app.say(fmt::format("It took {:.3f} s.",
                        std::chrono::duration<double>(app.clock().now() - start).count()));
  return Exit::done;
}

}  // namespace

std::string cluster_word(const VerbOptions& options) {
  return options.words.empty() ? std::string() : options.words.front();
}

std::vector<std::string> member_words(const VerbOptions& options) {
  if (options.words.empty()) return {};
  return {options.words.begin() + 1, options.words.end()};
}

Exit restart(App& app, const VerbOptions& given) {
  VerbOptions options = given;
  Cluster cluster(app, load_settings(app), cluster_word(options));
  const Picture picture = cluster.load();
  require_members(cluster, picture.view);
  show(app, picture);
  auto members =
      select_members(cluster, picture.view, options.role, member_words(options));
  if (options.scheduled.empty() && !options.force)
    options.scheduled = app.ask(fmt::format("When should the restart take place (e.g. {} )",
                                            app.stamp().substr(0, 16).replace(10, 1, "T")),
                                "now");
  const bool now = options.scheduled.empty() || options.scheduled == "now";
  if (options.pending && now)
    std::erase_if(members, [](const Member& member) { return !member.pending_restart; });
  if (members.empty()) {
    app.say("No member has a pending restart.");
    return Exit::done;
  }
  ask_consent(app, options, "restart", members);
  if (options.any && members.size() > 1) {
    std::random_device dice;
    members = {members[dice() % members.size()]};
  }
  const RestartPlan plan = plan_restart(app, options, picture.view);
  Exit code = Exit::done;
  for (const auto& member : members)
    code = worse(code, restart_one(cluster, options, plan, member));
  return code;
}

Exit reload(App& app, const VerbOptions& options) {
  Cluster cluster(app, load_settings(app), cluster_word(options));
  const Picture picture = cluster.load();
  require_members(cluster, picture.view);
  show(app, picture);
  const auto members = select_members(cluster, picture.view, options.role, member_words(options));
  ask_consent(app, options, "reload", members);
  const auto loop_wait = picture.view.config ? picture.view.config->timing.loop_wait
                                             : Timing{}.loop_wait;
  Exit code = Exit::done;
  for (const auto& member : members) {
    const auto answer = request(cluster, member, "POST", "/reload", {}, 10s);
    if (answer.has_error()) {
      code = worse(code, unanswered(app, "reload", member, answer.error()));
    } else if (answer->status == 200) {
      app.say(fmt::format("No changes to apply on member {}", member.name.str()));
    } else if (answer->status == 202) {
      app.say(fmt::format(
          "Reload request received for member {} and will be processed within {} seconds",
          member.name.str(), std::chrono::ceil<std::chrono::seconds>(loop_wait).count()));
    } else {
      code = worse(code, declined(app, "reload", member, *answer));
    }
  }
  return code;
}

namespace {

json::Value status_of(Cluster& cluster, const Member& member) {
  const auto answer = request(cluster, member, "GET", "/patroni", {}, 2s);
  if (answer.has_error()) return {};
  auto document = json::parse(answer->body);
  return document.has_value() ? std::move(*document) : json::Value();
}

// Until the server of every member runs again, and is not the one of before.
Exit await_reinit(Cluster& cluster, std::vector<std::pair<Member, std::string>> waiting,
                  Duration limit) {
  auto& app = cluster.app();
  const TimePoint until = app.in(limit);
  std::map<std::string, std::string> told;
  while (!waiting.empty() && app.clock().now() < until) {
    const auto now = app.wait(cluster.read(app.in(2s)));
    for (auto it = waiting.begin(); it != waiting.end();) {
      const auto status = status_of(cluster, it->first);
      const auto name = it->first.name.str();
      const auto started = status.get_string("postmaster_start_time");
      if (status.get_string("state") == "running" && !started.empty() && started != it->second) {
        app.say("Reinitialize is completed on: " + name);
        it = waiting.erase(it);
        continue;
      }
      const auto* own = status.find("spilo");
      const auto task = own ? own->get_string("task") : std::string();
      if (!task.empty() && told[name] != task) app.say(name + ": " + (told[name] = task));
      ++it;
    }
    if (waiting.empty()) break;
    const auto seen = now.has_value() ? now->view.index : dcs::Index{};
    if (now.has_error() || seen == dcs::Index{}) {
      app.run_until([] { return false; }, std::min(until, app.in(1s)));
      continue;
    }
    // The task's progress is not in the store: look once a second as well.
    app.wait(cluster.changed(seen, std::min(until, app.in(1s)))).value();
  }
  if (waiting.empty()) return Exit::done;
  std::vector<Member> left;
  for (const auto& [member, started] : waiting) left.push_back(member);
  app.say(fmt::format("Not yet completed on: {}. It goes on; `spiloctl list` shows when it is done.",
                      names_of(left)));
  return Exit::unknown;
}

}  // namespace

Exit reinit(App& app, const VerbOptions& options) {
  Cluster cluster(app, load_settings(app), cluster_word(options));
  const Picture picture = cluster.load();
  require_members(cluster, picture.view);
  show(app, picture);
  auto names = member_words(options);
  if (names.empty() && !options.force) {
    const auto all = select_members(cluster, picture.view, "replica", {});
    names.push_back(app.ask(fmt::format("Which member do you want to reinitialize [{}]?",
                                        names_of(all)),
                            ""));
    if (names.back().empty()) throw Stop(Exit::error, "Aborted reinitialize");
  }
  const auto members = select_members(cluster, picture.view, "replica", names);
  ask_consent(app, options, "reinitialize", members);

  Exit code = Exit::done;
  std::vector<std::pair<Member, std::string>> waiting;
  for (const auto& member : members) {
    const auto before = status_of(cluster, member).get_string("postmaster_start_time");
    json::Value body = json::Value::object();
    body.set("force", options.force);
    if (options.from_leader) body.set("from_leader", true);
    auto answer = request(cluster, member, "POST", "/reinitialize", body, 15s);
    if (answer.has_value() && !answer->ok() &&
        brief(*answer).ends_with(" already in progress") &&
        app.confirm(brief(*answer) + ". Do you want to cancel it and reinitialize anyway?")) {
      body.set("force", true);
      answer = request(cluster, member, "POST", "/reinitialize", body, 15s);
    }
    if (answer.has_error()) {
      code = worse(code, unanswered(app, "reinitialize", member, answer.error()));
    } else if (!answer->ok()) {
      code = worse(code, declined(app, "reinitialize", member, *answer));
    } else {
      app.say("Success: reinitialize for member " + member.name.str());
      waiting.emplace_back(member, before);
    }
  }
  const bool waits = app.options().compat ? options.wait : !options.no_wait;
  if (!waits || waiting.empty()) return code;
  const Duration limit = options.timeout_s > 0 ? seconds(options.timeout_s) : Duration(24h);
  app.say(fmt::format("Waiting for reinitialize to complete on: {}", [&] {
    std::vector<Member> list;
    for (const auto& [member, started] : waiting) list.push_back(member);
    return names_of(list);
  }()));
  return worse(code, await_reinit(cluster, std::move(waiting), limit));
}

namespace {

Exit flush_restarts(Cluster& cluster, const VerbOptions& options, const ClusterView& view,
                    const std::vector<std::string>& names) {
  auto& app = cluster.app();
  const auto members = select_members(cluster, view, options.role, names);
  ask_consent(app, options, "flush scheduled restart of", members);
  Exit code = Exit::done;
  for (const auto& member : members) {
    if (member.scheduled_restart.is_null()) {
      app.say("No scheduled restart for member " + member.name.str());
      continue;
    }
    const auto answer = request(cluster, member, "DELETE", "/restart", {}, 10s);
    if (answer.has_error()) {
      code = worse(code, unanswered(app, "flush scheduled restart", member, answer.error()));
    } else if (answer->status == 200 || answer->status == 404) {
      app.say("Success: flush scheduled restart for member " + member.name.str());
    } else {
      code = worse(code, declined(app, "flush scheduled restart", member, *answer));
    }
  }
  return code;
}

Exit flush_switchover(Cluster& cluster, const ClusterView& view) {
  auto& app = cluster.app();
  if (!view.failover.requested() || !view.failover.scheduled_at) {
    app.say("No pending scheduled switchover");
    return Exit::done;
  }
  std::vector<Member> members = view.members;
  std::stable_partition(members.begin(), members.end(), [&](const Member& member) {
    return is_leader(member, view);
  });
  for (const auto& member : members) {
    const auto answer = request(cluster, member, "DELETE", "/switchover", {}, 10s);
    if (answer.has_error()) continue;
    if (answer->ok()) {
      app.say("Success: scheduled switchover deleted");
      return Exit::done;
    }
    return declined(app, "flush scheduled switchover", member, *answer);
  }
  // Nobody answers: take the request out of the store ourselves, unless it has changed.
  const auto cleared = app.wait(cluster.store().write(
      keys::failover, "{}", view.failover.version, std::nullopt, app.in(10s)));
  if (cleared.has_error())
    throw Stop(is_certain(cleared.error()) ? Exit::error : Exit::unknown,
               fmt::format("No node answers, and the request could not be taken out of {}: {}",
                           cluster.where(), cleared.error().text()));
  app.say("Success: scheduled switchover deleted");
  return Exit::done;
}

}  // namespace

Exit flush(App& app, const VerbOptions& options) {
  auto words = options.words;
  const auto is_target = [](const std::string& word) {
    return word == "restart" || word == "switchover";
  };
  std::string target;
  if (!words.empty() && is_target(words.back())) {
    target = words.back();
    words.pop_back();
  } else if (!words.empty() && is_target(words.front())) {
    target = words.front();
    words.erase(words.begin());
  }
  if (target.empty())
    throw Stop(Exit::usage, "What is to be flushed? Usage: spiloctl flush [CLUSTER [MEMBER...]] "
                            "restart|switchover");
  VerbOptions rest = options;
  rest.words = words;
  Cluster cluster(app, load_settings(app), cluster_word(rest));
  const Picture picture = cluster.load();
  require_members(cluster, picture.view);
  if (target == "restart")
    return flush_restarts(cluster, options, picture.view, member_words(rest));
  return flush_switchover(cluster, picture.view);
}

}  // namespace spilo::cli
