#include "sources.hpp"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "spilo/config/yaml.hpp"
#include "spilo/model/spelling.hpp"

namespace spilo::config {
namespace {

namespace fs = std::filesystem;

constexpr std::array<std::string_view, 5> secret_keys = {
    "password", "sslpassword", "keyfile_password", "key_password", "token"};
constexpr std::size_t file_bytes_max = 4u << 20;

Result<std::string> read_file(const std::string& path) {
  std::error_code ignored;
  if (fs::is_directory(path, ignored))
    return Error(errc::invalid_argument, "it is a directory, not a file");
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  if (!file) return Error(errc::not_found, fmt::format("can't be read: {}", std::strerror(errno)));
  std::string text;
  std::array<char, 1 << 16> block{};
  while (file.read(block.data(), block.size()) || file.gcount() > 0) {
    text.append(block.data(), static_cast<std::size_t>(file.gcount()));
    if (text.size() > file_bytes_max)
      return Error(
          errc::invalid_argument,
          fmt::format("is larger than {} MiB: this is no configuration", file_bytes_max >> 20));
  }
  return text;
}

bool readable_by_everybody(const std::string& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 && (status.st_mode & S_IROTH) != 0;
}

bool holds_secret(const json::Value& value) {
  if (const auto* array = value.as_array()) return std::ranges::any_of(*array, holds_secret);
  const auto* object = value.as_object();
  return object != nullptr && std::ranges::any_of(*object, [](const json::Member& member) {
           const auto* text = member.second.as_string();
           return (is_secret(member.first) && text != nullptr && !text->empty()) ||
                  holds_secret(member.second);
         });
}

void whole_file_problem(Reporter& report, const std::string& file, std::string message) {
  Problem problem;
  problem.message = std::move(message);
  problem.file = file;
  report.add_located(std::move(problem));
}

// One text into the document; `file` names it in messages. True when it holds secrets.
bool add_text(json::Value& document,
              std::string_view text,
              const std::string& file,
              Reporter& report) {
  auto parsed = parse_yaml(text);
  if (!parsed) {
    whole_file_problem(report, file, "not YAML: " + parsed.error().detail());
    return false;
  }
  for (const auto& [path, line] : parsed->lines) report.place(path, Reporter::Place{file, line});
  for (const auto& twice : parsed->duplicates)
    report.error(twice.path,
                 fmt::format("is given twice, in line {} and in line {}; remove one of them",
                             twice.first_line,
                             twice.line));
  if (parsed->value.is_null()) return false;
  if (!parsed->value.is_object()) {
    whole_file_problem(
        report, file, fmt::format("must hold keys and values, but {}", described(parsed->value)));
    return false;
  }
  const bool secret = holds_secret(parsed->value);
  if (document.as_object()->empty())
    document = std::move(parsed->value);
  else
    json::merge_patch(document, parsed->value);
  return secret;
}

void add_file(json::Value& document, const std::string& file, Reporter& report) {
  const auto text = read_file(file);
  if (!text) return whole_file_problem(report, file, text.error().detail());
  if (!add_text(document, *text, file, report) || !readable_by_everybody(file)) return;
  Problem problem;
  problem.severity = Problem::Severity::warning;
  problem.file = file;
  problem.message =
      "holds passwords and can be read by everybody on this machine; chmod 600 it, or move them to "
      "files of their own (password_file)";
  report.add_located(std::move(problem));
}

void add_path(json::Value& document, const std::string& path, Reporter& report) {
  std::error_code failure;
  if (!fs::is_directory(path, failure)) return add_file(document, path, report);
  std::vector<std::string> files;
  for (const auto& entry : fs::directory_iterator(path, failure)) {
    const auto extension = entry.path().extension();
    if (extension == ".yml" || extension == ".yaml") files.push_back(entry.path().string());
  }
  if (failure) return whole_file_problem(report, path, "can't be listed: " + failure.message());
  if (files.empty()) return whole_file_problem(report, path, "has no *.yml or *.yaml file");
  std::ranges::sort(files);
  for (const auto& file : files) add_file(document, file, report);
}

// `password_file: x` becomes `password: <content>`.
class SecretFiles {
 public:
  SecretFiles(const Environment& environment, Reporter& report) : report_(report) {
    const auto found = environment.find("CREDENTIALS_DIRECTORY");
    if (found != environment.end()) directory_ = found->second;
  }

  void resolve(json::Value& section, const std::string& path) {
    auto* members = section.as_object();
    if (members == nullptr) return;
    for (auto& [key, value] : *members) resolve(value, path.empty() ? key : path + "." + key);
    for (const auto secret : secret_keys) {
      const auto reference = fmt::format("{}_file", secret);
      const auto* found = section.find(reference);
      if (found == nullptr || found->is_null()) continue;
      const auto full = path.empty() ? reference : path + "." + reference;
      if (const auto* file = found->as_string(); file != nullptr && !file->empty())
        read_into(section, std::string(secret), full, *file);
      else
        report_.error(full, "must be the path of a file that holds the secret");
      section.erase(reference);
    }
  }

 private:
  void read_into(json::Value& section,
                 const std::string& secret,
                 const std::string& path,
                 const std::string& name) {
    if (section.find(secret) != nullptr)
      return report_.error(path, fmt::format("stands beside {}; give one of them", secret));
    const fs::path given(name);
    const auto file =
        given.is_relative() && !directory_.empty() ? (fs::path(directory_) / given).string() : name;
    auto text = read_file(file);
    if (!text) return report_.error(path, fmt::format("{} {}", file, text.error().detail()));
    while (!text->empty() && (text->back() == '\n' || text->back() == '\r')) text->pop_back();
    if (text->empty()) return report_.error(path, fmt::format("{} is empty", file));
    if (readable_by_everybody(file))
      report_.warning(
          path, fmt::format("{} can be read by everybody on this machine; chmod 600 it", file));
    section.set(secret, std::move(*text));
  }

  std::string directory_;
  Reporter& report_;
};

}  // namespace

bool is_secret(std::string_view key) noexcept {
  return std::ranges::find(secret_keys, key) != secret_keys.end();
}

const std::string* find_variable(const Environment& environment, std::string_view name) {
  for (const char* prefix : {"SPILO_", "PATRONI_"}) {
    const auto found = environment.find(prefix + std::string(name));
    if (found != environment.end() && !found->second.empty()) return &found->second;
  }
  return nullptr;
}

void set_path(json::Value& document, std::string_view dotted, json::Value value) {
  auto* at = &document;
  for (;;) {
    const auto dot = dotted.find('.');
    const auto key = dotted.substr(0, dot);
    if (dot == std::string_view::npos) {
      at->set(std::string(key), std::move(value));
      return;
    }
    auto* next = at->find(key);
    if (next == nullptr || !next->is_object()) {
      at->set(std::string(key), json::Value::object());
      next = at->find(key);
    }
    at = next;
    dotted.remove_prefix(dot + 1);
  }
}

json::Value gather(const std::vector<std::string>& paths,
                   const Environment& environment,
                   Purpose purpose,
                   Reporter& report) {
  auto document = json::Value::object();
  const auto* whole = paths.empty() ? find_variable(environment, "CONFIGURATION") : nullptr;
  if (whole != nullptr) {
    add_text(document, *whole, "the environment's CONFIGURATION", report);
  } else {
    for (const auto& path : paths) add_path(document, path, report);
    apply_environment(document, environment, report);
  }
  // Only where we know secrets to be: the free parts of a document may have a key of that name.
  std::vector<std::string> sections = {
      "ctl", "etcd", "etcd3", "consul", "zookeeper", "restapi.authentication"};
  if (purpose == Purpose::node) {
    sections.emplace_back("restapi");
    sections.emplace_back("postgresql.authentication");
  }
  SecretFiles secrets(environment, report);
  for (const auto& path : sections) {
    auto* section = const_cast<json::Value*>(document.find_path(path));
    if (section != nullptr) secrets.resolve(*section, path);
  }
  return document;
}

}  // namespace spilo::config
