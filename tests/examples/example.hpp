// What the tests of the examples share.
#pragma once

#include <algorithm>
#include <chrono>
#include <sstream>
#include <string>
#include <vector>

#include "support/process.hpp"

namespace spilo::test {

// Do the pieces occur in the text in that order?
inline bool in_order(const std::string& text, const std::vector<std::string>& pieces) {
  std::size_t at = 0;
  return std::ranges::all_of(pieces, [&](const std::string& piece) {
    at = text.find(piece, at);
    if (at == std::string::npos) return false;
    at += piece.size();
    return true;
  });
}

inline std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

// Waits until the program has printed that, and fails the test if it does not.
inline void wait_for_text(const Process& process,
                          const std::string& text,
                          std::chrono::seconds limit = std::chrono::seconds(20)) {
  REQUIRE_MESSAGE(wait_until([&] { return process.log().find(text) != std::string::npos; }, limit),
                  "not printed: ",
                  text);
}

}  // namespace spilo::test
