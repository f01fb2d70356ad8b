#include <fmt/format.h>

#include <algorithm>

#include "impl.hpp"

namespace spilo::pg {

namespace {

struct Slot {
  std::string name;
  bool active = false;
  bool lost = false;
  bool has_xmin = false;
  Lsn restart{};
};

}  // namespace

// Best effort: one slot that can't be made or dropped must not keep the others from it.
Async<void> PgController::Impl::sync_slots(std::vector<std::string> wanted,
                                           std::vector<std::pair<std::string, Lsn>> positions,
                                           TimePoint deadline) {
  auto taken = co_await take(deadline);
  if (taken.has_error()) co_return taken.error().in("slots");
  auto connection = std::move(*taken);
  const auto rows = co_await connection->query(
      "SELECT slot_name, active, coalesce(wal_status = 'lost', false), xmin IS NOT NULL, "
      "restart_lsn, pg_is_in_recovery() FROM pg_replication_slots "
      "WHERE slot_type = 'physical' AND NOT temporary",
      deadline);
  if (rows.has_error()) co_return rows.error().in("slots");
  std::vector<Slot> present;
  bool replica = false;
  for (std::size_t row = 0; row < rows->all().size(); ++row) {
    Slot slot;
    slot.name = rows->text(row, 0);
    slot.active = rows->is_true(row, 1);
    slot.lost = rows->is_true(row, 2);
    slot.has_xmin = rows->is_true(row, 3);
    slot.restart = parse_lsn(rows->text(row, 4)).value_or(Lsn{});
    replica = rows->is_true(row, 5);
    present.push_back(std::move(slot));
  }
  std::vector<std::string> statements;
  const auto is_wanted = [&](const std::string& name) {
    return std::find(wanted.begin(), wanted.end(), name) != wanted.end();
  };
  std::vector<std::string> kept;
  for (const auto& slot : present) {
    const bool keep = is_wanted(slot.name) && !slot.lost;
    if (keep || slot.active) {
      kept.push_back(slot.name);
    } else {
      statements.push_back(
          fmt::format("SELECT pg_drop_replication_slot({})", sql_literal(slot.name)));
    }
  }
  for (const auto& name : wanted) {
    if (std::find(kept.begin(), kept.end(), name) != kept.end()) continue;
    // A member that copies us makes its own slot, perhaps since we looked.
    statements.push_back(
        fmt::format("SELECT pg_create_physical_replication_slot({0}, true) WHERE NOT EXISTS (SELECT "
                    "FROM pg_replication_slots WHERE slot_name = {0} AND slot_type = 'physical')",
                    sql_literal(name)));
  }
  for (const auto& [name, lsn] : positions) {
    const auto slot = std::find_if(
        present.begin(), present.end(), [&name = name](const Slot& s) { return s.name == name; });
    if (!replica || slot == present.end() || slot->active || slot->has_xmin ||
        slot->restart == Lsn{} || lsn <= slot->restart || !is_wanted(name))
      continue;
    statements.push_back(fmt::format("SELECT pg_replication_slot_advance({}, {})",
                                     sql_literal(name),
                                     sql_literal(to_text(lsn))));
  }
  Result<void> out;
  for (const auto& statement : statements) {
    const auto done = co_await connection->query(statement, deadline);
    if (done.has_error() && out.has_value()) out = done.error().in(statement);
    if (!connection->usable()) break;
  }
  give_back(std::move(connection));
  co_return out;
}

}  // namespace spilo::pg
