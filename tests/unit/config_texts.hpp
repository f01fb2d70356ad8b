// Configurations as text and problems as text, for the tests of config/.
#pragma once

#include <doctest/doctest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "spilo/config/load.hpp"

namespace spilo::test {

using namespace config;
namespace fs = std::filesystem;

class Directory {
 public:
  Directory() {
    char name[] = "/tmp/spilo-config-XXXXXX";
    REQUIRE(::mkdtemp(name) != nullptr);
    path_ = name;
  }
  ~Directory() {
    std::error_code ignored;
    fs::permissions(path_, fs::perms::owner_all, ignored);
    fs::remove_all(path_, ignored);
  }
  std::string write(const std::string& name, std::string_view text, int mode = 0600) const {
    const auto file = path_ + "/" + name;
    std::ofstream(file) << text;
    ::chmod(file.c_str(), static_cast<mode_t>(mode));
    return file;
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// The least that a node needs.
inline constexpr std::string_view least = R"(
scope: batman
name: n1
restapi: {listen: '127.0.0.1:8008'}
sqlite: {path: /tmp/store.db}
postgresql:
  listen: 127.0.0.1:5432
  data_dir: /tmp/data
  authentication:
    superuser: {username: postgres}
    replication: {username: replicator}
)";

inline Loaded load_text(std::string_view text, const Environment& environment = {}) {
  const Directory directory;
  return load({directory.write("node.yml", text)}, environment);
}

// The problems without the directory that the test made up.
inline std::string shown(const std::vector<Problem>& problems) {
  std::string out;
  for (const auto& problem : problems) {
    auto text = to_text(problem);
    if (const auto at = text.find("node.yml"); at != std::string::npos) text = text.substr(at);
    out += text + "\n";
  }
  return out;
}

inline Config loaded(std::string_view text, const Environment& environment = {}) {
  auto result = load_text(text, environment);
  REQUIRE_MESSAGE(result.config.has_value(), shown(result.problems));
  return *result.config;
}

inline std::string replaced(std::string_view what, std::string_view by) {
  std::string text(least);
  const auto at = text.find(what);
  REQUIRE_MESSAGE(at != std::string::npos, what);
  return text.replace(at, what.size(), by);
}

}  // namespace spilo::test
