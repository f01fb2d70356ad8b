// Every file of the corpora, through its target: seeds, and what once broke a parser.
#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "fuzz/targets.hpp"

TEST_CASE("nothing in the corpora breaks a parser, nor does any part of it") {
  for (const auto& target : spilo::fuzz::all_targets()) {
    const auto folder = std::filesystem::path(SPILO_FUZZ_CORPUS) / target.name;
    int files = 0;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      std::ifstream in(entry.path(), std::ios::binary);
      const std::string bytes(std::istreambuf_iterator<char>(in), {});
      CAPTURE(entry.path().string());
      target.run(bytes);
      // Cut off at every place, which is what a lost connection does.
      for (std::size_t size = 0; size < bytes.size(); size += 1 + bytes.size() / 300)
        target.run(std::string(bytes, 0, size));
      ++files;
    }
    CHECK_MESSAGE(files > 0, folder.string());
  }
}
