#include "zk_plan.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace spilo::zookeeper {
namespace {

using dcs::Condition;
using dcs::Transaction;

const Transaction::Requirement* requirement_of(const Transaction& transaction,
                                               std::string_view key) {
  for (const auto& requirement : transaction.requirements())
    if (requirement.key == key) return &requirement;
  return nullptr;
}

// The last change of a key counts.
std::vector<const Transaction::Change*> changes_of(const Transaction& transaction) {
  std::vector<const Transaction::Change*> out;
  for (const auto& change : transaction.changes()) {
    std::erase_if(out, [&](const auto* earlier) { return earlier->key == change.key; });
    out.push_back(&change);
  }
  return out;
}

bool is_absence(const Transaction::Requirement* requirement) {
  return requirement != nullptr && requirement->condition.kind() == Condition::Kind::absent;
}

Error conflict(std::string_view key, std::string_view why) {
  return Error(errc::conflict, fmt::format("{} {}", key, why));
}

class Planner {
 public:
  Planner(const Transaction& transaction,
          const Known& known,
          bool fresh,
          std::string_view base,
          std::int64_t session)
      : transaction_(transaction), known_(known), fresh_(fresh), base_(base), session_(session) {}

  Result<std::optional<Plan>> run() {
    std::optional<Plan> nothing;
    for (const auto& requirement : transaction_.requirements())
      if (const auto refused = require(requirement)) return *refused;
    for (const auto* change : changes_of(transaction_)) plan(*change);
    if (unsure_ || (guarded_ && !known_.life())) return nothing;
    guard();
    return std::optional<Plan>(std::move(plan_));
  }

 private:
  std::string path(std::string_view key) const { return fmt::format("{}/{}", base_, key); }
  bool is_changed(std::string_view key) const {
    return std::ranges::any_of(transaction_.changes(),
                               [&](const auto& change) { return change.key == key; });
  }
  std::size_t add(Step::Kind kind, std::string_view key, std::int32_t version) {
    Step step;
    step.kind = kind;
    step.path = path(key);
    step.version = version;
    plan_.steps.push_back(std::move(step));
    return plan_.steps.size() - 1;
  }

  // What is remembered can be out of date: only a fresh look makes a refusal certain.
  std::optional<Error> refuse(Error error) {
    if (fresh_) return error;
    unsure_ = true;
    return {};
  }

  std::optional<Error> require(const Transaction::Requirement& requirement) {
    const auto& [key, condition] = requirement;
    const Node* node = known_.find(key);
    if (condition.kind() == Condition::Kind::absent) {
      if (node != nullptr) return refuse(conflict(key, "is required to be absent, but exists"));
      // Creating it is a check of its own; otherwise nobody may create anything until we are done.
      if (!is_changed(key) || !is_put(key)) {
        unsure_ = unsure_ || !fresh_;
        guarded_ = true;
      }
      return {};
    }
    if (node == nullptr) return refuse(conflict(key, "is required at a version, but is absent"));
    if (!(version_of(*node) == condition.version()))
      return refuse(conflict(key,
                             fmt::format("is required at version {}/{}, but is at {}/{}",
                                         condition.version().era,
                                         condition.version().count,
                                         version_of(*node).era,
                                         version_of(*node).count)));
    guarded_ = true;
    if (!is_changed(key)) add(Step::Kind::check, key, node->version);
    return {};
  }

  bool is_put(std::string_view key) const {
    for (const auto* change : changes_of(transaction_))
      if (change->key == key) return change->value.has_value();
    return false;
  }

  void plan(const Transaction::Change& change) {
    const auto* requirement = requirement_of(transaction_, change.key);
    const Node* node = known_.find(change.key);
    const std::int32_t version =
        node != nullptr && requirement != nullptr ? node->version : std::int32_t{-1};
    if (node == nullptr && !fresh_ && !(is_absence(requirement) && change.value)) {
      unsure_ = true;
      return;
    }
    if (!change.value) {
      guarded_ = true;
      if (node == nullptr) return;
      add(Step::Kind::erase, change.key, version);
      plan_.erased.push_back(change.key);
      return;
    }
    const std::int64_t owner = change.binding == dcs::Binding::session ? session_ : 0;
    if (node == nullptr) return create(change, owner);
    // Whom it belongs to is part of what we know of this life of the key.
    guarded_ = true;
    if (node->owner == owner) return set(change, version);
    add(Step::Kind::erase, change.key, node->version);
    create(change, owner);
  }

  void create(const Transaction::Change& change, std::int64_t owner) {
    plan_.steps[add(Step::Kind::create, change.key, -1)].ephemeral = owner != 0;
    plan_.creates = true;
    set(change, -1);
  }

  void set(const Transaction::Change& change, std::int32_t version) {
    const auto at = add(Step::Kind::set, change.key, version);
    plan_.steps[at].value = *change.value;
    plan_.written.emplace_back(change.key, at);
  }

  // The scope's own znode: rewritten with each creation, checked by what depends on lives of keys.
  void guard() {
    if (!plan_.creates && !guarded_) return;
    Step step;
    step.kind = plan_.creates ? Step::Kind::set : Step::Kind::check;
    step.path = std::string(base_);
    step.version = guarded_ ? *known_.life() : std::int32_t{-1};
    plan_.steps.insert(plan_.steps.begin(), std::move(step));
    for (auto& [key, at] : plan_.written) ++at;
    if (plan_.creates) plan_.life_step = 0;
  }

  const Transaction& transaction_;
  const Known& known_;
  bool fresh_;
  std::string_view base_;
  std::int64_t session_;
  Plan plan_;
  bool unsure_ = false;   // something has to be looked at first
  bool guarded_ = false;  // it depends on lives of keys, or on their absence
};

std::uint32_t big_endian(std::string_view bytes) {
  std::uint32_t out = 0;
  for (const char byte : bytes.substr(0, 4)) out = out << 8 | static_cast<unsigned char>(byte);
  return out;
}

}  // namespace

dcs::Version version_of(const Node& node) noexcept {
  return dcs::Version{static_cast<std::uint64_t>(node.czxid),
                      static_cast<std::uint64_t>(static_cast<std::uint32_t>(node.version))};
}

SessionId session_name(std::int64_t id) {
  return id == 0 ? SessionId() : SessionId(fmt::format("{:#x}", static_cast<std::uint64_t>(id)));
}

const Node* Known::find(const std::string& key) const {
  const auto at = nodes_.find(key);
  return at == nodes_.end() ? nullptr : &at->second;
}

void Known::see_life(std::int32_t version) {
  if (life_ != version) nodes_.clear();
  life_ = version;
}

void Known::see_own_life(std::int32_t version) {
  // A step of more than one: others have created something in between.
  if (!life_ || *life_ + 1 != version) nodes_.clear();
  life_ = version;
}

void Known::clear() {
  nodes_.clear();
  life_.reset();
}

std::vector<std::string> unknown_keys(const Transaction& transaction, const Known& known) {
  std::vector<std::string> out;
  const auto add = [&](const std::string& key) {
    if (known.find(key) == nullptr && std::ranges::find(out, key) == out.end()) out.push_back(key);
  };
  for (const auto& requirement : transaction.requirements()) add(requirement.key);
  for (const auto& change : transaction.changes()) add(change.key);
  return out;
}

Result<std::optional<Plan>> make_plan(const Transaction& transaction,
                                      const Known& known,
                                      bool fresh,
                                      std::string_view base,
                                      std::int64_t session) {
  return Planner(transaction, known, fresh, base, session).run();
}

std::vector<std::string> folders_of(const Plan& plan) {
  std::vector<std::string> out;
  for (const auto& step : plan.steps) {
    if (step.kind != Step::Kind::create) continue;
    for (auto slash = step.path.find('/', 1); slash != std::string::npos;
         slash = step.path.find('/', slash + 1)) {
      auto folder = step.path.substr(0, slash);
      if (std::ranges::find(out, folder) == out.end()) out.push_back(std::move(folder));
    }
  }
  return out;
}

std::optional<std::string> why_no_key(std::string_view key) {
  if (key.empty() || key.starts_with('/') || key.ends_with('/') ||
      key.find("//") != std::string_view::npos)
    return "has an empty part";
  for (const char letter : key)
    if (static_cast<unsigned char>(letter) < 0x20 || letter == 0x7f)
      return "has a control character";
  for (std::size_t at = 0; at <= key.size();) {
    const auto end = std::min(key.find('/', at), key.size());
    const auto part = key.substr(at, end - at);
    if (part == "." || part == "..") return "has a part that is . or ..";
    at = end + 1;
  }
  return {};
}

Answers count_answers(std::string_view bytes) {
  constexpr std::size_t header = 16;  // xid, zxid, err
  Answers out;
  while (bytes.size() >= 4) {
    const std::size_t size = big_endian(bytes);
    if (bytes.size() < 4 + size || size < header) return out;
    const auto frame = bytes.substr(4, size);
    const auto xid = static_cast<std::int32_t>(big_endian(frame));
    // Events, pings, credentials and watches that are set again have numbers of their own.
    if (xid != -1 && xid != -2 && xid != -4 && xid != -8) {
      ++out.count;
      out.last_is_good = big_endian(frame.substr(12)) == 0;
    }
    bytes.remove_prefix(4 + size);
  }
  return out;
}

}  // namespace spilo::zookeeper
