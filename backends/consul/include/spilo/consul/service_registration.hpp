// A node in Consul's service catalogue, as Patroni's `register_service: true` (contract 1.6): the
// service is named after the scope and tagged with the node's role, so that
// "primary.batman.service.consul" is the primary's address; Consul's agent checks the node's REST
// interface.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <memory>
#include <string>
#include <vector>

#include "spilo/core/ids.hpp"
#include "spilo/core/log.hpp"
#include "spilo/net/http.hpp"
#include "spilo/ports/clock.hpp"
#include "spilo/ports/registry.hpp"

namespace spilo::consul {

struct RegistrationOptions {
  // The agent that the service is registered at and that checks it: the one of this machine.
  net::Url agent;
  std::string token;
  Scope scope;
  NodeName node;
  std::vector<std::string> tags;  // beside the role
  std::string check_interval = "5s";
  std::string check_tls_server_name;
  net::TlsOptions tls;
  Logger logger;
};

// Registered while PostgreSQL runs as a primary, replica or standby leader, taken out when it has
// stopped, left alone in between. The tags
// are the role (with "-" for "_"; a primary has "master" too) and `tags`; other tags may be set by
// hand (EnableTagOverride). A node that vanishes is taken out by the agent once the check has
// failed for five ttls, at least a minute.
class ServiceRegistration final : public ServiceRegistry {
 public:
  ServiceRegistration(boost::asio::any_io_executor executor,
                      Clock& clock,
                      RegistrationOptions options);
  ~ServiceRegistration() override;
  ServiceRegistration(const ServiceRegistration&) = delete;
  ServiceRegistration& operator=(const ServiceRegistration&) = delete;

  void show(ServedNode node) override;
  boost::asio::awaitable<void> run() override;
  Async<void> withdraw(TimePoint deadline) override;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace spilo::consul
