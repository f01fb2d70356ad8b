// From the machine's state to what others see. Private to runtime/.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "spilo/ha/machine.hpp"
#include "spilo/runtime/status_board.hpp"

namespace spilo {

std::shared_ptr<const PublicStatus> make_public_status(const ha::Machine& machine,
                                                       const ha::Decision& decision,
                                                       std::string progress,
                                                       std::uint64_t version);
DecisionRecord make_record(const ha::Machine& machine,
                           std::string_view event,
                           const ha::Decision& decision,
                           std::uint64_t sequence);

}  // namespace spilo
