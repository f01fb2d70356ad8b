#include <doctest/doctest.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "spilo/ha/event.hpp"
#include "spilo/ports/dcs.hpp"

using namespace spilo;
namespace asio = boost::asio;

namespace {

// Counts itself, so that a temporary which is destroyed twice or never shows.
struct Counted {
  static inline int alive = 0;
  Counted() { ++alive; }
  Counted(const Counted&) { ++alive; }
  Counted(Counted&&) noexcept { ++alive; }
  Counted& operator=(const Counted&) = default;
  Counted& operator=(Counted&&) noexcept = default;
  ~Counted() { --alive; }
};

struct Aggregate {  // what must not be a temporary beside co_await
  std::string text;
  Counted counted;
};

class Value {  // what may: it has a constructor
 public:
  explicit Value(std::string t) : text(std::move(t)) {}
  std::string text;
  Counted counted;
};

template <class T>
asio::awaitable<std::string> text_of(T value) {
  co_await asio::post(asio::use_awaitable);
  co_return value.text;
}
asio::awaitable<std::string> echo(std::string text) {
  co_await asio::post(asio::use_awaitable);
  co_return text;
}
Async<std::string> fallible(bool fail) {
  co_await asio::post(asio::use_awaitable);
  if (fail) co_return Error(errc::not_found, "a text that is long enough to be on the heap");
  co_return std::string("a text that is long enough to be on the heap");
}

void run(asio::awaitable<void> body) {
  asio::io_context io{1};
  asio::co_spawn(io, std::move(body), [](std::exception_ptr failure) {
    if (failure) std::rethrow_exception(failure);
  });
  io.run();
  CHECK(Counted::alive == 0);
}

const char* const long_text = "a text that is long enough to be on the heap";

}  // namespace

TEST_CASE("an aggregate travels as a named local") {
  run([]() -> asio::awaitable<void> {
    Aggregate aggregate{.text = long_text};
    const auto text = co_await text_of(std::move(aggregate));
    CHECK(text == long_text);
  }());
}

TEST_CASE("a class with a constructor may be a temporary") {
  run([]() -> asio::awaitable<void> {
    const auto text = co_await text_of(Value(long_text));
    CHECK(text == long_text);
    const auto longer = co_await text_of(Value(std::string(long_text) + "!"));
    CHECK(longer.size() == text.size() + 1);
  }());
}

TEST_CASE("strings and pairs may be temporaries, a conditional may not") {
  run([]() -> asio::awaitable<void> {
    const bool yes = true;
    // Named before CHECK sees it: the macro's own temporaries are aggregates.
    const auto sum = co_await echo(std::string(long_text) + long_text);
    CHECK(sum == std::string(long_text) + long_text);
    // A conditional that yields a class is destroyed twice too (found here): choose first, await then.
    auto choice = yes ? std::string(long_text) : std::string();
    const auto chosen = co_await echo(std::move(choice));
    CHECK(chosen == long_text);
    const auto pair = std::make_pair(std::string(long_text), 1);
    const auto first = co_await echo(pair.first);
    CHECK(first == long_text);
  }());
}

TEST_CASE("errors and results survive co_return and co_await") {
  run([]() -> asio::awaitable<void> {
    auto good = co_await fallible(false);
    CHECK(good.value() == long_text);
    auto bad = co_await fallible(true);
    CHECK(bad.error().detail() == long_text);
  }());
}

TEST_CASE("an event is built in a statement of its own") {
  run([]() -> asio::awaitable<void> {
    std::vector<ha::Event> events;
    auto text = co_await echo(long_text);
    events.push_back(ha::ReadFailed{Error(errc::unavailable, std::move(text))});
    events.push_back(ha::Written{ha::InFlight::status, long_text, SessionId("s"), {}});
    CHECK(std::get<ha::ReadFailed>(events[0]).error.detail() == long_text);
  }());
}

TEST_CASE("a transaction is built by verbs, then moved") {
  run([]() -> asio::awaitable<void> {
    dcs::Transaction transaction;
    transaction.require("leader", dcs::Condition::absent());
    transaction.put("leader", long_text, dcs::Binding::session);
    auto size = [](dcs::Transaction t) -> asio::awaitable<std::size_t> {
      co_await asio::post(asio::use_awaitable);
      co_return t.changes().size();
    };
    const auto count = co_await size(std::move(transaction));
    CHECK(count == 1);
  }());
}
