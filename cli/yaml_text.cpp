#include "cli/yaml_text.hpp"

#include "spilo/config/yaml.hpp"

namespace spilo::cli {
namespace {

// A scalar as it stands in block style; flow style also needs quotes around what separates there.
std::string flow_scalar(const json::Value& value) {
  std::string text = config::dump_yaml(value);
  while (text.ends_with('\n')) text.pop_back();
  const bool quoted = text.starts_with('\'') || text.starts_with('"');
  const bool separates = text.find_first_of(",[]{}") != text.npos;
  const bool plain_text = value.is_string() && !quoted && text.find('\n') == text.npos;
  return plain_text && separates ? "'" + text + "'" : text;
}

std::string flow(const json::Value& value) {
  std::string out;
  if (const auto* object = value.as_object()) {
    for (const auto& [key, item] : *object)
      out += (out.empty() ? "" : ", ") + flow_scalar(key) + ": " + flow(item);
    return "{" + out + "}";
  }
  if (const auto* list = value.as_array()) {
    for (const auto& item : *list) out += (out.empty() ? "" : ", ") + flow(item);
    return "[" + out + "]";
  }
  return flow_scalar(value);
}

}  // namespace

std::string yaml_text(const json::Value& value) {
  return config::dump_yaml(value, config::KeyOrder::sorted);
}

std::string yaml_flow(const json::Value& value) {
  return flow(value) + "\n";
}

}  // namespace spilo::cli
