// What global/pg_control says, read directly: an observation must not start a program. The layout
// is the one of PostgreSQL 13 to 17 on a 64-bit little-endian machine; anything else is recognised
// by its version or checksum and left to pg_controldata.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "spilo/core/error.hpp"
#include "spilo/core/ids.hpp"

namespace spilo::pg {

struct ControlData {
  SystemId system_id;
  std::string state;  // as pg_controldata prints it: "in production", "shut down", …
  Lsn checkpoint{};   // start of the latest checkpoint record
  Lsn redo{};
  TimelineId timeline{};       // of the latest checkpoint
  TimelineId prev_timeline{};  // differs right after a promotion
  Lsn min_recovery_point{};
  TimelineId min_recovery_timeline{};
  Lsn backup_start{};  // not zero: a base backup that has not reached consistency
  bool wal_log_hints = false;
  bool checksums = false;
  // What a standby must be allowed at least.
  int max_connections = 0;
  int max_worker_processes = 0;
  int max_wal_senders = 0;
  int max_prepared_xacts = 0;
  int max_locks_per_xact = 0;
  std::uint32_t wal_block_size = 8192;
  std::uint32_t wal_segment_size = 16 * 1024 * 1024;

  bool shut_down() const noexcept { return state == "shut down"; }
  bool shut_down_in_recovery() const noexcept { return state == "shut down in recovery"; }
  bool clean() const noexcept { return shut_down() || shut_down_in_recovery(); }
  bool was_in_recovery() const noexcept {
    return shut_down_in_recovery() || state == "in archive recovery";
  }
  bool operator==(const ControlData&) const = default;
};

// From the bytes of the file.
//   unsupported   another version's layout: ask pg_controldata
//   protocol      too short, or the checksum does not match (also while it is being written)
Result<ControlData> parse_control_file(std::string_view bytes);
// From the output of pg_controldata run with LC_ALL=C.
Result<ControlData> parse_controldata_text(std::string_view text);
// Reads <data_dir>/global/pg_control; a torn read is repeated.
//   not_found     there is none
Result<ControlData> read_control_file(const std::string& data_dir);

// One past the checkpoint record that begins at `data.checkpoint`: what a replica must have
// received to have everything, once the server was shut down. A checkpoint record has the same size
// in PostgreSQL 13 to 17; page headers in between are counted.
Lsn checkpoint_record_end(const ControlData& data) noexcept;

std::uint32_t crc32c(std::string_view bytes) noexcept;

}  // namespace spilo::pg
