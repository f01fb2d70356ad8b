// why: the decisions of all nodes, in one story.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <ctime>

#include "cli/cluster.hpp"
#include "cli/commands/commands.hpp"
#include "cli/phase_watch.hpp"
#include "cli/schedule.hpp"
#include "cli/yaml_text.hpp"
#include "spilo/model/codec.hpp"

namespace spilo::cli {
namespace {

using namespace std::chrono_literals;

// Local time with milliseconds; with the day, because a story may be older than a night.
std::string local_time(WallTime time) {
  const auto whole = std::chrono::floor<std::chrono::seconds>(time);
  const std::time_t seconds = whole.time_since_epoch().count();
  std::tm local{};
  ::localtime_r(&seconds, &local);
  return fmt::format("{:04}-{:02}-{:02} {:02}:{:02}:{:02}.{:03}", local.tm_year + 1900,
                     local.tm_mon + 1, local.tm_mday, local.tm_hour, local.tm_min, local.tm_sec,
                     (time - whole).count());
}

json::Value as_json(const Decision& decision) {
  json::Value out = json::Value::object();
  out.set("time", codec::dump_wall_time(decision.time));
  out.set("node", decision.node);
  out.set("rule", decision.rule);
  out.set("sentence", decision.sentence);
  out.set("event", decision.event);
  out.set("inputs", decision.inputs);
  return out;
}

// "30min", "2h" back from now, or a point of time.
std::optional<WallTime> parse_since(const std::string& text, WallTime now) {
  if (const auto back = parse_duration(json::Value(text)))
    return now - std::chrono::duration_cast<std::chrono::milliseconds>(*back);
  return parse_schedule(text, now);
}

void print_story(App& app, const std::vector<Decision>& decisions, bool extended) {
  std::size_t width = 0;
  std::size_t rule_width = 0;
  for (const auto& decision : decisions) {
    width = std::max(width, display_width(decision.node));
    rule_width = std::max(rule_width, decision.rule.size());
  }
  for (const auto& decision : decisions) {
    app.say(fmt::format("{}  {:<{}}  {:<{}}  {}", local_time(decision.time), decision.node, width,
                        decision.rule, rule_width, decision.sentence));
    if (!extended) continue;
    app.say("    because of: " + decision.event);
    app.say("    seen: " + json::dump(decision.inputs, json::Style::spaced));
  }
}

}  // namespace

Exit why(App& app, const VerbOptions& options) {
  Cluster cluster(app, load_settings(app), cluster_word(options));
  const Picture picture = cluster.load();
  const auto members = select_members(cluster, picture.view, "", member_words(options));
  std::optional<WallTime> since;
  if (!options.since.empty()) {
    since = parse_since(options.since, app.clock().wall_now());
    if (!since)
      throw Stop(Exit::usage,
                 fmt::format("--since {}: give a time back from now (30min, 2h) or a point of time "
                             "(2026-05-06T07:08)",
                             options.since));
  }

  std::vector<std::unique_ptr<Pending<std::vector<Decision>>>> answers;
  for (const auto& member : members)
    answers.push_back(app.start(read_decisions(cluster, member, 0, app.in(3s))));
  std::vector<Decision> story;
  std::vector<std::string> silent;
  for (std::size_t i = 0; i < members.size(); ++i) {
    auto decisions = answers[i]->get();
    if (decisions.has_error()) {
      silent.push_back(fmt::format("{} ({}): {}", members[i].name.str(), members[i].api_url,
                                   decisions.error().text()));
      continue;
    }
    for (auto& decision : *decisions)
      if (!since || decision.time >= *since) story.push_back(std::move(decision));
  }
  sort_decisions(story);
  const auto lines = static_cast<std::size_t>(std::max(options.lines, 0));
  if (lines > 0 && story.size() > lines)
    story.erase(story.begin(), story.end() - static_cast<std::ptrdiff_t>(lines));

  json::Value list = json::Value::array();
  for (const auto& decision : story) list.push(as_json(decision));
  if (options.format == Format::json) app.say(json::dump(list, json::Style::spaced));
  else if (options.format == Format::yaml) app.print(yaml_text(list));
  else print_story(app, story, options.extended);
  if (story.empty() && silent.empty()) app.note("No decision is recorded in that time.");
  for (const auto& line : silent) app.note("No answer from " + line);
  return silent.size() == members.size() ? Exit::error : Exit::done;
}

}  // namespace spilo::cli
