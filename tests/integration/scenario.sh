#!/usr/bin/env bash
# One scenario on a real cluster: scenario.sh BIN STORE SCENARIO. Three spilod nodes with PostgreSQL 15
# and a client that keeps writing; what the client saw decides.
set -uo pipefail
BIN=$1 STORE=$2 SCENARIO=$3
root=$(cd "$(dirname "$0")/../.." && pwd)
source "$root/examples/cluster.sh"

failed=0
check() { # check TEXT COMMAND…
  local text=$1
  shift
  if "$@"; then
    say "ok: $text"
  else
    say "FAILED: $text ($*)"
    failed=1
  fi
}
need() { # a check without which the rest makes no sense
  check "$@"
  [ $failed = 0 ] || exit 1
}
finish() {
  local status=$?
  [ $failed = 0 ] || status=1
  if [ $status != 0 ] || [ -n "${SHOW_LOGS:-}" ]; then
    local node
    for node in "${NODES[@]}"; do
      printf -- '---- log of %s ----\n' "$node"
      tail -n "${LOG_LINES:-80}" "$WORK/$node.log"
      printf -- '---- PostgreSQL of %s ----\n' "$node"
      tail -n 15 "$WORK/$node/data.log" "$WORK/$node/data.guard.log" 2>/dev/null
    done
  fi
  cluster_destroy
  exit $status
}
trap finish EXIT
trap 'exit 1' INT TERM

# What the client saw since $1: the report's figures in GAP (ms), MISSING, SIDE_BY_SIDE.
judge() {
  local report
  report=$(writer_report "$1" --json)
  say "client: $report"
  GAP=$(sed -E 's/.*"longest_gap_ms": ([0-9]+).*/\1/' <<<"$report")
  MISSING=$(sed -E 's/.*"missing": ([0-9a-z]+).*/\1/' <<<"$report")
  SIDE_BY_SIDE=$(sed -E 's/.*"side_by_side": ([0-9]+).*/\1/' <<<"$report")
}
settle() { # the cluster is whole again and the client writes
  local before
  need "all replicas stream" wait_for 90 replicas_stream
  before=$(acks)
  need "the client writes" wait_for 20 acks_grow "$before"
}
since() { SINCE=$(now); }
lost_none() {
  check "no acknowledged row is missing" test "$MISSING" = 0
  check "never two primaries" test "$SIDE_BY_SIDE" = 0
}
start_cluster() {
  cluster_create n1 n2 n3
  cluster_start
  writer_start
  settle
  # An agent that has just started asks everybody before it leads, for a ttl: it may have forgotten a
  # promise to a leader without a store.
  sleep $((TTL + 1))
  find_leader
}
no_secrets() {
  check "no secret in any log" bash -c "! grep -l seKret $WORK/*.log $WORK/*/data.log"
}

scenario_switchover() {
  start_cluster
  local old=$LEADER
  since
  http POST "${REST_PORT[$old]}" /switchover "{\"leader\": \"$old\"}"
  say "answer: $HTTP_STATUS $HTTP_BODY"
  check "the switchover is reported as done" test "$HTTP_STATUS" = 200
  need "somebody else leads" wait_for 20 new_leader "$old"
  settle
  judge "$SINCE"
  lost_none
  check "the outage was short ($GAP ms)" test "$GAP" -lt 3000
  # To a node of our choice, and back.
  http POST "${REST_PORT[$LEADER]}" /switchover "{\"leader\": \"$LEADER\", \"candidate\": \"$old\"}"
  check "back again" test "$HTTP_STATUS" = 200
  need "the candidate leads" wait_for 20 leader_is "$old"
  settle
  http POST "${REST_PORT[$old]}" /switchover "{\"leader\": \"nobody\"}"
  check "a wrong leader is refused ($HTTP_STATUS $HTTP_BODY)" test "$HTTP_STATUS" = 412
  judge "$SINCE"
  lost_none
  no_secrets
}

scenario_postmaster_killed() {
  start_cluster
  local old=$LEADER
  since
  kill -9 "$(postmaster "$old")"
  need "somebody else leads" wait_for $((TTL + 20)) new_leader "$old"
  settle
  judge "$SINCE"
  # Asynchronous replication: what was not sent yet is lost with the server.
  say "rows lost by asynchronous replication: $MISSING"
  check "hardly anything is lost" test "$MISSING" -le 20
  check "never two primaries" test "$SIDE_BY_SIDE" = 0
  check "the outage was short ($GAP ms)" test "$GAP" -lt 5000
  check "it failed over and did not wait for the lease" test "$GAP" -lt $((TTL * 1000))
}

scenario_agent_killed() {
  start_cluster
  local old=$LEADER
  since
  node_kill "$old" KILL
  node_gone "$old"
  need "somebody else leads" wait_for $((TTL + 20)) new_leader "$old"
  check "the old server has ended" bash -c "[ -z \"$(server_pids "$old")\" ]"
  check "the guard wrote why" grep -q "ended PostgreSQL" "$WORK/$old/data.guard.log"
  node_start "$old"
  settle
  judge "$SINCE"
  say "rows lost by asynchronous replication: $MISSING"
  check "hardly anything is lost" test "$MISSING" -le 20
  check "never two primaries" test "$SIDE_BY_SIDE" = 0
  check "the lease and a moment ($GAP ms)" test "$GAP" -lt $((TTL * 1000 + 3000))
}

scenario_agent_frozen() {
  start_cluster
  local old=$LEADER
  since
  node_kill "$old" STOP
  need "somebody else leads" wait_for $((TTL + 20)) new_leader "$old"
  check "the old server has ended" bash -c "[ -z \"$(server_pids "$old")\" ]"
  local before
  before=$(acks)
  check "the client writes to the new leader" wait_for 20 acks_grow "$before"
  node_kill "$old" CONT
  settle
  check "the woken node did not take the lock back" test "$LEADER" != "$old"
  judge "$SINCE"
  say "rows lost by asynchronous replication: $MISSING"
  check "hardly anything is lost" test "$MISSING" -le 20
  check "never two primaries" test "$SIDE_BY_SIDE" = 0
}

scenario_agent_restarted() {
  start_cluster
  local old=$LEADER server guard
  server=$(postmaster "$old")
  guard=$(guard_pid "$old")
  since
  node_kill "$old" KILL
  node_gone "$old"
  node_start "$old"
  sleep $((TTL + 2))
  check "the same server runs on" test "$(postmaster "$old")" = "$server"
  check "under the same guard" test "$(guard_pid "$old")" = "$guard"
  check "and still leads" leader_is "$old"
  settle
  judge "$SINCE"
  lost_none
  check "no outage ($GAP ms)" test "$GAP" -lt 1000
}

scenario_node_killed() {
  start_cluster
  local old=$LEADER pid
  since
  node_kill "$old" KILL
  pid=$(guard_pid "$old") && kill -9 "$pid"
  server_kill "$old"
  node_gone "$old"
  need "somebody else leads" wait_for $((TTL + 20)) new_leader "$old"
  node_start "$old"
  settle
  judge "$SINCE"
  say "rows lost by asynchronous replication: $MISSING"
  check "hardly anything is lost" test "$MISSING" -le 20
  check "never two primaries" test "$SIDE_BY_SIDE" = 0
  check "the lease and a moment ($GAP ms)" test "$GAP" -lt $((TTL * 1000 + 3000))
}

scenario_agent_stopped() {
  start_cluster
  local old=$LEADER
  since
  node_kill "$old" TERM
  need "somebody else leads" wait_for 20 new_leader "$old"
  need "the agent ends" node_gone "$old"
  check "with status 0" grep -q "exit 0" "$WORK/$old.log"
  check "its server has stopped" bash -c "[ -z \"$(server_pids "$old")\" ]"
  check "its guard has gone" wait_for 5 bash -c "! pgrep -f '^spilo-guard $WORK/$old/data ' >/dev/null"
  node_start "$old"
  settle
  judge "$SINCE"
  lost_none
  check "the outage was short ($GAP ms)" test "$GAP" -lt 3000
}

scenario_store_restarted() {
  start_cluster
  local old=$LEADER server
  server=$(postmaster "$old")
  since
  store_stop
  sleep $((TTL / 3))
  store_start
  sleep $((TTL + 1))
  check "the leader stayed" leader_is "$old"
  check "with the same server" test "$(postmaster "$old")" = "$server"
  settle
  judge "$SINCE"
  lost_none
  check "no outage ($GAP ms)" test "$GAP" -lt 1000
}

scenario_store_down() {
  start_cluster
  local old=$LEADER server
  server=$(postmaster "$old")
  since
  store_stop
  sleep $((TTL * 4))
  check "failsafe: the primary stayed" test "$(postmaster "$old")" = "$server"
  local before
  before=$(acks)
  check "the client writes" wait_for 20 acks_grow "$before"
  store_start
  wait_for 30 leader_is "$old"
  check "and is still the leader afterwards" leader_is "$old"
  settle
  judge "$SINCE"
  lost_none
  check "no outage ($GAP ms)" test "$GAP" -lt 1000
}

scenario_pause() {
  start_cluster
  local old=$LEADER server
  http PATCH "${REST_PORT[$old]}" /config '{"pause": true}'
  need "pause is taken" test "$HTTP_STATUS" = 200
  paused() { HTTP_PATIENCE=2 http GET "${REST_PORT[$old]}" /patroni && [[ $HTTP_BODY == *'"pause": true'* ]]; }
  need "the leader knows" wait_for 20 paused
  server=$(postmaster "$old")
  # An agent that ends in pause leaves its server alone, also after the lease.
  node_kill "$old" TERM
  node_gone "$old"
  since
  sleep $((TTL + 3))
  check "the server runs on without its agent" test "$(postmaster "$old")" = "$server"
  local before
  before=$(acks)
  check "the client writes" wait_for 20 acks_grow "$before"
  node_start "$old"
  need "it leads again" wait_for 30 leader_is "$old"
  check "with the same server" test "$(postmaster "$old")" = "$server"
  http PATCH "${REST_PORT[$old]}" /config '{"pause": null}'
  need "resumed" test "$HTTP_STATUS" = 200
  settle
  check "nobody else took over" test "$LEADER" = "$old"
  judge "$SINCE"
  lost_none
}

scenario_replica_rebuilt() {
  start_cluster
  local replica
  for replica in "${NODES[@]}"; do [ "$replica" = "$LEADER" ] || break; done
  node_kill "$replica" TERM
  node_gone "$replica"
  rm -rf "$WORK/$replica/data"
  node_start "$replica"
  settle
  judge 0
  lost_none
}

scenario_same_name_twice() {
  cluster_create n1
  node_start n1
  need "a leader" wait_for 60 find_leader
  cp -p "$WORK/n1.yml" "$WORK/twin.yml"
  local port
  free_port port
  sed -i "s/127.0.0.1:${REST_PORT[n1]}/127.0.0.1:$port/; s#$WORK/n1/data#$WORK/twin/data#" "$WORK/twin.yml"
  as_user mkdir -p "$WORK/twin"
  as_user "$BIN/spilod" "$WORK/twin.yml" >"$WORK/twin.log" 2>&1
  check "it exits with 1" test $? = 1
  check "and says why" grep -q "already a node named 'n1'" "$WORK/twin.log"
  check "nothing was created" test ! -e "$WORK/twin/data"
  # The same address: taken.
  sed -i "s/name: n1/name: other/; s/127.0.0.1:$port/127.0.0.1:${REST_PORT[n1]}/" "$WORK/twin.yml"
  as_user "$BIN/spilod" "$WORK/twin.yml" >"$WORK/twin.log" 2>&1
  check "a taken port: it exits with 1" test $? = 1
  check "and says which ($(tail -1 "$WORK/twin.log"))" grep -q "${REST_PORT[n1]}" "$WORK/twin.log"
  check "the first one is untouched" leader_is n1
}

# Patroni's own command against our cluster: the store's layout and the REST interface as somebody else reads them.
scenario_patronictl() {
  cluster_create n1 n2 n3
  cluster_start
  find_leader
  local old=$LEADER other node out
  for other in "${NODES[@]}"; do [ "$other" = "$LEADER" ] || break; done
  ctl() { out=$(timeout 60 patronictl -c "$WORK/n1.yml" "$@" 2>&1); local status=$?; say "\$ patronictl $*"; say "$out"; return $status; }
  shows() { grep -qE -- "$1" <<<"$out"; }
  check "list" ctl list demo
  check "shows the leader" shows "\| $old +\|.*\| Leader +\| running"
  check "and a replica" shows "\| $other +\|.*\| Replica +\| (running|streaming)"
  check "and asks for no restart" bash -c "! grep -q 'Pending restart' <<<'$out'"
  check "show-config" ctl show-config demo
  check "has our ttl" shows "^ttl: $TTL$"
  check "switchover" ctl switchover demo --master "$old" --candidate "$other" --force
  check "reports who leads" shows "Successfully switched over to \"$other\""
  need "it is true" wait_for 20 leader_is "$other"
  need "all replicas stream" wait_for 60 replicas_stream
  in_history() { ctl history demo >/dev/null && shows "\| +1 \|.*no recovery target specified.*\| $other"; }
  check "history names the new leader" wait_for 10 in_history
  check "edit-config" ctl edit-config demo --force -s loop_wait=2 -p work_mem=5MB
  check "is written" shows "Configuration changed"
  has_work_mem() { [ "$(sql "$1" 'SHOW work_mem')" = 5MB ]; }
  for node in "${NODES[@]}"; do check "$node uses it" wait_for 20 has_work_mem "$node"; done
  check "pause" ctl pause demo --wait
  check "is recognised by all" shows "cluster management is paused"
  check "resume" ctl resume demo --wait
  check "is recognised by all" shows "cluster management is resumed"
  check "restart" ctl restart demo "$old" --force
  check "is done" shows "Success: restart on member $old"
  check "reload" ctl reload demo --force
  need "all replicas stream" wait_for 60 replicas_stream
  check "reinit" ctl reinit demo "$old" --force
  check "is accepted" shows "Success: reinitialize for member $old"
  need "all replicas stream" wait_for 60 replicas_stream
  check "failover" ctl failover demo --candidate "$old" --force
  need "the candidate leads" wait_for 20 leader_is "$old"
  need "all replicas stream" wait_for 60 replicas_stream
  check "list" ctl list demo
  check "asks for no restart" bash -c "! grep -q 'Pending restart' <<<'$out'"
}

type "scenario_$SCENARIO" >/dev/null 2>&1 || die "no scenario $SCENARIO"
"scenario_$SCENARIO"
exit $failed
