// The tables of patroni-contract 6.4, character by character.
#include "cli/render.hpp"

#include <doctest/doctest.h>

#include "cli/cluster_table.hpp"
#include "spilo/model/codec.hpp"

using namespace spilo;
using namespace spilo::cli;

namespace {

Member member(const char* name, const char* host, const char* state, unsigned timeline) {
  Member out;
  out.name = NodeName(name);
  out.conn_url = std::string("postgres://") + host + ":5432/postgres";
  out.api_url = std::string("http://") + host + ":8008/patroni";
  out.state = state;
  out.role = "replica";
  out.timeline = TimelineId{timeline};
  return out;
}

json::Value object(const char* text) {
  return *json::parse(text);
}

ClusterView demo() {
  ClusterView view;
  view.initialize = "7301234567890123456";
  auto alpha = member("alpha", "10.1.0.1", "running", 3);
  alpha.role = "primary";
  alpha.tags.all = object(R"({"clonefrom": true})");
  auto beta = member("beta", "10.1.0.2", "running", 3);
  beta.replication_state = "streaming";
  beta.receive_lsn = Lsn{0x5f5e100};
  beta.replay_lsn = Lsn{0x55d4a80};
  beta.pending_restart = true;
  beta.pending_restart_reason =
      object(R"({"max_connections": {"old_value": "100", "new_value": "200"}})");
  auto gamma = member("gamma", "10.1.0.3", "starting", 0);
  gamma.tags.all = object(R"({"replicatefrom": "beta"})");
  view.members = {alpha, beta, gamma};
  LeaderKey leader;
  leader.holder = NodeName("alpha");
  view.leader = leader;
  view.sync.leader = NodeName("alpha");
  view.sync.voters = {NodeName("beta")};
  view.status.optime = Lsn{100'700'000};
  DynamicConfig config;
  config.pause = true;
  config.synchronous_mode = true;
  view.config = config;
  view.failover.leader = NodeName("alpha");
  view.failover.candidate = NodeName("beta");
  view.failover.scheduled_at = WallTime(std::chrono::seconds(1778051289));
  return view;
}

std::string shown(const ClusterView& view, Format format, bool extended = false) {
  return render_members(
      cluster_document(view, Scope("demo")), view.initialize, ListOptions{format, extended});
}

}  // namespace

TEST_CASE("the pretty table is Patroni's, to the character") {
  CHECK(shown(demo(), Format::pretty) ==
        R"(+ Cluster: demo (7301234567890123456) ---------+----+-------------+-----+------------+-----+-----------------+---------------------------+---------------------+
| Member | Host     | Role         | State     | TL | Receive LSN | Lag | Replay LSN | Lag | Pending restart | Pending restart reason    | Tags                |
+--------+----------+--------------+-----------+----+-------------+-----+------------+-----+-----------------+---------------------------+---------------------+
| alpha  | 10.1.0.1 | Leader       | running   |  3 |             |     |            |     |                 |                           | clonefrom: true     |
| beta   | 10.1.0.2 | Sync Standby | streaming |  3 |   0/5F5E100 |   1 |  0/55D4A80 |  10 | *               | max_connections: 100->200 |                     |
| gamma  | 10.1.0.3 | Replica      | starting  |    |     unknown |     |    unknown |     |                 |                           | replicatefrom: beta |
+--------+----------+--------------+-----------+----+-------------+-----+------------+-----+-----------------+---------------------------+---------------------+
 Maintenance mode: on
 Switchover scheduled at: 2026-05-06T07:08:09+00:00
                    from: alpha
                      to: beta
)");
}

TEST_CASE("the topology hangs a replica below the one it follows, and shows tags in one line") {
  auto view = demo();
  view.config->pause = false;
  view.failover = {};
  CHECK(shown(view, Format::topology) ==
        R"(+ Cluster: demo (7301234567890123456) +-----------+----+-------------+-----+------------+-----+-----------------+---------------------------+-----------------------+
| Member    | Host     | Role         | State     | TL | Receive LSN | Lag | Replay LSN | Lag | Pending restart | Pending restart reason    | Tags                  |
+-----------+----------+--------------+-----------+----+-------------+-----+------------+-----+-----------------+---------------------------+-----------------------+
| alpha     | 10.1.0.1 | Leader       | running   |  3 |             |     |            |     |                 |                           | {clonefrom: true}     |
| + beta    | 10.1.0.2 | Sync Standby | streaming |  3 |   0/5F5E100 |   1 |  0/55D4A80 |  10 | *               | max_connections: 100->200 |                       |
|   + gamma | 10.1.0.3 | Replica      | starting  |    |     unknown |     |    unknown |     |                 |                           | {replicatefrom: beta} |
+-----------+----------+--------------+-----------+----+-------------+-----+------------+-----+-----------------+---------------------------+-----------------------+
)");
}

TEST_CASE("nobody is left out of a topology: no leader, circles, and parents that do not exist") {
  auto view = demo();
  const auto names = [&] {
    std::string out;
    const auto table = members_table(cluster_document(view, Scope("demo")),
                                     std::nullopt,
                                     ListOptions{Format::topology, false});
    for (const auto& row : table.rows) out += *row[1].as_string() + "/";
    return out;
  };
  CHECK(names() == "alpha/+ beta/  + gamma/");
  view.members[1].tags.all = object(R"({"replicatefrom": "gamma"})");
  CHECK(names() == "alpha/+ beta/  + gamma/");
  view.members[1].tags.all = object(R"({"replicatefrom": "nobody"})");
  view.leader.reset();
  CHECK(names() == "+ alpha/+ beta/  + gamma/");
}

TEST_CASE("json keeps the order of the columns and leaves out what is empty") {
  CHECK(shown(demo(), Format::json) ==
        R"([{"Cluster": "demo", "Member": "alpha", "Host": "10.1.0.1", "Role": "Leader", )"
        R"("State": "running", "TL": 3, "Tags": {"clonefrom": true}}, )"
        R"({"Cluster": "demo", "Member": "beta", "Host": "10.1.0.2", "Role": "Sync Standby", )"
        R"("State": "streaming", "TL": 3, "Receive LSN": "0/5F5E100", "Receive Lag": 1, )"
        R"("Replay LSN": "0/55D4A80", "Replay Lag": 10, "Pending restart": "*", )"
        R"("Pending restart reason": "max_connections: 100->200"}, )"
        R"({"Cluster": "demo", "Member": "gamma", "Host": "10.1.0.3", "Role": "Replica", )"
        R"("State": "starting", "Receive LSN": "unknown", "Replay LSN": "unknown", )"
        R"("Tags": {"replicatefrom": "beta"}}])"
        "\n");
}

TEST_CASE("tsv has the cluster in front and one line for each member") {
  CHECK(shown(demo(), Format::tsv) ==
        "Cluster\tMember\tHost\tRole\tState\tTL\tReceive LSN\tReceive Lag\tReplay LSN\t"
        "Replay Lag\tPending restart\tPending restart reason\tTags\n"
        "demo\talpha\t10.1.0.1\tLeader\trunning\t3\t\t\t\t\t\t\t{clonefrom: true}\n"
        "demo\tbeta\t10.1.0.2\tSync Standby\tstreaming\t3\t0/5F5E100\t1\t0/55D4A80\t10\t*\t"
        "max_connections: 100->200\t\n"
        "demo\tgamma\t10.1.0.3\tReplica\tstarting\t\tunknown\t\tunknown\t\t\t\t"
        "{replicatefrom: beta}\n");
}

TEST_CASE("an empty cluster shows its header and says how far it is") {
  ClusterView view;
  CHECK(shown(view, Format::pretty) ==
        R"(+ Cluster: demo (uninitialized) ----+-------------+-----+------------+-----+
| Member | Host | Role | State | TL | Receive LSN | Lag | Replay LSN | Lag |
+--------+------+------+-------+----+-------------+-----+------------+-----+
+--------+------+------+-------+----+-------------+-----+------------+-----+
)");
  view.initialize = "";
  CHECK(shown(view, Format::pretty).starts_with("+ Cluster: demo (initializing) +----+-"));
  CHECK(shown(view, Format::json) == "[]\n");
}

TEST_CASE("a cell with several lines separates all rows; long reasons are hidden from people") {
  auto view = demo();
  view.members[1].pending_restart_reason = object(
      R"({"a": {"old_value": "1", "new_value": "2"}, "shared_preload_libraries":
          {"old_value": "", "new_value": "a_rather_long_list,of_libraries,that_never_ends"}})");
  const auto table = shown(view, Format::pretty);
  CHECK(table.find("| a: 1->2 ") != table.npos);
  CHECK(table.find("| shared_preload_libraries: [hidden - too long] ") != table.npos);
  std::size_t rules = 0;
  for (std::size_t at = 0; (at = table.find("\n+--", at)) != table.npos; ++at) ++rules;
  CHECK(rules == 4);  // below the header and below each of three members
  const auto json = shown(view, Format::json);
  CHECK(json.find("a_rather_long_list,of_libraries,that_never_ends") != json.npos);
}

TEST_CASE("the port is shown when it is needed to tell members apart") {
  auto view = demo();
  view.members[2].conn_url = "postgres://10.1.0.2:5433/postgres";
  CHECK(shown(view, Format::tsv).find("\t10.1.0.1:5432\t") != std::string::npos);
  CHECK(shown(view, Format::tsv).find("\t10.1.0.2:5433\t") != std::string::npos);
}

TEST_CASE("-e shows every column") {
  CHECK(shown(ClusterView{}, Format::tsv, true) ==
        "Cluster\tMember\tHost\tRole\tState\tTL\tReceive LSN\tReceive Lag\tReplay LSN\t"
        "Replay Lag\tPending restart\tPending restart reason\tScheduled restart\tTags\n");
}

TEST_CASE("a daemon that publishes one position only is shown where it belongs") {
  const auto document = object(R"({"scope": "demo", "members": [
      {"name": "a", "role": "replica", "state": "streaming", "lsn": "0/10", "lag": 2097152},
      {"name": "b", "role": "replica", "state": "running", "lsn": "0/20", "lag": 0,
       "receive_lsn": "unknown", "replay_lsn": "unknown"}]})");
  const auto table = members_table(document, std::nullopt, ListOptions{});
  CHECK(table.rows[0][6] == json::Value("0/10"));
  CHECK(table.rows[0][7] == json::Value(2));
  CHECK(table.rows[1][8] == json::Value("0/20"));
  CHECK(table.rows[1][6] == json::Value("unknown"));
}

TEST_CASE("a scheduled restart names its condition") {
  auto view = demo();
  view.members[0].scheduled_restart =
      object(R"({"schedule": "2026-01-02T03:04:05+00:00", "postgres_version": "15.3"})");
  CHECK(shown(view, Format::tsv).find("\t2026-01-02T03:04:05+00:00 if version < 15.3\t") !=
        std::string::npos);
}

TEST_CASE("lag is rounded to the nearest MiB, halves to the even one") {
  constexpr std::int64_t mib = 1024 * 1024;
  CHECK(lag_in_mb(0) == 0);
  CHECK(lag_in_mb(mib / 2) == 0);
  CHECK(lag_in_mb(mib / 2 + 1) == 1);
  CHECK(lag_in_mb(mib + mib / 2) == 2);
  CHECK(lag_in_mb(2 * mib + mib / 2) == 2);
  CHECK(lag_in_mb(10 * mib) == 10);
}

TEST_CASE("names that are not ASCII keep the columns straight") {
  CHECK(display_width("é") == 1);
  CHECK(display_width("日本") == 4);
  Table table;
  table.columns = {{"A"}};
  table.rows = {{json::Value("é")}, {json::Value("日")}};
  CHECK(render(table, Format::pretty) == "+----+\n| A  |\n+----+\n| é  |\n| 日 |\n+----+\n");
}

TEST_CASE("the history has five columns and no title") {
  const std::vector<HistoryLine> lines = {
      {TimelineId{1}, Lsn{25623960}, "no recovery target specified", "", ""}};
  CHECK(render(history_table(lines), Format::pretty) ==
        R"(+----+----------+------------------------------+-----------+------------+
| TL |      LSN | Reason                       | Timestamp | New Leader |
+----+----------+------------------------------+-----------+------------+
|  1 | 25623960 | no recovery target specified |           |            |
+----+----------+------------------------------+-----------+------------+
)");
  CHECK(render(history_table(lines), Format::json) ==
        "[{\"TL\": 1, \"LSN\": 25623960, \"Reason\": \"no recovery target specified\", "
        "\"Timestamp\": \"\", \"New Leader\": \"\"}]\n");
}
