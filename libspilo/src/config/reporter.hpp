// Collects what is wrong, and knows which line of which file a key came from.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "spilo/config/load.hpp"

namespace spilo::config {

class Reporter {
 public:
  struct Place {
    std::string file;
    int line = 0;
  };

  void error(std::string path, std::string message) {
    add(Problem::Severity::error, std::move(path), std::move(message));
  }
  void warning(std::string path, std::string message) {
    add(Problem::Severity::warning, std::move(path), std::move(message));
  }
  void add_located(Problem problem) { problems_.push_back(std::move(problem)); }

  // Where later problems about `path` are said to be.
  void place(const std::string& path, Place where) { places_[path] = std::move(where); }
  void forget(const std::string& path) { places_.erase(path); }

  bool failed() const;
  std::vector<Problem> take() { return std::move(problems_); }

 private:
  void add(Problem::Severity severity, std::string path, std::string message);

  std::map<std::string, Place> places_;
  std::vector<Problem> problems_;
};

}  // namespace spilo::config
