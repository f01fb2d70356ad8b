// Who the members of the cluster are: what the configuration, the SRV records and the cluster
// itself say.
#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/this_coro.hpp>
#include <utility>

#include "etcd_members.hpp"
#include "srv_lookup.hpp"

namespace spilo::etcd {
namespace asio = boost::asio;
namespace {

using namespace std::chrono_literals;

constexpr auto look_up_pause = 2s;  // between two lookups
constexpr auto learn_pause = 10s;   // after a list that could not be had
constexpr auto learn_limit = 2s;
// A list of more members than any cluster has comes from something else.
constexpr std::size_t members_max = 64;

// An address at which only programs of the same machine find the server.
bool is_loopback(const std::string& host) {
  return host == "localhost" || host.starts_with("127.") || host == "::1";
}

// What a server listens on when it was not told its address: it names no machine.
bool is_unspecified(const std::string& host) {
  return host.empty() || host == "0.0.0.0" || host == "::";
}

}  // namespace

MemberPtr Members::member_at(const net::Url& url) {
  const auto origin = url.origin();
  for (const auto& member : members_)
    if (member->url.origin() == origin) return member;
  members_.push_back(std::make_shared<Member>(url));
  return members_.back();
}

void Members::drop_unnamed() {
  std::erase_if(members_, [](const auto& member) {
    return !member->configured && !member->published && !member->listed;
  });
  if (std::ranges::find(members_, current_) != members_.end()) return;
  current_ = nullptr;
  if (!members_.empty()) current_ = members_[chance(members_.size())];
}

// ---- SRV records -------------------------------------------------------------------------------

// The first `best` of them have the best priority: nodes begin at one of those.
void Members::adopt_published(const std::vector<net::Url>& urls, std::size_t best) {
  const bool first = current_ == nullptr;
  for (const auto& member : members_) member->published = false;
  for (const auto& url : urls) {
    if (members_.size() >= members_max) break;
    member_at(url)->published = true;
  }
  drop_unnamed();
  if (first && best > 0) current_ = member_at(urls[chance(best)]);
}

// A name of the -server kind leads to where members speak to each other; there they show who they
// are.
Async<std::vector<net::Url>> Members::ask_peers(std::vector<net::Url> peers, TimePoint deadline) {
  Error last(errc::unavailable, "etcd: no peer is published");
  for (std::size_t i = 0; i < peers.size(); ++i) {
    const auto& peer = peers[i];
    const auto now = clock_.now();
    const auto share = now + (deadline - now) / static_cast<std::int64_t>(peers.size() - i);
    const auto response = co_await http_.request(peer, net::HttpRequest("GET", "/members"), share);
    if (response.has_error()) {
      last = response.error().in("etcd");
      if (last.is(errc::cancelled)) co_return last;
      continue;
    }
    std::vector<net::Url> found;
    for (const auto& member : wire::parse_peer_members(response->body()))
      for (const auto& text : member.client_urls) {
        auto url = net::Url::parse(text);
        if (url.has_value() && !is_unspecified(url->host())) found.push_back(std::move(*url));
      }
    if (!found.empty()) co_return found;
    last = Error(errc::unavailable,
                 fmt::format("etcd {}: /members (status {}) lists no member with a client URL",
                             peer.origin(),
                             response->status()));
  }
  co_return last;
}

Async<void> Members::look_up(TimePoint deadline) {
  if (options_.srv.empty() || looking_up_ || clock_.now() < look_up_at_)
    co_return boost::system::in_place_value;
  looking_up_ = true;
  look_up_at_ = clock_.now() + look_up_pause;
  const auto records = co_await find_srv(
      executor_, clock_, options_.srv, options_.srv_suffix, options_.name_server, deadline);
  Result<std::vector<net::Url>> found = std::vector<net::Url>();
  std::size_t best = 0;
  if (records.has_error()) {
    found = records.error().in("etcd");
  } else {
    for (const auto& target : records->targets) {
      found->push_back(net::Url(target.host, target.port, records->tls));
      if (target.priority == records->targets.front().priority) ++best;
    }
    if (records->peers) {
      auto peers = std::move(*found);
      found = co_await ask_peers(std::move(peers), deadline);
      best = found.has_value() ? found->size() : 0;
    }
  }
  looking_up_ = false;
  if (found.has_error()) {
    options_.logger.warning("{}", found.error().text());
    co_return found.error();
  }
  options_.logger.debug("etcd: {} names {} members", records->name, found->size());
  adopt_published(*found, std::min(best, members_max));
  co_return boost::system::in_place_value;
}

// ---- the cluster's own list --------------------------------------------------------------------

bool Members::is_usable(const net::Url& url) const {
  if (is_unspecified(url.host())) return false;
  bool named_loopback = false;
  bool named_tls = false;
  for (const auto& member : members_)
    if (member->configured || member->published) {
      named_loopback = named_loopback || is_loopback(member->url.host());
      named_tls = named_tls || member->url.tls();
    }
  if (is_loopback(url.host()) && !named_loopback) return false;
  // The password must not travel in the clear because a list says so.
  return url.tls() || !named_tls;
}

void Members::adopt_listed(const std::vector<wire::MemberInfo>& list) {
  for (const auto& member : members_) member->listed = false;
  for (const auto& info : list) {
    // It may be known already, by another name of the same machine; one that the configuration uses
    // stays, and the one that was taken from an earlier list goes.
    const auto is_it = [&](const MemberPtr& member) {
      return info.id != 0 && member->id == info.id;
    };
    const auto is_named = [&](const MemberPtr& member) {
      return is_it(member) && (member->configured || member->published);
    };
    auto found = std::ranges::find_if(members_, is_named);
    if (found == members_.end()) found = std::ranges::find_if(members_, is_it);
    if (found != members_.end()) {
      (*found)->learner = info.learner;
      (*found)->listed = true;
      if (current_ && is_it(current_)) current_ = *found;
      continue;
    }
    for (const auto& text : info.client_urls) {
      if (info.learner || members_.size() >= members_max) break;
      const auto url = net::Url::parse(text);
      if (url.has_error() || !is_usable(*url)) continue;
      member_at(*url)->listed = true;
      break;
    }
  }
  drop_unnamed();
}

Async<void> Members::learn_members(TimePoint deadline) {
  if (learning_ || clock_.now() < learn_at_) co_return boost::system::in_place_value;
  learning_ = true;
  const auto until = std::min(deadline, clock_.now() + learn_limit);
  const auto looked_up = co_await look_up(until);
  Error failure = looked_up.has_error() ? looked_up.error() : Error();
  bool asked = false;
  if (!options_.use_proxies && !failure.is(errc::cancelled)) {
    const auto answer = co_await call("cluster/member/list", "{}", wire::Kind::read, false, until);
    asked = answer.has_value();
    if (asked) adopt_listed(wire::parse_members(answer->value));
    if (!asked) failure = answer.error();
  }
  learning_ = false;
  const bool done = asked || (options_.use_proxies && looked_up.has_value());
  learn_at_ = clock_.now() + (done ? learn_every_ : std::min<Duration>(learn_pause, learn_every_));
  if (done) co_return boost::system::in_place_value;
  // Nobody waits for the list, and an operation that needs a member says what is wrong itself.
  if (failure.is(errc::cancelled)) co_return failure;
  // A user may be allowed its own keys and nothing else: asking again would not change that.
  if (failure.is(errc::denied) || failure.is(errc::unsupported))
    learn_at_ = clock_.now() + learn_every_;
  options_.logger.debug("etcd: the list of members can't be had: {}", failure.text());
  co_return boost::system::in_place_value;
}

}  // namespace spilo::etcd
