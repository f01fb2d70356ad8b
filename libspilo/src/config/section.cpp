#include <fmt/format.h>

#include <filesystem>

#include "address.hpp"
#include "readers.hpp"

namespace spilo::config {

Section::Section(const json::Value& document, std::string path) : path_(std::move(path)) {
  const auto* found = path_.empty() ? &document : document.find_path(path_);
  if (found != nullptr && found->is_object()) value_ = found;
}

std::string Section::path_of(std::string_view key) const {
  return path_.empty() ? std::string(key) : fmt::format("{}.{}", path_, key);
}

const json::Value* Section::find(std::string_view key) const noexcept {
  const auto* found = value_ == nullptr ? nullptr : value_->find(key);
  return found == nullptr || found->is_null() ? nullptr : found;
}

std::string Section::text(std::string_view key, std::string_view otherwise) const {
  const auto* found = find(key);
  if (found == nullptr) return std::string(otherwise);
  return found->is_string() || found->is_int() ? found->scalar_text() : std::string(otherwise);
}

bool Section::flag(std::string_view key, bool otherwise) const noexcept {
  const auto* found = find(key);
  return found == nullptr ? otherwise : found->as_bool().value_or(otherwise);
}

std::int64_t Section::integer(std::string_view key, std::int64_t otherwise) const noexcept {
  const auto* found = find(key);
  return found == nullptr ? otherwise : found->as_int().value_or(otherwise);
}

std::vector<std::string> Section::texts(std::string_view key) const {
  const auto* found = find(key);
  if (found == nullptr) return {};
  if (const auto* text = found->as_string()) return split_list(*text);
  std::vector<std::string> out;
  if (const auto* items = found->as_array())
    for (const auto& item : *items)
      if (const auto* text = item.as_string()) out.push_back(*text);
  return out;
}

json::Value Section::object(std::string_view key) const {
  const auto* found = find(key);
  return found != nullptr && found->is_object() ? *found : json::Value();
}

std::string absolute_path(const std::string& path) {
  if (path.empty()) return path;
  std::error_code failure;
  const auto full = std::filesystem::absolute(path, failure);
  return failure ? path : full.lexically_normal().string();
}

std::optional<Address> read_address(const Section& section,
                                    std::string_view key,
                                    int otherwise,
                                    Reporter& report) {
  const auto text = section.text(key);
  if (text.empty()) return {};
  auto address = parse_address(text, otherwise);
  if (!address)
    report.error(section.path_of(key),
                 fmt::format("must be an address with a port such as 10.0.0.1:{}, but is \"{}\"",
                             otherwise > 0 ? otherwise : 8008,
                             text));
  return address;
}

}  // namespace spilo::config
