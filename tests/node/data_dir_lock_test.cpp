// Two agents on one data directory: the second is refused, whatever became of the first's files.
#include "spilo/node/data_dir_lock.hpp"

#include <doctest/doctest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <optional>

#include "support/process.hpp"

using namespace spilo;
using namespace spilo::test;

TEST_CASE("a data directory has one agent, until that agent is gone") {
  TempDir dir;
  const auto data_dir = dir / "data";
  auto first = std::make_optional(node::DataDirLock::take(data_dir));
  REQUIRE(first->has_value());
  const auto second = node::DataDirLock::take(data_dir + "/");
  REQUIRE(second.has_error());
  CHECK(second.error().is(errc::conflict));
  CHECK(second.error().text().find("process " + std::to_string(::getpid())) != std::string::npos);
  // A copy that takes the directory's place changes nothing.
  std::filesystem::create_directory(data_dir);
  CHECK(node::DataDirLock::take(data_dir).has_error());
  CHECK(node::DataDirLock::take(dir / "other").has_value());
  first.reset();
  CHECK(node::DataDirLock::take(data_dir).has_value());
}

TEST_CASE("an agent that is killed leaves no lock") {
  TempDir dir;
  const auto data_dir = dir / "data";
  int ready[2];
  REQUIRE(::pipe(ready) == 0);
  const auto child = ::fork();
  if (child == 0) {
    const auto lock = node::DataDirLock::take(data_dir);
    const char told = lock.has_value() ? 'y' : 'n';
    [[maybe_unused]] const auto n = ::write(ready[1], &told, 1);
    while (true) ::pause();
  }
  char told = 0;
  REQUIRE(::read(ready[0], &told, 1) == 1);
  CHECK(told == 'y');
  const auto refused = node::DataDirLock::take(data_dir);
  REQUIRE(refused.has_error());
  CHECK(refused.error().text().find("process " + std::to_string(child)) != std::string::npos);
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  CHECK(node::DataDirLock::take(data_dir).has_value());
  ::close(ready[0]);
  ::close(ready[1]);
}

TEST_CASE("where no file can be made, the directory is locked") {
  TempDir dir;
  const auto data_dir = dir / "data";
  std::filesystem::create_directory(data_dir);
  // A directory of that name can't be opened as a file, whoever runs this.
  std::filesystem::create_directory(data_dir + ".lock");
  const auto first = node::DataDirLock::take(data_dir);
  REQUIRE(first.has_value());
  const auto second = node::DataDirLock::take(data_dir);
  REQUIRE(second.has_error());
  CHECK(second.error().is(errc::conflict));
}
