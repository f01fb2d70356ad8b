// The cluster's configuration: show-config and edit-config (patroni-contract 6.2).
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <fstream>
#include <iterator>

#include "cli/cluster.hpp"
#include "cli/commands/commands.hpp"
#include "cli/edit_document.hpp"
#include "cli/edit_file.hpp"
#include "cli/yaml_text.hpp"
#include "spilo/config/yaml.hpp"
#include "spilo/model/keys.hpp"

namespace spilo::cli {
namespace {

using namespace std::chrono_literals;

std::string file_text(App& app, const std::string& name) {
  if (name == "-") return app.terminal().read_all();
  std::ifstream in(name);
  std::string text(std::istreambuf_iterator<char>(in), {});
  if (!in) throw Stop(Exit::error, fmt::format("{} can't be read", name));
  return text;
}

json::Value yaml_or_stop(const std::string& text, const std::string& source) {
  auto parsed = config::parse_yaml(text);
  if (parsed.has_error())
    throw Stop(Exit::error, fmt::format("{}: {}", source, parsed.error().detail()));
  if (!parsed->duplicates.empty()) {
    const auto& twice = parsed->duplicates.front();
    throw Stop(Exit::error, fmt::format("{}: {} is given twice, in lines {} and {}", source,
                                        twice.path, twice.first_line, twice.line));
  }
  if (!parsed->value.is_object() && !parsed->value.is_null())
    throw Stop(Exit::error, fmt::format("{}: keys and values are needed, not {}", source,
                                        parsed->value.type_name()));
  return std::move(parsed->value);
}

// All of them at once: nobody wants to learn them one by one.
void require_valid(const json::Value& document) {
  const auto violations = validate_dynamic_config(document);
  if (violations.empty()) return;
  std::string text = "The configuration was not changed, because it would be wrong:";
  for (const auto& violation : violations)
    text += fmt::format("\n  {}: {}", violation.path, violation.message);
  throw Stop(Exit::error, text);
}

json::Value edited(App& app, const VerbOptions& options, const json::Value& before) {
  json::Value after = before;
  if (!options.replace_file.empty())
    after = yaml_or_stop(file_text(app, options.replace_file), options.replace_file);
  if (!options.apply_file.empty()) {
    const auto patch = yaml_or_stop(file_text(app, options.apply_file), options.apply_file);
    if (patch.is_object()) json::merge_patch(after, patch);
  }
  const auto set_all = [&](const std::vector<std::string>& list, bool parameter) {
    for (const auto& assignment : list) {
      const auto problem = apply_assignment(after, assignment, parameter);
      if (problem.has_error()) throw Stop(Exit::usage, problem.error().detail());
    }
  };
  set_all(options.set, false);
  set_all(options.pg, true);
  const bool by_hand = options.replace_file.empty() && options.apply_file.empty() &&
                       options.set.empty() && options.pg.empty();
  if (!by_hand) return after;
  return yaml_or_stop(edit_in_editor(app, yaml_text(before)), "the edited text");
}

}  // namespace

Exit show_config(App& app, const VerbOptions& options) {
  Cluster cluster(app, load_settings(app), cluster_word(options));
  const Picture picture = cluster.load();
  const auto& document = require_config(cluster, picture);
  if (options.format == Format::json) app.say(json::dump(document, json::Style::pretty));
  else app.print(yaml_text(document) + "\n");
  return Exit::done;
}

Exit edit_config(App& app, const VerbOptions& options) {
  Cluster cluster(app, load_settings(app), cluster_word(options));
  cluster.store();
  const Picture picture = cluster.load();
  // A broken document can be replaced, but not edited.
  const json::Value before = options.replace_file.empty() || picture.view.config
                                 ? require_config(cluster, picture)
                                 : json::Value::object();
  const json::Value after = edited(app, options, before);
  const std::string change = unified_diff(yaml_text(before), yaml_text(after));
  if (change.empty()) {
    app.say("Not changed");
    return Exit::done;
  }
  if (!options.quiet) app.print(change);
  require_valid(after);
  const bool from_stdin = options.apply_file == "-" || options.replace_file == "-";
  if (from_stdin && !options.force) {
    app.say("Use --force option to apply changes");
    return Exit::done;
  }
  if (!options.force && !app.confirm("Apply these changes?")) {
    app.say("Not changed");
    return Exit::done;
  }
  const auto written = app.wait(cluster.store().write(keys::config, json::dump(after),
                                                      picture.view.config_version, std::nullopt,
                                                      app.in(10s)));
  if (written.has_error() && written.error().is(errc::conflict))
    throw Stop(Exit::error, "Config modification aborted due to concurrent changes");
  if (written.has_error())
    throw Stop(is_certain(written.error()) ? Exit::error : Exit::unknown,
               fmt::format("The configuration could not be written to {}: {}{}", cluster.where(),
                           written.error().text(),
                           is_certain(written.error())
                               ? ""
                               : "\nIt may have been written all the same: look at show-config."));
  app.say("Configuration changed");
  return Exit::done;
}

}  // namespace spilo::cli
