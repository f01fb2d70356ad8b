# Sourced by scenario.sh when MEMBERS is set: the store as three members in place of the one of examples/stores, and what can be done
# to one of them. They run on MEMBER_HOST.
#
#   members_section     the store's section of a node's YAML      member_run I    becomes member I, 1 to 3
#   member_ready I      it answers for the cluster                member_leads I  it is the store's leader
#   store_wipe          deletes all that clients have stored, while the store serves
# Between the nodes and each member stands a proxy that can slow its answers down: proxies_slow, proxies_pass.
declare -A MEMBER_PORT MEMBER_PEER MEMBER_VOTE MEMBER_PID PROXY_PORT PROXY_PID
MEMBER_IDS=(1 2 3)
MEMBER_HOST=${MEMBER_HOST:-127.0.0.1}
for id in "${MEMBER_IDS[@]}"; do
  for ports in MEMBER_PORT MEMBER_PEER MEMBER_VOTE PROXY_PORT; do
    free_port "${ports}[$id]"
    declare -n table=$ports
    PORT_HOST[${table[$id]}]=$MEMBER_HOST
  done
done

members_list() { # members_list TEXT: once for each member, with its @id, @host, @port, @peer, @vote and @proxy
  local id text
  for id in "${MEMBER_IDS[@]}"; do
    text=${1//@id/$id} text=${text//@host/$MEMBER_HOST} text=${text//@port/${MEMBER_PORT[$id]}}
    text=${text//@peer/${MEMBER_PEER[$id]}} text=${text//@vote/${MEMBER_VOTE[$id]}} text=${text//@proxy/${PROXY_PORT[$id]}}
    printf %s "$text"
  done
}
joined() { local text; text=$(members_list "$1"); echo "${text%,}"; }

case $STORE in
  etcd)
    members_section() { echo "etcd3: {use_proxies: true, hosts: [$(joined "'@host:@proxy',")]}"; }
    member_run() {
      local host=$MEMBER_HOST
      become etcd --name "e$1" --data-dir "$WORK/etcd-$1" --heartbeat-interval 50 --election-timeout 500 \
        --listen-client-urls "http://$host:${MEMBER_PORT[$1]}" --advertise-client-urls "http://$host:${MEMBER_PORT[$1]}" \
        --listen-peer-urls "http://$host:${MEMBER_PEER[$1]}" --initial-advertise-peer-urls "http://$host:${MEMBER_PEER[$1]}" \
        --initial-cluster "$(joined 'e@id=http://@host:@peer,')"
    }
    member_ready() { has_status "${MEMBER_PORT[$1]}" /health; }
    member_leads() {
      HTTP_PATIENCE=2 http POST "${MEMBER_PORT[$1]}" /v3/maintenance/status '{}' || return 1
      local me leader
      me=$(sed -nE 's/.*"member_id":"([0-9]+)".*/\1/p' <<<"$HTTP_BODY")
      leader=$(sed -nE 's/.*"leader":"([0-9]+)".*/\1/p' <<<"$HTTP_BODY")
      [ -n "$me" ] && [ "$me" = "$leader" ]
    }
    store_wipe() { # every key
      http POST "${MEMBER_PORT[1]}" /v3/kv/deleterange '{"key": "AA==", "range_end": "AA=="}' &&
        [ "$HTTP_STATUS" = 200 ]
    }
    ;;
  zookeeper)
    members_section() { echo "zookeeper: {hosts: [$(joined "'@host:@proxy',")]}"; }
    member_run() {
      local host=$MEMBER_HOST
      as_user mkdir -p "$WORK/zookeeper-$1"
      as_user tee "$WORK/zookeeper-$1/myid" <<<"$1" >/dev/null
      {
        printf '%s\n' tickTime=500 initLimit=20 syncLimit=10 "dataDir=$WORK/zookeeper-$1" "clientPort=${MEMBER_PORT[$1]}" \
          "clientPortAddress=$host" admin.enableServer=false '4lw.commands.whitelist=*' minSessionTimeout=1000 maxSessionTimeout=60000
        members_list $'server.@id=@host:@peer:@vote\n'
      } | as_user tee "$WORK/zookeeper-$1.cfg" >/dev/null
      local jars='' jar
      for jar in zookeeper zookeeper-jute slf4j-api slf4j-simple netty-all metrics-core snappy-java; do
        jars+=/usr/share/java/$jar.jar:
      done
      become java -Xmx64m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:-UsePerfData -Dzookeeper.preAllocSize=1024 \
        -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "$jars" \
        org.apache.zookeeper.server.quorum.QuorumPeerMain "$WORK/zookeeper-$1.cfg"
    }
    zookeeper_mode() { timeout 2 bash -c "exec 3<>/dev/tcp/$MEMBER_HOST/${MEMBER_PORT[$1]}; echo srvr >&3; cat <&3" 2>/dev/null |
      sed -n 's/^Mode: //p'; }
    member_ready() { [ -n "$(zookeeper_mode "$1")" ]; }
    member_leads() { [ "$(zookeeper_mode "$1")" = leader ]; }
    store_wipe() { # all that lies below our cluster
      find_leader && ctl_input=$(printf '%s\nYes I am aware\n%s\n' "${SCOPE:-demo}" "$LEADER") &&
        as_user "$BIN/spiloctl" -c "$WORK/n1.yml" remove "${SCOPE:-demo}" <<<"$ctl_input"
    }
    ;;
  consul)
    members_section() { echo "consul: {hosts: [$(joined "'@host:@proxy',")]}"; }
    member_run() {
      local host=$MEMBER_HOST
      cat <<JSON | as_user tee "$WORK/consul-$1.json" >/dev/null
{"server": true, "bootstrap_expect": 3, "node_name": "c$1", "data_dir": "$WORK/consul-$1", "bind_addr": "$host",
 "client_addr": "$host", "retry_join": [$(joined '"@host:@peer",')], "retry_interval": "200ms", "session_ttl_min": "1s",
 "ports": {"http": ${MEMBER_PORT[$1]}, "dns": -1, "grpc": -1, "serf_wan": -1, "serf_lan": ${MEMBER_PEER[$1]}, "server": ${MEMBER_VOTE[$1]}},
 "performance": {"raft_multiplier": 1, "leave_drain_time": "0s"}, "leave_on_terminate": false, "disable_update_check": true}
JSON
      PATH=$PATH:/var/cache/spilo become consul agent "-config-file=$WORK/consul-$1.json"
    }
    member_ready() { HTTP_PATIENCE=3 http GET "${MEMBER_PORT[$1]}" '/v1/kv/?keys&consistent' &&
      [[ $HTTP_STATUS = 200 || $HTTP_STATUS = 404 ]]; }
    member_leads() {
      HTTP_PATIENCE=2 http GET "${MEMBER_PORT[$1]}" /v1/status/leader &&
        [[ $HTTP_BODY == *":${MEMBER_VOTE[$1]}\""* ]] && [[ $HTTP_BODY == *"$MEMBER_HOST:"* ]]
    }
    store_wipe() { http DELETE "${MEMBER_PORT[1]}" '/v1/kv/?recurse' && [ "$HTTP_STATUS" = 200 ]; }
    ;;
  *) die "there is no $STORE of several members" ;;
esac

member_start() {
  (member_run "$1" >>"$WORK/store-$1.log" 2>&1 </dev/null) &
  MEMBER_PID[$1]=$!
  disown $!
}
member_end() { # as in a crash
  [ -n "${MEMBER_PID[$1]:-}" ] || return 0
  kill -9 "${MEMBER_PID[$1]}" 2>/dev/null
  wait_for 10 bash -c "! kill -0 ${MEMBER_PID[$1]} 2>/dev/null"
  MEMBER_PID[$1]=
}
members_ready() {
  local id
  for id in "${MEMBER_IDS[@]}"; do [ -z "${MEMBER_PID[$id]:-}" ] || member_ready "$id" || return 1; done
}
store_leader() { # MEMBER, the one that leads the store; false without one
  for MEMBER in "${MEMBER_IDS[@]}"; do
    [ -z "${MEMBER_PID[$MEMBER]:-}" ] || ! member_leads "$MEMBER" || return 0
  done
  return 1
}

proxies_slow() { kill -USR1 "${PROXY_PID[@]}"; }
proxies_pass() { kill -USR2 "${PROXY_PID[@]}"; }

# In place of those of examples/cluster.sh.
store_section() { members_section; }
store_start() {
  local id
  for id in "${MEMBER_IDS[@]}"; do
    member_start "$id"
    [ -n "${PROXY_PID[$id]:-}" ] || {
      (become "$BIN/store_proxy" "$MEMBER_HOST" "${PROXY_PORT[$id]}" "${MEMBER_PORT[$id]}" "$((TTL * 500))" >>"$WORK/proxy.log" 2>&1 </dev/null) &
      PROXY_PID[$id]=$!
      disown $!
    }
  done
  wait_for 60 members_ready || { tail -n 20 "$WORK"/store-*.log; die "the three members did not start"; }
}
store_stop() {
  local id
  for id in "${MEMBER_IDS[@]}"; do member_end "$id"; done
}
proxies_end() { [ ${#PROXY_PID[@]} = 0 ] || kill "${PROXY_PID[@]}" 2>/dev/null; }
