#include "spilo/core/error.hpp"

#include <stdexcept>
#include <utility>

namespace spilo {
namespace {

// error_category has a protected, non-virtual destructor on purpose: categories are never deleted
// through it.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wnon-virtual-dtor"
class Category final : public boost::system::error_category {
 public:
  const char* name() const noexcept override { return "spilo"; }
  std::string message(int value) const override {
    switch (static_cast<errc>(value)) {
      case errc::not_found:
        return "it does not exist";
      case errc::conflict:
        return "a condition did not hold, so nothing was done";
      case errc::session_lost:
        return "the session is gone, and everything bound to it";
      case errc::unavailable:
        return "unavailable, nothing was done";
      case errc::ambiguous:
        return "no answer, it may or may not have been done";
      case errc::timed_out:
        return "the deadline passed";
      case errc::cancelled:
        return "it was cancelled";
      case errc::denied:
        return "authentication or authorisation failed";
      case errc::protocol:
        return "the answer can't be understood";
      case errc::invalid_argument:
        return "invalid argument";
      case errc::unsupported:
        return "not supported";
      case errc::command_failed:
        return "the command failed";
    }
    return "unknown error " + std::to_string(value);
  }
};
#pragma GCC diagnostic pop

}  // namespace

const boost::system::error_category& spilo_category() noexcept {
  static const Category category;
  return category;
}

boost::system::error_code make_error_code(errc code) noexcept {
  return {static_cast<int>(code), spilo_category()};
}

Error::Error(errc code, std::string detail)
    : code_(make_error_code(code)), detail_(std::move(detail)) {}
Error::Error(boost::system::error_code code, std::string detail)
    : code_(code), detail_(std::move(detail)) {}

Error Error::in(std::string_view what) const {
  std::string text(what);
  if (!detail_.empty()) text.append(": ").append(detail_);
  return Error(code_, std::move(text));
}

std::string Error::text() const {
  if (detail_.empty()) return code_.message();
  return detail_ + " [" + code_.message() + "]";
}

void throw_exception_from_error(const Error& error, const boost::source_location&) {
  throw std::logic_error("value() of a failed result: " + error.text());
}

bool is_certain(const Error& error) noexcept {
  // One row for each code: what is not listed here may have happened.
  if (error.code().category() != spilo_category()) return false;
  switch (static_cast<errc>(error.code().value())) {
    case errc::not_found:
    case errc::conflict:
    case errc::session_lost:
    case errc::unavailable:
    case errc::denied:
    case errc::invalid_argument:
    case errc::unsupported:
      return true;
    case errc::ambiguous:
    case errc::timed_out:
    case errc::cancelled:
    case errc::protocol:
    case errc::command_failed:
      return false;
  }
  return false;
}

}  // namespace spilo
