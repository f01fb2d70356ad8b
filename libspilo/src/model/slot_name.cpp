#include <fmt/format.h>

#include "spilo/model/codec.hpp"

namespace spilo::codec {
namespace {

// One code point of UTF-8; a byte that is none counts as itself.
char32_t next_code_point(std::string_view text, std::size_t& at) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(at++);
  const unsigned more = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : lead >= 0xc2 ? 1 : 0;
  if (lead < 0x80 || more == 0 || at + more > text.size()) return lead;
  char32_t code = lead & (0x3fu >> more);
  for (unsigned i = 0; i < more; ++i) {
    if ((byte(at + i) & 0xc0) != 0x80) return lead;
    code = (code << 6) | (byte(at + i) & 0x3fu);
  }
  at += more;
  return code;
}

// Lower case of the alphabets that names are written in; independent of any locale.
char32_t lower(char32_t code) {
  if (code >= 'A' && code <= 'Z') return code + 0x20;
  if (code >= 0xc0 && code <= 0xde && code != 0xd7) return code + 0x20;     // Latin-1
  if (code >= 0x391 && code <= 0x3a9 && code != 0x3a2) return code + 0x20;  // Greek
  if (code >= 0x400 && code <= 0x40f) return code + 0x50;                   // Cyrillic
  if (code >= 0x410 && code <= 0x42f) return code + 0x20;
  return code;
}

}  // namespace

std::string slot_name(const NodeName& member) {
  constexpr std::size_t longest = 63;
  std::string out;
  const std::string& name = member.str();
  for (std::size_t at = 0; at < name.size();) {
    const auto code = lower(next_code_point(name, at));
    if ((code >= 'a' && code <= 'z') || (code >= '0' && code <= '9') || code == '_') {
      out += static_cast<char>(code);
    } else if (code == '-' || code == '.') {
      out += '_';
    } else {
      out += fmt::format("u{:04}", static_cast<unsigned>(code));
    }
  }
  if (out.size() > longest) out.resize(longest);
  return out;
}

}  // namespace spilo::codec
