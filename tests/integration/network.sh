# Sourced by scenario.sh when NETWORK is set: every node is a host of its own, a network namespace on a bridge; the store and the client
# are on the bridge, each with an address. Needs root, and goes on as root when it is not. Nothing leaves the namespaces.
if [ -z "${NETWORK_NAME:-}" ]; then
  # The bridge's host is a namespace too, so that this machine's own network never sees any of it.
  NETWORK_NAME=spilo-$$
  become_root=()
  [ "$(id -u)" = 0 ] || become_root=(sudo)
  "${become_root[@]}" ip netns add "$NETWORK_NAME" || die "network namespaces need root or sudo"
  exec "${become_root[@]}" ip netns exec "$NETWORK_NAME" env "NETWORK_NAME=$NETWORK_NAME" "NETWORK=$NETWORK" "MEMBERS=${MEMBERS:-}" \
    "RESULTS=${RESULTS:-}" "CI=${CI:-}" "$0" "$BIN" "$STORE" "$@"
fi
NETWORK_OF_NODES=10.77.0.0/24
MEMBER_HOST=10.77.0.2
CLIENT_HOST=10.77.0.1

network_up() {
  ip link set lo up &&
    ip link add bridge type bridge && ip addr add "$CLIENT_HOST/24" dev bridge && ip addr add "$MEMBER_HOST/24" dev bridge &&
    ip link set bridge up
}
network_down() {
  local node
  for node in "${NODES[@]}"; do ip netns del "$(namespace_of "$node")" 2>/dev/null; done
  ip netns del "$NETWORK_NAME"
}
namespace_of() { echo "$NETWORK_NAME-$1"; }
node_host() { echo "10.77.0.1${1#n}"; }
node_host_up() {
  local name
  name=$(namespace_of "$1")
  ip netns add "$name" && ip link add "to-$1" type veth peer name eth0 netns "$name" && ip link set "to-$1" master bridge up &&
    ip -n "$name" link set lo up && ip -n "$name" addr add "$(node_host "$1")/24" dev eth0 && ip -n "$name" link set eth0 up
}
on_node_host() { # in the namespace, and then the user
  local node=$1
  shift
  exec ip netns exec "$(namespace_of "$node")" setpriv --reuid=postgres --regid=postgres --clear-groups -- "$@"
}
# Nothing passes between a node and an address any more, in either direction; packets vanish, as they do when a cable is cut.
cut() { # cut NODE ADDRESS…
  local name address
  name=$(namespace_of "$1")
  shift
  for address in "$@"; do
    ip netns exec "$name" iptables -w -A INPUT -s "$address" -j DROP && ip netns exec "$name" iptables -w -A OUTPUT -d "$address" -j DROP
  done
}
mend() { ip netns exec "$(namespace_of "$1")" iptables -w -F; } # mend NODE

network_up || die "the namespace $NETWORK_NAME has no network"
