// One real PostgreSQL server on this node: the Postgres port over libpq, signals, child programs
// and files. PostgreSQL 13 to 17; the server runs as the agent's user, which must not be root.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <memory>
#include <optional>

#include "spilo/core/log.hpp"
#include "spilo/pg/options.hpp"
#include "spilo/ports/clock.hpp"
#include "spilo/ports/postgres.hpp"

namespace spilo::pg {

// One strand of execution: use it on the executor that it was made with; the clock must outlive
// that executor's last handler. Destroying the controller leaves the server running: it is adopted
// by the next one for the same data directory. Destroy it only when no operation of it runs.
//
// Beside the data directory D it uses, all with that name as prefix so that they are on the same
// file system: D.new (a copy or a new cluster in the making), D.old-* (what it replaced, until the
// new one streams), D.failed-* (a cluster whose creation failed), D.rewinding and D.creating
// (markers of steps that must not be interrupted), D.pgpass and D.log unless options say otherwise.
class PgController final : public Postgres {
 public:
  PgController(boost::asio::any_io_executor executor,
               Clock& clock,
               PgOptions options,
               Logger logger = {});
  ~PgController() override;
  PgController(const PgController&) = delete;
  PgController& operator=(const PgController&) = delete;

  Async<NodeView> observe(TimePoint deadline) override;
  Async<void> perform(ha::Task task) override;
  Async<void> sync_slots(std::vector<std::string> wanted,
                         std::vector<std::pair<std::string, Lsn>> positions,
                         TimePoint deadline) override;
  void configure(const DynamicConfig& config) override;
  // The cluster's configuration when this data directory was last configured, by this agent or an
  // earlier one; nothing when there is none that can be read.
  std::optional<DynamicConfig> last_config() const;
  void may_write_until(TimePoint until) override;
  Result<void> kill_now() override;
  void on_change(std::function<void()> wake) override;
  std::string progress() const override;
  void run_callback(std::string action, std::string role) override;

  // The local file was read again. Paths, name and scope must stay as they were; the rest takes
  // effect at the next start or reload.
  void reconfigure(PgOptions options);

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace spilo::pg
