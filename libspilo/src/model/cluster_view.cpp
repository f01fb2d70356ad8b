#include "spilo/model/cluster_view.hpp"

#include <algorithm>

namespace spilo {

const Member* ClusterView::member(const NodeName& name) const noexcept {
  const auto at = std::ranges::find(members, name, &Member::name);
  return at == members.end() ? nullptr : &*at;
}

TimelineId ClusterView::timeline() const noexcept {
  if (!history) return TimelineId{};
  if (history->empty()) return TimelineId{1};
  return TimelineId{to_int(history->back().timeline) + 1};
}

}  // namespace spilo
