// spilod: keeps the PostgreSQL server of this node in its cluster.
//
//   spilod node.yml            one member of one cluster
//   spilod a.yml b.yml         members of two clusters in one process, in one thread
//   spilod /etc/spilo/node.d   a directory: its *.yml files are merged in the order of their names
//
// SIGTERM and SIGINT stop in order (leadership is handed over, PostgreSQL stopped), SIGHUP reads
// the files again. Exit status 0, 1 with the reason in the log, or 2 for wrong arguments.
#include <CLI/CLI.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <cstdio>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "init.hpp"
#include "memory.hpp"
#include "spilo/config/load.hpp"
#include "spilo/config/yaml.hpp"
#include "spilo/node/log_sink.hpp"
#include "spilo/node/node.hpp"
#include "spilo/node/systemd.hpp"
#include "spilo/runtime/system_clock.hpp"

extern char** environ;

namespace {

using namespace spilo;

struct Arguments {
  std::vector<std::string> files;
  bool validate = false;
  bool ignore_listen_port = false;
  bool print = false;
};

// Captured once and taken out of the process: programs that we start do not see our secrets.
config::Environment capture_environment() {
  config::Environment out;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text(*entry);
    if (const auto at = text.find('='); at != std::string::npos)
      out.emplace(text.substr(0, at), text.substr(at + 1));
  }
  for (const auto& [name, value] : out)
    if (name.starts_with("PATRONI_") ||
        (name.starts_with("SPILO_") && name != "SPILO_GUARD_PATH") || name == "NOTIFY_SOCKET")
      ::unsetenv(name.c_str());
  return out;
}

void print_problems(const std::vector<config::Problem>& problems) {
  for (const auto& problem : problems) std::fprintf(stderr, "%s\n", to_text(problem).c_str());
}

bool has_errors(const std::vector<config::Problem>& problems) {
  for (const auto& problem : problems)
    if (problem.severity == config::Problem::Severity::error) return true;
  return false;
}

// Each file or directory is one cluster; without any, the environment is.
std::vector<std::vector<std::string>> clusters_of(const Arguments& arguments) {
  std::vector<std::vector<std::string>> out;
  for (const auto& file : arguments.files) out.push_back({file});
  if (out.empty()) out.emplace_back();
  return out;
}

int validate(const Arguments& arguments, const config::Environment& environment) {
  bool good = true;
  for (const auto& paths : clusters_of(arguments)) {
    const auto loaded = config::load(paths, environment);
    auto problems = loaded.problems;
    if (loaded.config) {
      config::ValidateOptions options;
      options.ignore_listen_ports = arguments.ignore_listen_port;
      if (const auto path = environment.find("PATH"); path != environment.end())
        options.search_path = path->second;
      for (auto& problem : config::validate(*loaded.config, options)) problems.push_back(problem);
      if (arguments.print)
        std::printf("%s",
                    config::dump_yaml(loaded.config->document, config::KeyOrder::as_is).c_str());
    }
    print_problems(problems);
    good = good && loaded.config && !has_errors(problems);
  }
  return good ? 0 : 1;
}

// All nodes of the process.
class Daemon {
 public:
  Daemon(const Arguments& arguments, config::Environment environment)
      : clusters_(clusters_of(arguments)),
        environment_(std::move(environment)),
        notifier_(environment_.contains("NOTIFY_SOCKET") ? environment_.at("NOTIFY_SOCKET") : "") {}

  int run() {
    if (!make_nodes()) return 1;
    signals_.add(SIGTERM);
    signals_.add(SIGINT);
    signals_.add(SIGHUP);
    wait_for_signal();
    running_ = nodes_.size();
    for (const auto& node : nodes_) {
      node->on_ready([this] {
        if (++ready_ == nodes_.size()) started();
      });
      node->on_reload_asked([this] { reload(); });
      boost::asio::co_spawn(
          io_, node->run(), [this](std::exception_ptr failure, Result<int> status) {
            if (failure) std::rethrow_exception(failure);
            ended(status.has_value() ? *status : 1);
          });
    }
    io_.run();
    return status_;
  }

 private:
  bool make_nodes() {
    bool good = true;
    for (const auto& paths : clusters_) {
      auto loaded = config::load(paths, environment_);
      print_problems(loaded.problems);
      good = good && loaded.config;
      if (!loaded.config) continue;
      auto logger = make_logger(loaded.config->log,
                                clusters_.size() > 1 ? loaded.config->identity.scope.str() : "");
      nodes_.push_back(std::make_unique<Node>(
          io_.get_executor(), clock_, std::move(*loaded.config), std::move(logger)));
    }
    return good;
  }

  void started() {
    notifier_.ready();
    // By then PostgreSQL runs or is being copied, and everything has been used once.
    trim_.expires_after(std::chrono::seconds(30));
    trim_.async_wait([](boost::system::error_code ec) {
      if (!ec) give_back_startup_memory();
    });
  }

  void wait_for_signal() {
    signals_.async_wait([this](boost::system::error_code ec, int signal) {
      if (ec) return;
      if (signal == SIGHUP)
        reload();
      else
        stop();
      wait_for_signal();
    });
  }

  void stop() {
    notifier_.stopping();
    for (const auto& node : nodes_) node->stop();
  }

  void reload() {
    notifier_.reloading();
    for (std::size_t n = 0; n < nodes_.size(); ++n) {
      auto loaded = config::load(clusters_[n], environment_);
      print_problems(loaded.problems);
      if (loaded.config) nodes_[n]->apply(std::move(*loaded.config));
    }
    notifier_.ready();
  }

  // One node that can't go on does not end the others.
  void ended(int status) {
    if (status != 0) status_ = status;
    if (--running_ > 0) return;
    signals_.cancel();
    trim_.cancel();
  }

  std::vector<std::vector<std::string>> clusters_;
  config::Environment environment_;
  SystemdNotifier notifier_;
  // The nodes are destroyed before what they run on.
  boost::asio::io_context io_{1};
  SystemClock clock_{io_.get_executor()};
  boost::asio::signal_set signals_{io_};
  boost::asio::steady_timer trim_{io_};
  std::vector<std::unique_ptr<Node>> nodes_;
  std::size_t running_ = 0;
  std::size_t ready_ = 0;
  int status_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Keeps the PostgreSQL server of this node in its highly available cluster.",
               "spilod");
  app.set_version_flag("--version", "spilod " SPILO_VERSION " (speaks Patroni 4.1.4)");
  Arguments arguments;
  app.add_option(
      "configuration",
      arguments.files,
      "YAML files or directories, one for each cluster; without any, PATRONI_* variables");
  auto* check = app.add_flag("--validate-config",
                             arguments.validate,
                             "Report all problems and exit: 0 without any, else 1");
  app.add_flag("-i,--ignore-listen-port",
               arguments.ignore_listen_port,
               "Do not mind ports that are in use")
      ->needs(check);
  app.add_flag("-p,--print", arguments.print, "Print the merged configuration, secrets included")
      ->needs(check);
  app.footer(
      "Run it as the user that owns the data directory, never as root. Patroni's YAML works as it is.\n\n"
      "Examples:\n"
      "  spilod node1.yml                    one node\n"
      "  spilod sales.yml stock.yml          two clusters in one process\n"
      "  spilod --validate-config node1.yml  all that is wrong with a file, at once\n\n"
      "Signals:\n"
      "  TERM, INT  hand the lock over, stop PostgreSQL in order, end (while paused: leave all as it is)\n"
      "  HUP        read the files again and apply what can change while running\n"
      "  KILL       PostgreSQL goes on until its lease is over; an agent that is back before adopts it\n\n"
      "Exit codes:\n"
      "  0  told to stop\n"
      "  1  it can't run here, and says why: configuration, a name that is taken, another cluster's data\n"
      "  2  wrong arguments");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  if (!arguments.validate) spilod::become_init_if_first();
  ::signal(SIGPIPE, SIG_IGN);
  auto environment = capture_environment();
  if (arguments.validate) return validate(arguments, environment);
  return Daemon(arguments, std::move(environment)).run();
}
