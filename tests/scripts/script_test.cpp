// Runs each *.txt beside this file: lines that begin with "> " are events for one node's machine,
// what follows is what it decided.
#include <doctest/doctest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "../table/healthy.hpp"

using namespace spilo;
using namespace std::chrono_literals;

namespace {

std::vector<std::string> words_of(const std::string& line) {
  std::istringstream in(line);
  std::vector<std::string> words;
  for (std::string word; in >> word;) words.push_back(word);
  return words;
}

// "key=value" arguments; a word without "=" is a flag.
class Arguments {
 public:
  explicit Arguments(const std::vector<std::string>& words) {
    for (const auto& word : words) {
      const auto at = word.find('=');
      values_[word.substr(0, at)] = at == std::string::npos ? "" : word.substr(at + 1);
    }
  }
  bool has(const std::string& key) const { return values_.contains(key); }
  std::string text(const std::string& key, std::string otherwise = {}) const {
    const auto at = values_.find(key);
    return at == values_.end() ? otherwise : at->second;
  }
  std::uint64_t number(const std::string& key, std::uint64_t otherwise) const {
    return has(key) ? std::stoull(text(key)) : otherwise;
  }

 private:
  std::map<std::string, std::string> values_;
};

// One node n1 of a three-node cluster, driven by hand.
class Script {
 public:
  Script() : base_(tables::healthy()), machine_(base_.id) {}

  std::string run(const std::string& line) {
    auto words = words_of(line);
    REQUIRE(words.size() >= 2);
    now_ = tables::t0 + std::chrono::milliseconds(std::stoll(words[0]));
    const auto verb = words[1];
    const Arguments arguments({words.begin() + 2, words.end()});
    auto event = make(verb, arguments);
    const auto decision = machine_.step(
        now_, WallTime(1767322800000ms + (now_ - tables::t0) / 1ms * 1ms), std::move(event));
    std::string out = std::string(decision.rule) + ": " + decision.summary + "\n";
    for (const auto& effect : decision.effects) {
      if (const auto* task = std::get_if<ha::StartTask>(&effect)) task_ = task->id;
      if (const auto* lock = std::get_if<ha::AcquireLock>(&effect)) reserved_ = lock->reserved;
      // The member key follows every change; its text is the codec's business.
      out += "  " +
             (std::holds_alternative<ha::PublishMember>(effect) ? "publish-member"
                                                                : ha::to_text(effect)) +
             "\n";
    }
    return out;
  }

 private:
  ha::Event make(const std::string& verb, const Arguments& a) {
    if (verb == "woke") return ha::Woke{};
    if (verb == "store-changed") return ha::StoreChanged{};
    if (verb == "postgres-changed") return ha::PostgresChanged{};
    if (verb == "stop") return ha::StopAsked{};
    if (verb == "lease")
      return ha::LeaseRenewed{SessionId(a.text("session", "s1")),
                              now_ + std::chrono::milliseconds(a.number("left", 10000))};
    if (verb == "renewal-failed")
      return ha::RenewalFailed{Error(errc::unavailable, "connection refused")};
    if (verb == "session-lost") return ha::SessionLost{Error(errc::session_lost, "expired")};
    if (verb == "read") return ha::ClusterRead{view(a)};
    if (verb == "read-failed")
      return ha::ReadFailed{Error(errc::unavailable, "connection refused")};
    if (verb == "observed") return ha::PostgresObserved{node(a)};
    if (verb == "peer") return ha::PeerAnswered{peer(a)};
    if (verb == "acquired") {
      auto term = machine_.facts().cluster->term;
      term.number += 1;
      term.holder = NodeName("n1");
      term.version = {70, 70};
      term.reserved = reserved_;
      return ha::LockAcquired{LeaderKey{NodeName("n1"), {70, 70}, machine_.facts().session}, term};
    }
    if (verb == "refused") return ha::LockRefused{Error(errc::conflict, "somebody was faster")};
    if (verb == "released") return ha::LockReleased{};
    if (verb == "published")
      return ha::Written{ha::InFlight::publish, "{}", machine_.facts().session, {}};
    if (verb == "claimed")
      return ha::Written{ha::InFlight::initialize, "", machine_.facts().session, {}};
    if (verb == "erased") return ha::Written{ha::InFlight::initialize, "erased", {}, {}};
    if (verb == "guard") return ha::GuardReady{!a.has("failed"), a.text("failed")};
    if (verb == "task-done") {
      std::optional<Error> failure;
      if (a.has("failed")) failure = Error(errc::command_failed, a.text("failed"));
      return ha::TaskDone{task_, failure};
    }
    if (verb == "promised")
      return ha::FailsafeAnswered{FailsafeAnswer{NodeName(a.text("node")), true},
                                  machine_.memory().failsafe_asked_at};
    FAIL("unknown verb " << verb);
    return ha::Woke{};
  }

  ClusterView view(const Arguments& a) const {
    auto view = base_.facts.cluster.value();
    view.read_started = now_;
    view.term.reserved = reserved_;
    const auto leader = a.text("leader", "n2");
    if (leader == "-") {
      view.leader.reset();
    } else {
      view.leader = LeaderKey{
          NodeName(leader), {70, 70}, SessionId(a.text("session", leader == "n1" ? "s1" : "s2"))};
    }
    if (a.has("initialize")) {
      view.initialize.reset();
      if (a.text("initialize") != "-") view.initialize = a.text("initialize");
    }
    if (a.has("leader-tl"))
      for (auto& member : view.members)
        if (member.name == NodeName(leader))
          member.timeline = TimelineId{static_cast<std::uint32_t>(a.number("leader-tl", 2))};
    for (auto& member : view.members)
      member.role = !view.initialize || view.initialize->empty() ? "uninitialized"  // nobody has data yet
                    : member.name == NodeName(leader)            ? "primary"
                                                                 : "replica";
    if (a.has("candidate") || a.has("from")) {
      view.failover.leader = NodeName(a.text("from"));
      view.failover.candidate = NodeName(a.text("candidate"));
      view.failover.version = {80, 80};
    }
    if (a.has("term")) {
      view.term.number = a.number("term", 3);
      view.term.version = {70 + view.term.number, 1};
      if (leader == "n1") view.term.version = {70, 70};
    }
    view.config->primary_start_timeout = std::chrono::seconds(a.number("start-timeout", 300));
    view.config->pause = a.has("paused");
    view.status.optime = Lsn{a.number("optime", 1000)};
    return view;
  }

  NodeView node(const Arguments& a) const {
    auto node = base_.facts.node.value();
    node.observed_at = now_;
    node.role = a.has("primary") ? NodeView::Role::primary : NodeView::Role::replica;
    node.timeline = TimelineId{static_cast<std::uint32_t>(a.number("tl", 2))};
    const Lsn lsn{a.number("lsn", 1000)};
    node.flushed = node.role == NodeView::Role::primary ? lsn : Lsn{};
    node.received = node.replayed = node.role == NodeView::Role::replica ? lsn : Lsn{};
    if (a.has("replayed")) node.replayed = Lsn{a.number("replayed", 1000)};
    node.streaming = a.has("streaming");
    node.upstream = a.text("upstream");
    if (a.has("empty")) node = NodeView{.observed_at = now_};
    if (a.has("crashed")) {
      node.process = NodeView::Process::crashed;
      node.control_state = "in production";
    }
    if (a.has("stopped")) {
      node.process = NodeView::Process::stopped;
      node.control_state = "shut down";
      node.checkpoint_end = Lsn{a.number("end", 1100)};
    }
    return node;
  }

  PeerStatus peer(const Arguments& a) const {
    PeerStatus peer;
    peer.node = NodeName(a.text("node"));
    peer.asked_at = now_;
    peer.reachable = peer.answered = !a.has("down");
    peer.problem = a.has("down") ? "connection refused" : "";
    peer.in_recovery = !a.has("primary");
    peer.timeline = TimelineId{static_cast<std::uint32_t>(a.number("tl", 2))};
    peer.lsn = Lsn{a.number("lsn", 1000)};
    return peer;
  }

  tables::Case base_;
  ha::Machine machine_;
  TimePoint now_ = tables::t0;
  ha::TaskId task_{};
  TimelineId reserved_{};  // as last asked for
};

std::string replay(const std::string& text) {
  Script script;
  std::istringstream in(text);
  std::string out;
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("#") || line.empty()) {
      out += line + "\n";
    } else if (line.starts_with("> ")) {
      CAPTURE(line);
      out += line + "\n" + script.run(line.substr(2));
    }
  }
  return out;
}

}  // namespace

TEST_CASE("golden scripts") {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(SPILO_SCRIPTS))
    if (entry.path().extension() == ".txt" && entry.path().filename() != "CMakeLists.txt")
      files.push_back(entry.path());
  REQUIRE(files.size() >= 5);
  for (const auto& file : files) {
    const std::string name = file.filename().string();
    CAPTURE(name);
    std::ostringstream text;
    text << std::ifstream(file).rdbuf();
    const auto trace = replay(text.str());
    if (std::getenv("SPILO_REWRITE") != nullptr) {
      std::ofstream(file) << trace;
    } else {
      CHECK(trace == text.str());
    }
  }
}
