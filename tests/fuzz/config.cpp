#include "fuzz/targets.hpp"
#include "spilo/config/load.hpp"
#include "spilo/config/yaml.hpp"

namespace spilo::fuzz {

void config(std::string_view bytes) {
  // A file that names other files would make the run depend on this machine.
  if (bytes.find("_file") != std::string_view::npos) return;
  const std::string text(bytes);
  const auto document = config::parse_yaml(text);
  if (document.has_value()) {
    const auto again = config::parse_yaml(config::dump_yaml(document->value));
    must(again.has_value(), "what was dumped can be parsed");
    must(config::dump_yaml(again->value) == config::dump_yaml(document->value),
         "a YAML document survives being written");
  }
  static_cast<void>(config::parse_yaml_value(text));
  config::Environment environment;
  environment.emplace("SPILO_CONFIGURATION", text);
  const auto node = config::load({}, environment);
  must(node.config.has_value() || !node.problems.empty(), "a refusal has a reason");
  const auto ctl = config::load_ctl({}, environment);
  must(ctl.config.has_value() || !ctl.problems.empty(), "a refusal has a reason");
}

}  // namespace spilo::fuzz
