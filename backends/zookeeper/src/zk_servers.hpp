// From the servers' names to what the library is given: numeric addresses, because it looks names
// up with a call that blocks. Private.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <string>
#include <vector>

#include "spilo/ports/clock.hpp"
#include "spilo/zookeeper/zookeeper_store.hpp"

namespace spilo::zookeeper {

// "10.0.0.1:2181,[::1]:2181", of those servers that have an address; each is waited for until the
// deadline at most. unavailable: none has one, with the reason of each.
Async<std::string> addresses_of(boost::asio::any_io_executor executor,
                                Clock& clock,
                                std::vector<Server> servers,
                                TimePoint deadline);
bool is_numeric(const std::vector<Server>& servers);  // nothing has to be looked up
std::string to_text(const std::vector<Server>& servers);

}  // namespace spilo::zookeeper
