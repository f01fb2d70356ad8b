#include "body.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "spilo/model/dynamic_config.hpp"

namespace spilo::rest {
namespace {

std::string html_escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '<') {
      out += "&lt;";
    } else if (c == '>') {
      out += "&gt;";
    } else if (c == '&') {
      out += "&amp;";
    } else {
      out += c;
    }
  }
  return out;
}

bool is_version(const std::string& text) {
  int dots = 0;
  bool digit = false;
  for (const char c : text) {
    if (c == '.') {
      if (!digit || ++dots > 2) return false;
      digit = false;
      continue;
    }
    if (c < '0' || c > '9') return false;
    digit = true;
  }
  return digit;
}

std::optional<Outcome> wrong_type(const char* key, const char* wanted, const json::Value& value) {
  return Outcome(400, fmt::format("{} must be {}, not {}", key, wanted, json::dump(value)));
}

std::optional<Outcome> read_filters(const json::Value& document, ha::OperatorRequest& order) {
  if (const auto* role = document.find("role"); role != nullptr) {
    static constexpr std::array<std::string_view, 3> roles = {
        "primary", "replica", "standby_leader"};
    const auto* text = role->as_string();
    if (text == nullptr || std::find(roles.begin(), roles.end(), *text) == roles.end())
      return wrong_type("role", "primary, replica or standby_leader", *role);
    order.role = *text;
  }
  if (const auto* version = document.find("postgres_version"); version != nullptr) {
    const auto* text = version->as_string();
    if (text == nullptr || !is_version(*text))
      return wrong_type("postgres_version", "a version such as \"15.4\"", *version);
    order.postgres_version = *text;
  }
  if (const auto* timeout = document.find("timeout"); timeout != nullptr) {
    const auto duration = parse_duration(*timeout);
    if (!duration || *duration <= Duration::zero())
      return wrong_type("timeout", "a positive number of seconds", *timeout);
    order.timeout = *duration;
  }
  // The contract goes by the key alone; false is what somebody writes who does not mean it.
  if (const auto* pending = document.find("restart_pending"); pending != nullptr)
    order.restart_pending = !(pending->is_null() || pending->as_bool() == false);
  return std::nullopt;
}

}  // namespace

net::HttpResponse text_reply(int status, std::string sentence) {
  net::HttpHeaders headers;
  headers.emplace_back("Content-Type", "text/html");
  return net::HttpResponse(status, std::move(headers), std::move(sentence));
}

net::HttpResponse error_page(int status, std::string sentence) {
  net::HttpHeaders headers;
  headers.emplace_back("Content-Type", "text/html;charset=utf-8");
  auto page = fmt::format(
      "<!DOCTYPE HTML>\n<html><head><title>Error {0}</title></head>\n"
      "<body><h1>Error {0}</h1><p>{1}.</p></body></html>\n",
      status,
      html_escaped(sentence));
  return net::HttpResponse(status, std::move(headers), std::move(page));
}

Body read_body(const Request& request, Body::Rule rule) {
  const bool required = rule == Body::Rule::required;
  if (required && !request.has_header("Content-Length") && !request.has_header("Transfer-Encoding"))
    return Body(error_page(411, "a JSON object is expected, with its Content-Length"));
  if (request.body().empty()) {
    if (required) return Body(error_page(400, "the body is empty, a JSON object is expected"));
    return Body(json::Value::object());
  }
  auto document = json::parse(request.body());
  if (!document)
    return Body(
        error_page(400, fmt::format("the body is not JSON: {}", document.error().detail())));
  const auto* object = document->as_object();
  if (object == nullptr)
    return Body(error_page(
        400, fmt::format("a JSON object is expected, this is: {}", document->type_name())));
  if (required && object->empty()) return Body(error_page(400, "the JSON object is empty"));
  return Body(std::move(*document));
}

std::optional<Outcome> read_restart(const json::Value& document,
                                    WallTime now,
                                    ha::OperatorRequest& order) {
  static constexpr std::array<std::string_view, 5> known = {
      "schedule", "role", "postgres_version", "timeout", "restart_pending"};
  for (const auto& [key, value] : *document.as_object())
    if (std::find(known.begin(), known.end(), key) == known.end())
      return Outcome(400, fmt::format("Unknown filter for the scheduled restart: {}", key));
  auto problem = read_filters(document, order);
  if (problem) return problem;
  if (const auto* schedule = document.find("schedule");
      schedule != nullptr && !schedule->is_null()) {
    const auto* text = schedule->as_string();
    if (text == nullptr) return wrong_type("schedule", "a time such as ISO 8601", *schedule);
    WallTime at{};
    problem = parse_schedule(*text, now, "restart", at);
    if (problem) return problem;
    order.schedule = at;
  }
  return std::nullopt;
}

}  // namespace spilo::rest
