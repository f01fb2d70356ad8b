#include "cli/command_line.hpp"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <functional>
#include <memory>

#include "cli/commands/commands.hpp"

namespace spilo::cli {
namespace {

constexpr const char* exit_codes = R"(Exit codes:
  0  done, or nothing was to be done
  1  an error, or a precondition does not hold: nothing was done
  2  wrong arguments
  3  the cluster refused: nothing was done
  4  it began and failed
  5  the outcome is unknown or not reached in time: look at `list` and `why` before trying again
With --compat, or called as patronictl: 0 also when the cluster refused, as Patroni's tool does.)";

constexpr const char* about = R"(spiloctl shows and operates PostgreSQL clusters of libspilo and Patroni.

It reads the same YAML file as a node does (only the store, `scope`, `namespace`, `ctl` and the
credentials of `restapi` count), from -c, $SPILOCTL_CONFIG_FILE, $PATRONICTL_CONFIG_FILE,
~/.config/spilo/spiloctl.yaml or ~/.config/patroni/patronictl.yaml. CLUSTER may be left out when the
file has a `scope`.)";

constexpr const char* first_steps = R"~(Examples:
  spiloctl -c node1.yml list                      the cluster of that node
  spiloctl -d etcd3://10.0.0.1:2379 list demo     without a file
  spiloctl --node http://10.0.0.5:8008 list       through one node's REST interface
  spiloctl switchover --candidate node2 --force   planned, loses nothing
  spiloctl failover --candidate node2             when there is no leader to hand over
  spiloctl why --since 10min                      what the nodes decided, and why
  eval "$(spiloctl completion bash)"              completion in this shell
`spiloctl VERB --help` explains a verb.

)~";

struct Line {  // the command line as it is being read
  GlobalOptions global;
  VerbOptions verb;
  std::string format;
  std::function<Exit(App&)> chosen;
};

class Builder {
 public:
  Builder(CLI::App& root, Line& line) : root_(root), line_(line) {}

  CLI::App& verb(const char* name, const char* text, const char* examples,
                 std::function<Exit(App&, const VerbOptions&)> function) {
    auto* sub = root_.add_subcommand(name, text);
    sub->fallthrough();
    sub->footer(std::string("Examples:\n") + examples + "\n" + exit_codes);
    sub->callback([this, function = std::move(function)] {
      line_.chosen = [this, function](App& app) { return function(app, line_.verb); };
    });
    return *sub;
  }
  void words(CLI::App& sub, const char* text, const char* shape) {
    sub.add_option("words", line_.verb.words, text)->type_name("")->option_text(shape);
  }
  void cluster(CLI::App& sub) { words(sub, "the cluster; without it, `scope` counts", "[CLUSTER]"); }
  void members(CLI::App& sub) {
    words(sub, "the cluster, then its members; without members, all of them",
          "[CLUSTER [MEMBER...]]");
  }
  void format(CLI::App& sub, const char* choices) {
    sub.add_option("-f,--format,-o,--output", line_.format, choices)->type_name("FORMAT");
  }
  void role(CLI::App& sub) {
    sub.add_option("-r,--role", line_.verb.role,
                   "only members of that role: leader, primary, standby-leader, replica, standby, "
                   "any")
        ->type_name("ROLE");
  }
  void force(CLI::App& sub) {
    sub.add_flag("--force", line_.verb.force, "ask nothing");
  }
  void watch(CLI::App& sub) {
    sub.add_flag("-W", line_.verb.watch, "show again whenever something changes");
    sub.add_option_function<double>(
           "-w,--watch",
           [this](double seconds) {
             line_.verb.watch = true;
             line_.verb.watch_s = seconds;
           },
           "the same, and at least every SEC seconds")
        ->check(CLI::PositiveNumber)
        ->type_name("SEC");
  }
  void timeout(CLI::App& sub, const char* text) {
    sub.add_option("--timeout", line_.verb.timeout_s, text)
        ->check(CLI::PositiveNumber)
        ->type_name("SEC");
  }
  void no_wait(CLI::App& sub) {
    sub.add_flag("--no-wait", line_.verb.no_wait, "return as soon as the request is accepted");
  }
  Line& line() noexcept { return line_; }

 private:
  CLI::App& root_;
  Line& line_;
};

void add_views(Builder& make) {
  auto& v = make.line().verb;
  auto& list_verb = make.verb("list", "Show the members of clusters",
                              "  spiloctl list\n  spiloctl list -W\n  spiloctl list -f json demo\n",
                              list);
  make.words(list_verb, "one or more clusters; without any, `scope` counts", "[CLUSTER...]");
  list_verb.add_flag("-e,--extended", v.extended, "all columns, also empty ones");
  list_verb.add_flag("-t,--timestamp", v.timestamp, "say when");
  make.format(list_verb, "pretty (the default), tsv, json or yaml");
  make.watch(list_verb);

  auto& tree = make.verb("topology", "Show who follows whom", "  spiloctl topology\n",
                         topology);
  make.words(tree, "one or more clusters; without any, `scope` counts", "[CLUSTER...]");
  make.watch(tree);

  auto& past = make.verb("history", "Show the timelines and who began them",
                         "  spiloctl history\n  spiloctl history -f json\n", history);
  make.cluster(past);
  make.format(past, "pretty (the default), tsv, json or yaml");

  auto& reasons = make.verb(
      "why", "Show what the nodes decided, and why; the newest last",
      "  spiloctl why\n  spiloctl why --since 10min\n  spiloctl why -e demo node1\n", why);
  make.members(reasons);
  reasons.add_option("--since", v.since, "back from now (30min, 2h), or a point of time")
      ->type_name("WHEN");
  reasons.add_option("-n,--lines", v.lines, "only the newest N decisions")
      ->check(CLI::PositiveNumber)
      ->type_name("N");
  reasons.add_flag("-e,--extended", v.extended, "with the event and the facts of each decision");
  make.format(reasons, "pretty (the default), json or yaml");

  auto& versions = make.verb("version", "Show the versions of this program and of the members",
                             "  spiloctl version\n  spiloctl version demo\n", version);
  make.members(versions);

  auto& where = make.verb("dsn", "Print host and port of a member, for libpq",
                          "  psql \"$(spiloctl dsn) user=app dbname=app\"\n"
                          "  spiloctl dsn -r replica\n",
                          dsn);
  make.cluster(where);
  make.role(where);
  where.add_option("-m,--member", v.member, "this member")->type_name("MEMBER");

  auto& sentences = make.verb("rules", "List the rules that decisions name, in their order",
                              "  spiloctl rules\n", rules);
  make.format(sentences, "text (the default), pretty, tsv, json or yaml");
}

void add_handovers(Builder& make) {
  auto& v = make.line().verb;
  auto& planned = make.verb(
      "switchover", "Hand the primary's role to another member; loses nothing",
      "  spiloctl switchover\n"
      "  spiloctl switchover --candidate node2 --force\n"
      "  spiloctl switchover --scheduled 2026-05-06T03:00 --force\n",
      switchover);
  make.cluster(planned);
  planned.add_option("--leader,--primary", v.leader, "the present leader, to be sure")
      ->type_name("MEMBER");
  planned.add_option("--candidate", v.candidate, "the next leader; without it, the healthiest")
      ->type_name("MEMBER");
  planned.add_option("--scheduled", v.scheduled, "a point of time, or now")->type_name("WHEN");
  make.force(planned);
  make.no_wait(planned);
  make.timeout(planned, "how long to wait for the outcome");

  auto& forced = make.verb(
      "failover", "Promote a member when the leader is gone or does not react; may lose commits",
      "  spiloctl failover --candidate node2\n", failover);
  make.cluster(forced);
  forced.add_option("--candidate", v.candidate, "the next leader; required")->type_name("MEMBER");
  make.force(forced);
  make.no_wait(forced);
  make.timeout(forced, "how long to wait for the outcome");
}

void add_actions(Builder& make) {
  auto& v = make.line().verb;
  auto& again = make.verb("restart", "Restart PostgreSQL on members",
                          "  spiloctl restart demo node2\n"
                          "  spiloctl restart demo --pending --force\n"
                          "  spiloctl restart demo --role replica --scheduled 2026-05-06T03:00\n",
                          restart);
  make.members(again);
  make.role(again);
  again.add_flag("--any", v.any, "only one of them, taken by chance");
  again.add_option("--scheduled", v.scheduled, "a point of time, or now")->type_name("WHEN");
  again.add_option("--pg-version", v.pg_version, "only servers older than this")
      ->type_name("VERSION");
  again.add_flag("--pending", v.pending, "only members with a pending restart");
  again.add_option("--timeout", v.restart_timeout,
                   "how long a start may take before a primary is failed over")
      ->type_name("TIME");
  make.force(again);
  make.no_wait(again);

  auto& anew = make.verb("reinit", "Copy the data of replicas anew",
                         "  spiloctl reinit demo node3\n  spiloctl reinit demo node3 --force\n",
                         reinit);
  make.members(anew);
  make.force(anew);
  anew.add_flag("--from-leader", v.from_leader, "copy from the leader, not from a replica");
  anew.add_flag("--wait", v.wait, "wait for the copy (the default, unless --compat)");
  make.no_wait(anew);
  make.timeout(anew, "how long to wait for the copy (24 hours)");

  auto& files = make.verb("reload", "Read the local configuration files again",
                          "  spiloctl reload demo --force\n", reload);
  make.members(files);
  make.role(files);
  make.force(files);

  auto& discard = make.verb("flush", "Discard what is scheduled: restart or switchover",
                            "  spiloctl flush demo switchover\n"
                            "  spiloctl flush demo node2 restart --force\n",
                            flush);
  make.words(discard, "the cluster, members, and at the end what to discard",
             "[CLUSTER [MEMBER...]] restart|switchover");
  make.role(discard);
  make.force(discard);

  for (const bool on : {true, false}) {
    auto& sub = make.verb(
        on ? "pause" : "resume",
        on ? "Stop automatic failover (maintenance mode)" : "Leave maintenance mode",
        on ? "  spiloctl pause --wait\n" : "  spiloctl resume --wait\n", on ? pause : resume);
    make.cluster(sub);
    sub.add_flag("--wait", v.wait, "until all members have recognised it");
  }
  auto& forget = make.verb("remove", "Remove all that the store knows about a cluster",
                           "  spiloctl remove demo\n", remove);
  make.words(forget, "the cluster", "CLUSTER");
}

void add_config(Builder& make) {
  auto& v = make.line().verb;
  auto& shown = make.verb("show-config", "Show the cluster's configuration",
                          "  spiloctl show-config\n", show_config);
  make.cluster(shown);
  make.format(shown, "yaml (the default) or json");

  auto& edit = make.verb(
      "edit-config", "Change the cluster's configuration, checked before it is written",
      "  spiloctl edit-config                           in $EDITOR\n"
      "  spiloctl edit-config -s ttl=20 -s loop_wait=5 --force\n"
      "  spiloctl edit-config -p max_connections=200    a PostgreSQL parameter\n"
      "  spiloctl edit-config -s standby_cluster=null   remove a key\n"
      "  spiloctl edit-config --apply - --force < patch.yml\n",
      edit_config);
  make.cluster(edit);
  edit.add_flag("-q,--quiet", v.quiet, "don't show the difference");
  edit.add_option("-s,--set", v.set, "set a key; the value is YAML, null removes it")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  edit.add_option("-p,--pg", v.pg, "the same for a PostgreSQL parameter")
      ->type_name("NAME=VALUE")
      ->allow_extra_args(false);
  edit.add_option("--apply", v.apply_file, "merge this YAML file into it; - is standard input")
      ->type_name("FILE");
  edit.add_option("--replace", v.replace_file, "put this YAML file in its place")
      ->type_name("FILE");
  make.force(edit);

  auto& shell = make.verb("completion", "Print a completion script for the shell",
                          "  eval \"$(spiloctl completion bash)\"\n", completion);
  make.words(shell, "bash or zsh", "bash|zsh");
}

void add_global(CLI::App& root, GlobalOptions& global) {
  root.add_option("-c,--config-file", global.config_file, "the configuration")->type_name("FILE");
  root.add_option("-d,--dcs-url,--dcs", global.dcs_url,
                  "the store instead of the file's: etcd3://host:port/namespace or "
                  "sqlite:///path/to/file")
      ->type_name("URL");
  root.add_option("--node", global.node_url, "look through this node's REST interface")
      ->type_name("URL");
  root.add_flag("-k,--insecure", global.insecure, "don't verify the certificates of the nodes");
  root.add_flag("--compat", global.compat,
                "exit codes and texts of patronictl; also by SPILOCTL_COMPAT=1");
}

std::unique_ptr<CLI::App> make_parser(Line& line, std::unique_ptr<Builder>& builder) {
  auto root = std::make_unique<CLI::App>(about, line.global.program);
  root->require_subcommand(1);
  root->footer(std::string(first_steps) + exit_codes);
  root->set_version_flag("--version", line.global.program + " version " + SPILO_VERSION);
  add_global(*root, line.global);
  builder = std::make_unique<Builder>(*root, line);
  add_views(*builder);
  add_handovers(*builder);
  add_actions(*builder);
  add_config(*builder);
  return root;
}

std::vector<std::string> option_names(const CLI::App& app) {
  std::vector<std::string> out;
  for (const auto* option : app.get_options()) {
    for (const auto& name : option->get_snames()) out.push_back("-" + name);
    for (const auto& name : option->get_lnames()) out.push_back("--" + name);
  }
  return out;
}

bool is_set(const char* variable) {
  const char* value = std::getenv(variable);
  return value && *value && std::string_view(value) != "0";
}

Exit run_verb(Line& line, Terminal& terminal) {
  if (!line.format.empty()) {
    const auto format = parse_format(line.format);
    if (!format && line.format != "text")
      throw Stop(Exit::usage, fmt::format("There is no format '{}'. Formats are pretty, topology, "
                                          "tsv, json and yaml.",
                                          line.format));
    if (format) {
      line.verb.format = *format;
      line.verb.format_given = true;
    }
  }
  App app(line.global, terminal);
  return line.chosen(app);
}

}  // namespace

int run(const std::vector<std::string>& arguments, Terminal& terminal) {
  Line line;
  if (!arguments.empty()) {
    const auto slash = arguments[0].rfind('/');
    const auto name = arguments[0].substr(slash == std::string::npos ? 0 : slash + 1);
    if (name == "patronictl") line.global.program = name;
    line.global.compat = name == "patronictl" || is_set("SPILOCTL_COMPAT");
  }
  std::unique_ptr<Builder> builder;
  const auto parser = make_parser(line, builder);
  std::vector<std::string> reversed;
  for (std::size_t i = arguments.size(); i > 1; --i) reversed.push_back(arguments[i - 1]);
  try {
    parser->parse(reversed);
  } catch (const CLI::Success& wanted) {  // --help and --version
    const bool version = std::string_view(wanted.what()).starts_with(line.global.program);
    terminal.out(version ? std::string(wanted.what()) + "\n" : parser->help());
    return static_cast<int>(Exit::done);
  } catch (const CLI::ParseError& wrong) {
    terminal.err(fmt::format("Error: {}\n`{} --help` shows verbs, options and examples.\n",
                             wrong.what(), line.global.program));
    return static_cast<int>(Exit::usage);
  }
  try {
    return static_cast<int>(run_verb(line, terminal));
  } catch (const Stop& stop) {
    const bool aborted = stop.message().starts_with("Aborted!");
    terminal.err((aborted ? "" : "Error: ") + stop.message() + "\n");
    return static_cast<int>(stop.code());
  }
}

std::map<std::string, std::vector<std::string>> verbs_and_options() {
  Line line;
  std::unique_ptr<Builder> builder;
  const auto parser = make_parser(line, builder);
  std::map<std::string, std::vector<std::string>> out;
  for (const auto* sub : parser->get_subcommands([](const CLI::App*) { return true; }))
    out[sub->get_name()] = option_names(*sub);
  return out;
}

std::vector<std::string> global_option_names() {
  Line line;
  std::unique_ptr<Builder> builder;
  return option_names(*make_parser(line, builder));
}

}  // namespace spilo::cli
