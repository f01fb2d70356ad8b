// The verbs. Each returns how the program ends, or throws Stop.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/app.hpp"
#include "cli/render.hpp"

namespace spilo::cli {

// What can be said on the command line, for all verbs; each uses its own.
struct VerbOptions {
  std::vector<std::string> words;  // positional: CLUSTER, MEMBER…, or what the verb says
  Format format = Format::pretty;
  bool format_given = false;
  bool extended = false;
  bool timestamp = false;
  bool watch = false;
  double watch_s = 0;  // 0: only when something changes
  bool force = false;
  bool no_wait = false;
  bool wait = false;
  double timeout_s = 0;  // 0: the verb's own
  std::string role;
  std::string member;
  std::string leader;
  std::string candidate;
  std::string scheduled;
  // restart
  bool any = false;
  bool pending = false;
  std::string pg_version;
  std::string restart_timeout;
  // reinit
  bool from_leader = false;
  // edit-config
  bool quiet = false;
  std::vector<std::string> set;
  std::vector<std::string> pg;
  std::string apply_file;
  std::string replace_file;
  // why
  std::string since;
  int lines = 0;
};

Exit list(App& app, const VerbOptions& options);
Exit topology(App& app, const VerbOptions& options);
Exit history(App& app, const VerbOptions& options);
Exit version(App& app, const VerbOptions& options);
Exit dsn(App& app, const VerbOptions& options);
Exit rules(App& app, const VerbOptions& options);

Exit switchover(App& app, const VerbOptions& options);
Exit failover(App& app, const VerbOptions& options);

Exit restart(App& app, const VerbOptions& options);
Exit reinit(App& app, const VerbOptions& options);
Exit reload(App& app, const VerbOptions& options);
Exit flush(App& app, const VerbOptions& options);

Exit pause(App& app, const VerbOptions& options);
Exit resume(App& app, const VerbOptions& options);
Exit show_config(App& app, const VerbOptions& options);
Exit edit_config(App& app, const VerbOptions& options);

Exit why(App& app, const VerbOptions& options);
Exit remove(App& app, const VerbOptions& options);
Exit completion(App& app, const VerbOptions& options);

// Shared by the verbs: the first word is the cluster, the rest are members.
std::string cluster_word(const VerbOptions& options);
std::vector<std::string> member_words(const VerbOptions& options);

}  // namespace spilo::cli
