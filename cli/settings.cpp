#include "cli/settings.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>
#include <vector>

extern char** environ;

namespace spilo::cli {
namespace {

config::Environment environment() {
  config::Environment out;
  for (char** entry = environ; entry && *entry; ++entry) {
    const std::string text = *entry;
    const auto equals = text.find('=');
    if (equals != text.npos) out.emplace(text.substr(0, equals), text.substr(equals + 1));
  }
  return out;
}

std::string variable(const config::Environment& environment, const char* name) {
  const auto found = environment.find(name);
  return found == environment.end() ? std::string() : found->second;
}

// The file that counts: of -c, else of the environment, else the first of the usual places that
// exists. Empty: none, which only the last may be.
std::string config_file(const GlobalOptions& options, const config::Environment& environment) {
  std::string file = options.config_file;
  for (const char* name : {"SPILOCTL_CONFIG_FILE", "PATRONICTL_CONFIG_FILE"})
    if (file.empty()) file = variable(environment, name);
  if (!file.empty()) {
    if (::access(file.c_str(), R_OK) == 0) return file;
    throw Stop(Exit::error,
               fmt::format("The configuration file {} does not exist or can't be read.", file));
  }
  const std::string home = variable(environment, "HOME");
  for (const char* usual :
       {"/.config/spilo/spiloctl.yaml", "/.config/patroni/patronictl.yaml"})
    if (!home.empty() && ::access((home + usual).c_str(), R_OK) == 0) return home + usual;
  return {};
}

[[noreturn]] void stop_with(const std::vector<config::Problem>& problems, bool has_file) {
  std::string text = "The configuration can't be used:";
  for (const auto& problem : problems)
    if (problem.severity == config::Problem::Severity::error)
      text += "\n  " + config::to_text(problem);
  if (!has_file)
    text += "\nThere is no configuration file. Name one with -c FILE (a node's own file will do), "
            "put it at ~/.config/spilo/spiloctl.yaml, give the store with -d URL, for example "
            "-d etcd3://10.0.0.1:2379, or look through one node with --node http://HOST:8008.";
  throw Stop(Exit::error, text);
}

}  // namespace

Settings load_settings(const App& app) {
  const auto& options = app.options();
  auto variables = environment();
  Settings out;
  const std::string file = config_file(options, variables);
  out.source = file.empty() ? "the configuration" : file;
  std::vector<std::string> files;
  if (!file.empty()) files.push_back(file);

  std::string url = options.dcs_url;
  if (url.empty()) url = variable(variables, "DCS_URL");
  const bool needs_no_store = !url.empty() || !options.node_url.empty();
  auto loaded = config::load_ctl(files, variables);
  if (!loaded.config && needs_no_store) {
    // The store is named elsewhere, but a reader of configurations wants one: give it a name that
    // nobody opens.
    variables["SPILO_SQLITE_PATH"] = "/nowhere";
    auto again = config::load_ctl(files, variables);
    if (again.config) loaded = std::move(again);
  }
  if (!loaded.config) stop_with(loaded.problems, !file.empty());
  out.store = std::move(loaded.config->store);
  if (!url.empty()) {
    auto store = config::parse_store_url(url);
    if (store.has_error()) throw Stop(Exit::usage, store.error().detail());
    store->scope = out.store.scope;
    out.store = std::move(*store);
  }
  const auto& ctl = loaded.config->ctl;
  out.user = ctl.username;
  out.password = ctl.password;
  out.tls.ca_file = ctl.tls.ca_file;
  out.tls.cert_file = ctl.tls.cert_file;
  out.tls.key_file = ctl.tls.key_file;
  out.tls.key_password = ctl.tls.key_password;
  out.tls.verify = ctl.tls.verify && !options.insecure;
  return out;
}

}  // namespace spilo::cli
