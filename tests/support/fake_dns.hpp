// A DNS server in the test's own io_context: knows SRV records, says "no such name" to everything
// else, or nothing at all.
#pragma once

#include <array>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/udp.hpp>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace spilo::test {

class FakeDns {
  using udp = boost::asio::ip::udp;

 public:
  struct Srv {
    std::string host;
    std::uint16_t port = 0;
    std::uint16_t priority = 0;
    std::uint16_t weight = 0;
  };
  explicit FakeDns(boost::asio::io_context& io)
      : socket_(io, udp::endpoint(boost::asio::ip::address_v4::loopback(), 0)) {
    receive();
  }
  std::string address() const {
    return "127.0.0.1:" + std::to_string(socket_.local_endpoint().port());
  }

  std::map<std::string, std::vector<Srv>> records;
  std::vector<std::string> questions;  // as they came
  bool silent = false;
  int code = 3;  // for names that it does not know: NXDOMAIN

  // The bytes of an answer to the question of `query`, which is a whole query.
  static std::string answer(std::string_view query, const std::vector<Srv>& records, int code) {
    std::size_t end = 12;
    while (end < query.size() && query[end] != 0)
      end += static_cast<unsigned char>(query[end]) + 1u;
    end += 5;  // the last label, type and class
    std::string out(query.substr(0, 2));
    out += static_cast<char>(0x81);  // an answer, recursion as desired
    out += static_cast<char>(0x80 | code);
    number(out, 1);
    number(out, static_cast<unsigned>(records.size()));
    number(out, 0);
    number(out, 0);
    out += query.substr(12, end - 12);
    for (const auto& record : records) {
      const auto host = name(record.host);
      number(out, 0xc00c);  // the name of the question
      number(out, 33);
      number(out, 1);
      number(out, 0);
      number(out, 60);
      number(out, static_cast<unsigned>(6 + host.size()));
      number(out, record.priority);
      number(out, record.weight);
      number(out, record.port);
      out += host;
    }
    return out;
  }

 private:
  static void number(std::string& out, unsigned value) {
    out += static_cast<char>(value >> 8 & 0xff);
    out += static_cast<char>(value & 0xff);
  }
  static std::string name(std::string_view text) {
    std::string out;
    while (!text.empty() && text != ".") {
      const auto dot = text.find('.');
      const auto label = text.substr(0, dot);
      out += static_cast<char>(label.size());
      out += label;
      text = dot == std::string_view::npos ? std::string_view() : text.substr(dot + 1);
    }
    return out + '\0';
  }
  static std::string question_of(std::string_view query) {
    std::string out;
    for (std::size_t at = 12; at < query.size() && query[at] != 0;) {
      const auto size = static_cast<std::size_t>(static_cast<unsigned char>(query[at]));
      out += (out.empty() ? "" : ".") + std::string(query.substr(at + 1, size));
      at += size + 1;
    }
    return out;
  }
  void receive() {
    socket_.async_receive_from(boost::asio::buffer(buffer_),
                               from_,
                               [this](boost::system::error_code ec, std::size_t size) {
                                 if (ec) return;
                                 const std::string_view query(buffer_.data(), size);
                                 const auto asked = question_of(query);
                                 questions.push_back(asked);
                                 if (!silent) {
                                   const auto known = records.find(asked);
                                   const auto text = known == records.end()
                                                         ? answer(query, {}, code)
                                                         : answer(query, known->second, 0);
                                   boost::system::error_code ignored;
                                   socket_.send_to(boost::asio::buffer(text), from_, 0, ignored);
                                 }
                                 receive();
                               });
  }
  udp::socket socket_;
  udp::endpoint from_;
  std::array<char, 4096> buffer_{};
};

}  // namespace spilo::test
