// What the tests of the real spiloctl need: a store file with a cluster in it, members whose REST
// interface answers what a test says, and a way to run the program.
#pragma once

#include <doctest/doctest.h>
#include <poll.h>

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "spilo/runtime/system_clock.hpp"
#include "spilo/sqlite/sqlite_store.hpp"
#include "support/process.hpp"
#include "support/run.hpp"

namespace spilo::test {

struct Ran {
  int code = -1;  // exit code; -1: it did not end by itself
  std::string out;
  std::string err;
};

// A program on its way; standard input is a text.
class Running {
 public:
  Running(const TempDir& directory,
          const std::vector<std::string>& command,
          const std::string& input,
          const std::vector<std::string>& environment) {
    static int count = 0;
    const std::string base = directory / ("run-" + std::to_string(++count));
    out_ = base + ".out";
    err_ = base + ".err";
    std::ofstream(base + ".in") << input;
    std::string script = "exec env -u PATRONICTL_CONFIG_FILE -u SPILOCTL_CONFIG_FILE HOME=/nowhere";
    for (const auto& variable : environment) script += " '" + variable + "'";
    script += " \"$@\" <'" + base + ".in' >'" + out_ + "' 2>'" + err_ + "'";
    std::vector<std::string> shell = {"sh", "-c", script, "sh"};
    shell.insert(shell.end(), command.begin(), command.end());
    process_ = std::make_unique<Process>(shell, base + ".log");
  }
  Ran wait(std::chrono::seconds limit = std::chrono::seconds(30)) {
    Ran ran;
    const bool ended = process_->wait(limit);
    if (ended && WIFEXITED(process_->status())) ran.code = WEXITSTATUS(process_->status());
    ran.out = text(out_);
    ran.err = text(err_);
    return ran;
  }
  std::string output() const { return text(out_); }
  void signal(int number) const { process_->signal(number); }

 private:
  static std::string text(const std::string& file) {
    std::ifstream in(file);
    return std::string(std::istreambuf_iterator<char>(in), {});
  }
  std::string out_;
  std::string err_;
  std::unique_ptr<Process> process_;
};

// A REST interface that answers what `handler` says; one request per connection, as Patroni's.
class StubApi {
 public:
  struct Request {
    std::string method, path, head, body;
  };
  using Handler = std::function<std::pair<int, std::string>(const Request&)>;

  explicit StubApi(Handler handler) : handler_(std::move(handler)) {
    listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    REQUIRE(::bind(listener_, reinterpret_cast<sockaddr*>(&address), size) == 0);
    REQUIRE(::listen(listener_, 16) == 0);
    REQUIRE(::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) == 0);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { serve(); });
  }
  ~StubApi() {
    stop_ = true;
    thread_.join();
    ::close(listener_);
  }
  StubApi(const StubApi&) = delete;
  StubApi& operator=(const StubApi&) = delete;
  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }
  std::vector<Request> requests() {
    const std::lock_guard lock(mutex_);
    return requests_;
  }

 private:
  void serve() {
    while (!stop_) {
      pollfd waiting{listener_, POLLIN, 0};
      if (::poll(&waiting, 1, 20) <= 0) continue;
      const int client = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      if (client < 0) continue;
      answer(client);
      ::close(client);
    }
  }
  void answer(int client) {
    std::string text;
    std::size_t head_end = std::string::npos;
    std::size_t wanted = 0;
    char block[4096];
    while (head_end == text.npos || text.size() < head_end + 4 + wanted) {
      pollfd waiting{client, POLLIN, 0};
      if (stop_ || ::poll(&waiting, 1, 5000) <= 0) return;
      const auto got = ::read(client, block, sizeof block);
      if (got <= 0) return;
      text.append(block, static_cast<std::size_t>(got));
      head_end = text.find("\r\n\r\n");
      if (head_end == text.npos) continue;
      const auto length = text.find("Content-Length: ");
      if (length < head_end) wanted = std::stoul(text.substr(length + 16));
    }
    Request request;
    request.method = text.substr(0, text.find(' '));
    const auto path = request.method.size() + 1;
    request.path = text.substr(path, text.find(' ', path) - path);
    request.head = text.substr(0, head_end);
    request.body = text.substr(head_end + 4);
    {
      const std::lock_guard lock(mutex_);
      requests_.push_back(request);
    }
    const auto [status, body] = handler_(request);
    if (status == 0) return;  // cut off
    const std::string reply = "HTTP/1.1 " + std::to_string(status) +
                              " X\r\nConnection: close\r\nContent-Length: " +
                              std::to_string(body.size()) + "\r\n\r\n" + body;
    [[maybe_unused]] const auto sent = ::send(client, reply.data(), reply.size(), MSG_NOSIGNAL);
  }

  Handler handler_;
  int listener_ = -1;
  std::uint16_t port_ = 0;
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::vector<Request> requests_;
  std::thread thread_;
};

// A cluster "demo" in a store file, and a configuration that names both.
class CliWorld {
 public:
  CliWorld() : clock_(io_.get_executor()) {
    sqlite::Options options;
    options.file = directory / "store.db";
    options.scope = Scope("demo");
    store_ = std::make_unique<sqlite::SqliteStore>(io_.get_executor(), clock_, options);
    std::ofstream(config()) << "scope: demo\nsqlite:\n  path: " << directory / "store.db"
                            << "\nctl:\n  authentication:\n    username: admin\n"
                               "    password: secret\n";
    put("nothing", "");  // the file exists from now on
  }
  std::string config() const { return directory / "spiloctl.yml"; }

  void put(const std::string& key, const std::string& value) {
    dcs::Transaction transaction;
    transaction.put(key, value);
    const auto done = run(io_, store_->commit(transaction, clock_.now() + std::chrono::seconds(5)));
    REQUIRE_MESSAGE(done.has_value(), done.error().text());
  }
  std::optional<std::string> get(const std::string& key) {
    const auto all = run(io_, store_->read(dcs::Freshness::linearizable,
                                           clock_.now() + std::chrono::seconds(5)));
    REQUIRE_MESSAGE(all.has_value(), all.error().text());
    const auto* entry = all->find(key);
    return entry ? std::optional(entry->value) : std::nullopt;
  }
  void put_member(const std::string& name, const std::string& api, const std::string& more = "") {
    put("members/" + name, R"({"conn_url":"postgres://127.0.0.1:5432/postgres","api_url":")" + api +
                               R"(/patroni","state":"running","role":")" +
                               (name == "n1" ? "primary" : "replica") +
                               R"(","version":"4.1.4","timeline":2)" + more + "}");
  }
  // Three members, n1 leads; nobody listens on the addresses that are not given.
  void put_cluster(const std::string& api1 = "http://127.0.0.1:1",
                   const std::string& api2 = "http://127.0.0.1:1",
                   const std::string& api3 = "http://127.0.0.1:1") {
    put("initialize", "7301234567890123456");
    put("config", R"({"ttl":10,"loop_wait":2,"retry_timeout":4})");
    put("leader", "n1");
    put("status", R"({"optime":100000000})");
    put("history", R"([[1,25623960,"no recovery target specified",)"
                   R"("2026-01-02T03:04:05.678901+00:00","n1"]])");
    put_member("n1", api1, R"(,"xlog_location":100000000)");
    put_member("n2", api2, R"(,"receive_lsn":100000000,"replay_lsn":100000000,)"
                           R"("replication_state":"streaming","tags":{"replicatefrom":"n3"})");
    put_member("n3", api3, R"(,"receive_lsn":100000000,"replay_lsn":98951424,)"
                           R"("replication_state":"streaming")");
  }

  Running start(std::vector<std::string> arguments,
                const std::string& input = {},
                const std::vector<std::string>& environment = {}) {
    arguments.insert(arguments.begin(), {SPILOCTL_PROGRAM, "-c", config()});
    return Running(directory, arguments, input, environment);
  }
  Ran ctl(const std::vector<std::string>& arguments,
          const std::string& input = {},
          const std::vector<std::string>& environment = {}) {
    return start(arguments, input, environment).wait();
  }
  // Without the configuration.
  Ran bare(std::vector<std::string> arguments, const std::vector<std::string>& environment = {}) {
    arguments.insert(arguments.begin(), SPILOCTL_PROGRAM);
    return Running(directory, arguments, "", environment).wait();
  }

  TempDir directory;

 private:
  boost::asio::io_context io_{1};
  SystemClock clock_;
  std::unique_ptr<sqlite::SqliteStore> store_;
};

inline bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace spilo::test
