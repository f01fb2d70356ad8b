// The shape of every asynchronous operation of the library.
#pragma once

#include <boost/asio/awaitable.hpp>

#include "spilo/core/error.hpp"

namespace spilo {

// An operation completes with a value or an Error; it throws only for broken invariants and
// bad_alloc. Parameters are taken by value, because an awaitable starts late. Beside co_await write
// only names, literals and constructor-made values: g++ 12 destroys aggregate temporaries twice
// there (tests/compiler shows it).
template <class T>
using Async = boost::asio::awaitable<Result<T>>;

}  // namespace spilo
