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

class Members {
 public:
  Members(boost::asio::any_io_executor executor, Clock& clock, Options options);

  // Sends one call, to the members in turn as far as its kind allows, until there is an answer or
  // the deadline.
  Async<Answer> call(
      std::string path, std::string body, wire::Kind kind, bool linearizable, TimePoint deadline);

  // Opens a watch on the present member. `member` tells which one it was.
  Async<std::unique_ptr<net::LineStream>> open_watch(std::string body,
                                                     std::size_t& member,
                                                     TimePoint deadline);
  // This member has failed somebody: the next call begins with another one.
  void leave(std::size_t member, const Error& reason);

  // Until then a change of the cluster's identity is not believed.
  void lease_until(TimePoint at) noexcept { lease_until_ = at; }
  // Called when a member has been left, and when the cluster has been replaced by another one.
  std::function<void(std::size_t member)> on_leave;
  std::function<void()> on_replaced;

  net::Backoff backoff() { return servers_.backoff(); }
  const Logger& logger() const noexcept { return options_.logger; }
  void forget_token() noexcept { token_.clear(); }

 private:
  Async<Answer> attempt(std::size_t member,
                        std::string path,
                        std::string body,
                        wire::Kind kind,
                        bool linearizable,
                        TimePoint share,
                        TimePoint deadline,
                        bool& stranger);
  Async<void> prepare(std::size_t member, TimePoint deadline);
  Async<void> authenticate(std::size_t member, TimePoint deadline);
  net::HttpRequest request(std::size_t member, std::string_view path, std::string body) const;
  Result<Answer> judge(const net::Url& url,
                       std::string_view body,
                       wire::Kind kind,
                       bool linearizable,
                       wire::Header floor,
                       TimePoint sent,
                       bool& stranger);
  void replace_cluster(const std::string& reason);

  Clock& clock_;
  Options options_;
  net::HttpClient http_;
  net::Failover servers_;
  std::vector<std::string> prefixes_;  // of each member: "/v3"; empty: not asked yet
  std::string token_;
  bool authentication_off_ = false;
  wire::Header seen_;  // the cluster, and the greatest revision and term that it showed
  TimePoint lease_until_{};
};

}  // namespace spilo::etcd
