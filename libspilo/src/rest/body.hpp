// Bodies of requests and plain answers. Private to rest.
#pragma once

#include <optional>
#include <string>

#include "spilo/core/json.hpp"
#include "spilo/ha/facts.hpp"
#include "spilo/rest/http_server.hpp"
#include "spilo/runtime/operations.hpp"

namespace spilo::rest {

net::HttpResponse text_reply(int status, std::string sentence);
// A small HTML page, as clients of the contract expect of errors.
net::HttpResponse error_page(int status, std::string sentence);

// The JSON object that a request carries, or why it carries none.
class Body {
 public:
  enum class Rule {
    required,  // an object that is not empty
    optional,  // nothing, or an object
  };
  explicit Body(json::Value document) : document_(std::move(document)) {}
  explicit Body(net::HttpResponse refusal) : refusal_(std::move(refusal)) {}
  bool refused() const noexcept { return refusal_.status() != 0; }
  net::HttpResponse take_refusal() { return std::move(refusal_); }
  const json::Value& document() const noexcept { return document_; }

 private:
  json::Value document_ = json::Value::object();
  net::HttpResponse refusal_;
};

Body read_body(const Request& request, Body::Rule rule);

// The filters of POST /restart; what is wrong with them otherwise.
std::optional<Outcome> read_restart(const json::Value& document,
                                    WallTime now,
                                    ha::OperatorRequest& order);

}  // namespace spilo::rest
