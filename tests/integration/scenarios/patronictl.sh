# Sourced by scenario.sh: Patroni's own tool drives a cluster of ours.
scenario_patronictl() {
  shared_cluster
  local other node out
  replicas
  other=$REPLICA
  patroni() {
    local status=0
    out=$(timeout 60 patronictl -c "$WORK/n1.yml" "$@" 2>&1) || status=$?
    say "\$ patronictl $*"
    say "$out"
    return $status
  }
  shows() { grep -qE -- "$1" <<<"$out"; }
  shows_not() { ! shows "$1"; }
  check "list" patroni list demo
  check "shows the leader" shows "\| $OLD +\|.*\| Leader +\| running"
  check "and a replica" shows "\| $other +\|.*\| Replica +\| (running|streaming)"
  check "and asks for no restart" shows_not "Pending restart"
  check "show-config" patroni show-config demo
  check "has our ttl" shows "^ttl: $TTL$"
  check "switchover" patroni switchover demo --master "$OLD" --candidate "$other" --force
  check "reports who leads" shows "Successfully switched over to \"$other\""
  need "it is true" wait_for 20 leader_is "$other"
  need "all replicas stream" wait_for 60 replicas_stream
  in_history() { patroni history demo >/dev/null && shows "\| +[0-9]+ \|.*no recovery target specified.*\| $other"; }
  check "history names the new leader" wait_for 10 in_history
  # patronictl waits one loop_wait for what all must recognise: a busy machine needs more than a second.
  check "edit-config" patroni edit-config demo --force -s ttl=20 -s loop_wait=8 -p work_mem=5MB
  check "is written" shows "Configuration changed"
  has_work_mem() { [ "$(sql "$1" 'SHOW work_mem')" = 5MB ]; }
  for node in "${NODES[@]}"; do check "$node uses it" wait_for 20 has_work_mem "$node"; done
  check "pause" patroni pause demo --wait
  check "is recognised by all" shows "cluster management is paused"
  check "resume" patroni resume demo --wait
  check "is recognised by all" shows "cluster management is resumed"
  check "restart" patroni restart demo "$OLD" --force
  check "is done" shows "Success: restart on member $OLD"
  check "reload" patroni reload demo --force
  need "all replicas stream" wait_for 60 replicas_stream
  check "reinit" patroni reinit demo "$OLD" --force
  check "is accepted" shows "Success: reinitialize for member $OLD"
  need "all replicas stream" wait_for 60 replicas_stream
  check "failover" patroni failover demo --candidate "$OLD" --force
  need "the candidate leads" wait_for 20 leader_is "$OLD"
  need "all replicas stream" wait_for 60 replicas_stream
  check "list" patroni list demo
  check "asks for no restart" shows_not "Pending restart"
  set_config "{\"ttl\": $TTL, \"loop_wait\": $LOOP_WAIT}" "\"loop_wait\": $LOOP_WAIT"
}
