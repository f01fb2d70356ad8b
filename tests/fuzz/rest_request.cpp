#include "fuzz/targets.hpp"
#include "rest/body.hpp"
#include "spilo/rest/target.hpp"

namespace spilo::fuzz {

// The target, then a line with two dashes, then the body.
void rest_request(std::string_view bytes) {
  const std::string target(first_part(bytes));
  const rest::Target parsed(target);
  must(parsed.path().starts_with(parsed.first_segment()) ||
           parsed.path().find(parsed.first_segment()) != std::string::npos,
       "the first segment is a part of the path");
  for (const auto& [name, value] : parsed.parameters())
    must(parsed.find(name).has_value(), "a parameter is found by its name");
  const rest::Request request(
      net::HttpRequest("POST", target, std::string(second_part(bytes))), "10.0.0.1", false, false);
  for (const auto rule : {rest::Body::Rule::required, rest::Body::Rule::optional}) {
    auto body = rest::read_body(request, rule);
    if (body.refused()) {
      must(body.take_refusal().status() >= 400, "a refusal has a status of one");
      continue;
    }
    must(body.document().is_object(), "a body is an object");
    ha::OperatorRequest order;
    static_cast<void>(rest::read_restart(body.document(), WallTime{}, order));
  }
}

}  // namespace spilo::fuzz
