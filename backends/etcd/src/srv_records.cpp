// Which SRV records there may be, and how an answer is read. Pure.
#include <arpa/nameser.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <resolv.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "srv_lookup.hpp"

namespace spilo::etcd {

std::vector<SrvRecords> srv_names(const std::string& domain, const std::string& suffix) {
  std::vector<SrvRecords> out;
  for (const std::string_view kind :
       {"-client-ssl", "-client", "-ssl", "", "-server-ssl", "-server"}) {
    SrvRecords one;
    one.name = fmt::format("_etcd{}{}{}._tcp.{}", kind, suffix.empty() ? "" : "-", suffix, domain);
    one.tls = kind.ends_with("-ssl");
    one.peers = kind.starts_with("-server");
    out.push_back(std::move(one));
  }
  return out;
}

Result<std::vector<SrvTarget>> parse_srv_answer(const unsigned char* bytes, std::size_t size) {
  ns_msg message;
  if (size > NS_MAXMSG || ::ns_initparse(bytes, static_cast<int>(size), &message) != 0)
    return Error(errc::protocol, "the name server's answer is no DNS message");
  std::vector<SrvTarget> out;
  for (int i = 0; i < ns_msg_count(message, ns_s_an); ++i) {
    ns_rr record;
    if (::ns_parserr(&message, ns_s_an, i, &record) != 0)
      return Error(errc::protocol,
                   fmt::format("record {} of the name server's answer can't be read", i));
    if (ns_rr_type(record) != ns_t_srv) continue;  // the way to it: CNAME
    const unsigned char* data = ns_rr_rdata(record);
    std::array<char, NS_MAXDNAME> host{};
    if (ns_rr_rdlen(record) < 7 || ::dn_expand(ns_msg_base(message),
                                               ns_msg_end(message),
                                               data + 6,
                                               host.data(),
                                               static_cast<int>(host.size())) < 0)
      return Error(errc::protocol,
                   fmt::format("record {} of the name server's answer names no host", i));
    SrvTarget target;
    target.priority = static_cast<std::uint16_t>(ns_get16(data));
    target.weight = static_cast<std::uint16_t>(ns_get16(data + 2));
    target.port = static_cast<std::uint16_t>(ns_get16(data + 4));
    target.host = host.data();
    // An empty host, which is "." in the record, says that the service is not offered there.
    if (!target.host.empty() && target.host != "." && target.port != 0)
      out.push_back(std::move(target));
  }
  std::ranges::stable_sort(out, [](const SrvTarget& a, const SrvTarget& b) {
    return a.priority != b.priority ? a.priority < b.priority : a.weight > b.weight;
  });
  return out;
}

}  // namespace spilo::etcd
