#include "cli/phase_watch.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <memory>

namespace spilo::cli {

using namespace std::chrono_literals;

Async<std::vector<Decision>> read_decisions(Cluster& cluster,
                                            Member member,
                                            std::uint64_t since,
                                            TimePoint deadline) {
  std::string path = fmt::format("/why?since={}", since);
  Result<Answer> answer =
      co_await cluster.call(member.api_url, "GET", std::move(path), "", deadline);
  if (answer.has_error()) co_return answer.error();
  auto decisions = parse_decisions(answer->body);
  if (!answer->ok() || !decisions)
    co_return Error(errc::unsupported,
                    "its daemon keeps no record of decisions (GET /why answered " +
                        std::to_string(answer->status) + ")");
  co_return std::move(*decisions);
}

PhaseWatch::PhaseWatch(Cluster& cluster, std::vector<Member> members, Shows shows)
    : cluster_(cluster), shows_(shows) {
  for (auto& member : members) {
    auto& ring = rings_.emplace_back();
    ring.member = std::move(member);
  }
}

void PhaseWatch::begin() {
  using Reading = Pending<std::vector<Decision>>;
  std::vector<std::unique_ptr<Reading>> answers;
  auto& app = cluster_.app();
  for (auto& ring : rings_)
    answers.push_back(app.start(read_decisions(cluster_, ring.member, 0, app.in(1s))));
  for (std::size_t i = 0; i < rings_.size(); ++i) {
    const auto decisions = answers[i]->get();
    if (decisions.has_error()) {
      rings_[i].supported = !decisions.error().is(errc::unsupported);
      continue;
    }
    for (const auto& decision : *decisions)
      rings_[i].next = std::max(rings_[i].next, decision.sequence);
  }
}

void PhaseWatch::print_new(Duration limit) {
  using Reading = Pending<std::vector<Decision>>;
  std::vector<std::pair<Ring*, std::unique_ptr<Reading>>> answers;
  auto& app = cluster_.app();
  for (auto& ring : rings_)
    if (ring.supported)
      answers.emplace_back(
          &ring, app.start(read_decisions(cluster_, ring.member, ring.next, app.in(limit))));
  std::vector<Decision> fresh;
  for (auto& [ring, answer] : answers) {
    auto decisions = answer->get();
    if (decisions.has_error()) continue;  // the outcome does not depend on it
    for (auto& decision : *decisions) {
      ring->next = std::max(ring->next, decision.sequence);
      if (shows_ == Shows::everything || !phase_of(decision.rule).empty())
        fresh.push_back(std::move(decision));
    }
  }
  sort_decisions(fresh);
  for (const auto& decision : fresh) {
    if (!start_) start_ = decision.time;
    app.say(phase_line(decision, *start_));
  }
}

}  // namespace spilo::cli
