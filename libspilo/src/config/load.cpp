#include "spilo/config/load.hpp"

#include <fmt/format.h>

#include "readers.hpp"
#include "schema.hpp"
#include "sources.hpp"

namespace spilo::config {
namespace {

// Two servers of one node on one port: each would take it from the other.
void check_ports(const Config& config, Reporter& report) {
  if (config.restapi.listen.port != 0 && config.restapi.listen.port == config.postgresql.port)
    report.error("restapi.listen",
                 fmt::format("must not use port {}, which postgresql.listen uses; give it another",
                             config.postgresql.port));
}

}  // namespace

Loaded load(const std::vector<std::string>& paths, const Environment& environment) {
  Reporter report;
  Config config;
  config.document = gather(paths, environment, Purpose::node, report);
  // An unreadable file would only be followed by complaints about everything it should have said.
  const bool empty = config.document.as_object()->empty();
  if (empty && !report.failed())
    report.error("",
                 paths.empty() ? "there is no configuration: name a file, or set SPILO_SCOPE, "
                                 "SPILO_NAME and so on"
                               : "the configuration is empty");
  if (!empty) {
    check_schema(config.document, report);
    config.store = read_store(config.document, true, report);
    config.restapi = read_rest(config.document, report);
    config.postgresql = read_postgresql(config.document, report);
    config.identity = read_identity(config.document, config.postgresql, config.restapi, report);
    config.guard = Section(config.document, "").flag("guard", true);
    config.watchdog = read_watchdog(config.document, report);
    config.log = read_log(config.document, report);
    config.ctl = read_ctl(config.document);
    check_ports(config, report);
  }
  Loaded out;
  if (!report.failed()) out.config = std::move(config);
  out.problems = report.take();
  return out;
}

LoadedCtl load_ctl(const std::vector<std::string>& paths, const Environment& environment) {
  Reporter report;
  const auto document = gather(paths, environment, Purpose::ctl, report);
  CtlConfig config;
  if (!report.failed()) {
    config.store = read_store(document, false, report);
    config.ctl = read_ctl(document);
  }
  LoadedCtl out;
  if (!report.failed()) out.config = std::move(config);
  out.problems = report.take();
  return out;
}

}  // namespace spilo::config
