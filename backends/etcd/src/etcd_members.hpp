// One cluster of etcd members: which of them to ask, how to prove who we are, which answers have
// authority. Private.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "etcd_wire.hpp"
#include "spilo/etcd/etcd_store.hpp"
#include "spilo/net/failover.hpp"

namespace spilo::etcd {

// An answer that has authority. A class with a constructor, hence safe beside co_await.
class Answer {
 public:
  Answer() = default;
  Answer(json::Value document, wire::Header head, TimePoint at)
      : value(std::move(document)), header(head), sent(at) {}
  json::Value value;
  wire::Header header;
  TimePoint sent{};  // taken before the request was sent
};

// One server that can be asked. Shared, because an operation may use it while it leaves the list.
class Member {
 public:
  explicit Member(net::Url address) : url(std::move(address)) {}
  const net::Url url;
  std::string prefix;    // "/v3"; empty: not asked yet
  std::uint64_t id = 0;  // in its cluster; 0: not known
  bool learner = false;
  bool greeted = false;  // it has been asked whether it is one
  // Who named it. Nobody any more: it goes.
  bool configured = false;
  bool published = false;  // by an SRV record
  bool listed = false;     // by the cluster
};
using MemberPtr = std::shared_ptr<Member>;

class Members {
 public:
  Members(boost::asio::any_io_executor executor, Clock& clock, Options options);

  // Sends one call, to the members in turn as far as its kind allows, until there is an answer or
  // the deadline.
  Async<Answer> call(
      std::string path, std::string body, wire::Kind kind, bool linearizable, TimePoint deadline);

  // Opens a watch on all below `base` at the present member. `member` tells which one it was.
  Async<std::unique_ptr<net::LineStream>> open_watch(std::string base,
                                                     std::uint64_t start_revision,
                                                     MemberPtr& member,
                                                     TimePoint deadline);
  // This member has failed somebody: the next call begins with another one.
  void leave(const MemberPtr& member, const Error& reason);

  // Learns who the members are, when that is due; a failure is logged and tried again later. Takes
  // two seconds at most.
  Async<void> learn_members(TimePoint deadline);
  void learn_every(Duration period) noexcept { learn_every_ = period; }

  // Until then a change of the cluster's identity is not believed.
  void lease_until(TimePoint at) noexcept { lease_until_ = at; }
  // Called when a member has been left, and when the cluster has been replaced by another one.
  std::function<void(const MemberPtr& member)> on_leave;
  std::function<void()> on_replaced;

  net::Backoff backoff() { return net::Backoff(random_); }
  const Logger& logger() const noexcept { return options_.logger; }
  // What was learnt about authentication may have changed: a watch that is refused tells no more
  // than that.
  void forget_token() noexcept {
    token_.clear();
    authentication_off_ = false;
  }

 private:
  using Round = std::vector<MemberPtr>;
  struct Verdict {          // about an attempt that failed
    bool answered = false;  // by etcd, which knows why it refuses
    bool stranger = false;  // the answer has no authority
  };
  Async<Answer> attempt(MemberPtr member,
                        std::string path,
                        std::string body,
                        wire::Kind kind,
                        bool linearizable,
                        TimePoint share,
                        TimePoint deadline,
                        Verdict& verdict);
  Async<void> prepare(MemberPtr member, TimePoint deadline);
  Async<void> ask_version(MemberPtr member, TimePoint deadline);
  Async<void> greet(MemberPtr member, TimePoint deadline);
  Async<void> authenticate(MemberPtr member, TimePoint deadline);
  net::HttpRequest request(const Member& member, std::string_view path, std::string body) const;
  Result<Answer> judge(const net::Url& url,
                       std::string_view body,
                       wire::Kind kind,
                       bool linearizable,
                       wire::Header floor,
                       TimePoint sent,
                       Verdict& verdict);
  void replace_cluster(const std::string& reason);
  Round in_turn() const;  // beginning with the present one; learners last

  // ---- who there is (member_list.cpp) ----
  Async<void> look_up(TimePoint deadline);  // the SRV records, if there are any to look up
  Async<std::vector<net::Url>> ask_peers(std::vector<net::Url> peers, TimePoint deadline);
  void adopt_published(const std::vector<net::Url>& urls, std::size_t best);
  void adopt_listed(const std::vector<wire::MemberInfo>& members);
  MemberPtr member_at(const net::Url& url);
  bool is_usable(const net::Url& url) const;  // an address from the cluster's own list
  void drop_unnamed();
  std::size_t chance(std::size_t below) noexcept;

  boost::asio::any_io_executor executor_;
  Clock& clock_;
  Options options_;
  net::HttpClient http_;
  Round members_;
  MemberPtr current_;  // null while there is none
  std::string token_;
  bool authentication_off_ = false;
  wire::Header seen_;  // the cluster, and the greatest revision and term that it showed
  TimePoint lease_until_{};
  std::uint64_t random_;
  Duration learn_every_ = std::chrono::minutes(5);
  TimePoint learn_at_{};    // not before
  TimePoint look_up_at_{};  // not before
  bool learning_ = false;
  bool looking_up_ = false;
};

}  // namespace spilo::etcd
