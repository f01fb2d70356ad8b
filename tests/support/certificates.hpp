// Certificates for TLS tests.
#pragma once

#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "support/process.hpp"

namespace spilo::test {

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
  }
  std::string file(const std::string& name) const { return dir_ / name; }

 private:
  void openssl(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "openssl");
    run_command(std::move(arguments), file("openssl.log"));
  }
  void signed_by_ca(const std::string& name, const std::string& extensions) {
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
             "2",
             "-extfile",
             file(name + ".ext"),
             "-out",
             file(name + ".crt")});
  }
  const TempDir& dir_;
};

}  // namespace spilo::test
