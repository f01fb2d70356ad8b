// Who may talk to etcd: users, tokens that run out, certificates.
#include <doctest/doctest.h>

#include <fstream>

#include "etcd/etcd_world.hpp"

using namespace spilo;
using namespace spilo::test;
using namespace std::chrono_literals;

namespace {
const auto no_etcd = doctest::skip(!have_etcd());

std::uint64_t index_of(const Result<dcs::Snapshot>& snapshot) {
  REQUIRE_MESSAGE(snapshot.has_value(), snapshot.error().text());
  return snapshot->index().value;
}

etcd::Options as_root(const char* password = "secret") {
  etcd::Options options;
  options.username = "root";
  options.password = password;
  return options;
}
}  // namespace

TEST_CASE("authentication: wrong password, right password, a token that the server has forgotten" *
          no_etcd) {
  EtcdCluster etcd;
  EtcdWorld w;
  const auto url = etcd[0].url();
  w.enable_authentication(url);

  etcd::Options options;
  options.username = "root";
  options.password = "wrong";
  auto& intruder = w.store(etcd.urls(), options);
  const auto refused = w.read(intruder);
  CHECK(refused.error().is(errc::denied));
  CHECK(refused.error().detail().find("as user root") != std::string::npos);
  CHECK(refused.error().detail().find("wrong") == std::string::npos);
  auto& nobody = w.store(etcd.urls());
  CHECK(w.read(nobody).has_error());
  CHECK(w.put(nobody, "config", "x").has_error());
  CHECK(w.changed(nobody, dcs::Index{1}, 200ms).has_error());

  // User and password in the URL.
  const auto with_user =
      net::Url::parse("http://root:secret@127.0.0.1:" + std::to_string(url.port()));
  REQUIRE(with_user.has_value());
  auto& store = w.store(std::vector<net::Url>(1, *with_user));
  REQUIRE(w.put(store, "config", "1").has_value());
  const auto lease = w.renew(store, 10s);
  REQUIRE(lease.has_value());
  const dcs::Index seen{index_of(w.read(store))};
  CHECK(w.changed(store, seen, 50ms).error().is(errc::timed_out));

  etcd[0].restart();  // simple tokens live in memory
  const auto renewed = w.renew(store, 10s, 8s);
  REQUIRE_MESSAGE(renewed.has_value(), renewed.error().text());
  CHECK(renewed->session == lease->session);
  REQUIRE(w.put(store, "config", "2").has_value());
  const auto changed = w.changed(store, seen, 5s);
  CHECK_MESSAGE(changed.has_value(), changed.error().text());
  CHECK(w.log.find("secret") == std::string::npos);
}

namespace {
// A certificate authority, a server's certificate for 127.0.0.1 and a client's, made with the
// openssl program.
class Certificates {
 public:
  explicit Certificates(const TempDir& dir) : dir_(dir) {
    const auto ca = [&](const std::string& name) {
      openssl({"req",
               "-x509",
               "-newkey",
               "ec",
               "-pkeyopt",
               "ec_paramgen_curve:prime256v1",
               "-nodes",
               "-days",
               "2",
               "-subj",
               "/CN=" + name,
               "-keyout",
               file(name + ".key"),
               "-out",
               file(name + ".crt")});
    };
    ca("ca");
    ca("other-ca");
    signed_by_ca("server", "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n");
    signed_by_ca("elsewhere",
                 "subjectAltName=DNS:elsewhere.example\nextendedKeyUsage=serverAuth,clientAuth\n");
    signed_by_ca("client", "extendedKeyUsage=clientAuth\n");
    signed_by_ca(
        "late", "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n", "-1");
    openssl({"genrsa", "-out", file("token.key"), "2048"});
    openssl({"rsa", "-in", file("token.key"), "-pubout", "-out", file("token.pub")});
  }
  std::string file(const std::string& name) const { return dir_ / name; }

 private:
  void openssl(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "openssl");
    run_command(std::move(arguments), file("openssl.log"));
  }
  void signed_by_ca(const std::string& name,
                    const std::string& extensions,
                    const std::string& days = "2") {
    std::ofstream(file(name + ".ext")) << extensions;
    openssl({"req",
             "-newkey",
             "ec",
             "-pkeyopt",
             "ec_paramgen_curve:prime256v1",
             "-nodes",
             "-subj",
             "/CN=" + name,
             "-keyout",
             file(name + ".key"),
             "-out",
             file(name + ".csr")});
    openssl({"x509",
             "-req",
             "-in",
             file(name + ".csr"),
             "-CA",
             file("ca.crt"),
             "-CAkey",
             file("ca.key"),
             "-CAcreateserial",
             "-days",
             days,
             "-extfile",
             file(name + ".ext"),
             "-out",
             file(name + ".crt")});
  }
  const TempDir& dir_;
};
}  // namespace

namespace {
// Renews, writes, reads and waits for `time`; nothing of it may fail.
void work_for(EtcdWorld& w, dcs::Store& store, Duration time) {
  const auto end = w.clock.now() + time;
  int round = 0;
  while (w.clock.now() < end) {
    const auto renewed = w.renew(store, 10s);
    REQUIRE_MESSAGE(renewed.has_value(), renewed.error().text());
    const auto put = w.put(store, "status", std::to_string(++round));
    REQUIRE_MESSAGE(put.has_value(), put.error().text());
    const dcs::Index before{index_of(w.read(store)) - 1};
    const auto changed = w.changed(store, before, 2s);
    REQUIRE_MESSAGE(changed.has_value(), changed.error().text());
    const auto nothing = w.changed(store, dcs::Index{before.value + 1}, 100ms);
    CHECK(nothing.error().is(errc::timed_out));
  }
}
}  // namespace

TEST_CASE("tokens that run out, of both kinds: nothing fails, and a watch goes on" * no_etcd) {
  TempDir dir;
  Certificates certs(dir);
  std::vector<std::string> kind;
  SUBCASE("signed ones, which live a second whatever is done with them") {
    kind = {"--auth-token",
            fmt::format("jwt,pub-key={},priv-key={},sign-method=RS256,ttl=1s",
                        certs.file("token.pub"),
                        certs.file("token.key"))};
  }
  SUBCASE("simple ones, which die of a second without use") {
    kind = {"--auth-token-ttl", "1"};
  }
  EtcdCluster etcd(1, kind);
  EtcdWorld w;
  w.enable_authentication(etcd[0].url());
  auto& store = w.store(etcd.urls(), as_root());
  work_for(w, store, 3500ms);
  // Long enough without a call for the token to be gone, while the watch stays open.
  const dcs::Index seen{index_of(w.read(store))};
  CHECK(w.changed(store, seen, 3s).error().is(errc::timed_out));
  work_for(w, store, 500ms);
  CHECK(w.log.find("secret") == std::string::npos);
}

TEST_CASE("a password that is changed under us is one clear refusal" * no_etcd) {
  EtcdCluster etcd;
  EtcdWorld w;
  const auto url = etcd[0].url();
  w.enable_authentication(url);
  auto& store = w.store(etcd.urls(), as_root());
  REQUIRE(w.renew(store, 10s).has_value());
  w.call(url,
         "/v3/auth/user/changepw",
         R"({"name":"root","password":"other"})",
         "POST",
         w.log_in(url, "root", "secret"));
  // (etcd before 3.4.42 renews leases for everybody.)
  const auto read = w.read(store, 2s);
  REQUIRE(read.has_error());
  CHECK_MESSAGE(read.error().is(errc::denied), read.error().text());
  CHECK_MESSAGE(read.error().detail().find("check user and password") != std::string::npos,
                read.error().text());
  // Refused at once, not after the whole deadline, and without a storm of attempts.
  const auto began = w.clock.now();
  const auto put = w.put(store, "config", "x", 5s);
  CHECK(put.error().is(errc::denied));
  CHECK(w.changed(store, dcs::Index{1}, 5s).error().is(errc::denied));
  CHECK(w.clock.now() - began < 2s);
  auto& right = w.store(etcd.urls(), as_root("other"));
  CHECK(w.renew(right, 10s).has_value());
}

TEST_CASE("authentication that is switched on and off under a client with a password" * no_etcd) {
  EtcdCluster etcd;
  EtcdWorld w;
  const auto url = etcd[0].url();
  auto& store = w.store(etcd.urls(), as_root());
  auto& idle = w.store(etcd.urls(), as_root());
  work_for(w, store, 200ms);  // off
  REQUIRE(w.read(idle).has_value());
  w.enable_authentication(url);
  // The one begins with a call, the other with a watch.
  const auto watched = w.changed(idle, dcs::Index{index_of(w.read(store))}, 1s);
  CHECK_MESSAGE(watched.error().is(errc::timed_out), watched.error().text());
  CHECK_MESSAGE(watched.error().detail().find("no watch") == std::string::npos,
                watched.error().text());
  work_for(w, store, 200ms);
  w.call(url, "/v3/auth/disable", "{}", "POST", w.log_in(url, "root", "secret"));
  work_for(w, store, 200ms);
  work_for(w, idle, 200ms);
}

TEST_CASE("TLS with client certificates" * no_etcd) {
  TempDir dir;
  Certificates certs(dir);
  const auto member = [&](const std::string& certificate) {
    return std::make_unique<EtcdMember>(dir,
                                        certificate,
                                        free_port(),
                                        free_port(),
                                        "",
                                        std::vector<std::string>{"--client-cert-auth",
                                                                 "--trusted-ca-file",
                                                                 certs.file("ca.crt"),
                                                                 "--cert-file",
                                                                 certs.file(certificate + ".crt"),
                                                                 "--key-file",
                                                                 certs.file(certificate + ".key")},
                                        "https");
  };
  const auto etcd = member("server");
  const auto elsewhere = member("elsewhere");
  const auto late = member("late");
  REQUIRE(etcd->wait_ready());
  REQUIRE(elsewhere->wait_ready());
  REQUIRE(late->wait_ready());
  EtcdWorld w;
  const auto store =
      [&](const std::string& ca, const std::string& client, const EtcdMember& at) -> dcs::Store& {
    etcd::Options options;
    options.tls.ca_file = certs.file(ca + ".crt");
    if (!client.empty()) {
      options.tls.cert_file = certs.file(client + ".crt");
      options.tls.key_file = certs.file(client + ".key");
    }
    return w.store(std::vector<net::Url>(1, at.url()), options);
  };
  auto& good = store("ca", "client", *etcd);
  const auto written = w.put(good, "config", "1");
  REQUIRE_MESSAGE(written.has_value(), written.error().text());
  const dcs::Index seen{index_of(w.read(good))};
  CHECK(w.changed(good, seen, 50ms).error().is(errc::timed_out));
  REQUIRE(w.put(good, "config", "2").has_value());
  CHECK(w.changed(good, seen, 5s).has_value());

  const auto no_certificate = w.read(store("ca", "", *etcd), 1s);
  CHECK_MESSAGE(no_certificate.error().is(errc::denied), no_certificate.error().text());
  const auto untrusted = w.read(store("other-ca", "client", *etcd), 1500ms);
  CHECK_MESSAGE(untrusted.error().is(errc::unavailable), untrusted.error().text());
  CHECK(untrusted.error().detail().find("certificate verify failed") != std::string::npos);
  CHECK_MESSAGE(untrusted.error().detail().find("unable to get local issuer certificate") !=
                    std::string::npos,
                untrusted.error().text());
  const auto wrong_host = w.put(store("ca", "client", *elsewhere), "config", "x", 1500ms);
  CHECK_MESSAGE(wrong_host.error().is(errc::unavailable), wrong_host.error().text());
  CHECK_MESSAGE(wrong_host.error().detail().find("is not for 127.0.0.1") != std::string::npos,
                wrong_host.error().text());
  const auto no_file = w.read(store("missing", "client", *etcd), 1500ms);
  CHECK(no_file.error().detail().find("missing.crt") != std::string::npos);

  // Certificates whose time is over, the server's and ours.
  const auto says = [](const Error& error, std::string_view text) {
    CHECK_MESSAGE(error.detail().find(text) != std::string::npos, error.text());
  };
  const auto expired = w.read(store("ca", "client", *late), 1500ms);
  REQUIRE(expired.has_error());
  CHECK_MESSAGE(expired.error().is(errc::unavailable), expired.error().text());
  says(expired.error(), "certificate has expired");
  const auto ours = w.read(store("ca", "late", *etcd), 1s);
  REQUIRE(ours.has_error());
  CHECK_MESSAGE(ours.error().is(errc::denied), ours.error().text());

  // http to a port that speaks TLS, and https to one that does not.
  const auto plain = w.put(w.store(std::vector<net::Url>(1, net::Url("127.0.0.1", etcd->port()))),
                           "config",
                           "x",
                           1500ms);
  REQUIRE(plain.has_error());
  CHECK_MESSAGE(plain.error().is(errc::unavailable), plain.error().text());
  says(plain.error(), "begins with https");
  EtcdCluster without;
  etcd::Options tls;
  tls.tls.ca_file = certs.file("ca.crt");
  const auto secure =
      w.put(w.store(std::vector<net::Url>(1, net::Url("127.0.0.1", without[0].port(), true)), tls),
            "config",
            "x",
            1500ms);
  REQUIRE(secure.has_error());
  CHECK_MESSAGE(secure.error().is(errc::unavailable), secure.error().text());
  says(secure.error(), "begins with http");
}
