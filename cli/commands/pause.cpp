// pause and resume: maintenance mode (patroni-contract 6.2).
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "cli/cluster.hpp"
#include "cli/commands/commands.hpp"
#include "spilo/model/keys.hpp"

namespace spilo::cli {
namespace {

using namespace std::chrono_literals;

// The leader first: it is the one that acts on it.
std::vector<Member> leader_first(const ClusterView& view) {
  std::vector<Member> members = view.members;
  std::stable_partition(members.begin(), members.end(), [&](const Member& member) {
    return is_leader(member, view);
  });
  return members;
}

// Any member can write it. Nothing when nobody answered.
std::optional<Answer> ask_members(Cluster& cluster, const ClusterView& view,
                                  const json::Value& patch) {
  auto& app = cluster.app();
  for (const auto& member : leader_first(view)) {
    auto answer = app.wait(cluster.call(member.api_url, "PATCH", "/config",
                                        json::dump(patch, json::Style::spaced), app.in(5s)));
    if (answer.has_value()) return std::move(*answer);
    app.note(fmt::format("No answer from {}: {}", member.name.str(), answer.error().text()));
  }
  return std::nullopt;
}

// The same change by ourselves, unless somebody else changed the configuration meanwhile.
void write_ourselves(Cluster& cluster, const Picture& picture, const json::Value& patch) {
  auto& app = cluster.app();
  app.note("No node can be asked: writing to " + cluster.where() + " instead");
  json::Value document = require_config(cluster, picture);
  json::merge_patch(document, patch);
  const auto written =
      app.wait(cluster.store().write(keys::config, json::dump(document),
                                     picture.view.config_version, std::nullopt, app.in(10s)));
  if (written.has_error())
    throw Stop(is_certain(written.error()) ? Exit::error : Exit::unknown,
               fmt::format("The configuration could not be written to {}: {}", cluster.where(),
                           written.error().text()));
}

// --wait: the members that have not recognised it in time.
std::vector<std::string> wait_for_members(Cluster& cluster, const ClusterView& view, bool wanted) {
  auto& app = cluster.app();
  const auto loop_wait = view.config ? view.config->timing.loop_wait : Timing{}.loop_wait;
  const TimePoint until = app.in(loop_wait + 1s);
  for (;;) {
    const Picture now = cluster.load();
    std::vector<std::string> behind;
    for (const auto& member : now.view.members)
      if (member.pause != wanted) behind.push_back(member.name.str());
    if (behind.empty() || app.clock().now() >= until) return behind;
    app.wait(cluster.changed(now.view.index, std::min(until, app.in(1s)))).value();
  }
}

Exit set_pause(App& app, const VerbOptions& options, bool wanted) {
  Cluster cluster(app, load_settings(app), cluster_word(options));
  if (options.wait) cluster.store();  // only it tells what a member has recognised
  const Picture picture = cluster.load();
  if (cluster.has_store()) require_config(cluster, picture);
  if ((picture.view.config && picture.view.config->pause) == wanted)
    throw Stop(Exit::error, wanted ? "Cluster is already paused" : "Cluster is not paused");

  const std::string verb = wanted ? "pause" : "resume";
  json::Value patch = json::Value::object();
  patch.set("pause", wanted ? json::Value(true) : json::Value());
  const auto answer = ask_members(cluster, picture.view, patch);
  if (answer && !answer->ok()) {
    app.say(fmt::format("Failed: {} cluster management status code={}, ({})", verb,
                        answer->status, brief(*answer)));
    return app.refused();
  }
  if (!answer) write_ourselves(cluster, picture, patch);

  if (options.wait) {
    app.say(fmt::format("'{}' request sent, waiting until it is recognized by all nodes", verb));
    const auto behind = wait_for_members(cluster, picture.view, wanted);
    if (!behind.empty()) {
      app.say(fmt::format("{} members didn't recognize {} state: {}", behind.size(), verb,
                          fmt::join(behind, ", ")));
      if (!app.options().compat) return Exit::unknown;
    }
  }
  app.say(fmt::format("Success: cluster management is {}", wanted ? "paused" : "resumed"));
  return Exit::done;
}

}  // namespace

Exit pause(App& app, const VerbOptions& options) {
  return set_pause(app, options, true);
}

Exit resume(App& app, const VerbOptions& options) {
  return set_pause(app, options, false);
}

}  // namespace spilo::cli
