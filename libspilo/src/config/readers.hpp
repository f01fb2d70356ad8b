// From the checked document to typed values, one function for each section. Values of a wrong type
// were reported by the schema: readers pass over them silently and report what values mean
// together.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "reporter.hpp"

namespace spilo::config {

// A section of the document, or an empty one: getters of its members.
class Section {
 public:
  Section(const json::Value& document, std::string path);

  const std::string& path() const noexcept { return path_; }
  std::string path_of(std::string_view key) const;
  bool present() const noexcept { return value_ != nullptr; }
  const json::Value* self() const noexcept { return value_; }  // an object, or null
  const json::Value* find(std::string_view key) const noexcept;
  std::string text(std::string_view key, std::string_view otherwise = {}) const;  // numbers too
  bool flag(std::string_view key, bool otherwise) const noexcept;
  std::int64_t integer(std::string_view key, std::int64_t otherwise) const noexcept;
  std::vector<std::string> texts(std::string_view key) const;  // a list, or one text with commas
  json::Value object(std::string_view key) const;              // or null

 private:
  const json::Value* value_ = nullptr;
  std::string path_;
};

// Relative paths against the current directory; "" stays "".
std::string absolute_path(const std::string& path);

StoreOptions read_store(const json::Value& document, bool scope_required, Reporter& report);
RestOptions read_rest(const json::Value& document, Reporter& report);
pg::PgOptions read_postgresql(const json::Value& document, Reporter& report);
ha::Identity read_identity(const json::Value& document,
                           const pg::PgOptions& postgresql,
                           const RestOptions& rest,
                           Reporter& report);
WatchdogOptions read_watchdog(const json::Value& document, Reporter& report);
LogOptions read_log(const json::Value& document, Reporter& report);
CtlOptions read_ctl(const json::Value& document);

// "host:port" of the key, which must have a port unless `otherwise` gives one.
std::optional<Address> read_address(const Section& section,
                                    std::string_view key,
                                    int otherwise,
                                    Reporter& report);

// `config.endpoints`, from one text as in the YAML or a URL; nothing when it is none.
std::optional<std::string> endpoint_url(std::string_view text,
                                        std::string_view protocol,
                                        int port,
                                        std::string* username,
                                        std::string* password);

}  // namespace spilo::config
