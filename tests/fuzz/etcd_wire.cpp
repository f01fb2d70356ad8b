#include "etcd_wire.hpp"

#include "fuzz/targets.hpp"

namespace spilo::fuzz {

void etcd_wire(std::string_view bytes) {
  using namespace etcd;
  const std::string base = "/service/batman/";
  if (const auto plain = wire::from_base64(bytes))
    must(wire::from_base64(wire::base64(*plain)) == plain, "base64, there and back");
  must(bytes.empty() || wire::prefix_end(bytes) > bytes || wire::prefix_end(bytes).size() == 1,
       "the end of a prefix lies behind it");
  if (const auto document = json::parse(bytes); document.has_value()) {
    const auto& answer = wire::payload(*document);
    static_cast<void>(wire::header_of(answer));
    if (const auto read = wire::parse_range(answer, base); read.has_value())
      must(read->index().value > 0, "a snapshot has a revision");
    dcs::Transaction transaction;
    transaction.require("leader", dcs::Condition::absent());
    transaction.put("leader", "n1", dcs::Binding::session).put("status", "1").erase("failover");
    static_cast<void>(wire::parse_txn(answer, base, transaction));
    must(wire::parse_lease(answer).ttl_seconds >= 0, "a ttl is not negative");
    static_cast<void>(wire::parse_members(answer));
  }
  static_cast<void>(wire::parse_watch(bytes));
  static_cast<void>(wire::parse_version(bytes));
  static_cast<void>(wire::parse_peer_members(bytes));
  static_cast<void>(wire::parse_status(bytes));
  for (const int status : {200, 401, 404, 503}) {
    const auto refusal = wire::parse_refusal(status, bytes);
    static_cast<void>(wire::meaning(refusal, wire::Kind::write));
    static_cast<void>(wire::wants_authentication(refusal));
  }
}

}  // namespace spilo::fuzz
