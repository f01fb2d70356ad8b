#include "etcd_wire.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

namespace spilo::etcd::wire {
namespace {

// A 64-bit number is a text in proto3 JSON, a 32-bit one a number; absent means zero.
std::uint64_t number(const json::Value& object, std::string_view name) noexcept {
  const auto* value = object.find(name);
  if (value == nullptr) return 0;
  if (const auto integer = value->as_int())
    return *integer < 0 ? 0 : static_cast<std::uint64_t>(*integer);
  const auto* text = value->as_string();
  std::uint64_t out = 0;
  if (text == nullptr) return 0;
  const auto* end = text->data() + text->size();
  const auto [at, ec] = std::from_chars(text->data(), end, out);
  return ec == std::errc() && at == end ? out : 0;
}

dcs::Version version_of(const json::Value& kv) noexcept {
  return dcs::Version{number(kv, "create_revision"), number(kv, "mod_revision")};
}

std::string full_key(std::string_view base, std::string_view key) {
  return base64(std::string(base).append(key));
}

// The last change of each key, in the order of the first.
std::vector<dcs::Transaction::Change> folded(const dcs::Transaction& transaction) {
  std::vector<dcs::Transaction::Change> out;
  for (const auto& change : transaction.changes()) {
    const auto same = std::ranges::find(out, change.key, &dcs::Transaction::Change::key);
    if (same == out.end()) {
      out.push_back(change);
    } else {
      *same = change;
    }
  }
  return out;
}

bool required_absent(const dcs::Transaction& transaction, std::string_view key) {
  return std::ranges::any_of(transaction.requirements(), [&](const auto& requirement) {
    return requirement.key == key && requirement.condition.kind() == dcs::Condition::Kind::absent;
  });
}

void append(std::string& list, std::string_view item) {
  if (!list.empty()) list += ',';
  list += item;
}

}  // namespace

std::string prefix_end(std::string_view prefix) {
  std::string end(prefix);
  while (!end.empty()) {
    const auto last = static_cast<unsigned char>(end.back());
    if (last < 0xff) {
      end.back() = static_cast<char>(last + 1);
      return end;
    }
    end.pop_back();
  }
  return std::string(1, '\0');  // etcd's way to say "to the end of all keys"
}

// ---- requests
// ------------------------------------------------------------------------------------------------------------

std::string range_request(std::string_view base, bool serializable) {
  return fmt::format(R"({{"key":"{}","range_end":"{}"{}}})",
                     base64(base),
                     base64(prefix_end(base)),
                     serializable ? R"(,"serializable":true)" : "");
}

std::string term_request(std::string_view base) {
  return fmt::format(R"({{"key":"{}","count_only":true}})", base64(base));
}

std::string txn_request(std::string_view base,
                        const dcs::Transaction& transaction,
                        const SessionId& session) {
  std::string compare;
  for (const auto& [key, condition] : transaction.requirements()) {
    const auto name = full_key(base, key);
    const bool absent = condition.kind() == dcs::Condition::Kind::absent;
    append(
        compare,
        fmt::format(R"({{"key":"{}","result":"EQUAL","target":"CREATE","create_revision":"{}"}})",
                    name,
                    absent ? 0 : condition.version().era));
    if (!absent)
      append(compare,
             fmt::format(R"({{"key":"{}","result":"EQUAL","target":"MOD","mod_revision":"{}"}})",
                         name,
                         condition.version().count));
  }
  std::string success;
  for (const auto& [key, value, binding] : folded(transaction)) {
    const auto name = full_key(base, key);
    if (!value) {
      append(success, fmt::format(R"({{"request_delete_range":{{"key":"{}"}}}})", name));
      continue;
    }
    append(success,
           fmt::format(R"({{"request_put":{{"key":"{}","value":"{}","lease":"{}"}}}})",
                       name,
                       base64(*value),
                       binding == dcs::Binding::session ? session.str() : "0"));
    // Only etcd knows since when the key exists. Within the transaction the answer can't be
    // somebody else's.
    if (!required_absent(transaction, key))
      append(success, fmt::format(R"({{"request_range":{{"key":"{}","keys_only":true}}}})", name));
  }
  return fmt::format(R"({{"compare":[{}],"success":[{}]}})", compare, success);
}

std::string grant_request(std::int64_t ttl_seconds) {
  return fmt::format(R"({{"TTL":"{}"}})", ttl_seconds);
}
std::string lease_request(const SessionId& session) {
  return fmt::format(R"({{"ID":"{}"}})", session.str());
}
std::string watch_request(std::string_view base, std::uint64_t start_revision, bool fragments) {
  return fmt::format(
      R"({{"create_request":{{"key":"{}","range_end":"{}","start_revision":"{}"{}}}}})",
      base64(base),
      base64(prefix_end(base)),
      start_revision,
      fragments ? R"(,"fragment":true)" : "");
}
std::string authenticate_request(std::string_view user, std::string_view password) {
  auto request = json::Value::object();
  request.set("name", user).set("password", password);
  return json::dump(request);
}

// ---- answers
// -------------------------------------------------------------------------------------------------------------

const json::Value& payload(const json::Value& document) noexcept {
  const auto* result = document.find("result");
  return result != nullptr && result->is_object() ? *result : document;
}

Header header_of(const json::Value& answer) noexcept {
  Header out;
  if (const auto* header = answer.find("header")) {
    out.cluster_id = number(*header, "cluster_id");
    out.revision = number(*header, "revision");
    out.raft_term = number(*header, "raft_term");
    out.member_id = number(*header, "member_id");
  }
  return out;
}

Result<dcs::Snapshot> parse_range(const json::Value& answer, std::string_view base) {
  const auto header = header_of(answer);
  if (header.revision == 0)
    return Error(errc::protocol, "the answer to a range request has no revision in its header");
  std::vector<dcs::Entry> entries;
  const auto* kvs = answer.find("kvs");
  const auto* list = kvs != nullptr ? kvs->as_array() : nullptr;
  if (kvs != nullptr && list == nullptr)
    return Error(errc::protocol, "\"kvs\" of a range answer is no list");
  if (list != nullptr) entries.reserve(list->size());
  for (std::size_t i = 0; list != nullptr && i < list->size(); ++i) {
    const auto& kv = (*list)[i];
    const auto key = from_base64(kv.get_string("key"));
    auto value = from_base64(kv.get_string("value"));
    const auto version = version_of(kv);
    if (!key || !value || !key->starts_with(base) || version.era == 0 || version.count == 0)
      return Error(
          errc::protocol,
          fmt::format("key {} of {} in a range answer is not below {}, or lacks its revisions",
                      i,
                      list->size(),
                      base));
    const auto lease = number(kv, "lease");
    entries.emplace_back(key->substr(base.size()),
                         std::move(*value),
                         version,
                         lease == 0 ? SessionId() : SessionId(std::to_string(lease)));
  }
  return dcs::Snapshot(std::move(entries), dcs::Index{header.revision}, true);
}

Result<dcs::Committed> parse_txn(const json::Value& answer,
                                 std::string_view base,
                                 const dcs::Transaction& transaction) {
  const auto header = header_of(answer);
  if (header.revision == 0)
    return Error(errc::protocol, "the answer to a transaction has no revision in its header");
  if (!answer.get_bool("succeeded"))
    return Error(errc::conflict, "a requirement of the transaction did not hold");
  std::vector<std::pair<std::string, dcs::Version>> read;
  const auto* responses = answer.find("responses");
  const auto* list = responses != nullptr ? responses->as_array() : nullptr;
  for (std::size_t i = 0; list != nullptr && i < list->size(); ++i) {
    const auto* kvs = (*list)[i].find_path("response_range.kvs");
    const auto* found = kvs != nullptr ? kvs->as_array() : nullptr;
    if (found == nullptr || found->empty()) continue;
    const auto key = from_base64(found->front().get_string("key"));
    if (key && key->starts_with(base))
      read.emplace_back(key->substr(base.size()), version_of(found->front()));
  }
  std::vector<std::pair<std::string, dcs::Version>> written;
  for (const auto& [key, value, binding] : folded(transaction)) {
    if (!value) continue;
    if (required_absent(transaction, key)) {
      written.emplace_back(key, dcs::Version{header.revision, header.revision});
      continue;
    }
    const auto at = std::ranges::find(read, key, &std::pair<std::string, dcs::Version>::first);
    if (at == read.end() || at->second.count != header.revision || at->second.era == 0)
      return Error(
          errc::protocol,
          fmt::format("the transaction was done at revision {}, but its answer does not show "
                      "the revisions of {}",
                      header.revision,
                      key));
    written.push_back(*at);
  }
  return dcs::Committed(std::move(written));
}

LeaseAnswer parse_lease(const json::Value& answer) {
  LeaseAnswer out;
  if (const auto id = number(answer, "ID"); id != 0) out.id = SessionId(std::to_string(id));
  // A negative TTL, which number() turns into zero, means gone as well.
  out.ttl_seconds =
      static_cast<std::int64_t>(std::min<std::uint64_t>(number(answer, "TTL"), 1u << 30));
  return out;
}

Result<WatchMessage> parse_watch(std::string_view line) {
  const auto document = json::parse(line);
  if (document.has_error()) return document.error().in("a line of a watch");
  if (document->find("error") != nullptr) {
    const auto refusal = parse_refusal(200, line);
    return Error(meaning(refusal, Kind::read), "the watch ended: " + refusal.text);
  }
  const auto* result = document->find("result");
  if (result == nullptr || !result->is_object())
    return Error(errc::protocol, "a line of a watch has neither a result nor an error");
  WatchMessage out;
  out.header = header_of(*result);
  out.created = result->get_bool("created");
  out.canceled = result->get_bool("canceled");
  out.compact_revision = number(*result, "compact_revision");
  out.reason = result->get_string("cancel_reason");
  const auto* events = result->find("events");
  if (const auto* list = events != nullptr ? events->as_array() : nullptr) {
    for (const auto& event : *list)
      if (const auto* kv = event.find("kv"))
        out.newest = std::max(out.newest, number(*kv, "mod_revision"));
    // Events without readable revisions are still a change.
    if (!list->empty()) out.newest = std::max(out.newest, out.header.revision);
  }
  return out;
}

Result<ServerVersion> parse_version(std::string_view body) {
  const auto document = json::parse(body);
  const std::string text =
      document.has_value() ? document->get_string("etcdserver") : std::string();
  ServerVersion out;
  const auto* end = text.data() + text.size();
  const auto major = std::from_chars(text.data(), end, out.major);
  if (major.ec == std::errc() && major.ptr != end && *major.ptr == '.') {
    const auto minor = std::from_chars(major.ptr + 1, end, out.minor);
    if (minor.ec == std::errc() && out.major >= 0 && out.minor >= 0) return out;
  }
  // Go's server says in words when it was spoken to without TLS.
  constexpr std::string_view wrong_scheme = "HTTP request to an HTTPS server";
  if (body.find(wrong_scheme) != std::string_view::npos)
    return Error(errc::protocol,
                 "it speaks TLS: its address must begin with https (protocol: https)");
  return Error(errc::protocol,
               "the answer to /version names no etcd version: is this an etcd server?");
}

namespace {

std::vector<MemberInfo> members_in(const json::Array* list, std::string_view id_name) {
  std::vector<MemberInfo> out;
  for (std::size_t i = 0; list != nullptr && i < list->size(); ++i) {
    MemberInfo member;
    member.id = number((*list)[i], id_name);
    member.learner = (*list)[i].get_bool("isLearner");
    const auto* urls = (*list)[i].find("clientURLs");
    const auto* texts = urls != nullptr ? urls->as_array() : nullptr;
    for (std::size_t k = 0; texts != nullptr && k < texts->size(); ++k)
      if (const auto* text = (*texts)[k].as_string()) member.client_urls.push_back(*text);
    // A member that was added but has not started yet has none.
    if (!member.client_urls.empty()) out.push_back(std::move(member));
  }
  return out;
}

}  // namespace

std::vector<MemberInfo> parse_members(const json::Value& answer) {
  const auto* members = answer.find("members");
  return members_in(members != nullptr ? members->as_array() : nullptr, "ID");
}

std::vector<MemberInfo> parse_peer_members(std::string_view body) {
  const auto document = json::parse(body);
  if (document.has_error()) return {};
  return members_in(document->as_array(), "id");
}

MemberInfo parse_status(std::string_view body) {
  MemberInfo out;
  const auto document = json::parse(body);
  if (document.has_error()) return out;
  if (const auto* header = document->find("header")) out.id = number(*header, "member_id");
  out.learner = document->get_bool("isLearner");
  return out;
}

// ---- refusals
// ------------------------------------------------------------------------------------------------------------

Refusal parse_refusal(int http_status, std::string_view body) {
  const auto document = json::parse(body);
  if (document.has_value()) {
    const auto* error = document->find("error");
    // Inside a stream the error is an object, otherwise a text beside the code.
    const auto& holder = error != nullptr && error->is_object() ? *error : *document;
    auto text = holder.get_string("message");
    if (text.empty() && error != nullptr && error->as_string() != nullptr)
      text = *error->as_string();
    for (const auto* name : {"code", "grpc_code"})
      if (const auto code = holder.get_int(name); code && *code > 0 && *code < 1000)
        return Refusal(http_status, static_cast<int>(*code), std::move(text));
    if (!text.empty()) return Refusal(http_status, -1, std::move(text));
  }
  return Refusal(http_status, -1, std::string(body.substr(0, 200)));
}

namespace {

struct Meaning {
  int grpc_code;
  errc read;
  errc write;
  errc lease;
};
// The whole error space of gRPC (google.golang.org/grpc/codes), one row each.
constexpr Meaning meanings[] = {
    // cancelled: the server gave up waiting for itself
    {1, errc::unavailable, errc::ambiguous, errc::ambiguous},
    // unknown: also what etcd says when it loses its leader
    {2, errc::unavailable, errc::ambiguous, errc::ambiguous},
    // invalid argument: refused before anything was done (too large, duplicate key)
    {3, errc::invalid_argument, errc::invalid_argument, errc::invalid_argument},
    // deadline exceeded
    {4, errc::unavailable, errc::ambiguous, errc::ambiguous},
    // not found: of all that we name only a lease can be missing
    {5, errc::unavailable, errc::session_lost, errc::session_lost},
    // already exists
    {6, errc::unavailable, errc::ambiguous, errc::ambiguous},
    // permission denied
    {7, errc::denied, errc::denied, errc::denied},
    // resource exhausted: no space, too many requests: refused before anything was done
    {8, errc::unavailable, errc::unavailable, errc::unavailable},
    // failed precondition
    {9, errc::unavailable, errc::unavailable, errc::unavailable},
    // aborted
    {10, errc::unavailable, errc::ambiguous, errc::ambiguous},
    // out of range: a compacted or future revision
    {11, errc::unavailable, errc::unavailable, errc::unavailable},
    // unimplemented
    {12, errc::unsupported, errc::unsupported, errc::unsupported},
    // internal
    {13, errc::unavailable, errc::ambiguous, errc::ambiguous},
    // unavailable: no leader, leader changed, "request timed out": a write may be in the log
    // already
    {14, errc::unavailable, errc::ambiguous, errc::ambiguous},
    // data loss
    {15, errc::unavailable, errc::ambiguous, errc::ambiguous},
    // unauthenticated
    {16, errc::denied, errc::denied, errc::denied},
};

}  // namespace

errc meaning(const Refusal& refusal, Kind kind) noexcept {
  for (const auto& row : meanings)
    if (row.grpc_code == refusal.grpc_code)
      return kind == Kind::read ? row.read : kind == Kind::write ? row.write : row.lease;
  // Without a code it is the HTTP server around etcd, or a proxy before it, that speaks. 404: the
  // path is not served, so nothing can have been done; 401 and 403: a proxy did not let us through.
  if (refusal.grpc_code == -1 && refusal.http_status == 404) return errc::unavailable;
  if (refusal.grpc_code == -1 && (refusal.http_status == 401 || refusal.http_status == 403))
    return errc::denied;
  return kind == Kind::read ? errc::unavailable : errc::ambiguous;
}

bool wants_authentication(const Refusal& refusal) noexcept {
  // 3 carries "user name is empty" and "revision of auth store is old", 16 "invalid auth token", 7
  // what a token lacks that was made before its user got a role. Trying once with a new token does
  // no harm, whatever it was.
  return refusal.grpc_code == 3 || refusal.grpc_code == 7 || refusal.grpc_code == 16;
}

}  // namespace spilo::etcd::wire
