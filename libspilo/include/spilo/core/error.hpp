// Errors as values. Every fallible operation of the library returns Result<T>; exceptions are left
// for broken invariants and memory exhaustion, and never cross a port.
#pragma once

#include <boost/assert/source_location.hpp>
#include <boost/system/error_code.hpp>
#include <boost/system/result.hpp>
#include <string>
#include <string_view>

namespace spilo {

// What a caller must know: did it happen, may I retry, is it my fault.
enum class errc {
  not_found = 1,     // the key or object does not exist
  conflict,          // a condition did not hold: certainly not done
  session_lost,      // our session or lease is gone: everything bound to it is gone
  unavailable,       // never sent, or refused before taking effect: certainly not done, retry later
  ambiguous,         // sent, no answer: may or may not have been done
  timed_out,         // a read or a wait reached its deadline
  cancelled,         // we were told to stop
  denied,            // authentication or authorisation
  protocol,          // the peer answered something we cannot understand
  invalid_argument,  // the caller's fault
  unsupported,       // this backend cannot do that
  command_failed,    // a child process or SQL command failed
};

const boost::system::error_category& spilo_category() noexcept;
boost::system::error_code make_error_code(errc code) noexcept;

// A code for the program and a sentence for the person: what was tried, on what, and what came
// back. A value type with constructors on purpose: aggregates are unsafe as temporaries next to
// co_await (g++ 12).
class Error {
 public:
  Error() = default;
  Error(errc code, std::string detail = {});
  Error(boost::system::error_code code, std::string detail = {});

  boost::system::error_code code() const noexcept { return code_; }
  const std::string& detail() const noexcept { return detail_; }
  bool is(errc code) const noexcept { return code_ == make_error_code(code); }
  Error in(std::string_view what) const;  // "what: detail"; the code is kept
  std::string text() const;               // "detail [meaning of the code]"
  bool operator==(const Error&) const = default;

 private:
  boost::system::error_code code_;
  std::string detail_;
};

// Called by Result::value() without a value. A broken invariant: ask has_value() first.
[[noreturn]] void throw_exception_from_error(const Error& error,
                                             const boost::source_location& where);

// Boost 1.81: error() returns by value, and the error type must be default-constructible.
template <class T>
using Result = boost::system::result<T, Error>;

// True when the failure proves that the write did not take effect.
bool is_certain(const Error& error) noexcept;

}  // namespace spilo

template <>
struct boost::system::is_error_code_enum<spilo::errc> : std::true_type {};
