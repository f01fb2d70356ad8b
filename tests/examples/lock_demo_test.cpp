// examples/lock_demo: the holder is frozen past its lease, somebody else takes over, and what the
// frozen one writes when it wakes up is refused.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <fstream>

#include "example.hpp"

using namespace spilo::test;
using namespace std::chrono_literals;

namespace {

struct Line {
  std::uint64_t token = 0;
  std::uint64_t value = 0;
  std::string name;
};

std::vector<Line> read_file(const std::string& file) {
  std::vector<Line> lines;
  std::ifstream in(file);
  for (Line line; in >> line.token >> line.value >> line.name;) lines.push_back(line);
  return lines;
}

std::ptrdiff_t counted_with(const std::string& file, std::uint64_t token) {
  return std::ranges::count(read_file(file), token, &Line::token);
}

// "acquired, token 7" as printed last.
std::uint64_t token_of(const Process& process) {
  std::uint64_t token = 0;
  for (const auto& line : lines_of(process.log()))
    if (line.starts_with("acquired, token ")) token = std::stoull(line.substr(16));
  return token;
}

std::vector<std::string> command(const TempDir& folder, const std::string& name) {
  return {LOCK_DEMO_PROGRAM, "sqlite://" + folder / "store.db", folder / "count", name};
}

// Freezes the holder until the other one has counted under its own grant, and wakes it up. True
// when it then wrote with its old token, and was refused.
bool freeze_past_the_lease(Process& holder, Process& other, const std::string& file) {
  const auto old_token = token_of(holder);
  holder.freeze();
  REQUIRE(wait_until([&] { return token_of(other) > old_token; }, 20s));
  const auto new_token = token_of(other);
  REQUIRE(wait_until([&] { return counted_with(file, new_token) >= 5; }, 20s));
  holder.signal(SIGCONT);
  wait_for_text(holder, fmt::format("lost, token {}", old_token));
  return holder.log().find(fmt::format(
             "refused: token {} is older than {}", old_token, new_token)) != std::string::npos;
}

}  // namespace

TEST_CASE("lock_demo: a holder that was frozen past its lease is refused when it wakes up") {
  TempDir folder;
  const auto file = folder / "count";
  Process n1(command(folder, "n1"), folder / "n1.log");
  wait_for_text(n1, "acquired, token ");
  Process n2(command(folder, "n2"), folder / "n2.log");
  REQUIRE(wait_until([&] { return counted_with(file, token_of(n1)) >= 5; }, 20s));
  CHECK(token_of(n2) == 0);

  // One in a thousand is frozen in the midst of a renewal. It then learns first that its session is
  // gone, and does not write at all.
  Process* holder = &n1;
  Process* other = &n2;
  bool refused = false;
  for (int round = 0; round < 4 && !refused; ++round) {
    refused = freeze_past_the_lease(*holder, *other, file);
    std::swap(holder, other);
  }
  CHECK(refused);

  // Left in order: the lock passes on at once, with a token that is greater again.
  const auto before = token_of(*holder);
  holder->signal(SIGTERM);
  REQUIRE(holder->wait(20s));
  CHECK(holder->status() == 0);
  CHECK(in_order(holder->log(),
                 {fmt::format("lost, token {}: resigned", before), "gave the lock away"}));
  REQUIRE(wait_until([&] { return token_of(*other) > before; }, 20s));
  REQUIRE(wait_until([&] { return counted_with(file, token_of(*other)) >= 1; }, 20s));
  other->signal(SIGTERM);
  REQUIRE(other->wait(20s));
  CHECK(other->status() == 0);

  // No count was lost or made twice, and at least one line came too late to count.
  std::uint64_t token = 0, value = 0;
  int too_late = 0;
  for (const auto& line : read_file(file)) {
    if (line.token < token) {
      ++too_late;
      continue;
    }
    CHECK(line.value == value + 1);
    token = line.token;
    value = line.value;
  }
  CHECK(token == token_of(*other));
  CHECK(too_late >= 1);
}
