// What a registration says, without any I/O. Private to the adapter, and to its tests.
#pragma once

#include <string>
#include <string_view>

#include "spilo/consul/service_registration.hpp"

namespace spilo::consul::wire {

// Lower case; dots, underscores and spaces become dashes, any other character its code point:
// "Größe_1" is "gru0246u0223e-1". At most 230 characters.
std::string service_name(std::string_view scope);
// "batman/n1"
std::string service_id(const RegistrationOptions& options);
// invalid_argument: conn_url or api_url can't be understood.
Result<std::string> service_request(const RegistrationOptions& options, const ServedNode& node);

}  // namespace spilo::consul::wire
