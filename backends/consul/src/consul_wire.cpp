#include "consul_wire.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

namespace spilo::consul::wire {
namespace {

using Change = dcs::Transaction::Change;

// The last change of each key, in the order of the first.
std::vector<Change> folded(const dcs::Transaction& transaction) {
  std::vector<Change> out;
  for (const auto& change : transaction.changes()) {
    const auto same = std::ranges::find(out, change.key, &Change::key);
    if (same == out.end()) {
      out.push_back(change);
    } else {
      *same = change;
    }
  }
  return out;
}

bool required_absent(const dcs::Transaction& transaction, std::string_view key) noexcept {
  return std::ranges::any_of(transaction.requirements(), [&](const auto& requirement) {
    return requirement.key == key && requirement.condition.kind() == dcs::Condition::Kind::absent;
  });
}

std::uint64_t number(const json::Value& object, std::string_view name) noexcept {
  const auto value = object.get_int(name);
  return value && *value > 0 ? static_cast<std::uint64_t>(*value) : 0;
}

std::optional<std::string> key_below(const json::Value& kv, std::string_view base) {
  const auto* name = kv.find("Key");
  const auto* text = name != nullptr ? name->as_string() : nullptr;
  if (text == nullptr || !text->starts_with(base)) return {};
  return text->substr(base.size());
}

dcs::Version version_of(const json::Value& kv) noexcept {
  return dcs::Version{number(kv, "CreateIndex"), number(kv, "ModifyIndex")};
}

// Collects the operations of a transaction, each with its part in it.
class Operations {
 public:
  explicit Operations(std::string_view base) : base_(base) {}
  void add(Plan::Part part, std::string_view verb, std::string_view key, std::string_view more) {
    if (!list_.empty()) list_ += ',';
    list_ += fmt::format(R"({{"KV":{{"Verb":"{}","Key":{}{}}}}})",
                         verb,
                         json::dump(std::string(base_).append(key)),
                         more);
    parts_.push_back(part);
  }
  Plan take() {
    Plan out;
    out.body = "[" + std::move(list_) + "]";
    out.parts = std::move(parts_);
    return out;
  }

 private:
  std::string_view base_;
  std::string list_;
  std::vector<Plan::Part> parts_;
};

std::string bound_to(std::string_view session) {
  return fmt::format(R"(,"Session":{})", json::dump(json::Value(session)));
}

}  // namespace

// ---- addresses and durations
// ---------------------------------------------------------------------------------------------

std::string escaped(std::string_view path) {
  std::string out;
  for (const char c : path) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       std::string_view("-._~/").find(c) != std::string_view::npos;
    if (plain) {
      out += c;
    } else {
      out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return out;
}

std::string target(std::string_view path, const std::vector<std::string>& query) {
  std::string out(path);
  char separator = '?';
  for (const auto& part : query) {
    if (part.empty()) continue;
    out += std::exchange(separator, '&');
    out += part;
  }
  return out;
}

std::string duration_text(Duration duration) {
  const auto ms = std::chrono::ceil<std::chrono::milliseconds>(duration).count();
  return ms % 1000 == 0 ? fmt::format("{}s", ms / 1000) : fmt::format("{}ms", ms);
}

std::optional<Duration> parse_duration(std::string_view text) {
  struct Unit {
    std::string_view name;
    double seconds;
  };
  // The longer name first where one begins like another.
  constexpr Unit units[] = {
      {"ns", 1e-9}, {"us", 1e-6}, {"ms", 1e-3}, {"h", 3600}, {"m", 60}, {"s", 1}};
  double seconds = 0;
  if (text.empty()) return {};
  while (!text.empty()) {
    double amount = 0;
    const auto [at, ec] =
        std::from_chars(text.data(), text.data() + text.size(), amount, std::chars_format::fixed);
    if (ec != std::errc() || amount < 0) return {};
    text.remove_prefix(static_cast<std::size_t>(at - text.data()));
    const auto* unit =
        std::ranges::find_if(units, [&](const Unit& one) { return text.starts_with(one.name); });
    if (unit == std::end(units)) return {};
    text.remove_prefix(unit->name.size());
    seconds += amount * unit->seconds;
  }
  if (seconds > 1e9) return {};
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(seconds));
}

// ---- sessions
// ------------------------------------------------------------------------------------------------------------

std::string session_request(std::string_view name,
                            Duration ttl,
                            const std::vector<std::string>& checks) {
  auto list = json::Value::array();
  for (const auto& check : checks) list.push(check);
  auto request = json::Value::object();
  request.set("Name", name)
      .set("TTL", duration_text(ttl))
      .set("LockDelay", "0s")
      .set("Behavior", "delete");
  // The name of before Consul 1.7, which newer ones understand as well; an empty list has to be
  // said, or the node's own health check is added.
  request.set("Checks", list);
  if (checks.empty()) request.set("NodeChecks", list);
  return json::dump(request);
}

Result<SessionId> parse_session(std::string_view body) {
  const auto document = json::parse(body);
  if (document.has_error()) return document.error();
  const auto id = document->get_string("ID");
  if (id.empty()) return Error(errc::protocol, "the answer names no session");
  return SessionId(id);
}

Result<bool> parse_session_info(std::string_view body, const SessionId& session) {
  const auto document = json::parse(body);
  if (document.has_error()) return document.error();
  const auto* list = document->as_array();
  if (list == nullptr) return Error(errc::protocol, "the answer is no list of sessions");
  return std::ranges::any_of(
      *list, [&](const json::Value& one) { return one.get_string("ID") == session.str(); });
}

std::optional<Duration> ttl_min_hint(std::string_view refusal) {
  if (!refusal.starts_with("Invalid Session TTL")) return {};
  const auto from = refusal.find('[');
  const auto to = refusal.find('=', from);
  if (from == std::string_view::npos || to == std::string_view::npos) return {};
  return parse_duration(refusal.substr(from + 1, to - from - 1));
}

std::optional<Duration> parse_ttl_min(std::string_view body) {
  const auto document = json::parse(body);
  if (document.has_error()) return {};
  // Up to 1.0 in nanoseconds, afterwards as a text beside what is not promised to stay.
  if (const auto* value = document->find_path("Config.SessionTTLMin"))
    if (const auto nanoseconds = value->as_int(); nanoseconds && *nanoseconds > 0)
      return std::chrono::nanoseconds(*nanoseconds);
  const auto* value = document->find_path("DebugConfig.SessionTTLMin");
  const auto* text = value != nullptr ? value->as_string() : nullptr;
  if (text == nullptr) return {};
  const auto least = parse_duration(*text);
  if (!least || *least <= Duration::zero()) return {};
  return least;
}

// ---- reading
// -------------------------------------------------------------------------------------------------------------

std::optional<std::uint64_t> parse_index(std::string_view header) {
  std::uint64_t out = 0;
  const auto* end = header.data() + header.size();
  const auto [at, ec] = std::from_chars(header.data(), end, out);
  if (header.empty() || ec != std::errc() || at != end) return {};
  return out;
}

Result<dcs::Snapshot> parse_list(std::string_view body,
                                 std::string_view base,
                                 std::uint64_t index) {
  const auto document = json::parse(body);
  if (document.has_error()) return document.error();
  const auto* list = document->as_array();
  if (list == nullptr) return Error(errc::protocol, "the answer is no list of keys");
  std::vector<dcs::Entry> entries;
  entries.reserve(list->size());
  for (std::size_t i = 0; i < list->size(); ++i) {
    const auto& kv = (*list)[i];
    const auto key = key_below(kv, base);
    // An empty value is null.
    auto value = from_base64(kv.get_string("Value"));
    const auto version = version_of(kv);
    if (!key || !value || version.era == 0 || version.count == 0)
      return Error(
          errc::protocol,
          fmt::format("key {} of {} is not below {}, or lacks its indexes", i, list->size(), base));
    if (key->empty()) continue;  // the "folder" itself, which Consul's own interface may create
    entries.emplace_back(
        std::move(*key), std::move(*value), version, SessionId(kv.get_string("Session")));
  }
  return dcs::Snapshot(std::move(entries), dcs::Index{index}, true);
}

// ---- transactions
// -----------------------------------------------------------------------------------------------------

Owners owners_of(const dcs::Snapshot& snapshot) {
  Owners out;
  for (const auto& entry : snapshot.all()) out.emplace(entry.key, entry.owner);
  return out;
}

bool needs_owners(const dcs::Transaction& transaction) noexcept {
  return std::ranges::any_of(transaction.changes(), [&](const Change& change) {
    return change.value && change.binding == dcs::Binding::permanent &&
           !required_absent(transaction, change.key);
  });
}

Plan plan(const dcs::Transaction& transaction,
          std::string_view base,
          const SessionId& session,
          const Owners& owners,
          const std::function<std::uint64_t()>& flags) {
  Operations out(base);
  for (const auto& [key, condition] : transaction.requirements()) {
    if (condition.kind() == dcs::Condition::Kind::absent) {
      out.add(Plan::Part::requirement, "check-not-exists", key, "");
    } else {
      out.add(Plan::Part::requirement,
              "check-index",
              key,
              fmt::format(R"(,"Index":{})", condition.version().count));
    }
  }
  for (const auto& [key, value, binding] : folded(transaction)) {
    if (!value) {
      out.add(Plan::Part::other, "delete", key, "");
      continue;
    }
    const bool absent = required_absent(transaction, key);
    const auto known = absent ? owners.end() : owners.find(key);
    const auto held_by = known != owners.end() ? known->second : SessionId();
    const auto content = fmt::format(R"(,"Value":"{}","Flags":{})", base64(*value), flags());
    if (binding == dcs::Binding::session) {
      // Consul refuses to lock what another session holds; both in one transaction re-bind it.
      if (!held_by.empty() && held_by != session)
        out.add(Plan::Part::belief, "unlock", key, content + bound_to(held_by.str()));
      out.add(Plan::Part::lock, "lock", key, content + bound_to(session.str()));
    } else if (!held_by.empty()) {
      out.add(Plan::Part::belief, "unlock", key, content + bound_to(held_by.str()));
    } else {
      if (known != owners.end()) {
        out.add(Plan::Part::belief, "check-session", key, R"(,"Session":"")");
      } else if (!absent) {
        out.add(Plan::Part::belief, "check-not-exists", key, "");
      }
      out.add(Plan::Part::other, "set", key, content);
    }
  }
  return out.take();
}

Result<dcs::Committed> parse_txn(std::string_view body,
                                 std::string_view base,
                                 const dcs::Transaction& transaction,
                                 Owners& owners) {
  const auto document = json::parse(body);
  if (document.has_error()) return document.error();
  const auto* results = document->find("Results");
  const auto* list = results != nullptr ? results->as_array() : nullptr;
  std::vector<std::pair<std::string, dcs::Version>> written;
  for (const auto& [key, value, binding] : folded(transaction)) {
    if (!value) {
      owners.erase(key);
      continue;
    }
    // What a key had before may stand there too, from checks; the last one is what was written.
    const json::Value* last = nullptr;
    for (std::size_t i = 0; list != nullptr && i < list->size(); ++i)
      if (const auto* kv = (*list)[i].find("KV"); kv != nullptr && key_below(*kv, base) == key)
        last = kv;
    const auto version = last != nullptr ? version_of(*last) : dcs::Version{};
    if (version.era == 0 || version.count == 0)
      return Error(
          errc::protocol,
          fmt::format("the transaction was done, but its answer does not show the indexes of {}",
                      key));
    owners.insert_or_assign(key, SessionId(last->get_string("Session")));
    written.emplace_back(key, version);
  }
  return dcs::Committed(std::move(written));
}

Refusal parse_refusal(std::string_view body, const Plan& plan) {
  Refusal out;
  const auto document = json::parse(body);
  const auto* errors = document.has_value() ? document->find("Errors") : nullptr;
  const auto* list = errors != nullptr ? errors->as_array() : nullptr;
  for (std::size_t i = 0; list != nullptr && i < list->size(); ++i) {
    const auto at = (*list)[i].get_int("OpIndex");
    if (!at || *at < 0 || *at >= static_cast<std::int64_t>(plan.parts.size())) continue;
    const auto what = (*list)[i].get_string("What");
    out.text.append(out.text.empty() ? "" : "; ").append(what);
    // Nothing was done in any case; the text only tells a token that may not from a key that is
    // not as required.
    const bool denied = what.find("ermission denied") != std::string::npos;
    const auto part = plan.parts[static_cast<std::size_t>(*at)];
    const auto why = denied                            ? Refusal::Why::denied
                     : part == Plan::Part::requirement ? Refusal::Why::requirement
                     : part == Plan::Part::lock        ? Refusal::Why::lock
                                                       : Refusal::Why::belief;
    // The one that decides: a token that may not, then what the caller required, then what we
    // believed; a lock may fail only because of the latter.
    constexpr auto rank = [](Refusal::Why one) {
      switch (one) {
        case Refusal::Why::denied:
          return 4;
        case Refusal::Why::requirement:
          return 3;
        case Refusal::Why::belief:
          return 2;
        case Refusal::Why::lock:
          return 1;
        case Refusal::Why::not_understood:
          break;
      }
      return 0;
    };
    if (rank(why) > rank(out.why)) out.why = why;
  }
  if (out.why == Refusal::Why::not_understood) out.text = std::string(body.substr(0, 200));
  return out;
}

// ---- statuses
// -------------------------------------------------------------------------------------------------------------

namespace {

struct Meaning {
  int status;
  errc read;
  errc session;
  errc write;
};
constexpr Meaning meanings[] = {
    // not understood: refused before anything was done
    {400, errc::invalid_argument, errc::invalid_argument, errc::invalid_argument},
    // a proxy before Consul
    {401, errc::denied, errc::denied, errc::denied},
    // the token is unknown, or may not
    {403, errc::denied, errc::denied, errc::denied},
    // nobody serves this path, so nothing can have been done; where Consul means something else by
    // it, the store looks at it first
    {404, errc::unavailable, errc::unavailable, errc::unavailable},
    {405, errc::unavailable, errc::unavailable, errc::unavailable},
    // too large, or too many operations
    {413, errc::invalid_argument, errc::invalid_argument, errc::invalid_argument},
    // too many connections or requests: refused before anything was done
    {429, errc::unavailable, errc::unavailable, errc::unavailable},
};

}  // namespace

errc meaning(int status, Kind kind) noexcept {
  for (const auto& row : meanings)
    if (row.status == status)
      return kind == Kind::read ? row.read : kind == Kind::session ? row.session : row.write;
  // 500 is everything from "no leader" to "leadership lost while committing": the change may be in
  // the log already.
  return kind == Kind::read ? errc::unavailable : errc::ambiguous;
}

}  // namespace spilo::consul::wire
