// A TCP proxy in the test's own io_context that misbehaves on request: refuses, freezes, delays, or
// cuts what the server answers. Its faults apply to connections that exist as well as to new ones.
#pragma once

#include <algorithm>
#include <array>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

namespace spilo::test {

class FlakyProxy {
  using tcp = boost::asio::ip::tcp;

 public:
  // Listens on the address of its server, on a free port unless one is given.
  FlakyProxy(
      boost::asio::io_context& io,
      std::uint16_t server_port,
      std::uint16_t port = 0,
      boost::asio::ip::address address = boost::asio::ip::address_v4::loopback())
      : state_(std::make_shared<State>(io, server_port, address)) {
    state_->listen(port);
  }
  ~FlakyProxy() {
    state_->stop_listening();
    state_->close_all();
  }
  FlakyProxy(const FlakyProxy&) = delete;
  FlakyProxy& operator=(const FlakyProxy&) = delete;

  std::uint16_t port() const noexcept { return state_->port; }
  std::size_t connections() const noexcept { return state_->accepted; }  // so far
  std::size_t requests() const noexcept {
    return state_->requests;
  }  // chunks of bytes from clients

  void pass() {  // no faults from now on; frozen connections go on
    state_->cut_after.reset();
    state_->delay = {};
    state_->frozen = false;
    state_->listen(state_->port);
    state_->wake();
  }
  void freeze() {
    state_->frozen = true;
  }  // nothing moves in either direction; connecting still works
  void freeze_answers() { state_->answers_frozen = true; }  // requests arrive, answers don't
  void thaw_answers() {
    state_->answers_frozen = false;
    state_->wake();
  }
  void delay_answers(std::chrono::milliseconds time) { state_->delay = time; }
  // Closes a connection once it has carried that many bytes of answers, counted from now; 0: the
  // request arrives, the answer never does.
  void cut_answers_after(std::size_t bytes) {
    state_->cut_after = bytes;
    state_->answered = 0;
  }
  void drop_connections() { state_->close_all(); }
  void refuse() {  // nobody listens, and existing connections are closed
    state_->stop_listening();
    state_->close_all();
  }

 private:
  struct State;

  struct Link : std::enable_shared_from_this<Link> {
    Link(boost::asio::io_context& io, std::shared_ptr<State> owner, tcp::socket accepted)
        : state(std::move(owner)), client(std::move(accepted)), server(io) {}
    void start() {
      server.async_connect({state->address, state->server_port},
                           [self = shared_from_this()](boost::system::error_code ec) {
                             if (ec) return self->close();
                             // A proxy that waits for more would be a fault of its own.
                             boost::system::error_code ignored;
                             self->client.set_option(tcp::no_delay(true), ignored);
                             self->server.set_option(tcp::no_delay(true), ignored);
                             self->read(true);
                             self->read(false);
                           });
    }
    void read(bool from_client) {
      auto& from = from_client ? client : server;
      from.async_read_some(boost::asio::buffer(buffers[from_client]),
                           [self = shared_from_this(), from_client](boost::system::error_code ec,
                                                                    std::size_t bytes) {
                             if (ec) return self->close();
                             if (from_client) ++self->state->requests;
                             self->forward(from_client, bytes);
                           });
    }
    void forward(bool from_client, std::size_t bytes) {
      const bool held = state->frozen || (!from_client && state->answers_frozen);
      const auto delay = from_client ? std::chrono::milliseconds(0) : state->delay;
      if (held || delay.count() > 0) {
        auto& timer = timers[from_client];
        timer = std::make_unique<boost::asio::steady_timer>(client.get_executor());
        if (held) {
          timer->expires_at(boost::asio::steady_timer::time_point::max());
        } else {
          timer->expires_after(delay);
        }
        timer->async_wait([self = shared_from_this(), from_client, bytes, held](auto) {
          if (!self->client.is_open()) return;
          if (held) return self->forward(from_client, bytes);
          self->send(from_client, bytes);
        });
        return;
      }
      send(from_client, bytes);
    }
    void send(bool from_client, std::size_t bytes) {
      std::size_t allowed = bytes;
      if (!from_client && state->cut_after) {
        allowed = std::min(bytes, *state->cut_after - std::min(*state->cut_after, state->answered));
        state->answered += allowed;
      }
      auto& to = from_client ? server : client;
      boost::asio::async_write(
          to,
          boost::asio::buffer(buffers[from_client].data(), allowed),
          [self = shared_from_this(), from_client, whole = allowed == bytes](auto ec, std::size_t) {
            if (ec || !whole) return self->close();
            self->read(from_client);
          });
    }
    void close() {
      boost::system::error_code ignored;
      client.close(ignored);
      server.close(ignored);
      for (auto& timer : timers)
        if (timer) timer->cancel();
    }
    std::shared_ptr<State> state;
    tcp::socket client;
    tcp::socket server;
    std::array<std::array<char, 16384>, 2> buffers;
    std::array<std::unique_ptr<boost::asio::steady_timer>, 2> timers;
  };

  struct State : std::enable_shared_from_this<State> {
    State(boost::asio::io_context& context, std::uint16_t to, boost::asio::ip::address at)
        : io(context), address(at), server_port(to) {}
    void listen(std::uint16_t at) {
      if (acceptor) return;
      acceptor = std::make_unique<tcp::acceptor>(
          io, tcp::endpoint(address, at));
      port = acceptor->local_endpoint().port();
      accept();
    }
    void stop_listening() { acceptor.reset(); }
    void accept() {
      acceptor->async_accept(
          [self = shared_from_this()](boost::system::error_code ec, tcp::socket socket) {
            if (ec) return;
            ++self->accepted;
            std::erase_if(self->links, [](const auto& link) { return link.expired(); });
            auto link = std::make_shared<Link>(self->io, self, std::move(socket));
            self->links.push_back(link);
            link->start();
            if (self->acceptor) self->accept();
          });
    }
    void close_all() {
      for (auto& weak : std::exchange(links, {}))
        if (const auto link = weak.lock()) link->close();
    }
    void wake() {
      for (auto& weak : links)
        if (const auto link = weak.lock())
          for (auto& timer : link->timers)
            if (timer) timer->cancel();
    }
    boost::asio::io_context& io;
    boost::asio::ip::address address;
    std::uint16_t server_port;
    std::uint16_t port = 0;
    std::unique_ptr<tcp::acceptor> acceptor;
    std::vector<std::weak_ptr<Link>> links;
    std::optional<std::size_t> cut_after;
    std::size_t answered = 0;
    std::size_t accepted = 0;
    std::size_t requests = 0;
    std::chrono::milliseconds delay{};
    bool frozen = false;
    bool answers_frozen = false;
  };

  std::shared_ptr<State> state_;
};

}  // namespace spilo::test
