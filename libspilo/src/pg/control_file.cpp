#include "spilo/pg/control_file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <map>

namespace spilo::pg {
namespace {

// Offsets in ControlFileData of PostgreSQL 13 to 17 (pg_control_version 1300).
constexpr std::uint32_t known_version = 1300;
constexpr std::size_t crc_offset = 288;

template <class T>
T at(std::string_view bytes, std::size_t offset) noexcept {
  T value{};
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

constexpr std::array<std::string_view, 7> states = {"starting up",
                                                    "shut down",
                                                    "shut down in recovery",
                                                    "shutting down",
                                                    "in crash recovery",
                                                    "in archive recovery",
                                                    "in production"};

constexpr std::array<std::uint32_t, 256> make_crc_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = (value & 1) ? (value >> 1) ^ 0x82F63B78U : value >> 1;
    table[i] = value;
  }
  return table;
}

Result<std::string> read_bytes(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    const auto code = errno == ENOENT ? errc::not_found : errc::denied;
    return Error(code, fmt::format("open {}: {}", path, std::strerror(errno)));
  }
  std::string bytes(8192, '\0');
  const auto got = ::read(fd, bytes.data(), bytes.size());
  const int problem = errno;
  ::close(fd);
  if (got < 0) return Error(errc::denied, fmt::format("read {}: {}", path, std::strerror(problem)));
  bytes.resize(static_cast<std::size_t>(got));
  return bytes;
}

std::string_view trimmed(std::string_view text) noexcept {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\r')) text.remove_suffix(1);
  return text;
}

template <class T>
T number(const std::map<std::string_view, std::string_view>& lines, std::string_view key) {
  T value{};
  const auto found = lines.find(key);
  if (found != lines.end())
    std::from_chars(found->second.data(), found->second.data() + found->second.size(), value);
  return value;
}

}  // namespace

std::uint32_t crc32c(std::string_view bytes) noexcept {
  static constexpr auto table = make_crc_table();
  std::uint32_t crc = 0xFFFFFFFFU;
  for (const char c : bytes) crc = table[(crc ^ static_cast<unsigned char>(c)) & 0xFF] ^ (crc >> 8);
  return crc ^ 0xFFFFFFFFU;
}

Result<ControlData> parse_control_file(std::string_view bytes) {
  if (bytes.size() < crc_offset + sizeof(std::uint32_t))
    return Error(errc::protocol, fmt::format("pg_control has only {} bytes", bytes.size()));
  const auto version = at<std::uint32_t>(bytes, 8);
  if (version != known_version)
    return Error(errc::unsupported, fmt::format("pg_control version {}", version));
  if (at<std::uint32_t>(bytes, crc_offset) != crc32c(bytes.substr(0, crc_offset)))
    return Error(errc::protocol, "pg_control has a wrong checksum");
  const auto state = at<std::uint32_t>(bytes, 16);
  if (state >= states.size())
    return Error(errc::protocol, fmt::format("pg_control has the unknown state {}", state));
  ControlData data;
  data.system_id = SystemId(std::to_string(at<std::uint64_t>(bytes, 0)));
  data.state = states.at(state);
  data.checkpoint = Lsn{at<std::uint64_t>(bytes, 32)};
  data.redo = Lsn{at<std::uint64_t>(bytes, 40)};
  data.timeline = TimelineId{at<std::uint32_t>(bytes, 48)};
  data.prev_timeline = TimelineId{at<std::uint32_t>(bytes, 52)};
  data.min_recovery_point = Lsn{at<std::uint64_t>(bytes, 136)};
  data.min_recovery_timeline = TimelineId{at<std::uint32_t>(bytes, 144)};
  data.backup_start = Lsn{at<std::uint64_t>(bytes, 152)};
  data.wal_log_hints = at<std::uint8_t>(bytes, 176) != 0;
  data.max_connections = at<std::int32_t>(bytes, 180);
  data.max_worker_processes = at<std::int32_t>(bytes, 184);
  data.max_wal_senders = at<std::int32_t>(bytes, 188);
  data.max_prepared_xacts = at<std::int32_t>(bytes, 192);
  data.max_locks_per_xact = at<std::int32_t>(bytes, 196);
  data.wal_block_size = at<std::uint32_t>(bytes, 224);
  data.wal_segment_size = at<std::uint32_t>(bytes, 228);
  data.checksums = at<std::uint32_t>(bytes, 252) != 0;
  return data;
}

Result<ControlData> parse_controldata_text(std::string_view text) {
  std::map<std::string_view, std::string_view> lines;
  while (!text.empty()) {
    const auto line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    const auto colon = line.find(':');
    if (colon != std::string_view::npos)
      lines.emplace(trimmed(line.substr(0, colon)), trimmed(line.substr(colon + 1)));
  }
  const auto word = [&](std::string_view key) {
    const auto found = lines.find(key);
    return found == lines.end() ? std::string_view{} : found->second;
  };
  const auto lsn = [&](std::string_view key) { return parse_lsn(word(key)).value_or(Lsn{}); };
  const auto timeline = [&](std::string_view key) {
    return TimelineId{number<std::uint32_t>(lines, key)};
  };
  ControlData data;
  data.system_id = SystemId(std::string(word("Database system identifier")));
  data.state = word("Database cluster state");
  if (!is_valid(data.system_id) || data.state.empty())
    return Error(errc::protocol, "pg_controldata printed no system identifier or cluster state");
  data.checkpoint = lsn("Latest checkpoint location");
  data.redo = lsn("Latest checkpoint's REDO location");
  data.timeline = timeline("Latest checkpoint's TimeLineID");
  data.prev_timeline = timeline("Latest checkpoint's PrevTimeLineID");
  data.min_recovery_point = lsn("Minimum recovery ending location");
  data.min_recovery_timeline = timeline("Min recovery ending loc's timeline");
  data.backup_start = lsn("Backup start location");
  data.wal_log_hints = word("wal_log_hints setting") == "on";
  data.max_connections = number<int>(lines, "max_connections setting");
  data.max_worker_processes = number<int>(lines, "max_worker_processes setting");
  data.max_wal_senders = number<int>(lines, "max_wal_senders setting");
  data.max_prepared_xacts = number<int>(lines, "max_prepared_xacts setting");
  data.max_locks_per_xact = number<int>(lines, "max_locks_per_xact setting");
  data.wal_block_size = number<std::uint32_t>(lines, "WAL block size");
  data.wal_segment_size = number<std::uint32_t>(lines, "Bytes per WAL segment");
  data.checksums = number<int>(lines, "Data page checksum version") != 0;
  return data;
}

Result<ControlData> read_control_file(const std::string& data_dir) {
  // The server rewrites the file in place, so a read may be torn; the checksum shows it.
  Result<ControlData> parsed = Error(errc::protocol);
  for (int attempt = 0; attempt < 5; ++attempt) {
    auto bytes = read_bytes(data_dir + "/global/pg_control");
    if (bytes.has_error()) return bytes.error();
    parsed = parse_control_file(*bytes);
    if (parsed.has_value() || !parsed.error().is(errc::protocol)) break;
  }
  if (parsed.has_error()) return parsed.error().in(data_dir + "/global/pg_control");
  return parsed;
}

Lsn checkpoint_record_end(const ControlData& data) noexcept {
  // XLogRecord header, short data header, CheckPoint.
  constexpr std::uint64_t record = 24 + 2 + 88;
  constexpr std::uint64_t short_header = 24;
  constexpr std::uint64_t long_header = 40;
  if (data.wal_block_size == 0 || data.wal_segment_size == 0) return Lsn{};
  std::uint64_t position = to_int(data.checkpoint);
  if (position == 0) return Lsn{};
  std::uint64_t left = record;
  for (;;) {
    const std::uint64_t room = data.wal_block_size - position % data.wal_block_size;
    if (left <= room) {
      position += left;
      break;
    }
    left -= room;
    position += room;
    position += position % data.wal_segment_size == 0 ? long_header : short_header;
  }
  return Lsn{(position + 7) & ~std::uint64_t{7}};
}

}  // namespace spilo::pg
