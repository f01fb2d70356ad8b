// Verbs that only look: list, topology, history, version, dsn, rules.
#include <fmt/format.h>

#include <algorithm>

#include "cli/cluster.hpp"
#include "cli/cluster_table.hpp"
#include "cli/commands/commands.hpp"
#include "spilo/ha/machine.hpp"
#include "spilo/model/codec.hpp"

namespace spilo::cli {
namespace {

using namespace std::chrono_literals;

constexpr std::string_view clear_screen = "\x1b[2J\x1b[H";

std::vector<std::unique_ptr<Cluster>> open_all(App& app, const VerbOptions& options) {
  const Settings settings = load_settings(app);
  std::vector<std::unique_ptr<Cluster>> out;
  auto names = options.words;
  if (names.empty()) names.emplace_back();
  for (const auto& name : names) out.push_back(std::make_unique<Cluster>(app, settings, name));
  return out;
}

// One screen: every cluster once. Returns where each store stood.
std::vector<dcs::Index> show_all(App& app,
                                 const std::vector<std::unique_ptr<Cluster>>& clusters,
                                 const VerbOptions& options) {
  std::vector<dcs::Index> seen;
  std::string text;
  std::string hints;
  if (options.timestamp) text += app.stamp() + "\n";
  for (const auto& cluster : clusters) {
    const Picture picture = cluster->load();
    seen.push_back(picture.view.index);
    text += render_members(picture.document,
                           picture.view.initialize,
                           ListOptions{options.format, options.extended});
    if (picture.view.members.empty() && !app.options().compat)
      hints += fmt::format(
          "No node of cluster {} has reported to {}. {}\n",
          cluster->name(),
          cluster->where(),
          picture.view.initialize ? "Its daemons are stopped or can't reach the store."
                                  : "Are the cluster's name and namespace right?");
  }
  const bool clears = options.watch && app.terminal().stdout_is_terminal();
  app.print(clears ? std::string(clear_screen) + text : text);
  app.terminal().err(hints);
  return seen;
}

// Until something changes in one of the stores, or the time of -w is over.
void wait_for_change(App& app,
                     const std::vector<std::unique_ptr<Cluster>>& clusters,
                     const std::vector<dcs::Index>& seen,
                     double limit_s) {
  const auto limit = limit_s > 0 ? std::chrono::duration_cast<Duration>(
                                       std::chrono::duration<double>(limit_s))
                                 : Duration(1h);
  const TimePoint until = app.in(limit);
  std::vector<std::unique_ptr<Pending<void>>> changes;
  for (std::size_t i = 0; i < clusters.size(); ++i)
    changes.push_back(app.start(clusters[i]->changed(seen[i], until)));
  app.run_until(
      [&] {
        return std::any_of(
            changes.begin(), changes.end(), [](const auto& change) { return change->done(); });
      },
      until);
}

Exit show(App& app, const VerbOptions& options) {
  const auto clusters = open_all(app, options);
  auto seen = show_all(app, clusters, options);
  while (options.watch) {
    wait_for_change(app, clusters, seen, options.watch_s);
    try {
      seen = show_all(app, clusters, options);
    } catch (const Stop& problem) {
      // A watcher outlives an outage of the store.
      app.note(problem.message());
      app.run_until([] { return false; }, app.in(1s));
    }
  }
  return Exit::done;
}

// "150004" -> "15.4".
std::string server_version(std::int64_t number) {
  if (number < 100000) return fmt::format("{}.{}.{}", number / 10000, number / 100 % 100, number % 100);
  return fmt::format("{}.{}", number / 10000, number % 10000);
}

}  // namespace

Exit list(App& app, const VerbOptions& options) {
  return show(app, options);
}

Exit topology(App& app, const VerbOptions& given) {
  VerbOptions options = given;
  options.format = Format::topology;
  return show(app, options);
}

Exit history(App& app, const VerbOptions& options) {
  Cluster cluster(app, load_settings(app), cluster_word(options));
  const Picture picture = cluster.load();
  const auto lines = picture.view.history.value_or(std::vector<HistoryLine>{});
  app.print(render(history_table(lines), options.format));
  if (lines.empty() && !app.options().compat)
    app.note(picture.view.members.empty()
                 ? fmt::format("No node of cluster {} has reported to {}.", cluster.name(),
                               cluster.where())
                 : "The cluster is on its first timeline: nobody was ever promoted.");
  return Exit::done;
}

Exit version(App& app, const VerbOptions& options) {
  if (app.options().compat) app.say("patronictl version 4.1.4");
  else app.say(fmt::format("{} version {}", app.options().program, SPILO_VERSION));
  if (options.words.empty() && app.options().node_url.empty()) return Exit::done;

  Cluster cluster(app, load_settings(app), cluster_word(options));
  const Picture picture = cluster.load();
  const auto members = select_members(cluster, picture.view, "", member_words(options));
  app.say("");
  std::vector<std::unique_ptr<Pending<Answer>>> answers;
  for (const auto& member : members)
    answers.push_back(app.start(cluster.call(member.api_url, "GET", "/patroni", "", app.in(3s))));
  Exit code = Exit::done;
  for (std::size_t i = 0; i < members.size(); ++i) {
    const auto name = members[i].name.str();
    const auto answer = answers[i]->get();
    const auto status =
        answer.has_value() ? json::parse(answer->body) : Result<json::Value>(answer.error());
    const auto* about = status.has_value() ? status->find("patroni") : nullptr;
    if (!about) {
      app.say(fmt::format("{}: failed to get version: {}", name,
                          answer.has_error() ? answer.error().text() : brief(*answer)));
      code = app.refused(Exit::error);
      continue;
    }
    const auto server = status->get_int("server_version");
    app.say(fmt::format("{}: Patroni {}{}", name, about->get_string("version"),
                        server ? " PostgreSQL " + server_version(*server) : ""));
  }
  return code;
}

Exit dsn(App& app, const VerbOptions& options) {
  if (!options.role.empty() && !options.member.empty())
    throw Stop(Exit::usage, "--role and --member are mutually exclusive options");
  Cluster cluster(app, load_settings(app), cluster_word(options));
  const Picture picture = cluster.load();
  require_members(cluster, picture.view);
  const bool any_role = !options.member.empty();
  const std::string role = any_role ? "any" : options.role.empty() ? "leader" : options.role;
  for (const auto& member : picture.view.members) {
    if (!has_role(member, picture.view, role)) continue;
    if (any_role && member.name.str() != options.member) continue;
    const auto at = codec::parse_conn_url(member.conn_url);
    if (!at) continue;
    app.say(fmt::format("host={} port={}", at->host, at->port));
    return Exit::done;
  }
  throw Stop(Exit::error,
             any_role ? fmt::format("Can not find a suitable member: {} has no member {} with an "
                                    "address",
                                    cluster.name(), options.member)
                      : fmt::format("Can not find a suitable member: {} has no {} now",
                                    cluster.name(), role));
}

Exit rules(App& app, const VerbOptions& options) {
  Table table;
  table.columns = {{"Rule"}, {"What it means"}};
  for (const auto& rule : ha::rules()) {
    std::vector<json::Value> row;
    row.emplace_back(std::string(rule.name));
    row.emplace_back(std::string(rule.sentence));
    table.rows.push_back(std::move(row));
  }
  if (options.format_given) {
    app.print(render(table, options.format));
    return Exit::done;
  }
  std::size_t width = 0;
  for (const auto& rule : ha::rules()) width = std::max(width, rule.name.size());
  for (const auto& rule : ha::rules())
    app.say(fmt::format("{:<{}}  {}", rule.name, width, rule.sentence));
  return Exit::done;
}

}  // namespace spilo::cli
