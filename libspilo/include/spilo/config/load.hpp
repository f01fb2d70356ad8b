// Files and environment -> Config, with everything that is wrong in one go.
//
//   auto loaded = config::load({"/etc/spilo/node.yml"}, environment);
//   for (const auto& problem : loaded.problems) fmt::print(stderr, "{}\n", to_text(problem));
//   if (!loaded.config) return 1;
//
// Free functions without state; may be called from any thread. load() reads files and nothing else;
// validate() looks at the machine.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "spilo/config/config.hpp"
#include "spilo/core/error.hpp"

namespace spilo::config {

// The process's environment, captured once by whoever owns main(). PATRONI_* and SPILO_* are read
// (contract 7.3; SPILO_ wins, empty values count as not set), and CREDENTIALS_DIRECTORY.
using Environment = std::map<std::string, std::string>;

// One thing that is wrong: where, and a sentence that names the value, the rule and the cure.
struct Problem {
  enum class Severity { error, warning };
  Severity severity = Severity::error;
  std::string path;     // "postgresql.parameters", or the name of a variable; empty: the whole file
  std::string message;  // never contains a secret
  std::string file;     // empty: not from a file
  int line = 0;         // 0: unknown
  bool operator==(const Problem&) const = default;
};
// "node.yml:12: error: postgresql.paramters: unknown key, did you mean postgresql.parameters?"
std::string to_text(const Problem& problem);

template <class T>
struct LoadedAs {
  std::optional<T> config;  // none when there is an error among the problems
  std::vector<Problem> problems;
};
using Loaded = LoadedAs<Config>;
using LoadedCtl = LoadedAs<CtlConfig>;

// Each path is a file, or a directory whose *.yml and *.yaml files count in the order of their
// names. Later ones are merged over earlier ones (objects deeply, null removes), and the
// environment over all. Without a path the configuration is SPILO_CONFIGURATION or
// PATRONI_CONFIGURATION as a whole, else what the other variables say.
//
// Relative paths in it are resolved against the current directory, secret files (`password_file:
// x`) against CREDENTIALS_DIRECTORY when that is set.
Loaded load(const std::vector<std::string>& paths, const Environment& environment);

// The same for spiloctl: other sections are accepted and not looked at.
LoadedCtl load_ctl(const std::vector<std::string>& paths, const Environment& environment);

// "etcd3://host:2379/namespace", as `spiloctl --dcs-url` takes it, also without a scheme (then the
// port decides), and "sqlite:///path/to/file".
Result<StoreOptions> parse_store_url(std::string_view url);

// What only the machine can tell (contract 7.7): the data directory is absent, empty or
// PostgreSQL's of the right major version and writable; the programs are there; the listen
// addresses are ours and free; certificates can be read. Nothing is changed. Ports that this node's
// own running server holds are not reported.
struct ValidateOptions {
  bool ignore_listen_ports = false;
  std::string search_path;  // the environment's PATH, for programs when bin_dir is not set
};
std::vector<Problem> validate(const Config& config, const ValidateOptions& options);

}  // namespace spilo::config
