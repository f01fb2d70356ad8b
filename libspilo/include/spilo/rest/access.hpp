// Who may change something through the REST interface (patroni-contract 5.2 and product.md 10).
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "spilo/model/cluster_view.hpp"
#include "spilo/ports/clock.hpp"
#include "spilo/rest/http_server.hpp"

namespace spilo::rest {

struct AccessOptions {
  std::string user;  // restapi.authentication; empty: none
  std::string password;
  std::vector<std::string> allowlist;      // addresses, networks (10.0.0.0/8), host names
  bool allowlist_include_members = false;  // also the addresses of the members' api_url
  ClientCertificates client_certificates = ClientCertificates::none;
};

// 127.0.0.0/8 and ::1.
bool is_loopback(std::string_view address) noexcept;
// An address against an address or a network ("10.0.0.0/8", "fd00::/8"); false for anything else.
bool matches_network(std::string_view address, std::string_view network) noexcept;
// "http://[fd00::1]:8008/patroni" -> "fd00::1".
std::string host_of(std::string_view api_url);

// Looks names up; an empty list when there is none. The default asks the system, on Asio's thread.
using Resolver = std::function<boost::asio::awaitable<std::vector<std::string>>(std::string host)>;

// One strand of execution. Answers are kept for a minute, and for longer while the name service
// does not answer: a store outage is no time to lose the members' addresses.
class AccessControl {
 public:
  AccessControl(Clock& clock, AccessOptions options, Resolver resolver = {});

  // From now on; forgets what was looked up.
  void reload(AccessOptions options);

  // A status other than 0 refuses the request. `members` are those of the last view, if any.
  // `failsafe`: POST /failsafe, which members may send although nothing is configured, for a
  // primary that has lost its store could not keep running otherwise; and which is not subject to
  // allowlist_include_members, for the list may be old.
  boost::asio::awaitable<net::HttpResponse> check(const Request& request,
                                                  std::vector<std::string> member_hosts,
                                                  bool failsafe);

 private:
  struct Known {
    std::vector<std::string> addresses;
    TimePoint asked_at{};
  };
  boost::asio::awaitable<bool> listed(std::string peer, std::vector<std::string> entries);
  boost::asio::awaitable<std::vector<std::string>> look_up(std::string host);

  Clock& clock_;
  AccessOptions options_;
  Resolver resolver_;
  std::map<std::string, Known> known_;
};

}  // namespace spilo::rest
