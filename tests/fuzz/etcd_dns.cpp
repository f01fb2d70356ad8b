#include "fuzz/targets.hpp"
#include "srv_lookup.hpp"

namespace spilo::fuzz {

void etcd_dns(std::string_view bytes) {
  const auto targets =
      etcd::parse_srv_answer(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
  if (targets.has_error()) return;
  for (const auto& target : *targets)
    must(!target.host.empty() && target.port != 0, "a target can be spoken to");
}

}  // namespace spilo::fuzz
