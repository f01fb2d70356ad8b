// The target of a request, taken apart. Pure.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace spilo::rest {

// "/replica?lag=10MB&tag_zone=a" -> path "/replica", parameters lag and tag_zone. Names and values
// are decoded; a bad %-escape stays as it is.
class Target {
 public:
  Target() = default;
  explicit Target(std::string_view text);

  const std::string& path() const noexcept { return path_; }
  // Between the first and the second slash: what a request is routed by. Empty for "/".
  std::string_view first_segment() const noexcept;
  const std::vector<std::pair<std::string, std::string>>& parameters() const noexcept {
    return parameters_;
  }
  // The first parameter of that name.
  std::optional<std::string_view> find(std::string_view name) const noexcept;

 private:
  std::string path_ = "/";
  std::vector<std::pair<std::string, std::string>> parameters_;
};

}  // namespace spilo::rest
