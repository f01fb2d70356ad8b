#include <fmt/format.h>

#include <array>

#include "spilo/model/codec.hpp"
#include "spilo/rest/status_json.hpp"
#include "status_facts.hpp"

namespace spilo::rest {
namespace {

// The index is part of the contract: dashboards know the states by number.
constexpr std::array<std::string_view, 15> states = {"initializing new cluster",
                                                     "initdb failed",
                                                     "running custom bootstrap script",
                                                     "custom bootstrap failed",
                                                     "creating replica",
                                                     "running",
                                                     "starting",
                                                     "starting after custom bootstrap",
                                                     "start failed",
                                                     "restarting",
                                                     "restart failed",
                                                     "stopping",
                                                     "stopped",
                                                     "stop failed",
                                                     "crashed"};
constexpr std::string_view state_values =
    "# Values: 0=initdb, 1=initdb_failed, 2=custom_bootstrap, 3=custom_bootstrap_failed, "
    "4=creating_replica, 5=running, 6=starting, 7=bootstrap_starting, 8=start_failed, "
    "9=restarting, 10=restart_failed, 11=stopping, 12=stopped, 13=stop_failed, 14=crashed\n";

std::string escaped(std::string_view label) {
  std::string out;
  for (const char c : label) {
    if (c == '\n') {
      out += "\\n";
      continue;
    }
    if (c == '\\' || c == '"') out += '\\';
    out += c;
  }
  return out;
}

class Page {
 public:
  explicit Page(const PublicStatus& status)
      : labels_(fmt::format(R"({{scope="{}",name="{}"}})",
                            escaped(status.identity.scope.str()),
                            escaped(status.identity.node.str()))) {}

  void gauge(std::string_view name, std::string_view help, std::string_view value) {
    sample(name, help, "gauge", value);
  }
  void gauge(std::string_view name, std::string_view help, bool value) {
    sample(name, help, "gauge", value ? "1" : "0");
  }
  void counter(std::string_view name, std::string_view help, Lsn value) {
    sample(name, help, "counter", fmt::to_string(to_int(value)));
  }
  std::string take() && { return std::move(text_); }

  void sample(std::string_view name,
              std::string_view help,
              std::string_view type,
              std::string_view value,
              std::string_view remark = {}) {
    text_ += fmt::format("# HELP {0} {1}\n{2}# TYPE {0} {3}\n{0}{4} {5}\n",
                         name,
                         help,
                         remark,
                         type,
                         labels_,
                         value);
  }

 private:
  std::string labels_;
  std::string text_;
};

// "4.1.4" -> "040104".
std::string version_digits(std::string_view version) {
  std::string out;
  while (!version.empty()) {
    const auto dot = version.find('.');
    out += fmt::format("{:0>2}", version.substr(0, dot));
    if (dot == std::string_view::npos) break;
    version.remove_prefix(dot + 1);
  }
  return out;
}

// Seconds since the epoch with the fraction, "0" when the text is no time.
std::string epoch(std::string text) {
  const auto space = text.find(' ');
  if (space != std::string::npos) text[space] = 'T';
  const auto time = codec::parse_wall_time(text);
  if (!time) return "0";
  return fmt::format("{:.3f}", static_cast<double>(time->time_since_epoch().count()) / 1000.0);
}

std::string state_index(const PublicStatus& status) {
  const auto state = state_of(status);
  for (std::size_t i = 0; i < states.size(); ++i)
    if (states[i] == state) return fmt::to_string(i);
  return "-1";
}

void add_server(Page& page, const PublicStatus& status) {
  const NodeView node = server_answers(status) ? *status.node : NodeView{};
  const auto role = role_of(status);
  const bool primary = server_answers(status) && node.role == NodeView::Role::primary;
  const bool replica = server_answers(status) && node.role == NodeView::Role::replica;
  page.gauge(
      "patroni_postgres_running", "1 if PostgreSQL is running.", state_of(status) == "running");
  page.gauge("patroni_postmaster_start_time",
             "When PostgreSQL was started, in seconds since the epoch.",
             epoch(node.start_time));
  page.gauge("patroni_primary", "1 if this node is the primary.", role == "primary");
  page.counter("patroni_xlog_location",
               "Write-ahead log position of the primary, 0 on others.",
               primary ? node.flushed : Lsn{});
  page.gauge("patroni_standby_leader",
             "1 if this node leads a standby cluster.",
             role == "standby_leader");
  page.gauge("patroni_replica", "1 if this node is a replica.", role == "replica");
  const auto sync = replica ? sync_role(status, status.identity.node) : std::string_view();
  page.gauge(
      "patroni_sync_standby", "1 if this node is a synchronous standby.", sync == "sync_standby");
  page.gauge(
      "patroni_quorum_standby", "1 if this node is a quorum standby.", sync == "quorum_standby");
  const Lsn received = to_int(node.received) != 0 ? node.received : node.replayed;
  page.counter("patroni_xlog_received_location",
               "Write-ahead log position received, 0 on a primary.",
               replica ? received : Lsn{});
  page.counter("patroni_xlog_replayed_location",
               "Write-ahead log position replayed, 0 on a primary.",
               replica ? node.replayed : Lsn{});
  page.gauge("patroni_xlog_replayed_timestamp",
             "Commit time of the last replayed transaction, in seconds since the epoch.",
             replica ? epoch(node.replayed_timestamp) : "0");
  page.gauge("patroni_xlog_paused", "1 if replay is paused.", replica && node.replay_paused);
  if (node.server_version >= 90600) {
    const auto replication = replication_state_of(status);
    page.gauge("patroni_postgres_streaming",
               "1 if this replica streams its write-ahead log.",
               replication == "streaming");
    page.gauge("patroni_postgres_in_archive_recovery",
               "1 if this replica restores from the archive.",
               replication == "in archive recovery");
  }
  page.gauge("patroni_postgres_server_version",
             "Version of PostgreSQL, 0 if it is not running.",
             fmt::to_string(node.server_version));
  page.gauge("patroni_postgres_timeline",
             "Timeline of this node, 0 if unknown.",
             fmt::to_string(to_int(node.timeline)));
}

void add_cluster(Page& page, const PublicStatus& status, Instant at) {
  const auto* config = config_of(status);
  const bool failsafe_on = config == nullptr || config->failsafe_mode;
  const auto* failsafe =
      status.cluster && status.cluster->failsafe ? &*status.cluster->failsafe : nullptr;
  page.gauge("patroni_cluster_unlocked",
             "1 if nobody holds the lock, as far as this node knows.",
             !has_fresh_view(status, at) || !status.cluster->leader);
  page.gauge("patroni_failsafe_mode_is_active",
             "1 if the node goes on without its store.",
             status.failsafe_active);
  page.gauge("patroni_failsafe_mode_enabled", "1 if failsafe_mode is on.", failsafe_on);
  page.gauge("patroni_failsafe_member",
             "1 if this node is listed in the failsafe key.",
             failsafe != nullptr && failsafe->count(status.identity.node) > 0);
  const auto seen =
      std::chrono::duration_cast<std::chrono::seconds>(status.store_last_seen.time_since_epoch());
  page.gauge("patroni_dcs_last_seen",
             "When the store answered last, in seconds since the epoch.",
             fmt::to_string(seen.count()));
  page.gauge("patroni_pending_restart",
             "1 if PostgreSQL needs a restart.",
             status.node && status.node->pending_restart);
  page.gauge("patroni_is_paused", "1 if automatic failover is paused.", is_paused(status));
}

}  // namespace

std::string metrics_text(const PublicStatus& status, Instant at) {
  Page page(status);
  page.gauge("patroni_version",
             "Version of the protocol, two digits a component.",
             version_digits(status.identity.version));
  add_server(page, status);
  add_cluster(page, status, at);
  page.sample("patroni_postgres_state",
              "State of PostgreSQL as a number, -1 if unknown.",
              "gauge",
              state_index(status),
              state_values);
  page.gauge("patroni_failover_priority",
             "Failover priority of this node.",
             fmt::to_string(status.identity.tags.failover_priority));
  return std::move(page).take();
}

}  // namespace spilo::rest
