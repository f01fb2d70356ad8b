// The one session of a store: opened, kept, renewed, given up. Private.
#pragma once

#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "zk_link.hpp"

namespace spilo::zookeeper {

constexpr Duration session_ttl_min = std::chrono::seconds(1);
constexpr Duration session_ttl_max = std::chrono::hours(24);

// Every operation needs a ZooKeeper session to travel on. It becomes the store's session, the one
// that keys can be bound to, with the first renew(); before that, and for a client that never calls
// it, it is nothing but a connection.
class Session : public std::enable_shared_from_this<Session> {
 public:
  struct Events {
    std::function<void(std::string_view path)> changed;
    std::function<void()> reset;  // watches may be gone: look again
  };
  Session(boost::asio::any_io_executor executor, Clock& clock, Options options, Events events);

  // A connected link. unavailable at the deadline, and denied when the credentials were refused.
  Async<std::shared_ptr<Link>> link(TimePoint deadline);
  Async<dcs::Lease> renew(Duration ttl, TimePoint deadline);
  Async<void> end(TimePoint deadline);
  // Empty without one. session_lost when what was bound to it is gone.
  bool is_open() const noexcept { return id_.client_id != 0 && !lost_; }
  std::int64_t number() const noexcept { return id_.client_id; }
  void close_quietly() noexcept;  // for good: what is waiting ends as cancelled
  bool is_shut() const noexcept { return shut_; }

 private:
  Async<void> open(TimePoint deadline);
  Async<void> start(int timeout_ms, TimePoint deadline);
  Async<void> look_names_up_again(TimePoint deadline);
  Async<dcs::Lease> begin(Duration ttl, TimePoint deadline);
  Async<dcs::Lease> keep(TimePoint deadline);
  // `given_up`: the store is told with the next renew().
  Async<void> close(bool given_up, TimePoint deadline);
  void notice_end();
  TimePoint hopeless_at() const;
  void give_handle_up();
  void forget();
  void watch_over(Duration pause);
  void look_after();

  boost::asio::any_io_executor executor_;
  Clock& clock_;
  Options options_;
  Events events_;
  News news_;
  std::shared_ptr<Link> link_;
  bool busy_ = false;  // somebody opens, replaces or ends the link
  clientid_t id_{};    // the store's session; zero: none
  bool lost_ = false;  // it is gone, and nobody was told yet
  int ttl_ms_ = 0;     // of the store's session
  TimePoint valid_until_{};
  TimePoint cared_until_{};  // when nobody has renewed by then, nobody will
  boost::asio::steady_timer timer_;
  bool watched_ = false;
  bool warned_ = false;  // nobody has renewed in time; a last moment is left
  bool shut_ = false;    // the store is being destroyed
  TimePoint looked_up_{};
};

// What a code of the library means. `sent`: the request may have reached a server.
Error error_of(int rc, bool sent, bool is_write, std::string what);

}  // namespace spilo::zookeeper
