#include "reporter.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace spilo::config {

std::string to_text(const Problem& problem) {
  std::string out = problem.file;
  if (problem.line > 0) out += fmt::format(":{}", problem.line);
  if (!out.empty()) out += ": ";
  out += problem.severity == Problem::Severity::error ? "error: " : "warning: ";
  if (!problem.path.empty()) out += problem.path + ": ";
  return out + problem.message;
}

bool Reporter::failed() const {
  return std::ranges::any_of(problems_, [](const Problem& problem) {
    return problem.severity == Problem::Severity::error;
  });
}

void Reporter::add(Problem::Severity severity, std::string path, std::string message) {
  Problem problem;
  problem.severity = severity;
  // A key that is missing is reported where its section begins.
  for (std::string_view at = path; !at.empty();) {
    if (const auto place = places_.find(std::string(at)); place != places_.end()) {
      problem.file = place->second.file;
      problem.line = place->second.line;
      break;
    }
    const auto cut = at.find_last_of(".[");
    at = cut == std::string_view::npos ? std::string_view() : at.substr(0, cut);
  }
  problem.path = std::move(path);
  problem.message = std::move(message);
  problems_.push_back(std::move(problem));
}

}  // namespace spilo::config
