// The SQLite adapter against the conformance suite.
#include <doctest/doctest.h>

#include <unistd.h>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "conformance/doctest_glue.hpp"
#include "spilo/sqlite/sqlite_store.hpp"

using namespace spilo;
using namespace std::chrono_literals;
namespace conformance = spilo::testing::dcs_conformance;

namespace {

class TempDir {
 public:
  TempDir() {
    char name[] = "/tmp/spilo-sqlite-XXXXXX";
    path = ::mkdtemp(name);
  }
  ~TempDir() { std::filesystem::remove_all(path); }
  std::string path;
};

class SqliteSubject : public conformance::IoSubject {
 public:
  explicit SqliteSubject(std::string file) : file_(std::move(file)) {}
  std::string name() const override { return "sqlite"; }
  Duration ttl() const override { return 2s; }
  Duration expiry_slack() const override { return 250ms; }
  dcs::Store& make_client(Scope scope) override {
    sqlite::Options options;
    options.file = file_;
    options.scope = std::move(scope);
    clients_.push_back(
        std::make_unique<sqlite::SqliteStore>(io().get_executor(), clock(), std::move(options)));
    return *clients_.back();
  }

 private:
  std::string file_;
  std::vector<std::unique_ptr<dcs::Store>> clients_;
};

}  // namespace

TEST_CASE("the conformance suite") {
  TempDir folder;
  SqliteSubject subject(folder.path + "/store.db");
  conformance::check_conformance(subject);
}
