// remove: everything that the store knows about a cluster (patroni-contract 6.2).
#include <fmt/format.h>

#include "cli/cluster.hpp"
#include "cli/cluster_table.hpp"
#include "cli/commands/commands.hpp"

namespace spilo::cli {

using namespace std::chrono_literals;

Exit remove(App& app, const VerbOptions& options) {
  if (options.words.empty())
    throw Stop(Exit::usage, "Which cluster is to be removed? It must be named here.");
  Cluster cluster(app, load_settings(app), cluster_word(options));
  auto& store = cluster.store();
  const Picture picture = cluster.load();
  if (picture.view == ClusterView{} ||
      (picture.view.members.empty() && !picture.view.initialize &&
       picture.view.config_version == dcs::Version{} && !picture.view.history))
    throw Stop(Exit::error,
               fmt::format("{} has nothing about a cluster {}. Are the name and the namespace "
                           "right?",
                           cluster.where(), cluster.name()));
  app.print(render_members(picture.document, picture.view.initialize, ListOptions{}));

  // Three questions on purpose: a running cluster loses its configuration and its history.
  if (app.ask("Please confirm the cluster name to remove") != cluster.name())
    throw Stop(Exit::error, "Cluster names specified do not match");
  const std::string phrase = "Yes I am aware";
  if (app.ask(fmt::format("You are about to remove all that {} knows about {}; the databases "
                          "themselves stay. Please type: \"{}\"",
                          cluster.where(), cluster.name(), phrase)) != phrase)
    throw Stop(Exit::error, fmt::format("You did not exactly type \"{}\"", phrase));
  if (picture.view.leader &&
      app.ask("This cluster is running. Please type the name of its leader") !=
          picture.view.leader->holder.str())
    throw Stop(Exit::error, "You did not specify the current leader of the cluster");

  const auto erased = app.wait(store.erase_all(app.in(30s)));
  if (erased.has_error())
    throw Stop(is_certain(erased.error()) ? Exit::error : Exit::unknown,
               fmt::format("Cluster {} could not be removed from {}: {}\nSome of it may be gone: "
                           "try again.",
                           cluster.name(), cluster.where(), erased.error().text()));
  if (!app.options().compat) app.say(fmt::format("Cluster {} is removed.", cluster.name()));
  return Exit::done;
}

}  // namespace spilo::cli
