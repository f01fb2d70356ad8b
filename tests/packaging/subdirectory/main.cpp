// The pure layers alone: no event loop, no clock, nothing but values.
#include <cstdio>

#include "spilo/ha/machine.hpp"
#include "spilo/model/dynamic_config.hpp"

int main() {
  const auto lsn = spilo::parse_lsn("16/B374D848");
  if (!lsn || spilo::to_text(*lsn) != "16/B374D848" || spilo::ha::rules().empty()) return 1;
  spilo::ha::Identity identity;
  identity.node = spilo::NodeName("n1");
  const auto decision = spilo::ha::decide(identity, {}, {});
  std::printf("%s: %s\n", std::string(decision.rule).c_str(), decision.summary.c_str());
  return 0;
}
