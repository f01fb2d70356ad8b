#include "spilo/pg/rejoin.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <limits>

namespace spilo::pg {
namespace {

constexpr Lsn no_end{std::numeric_limits<std::uint64_t>::max()};

struct Span {  // one timeline of a history: where it began and ended
  TimelineId timeline{};
  Lsn begin{};
  Lsn end{};
};

std::vector<Span> spans(TimelineId current, const std::vector<TimelineEnd>& history) {
  std::vector<Span> out;
  Lsn begin{};
  for (const auto& entry : history) {
    out.push_back(Span{entry.timeline, begin, entry.end});
    begin = entry.end;
  }
  out.push_back(Span{current, begin, no_end});
  return out;
}

RejoinDecision repair(const RejoinFacts& facts, std::string why) {
  if (facts.rewind_possible) return {RejoinStep::rewind, std::move(why)};
  if (facts.copy_allowed)
    return {RejoinStep::full_copy, why + "; pg_rewind can't be used here, so everything is copied"};
  return {RejoinStep::refuse,
          why +
              "; pg_rewind can't be used and remove_data_directory_on_diverged_timelines is off: "
              "reinitialize this member"};
}

std::string describe(TimelineId timeline, Lsn lsn) {
  return fmt::format("timeline {} at {}", to_int(timeline), to_text(lsn));
}

struct LocalEnd {
  TimelineId timeline{};
  Lsn end{};
  bool as_primary = false;
  bool known = true;
};

LocalEnd local_end(const RejoinFacts& facts) {
  const auto& local = facts.local;
  LocalEnd out;
  out.timeline = local.timeline;
  if (local.shut_down()) {
    out.end = checkpoint_record_end(local);
    out.as_primary = true;
  } else if (local.was_in_recovery()) {
    // Before the first restart point there is no minimum recovery point.
    const bool has_minimum = local.min_recovery_point != Lsn{};
    out.end = has_minimum ? local.min_recovery_point : local.checkpoint;
    if (has_minimum && local.min_recovery_timeline != TimelineId{})
      out.timeline = local.min_recovery_timeline;
  } else {
    out.as_primary = true;
    out.known = facts.local_wal_end.has_value();
    out.end = facts.local_wal_end.value_or(Lsn{});
  }
  return out;
}

// Same timeline, same history.
RejoinDecision decide_same_timeline(const RejoinFacts& facts, const LocalEnd& end) {
  if (end.known && !facts.upstream_in_recovery && facts.upstream_flush != Lsn{} &&
      end.end > facts.upstream_flush) {
    auto why =
        fmt::format("this node has WAL up to {}, the upstream only up to {} of the same timeline",
                    to_text(end.end),
                    to_text(facts.upstream_flush));
    if (facts.copy_allowed) return {RejoinStep::full_copy, std::move(why)};
    return {RejoinStep::refuse, why + ": reinitialize this member"};
  }
  return {RejoinStep::follow,
          fmt::format("same timeline {} as the upstream", to_int(end.timeline))};
}

}  // namespace

std::string_view to_text(RejoinStep step) noexcept {
  switch (step) {
    case RejoinStep::follow:
      return "follow";
    case RejoinStep::recover_first:
      return "recover first";
    case RejoinStep::rewind:
      return "rewind";
    case RejoinStep::full_copy:
      return "full copy";
    case RejoinStep::refuse:
      return "refuse";
  }
  return "?";
}

std::vector<TimelineEnd> parse_timeline_history(std::string_view text) {
  std::vector<TimelineEnd> out;
  for (const auto& line : parse_history_lines(text))
    out.push_back(TimelineEnd{line.timeline, line.switch_lsn});
  return out;
}

std::vector<HistoryLine> parse_history_lines(std::string_view text) {
  std::vector<HistoryLine> out;
  while (!text.empty()) {
    const auto end = text.find('\n');
    auto line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    const auto begin = line.find_first_not_of(" \t");
    if (begin == std::string_view::npos || line[begin] == '#') continue;
    line.remove_prefix(begin);
    std::uint32_t timeline = 0;
    const auto number = std::from_chars(line.data(), line.data() + line.size(), timeline);
    if (number.ec != std::errc{}) continue;
    line.remove_prefix(static_cast<std::size_t>(number.ptr - line.data()));
    const auto word = line.find_first_not_of(" \t");
    if (word == std::string_view::npos) continue;
    line.remove_prefix(word);
    const auto space = line.find_first_of(" \t\r");
    const auto lsn = parse_lsn(line.substr(0, space));
    if (!lsn) continue;
    HistoryLine entry;
    entry.timeline = TimelineId{timeline};
    entry.switch_lsn = *lsn;
    line.remove_prefix(std::min(space, line.size()));
    const auto reason = line.find_first_not_of(" \t\r");
    if (reason != std::string_view::npos) {
      line.remove_prefix(reason);
      entry.reason = line.substr(0, line.find_last_not_of(" \t\r") + 1);
    }
    out.push_back(std::move(entry));
  }
  return out;
}

std::optional<Divergence> find_divergence(TimelineId local,
                                          const std::vector<TimelineEnd>& local_history,
                                          TimelineId upstream,
                                          const std::vector<TimelineEnd>& upstream_history) {
  const auto ours = spans(local, local_history);
  const auto theirs = spans(upstream, upstream_history);
  // A replica that was copied on a later timeline may lack the history file of its own: then only
  // the number can be compared.
  const bool ours_unknown = local_history.empty() && to_int(local) > 1;
  const bool theirs_unknown = upstream_history.empty() && to_int(upstream) > 1;
  if (ours_unknown || theirs_unknown) {
    for (const auto& mine : ours)
      for (const auto& other : theirs)
        if (mine.timeline == other.timeline && (mine.timeline == local || theirs_unknown))
          return Divergence{mine.timeline, std::min(mine.end, other.end)};
    return std::nullopt;
  }
  std::optional<Divergence> found;
  for (std::size_t i = 0; i < std::min(ours.size(), theirs.size()); ++i) {
    if (ours[i].timeline != theirs[i].timeline || ours[i].begin != theirs[i].begin) break;
    found = Divergence{ours[i].timeline, std::min(ours[i].end, theirs[i].end)};
  }
  return found;
}

RejoinDecision decide_rejoin(const RejoinFacts& facts) {
  if (facts.full_copy_wanted) return {RejoinStep::full_copy, "a full copy was asked for"};
  if (facts.local.system_id != facts.upstream_system_id)
    return {RejoinStep::refuse,
            fmt::format("the data directory belongs to another cluster: its system identifier is "
                        "{}, the upstream's is {}; check scope and data_dir, or reinitialize",
                        facts.local.system_id.str(),
                        facts.upstream_system_id.str())};
  if (facts.unfinished_rewind)
    return {RejoinStep::full_copy,
            "an earlier pg_rewind was interrupted, so the files can't be trusted"};
  const auto end = local_end(facts);
  const auto parted = find_divergence(
      end.timeline, facts.local_history, facts.upstream_timeline, facts.upstream_history);
  if (!parted)
    return repair(facts,
                  fmt::format("no common timeline: here {}, the upstream is on timeline {}",
                              to_int(end.timeline),
                              to_int(facts.upstream_timeline)));
  if (parted->at == no_end) return decide_same_timeline(facts, end);
  if (!end.known)
    return {RejoinStep::recover_first,
            "it crashed as a primary, so where its WAL ends is not known"};
  const auto where = fmt::format("here {}, the upstream left at {}",
                                 describe(end.timeline, end.end),
                                 describe(parted->timeline, parted->at));
  const bool common_timeline = parted->timeline == end.timeline;
  // A former primary's last record is the checkpoint of its shutdown. Only when the new timeline
  // begins right behind it did the new primary have it.
  const bool clean_primary = end.as_primary && facts.local.shut_down();
  const bool fits =
      common_timeline && (clean_primary ? end.end == parted->at : end.end <= parted->at);
  if (fits) return {RejoinStep::follow, where};
  auto decision = repair(facts, "the timelines diverged: " + where);
  if (decision.step == RejoinStep::rewind && !facts.local.clean() && end.as_primary)
    decision.step = RejoinStep::recover_first;
  return decision;
}

}  // namespace spilo::pg
