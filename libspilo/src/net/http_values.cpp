#include <fmt/format.h>

#include <algorithm>
#include <boost/url/parse.hpp>
#include <boost/url/url_view.hpp>
#include <charconv>

#include "spilo/net/http.hpp"

namespace spilo::net {
namespace {

char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}
bool same_name(std::string_view a, std::string_view b) {
  return std::ranges::equal(a, b, {}, lower, lower);
}

// Of a name, an address, or an IPv6 address with a zone. What was %-encoded may be anything, a line
// end too.
bool is_host(std::string_view text) noexcept {
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '.' || c == '_' || c == ':' || c == '%';
  };
  const bool address = text.find(':') != std::string_view::npos;
  return !text.empty() && std::ranges::all_of(text, allowed) &&
         (address || text.find('%') == std::string_view::npos);
}

}  // namespace

Url::Url(std::string host, std::uint16_t port, bool tls)
    : tls_(tls), host_(std::move(host)), port_(port) {}

Result<Url> Url::parse(std::string_view text) {
  const auto parsed = boost::urls::parse_uri({text.data(), text.size()});
  // What failed to parse may hold a password, so the message shows nothing of it but its length.
  if (parsed.has_error())
    return Error(errc::invalid_argument,
                 fmt::format("not a URL of the form http://host:port ({} characters): {}",
                             text.size(),
                             parsed.error().message()));
  const boost::urls::url_view view = *parsed;
  Url url;
  std::string scheme(view.scheme().begin(), view.scheme().end());
  std::ranges::transform(scheme, scheme.begin(), lower);
  if (scheme != "http" && scheme != "https")
    return Error(errc::invalid_argument,
                 fmt::format("the scheme of a URL must be http or https, not \"{}\"", scheme));
  url.tls_ = scheme == "https";
  if (view.host_address().empty())
    return Error(errc::invalid_argument, fmt::format("a URL without a host: {}://", scheme));
  url.host_ = view.host_address();
  if (!is_host(url.host_))
    return Error(errc::invalid_argument,
                 "the host of a URL must be of letters, digits, '-', '.' and '_', or an address");
  url.port_ = url.tls_ ? 443 : 80;
  if (const std::string digits(view.port().begin(), view.port().end()); !digits.empty()) {
    // Boost 1.81's port_number() wraps around instead of failing.
    const auto* end = digits.data() + digits.size();
    const auto [at, ec] = std::from_chars(digits.data(), end, url.port_);
    if (ec != std::errc() || at != end || url.port_ == 0)
      return Error(
          errc::invalid_argument,
          fmt::format(
              "the port of host {} must be between 1 and 65535, not {}", url.host_, digits));
  }
  url.user_ = view.user();
  url.password_ = view.password();
  const auto target = view.encoded_target();
  if (!target.empty()) url.target_.assign(target.begin(), target.end());
  if (url.target_.front() != '/') url.target_.insert(0, 1, '/');
  return url;
}

std::string Url::authority() const {
  if (host_.find(':') == std::string::npos) return fmt::format("{}:{}", host_, port_);
  return fmt::format("[{}]:{}", host_, port_);
}
std::string Url::origin() const {
  return (tls_ ? "https://" : "http://") + authority();
}

std::string basic_authorization(std::string_view user, std::string_view password) {
  constexpr std::string_view digits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const std::string text = std::string(user).append(":").append(password);
  std::string out = "Basic ";
  for (std::size_t i = 0; i < text.size(); i += 3) {
    const auto byte = [&](std::size_t at) {
      return at < text.size() ? static_cast<unsigned char>(text[at]) : 0u;
    };
    const unsigned bits = byte(i) << 16 | byte(i + 1) << 8 | byte(i + 2);
    out += digits[bits >> 18];
    out += digits[bits >> 12 & 63];
    out += i + 1 < text.size() ? digits[bits >> 6 & 63] : '=';
    out += i + 2 < text.size() ? digits[bits & 63] : '=';
  }
  return out;
}

HttpRequest::HttpRequest(std::string method, std::string target, std::string body)
    : method_(std::move(method)),
      target_(std::move(target)),
      body_(std::move(body)),
      effect_(method_ == "GET" || method_ == "HEAD" || method_ == "OPTIONS" ? Effect::read
                                                                            : Effect::write) {}
HttpRequest& HttpRequest::header(std::string name, std::string value) & {
  headers_.emplace_back(std::move(name), std::move(value));
  return *this;
}
HttpRequest& HttpRequest::effect(Effect effect) & {
  effect_ = effect;
  return *this;
}

HttpRequest& HttpRequest::connect_before(TimePoint at) & {
  connect_before_ = at;
  return *this;
}

HttpResponse::HttpResponse(int status, HttpHeaders headers, std::string body)
    : status_(status), headers_(std::move(headers)), body_(std::move(body)) {}

std::string_view HttpResponse::header(std::string_view name) const noexcept {
  for (const auto& [key, value] : headers_)
    if (same_name(key, name)) return value;
  return {};
}

}  // namespace spilo::net
