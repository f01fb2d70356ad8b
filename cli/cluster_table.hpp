// What `list` and `topology` show, from the document that GET /cluster answers (patroni-contract 5.6
// and 6.4). Pure.
#pragma once

#include <string>

#include "cli/render.hpp"
#include "spilo/core/json.hpp"
#include "spilo/model/cluster_view.hpp"

namespace spilo::cli {

// The document of contract 5.6.
json::Value cluster_document(const ClusterView& view, const Scope& scope);

struct ListOptions {
  Format format = Format::pretty;
  bool extended = false;  // show the optional columns even when they are empty
};

// `initialize` is the text of that key: none "uninitialized", empty "initializing", otherwise the
// system identifier.
Table members_table(const json::Value& document,
                    const std::optional<std::string>& initialize,
                    const ListOptions& options);

// The lines below the table: maintenance mode and a scheduled switchover. Empty when there is
// nothing to say.
std::string service_info(const json::Value& document);

// members_table in the wanted format, with service_info below the two forms for people.
std::string render_members(const json::Value& document,
                           const std::optional<std::string>& initialize,
                           const ListOptions& options);

// history: TL, LSN, Reason, Timestamp, New Leader.
Table history_table(const std::vector<HistoryLine>& lines);

}  // namespace spilo::cli
