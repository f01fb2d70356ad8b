#include "spilo/pg/control_file.hpp"

#include <cstring>
#include <string>

#include "fuzz/targets.hpp"

namespace spilo::fuzz {

void control_file(std::string_view bytes) {
  static_cast<void>(pg::parse_control_file(bytes));
  static_cast<void>(pg::parse_controldata_text(bytes));
  // Behind the version and the checksum, which hardly any input would pass.
  constexpr std::size_t crc_offset = 288;
  if (bytes.size() < crc_offset + 4) return;
  std::string sealed(bytes);
  const std::uint32_t version = 1300;
  std::memcpy(sealed.data() + 8, &version, sizeof version);
  const auto crc = pg::crc32c(std::string_view(sealed).substr(0, crc_offset));
  std::memcpy(sealed.data() + crc_offset, &crc, sizeof crc);
  if (const auto data = pg::parse_control_file(sealed); data.has_value())
    must(pg::checkpoint_record_end(*data) >= data->checkpoint ||
             pg::checkpoint_record_end(*data) < Lsn{4096},
         "a record ends behind its beginning, unless its numbers wrap around");
}

}  // namespace spilo::fuzz
