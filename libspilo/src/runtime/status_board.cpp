#include "spilo/runtime/status_board.hpp"

#include <algorithm>
#include <utility>

#include "spilo/core/assert.hpp"

namespace spilo {

void StatusBoard::publish(std::shared_ptr<const PublicStatus> status) {
  SPILO_ASSERT(status != nullptr, "a picture to publish");
  status_ = std::move(status);
  // A listener may subscribe or unsubscribe, itself included, so the walk goes by id over a copy.
  std::vector<int> ids;
  ids.reserve(listeners_.size());
  for (const auto& [id, changed] : listeners_) ids.push_back(id);
  for (const int id : ids) {
    const auto at = std::find_if(
        listeners_.begin(), listeners_.end(), [id](const auto& l) { return l.first == id; });
    if (at == listeners_.end()) continue;
    const auto changed = at->second;
    changed();
  }
}

void StatusBoard::record(DecisionRecord record) {
  // Readers ask for what came after a sequence number, so it must grow even when the caller does
  // not count.
  const std::uint64_t last = records_.empty() ? 0 : records_.back().sequence;
  if (record.sequence <= last) record.sequence = last + 1;
  records_.push_back(std::move(record));
  while (records_.size() > ring_) records_.pop_front();
}

int StatusBoard::subscribe(std::function<void()> changed) {
  const int id = next_id_++;
  listeners_.emplace_back(id, std::move(changed));
  return id;
}

void StatusBoard::unsubscribe(int id) {
  std::erase_if(listeners_, [id](const auto& l) { return l.first == id; });
}

}  // namespace spilo
