// The effective configuration of the server (contract 7.1, 7.6, 7.8, 7.10) as pure functions:
// layers in, file texts and a command line out.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "spilo/core/json.hpp"
#include "spilo/model/dynamic_config.hpp"
#include "spilo/pg/connection.hpp"
#include "spilo/pg/options.hpp"

namespace spilo::pg {

using Assignment = std::pair<std::string, std::string>;  // parameter, value as text

struct Settings {
  std::vector<Assignment> parameters;  // for the file, sorted by name
  std::vector<Assignment> fixed;       // for the command line: the protected ones
  std::vector<Assignment> recovery;    // restore_command and the like, sorted
  std::vector<std::string> pg_hba;
  std::vector<std::string> pg_ident;
  bool own_hba_file = false;  // the user set hba_file or ident_file himself
  bool own_ident_file = false;
  bool use_slots = true;
  bool use_pg_rewind = true;
  bool copy_on_rewind_failure = true;
  bool copy_on_diverged_timelines = true;
  std::vector<std::string> warnings;  // what was dropped or replaced, and why

  const std::string* fixed_value(std::string_view name) const noexcept;
  const std::string* parameter(std::string_view name) const noexcept;
  bool operator==(const Settings&) const = default;
};

// Built-in defaults, below the dynamic configuration, below the local one. Protected parameters
// come only from the dynamic configuration; bad values are replaced by the default with a warning.
Settings effective_settings(const PgOptions& options, const DynamicConfig& dynamic, int major);

// A scalar as PostgreSQL reads it; nothing for null, lists and maps.
std::optional<std::string> parameter_text(const json::Value& value);

// Where a replica gets its WAL from, as configuration.
struct Following {
  std::string conninfo;  // primary_conninfo; empty: none
  std::string slot;      // primary_slot_name; empty: none
  bool operator==(const Following&) const = default;
};

// postgresql.conf. `following` is none on a primary. `hba_file` and `ident_file` are written unless
// the user has set them.
std::string render_postgresql_conf(const Settings& settings,
                                   std::string_view included_file,
                                   const std::optional<Following>& following,
                                   std::string_view hba_file,
                                   std::string_view ident_file);
std::string render_lines(const std::vector<std::string>& lines);  // pg_hba.conf, pg_ident.conf
// postgresql.auto.conf without the parameters that decide about recovery: a leftover there would
// win over ours.
std::string without_recovery_parameters(std::string_view auto_conf);
// postgresql.conf without these parameters; names are compared without case.
void drop_parameter(Settings& settings, std::string_view name);

// The arguments of the postmaster behind its program name. `raised` replaces protected values that
// a replica must not have lower than its primary.
std::vector<std::string> postmaster_arguments(const Settings& settings,
                                              const std::string& data_dir,
                                              const std::string& config_file,
                                              const std::vector<Assignment>& raised);

// "key=value" pairs quoted as libpq reads them; values are escaped.
std::string conninfo_text(const std::vector<Assignment>& pairs);
// What a replica of that server has as primary_conninfo: no password, a passfile.
std::string primary_conninfo(const PgOptions& options,
                             const ConnectParams& upstream,
                             const std::string& passfile,
                             int major);
// `*:*:*:user:password` for every account; the file answers for all servers of the cluster.
std::string passfile_text(const PgOptions& options);

// A member's name as its slot is named (contract 8.2).
std::string slot_name_of(std::string_view member);

// Where our own connections go when TCP is used (contract 7.6).
std::string local_address(std::string_view listen_addresses);

bool is_recovery_parameter(std::string_view name) noexcept;

// The names of parameters that PostgreSQL complained about in its messages, out of `known`.
std::vector<std::string> blamed_parameters(std::string_view messages,
                                           const std::vector<Assignment>& known);

}  // namespace spilo::pg
