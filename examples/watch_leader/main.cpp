// watch_leader: prints who leads a cluster, at once and each time that changes, from any store.
//
//   watch_leader node.yml                                   the file that spilod and spiloctl read
//   watch_leader etcd3://10.0.0.1:2379 demo                 a store and the cluster's scope
//   watch_leader sqlite:///var/lib/spilo/demo.db demo
//
// It only reads. A store that does not answer says nothing about the leader, so it is reported as
// what it is, and the watch goes on.
#include <fmt/chrono.h>
#include <fmt/format.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <cstdlib>
#include <exception>
#include <string>

#include "spilo/config/load.hpp"
#include "spilo/open_store.hpp"
#include "spilo/runtime/cluster_store.hpp"
#include "spilo/runtime/system_clock.hpp"

namespace {

using namespace spilo;
using namespace std::chrono_literals;

void fail(const std::string& why) {
  fmt::print(stderr, "watch_leader: {}\n", why);
  std::exit(1);
}

config::StoreOptions options_from(int argc, char** argv) {
  if (argc == 3) {
    auto options = config::parse_store_url(argv[1]);
    if (options.has_error()) fail(options.error().text());
    options->scope = Scope(argv[2]);
    return *options;
  }
  if (argc != 2) fail("name a configuration file, or the URL of a store and a scope");
  const auto loaded = config::load_ctl({argv[1]}, {});
  for (const auto& problem : loaded.problems) fmt::print(stderr, "{}\n", to_text(problem));
  if (!loaded.config) fail("the configuration can't be used");
  return loaded.config->store;
}

std::string describe(const Result<ClusterView>& view) {
  if (view.has_error()) return "the store does not answer: " + view.error().text();
  if (!view->leader) return "nobody leads";
  return fmt::format("{} leads, token {}", view->leader->holder.str(), view->leader->version.era);
}

boost::asio::awaitable<void> watch(dcs::Store& store, Clock& clock) {
  ClusterStore cluster(store, clock);
  std::string last;
  for (;;) {
    const auto view = co_await cluster.load(dcs::Freshness::linearizable, clock.now() + 10s);
    const auto now = describe(view);
    if (now != last) {
      fmt::print("{:%F %T}  {}\n", clock.wall_now(), now);
      std::fflush(stdout);
    }
    last = now;
    // Returns as soon as something may have changed since that picture, and never misses it.
    const auto seen = view.has_value() ? view->index : dcs::Index{};
    const auto news = co_await store.changed_since(seen, clock.now() + 60s);
    if (view.has_error() || (news.has_error() && !news.error().is(errc::timed_out)))
      co_await sleep_until(clock, clock.now() + 1s);
  }
}

}  // namespace

int main(int argc, char** argv) {
  boost::asio::io_context io(1);
  SystemClock clock(io.get_executor());
  StoreRequest request;
  request.options = options_from(argc, argv);
  request.must_exist = true;
  auto opened = open_store(io.get_executor(), clock, request);
  if (opened.has_error()) fail(opened.error().text());
  fmt::print("watching {} on {}\n", request.options.scope.str(), opened->description);
  boost::asio::co_spawn(io, watch(*opened->store, clock), [](std::exception_ptr failure) {
    if (failure) std::rethrow_exception(failure);
  });
  io.run();
}
