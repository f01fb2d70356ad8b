#include "zk_link.hpp"

#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <string_view>
#include <utility>

#include "spilo/runtime/with_deadline.hpp"

namespace spilo::zookeeper {
namespace asio = boost::asio;
namespace {

using namespace std::chrono_literals;
using Descriptor = asio::posix::stream_descriptor;

// A follower tells the leader every half tick whom it has heard of, and a timeout is at least two
// ticks: what is this much older than an answer of the leader was told to it before.
constexpr Duration told_after(Duration timeout) {
  return timeout * 3 / 10;
}

Node node_of(const Stat& stat) {
  Node node;
  node.czxid = stat.czxid;
  node.version = stat.version;
  node.owner = stat.ephemeralOwner;
  node.children = stat.numChildren;
  return node;
}

}  // namespace

// ---- News, Batch -------------------------------------------------------------------------------

struct News::State {
  explicit State(asio::any_io_executor executor)
      : timer(executor, asio::steady_timer::time_point::max()) {}
  asio::steady_timer timer;  // never fires
  std::uint64_t times = 0;
};

News::News(asio::any_io_executor executor, Clock& clock)
    : state_(std::make_shared<State>(std::move(executor))), clock_(clock) {}

void News::tell() {
  ++state_->times;
  state_->timer.cancel();
}

Async<void> News::wait(TimePoint deadline) {
  const auto waiting = [](std::shared_ptr<State> state, std::uint64_t seen) -> Async<void> {
    co_await asio::this_coro::throw_if_cancelled(false);
    // It may be told before this coroutine begins.
    if (state->times == seen) co_await state->timer.async_wait(asio::as_tuple(asio::use_awaitable));
    if (state->times == seen) co_return Error(errc::cancelled);
    co_return boost::system::in_place_value;
  };
  co_return co_await with_deadline(clock_, deadline, waiting(state_, state_->times));
}

Async<void> Batch::wait(TimePoint deadline) {
  while (open > 0) {
    const auto told = co_await news.wait(deadline);
    if (told.has_error() && open > 0) co_return told.error();
  }
  co_return boost::system::in_place_value;
}

// ---- calls -------------------------------------------------------------------------------------

// What the library carries about until it answers. It answers each request that it took exactly
// once.
struct Link::Ticket {
  Link& link;
  std::shared_ptr<Batch> batch;
  Reply& reply;
  std::vector<Step> steps;
  std::vector<zoo_op_t> operations;
  std::vector<zoo_op_result_t> results;
  std::vector<Stat> stats;
  ACL_vector acl;

  static Reply& answer(const void* data, int rc, const std::function<void(Ticket&)>& fill = {}) {
    std::unique_ptr<Ticket> ticket(static_cast<Ticket*>(const_cast<void*>(data)));
    Reply& reply = ticket->reply;
    reply.rc = rc;
    reply.answered = true;
    if (rc == ZOK) ticket->link.heard_ = ticket->link.clock_.now();
    if (fill) fill(*ticket);
    --ticket->link.outstanding_;
    if (--ticket->batch->open == 0) ticket->batch->news.tell();
    if (ticket->link.outstanding_ == 0) ticket->link.news_.tell();
    return reply;
  }
};

thread_local Link* Link::Entered::now_ = nullptr;

template <class Call>
void Link::issue(const std::shared_ptr<Batch>& batch, Call call, std::vector<Step> steps) {
  batch->replies.emplace_back();
  Reply& reply = batch->replies.back();
  if (!is_connected()) return;
  auto ticket =
      std::unique_ptr<Ticket>(new Ticket{*this, batch, reply, std::move(steps), {}, {}, {}, acl()});
  // The library may answer within the call.
  reply.sent = true;
  ++batch->open;
  ++outstanding_;
  Ticket* raw = ticket.release();
  const Entered entered(*this);
  const int rc = call(*raw);
  if (rc == ZOK) {
    if (!is_connected()) flush_unsent();
    return turn_soon();  // it may want to write now
  }
  ticket.reset(raw);
  reply.sent = false;
  reply.rc = rc;
  --batch->open;
  --outstanding_;
}

void Link::sync(const std::shared_ptr<Batch>& batch, const std::string& path) {
  issue(batch, [&](Ticket& ticket) {
    return zoo_async(handle_, path.c_str(), &Link::on_string, &ticket);
  });
}

void Link::exists(const std::shared_ptr<Batch>& batch, const std::string& path, bool watch) {
  issue(batch, [&](Ticket& ticket) {
    return zoo_awexists(
        handle_, path.c_str(), watch ? &Link::on_watch : nullptr, this, &Link::on_stat, &ticket);
  });
}

void Link::get(const std::shared_ptr<Batch>& batch, const std::string& path, bool watch) {
  issue(batch, [&](Ticket& ticket) {
    return zoo_awget(
        handle_, path.c_str(), watch ? &Link::on_watch : nullptr, this, &Link::on_data, &ticket);
  });
}

void Link::children(const std::shared_ptr<Batch>& batch, const std::string& path, bool watch) {
  issue(batch, [&](Ticket& ticket) {
    return zoo_awget_children2(
        handle_, path.c_str(), watch ? &Link::on_watch : nullptr, this, &Link::on_strings, &ticket);
  });
}

void Link::create_folder(const std::shared_ptr<Batch>& batch, const std::string& path) {
  issue(batch, [&](Ticket& ticket) {
    return zoo_acreate(
        handle_, path.c_str(), nullptr, -1, &ticket.acl, ZOO_PERSISTENT, &Link::on_string, &ticket);
  });
}

void Link::multi(const std::shared_ptr<Batch>& batch, std::vector<Step> steps) {
  const auto call = [&](Ticket& ticket) {
    const auto count = ticket.steps.size();
    ticket.operations.resize(count);
    ticket.results.resize(count);
    ticket.stats.resize(count);
    for (std::size_t i = 0; i < count; ++i) {
      const Step& step = ticket.steps[i];
      zoo_op_t* op = &ticket.operations[i];
      switch (step.kind) {
        case Step::Kind::check:
          zoo_check_op_init(op, step.path.c_str(), step.version);
          break;
        case Step::Kind::create:
          zoo_create_op_init(op,
                             step.path.c_str(),
                             "",
                             0,
                             &ticket.acl,
                             step.ephemeral ? ZOO_EPHEMERAL : ZOO_PERSISTENT,
                             nullptr,
                             0);
          break;
        case Step::Kind::set:
          zoo_set_op_init(op,
                          step.path.c_str(),
                          step.value.data(),
                          static_cast<int>(step.value.size()),
                          step.version,
                          &ticket.stats[i]);
          break;
        case Step::Kind::erase:
          zoo_delete_op_init(op, step.path.c_str(), step.version);
          break;
      }
    }
    return zoo_amulti(handle_,
                      static_cast<int>(count),
                      ticket.operations.data(),
                      ticket.results.data(),
                      &Link::on_void,
                      &ticket);
  };
  issue(batch, call, std::move(steps));
}

void Link::on_void(int rc, const void* data) {
  Ticket::answer(data, rc, [](Ticket& ticket) {
    for (std::size_t i = 0; i < ticket.results.size(); ++i) {
      ticket.reply.codes.push_back(ticket.results[i].err);
      ticket.reply.nodes.push_back(node_of(ticket.stats[i]));
    }
  });
}

void Link::on_string(int rc, const char*, const void* data) {
  Ticket::answer(data, rc);
}

void Link::on_stat(int rc, const Stat* stat, const void* data) {
  Ticket::answer(data, rc, [&](Ticket& ticket) {
    if (rc == ZOK && stat != nullptr) ticket.reply.node = node_of(*stat);
  });
}

void Link::on_data(int rc, const char* value, int size, const Stat* stat, const void* data) {
  Ticket::answer(data, rc, [&](Ticket& ticket) {
    if (rc != ZOK) return;
    if (stat != nullptr) ticket.reply.node = node_of(*stat);
    ticket.reply.is_null = value == nullptr || size < 0;
    if (!ticket.reply.is_null) ticket.reply.value.assign(value, static_cast<std::size_t>(size));
  });
}

void Link::on_strings(int rc, const String_vector* strings, const Stat* stat, const void* data) {
  Ticket::answer(data, rc, [&](Ticket& ticket) {
    if (rc != ZOK) return;
    if (stat != nullptr) ticket.reply.node = node_of(*stat);
    if (strings == nullptr) return;
    for (std::int32_t i = 0; i < strings->count; ++i)
      ticket.reply.names.emplace_back(strings->data[i]);
  });
}

// ---- the handle --------------------------------------------------------------------------------

Link::Link(asio::any_io_executor executor, Clock& clock, const Options& options, Events events)
    : executor_(executor),
      clock_(clock),
      logger_(options.logger),
      auths_(options.auths),
      acls_(options.acls),
      events_(std::move(events)),
      news_(executor, clock),
      timer_(executor) {
  for (auto& one : acls_) {
    ::ACL record{};
    record.perms = one.permissions;
    record.id.scheme = one.scheme.data();
    record.id.id = one.id.data();
    acl_records_.push_back(record);
  }
}

Link::~Link() {
  close_quietly();
}

ACL_vector Link::acl() {
  if (acl_records_.empty()) return ZOO_OPEN_ACL_UNSAFE;
  ACL_vector out{};
  out.count = static_cast<std::int32_t>(acl_records_.size());
  out.data = acl_records_.data();
  return out;
}

Result<void> Link::open(const std::string& addresses, int timeout_ms, const clientid_t* resume) {
  const Entered entered(*this);
  asked_ms_ = timeout_ms;
  servers_ = 1 + static_cast<std::size_t>(std::ranges::count(addresses, ','));
  handle_ = zookeeper_init2(addresses.c_str(),
                            &Link::on_watch,
                            timeout_ms,
                            resume,
                            this,
                            ZOO_NO_LOG_CLIENTENV,
                            &Link::on_log);
  if (handle_ == nullptr)
    return Error(
        errc::invalid_argument,
        fmt::format(
            "zookeeper {}: the client library refuses these addresses: {}", addresses, trouble_));
  for (const auto& auth : auths_)
    zoo_add_auth(handle_,
                 auth.scheme.c_str(),
                 auth.credential.data(),
                 static_cast<int>(auth.credential.size()),
                 nullptr,
                 nullptr);
  turn();
  return boost::system::in_place_value;
}

void Link::set_addresses(const std::string& addresses) {
  if (handle_ == nullptr) return;
  const Entered entered(*this);
  zoo_set_servers(handle_, addresses.c_str());
}

bool Link::is_connected() const noexcept {
  return handle_ != nullptr && zoo_state(handle_) == ZOO_CONNECTED_STATE;
}

Duration Link::timeout() const {
  return std::chrono::milliseconds(handle_ != nullptr ? zoo_recv_timeout(handle_) : 0);
}

clientid_t Link::identity() const {
  return handle_ != nullptr ? *zoo_client_id(handle_) : clientid_t{};
}

std::string Link::server() const {
  const char* text = handle_ != nullptr ? zoo_get_current_server(handle_) : nullptr;
  return text != nullptr ? text : "";
}

void Link::prove(TimePoint sent) {
  signs_.push_back(sent);
  const TimePoint told = sent - told_after(timeout());
  while (!signs_.empty() && signs_.front() <= told) {
    proven_ = std::max(proven_, signs_.front());
    signs_.pop_front();
  }
}

// ---- the pump ----------------------------------------------------------------------------------

void Link::stop_waiting() {
  ++round_;
  descriptor_.reset();
  timer_.cancel();
}

// Once for any number of calls.
void Link::turn_soon() {
  if (std::exchange(turning_, true)) return;
  asio::post(executor_, [weak = weak_from_this()] {
    const auto self = weak.lock();
    if (!self) return;
    self->turning_ = false;
    self->turn();
  });
}

void Link::turn() {
  if (ending_) return;
  stop_waiting();
  if (handle_ == nullptr) return;
  int fd = -1;
  int interest = 0;
  timeval limit{};
  const int before = zoo_state(handle_);
  const TimePoint now = clock_.now();
  if (before != ZOO_CONNECTING_STATE && before != ZOO_ASSOCIATING_STATE) connecting_ = false;
  const Entered entered(*this);
  const int rc = zookeeper_interest(handle_, &fd, &interest, &limit);
  if (zoo_state(handle_) == ZOO_ASSOCIATING_STATE && before != ZOO_ASSOCIATING_STATE)
    handshake_ = now;
  look_at_state();
  if (expired_ || refused_) return;
  if (is_hanging(rc == ZOK && fd >= 0 && !is_connected(), now, limit)) {
    trouble_ = fmt::format("{} takes the connection, but does not answer", server());
    drop_connection();
    return turn_soon();
  }
  // After an error the descriptor may be closed already.
  wait_for(rc == ZOK ? fd : -1, interest, limit);
}

// The library gives a server two thirds of the timeout to answer its greeting, which is all that a
// lease has left. Others may be alive: each attempt gets an eighth, more with each round of
// failures.
bool Link::is_hanging(bool connecting, TimePoint now, timeval& limit) {
  if (connecting && !std::exchange(connecting_, connecting)) {
    attempt_ = now;
    ++attempts_;
  }
  if (!connecting || servers_ < 2) return false;
  const auto rounds = (attempts_ - 1) / static_cast<int>(servers_) + 1;
  const auto patience = std::chrono::milliseconds(asked_ms_) * std::min(rounds, 4) / 8;
  const auto left = attempt_ + patience - now;
  if (left <= Duration::zero()) return true;
  const auto span = std::chrono::seconds(limit.tv_sec) + std::chrono::microseconds(limit.tv_usec);
  if (left < span) {
    const auto whole = std::chrono::ceil<std::chrono::microseconds>(left);
    limit.tv_sec = static_cast<time_t>(whole / 1s);
    limit.tv_usec = static_cast<suseconds_t>((whole % 1s).count());
  }
  return false;
}

void Link::wait_for(int fd, int interest, timeval limit) {
  const auto round = round_;
  const auto ready = [weak = weak_from_this(), round](int events) {
    return [weak, round, events](boost::system::error_code ec) {
      if (ec == asio::error::operation_aborted) return;
      if (const auto self = weak.lock()) self->on_ready(round, events);
    };
  };
  const int own = fd >= 0 ? ::fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1;
  if (own >= 0) {
    descriptor_.emplace(executor_, own);
    if (interest & ZOOKEEPER_READ)
      descriptor_->async_wait(Descriptor::wait_read, ready(ZOOKEEPER_READ));
    if (interest & ZOOKEEPER_WRITE)
      descriptor_->async_wait(Descriptor::wait_write, ready(ZOOKEEPER_WRITE));
  }
  auto span = std::chrono::seconds(limit.tv_sec) + std::chrono::microseconds(limit.tv_usec);
  // No descriptor of our own although there is one: none is left in this process.
  if (fd >= 0 && own < 0) span = 100ms;
  timer_.expires_after(std::max<asio::steady_timer::duration>(span, 1ms));
  timer_.async_wait(ready(0));
}

void Link::on_ready(std::uint64_t round, int events) {
  if (round != round_ || handle_ == nullptr) return;
  // A handler must not destroy the link that it runs in.
  const auto self = shared_from_this();
  process(events);
  turn();
}

void Link::process(int events) {
  const Entered entered(*this);
  // One packet is read by each call; a busy connection lets others run after some of them.
  for (int packets = 0; packets < 64; ++packets) {
    const int before = zoo_state(handle_);
    const TimePoint now = clock_.now();
    const int rc = zookeeper_process(handle_, events);
    if (zoo_state(handle_) == ZOO_ASSOCIATING_STATE && before != ZOO_ASSOCIATING_STATE)
      handshake_ = now;
    if (rc == ZOK && (events & ZOOKEEPER_READ)) heard_ = now;
    look_at_state();
    if (rc != ZOK || events != ZOOKEEPER_READ || !is_connected()) return;
  }
}

void Link::look_at_state() {
  const bool connected = is_connected();
  const int state = zoo_state(handle_);
  const bool was_over = expired_ || refused_;
  expired_ = state == ZOO_EXPIRED_SESSION_STATE;
  refused_ = state == ZOO_AUTH_FAILED_STATE;
  if (connected == was_connected_ && was_over == (expired_ || refused_)) return;
  if (connected && !was_connected_) {
    ++connections_;
    attempts_ = 0;
    signs_.clear();
    // Opening a session and going on with it are asked of the leader.
    proven_ = std::max(proven_, handshake_);
    heard_ = clock_.now();
    said_trouble_ = false;
    logger_.info("zookeeper: connected to {}, session {}, timeout {} ms",
                 server(),
                 session_name(identity().client_id).str(),
                 zoo_recv_timeout(handle_));
    if (events_.connected) events_.connected();
  } else if (was_connected_ && !connected) {
    logger_.warning("zookeeper: the connection is lost{}{}: {}",
                    expired_ ? ", the session has expired" : "",
                    refused_ ? ", the credentials were refused" : "",
                    trouble_);
  } else if (expired_) {
    logger_.warning("zookeeper: the session has expired");
  }
  was_connected_ = connected;
  news_.tell();
}

void Link::on_watch(zhandle_t*, int type, int, const char* path, void* self) {
  auto& link = *static_cast<Link*>(self);
  // Session events are seen by look_at_state().
  if (type != ZOO_SESSION_EVENT && link.events_.changed)
    link.events_.changed(path != nullptr ? path : "");
}

void Link::on_log(const char* line) {
  if (Link* link = Entered::now()) link->log_line(line);
}

// "2024-05-01 10:00:00,000:4711:ZOO_ERROR@function@123: text". All of it goes to the debug log:
// what an operator should know is told by look_at_state(), and once for each outage here.
void Link::log_line(const char* line) {
  const std::string_view whole(line);
  const auto level = whole.find(":ZOO_");
  const auto colon = level == std::string_view::npos ? level : whole.find(": ", level);
  const auto text = colon == std::string_view::npos ? whole : whole.substr(colon + 2);
  const bool is_error =
      level != std::string_view::npos && whole.substr(level + 5).starts_with("ERROR");
  if (is_error) trouble_ = std::string(text);
  if (is_error && !was_connected_ && !said_trouble_) {
    said_trouble_ = true;
    logger_.warning("zookeeper: not connected, trying on: {}", text);
    return;
  }
  logger_.debug("zookeeper: {}", text);
}

}  // namespace spilo::zookeeper
