// What only the machine can tell. Looks, and changes nothing.
#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>

#include "address.hpp"
#include "reporter.hpp"

namespace spilo::config {
namespace {

namespace fs = std::filesystem;

class Machine {
 public:
  Machine(const Config& config, const ValidateOptions& options)
      : config_(config), options_(options) {}

  std::vector<Problem> check() {
    if (::geteuid() == 0)
      report_.error("",
                    "this runs as root, and PostgreSQL refuses to run as root: start it as the user "
                    "that owns the data directory, for example postgres");
    check_programs();
    check_data_dir();
    check_store_file();
    check_certificates();
    if (!options_.ignore_listen_ports) check_ports();
    return report_.take();
  }

 private:
  // ---- programs ----
  std::optional<std::string> find_program(const std::string& name) const {
    const auto renamed = config_.postgresql.bin_name.find(name);
    const auto& file = renamed == config_.postgresql.bin_name.end() ? name : renamed->second;
    if (file.find('/') != std::string::npos || !config_.postgresql.bin_dir.empty()) {
      const auto path = (fs::path(config_.postgresql.bin_dir) / file).string();
      return ::access(path.c_str(), X_OK) == 0 ? std::optional(path) : std::nullopt;
    }
    for (std::string_view rest = options_.search_path; !rest.empty();) {
      const auto colon = rest.find(':');
      const auto path = (fs::path(rest.substr(0, colon)) / file).string();
      if (::access(path.c_str(), X_OK) == 0) return path;
      rest.remove_prefix(colon == std::string_view::npos ? rest.size() : colon + 1);
    }
    return {};
  }

  void check_programs() {
    std::string missing;
    for (const char* name : {"postgres", "initdb", "pg_controldata", "pg_basebackup"})
      if (!find_program(name)) missing += (missing.empty() ? "" : ", ") + std::string(name);
    if (!missing.empty())
      report_.error(
          "postgresql.bin_dir",
          fmt::format("{}: not found in {}; set bin_dir to the directory of PostgreSQL's "
                      "programs, for example /usr/lib/postgresql/15/bin",
                      missing,
                      config_.postgresql.bin_dir.empty() ? "PATH" : config_.postgresql.bin_dir));
    if (config_.identity.use_pg_rewind && missing.empty() && !find_program("pg_rewind"))
      report_.warning("postgresql.use_pg_rewind",
                      "pg_rewind is not installed: a diverged node is copied anew instead");
  }

  // "postgres (PostgreSQL) 15.20 (Debian …)" -> "15"; "9.6.1" -> "9.6".
  std::optional<std::string> server_major() const {
    const auto program = find_program("postgres");
    if (!program) return {};
    const auto text = first_line_of(*program);
    const auto digit = text.find_first_of("0123456789", text.find(')'));
    if (digit == std::string::npos) return {};
    auto end = text.find_first_not_of("0123456789", digit);
    auto major = text.substr(digit, end - digit);
    if (major == "9" && end != std::string::npos && text[end] == '.') {
      end = text.find_first_not_of("0123456789", end + 1);
      major = text.substr(digit, end - digit);
    }
    return major;
  }

  // `program --version`, given two seconds.
  static std::string first_line_of(const std::string& program) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return {};
    const auto child = ::fork();
    if (child == 0) {
      ::dup2(ends[1], STDOUT_FILENO);
      ::alarm(2);
      ::execl(program.c_str(), program.c_str(), "--version", static_cast<char*>(nullptr));
      ::_exit(127);
    }
    ::close(ends[1]);
    std::string text;
    std::array<char, 256> block{};
    for (;;) {
      const auto got = child > 0 ? ::read(ends[0], block.data(), block.size()) : 0;
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0 || text.size() > 4096) break;
      text.append(block.data(), static_cast<std::size_t>(got));
    }
    ::close(ends[0]);
    if (child > 0)
      while (::waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
      }
    return text.substr(0, text.find('\n'));
  }

  // ---- the data directory ----
  void check_data_dir() {
    const std::string& dir = config_.postgresql.data_dir;
    const std::string path = "postgresql.data_dir";
    struct stat status {};
    if (::stat(dir.c_str(), &status) != 0) {
      if (errno == ENOENT) return check_creatable(path, dir);
      return report_.error(path,
                           fmt::format("{} can't be looked at: {}", dir, std::strerror(errno)));
    }
    if (!S_ISDIR(status.st_mode))
      return report_.error(path, fmt::format("{} is no directory", dir));
    if (::access(dir.c_str(), R_OK | W_OK | X_OK) != 0)
      return report_.error(
          path,
          fmt::format("{} can't be written by this user ({}); it belongs to user {}: "
                      "run as that user, or chown it",
                      dir,
                      ::geteuid(),
                      status.st_uid));
    std::error_code failure;
    if (fs::is_empty(dir, failure)) return;
    std::ifstream file(fs::path(dir) / "PG_VERSION");
    std::string version;
    if (!std::getline(file, version) || version.empty())
      return report_.error(
          path,
          fmt::format("{} is not empty and is no data directory of PostgreSQL (it has "
                      "no PG_VERSION); name another directory, or empty it if nothing "
                      "in it is needed",
                      dir));
    if (status.st_uid != ::geteuid())
      report_.error(
          path,
          fmt::format("{} belongs to user {}, but this is user {}: PostgreSQL only starts as "
                      "the owner; run as that user, or chown it",
                      dir,
                      status.st_uid,
                      ::geteuid()));
    else if ((status.st_mode & 0027) != 0)
      report_.error(path,
                    fmt::format("{} has permissions {:o}: PostgreSQL only starts with 700 or 750; "
                                "chmod 700 it",
                                dir,
                                status.st_mode & 0777));
    const auto major = server_major();
    if (major && *major != version)
      report_.error(
          path,
          fmt::format("{} was made by PostgreSQL {}, but the programs are version {}; set "
                      "postgresql.bin_dir to those of version {}, or upgrade the data with "
                      "pg_upgrade",
                      dir,
                      version,
                      *major,
                      version));
  }

  void check_creatable(const std::string& path, const std::string& dir) {
    auto parent = fs::path(dir).parent_path();
    std::error_code failure;
    while (!parent.empty() && !fs::exists(parent, failure) && parent != parent.parent_path())
      parent = parent.parent_path();
    if (::access(parent.c_str(), W_OK | X_OK) != 0)
      report_.error(
          path,
          fmt::format("{} does not exist and can't be created: {} is not writable for this "
                      "user ({}); create it and give it to this user",
                      dir,
                      parent.string(),
                      ::geteuid()));
  }

  // ---- files ----
  void check_store_file() {
    const auto* sqlite = std::get_if<SqliteSection>(&config_.store.section);
    if (sqlite == nullptr) return;
    const auto directory = fs::path(sqlite->path).parent_path().string();
    if (::access(directory.c_str(), W_OK | X_OK) != 0)
      report_.error(
          "sqlite.path",
          fmt::format("the directory {} can't be written by this user ({}): {}; create it "
                      "and give it to this user",
                      directory,
                      ::geteuid(),
                      std::strerror(errno)));
  }

  void check_readable(const std::string& path, const std::string& file) {
    if (!file.empty() && ::access(file.c_str(), R_OK) != 0)
      report_.error(path, fmt::format("{} can't be read: {}", file, std::strerror(errno)));
  }

  void check_certificates() {
    check_readable("restapi.certfile", config_.restapi.certfile);
    check_readable("restapi.keyfile", config_.restapi.keyfile);
    check_readable("restapi.cafile", config_.restapi.cafile);
    const TlsFiles* tls = nullptr;
    if (const auto* etcd = std::get_if<EtcdSection>(&config_.store.section)) tls = &etcd->tls;
    if (const auto* consul = std::get_if<ConsulSection>(&config_.store.section)) tls = &consul->tls;
    if (const auto* keeper = std::get_if<ZookeeperSection>(&config_.store.section))
      tls = &keeper->tls;
    if (tls == nullptr) return;
    const auto section = section_name(config_.store.section);
    check_readable(section + ".cacert", tls->ca_file);
    check_readable(section + ".cert", tls->cert_file);
    check_readable(section + ".key", tls->key_file);
  }

  // ---- ports ----
  void check_ports() {
    check_port("restapi.listen", config_.restapi.listen.host, config_.restapi.listen.port);
    if (server_runs()) return;  // our own server holds its port
    for (const auto& host : split_list(config_.postgresql.listen))
      check_port("postgresql.listen", host, config_.postgresql.port);
  }

  bool server_runs() const {
    std::ifstream file(fs::path(config_.postgresql.data_dir) / "postmaster.pid");
    int pid = 0;
    return file >> pid && pid > 0 && (::kill(pid, 0) == 0 || errno == EPERM);
  }

  void check_port(const std::string& path, const std::string& host, int port) {
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_PASSIVE;
    addrinfo* found = nullptr;
    const bool wildcard = is_wildcard(host);
    const auto failure =
        ::getaddrinfo(wildcard && (host.empty() || host == "*") ? nullptr : host.c_str(),
                      std::to_string(port).c_str(),
                      &hints,
                      &found);
    if (failure != 0)
      return report_.error(
          path, fmt::format("the name {} has no address here: {}", host, ::gai_strerror(failure)));
    const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> addresses(found, &::freeaddrinfo);
    for (const auto* each = addresses.get(); each != nullptr; each = each->ai_next) {
      const int problem = try_bind(*each);
      if (problem == EADDRINUSE)
        return report_.error(path,
                             fmt::format("port {} on {} is taken by another program; end that "
                                         "program or set another port",
                                         port,
                                         wildcard ? "this machine" : host));
      if (problem == EADDRNOTAVAIL)
        return report_.error(path, fmt::format("{} is no address of this machine", host));
      if (problem == EACCES)
        return report_.error(
            path, fmt::format("port {} may not be used by this user; take one above 1023", port));
    }
  }

  static int try_bind(const addrinfo& address) {
    const int fd = ::socket(address.ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return 0;  // this kernel has no such protocol: nobody can be on that port
    const int on = 1;
    ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (address.ai_family == AF_INET6) ::setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    // Without listening nobody connects to us; bind alone tells whether somebody else listens.
    const int problem = ::bind(fd, address.ai_addr, address.ai_addrlen) == 0 ? 0 : errno;
    ::close(fd);
    return problem;
  }

  const Config& config_;
  const ValidateOptions& options_;
  Reporter report_;
};

}  // namespace

std::vector<Problem> validate(const Config& config, const ValidateOptions& options) {
  return Machine(config, options).check();
}

}  // namespace spilo::config
