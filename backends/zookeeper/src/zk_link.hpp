// One handle of the C client, driven by Asio: the pump, the calls, and the ends of a handle that do
// not block. Private.
//
// What the library does behind our back, and what is done about it:
//  - It closes and reopens its descriptor inside its calls, often under the same number: each wait
//    is on a fresh dup.
//  - zookeeper_close() of a connected handle sends a close request and then polls for anything to
//    read, up to 1.5 s. end_session() closes while an answer lies unread in the socket, so that the
//    poll returns at once, and reads the server's confirmation from a dup afterwards. Without a
//    connection zookeeper_close() only frees memory: close_quietly() takes the connection away
//    first.
//  - When sending fails inside a call, the requests stay queued, and would be sent to the next
//    server: flush_unsent() has the library throw them away.
//  - Its log callback has no context: the handle being served is kept in a thread_local for the
//    time of a call.
#pragma once

#include <sys/time.h>
#include <zookeeper/zookeeper.h>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "spilo/core/log.hpp"
#include "spilo/ports/clock.hpp"
#include "spilo/zookeeper/zookeeper_store.hpp"
#include "zk_plan.hpp"

namespace spilo::zookeeper {

// Waiters for something that is told without a value. They look at the state again when woken.
class News {
 public:
  News(boost::asio::any_io_executor executor, Clock& clock);
  void tell();  // wakes everybody who waits now; resumes nobody inline
  // timed_out, cancelled, or success when told since the call.
  Async<void> wait(TimePoint deadline);

 private:
  struct State;
  std::shared_ptr<State> state_;
  Clock& clock_;
};

struct Reply {
  int rc = ZINVALIDSTATE;
  bool sent = false;
  bool answered = false;  // also by the library, when the connection broke
  Node node;              // exists, get, children, the last set of a multi
  std::string value;
  bool is_null = false;
  std::vector<std::string> names;
  std::vector<int> codes;   // multi: one for each operation
  std::vector<Node> nodes;  // multi: what each set wrote
};

// Calls that are awaited together. Their replies have the order of the calls.
class Batch {
 public:
  Batch(boost::asio::any_io_executor executor, Clock& clock) : news(std::move(executor), clock) {}
  std::deque<Reply> replies;
  std::size_t open = 0;
  News news;
  // Until every call was answered. timed_out or cancelled leaves the batch to the library.
  Async<void> wait(TimePoint deadline);
};

class Link : public std::enable_shared_from_this<Link> {
 public:
  struct Events {
    std::function<void(std::string_view path)> changed;  // a watch fired
    std::function<void()> connected;  // also again: watches were set again by the library
  };
  Link(boost::asio::any_io_executor executor, Clock& clock, const Options& options, Events events);
  ~Link();
  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;

  // Starts connecting. `addresses` are numeric. `resume`: go on with that session.
  Result<void> open(const std::string& addresses, int timeout_ms, const clientid_t* resume);
  void set_addresses(const std::string& addresses);

  bool is_connected() const noexcept;
  bool is_expired() const noexcept { return expired_; }
  bool is_refused() const noexcept { return refused_; }
  bool is_closed() const noexcept { return handle_ == nullptr; }
  int asked_timeout_ms() const noexcept { return asked_ms_; }
  Duration timeout() const;     // as granted; only while connected
  clientid_t identity() const;  // of the session
  std::size_t outstanding() const noexcept { return outstanding_; }
  std::string server() const;                                       // whom we speak to, or try to
  const std::string& trouble() const noexcept { return trouble_; }  // the library's last complaint
  News& news() noexcept { return news_; }  // connected, disconnected, expired, refused, idle again

  std::shared_ptr<Batch> batch() { return std::make_shared<Batch>(executor_, clock_); }
  // Each adds a reply to the batch; one that could not be sent has `sent` false. Watches tell
  // Events::changed.
  void sync(const std::shared_ptr<Batch>& batch, const std::string& path);
  void exists(const std::shared_ptr<Batch>& batch, const std::string& path, bool watch);
  void get(const std::shared_ptr<Batch>& batch, const std::string& path, bool watch);
  void children(const std::shared_ptr<Batch>& batch, const std::string& path, bool watch);
  void create_folder(const std::shared_ptr<Batch>& batch, const std::string& path);
  void multi(const std::shared_ptr<Batch>& batch, std::vector<Step> steps);

  // The leader's record of our session is at least as young as this; see zookeeper_store.hpp.
  TimePoint proven() const noexcept { return proven_; }
  // A sync that was sent at `sent` on this connection was answered.
  void prove(TimePoint sent);
  std::uint64_t connection() const noexcept { return connections_; }
  TimePoint heard() const noexcept { return heard_; }  // when a server last said something

  // The server does not answer: leaves it for the next one. Nothing happens when it has answered
  // since `since`.
  void leave_silent_server(TimePoint since);
  // Ends the session. unavailable: certainly not done, the link goes on. ambiguous: the link is
  // closed, the server's answer was lost. Nothing else may use the link meanwhile.
  Async<void> end_session(TimePoint deadline);
  // Closes the connection and the handle; the session lives on until its time is over.
  void close_quietly() noexcept;

 private:
  struct Ticket;
  class Entered;
  template <class Call>
  void issue(const std::shared_ptr<Batch>& batch, Call call, std::vector<Step> steps = {});
  void turn();
  void turn_soon();
  void wait_for(int fd, int interest, timeval limit);
  void on_ready(std::uint64_t round, int events);
  void process(int events);
  void look_at_state();
  bool is_hanging(bool connecting, TimePoint now, timeval& limit);
  void drop_connection();
  void flush_unsent();
  void stop_waiting();
  void log_line(const char* line);
  ACL_vector acl();

  static void on_watch(zhandle_t*, int type, int state, const char* path, void* self);
  static void on_log(const char* line);
  static void on_void(int rc, const void* ticket);
  static void on_string(int rc, const char* value, const void* ticket);
  static void on_stat(int rc, const Stat* stat, const void* ticket);
  static void on_data(int rc, const char* value, int size, const Stat* stat, const void* ticket);
  static void on_strings(int rc,
                         const String_vector* strings,
                         const Stat* stat,
                         const void* ticket);

  boost::asio::any_io_executor executor_;
  Clock& clock_;
  Logger logger_;
  std::vector<Auth> auths_;
  std::vector<Acl> acls_;
  std::vector<::ACL> acl_records_;
  Events events_;
  News news_;
  zhandle_t* handle_ = nullptr;
  boost::asio::steady_timer timer_;
  std::optional<boost::asio::posix::stream_descriptor> descriptor_;
  std::uint64_t round_ = 0;  // of the wait in progress; older handlers find another one
  std::size_t outstanding_ = 0;
  int asked_ms_ = 0;
  bool was_connected_ = false;
  bool expired_ = false;
  bool refused_ = false;
  bool said_trouble_ = false;
  std::size_t servers_ = 1;
  int attempts_ = 0;  // to connect, since the last connection
  bool connecting_ = false;
  TimePoint attempt_{};   // when the one in progress began
  bool turning_ = false;  // turn() is on its way
  bool ending_ = false;   // answers are left in the socket
  std::string trouble_;
  std::uint64_t connections_ = 0;
  TimePoint handshake_{};  // taken before the connect request of this connection was sent
  TimePoint heard_{};      // when something was last received
  TimePoint proven_{};
  std::deque<TimePoint> signs_;  // when syncs were sent on this connection
};

// Around each call of the library: says whose log lines come now.
class Link::Entered {
 public:
  explicit Entered(Link& link) : before_(std::exchange(now_, &link)) {}
  ~Entered() { now_ = before_; }
  Entered(const Entered&) = delete;
  Entered& operator=(const Entered&) = delete;
  static Link* now() noexcept { return now_; }

 private:
  static thread_local Link* now_;
  Link* before_;
};

}  // namespace spilo::zookeeper
