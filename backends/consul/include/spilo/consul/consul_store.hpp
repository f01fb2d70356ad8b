// dcs::Store on Consul 1.8 or later, through the HTTP interface of its agents and servers.
//
// How the port maps: Version is (CreateIndex, ModifyIndex), Index is the X-Consul-Index of
// everything below the scope, a session is a Consul session and SessionId its ID. The layout of the
// keys is Patroni's (section consul), so both can work on one cluster.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "spilo/core/log.hpp"
#include "spilo/net/http.hpp"
#include "spilo/ports/clock.hpp"
#include "spilo/ports/dcs.hpp"

namespace spilo::consul {

// "<name_space>/<scope>/" with repeated slashes collapsed and none in front; an empty name space
// leaves "<scope>/".
std::string base_path(std::string_view name_space, const Scope& scope);

struct Options {
  std::vector<net::Url> servers;  // agents or servers of one data centre
  std::string base;               // from base_path(); ends with a slash
  std::string token;              // ACL token; empty: the anonymous one
  std::string dc;                 // data centre; empty: that of the servers
  // What Freshness::local_replica asks for: "default", "consistent" or "stale". Linearizable reads
  // are always "consistent".
  std::string consistency = "default";
  std::string session_name;         // for people who look at the sessions: "batman-n1"
  std::vector<std::string> checks;  // health checks that end the session; none is best, see below
  net::TlsOptions tls;
  std::uint64_t seed = 0;  // for the jitter of repeated attempts; different on every node
  Logger logger;
};

// Use it on the executor it was made with; the clock must outlive it; destroy it after its
// operations have completed.
//
// Several servers are tried in turn within the deadline of an operation, each with its share of the
// time, starting at the one that answered last. A commit is sent a second time only when it
// certainly was not done before. While no server can be reached, reads, renewals and unsent commits
// are tried again with growing, jittered pauses until their deadline.
//
// The ttl. Consul promises to keep a session for one ttl after a renewal, and takes up to two: its
// leader waits exactly twice the ttl, and a new leader begins to count anew: 8.9 s were measured for
// T = 3 s when the leader was killed. So with a ttl of T:
//   the lease           ends T after the renewal was sent: no store may end it sooner
//   a dead holder's key is free 2T after its last renewal reached the leader. Renewals are sent
//   every
//                       T/3, hence 5/3 T to 2T after its death; measured 6.00 s for T = 3 s.
//   lock-delay          zero in our sessions. It is there for holders that don't know when to stop;
//                       ours do. A foreign session's lock-delay is waited for within the deadline.
// Patroni sends half of its ttl, so that the key is free after one. We don't: the lease would be
// half as long as everything above counts on (renewals every third of the ttl, the time to stop a
// server before its end, loop_wait + 2*retry_timeout <= ttl). To replace a dead node as fast as
// Patroni with `ttl: 30` did, set `ttl: 15` with `loop_wait: 5` and `retry_timeout: 5`. A
// switchover and an orderly stop free the key at once, whatever the ttl.
//
// limits(): values to 380 KB, because a transaction of Consul's is limited to 512 KB of text; all
// values of one transaction share that. Sessions from 1 s to a day, until a server has refused one
// as too short: then its session_ttl_min (10 s unless configured) is what limits() says and what is
// used instead of a shorter ttl, with one warning; the lease tells what was granted. A ttl other
// than before applies from the next session on.
//
// Health checks. Without `checks` only the ttl ends a session; with Consul's default, "serfHealth",
// it also ends when gossip loses the agent's node for some seconds. An agent that leaves its
// cluster in order takes the sessions along that were made through it, whatever their checks.
//
// Errors beyond those of dcs::Store: denied: the token is unknown or may not; also when a read
// shows nothing because Consul hides what the token may not see. An idle client makes no calls but
// those it is asked for: changed_since() is one blocking query, renewed after its time.
class ConsulStore final : public dcs::Store {
 public:
  ConsulStore(boost::asio::any_io_executor executor, Clock& clock, Options options);
  ~ConsulStore() override;
  ConsulStore(const ConsulStore&) = delete;
  ConsulStore& operator=(const ConsulStore&) = delete;

  dcs::Limits limits() const noexcept override;
  Async<dcs::Snapshot> read(dcs::Freshness freshness, TimePoint deadline) override;
  Async<dcs::Committed> commit(dcs::Transaction transaction, TimePoint deadline) override;
  Async<dcs::Lease> renew(Duration ttl, TimePoint deadline) override;
  Async<void> end_session(TimePoint deadline) override;
  Async<dcs::Index> changed_since(dcs::Index seen, TimePoint deadline) override;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace spilo::consul
