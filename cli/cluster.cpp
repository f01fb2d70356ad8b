#include "cli/cluster.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>

#include "cli/cluster_table.hpp"
#include "spilo/model/codec.hpp"
#include "spilo/open_store.hpp"
#include "spilo/runtime/with_deadline.hpp"

namespace spilo::cli {
namespace {

using namespace std::chrono_literals;

// What a person can do about a store or a node that gave no answer.
std::string cure_for(const Error& error, bool node) {
  if (error.is(errc::denied))
    return "The credentials of the configuration are not accepted there: check user, password and "
           "certificates.";
  if (error.is(errc::unavailable) || error.is(errc::timed_out))
    return node ? "Is the daemon running there, and is the address right?"
                : "Is the store running and reachable from here, and are its addresses in the "
                  "configuration right? Nothing was changed.";
  if (error.is(errc::invalid_argument) || error.is(errc::unsupported))
    return "Correct the store's section in the configuration (-c) or the URL (-d).";
  return "Nothing was changed.";
}

// Members of GET /cluster, as far as the verbs need them.
Member member_from(const json::Value& item, ClusterView& view) {
  Member member;
  member.name = NodeName(item.get_string("name"));
  member.api_url = item.get_string("api_url");
  member.state = item.get_string("state");
  member.role = item.get_string("role");
  if (const auto* tags = item.find("tags")) member.tags = parse_tags(*tags);
  if (!item.get_string("host").empty()) {
    const codec::HostPort at{item.get_string("host"),
                             static_cast<int>(item.get_int("port").value_or(5432))};
    member.conn_url = "postgres://" + codec::to_text(at) + "/postgres";
  }
  if (const auto* restart = item.find("scheduled_restart")) member.scheduled_restart = *restart;
  member.pending_restart = item.get_bool("pending_restart");
  if (member.role.ends_with("leader")) {
    LeaderKey leader;
    leader.holder = member.name;
    view.leader = leader;
    if (member.role == "leader") member.role = "primary";
  } else if (member.role.ends_with("standby")) {
    view.sync.voters.push_back(member.name);
    member.role = "replica";
  }
  return member;
}

}  // namespace

Cluster::Cluster(App& app, const Settings& settings, const std::string& scope)
    : app_(app), scope_(scope.empty() ? settings.store.scope.str() : scope), settings_scope_(settings.store.scope.str()) {
  net::HttpClientOptions options;
  options.tls = settings.tls;
  http_ = std::make_unique<net::HttpClient>(app.io().get_executor(), app.clock(), options);
  if (!settings.user.empty())
    authorization_ = net::basic_authorization(settings.user, settings.password);
  if (!app.options().node_url.empty()) {
    node_url_ = app.options().node_url;
    if (node_url_.find("://") == std::string::npos) node_url_ = "http://" + node_url_;
    where_ = "node " + node_url_;
    return;
  }
  if (scope_.empty())
    throw Stop(Exit::usage,
               "Which cluster? Name it on the command line, or put its name as `scope` into " +
                   settings.source + ".");
  StoreRequest request;
  request.options = settings.store;
  request.options.scope = Scope(scope_);
  request.must_exist = true;
  auto opened = open_store(app.io().get_executor(), app.clock(), request);
  if (opened.has_error())
    throw Stop(Exit::error,
               fmt::format("The store of cluster {} can't be opened: {}\n{}",
                           scope_,
                           opened.error().text(),
                           cure_for(opened.error(), false)));
  where_ = opened->description;
  owned_ = std::move(opened->store);
  store_ = std::make_unique<ClusterStore>(*owned_, app.clock());
}

Cluster::~Cluster() = default;

Picture Cluster::load() {
  auto picture = app_.wait(read(app_.in(10s)));
  if (picture.has_value()) return std::move(*picture);
  throw Stop(Exit::error,
             fmt::format("{} can't be read from {}: {}\n{}",
                         scope_.empty() ? std::string("The cluster") : "Cluster " + scope_,
                         where_,
                         picture.error().text(),
                         cure_for(picture.error(), store_ == nullptr)));
}

Async<Picture> Cluster::read(TimePoint deadline) {
  return store_ ? read_store(deadline) : read_node(deadline);
}

Async<Picture> Cluster::read_store(TimePoint deadline) {
  Result<ClusterView> view = co_await store_->load(dcs::Freshness::linearizable, deadline);
  if (view.has_error()) co_return view.error();
  Picture picture;
  picture.document = cluster_document(*view, Scope(scope_));
  picture.view = std::move(*view);
  co_return std::move(picture);
}

Async<Picture> Cluster::read_node(TimePoint deadline) {
  Picture picture;
  Result<Answer> cluster = co_await call(node_url_, "GET", "/cluster", "", deadline);
  if (cluster.has_error()) co_return cluster.error();
  Result<json::Value> document = json::parse(cluster->body);
  if (!cluster->ok() || document.has_error() || document->find("members") == nullptr)
    co_return Error(errc::protocol,
                    fmt::format("GET {}/cluster answered {}: {}",
                                node_url_,
                                cluster->status,
                                brief(*cluster)));
  picture.document = std::move(*document);
  if (const auto* list = picture.document.find("members")->as_array())
    for (const auto& item : *list) picture.view.members.push_back(member_from(item, picture.view));
  if (scope_.empty()) scope_ = picture.document.get_string("scope");

  Result<Answer> self = co_await call(node_url_, "GET", "/patroni", "", deadline);
  if (self.has_error()) co_return self.error();
  Result<json::Value> status = json::parse(self->body);
  if (status.has_value()) {
    auto id = status->get_string("database_system_identifier");
    if (!id.empty()) picture.view.initialize = id;
  }
  Result<Answer> history = co_await call(node_url_, "GET", "/history", "", deadline);
  if (history.has_error()) co_return history.error();
  picture.view.history = codec::parse_history(history->body);
  Result<Answer> config = co_await call(node_url_, "GET", "/config", "", deadline);
  if (config.has_error()) co_return config.error();
  Result<json::Value> dynamic = json::parse(config->body);
  if (config->ok() && dynamic.has_value())
    picture.view.config = parse_dynamic_config(*dynamic);
  co_return std::move(picture);
}

Async<void> Cluster::changed(dcs::Index seen, TimePoint deadline) {
  if (!store_) {
    co_await sleep_until(app_.clock(), std::min(deadline, app_.in(1s)));
    co_return Result<void>();
  }
  Result<dcs::Index> now = co_await owned_->changed_since(seen, deadline);
  if (now.has_error() && !now.error().is(errc::timed_out)) {
    // The reader that comes next says what is wrong; meanwhile don't ask a broken store in a
    // tight loop.
    co_await sleep_until(app_.clock(), std::min(deadline, app_.in(1s)));
  }
  co_return Result<void>();
}

ClusterStore& Cluster::store() {
  if (store_) return *store_;
  throw Stop(Exit::usage,
             "This verb writes to the store, and --node only shows one node's REST interface. "
             "Give the store with -c FILE or -d URL.");
}

Async<Answer> Cluster::call(std::string api_url,
                            std::string method,
                            std::string path,
                            std::string body,
                            TimePoint deadline) {
  Result<net::Url> url = net::Url::parse(api_url);
  if (url.has_error()) co_return url.error();
  const bool changes = method != "GET";
  const bool has_body = !body.empty();
  net::HttpRequest request(std::move(method), std::move(path), std::move(body));
  if (has_body) request.header("Content-Type", "application/json");
  if (changes && !authorization_.empty()) request.header("Authorization", authorization_);
  Result<net::HttpResponse> response =
      co_await http_->request(std::move(*url), std::move(request), deadline);
  if (response.has_error()) co_return response.error();
  Answer answer;
  answer.status = response->status();
  answer.body = response->body();
  co_return std::move(answer);
}

bool is_leader(const Member& member, const ClusterView& view) noexcept {
  return view.leader && view.leader->holder == member.name;
}

bool has_role(const Member& member, const ClusterView& view, const std::string& role) {
  const bool primary = member.role == "primary" || member.role == "master";
  if (role.empty() || role == "any") return true;
  if (role == "leader") return is_leader(member, view);
  if (role == "primary") return is_leader(member, view) && primary;
  if (role == "standby-leader" || role == "standby_leader")
    return is_leader(member, view) && !primary;
  if (role == "replica" || role == "standby") return !is_leader(member, view);
  throw Stop(Exit::usage,
             fmt::format("There is no role '{}'. Roles are leader, primary, standby-leader, "
                         "replica, standby and any.",
                         role));
}

void require_members(const Cluster& cluster, const ClusterView& view) {
  if (!view.members.empty()) return;
  const bool known = view.initialize || view.config_version != dcs::Version{};
  throw Stop(Exit::error,
             fmt::format("{} cluster doesn't have any members: no node of it has reported to {}.\n{}",
                         cluster.name(),
                         cluster.where(),
                         known ? "Its daemons are stopped or can't reach the store: start one."
                         : cluster.is_configured()
                             ? "The store has nothing of that name: check the cluster's name and "
                               "the namespace, or start its first node."
                             : "The store has nothing of that name. The first word is the cluster, "
                               "members come after it: is the name right?"));
}

std::vector<Member> select_members(const Cluster& cluster,
                                   const ClusterView& view,
                                   const std::string& role,
                                   const std::vector<std::string>& names) {
  require_members(cluster, view);
  std::vector<Member> candidates;
  for (const auto& member : view.members)
    if (has_role(member, view, role)) candidates.push_back(member);
  if (candidates.empty())
    throw Stop(Exit::error, fmt::format("{} cluster doesn't have any members of role {}",
                                        cluster.name(), role));
  if (names.empty()) return candidates;

  std::vector<Member> selected;
  for (const auto& name : names) {
    if (!view.member(NodeName(name))) {
      std::vector<std::string> known;
      for (const auto& member : view.members) known.push_back(member.name.str());
      throw Stop(Exit::error,
                 fmt::format("{} is not a member of cluster {}. Its members are: {}",
                             name,
                             cluster.name(),
                             fmt::join(known, ", ")));
    }
    for (const auto& member : candidates)
      if (member.name.str() == name) selected.push_back(member);
  }
  if (selected.empty()) throw Stop(Exit::error, fmt::format("No {} among provided members", role));
  return selected;
}

const json::Value& require_config(const Cluster& cluster, const Picture& picture) {
  if (picture.view.config) return picture.view.config->document;
  throw Stop(Exit::error,
             picture.view.config_version == dcs::Version{}
                 ? fmt::format("Cluster {} has no configuration in {}. Its first node writes it "
                               "when it bootstraps; are the name and the namespace right?",
                               cluster.name(), cluster.where())
                 : fmt::format("The configuration of cluster {} in {} can't be used: it is no JSON "
                               "object, or a time in it is no number. `edit-config --replace FILE` "
                               "puts another in its place.",
                               cluster.name(), cluster.where()));
}

std::string brief(const Answer& answer) {
  std::string out;
  bool tag = false;
  for (const char letter : answer.body) {
    if (letter == '<') tag = true;
    const bool blank = std::isspace(static_cast<unsigned char>(letter)) != 0;
    if (!tag && !(blank && (out.empty() || out.back() == ' '))) out += blank ? ' ' : letter;
    if (letter == '>') tag = false;
  }
  while (!out.empty() && out.back() == ' ') out.pop_back();
  if (out.size() > 500) out = out.substr(0, 500) + "...";
  return out.empty() ? "no text" : out;
}

}  // namespace spilo::cli
