// Where log lines go: standard error, or files that are rotated by size (patroni-contract 10.2).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "spilo/config/config.hpp"
#include "spilo/core/log.hpp"

namespace spilo {

// "2026-01-02 03:04:05,678 INFO: message" in local time, or JSON with the same fields. A copy of
// the logger keeps what it writes to alive. One strand of execution.
//
// `label` tells several clusters in one process apart: it is put before each message; empty: no
// label. A log file that can't be opened or written is told on standard error once, and the lines
// go there.
Logger make_logger(const config::LogOptions& options, std::string label = {});

// One line as it would be written, for tests: `at` in milliseconds since 1970.
std::string format_log_line(const config::LogOptions& options,
                            LogLevel level,
                            std::string_view message,
                            std::int64_t at);

}  // namespace spilo
