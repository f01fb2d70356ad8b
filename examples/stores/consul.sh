# One Consul server, with the HTTP port STORE_PORT; STORE_PORT2 and STORE_PORT3 are what it needs to talk to others. A dead node's keys are
# free after two ttls.
store_title="Consul"
store_packages=()
store_ttls=2

store_install() { install_consul; } # Debian 12 has no package
store_section() { echo "consul: {host: '127.0.0.1:$STORE_PORT', register_service: true}"; }
store_run() {
  cat >"$WORK/consul.json" <<JSON
{"server": true, "bootstrap_expect": 1, "node_name": "c1", "data_dir": "$WORK/consul", "bind_addr": "127.0.0.1",
 "client_addr": "127.0.0.1", "session_ttl_min": "1s", "performance": {"raft_multiplier": 1}, "disable_update_check": true,
 "ports": {"http": $STORE_PORT, "dns": -1, "grpc": -1, "serf_wan": -1, "serf_lan": $STORE_PORT2, "server": $STORE_PORT3}}
JSON
  chmod 644 "$WORK/consul.json"
  PATH=$PATH:/var/cache/spilo become consul agent -config-file="$WORK/consul.json"
}
store_ready() { has_status "$STORE_PORT" '/v1/kv/?keys&consistent' || [ "$HTTP_STATUS" = 404 ]; }
