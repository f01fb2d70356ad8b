# Sourced by quickstart.sh and by the integration tests: a cluster of spilod nodes on this machine.
#
# Before: BIN (where spilod, spilo-guard and spilo-writer are), STORE (a file of that name in stores/).
# After cluster_create: WORK (everything lies below it), NODES, REST_PORT[n], PG_PORT[n], SPILOD[n].
# SCOPE names the cluster of the nodes that are created next; several can share WORK and the store.
# Everything runs as an unprivileged user, because PostgreSQL refuses root. Nothing outlives
# cluster_destroy; processes are ended by their own ids.
#
# stores/NAME.sh tells all that is special about a store:
#   store_title       what a human calls it                    store_packages=()   Debian packages of its server
#   store_section     prints its section of a node's YAML      store_ttl           the least ttl it can keep, if above 5 s
#   store_ttls        after how many ttls a dead node's keys are free, if not after one
#   store_install     installs the server, if it is no Debian package
# and, if there is a server to run, which has STORE_PORT, STORE_PORT2 and STORE_PORT3 for itself and writes below $WORK only:
#   store_run         becomes the server (exec, in a subshell, as the unprivileged user; its data survives a restart)
#   store_ready       whether the server answers

PG_BIN=${PG_BIN:-/usr/lib/postgresql/15/bin}
SUPERUSER_PASSWORD=${SUPERUSER_PASSWORD:-seKret-of-postgres}
REPLICATION_PASSWORD=${REPLICATION_PASSWORD:-seKret-of-replicator}
source "$(dirname "${BASH_SOURCE[0]}")/stores/$STORE.sh"
TTL=${TTL:-${store_ttl:-5}}
LEASE=$((TTL * ${store_ttls:-1})) # so long after its last renewal a dead node's keys are free
LOOP_WAIT=${LOOP_WAIT:-1}
RETRY_TIMEOUT=${RETRY_TIMEOUT:-2}
declare -A REST_PORT PG_PORT SPILOD
declare -A PORT_HOST # where a port is, when it is not on 127.0.0.1
NODES=()
WORK=${WORK:-}
STORE_PID=
WRITER_PID=

say() { printf '%s\n' "$*"; }
die() { printf '%s\n' "$*" >&2; exit 1; }

as_user() {
  if [ "$(id -u)" = 0 ]; then
    setpriv --reuid=postgres --regid=postgres --clear-groups -- "$@"
  else
    "$@"
  fi
}
# In place of the shell that calls it, so that $! is the program's own id: ( become … ) &
become() {
  if [ "$(id -u)" = 0 ]; then
    exec setpriv --reuid=postgres --regid=postgres --clear-groups -- "$@"
  else
    exec "$@"
  fi
}

# Where a node runs, for tests that give each a host of its own.
node_host() { echo 127.0.0.1; }
on_node_host() { become "${@:2}"; } # on_node_host NODE COMMAND…
node_host_up() { :; }

# wait_for SECONDS COMMAND…: until the command succeeds.
wait_for() {
  local end=$((SECONDS + $1))
  shift
  until "$@"; do
    [ $SECONDS -lt $end ] || return 1
    sleep 0.05
  done
}

port_is_free() { ! { : <>"/dev/tcp/127.0.0.1/$1"; } 2>/dev/null; }
# A shell has fifty ports for itself, by a lock that it and its servers hold: another may start its own cluster at any moment. They lie
# below those that the kernel gives to clients (32768 and above). tests/support/child.hpp takes its ports in the same way.
next_port=0 last_port=-1
claim_ports() {
  local i lock
  mkdir -m 1777 /tmp/spilo-ports 2>/dev/null || :
  for ((i = $$; i < $$ + 400; i++)); do
    lock=/tmp/spilo-ports/$((i % 400))
    [ -e "$lock" ] || : >>"$lock"
    exec {PORTS_LOCK}<"$lock"
    if flock -n "$PORTS_LOCK"; then
      next_port=$((12000 + (i % 400) * 50)) last_port=$((12000 + (i % 400) * 50 + 49))
      return 0
    fi
    exec {PORTS_LOCK}<&-
  done
  die "no free ports: something holds all the locks in /tmp/spilo-ports"
}
free_port() { # free_port NAME: the port goes to the variable, because a subshell would forget it
  while [ $next_port -gt $last_port ] || ! port_is_free $next_port; do
    if [ $next_port -lt $last_port ]; then next_port=$((next_port + 1)); else claim_ports; fi
  done
  printf -v "$1" %s "$next_port"
  next_port=$((next_port + 1))
}

# http METHOD PORT PATH [BODY]: HTTP_STATUS and HTTP_BODY; false when nobody answers.
http() {
  local line answer body=${4:-}
  HTTP_STATUS=000 HTTP_BODY=
  answer=$(
    exec 2>/dev/null 3<>"/dev/tcp/${PORT_HOST[$2]:-127.0.0.1}/$2" || exit 1
    printf '%s %s HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s' \
      "$1" "$3" "${#body}" "$body" >&3
    timeout "${HTTP_PATIENCE:-30}" cat <&3
  ) || return 1
  read -r _ HTTP_STATUS line <<<"$answer"
  HTTP_BODY=${answer#*$'\r\n\r\n'}
  [ -n "$HTTP_STATUS" ] && [ "$HTTP_STATUS" != 000 ]
}
has_status() { HTTP_PATIENCE=2 http GET "$1" "$2" && [ "$HTTP_STATUS" = 200 ]; }

# ---- the store ----------------------------------------------------------------------------------

store_has_server() { declare -F store_run >/dev/null; }
store_start() {
  store_has_server || return 0
  (store_run >>"$WORK/store.log" 2>&1 </dev/null) &
  STORE_PID=$!
  disown $!
  wait_for 60 store_ready || die "$store_title did not start: $(tail -n 5 "$WORK/store.log")"
}
store_stop() { # as in a crash
  [ -n "$STORE_PID" ] || return 0
  kill -9 "$STORE_PID" 2>/dev/null
  wait_for 10 bash -c "! kill -0 $STORE_PID 2>/dev/null"
  STORE_PID=
}

# ---- nodes --------------------------------------------------------------------------------------

node_config() {
  local node=$1 host
  host=$(node_host "$node")
  cat <<YAML
scope: ${SCOPE:-demo}
name: $node
restapi:
  listen: $host:${REST_PORT[$node]}
  connect_address: $host:${REST_PORT[$node]}
$(store_section)
bootstrap:
  dcs:
    ttl: $TTL
    loop_wait: $LOOP_WAIT
    retry_timeout: $RETRY_TIMEOUT
    primary_start_timeout: ${PRIMARY_START_TIMEOUT:-0}
    postgresql:
      use_pg_rewind: true
      parameters: {max_connections: 50}
  initdb: [{encoding: UTF8}, {locale: C}, data-checksums]
postgresql:
  listen: $host:${PG_PORT[$node]}
  connect_address: $host:${PG_PORT[$node]}
  data_dir: $WORK/$node/data
  bin_dir: $PG_BIN
  authentication:
    superuser: {username: postgres, password: $SUPERUSER_PASSWORD}
    replication: {username: replicator, password: $REPLICATION_PASSWORD}
  parameters: {unix_socket_directories: $WORK/$node, shared_buffers: 16MB, log_checkpoints: off}
  pg_hba:
  - host all all ${NETWORK_OF_NODES:-127.0.0.1/32} scram-sha-256
  - host replication replicator ${NETWORK_OF_NODES:-127.0.0.1/32} scram-sha-256
  - local all all scram-sha-256
YAML
}

conninfo() { echo "host=$(node_host "$1") port=${PG_PORT[$1]} user=postgres password=$SUPERUSER_PASSWORD dbname=postgres"; }
sql() { # sql NODE STATEMENT
  PGCONNECT_TIMEOUT=5 "$PG_BIN/psql" -XAtq -v ON_ERROR_STOP=1 "$(conninfo "$1")" -c "$2"
}

node_start() {
  (on_node_host "$1" setsid "$BIN/spilod" "$WORK/$1.yml" >>"$WORK/$1.log" 2>&1 </dev/null) &
  SPILOD[$1]=$!
  disown $! # the shell need not tell when it is killed
}
node_runs() { [ -n "${SPILOD[$1]:-}" ] && kill -0 "${SPILOD[$1]}" 2>/dev/null; }
node_kill() { # node_kill NODE SIGNAL: the agent only
  kill "-$2" "${SPILOD[$1]}"
}
node_gone() { # waits until the agent has ended
  wait_for 60 bash -c "! kill -0 ${SPILOD[$1]} 2>/dev/null"
}
postmaster() { [ -r "$WORK/$1/data/postmaster.pid" ] && head -1 "$WORK/$1/data/postmaster.pid"; }
server_runs() {
  local pid
  pid=$(postmaster "$1") && [ -n "$pid" ] && [ "$(readlink "/proc/$pid/cwd")" = "$(readlink -f "$WORK/$1/data")" ]
}
# All processes of a node's server, and its guard.
server_pids() {
  local dir pid
  dir=$(readlink -f "$WORK/$1/data") || return 0
  for pid in /proc/[0-9]*; do
    [ ! "$pid/cwd" -ef "$dir" ] || echo "${pid#/proc/}" # no fork for each process: others run tests beside it
  done
}
guard_pid() { pgrep -f "^spilo-guard $WORK/$1/data " | head -1; }

role_is() { has_status "${REST_PORT[$1]}" "/$2"; }
leader_is() { role_is "$1" primary; }
find_leader() { # LEADER; false without one
  local node
  for node in "${NODES[@]}"; do
    leader_is "$node" && LEADER=$node && return 0
  done
  return 1
}
new_leader() { find_leader && [ "$LEADER" != "$1" ]; }
streams() { # streams NODE [TIMELINE]: a replica that is in step with its leader
  HTTP_PATIENCE=2 http GET "${REST_PORT[$1]}" /patroni && [[ $HTTP_BODY == *'"role": "replica"'* &&
    $HTTP_BODY == *'"replication_state": "streaming"'* && $HTTP_BODY == *'"timeline": '"${2:-}"* ]]
}
replicas_stream() { # every node but the leader
  local node timeline
  find_leader && HTTP_PATIENCE=2 http GET "${REST_PORT[$LEADER]}" /patroni || return 1
  timeline=$(sed -nE 's/.*"timeline": ([0-9]+),.*/\1,/p' <<<"$HTTP_BODY")
  for node in "${NODES[@]}"; do
    [ "$node" = "$LEADER" ] || streams "$node" "$timeline" || return 1
  done
}

node_create() { # its ports, its directory, its configuration; it is not started
  local port
  NODES+=("$1")
  node_host_up "$1"
  free_port port && REST_PORT[$1]=$port
  free_port port && PG_PORT[$1]=$port
  PORT_HOST[${REST_PORT[$1]}]=$(node_host "$1")
  as_user mkdir -p "$WORK/$1"
  node_config "$1" | as_user tee "$WORK/$1.yml" >/dev/null
  as_user chmod 600 "$WORK/$1.yml"
}
cluster_create() { # cluster_create NODE…
  WORK=${WORK:-$(mktemp -d /tmp/spilo-cluster-XXXXXX)}
  chmod 755 "$WORK"
  NODES=()
  if [ "$(id -u)" = 0 ]; then chown postgres: "$WORK"; fi
  free_port STORE_PORT
  free_port STORE_PORT2
  free_port STORE_PORT3
  local node
  for node in "$@"; do node_create "$node"; done
  store_start
}
cluster_start() {
  local node
  for node in "${NODES[@]}"; do node_start "$node"; done
  wait_for 60 find_leader || die "no leader after 60 s"
  wait_for 90 replicas_stream || die "not every replica streams after 90 s"
}

server_kill() { # the postmaster first, or it starts its children again
  local pids pid
  pid=$(postmaster "$1") && server_runs "$1" && kill -9 "$pid"
  while pids=$(server_pids "$1") && [ -n "$pids" ]; do
    kill -9 $pids 2>/dev/null
    sleep 0.05
  done
}
cluster_destroy() {
  local node pid
  writer_stop
  for node in "${NODES[@]}"; do
    [ -z "${SPILOD[$node]:-}" ] || kill -9 "${SPILOD[$node]}" 2>/dev/null
    pid=$(guard_pid "$node") && [ -z "$pid" ] || kill -9 "$pid" 2>/dev/null
    server_kill "$node"
  done
  store_stop
  wait 2>/dev/null
  [ -n "${KEEP_FILES:-}" ] || rm -rf "$WORK" 2>/dev/null || { sleep 1; rm -rf "$WORK"; }
}

# ---- the client ---------------------------------------------------------------------------------

writer_nodes() {
  local node
  for node in "${NODES[@]}"; do printf -- '--node\n%s\n' "$(conninfo "$node")"; done
}
writer_start() {
  local arguments
  mapfile -t arguments < <(writer_nodes)
  "$BIN/spilo-writer" run "${arguments[@]}" --file "$WORK/acks" "$@" 2>>"$WORK/writer.log" &
  WRITER_PID=$!
  wait_for 20 test -s "$WORK/acks" || die "the client could not write: $(tail -3 "$WORK/writer.log")"
}
writer_stop() {
  [ -z "$WRITER_PID" ] || { kill "$WRITER_PID" && wait "$WRITER_PID"; } 2>/dev/null
  WRITER_PID=
}
acks() { wc -l <"$WORK/acks"; }
acks_grow() { # at least 20 more rows than $1
  [ "$(acks)" -ge $(($1 + 20)) ]
}
now() { "$BIN/spilo-writer" now; }
# writer_report SINCE [OPTION…]: prints what the client saw since then.
writer_report() {
  local since=$1 arguments
  shift
  mapfile -t arguments < <(writer_nodes)
  "$BIN/spilo-writer" report "${arguments[@]}" --file "$WORK/acks" --since "$since" "$@"
}
