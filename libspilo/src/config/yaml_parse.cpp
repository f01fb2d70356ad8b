#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <sstream>

#include "spilo/config/yaml.hpp"
#include "yaml_scalar.hpp"

namespace spilo::config {
namespace {

constexpr int depth_max = 64;
constexpr int values_max = 100'000;
constexpr std::string_view standard_tag = "tag:yaml.org,2002:";

Error at(const YAML::Mark& mark, std::string_view what) {
  return Error(errc::invalid_argument,
               fmt::format("line {}, column {}: {}", mark.line + 1, mark.column + 1, what));
}

class Converter {
 public:
  explicit Converter(YamlDocument& out) : out_(out) {}

  Result<json::Value> value(const YAML::Node& node, const std::string& path, int depth) {
    if (depth > depth_max) return at(node.Mark(), fmt::format("nested deeper than {}", depth_max));
    if (++values_ > values_max)
      return at(node.Mark(),
                fmt::format("more than {} values; aliases repeat too much", values_max));
    switch (node.Type()) {
      case YAML::NodeType::Scalar:
        return scalar(node);
      case YAML::NodeType::Sequence:
        return sequence(node, path, depth);
      case YAML::NodeType::Map:
        return mapping(node, path, depth);
      case YAML::NodeType::Null:
      case YAML::NodeType::Undefined:
        break;
    }
    return json::Value();
  }

 private:
  static Result<json::Value> scalar(const YAML::Node& node) {
    const std::string& text = node.Scalar();
    const std::string& tag = node.Tag();
    if (tag == "?" || tag.empty()) return resolve_plain(text);
    if (tag == "!") return json::Value(text);  // quoted, or a block
    if (tag.starts_with(standard_tag)) {
      const auto type = std::string_view(tag).substr(standard_tag.size());
      if (type == "str") return json::Value(text);
      for (const char* known : {"int", "float", "bool", "null"})
        if (type == known) return resolve_plain(text);
    }
    return at(node.Mark(), fmt::format("the tag {} has no meaning here", tag));
  }

  Result<json::Value> sequence(const YAML::Node& node, const std::string& path, int depth) {
    json::Array items;
    for (const auto& item : node) {
      auto converted = value(item, fmt::format("{}[{}]", path, items.size()), depth + 1);
      if (!converted) return converted;
      items.push_back(std::move(*converted));
    }
    return json::Value(std::move(items));
  }

  Result<json::Value> mapping(const YAML::Node& node, const std::string& path, int depth) {
    json::Value merged = json::Value::object();
    std::map<std::string, int> own;  // key -> line, for duplicates
    for (const auto& entry : node) {
      if (!entry.first.IsScalar() && !entry.first.IsNull())
        return at(entry.first.Mark(), "a key must be a text, not a list or a mapping");
      const auto key = entry.first.IsNull() ? std::string("null") : entry.first.Scalar();
      if (key == "<<" && entry.first.Tag() == "?") {
        if (auto failure = merge(entry.second, path, depth, own, merged)) return *failure;
        continue;
      }
      const auto full = path.empty() ? key : path + "." + key;
      const int line = entry.first.Mark().line + 1;
      if (const auto [before, added] = own.emplace(key, line); !added)
        out_.duplicates.push_back({full, line, before->second});
      out_.lines[full] = line;
      auto converted = value(entry.second, full, depth + 1);
      if (!converted) return converted;
      merged.set(key, std::move(*converted));
    }
    return merged;
  }

  // "<<: *base" or "<<: [*a, *b]": adds what is not there; earlier sources win over later ones.
  std::optional<Error> merge(const YAML::Node& source,
                             const std::string& path,
                             int depth,
                             const std::map<std::string, int>& own,
                             json::Value& into) {
    auto converted = value(source, path, depth + 1);
    if (!converted) return converted.error();
    const json::Array one = {*converted};
    const auto* sources = converted->as_array() != nullptr ? converted->as_array() : &one;
    for (const auto& each : *sources) {
      const auto* members = each.as_object();
      if (members == nullptr) return at(source.Mark(), "<< must be followed by a mapping");
      for (const auto& [key, item] : *members)
        if (!own.contains(key) && into.find(key) == nullptr) into.set(key, item);
    }
    return {};
  }

  YamlDocument& out_;
  int values_ = 0;
};

// Where the documents begin; what is in them does not matter here.
class DocumentStarts final : public YAML::EventHandler {
 public:
  YAML::Mark last;
  void OnDocumentStart(const YAML::Mark& mark) override { last = mark; }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark&, YAML::anchor_t) override {}
  void OnAlias(const YAML::Mark&, YAML::anchor_t) override {}
  void OnScalar(const YAML::Mark&,
                const std::string&,
                YAML::anchor_t,
                const std::string&) override {}
  void OnSequenceStart(const YAML::Mark&,
                       const std::string&,
                       YAML::anchor_t,
                       YAML::EmitterStyle::value) override {}
  void OnSequenceEnd() override {}
  void OnMapStart(const YAML::Mark&,
                  const std::string&,
                  YAML::anchor_t,
                  YAML::EmitterStyle::value) override {}
  void OnMapEnd() override {}
};

// yaml-cpp 0.7 reads a document that begins with a comma without ever getting past it, and
// YAML::LoadAll() then makes such documents until the memory is full. So they are counted first, by
// somebody who sees that nothing moves.
Result<int> count_documents(std::string_view text) {
  std::istringstream in{std::string(text)};
  YAML::Parser parser(in);
  DocumentStarts starts;
  int count = 0;
  for (int before = -1; parser.HandleNextDocument(starts); before = starts.last.pos) {
    if (++count > 1 && starts.last.pos == before)
      return at(starts.last, "nothing can begin with what stands here");
  }
  return count;
}

}  // namespace

Result<YamlDocument> parse_yaml(std::string_view text) {
  try {
    const auto documents = count_documents(text);
    if (documents.has_error()) return documents.error();
    YamlDocument out;
    if (*documents == 0) return out;
    if (*documents > 1)
      return Error(
          errc::invalid_argument,
          fmt::format("holds {} YAML documents (separated by ---), must be one", *documents));
    auto value = Converter(out).value(YAML::Load(std::string(text)), "", 0);
    if (!value) return value.error();
    out.value = std::move(*value);
    return out;
  } catch (const YAML::Exception& failure) {
    return at(failure.mark, failure.msg);
  }
}

Result<json::Value> parse_yaml_value(std::string_view text) {
  auto document = parse_yaml(text);
  if (!document) return document.error();
  return std::move(document->value);
}

}  // namespace spilo::config
