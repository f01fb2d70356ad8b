# Sourced: what a fresh Debian 12 lacks, and how it is installed, as root or with sudo.
build_packages=(cmake ninja-build g++ pkg-config libboost1.81-dev libboost-json1.81-dev libboost-url1.81-dev libpq-dev
  libfmt-dev libcli11-dev libssl-dev libyaml-cpp-dev libsqlite3-dev libzookeeper-st-dev doctest-dev postgresql-15 util-linux procps)
test_packages=(clang openssl iproute2 etcd-server patroni python3-consul python3-kazoo libzookeeper-java default-jre-headless iptables)

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

# Consul for the tests. Debian 12 has no package of it, but Debian 11's program runs as it is. It comes from the mirror that apt uses anyway,
# with apt's directories replaced by temporary ones, so that nothing else is ever taken from the older suite; the one file stays in a
# directory that every user can reach, and is fetched once. A consul in the PATH is preferred.
consul_cache=/var/cache/spilo
consul_program() { # prints its path; false when there is none
  command -v consul || { [ -x "$consul_cache/consul" ] && echo "$consul_cache/consul"; }
}

# older_sources SUITE DIRECTORY: from the sources that apt is configured with the one that holds this Debian's packages, with its mirror,
# options and keyring, but for SUITE; written to DIRECTORY as one file. Reads one-line sources and deb822 stanzas.
older_sources() {
  local suite=$1 into=$2 file codename
  codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
  for file in /etc/apt/sources.list.d/*.sources; do
    [ -r "$file" ] || continue
    # The first stanza with this Debian's suite and main. A field may go on in lines that begin with a space (an inline key).
    awk -v codename="$codename" -v suite="$suite" '
      function flush() { if (stanza != "" && types && suites && main && !disabled) { printf "Types: deb\nSuites: %s\nComponents: main\n%s", suite, stanza; exit }
                         stanza = field = ""; types = suites = main = disabled = 0 }
      function has(word) { return (" " $0 " ") ~ ("[ :\t]" word "[ \t]") }
      /^[ \t]*$/ { flush(); next }
      /^#/ { next }
      /^[^ \t]/ { field = tolower(substr($0, 1, index($0, ":") - 1)) }
      { if (field == "types") { if (has("deb")) types = 1 }
        else if (field == "suites") { if (has(codename)) suites = 1 }
        else if (field == "components") { if (has("main")) main = 1 }
        else if (field == "enabled") { if (has("no")) disabled = 1 }
        else stanza = stanza $0 "\n" }
      END { flush() }' "$file" >"$into/older.sources"
    [ ! -s "$into/older.sources" ] || return 0
  done
  rm -f "$into/older.sources"
  for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
    [ -r "$file" ] || continue
    awk -v codename="$codename" -v suite="$suite" '
      $1 == "deb" { at = 2; options = ""
        if ($2 ~ /^\[/) { while (at <= NF) { options = options $at " "; if ($at ~ /\]$/) break; at++ }; at++ }
        if ($(at + 1) != codename) next
        for (i = at + 2; i <= NF; i++) if ($i == "main") { print "deb " options $at " " suite " main"; exit } }' "$file" >"$into/older.list"
    [ ! -s "$into/older.list" ] || return 0
  done
  rm -f "$into/older.list"
  return 1
}

install_consul() {
  ! consul_program >/dev/null || return 0
  local suite=bullseye work become=() apt
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || { echo "consul is missing; install it as root, or install sudo and run this again" >&2; return 1; }
    become=(sudo)
  fi
  work=$(mktemp -d)
  chmod 755 "$work"
  mkdir -p "$work/sources" "$work/lists/partial" "$work/cache/archives/partial"
  echo "installing: consul (from Debian's $suite, into $consul_cache)"
  if ! older_sources "$suite" "$work/sources"; then
    echo "consul: found no source of this Debian's packages below /etc/apt to derive the one of $suite from." \
      "Put a consul program of version 1.8 or later into the PATH and run this again." >&2
    rm -rf "$work"
    return 1
  fi
  apt=(apt-get -q -o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$work/sources" -o "Dir::State::lists=$work/lists"
    -o "Dir::Cache=$work/cache" -o APT::Sandbox::User= -o APT::Get::List-Cleanup=0)
  if ! (
    set -e
    cd "$work"
    "${apt[@]}" update
    "${apt[@]}" download consul
    dpkg -x consul_*.deb root
    root/usr/bin/consul version
    "${become[@]}" install -D -m 755 root/usr/bin/consul "$consul_cache/consul.new.$$"
    "${become[@]}" mv "$consul_cache/consul.new.$$" "$consul_cache/consul"
  ) >"$work/log" 2>&1; then
    cat "$work/log" >&2
    echo "consul: could not be fetched from Debian's suite $suite, see above." \
      "Put a consul program of version 1.8 or later into the PATH and run this again." >&2
    rm -rf "$work"
    return 1
  fi
  rm -rf "$work"
}
