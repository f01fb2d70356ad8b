#include "spilo/rest/target.hpp"

namespace spilo::rest {
namespace {

int hex_digit(char c) noexcept {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

std::string decode(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '+') {
      out.push_back(' ');
      continue;
    }
    if (text[i] == '%' && i + 2 < text.size()) {
      const int high = hex_digit(text[i + 1]);
      const int low = hex_digit(text[i + 2]);
      if (high >= 0 && low >= 0) {
        out.push_back(static_cast<char>(high * 16 + low));
        i += 2;
        continue;
      }
    }
    out.push_back(text[i]);
  }
  return out;
}

}  // namespace

Target::Target(std::string_view text) {
  text = text.substr(0, text.find('#'));
  const auto mark = text.find('?');
  path_ = std::string(text.substr(0, mark));
  if (path_.empty()) path_ = "/";
  if (mark == std::string_view::npos) return;
  for (auto rest = text.substr(mark + 1); !rest.empty();) {
    const auto end = rest.find('&');
    const auto pair = rest.substr(0, end);
    const auto equals = pair.find('=');
    if (!pair.empty()) {
      parameters_.emplace_back(
          decode(pair.substr(0, equals)),
          equals == std::string_view::npos ? std::string() : decode(pair.substr(equals + 1)));
    }
    if (end == std::string_view::npos) break;
    rest.remove_prefix(end + 1);
  }
}

std::string_view Target::first_segment() const noexcept {
  std::string_view rest = path_;
  while (!rest.empty() && rest.front() == '/') rest.remove_prefix(1);
  return rest.substr(0, rest.find('/'));
}

std::optional<std::string_view> Target::find(std::string_view name) const noexcept {
  for (const auto& [key, value] : parameters_)
    if (key == name) return std::string_view(value);
  return std::nullopt;
}

}  // namespace spilo::rest
