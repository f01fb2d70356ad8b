#include "spilo/model/codec.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "fuzz/targets.hpp"
#include "spilo/core/json.hpp"

namespace spilo::fuzz {
namespace {

// What we write of what we have read is read as we meant it: written once more it is the same text.
template <class Value, class Parse, class Dump>
void round_trip(const Value& first, Parse parse, Dump dump, const char* what) {
  const auto text = dump(first);
  must(dump(parse(text)) == text, what);
}

// Equal but for doubles, which json::parse may read as a neighbour of what was written. Twice the
// neighbour's distance is allowed, and what has no JSON form (infinity) is written as null.
bool same(const json::Value& wrote, const json::Value& read) {
  if (const auto* items = wrote.as_array())
    return read.is_array() && std::ranges::equal(*items, *read.as_array(), same);
  if (const auto* members = wrote.as_object()) {
    const auto same_member = [](const json::Member& a, const json::Member& b) {
      return a.first == b.first && same(a.second, b.second);
    };
    return read.is_object() && std::ranges::equal(*members, *read.as_object(), same_member);
  }
  if (!wrote.is_double()) return wrote == read;
  const double was = *wrote.as_double();
  if (!std::isfinite(was)) return read.is_null();
  if (!read.is_double()) return std::abs(was) > 1e308 && read.is_null();
  const double is = *read.as_double();
  if (!std::isfinite(is)) return std::abs(was) > 1e308;
  return std::abs(was - is) <= std::abs(was) * 5e-16 + 1e-323;
}

void json_round_trip(std::string_view text) {
  const auto parsed = json::parse(text);
  if (parsed.has_error()) return;
  for (const auto style : {json::Style::compact, json::Style::spaced, json::Style::pretty}) {
    const auto again = json::parse(json::dump(*parsed, style));
    must(again.has_value(), "what was dumped can be parsed");
    must(same(*parsed, *again), "a JSON document survives being written");
  }
  auto patched = *parsed;
  json::merge_patch(patched, *parsed);
}

}  // namespace

void codec(std::string_view bytes) {
  using namespace spilo::codec;
  json_round_trip(bytes);
  const auto name = NodeName("n1");
  const auto member = [&](std::string_view text) { return parse_member(name, text); };
  round_trip(member(bytes), member, dump_member, "a member");
  round_trip(parse_failover(bytes), parse_failover, dump_failover, "a failover request");
  round_trip(parse_sync(bytes), parse_sync, dump_sync, "the sync state");
  round_trip(parse_status(bytes), parse_status, dump_status, "the status");
  round_trip(parse_term(bytes), parse_term, dump_term, "the term");
  const auto history = [](std::string_view text) {
    auto lines = parse_history(text);
    return lines ? std::move(*lines) : std::vector<HistoryLine>();
  };
  round_trip(history(bytes), history, dump_history, "the history");
  const auto failsafe = [](std::string_view text) {
    auto members = parse_failsafe(text);
    return members ? std::move(*members) : std::map<NodeName, std::string>();
  };
  round_trip(failsafe(bytes), failsafe, dump_failsafe, "the failsafe members");
  if (const auto time = parse_wall_time(bytes))
    must(parse_wall_time(dump_wall_time(*time)) == time, "a time");
  static_cast<void>(parse_peer_status(name, bytes));
  if (const auto at = parse_conn_url(bytes)) static_cast<void>(to_text(*at));
  static_cast<void>(slot_name(NodeName(std::string(bytes))));
}

}  // namespace spilo::fuzz
