#include <fmt/format.h>
#include <libpq-fe.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <unordered_set>

#include "writer.hpp"

namespace writer {
namespace {

void find_gaps(const std::vector<Ack>& acks, double list_from_ms, Findings& out) {
  for (std::size_t n = 1; n < acks.size(); ++n) {
    const double ms = static_cast<double>(acks[n].at - acks[n - 1].at) / 1e6;
    out.longest_ms = std::max(out.longest_ms, ms);
    if (ms >= list_from_ms)
      out.gaps.push_back({ms, acks[n - 1].at, acks[n - 1].node, acks[n].node});
  }
}

// Handing over takes time: even a bare promotion is 50 ms. When two nodes acknowledge within a
// moment of each other, both were primary.
void find_side_by_side(const std::vector<Ack>& acks, Findings& out) {
  constexpr double moment_ms = 10;
  for (std::size_t n = 1; n < acks.size(); ++n)
    if (acks[n].node != acks[n - 1].node &&
        static_cast<double>(acks[n].at - acks[n - 1].at) / 1e6 < moment_ms)
      ++out.side_by_side;
}

std::optional<std::unordered_set<std::int64_t>> read_rows(const std::vector<std::string>& nodes) {
  for (const auto& node : nodes) {
    PGconn* connection = PQconnectdb((node + " connect_timeout=3").c_str());
    std::optional<std::unordered_set<std::int64_t>> rows;
    PGresult* role = PQexec(connection, "select not pg_is_in_recovery()");
    const bool primary = PQresultStatus(role) == PGRES_TUPLES_OK && *PQgetvalue(role, 0, 0) == 't';
    PQclear(role);
    if (primary) {
      PGresult* result = PQexec(connection, "select n from spilo_writes");
      if (PQresultStatus(result) == PGRES_TUPLES_OK) {
        rows.emplace();
        for (int n = 0; n < PQntuples(result); ++n)
          rows->insert(std::strtoll(PQgetvalue(result, n, 0), nullptr, 10));
      }
      PQclear(result);
    }
    PQfinish(connection);
    if (rows) return rows;
  }
  return std::nullopt;
}

void print_json(const Findings& found) {
  std::string gaps;
  for (const auto& gap : found.gaps)
    gaps += fmt::format("{}{{\"ms\": {:.1f}, \"from_ns\": {}, \"before\": {}, \"after\": {}}}",
                        gaps.empty() ? "" : ", ",
                        gap.ms,
                        gap.from,
                        gap.before,
                        gap.after);
  fmt::print(
      "{{\"acknowledged\": {}, \"longest_gap_ms\": {:.1f}, \"missing\": {}, \"side_by_side\": {}, "
      "\"gaps\": [{}]}}\n",
      found.acknowledged,
      found.longest_ms,
      found.looked ? std::to_string(found.missing.size()) : "null",
      found.side_by_side,
      gaps);
}

void print_text(const Findings& found) {
  fmt::print("acknowledged rows: {}, longest write outage: {:.0f} ms\n",
             found.acknowledged,
             found.longest_ms);
  for (const auto& gap : found.gaps) {
    if (gap.before == gap.after)
      fmt::print("  {:.0f} ms without a row on node {}\n", gap.ms, gap.before + 1);
    else
      fmt::print("  {:.0f} ms from node {} to node {}\n", gap.ms, gap.before + 1, gap.after + 1);
  }
  if (found.looked) fmt::print("acknowledged rows that are missing: {}\n", found.missing.size());
  for (std::size_t n = 0; n < std::min<std::size_t>(found.missing.size(), 3); ++n)
    fmt::print("  {} by node {}\n", found.missing[n].number, found.missing[n].node + 1);
  if (found.side_by_side > 0)
    fmt::print("two nodes acknowledged rows side by side, {} times\n", found.side_by_side);
}

}  // namespace

std::vector<Ack> read_acks(const ReportOptions& options) {
  std::vector<Ack> acks;
  std::ifstream in(options.file);
  for (Ack ack; in >> ack.number >> ack.node >> ack.at;)
    if (ack.at >= options.since_ns && ack.at <= options.until_ns) acks.push_back(ack);
  std::stable_sort(
      acks.begin(), acks.end(), [](const Ack& a, const Ack& b) { return a.at < b.at; });
  return acks;
}

Findings examine(const std::vector<Ack>& acks, double gap_ms) {
  Findings found;
  found.acknowledged = acks.size();
  find_gaps(acks, gap_ms, found);
  find_side_by_side(acks, found);
  return found;
}

bool find_missing(const std::vector<Ack>& acks,
                  const std::vector<std::string>& nodes,
                  Findings& found) {
  const auto rows = read_rows(nodes);
  if (!rows) return false;
  found.looked = true;
  for (const auto& ack : acks)
    if (rows->count(ack.number) == 0) found.missing.push_back(ack);
  return true;
}

int report(const ReportOptions& options) {
  const auto acks = read_acks(options);
  auto found = examine(acks, options.gap_ms);
  if (!options.nodes.empty() && !find_missing(acks, options.nodes, found)) {
    fmt::print(stderr, "spilo-writer: no node is a primary that shows the table spilo_writes\n");
    return 3;
  }
  options.as_json ? print_json(found) : print_text(found);
  if (found.side_by_side > 0) return 2;
  return found.missing.empty() ? 0 : 1;
}

}  // namespace writer
