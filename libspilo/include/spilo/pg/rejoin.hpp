// How a server that is down gets back into its cluster: a pure decision from what its control file
// and the upstream's timeline history say. The ladder: follow, pg_rewind, full copy.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "spilo/core/ids.hpp"
#include "spilo/model/cluster_view.hpp"
#include "spilo/pg/control_file.hpp"

namespace spilo::pg {

// One line of a timeline history file: that timeline ended at `end`, where the next one began.
struct TimelineEnd {
  TimelineId timeline{};
  Lsn end{};
  bool operator==(const TimelineEnd&) const = default;
};

// The content of a .history file; lines that can't be read are skipped.
std::vector<TimelineEnd> parse_timeline_history(std::string_view text);
// The same with the reasons, as the key `history` wants them; without times and names.
std::vector<HistoryLine> parse_history_lines(std::string_view text);

struct RejoinFacts {
  ControlData local;
  std::vector<TimelineEnd> local_history;  // of the local timeline; empty for timeline 1
  // After a crash as a primary: where the WAL on disk really ends, when that could be found out.
  std::optional<Lsn> local_wal_end;
  SystemId upstream_system_id;
  TimelineId upstream_timeline{};
  Lsn upstream_flush{};               // read after the local control file
  bool upstream_in_recovery = false;  // a cascading upstream may be behind us for a moment
  std::vector<TimelineEnd> upstream_history;
  bool rewind_possible = false;    // pg_rewind exists, is wanted, and the pages allow it
  bool copy_allowed = true;        // on diverged timelines
  bool unfinished_rewind = false;  // an earlier pg_rewind was interrupted: the files are mixed
  bool full_copy_wanted = false;   // an operator asked for it
};

enum class RejoinStep {
  follow,         // start as a replica, nothing to repair
  recover_first,  // it crashed as a primary: single-user recovery, then decide again
  rewind,
  full_copy,
  refuse,  // nothing that is allowed would help; `why` says what to do
};
std::string_view to_text(RejoinStep step) noexcept;

struct RejoinDecision {
  RejoinStep step = RejoinStep::refuse;
  std::string why;  // one sentence with the values it was decided on
};

// Where the two histories part: the last position that both have in common. Nothing when they have
// none; the maximum when one is the continuation of the other. `timeline` is the last common one.
struct Divergence {
  TimelineId timeline{};
  Lsn at{};
};
std::optional<Divergence> find_divergence(TimelineId local,
                                          const std::vector<TimelineEnd>& local_history,
                                          TimelineId upstream,
                                          const std::vector<TimelineEnd>& upstream_history);

RejoinDecision decide_rejoin(const RejoinFacts& facts);

}  // namespace spilo::pg
