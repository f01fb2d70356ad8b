// spilo-writer: what does a failover cost a client?
//
//   spilo-writer run --node "host=10.0.0.1 port=5432 user=app" --node "host=10.0.0.2 …" --file acks
//   spilo-writer report --file acks --node … [--since $(spilo-writer now)]
#include <CLI/CLI.hpp>
#include <cstdio>

#include "writer.hpp"

int main(int argc, char** argv) {
  CLI::App app(
      "Writes numbered rows through whichever node is the primary, and tells the write outage and "
      "the lost rows.");
  app.require_subcommand(1);

  writer::Options options;
  auto* run = app.add_subcommand("run", "Write until SIGTERM or SIGINT");
  run->add_option("--node", options.nodes, "Connection string of a node; one for each")->required();
  run->add_option("--file", options.file, "Where to note the acknowledged rows")->required();
  run->add_option("--pause-us", options.pause_us, "Pause between two rows")->capture_default_str();
  run->add_option("--timeout-ms", options.timeout_ms, "Drop a connection that does not answer")
      ->capture_default_str();
  run->add_option("--probe-us", options.probe_us, "How often to ask a node that takes no writes")
      ->capture_default_str();
  run->add_option("--seconds", options.seconds, "Stop by itself after so long");

  writer::ReportOptions wanted;
  auto* report = app.add_subcommand("report", "Tell outages, missing rows and double primaries");
  report->add_option("--file", wanted.file, "What `run` noted")
      ->required()
      ->check(CLI::ExistingFile);
  report->add_option(
      "--node", wanted.nodes, "Look for the rows there; the primary is found among several");
  report->add_option("--since", wanted.since_ns, "Only from that time on, as `now` prints it");
  report->add_option("--until", wanted.until_ns, "Only up to that time");
  report->add_option("--gap-ms", wanted.gap_ms, "List pauses of at least so long")
      ->capture_default_str();
  report->add_flag("--json", wanted.as_json, "For programs");

  auto* now = app.add_subcommand("now", "Print the time on the clock that `run` notes");

  CLI11_PARSE(app, argc, argv);
  if (now->parsed()) {
    std::printf("%lld\n", static_cast<long long>(writer::now_ns()));
    return 0;
  }
  return run->parsed() ? writer::run(options) : writer::report(wanted);
}
