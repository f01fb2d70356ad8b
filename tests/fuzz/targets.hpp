// One function for each parser that reads what others have written: whatever the bytes are, it must
// not throw, crash or take long, and what it accepts must survive being written and read again.
// libFuzzer calls them (the asan preset); the files below corpus/ are replayed by an ordinary test
// in every build. What once broke a parser stays there as a file.
//
// Another parser: a file here, a line in all_targets(), a name in CMakeLists.txt, a folder below
// corpus/.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <span>
#include <string_view>

namespace spilo::fuzz {

void codec(std::string_view bytes);
void config(std::string_view bytes);
void control_file(std::string_view bytes);
void etcd_dns(std::string_view bytes);
void etcd_wire(std::string_view bytes);
void rest_request(std::string_view bytes);
void url(std::string_view bytes);

struct Target {
  std::string_view name;
  void (*run)(std::string_view bytes);
};
inline std::span<const Target> all_targets() noexcept {
  static constexpr Target list[] = {
      {"codec", codec},
      {"config", config},
      {"control_file", control_file},
      {"etcd_dns", etcd_dns},
      {"etcd_wire", etcd_wire},
      {"rest_request", rest_request},
      {"url", url},
  };
  return list;
}

// What must hold of everything that was accepted. No exception: a target must not need any.
inline void must(bool held, const char* what) noexcept {
  if (held) return;
  std::fprintf(stderr, "broken: %s\n", what);
  std::abort();
}

// Cuts the input in two at the first line that says "--": for parsers of two things.
inline std::string_view first_part(std::string_view bytes) noexcept {
  return bytes.substr(0, bytes.find("\n--\n"));
}
inline std::string_view second_part(std::string_view bytes) noexcept {
  const auto at = bytes.find("\n--\n");
  return at == std::string_view::npos ? std::string_view() : bytes.substr(at + 4);
}

}  // namespace spilo::fuzz
