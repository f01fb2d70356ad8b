#include "client.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "bench.hpp"

namespace bench {

namespace {
constexpr std::size_t enough_rows = 50;
}

Client::Client(const std::string& program,
               const std::string& directory,
               std::vector<std::string> nodes)
    : nodes_(std::move(nodes)) {
  static int count = 0;
  file_ = fmt::format("{}/acks-{}", directory, ++count);
  std::vector<std::string> command = {program, "run", "--file", file_};
  for (const auto& node : nodes_) {
    command.emplace_back("--node");
    command.push_back(node);
  }
  process_ = std::make_unique<spilo::test::Process>(command, file_ + ".log");
}

// Only what is new: the file grows by hundreds of lines a second, and this program is not to take
// the time of those it measures.
void Client::read_more() {
  if (!process_->running()) throw Failure("the client has ended: " + process_->log());
  std::ifstream in(file_);
  if (!in.seekg(read_)) return;
  std::string more(std::istreambuf_iterator<char>(in), {});
  read_ += static_cast<std::streamoff>(more.size());
  rest_ += more;
  const auto complete = rest_.rfind('\n');
  if (complete == std::string::npos) return;
  std::istringstream lines(rest_.substr(0, complete + 1));
  rest_.erase(0, complete + 1);
  for (writer::Ack ack; lines >> ack.number >> ack.node >> ack.at;) acks_.push_back(ack);
}

int Client::primary() {
  const auto before = acks_.size();
  await("the client writes; see " + file_ + ".log", std::chrono::seconds(30), [&] {
    read_more();
    return acks_.size() >= before + enough_rows && acks_.back().node == acks_[before].node;
  });
  return acks_.back().node;
}

void Client::await_successor(int old, std::chrono::seconds limit) {
  await("another node takes the client's rows", limit, [&] {
    read_more();
    return std::count_if(acks_.begin(), acks_.end(), [old](const writer::Ack& ack) {
             return ack.node != old;
           }) >= static_cast<std::ptrdiff_t>(enough_rows);
  });
}

Outage Client::outage(int old) {
  process_->end(SIGTERM);
  writer::ReportOptions options;
  options.file = file_;
  const auto acks = writer::read_acks(options);
  const auto first = std::find_if(
      acks.begin(), acks.end(), [old](const writer::Ack& ack) { return ack.node != old; });
  if (first == acks.begin() || first == acks.end()) throw Failure("the client saw no failover");
  Outage out;
  out.ms = static_cast<double>(first->at - (first - 1)->at) / 1e6;
  out.stale = static_cast<std::size_t>(
      std::count_if(first, acks.end(), [old](const writer::Ack& ack) { return ack.node == old; }));
  writer::Findings found;
  if (!writer::find_missing(acks, nodes_, found))
    throw Failure("no node shows the client's rows after the failover");
  out.lost = found.missing.size();
  return out;
}

}  // namespace bench
