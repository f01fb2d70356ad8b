// dcs::Store on etcd 3.3 or later, through the JSON gateway that every etcd server has built in.
//
// How the port maps: Index is the store's revision, Version is (create_revision, mod_revision), a
// session is a lease and SessionId its decimal number. The layout of the keys is Patroni's (section
// etcd3), so both can work on one cluster.
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

namespace spilo::etcd {

// "/<name_space>/<scope>/" with repeated slashes collapsed; an empty name space leaves "/<scope>/".
std::string base_path(std::string_view name_space, const Scope& scope);

struct Options {
  std::vector<net::Url> endpoints;  // client URLs; a user and password in one of them is used too
  // The domain whose SRV records name the members, instead of or beside the endpoints:
  // _etcd-client-ssl._tcp.<srv>, then _etcd-client, _etcd-ssl, _etcd, _etcd-server-ssl and
  // _etcd-server; the first that has records counts. With a suffix they are
  // _etcd-client-ssl-<suffix>, and so on. Names with -ssl mean https.
  std::string srv;
  std::string srv_suffix;
  // The endpoints are proxies or forwarded ports: the members' own addresses are not asked for and
  // not used.
  bool use_proxies = false;
  std::string base;      // from base_path(); begins and ends with a slash
  std::string username;  // empty: no authentication
  std::string password;
  net::TlsOptions tls;
  std::uint64_t seed = 0;   // for the jitter of repeated attempts; different on every node
  std::string name_server;  // for SRV records, "127.0.0.1:5300"; empty: those of /etc/resolv.conf
  Logger logger;
};

// Use it on the executor it was made with; the clock must outlive it; destroy it after its
// operations have completed.
//
// Several endpoints are tried in turn within the deadline of an operation, each with its share of
// the time, starting at the one that answered last. A commit is sent a second time only when it
// certainly was not sent before. While no server can be reached, reads, renewals and unsent commits
// are tried again with growing, jittered pauses until their deadline.
//
// Unless use_proxies is set, changed_since() also asks for the list of the cluster's members, when
// it begins, every ten ttls and after a member has failed; those that are not among the endpoints
// are used beside them, so that a cluster may move while we run. Addresses that can't be meant for
// us are left out: of learners, loopback addresses unless an endpoint is one, http when our
// endpoints are https. SRV records are read again then, and when no member answers. Reading them
// starts a thread that ends with the answer; nothing else here has threads.
//
// Errors beyond those of dcs::Store: denied: etcd refused user and password, or the user may not
// touch these keys; unsupported: the server is older than 3.3. An answer with a lower Raft term
// than one seen before, or from another cluster, has no authority and counts as unavailable. When
// every endpoint gives such answers and our lease has run out, the cluster has been replaced or
// restored, and its new history is accepted with a warning.
//
// limits(): sessions from 2 s on, in whole seconds (rounded up; the lease tells what was granted),
// values to 1.4 MB, all those of a transaction together. A ttl other than before applies from the next session on. An idle client makes
// no calls but those it is asked for: changed_since() keeps one watch open between its calls.
class EtcdStore final : public dcs::Store {
 public:
  EtcdStore(boost::asio::any_io_executor executor, Clock& clock, Options options);
  ~EtcdStore() override;
  EtcdStore(const EtcdStore&) = delete;
  EtcdStore& operator=(const EtcdStore&) = delete;

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

}  // namespace spilo::etcd
