// The keys of the `postgresql` section (patroni-contract 7.6), for telling a misspelling from an
// own key. The local file and the cluster's configuration share them.
#pragma once

#include <array>
#include <string_view>

namespace spilo {

inline constexpr std::array<std::string_view, 44> postgresql_keys = {
    "listen",
    "connect_address",
    "proxy_address",
    "data_dir",
    "config_dir",
    "bin_dir",
    "bin_name",
    "pgpass",
    "database",
    "config_base_name",
    "authentication",
    "use_unix_socket",
    "use_unix_socket_repl",
    "pg_ctl_timeout",
    "use_pg_rewind",
    "use_slots",
    "rewind",
    "remove_data_directory_on_rewind_failure",
    "remove_data_directory_on_diverged_timelines",
    "basebackup",
    "create_replica_methods",
    "create_replica_method",
    "callbacks",
    "pre_promote",
    "before_stop",
    "krbsrvname",
    "custom_conf",
    "pg_hba",
    "pg_ident",
    "parameters",
    "parameters_primary",
    "parameters_replica",
    "parameters_standby_leader",
    "pg_hba_primary",
    "pg_hba_replica",
    "pg_hba_standby_leader",
    "pg_ident_primary",
    "pg_ident_replica",
    "pg_ident_standby_leader",
    "recovery_conf",
    "pg_rewind",
    "replication",
    "superuser",
    "scope",
};

}  // namespace spilo
