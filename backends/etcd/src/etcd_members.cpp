#include "etcd_members.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/this_coro.hpp>

namespace spilo::etcd {
namespace asio = boost::asio;
namespace {

using wire::Kind;
using namespace std::chrono_literals;

net::HttpClientOptions http_options(const Options& options) {
  net::HttpClientOptions out;
  out.tls = options.tls;
  // A watch has no heartbeat of its own: a member whose host is gone must not look like one with
  // nothing to tell.
  out.keepalive_idle = 3s;
  out.user_timeout = 5s;
  return out;
}

net::Effect effect_of(Kind kind) noexcept {
  switch (kind) {
    case Kind::read:
      return net::Effect::read;
    case Kind::lease:
      return net::Effect::repeatable_write;
    case Kind::write:
      return net::Effect::write;
  }
  return net::Effect::write;
}

// A wrong scheme is met by silence or by a closed connection, and its message must say more than
// that.
Error with_advice(const net::Url& url, const Error& error) {
  const auto says = [&](std::string_view text) {
    return error.detail().find(text) != std::string::npos;
  };
  // A server without TLS waits for more, or closes.
  const bool doubtful = url.tls() ? says(": no connection before") || says(": stream truncated")
                                  : says(": connection lost before");
  if (!error.is(errc::unavailable) || !doubtful) return error;
  return Error(error.code(),
               fmt::format("{} (if the server {}, its address begins with {}://)",
                           error.detail(),
                           url.tls() ? "does not speak TLS" : "speaks TLS",
                           url.tls() ? "http" : "https"));
}

}  // namespace

Members::Members(asio::any_io_executor executor, Clock& clock, Options options)
    : executor_(executor),
      clock_(clock),
      options_(std::move(options)),
      http_(std::move(executor), clock, http_options(options_)),
      random_(options_.seed) {
  for (const auto& url : options_.endpoints) {
    if (options_.username.empty() && !url.user().empty()) {
      options_.username = url.user();
      options_.password = url.password();
    }
    member_at(url)->configured = true;
  }
  // Nodes with the same list begin at different members.
  if (!members_.empty()) current_ = members_[chance(members_.size())];
}

std::size_t Members::chance(std::size_t below) noexcept {
  return net::next_random(random_) % below;
}

Members::Round Members::in_turn() const {
  Round out(members_);
  const auto present = std::ranges::find(out, current_);
  if (present != out.end()) std::rotate(out.begin(), present, out.end());
  std::stable_partition(
      out.begin(), out.end(), [](const auto& member) { return !member->learner; });
  return out;
}

void Members::leave(const MemberPtr& member, const Error& reason) {
  member->id = 0;  // whoever comes back there may be another one
  const auto order = in_turn();
  if (member == current_ && order.size() > 1) {
    current_ = order[order.front() == member ? 1 : 0];
    options_.logger.warning("etcd: {}; going on with {}", reason.text(), current_->url.origin());
    // The cluster may have changed: soon, but not with each of many failures.
    learn_at_ = std::min(learn_at_, clock_.now() + 2s);
  }
  if (on_leave) on_leave(member);
}

void Members::replace_cluster(const std::string& reason) {
  options_.logger.warning(
      "etcd: every endpoint says so, and our lease has run out: the cluster has been replaced or "
      "restored, going on with its new "
      "history ({})",
      reason);
  seen_ = {};
  token_.clear();
  authentication_off_ = false;
  for (const auto& member : members_) {
    member->prefix.clear();
    member->greeted = member->listed = false;
    member->id = 0;
  }
  drop_unnamed();
  learn_at_ = TimePoint{};
  if (on_replaced) on_replaced();
}

net::HttpRequest Members::request(const Member& member,
                                  std::string_view path,
                                  std::string body) const {
  net::HttpRequest out("POST", fmt::format("{}/{}", member.prefix, path), std::move(body));
  out.header("Content-Type", "application/json");
  if (!token_.empty()) out.header("Authorization", token_);
  return out;
}

Async<void> Members::prepare(MemberPtr member, TimePoint deadline) {
  if (member->prefix.empty()) {
    const auto known = co_await ask_version(member, deadline);
    if (known.has_error()) co_return known.error();
  }
  if (!options_.username.empty() && token_.empty() && !authentication_off_) {
    const auto done = co_await authenticate(member, deadline);
    if (done.has_error()) co_return done.error();
  }
  if (!member->greeted || member->learner) co_return co_await greet(member, deadline);
  co_return boost::system::in_place_value;
}

Async<void> Members::ask_version(MemberPtr member, TimePoint deadline) {
  const auto& url = member->url;
  const auto response = co_await http_.request(url, net::HttpRequest("GET", "/version"), deadline);
  if (response.has_error()) co_return with_advice(url, response.error()).in("etcd");
  const auto version = wire::parse_version(response->body());
  if (version.has_error())
    co_return Error(
        errc::unavailable,
        fmt::format(
            "etcd {}: status {}: {}", url.origin(), response->status(), version.error().detail()));
  if (version->major < 3 || (version->major == 3 && version->minor < 3))
    co_return Error(
        errc::unsupported,
        fmt::format("etcd {}: version {}.{} is too old, 3.3 is the oldest that is supported",
                    url.origin(),
                    version->major,
                    version->minor));
  member->prefix = version->major == 3 && version->minor == 3 ? "/v3beta" : "/v3";
  co_return boost::system::in_place_value;
}

// A learner refuses everything that we want, and says so in the words of a member that has lost its
// leader, which makes a commit ambiguous. So each member is asked once what it is, and a learner
// each time until it is none any more.
Async<void> Members::greet(MemberPtr member, TimePoint deadline) {
  auto message = request(*member, "maintenance/status", "{}");
  message.effect(net::Effect::read);
  const auto response = co_await http_.request(member->url, std::move(message), deadline);
  if (response.has_error()) co_return response.error().in("etcd");
  // A member that does not tell (no permission, a proxy that lets only some paths through) is asked
  // as any other.
  const auto status =
      response->status() == 200 ? wire::parse_status(response->body()) : wire::MemberInfo();
  member->greeted = true;
  member->learner = status.learner;
  member->id = status.id;
  if (member->learner)
    co_return Error(
        errc::unavailable,
        fmt::format("etcd {}: this member is a learner, which serves nobody until it is promoted",
                    member->url.origin()));
  co_return boost::system::in_place_value;
}

Async<void> Members::authenticate(MemberPtr member, TimePoint deadline) {
  const auto& url = member->url;
  token_.clear();
  auto message = request(*member,
                         "auth/authenticate",
                         wire::authenticate_request(options_.username, options_.password));
  message.effect(net::Effect::read);  // it changes nothing that anybody depends on
  const auto response = co_await http_.request(url, std::move(message), deadline);
  if (response.has_error()) co_return response.error().in("etcd");
  if (response->status() == 200) {
    const auto answer = json::parse(response->body());
    if (answer.has_value()) token_ = answer->get_string("token");
    authentication_off_ = false;
    if (!token_.empty()) co_return boost::system::in_place_value;
    co_return Error(
        errc::unavailable,
        fmt::format("etcd {}: auth/authenticate: the answer has no token", url.origin()));
  }
  const auto refusal = wire::parse_refusal(response->status(), response->body());
  if (refusal.grpc_code == 9) {  // authentication is not enabled
    authentication_off_ = true;
    co_return boost::system::in_place_value;
  }
  const auto code = refusal.grpc_code == 3 ? errc::denied : wire::meaning(refusal, Kind::read);
  co_return Error(code,
                  fmt::format("etcd {}: auth/authenticate as user {}: {} (check user and password)",
                              url.origin(),
                              options_.username,
                              refusal.text));
}

Result<Answer> Members::judge(const net::Url& url,
                              std::string_view body,
                              Kind kind,
                              bool linearizable,
                              wire::Header floor,
                              TimePoint sent,
                              Verdict& verdict) {
  auto document = json::parse(body);
  if (document.has_error()) return document.error().in("etcd " + url.origin());
  auto value = wire::payload(*document);
  const auto header = wire::header_of(value);
  std::string reason;
  if (header.cluster_id == 0) {
    reason = "the answer has no cluster id in its header";
  } else if (seen_.cluster_id != 0 && header.cluster_id != seen_.cluster_id) {
    reason =
        fmt::format("it belongs to cluster {:x}, not to {:x}", header.cluster_id, seen_.cluster_id);
    verdict.stranger = true;
  } else if (kind != Kind::write && header.raft_term < floor.raft_term) {
    reason = fmt::format("stale: its term {} is before {}", header.raft_term, floor.raft_term);
    verdict.stranger = true;
  } else if (kind == Kind::read && linearizable && header.revision < floor.revision) {
    reason = fmt::format("stale: its revision {} is before {}", header.revision, floor.revision);
    verdict.stranger = true;
  }
  if (!reason.empty())
    return Error(kind == Kind::write ? errc::ambiguous : errc::unavailable,
                 fmt::format("etcd {}: the answer is not believed: {}", url.origin(), reason));
  seen_.cluster_id = header.cluster_id;
  seen_.revision = std::max(seen_.revision, header.revision);
  seen_.raft_term = std::max(seen_.raft_term, header.raft_term);
  return Answer(std::move(value), header, sent);
}

Async<Answer> Members::attempt(MemberPtr member,
                               std::string path,
                               std::string body,
                               Kind kind,
                               bool linearizable,
                               TimePoint share,
                               TimePoint deadline,
                               Verdict& verdict) {
  const auto& url = member->url;
  const auto prepared = co_await prepare(member, share);
  // Nothing of the call itself has been sent yet, whatever the preparation met.
  if (prepared.has_error() &&
      (prepared.error().is(errc::timed_out) || prepared.error().is(errc::protocol)))
    co_return Error(errc::unavailable, prepared.error().detail());
  if (prepared.has_error()) co_return prepared.error();
  for (bool authenticated_again = false;; authenticated_again = true) {
    auto message = request(*member, path, body);
    message.effect(effect_of(kind)).connect_before(share);
    const auto floor =
        seen_;  // what is learnt while we wait can't be asked of an answer that is on its way
    const auto sent = clock_.now();
    // A commit that was sent can't be repeated elsewhere, so its answer may take all the time there
    // is.
    const auto until = kind == Kind::write ? deadline : share;
    const auto response = co_await http_.request(url, std::move(message), until);
    if (response.has_error()) co_return response.error().in("etcd");
    if (response->status() == 200)
      co_return judge(url, response->body(), kind, linearizable, floor, sent, verdict);
    const auto refusal = wire::parse_refusal(response->status(), response->body());
    verdict.answered = refusal.grpc_code != -1;
    if (refusal.grpc_code == -1 && refusal.http_status == 404) {
      member->prefix.clear();
      member->greeted = false;
    }
    if (!options_.username.empty() && !authenticated_again && wire::wants_authentication(refusal)) {
      const auto done = co_await authenticate(member, share);
      if (done.has_error() && done.error().is(errc::timed_out))
        co_return Error(errc::unavailable, done.error().detail());
      if (done.has_error()) co_return done.error();
      continue;
    }
    co_return Error(wire::meaning(refusal, kind),
                    fmt::format("etcd {}: {}: {} (status {}, code {})",
                                url.origin(),
                                path,
                                refusal.text,
                                refusal.http_status,
                                refusal.grpc_code));
  }
}

Async<Answer> Members::call(
    std::string path, std::string body, Kind kind, bool linearizable, TimePoint deadline) {
  co_await asio::this_coro::throw_if_cancelled(false);
  if (options_.endpoints.empty() && options_.srv.empty())
    co_return Error(errc::invalid_argument, "etcd: no endpoint is configured");
  Error last(errc::unavailable,
             fmt::format("etcd: {}: the deadline had passed before it was sent", path));
  bool tried = false;
  std::string first;  // the last reason is not always the telling one
  const auto given_up = [&] {
    return first.empty() || first == last.detail()
               ? last
               : Error(last.code(), fmt::format("{}; before that: {}", last.detail(), first));
  };
  auto pauses = backoff();
  bool replaced = false;
  for (;;) {
    std::size_t strangers = 0;
    const auto round = in_turn();
    const auto named = static_cast<std::size_t>(std::ranges::count_if(
        round, [](const auto& member) { return member->configured || member->published; }));
    for (std::size_t i = 0; i < round.size(); ++i) {
      const auto state = co_await asio::this_coro::cancellation_state;
      if (state.cancelled() != asio::cancellation_type::none)
        co_return Error(errc::cancelled, "etcd: " + path);
      if (clock_.now() >= deadline) co_return given_up();
      const auto& member = round[i];
      const auto share = net::Failover::share_of(clock_.now(), deadline, round.size() - i);
      Verdict verdict;
      auto answer =
          co_await attempt(member, path, body, kind, linearizable, share, deadline, verdict);
      if (answer.has_value()) {
        member->id = answer->header.member_id;
        current_ = member;
        co_return answer;
      }
      // An attempt that only ran out of time says less than the reason of the one before.
      const bool late = clock_.now() >= deadline && answer.error().is(errc::unavailable);
      if (late && tried && !verdict.answered) co_return given_up();
      last = answer.error();
      if (!tried) first = last.detail();
      tried = true;
      if (last.is(errc::cancelled)) co_return last;
      if (last.is(errc::unavailable) || last.is(errc::timed_out) || last.is(errc::ambiguous))
        leave(member, last);
      if (!net::may_ask_another(last, effect_of(kind))) co_return last;
      if (verdict.stranger && (member->configured || member->published)) ++strangers;
    }
    const auto now = clock_.now();
    if (named > 0 && strangers == named && linearizable && !replaced && now >= lease_until_) {
      replaced = true;
      replace_cluster(last.detail());
      continue;
    }
    // Nobody that we know answers: there may be others by now. A name service that is away as well
    // must not keep us from trying the ones that we know.
    const auto patience =
        round.empty() ? deadline - now : std::min<Duration>(1s, (deadline - now) / 4);
    const auto looked_up = co_await look_up(now + patience);
    if (looked_up.has_error()) {
      if (looked_up.error().is(errc::cancelled)) co_return looked_up.error();
      if (round.empty()) last = looked_up.error();
    }
    const auto wake = clock_.now() + pauses.next();
    if (wake >= deadline) co_return given_up();
    if (round.empty() && !members_.empty()) continue;
    options_.logger.debug("etcd: {}: no member answered, once more in {} ms ({})",
                          path,
                          std::chrono::duration_cast<std::chrono::milliseconds>(wake - now).count(),
                          last.text());
    co_await sleep_until(clock_, wake);
  }
}

Async<std::unique_ptr<net::LineStream>> Members::open_watch(std::string base,
                                                            std::uint64_t start_revision,
                                                            MemberPtr& member,
                                                            TimePoint deadline) {
  if (options_.endpoints.empty() && options_.srv.empty())
    co_return Error(errc::invalid_argument, "etcd: no endpoint is configured");
  if (members_.empty()) {
    const auto looked_up = co_await look_up(deadline);
    if (looked_up.has_error()) co_return looked_up.error();
    if (members_.empty()) co_return Error(errc::unavailable, "etcd: no member is known yet");
  }
  member = current_;
  const auto share = net::Failover::share_of(clock_.now(), deadline, members_.size());
  const auto prepared = co_await prepare(member, share);
  if (prepared.has_error()) co_return prepared.error();
  // 3.3 refuses what it does not know.
  const bool fragments = member->prefix == "/v3";
  auto message = request(*member, "watch", wire::watch_request(base, start_revision, fragments));
  // Without this a member that is cut off from the others keeps the watch open and says nothing
  // (etcd #10819).
  message.header("Grpc-Metadata-hasleader", "true");
  message.effect(net::Effect::read);
  const auto& url = member->url;
  auto stream = co_await http_.open_lines(url, std::move(message), share);
  if (stream.has_error()) co_return stream.error().in("etcd");
  if ((*stream)->status() == 200) co_return stream;
  const auto status = (*stream)->status();
  const auto text = co_await (*stream)->next_line(share);
  const auto refusal = wire::parse_refusal(status, text.has_value() ? *text : std::string());
  if (wire::wants_authentication(refusal)) token_.clear();
  co_return Error(wire::meaning(refusal, Kind::read),
                  fmt::format("etcd {}: watch: {} (status {}, code {})",
                              url.origin(),
                              refusal.text,
                              refusal.http_status,
                              refusal.grpc_code));
}

}  // namespace spilo::etcd
