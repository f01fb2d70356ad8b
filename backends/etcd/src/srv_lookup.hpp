// The SRV records below which etcd's members are published. Private.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "spilo/ports/async.hpp"
#include "spilo/ports/clock.hpp"

namespace spilo::etcd {

struct SrvTarget {
  std::string host;
  std::uint16_t port = 0;
  std::uint16_t priority = 0;
  std::uint16_t weight = 0;
  bool operator==(const SrvTarget&) const = default;
};

// What one name had to say. A class with a constructor, hence safe beside co_await.
class SrvRecords {
 public:
  SrvRecords() = default;
  std::string name;                // "_etcd-client-ssl._tcp.example.com"
  std::vector<SrvTarget> targets;  // the best first: lowest priority, then highest weight
  bool tls = false;                // its members speak TLS
  bool peers = false;              // these are the addresses at which members speak to each other
};

// The six names in the order in which they are asked for, as Patroni does.
std::vector<SrvRecords> srv_names(const std::string& domain, const std::string& suffix);

// The records of a DNS answer; none when it has none. protocol: it is no DNS answer.
Result<std::vector<SrvTarget>> parse_srv_answer(const unsigned char* bytes, std::size_t size);

// Asks for the names in turn until one of them has records. unavailable: none has, or no name
// server answers. `name_server` is "127.0.0.1:5300" (IPv4), or empty for those of /etc/resolv.conf.
//
// The resolver of the C library waits for its answers, so this starts a thread for each lookup,
// which ends with it and knows nothing of the executor: it can be left behind at any time.
Async<SrvRecords> find_srv(boost::asio::any_io_executor executor,
                           Clock& clock,
                           std::string domain,
                           std::string suffix,
                           std::string name_server,
                           TimePoint deadline);

}  // namespace spilo::etcd
