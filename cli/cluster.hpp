// A cluster as spiloctl sees it: through its store, or through the REST interface of one node.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cli/app.hpp"
#include "cli/settings.hpp"
#include "spilo/model/cluster_view.hpp"
#include "spilo/net/http.hpp"
#include "spilo/runtime/cluster_store.hpp"

namespace spilo::cli {

struct Picture {
  ClusterView view;      // through a node: only what its REST interface tells
  json::Value document;  // of contract 5.6
};

// An answer of a member's REST interface: a status and a body, whatever it means.
struct Answer {
  int status = 0;
  std::string body;
  bool ok() const noexcept { return status == 200 || status == 202; }
};

class Cluster {
 public:
  // `scope` empty: the one of the settings. Stop when none is known or the store can't be opened.
  Cluster(App& app, const Settings& settings, const std::string& scope);
  ~Cluster();
  Cluster(const Cluster&) = delete;
  Cluster& operator=(const Cluster&) = delete;

  const std::string& name() const noexcept { return scope_; }
  const std::string& where() const noexcept { return where_; }  // the store or node, for messages
  App& app() noexcept { return app_; }
  // It is the cluster that the configuration names.
  bool is_configured() const noexcept { return scope_ == settings_scope_; }

  // Linearizable. Stop when it can't be read.
  Picture load();
  // The same, but an error is returned: for those who go on waiting.
  Async<Picture> read(TimePoint deadline);
  // Completes as soon as something may have changed since the picture, or at the deadline.
  Async<void> changed(dcs::Index seen, TimePoint deadline);

  // What writes without the help of a node. Stop when we look through a node.
  ClusterStore& store();
  bool has_store() const noexcept { return store_ != nullptr; }

  // Errors are those of net::HttpClient. `path` begins with a slash.
  Async<Answer> call(std::string api_url,
                     std::string method,
                     std::string path,
                     std::string body,
                     TimePoint deadline);

 private:
  Async<Picture> read_store(TimePoint deadline);
  Async<Picture> read_node(TimePoint deadline);

  App& app_;
  std::string scope_;
  std::string settings_scope_;
  std::string where_;
  std::string node_url_;
  std::string authorization_;
  std::unique_ptr<dcs::Store> owned_;
  std::unique_ptr<ClusterStore> store_;
  std::unique_ptr<net::HttpClient> http_;
};

// Members that a verb is to work on (contract 6.2, "shared"): `names` as given, `role` as -r says.
// Stop: no members at all, a name that is not one, or none of that role.
std::vector<Member> select_members(const Cluster& cluster,
                                   const ClusterView& view,
                                   const std::string& role,
                                   const std::vector<std::string>& names);

// leader, primary, standby-leader, replica, standby, any. Stop (usage) for anything else.
bool has_role(const Member& member, const ClusterView& view, const std::string& role);
bool is_leader(const Member& member, const ClusterView& view) noexcept;

// Stop with the cause and the cure when there are no members.
void require_members(const Cluster& cluster, const ClusterView& view);

// The dynamic configuration. Stop when there is none, or none that can be used.
const json::Value& require_config(const Cluster& cluster, const Picture& picture);

// What an answer says in one line: the body without line ends and HTML, cut to a readable length.
std::string brief(const Answer& answer);

}  // namespace spilo::cli
