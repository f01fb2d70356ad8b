# Sourced: what a fresh Debian 12 lacks, and how it is installed, as root or with sudo.
build_packages=(cmake ninja-build g++ pkg-config libboost1.81-dev libboost-json1.81-dev libboost-url1.81-dev libpq-dev
  libfmt-dev libcli11-dev libssl-dev libyaml-cpp-dev libsqlite3-dev doctest-dev postgresql-15 util-linux procps)
test_packages=(clang openssl iproute2 etcd-server patroni)

install_packages() {
  local missing=()
  local package
  for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  local become=()
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || {
      echo "missing packages: ${missing[*]}; install them as root, or install sudo and run this again" >&2
      return 1
    }
    become=(sudo)
  fi
  echo "installing: ${missing[*]}"
  # A cluster of Debian's own on port 5432 would only be in the way.
  "${become[@]}" mkdir -p /etc/postgresql-common
  [ -e /etc/postgresql-common/createcluster.conf ] ||
    echo 'create_main_cluster = false' | "${become[@]}" tee /etc/postgresql-common/createcluster.conf >/dev/null
  "${become[@]}" apt-get update -qq
  "${become[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends \
    "${missing[@]}" >/tmp/spilo-apt.$$ 2>&1 || { cat /tmp/spilo-apt.$$; rm -f /tmp/spilo-apt.$$; return 1; }
  rm -f /tmp/spilo-apt.$$
}
