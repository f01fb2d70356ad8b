// dcs::Store on ZooKeeper 3.5 or later, through the single-threaded C client.
//
// How the port maps: a key is a znode, Version is (czxid, dataVersion), a session is a ZooKeeper
// session and SessionId its number in hexadecimal; keys bound to it are ephemeral znodes. The
// layout is Patroni's (section zookeeper), so both can work on one cluster.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "spilo/core/log.hpp"
#include "spilo/ports/clock.hpp"
#include "spilo/ports/dcs.hpp"

namespace spilo::zookeeper {

// "<chroot>/<name_space>/<scope>" with repeated slashes collapsed and none at the end; an empty
// name space leaves "<chroot>/<scope>".
std::string base_path(std::string_view chroot, std::string_view name_space, const Scope& scope);

struct Server {
  std::string host;  // a name or an address; IPv6 without brackets
  std::uint16_t port = 2181;
};

struct Acl {           // who may do what with the znodes that we create
  std::string scheme;  // "digest", "x509", "ip", …
  std::string id;      // as the scheme wants it; for digest user:base64(sha1(user:password))
  enum Permission { read = 1, write = 2, create = 4, erase = 8, admin = 16, all = 31 };
  int permissions = all;
};

struct Auth {  // what we prove to every server we connect to
  std::string scheme;
  std::string credential;  // for digest user:password
};

struct Options {
  std::vector<Server> servers;
  std::string base;       // from base_path()
  std::vector<Acl> acls;  // empty: everybody may do everything
  std::vector<Auth> auths;
  Logger logger;
};

// Thread-safety: all stores of a process must be used on one thread, because the library numbers
// the requests of all of its handles with one plain counter. Use a store on the executor it was
// made with; the clock must outlive it. It may be destroyed while operations are in flight, if
// their coroutines are not resumed any more.
//
// Nothing here blocks: names are resolved by Asio, and a session is closed only when the library
// has no reason left to wait (see zk_link.hpp). While no server can be reached, reads, renewals and
// commits that were not sent wait for one until their deadline; nothing is ever queued in the
// library, so nothing is carried out later than its caller thinks. A commit whose connection broke
// is ambiguous and is not repeated.
//
// The lease. ZooKeeper's followers answer pings and reads by themselves, up to tickTime *
// syncLimit after they were cut off from the leader, and the leader learns only about twice a tick
// which sessions they heard of. So a renewal is a `sync`, which only a leader with a quorum
// answers, and what it proves is that the leader knows of our last sign of life that is older by
// 3/10 of the session's timeout (by default at least two ticks): valid_until is the time before
// *that* one was sent, plus the timeout that the server granted. With renewals every third of the
// timeout a lease lasts for two thirds of it after each renewal. A session that nobody renews any
// more is ended by the store itself once its time is over: the library's own pings never keep a
// lock alive.
//
// Transactions. ZooKeeper can check dataVersion, which starts again with each life of a znode, but
// not czxid. Therefore each of our transactions that creates a znode also rewrites the scope's own
// znode, and one that depends on the life of a key checks that this znode was not rewritten since
// the key was looked at. Between clients of this library that makes (czxid, dataVersion) exact;
// creations by other programs are noticed through watches, a round trip later.
//
// Errors beyond those of dcs::Store: denied: an ACL does not allow it, or the credentials were
// refused; unsupported: the server knows no transactions.
//
// limits(): what a server can be configured to grant. It grants 2 to 20 of its ticks unless told
// otherwise (4 s to 40 s by default); the lease tells what was granted. A ttl other than before
// applies from the next session on. Values to 1,000,000 bytes, a transaction to 1,040,000, as far
// as jute.maxbuffer was not lowered on the servers.
class ZookeeperStore final : public dcs::Store {
 public:
  ZookeeperStore(boost::asio::any_io_executor executor, Clock& clock, Options options);
  // Does not end the session: what is bound to it lives until its time is over.
  ~ZookeeperStore() override;
  ZookeeperStore(const ZookeeperStore&) = delete;
  ZookeeperStore& operator=(const ZookeeperStore&) = delete;

  dcs::Limits limits() const noexcept override;
  Async<dcs::Snapshot> read(dcs::Freshness freshness, TimePoint deadline) override;
  Async<dcs::Committed> commit(dcs::Transaction transaction, TimePoint deadline) override;
  Async<dcs::Lease> renew(Duration ttl, TimePoint deadline) override;
  Async<void> end_session(TimePoint deadline) override;
  Async<dcs::Index> changed_since(dcs::Index seen, TimePoint deadline) override;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace spilo::zookeeper
