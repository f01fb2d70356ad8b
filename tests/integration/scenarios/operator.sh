# Sourced by scenario.sh: what an operator does, by spiloctl.

# Maintenance: agents come and go without touching anything, nobody fails over by himself, and a failover by hand works.
scenario_pause() {
  shared_cluster
  local server before
  check "pause is recognised by all ($OLD leads)" ctl_says 0 pause --wait
  server=$(postmaster "$OLD")
  node_kill "$OLD" TERM
  node_gone "$OLD"
  a_while $((TTL + 3))
  check "the server runs on without its agent" test "$(postmaster "$OLD")" = "$server"
  before=$(acks)
  check "the client writes" wait_for 20 acks_grow "$before"
  begin "$OLD"
  need "it leads again" wait_for 30 leader_is "$OLD"
  check "with the same server" test "$(postmaster "$OLD")" = "$server"
  settle
  judge
  lost_none
  uninterrupted

  since
  kill_node "$OLD"
  a_while $((TTL + 2))
  check "nobody takes over in pause" eval '! find_leader'
  replicas
  check "a failover without a name is refused" ctl_says 1 failover --force
  check "a switchover too, without a leader" ctl_says 1 switchover --force --candidate "$REPLICA"
  check "it says what to do instead" test "${CTL/failover/}" != "$CTL"
  check "failover by hand" ctl_says 0 failover --force --candidate "$REPLICA"
  need "the named one leads" wait_for 20 leader_is "$REPLICA"
  begin "$OLD"
  check "resume is recognised by all" ctl_says 0 resume --wait
  settle
  check "the named one still leads" test "$LEADER" = "$REPLICA"
  judge
  lost_hardly_any
}

# In good health as well: the named member leads, even if it has to be asked for by hand.
scenario_failover_by_hand() {
  shared_cluster
  replicas
  check "failover to $OTHER" ctl_says 0 failover --force --candidate "$OTHER"
  need "the named one leads" wait_for 20 leader_is "$OTHER"
  settle
  judge
  lost_hardly_any
  silent_after_successor "$OLD"
}

# At its time and not before; a planned one can be taken back.
scenario_scheduled_switchover() {
  shared_cluster
  replicas
  check "far away" ctl_says 0 switchover --force --candidate "$REPLICA" --scheduled "$(date -u -d '+1 hour' +%Y-%m-%dT%H:%M:%S+00:00)"
  check "it is shown" ctl_says 0 list
  check "with the names ($(grep -i scheduled <<<"$CTL"))" grep -q "Switchover scheduled at: .*to: $REPLICA" <<<"$(tr '\n' ' ' <<<"$CTL")"
  check "taken back" ctl_says 0 flush "${SCOPE:-demo}" switchover
  check "it is not shown any more" bash -c "! grep -qi scheduled" <<<"$(ctl list)"
  local at=$(($(date +%s) + 5))
  check "in five seconds" ctl_says 0 switchover --force --candidate "$OTHER" --scheduled "$(date -u -d "@$at" +%Y-%m-%dT%H:%M:%S+00:00)"
  while leader_is "$OLD" && [ "$(date +%s)" -lt $((at + 30)) ]; do a_while 0.1; done
  check "not before its time" test "$(date +%s)" -ge "$at"
  need "the named one leads" wait_for 20 leader_is "$OTHER"
  settle
  judge
  lost_none
  silent_after_successor "$OLD"
}

# A parameter that needs a restart: shown, and gone after the restart of those who have it; the leader keeps its role.
scenario_restart() {
  shared_cluster
  replicas
  local server of_leader
  all_pending() {
    local node
    for node in "${NODES[@]}"; do [ "$(value_of "$node" pending_restart)" = true ] || return 1; done
  }
  none_pending() {
    local node
    for node in "${NODES[@]}"; do [ -z "$(value_of "$node" pending_restart)" ] || return 1; done
  }
  check "a new cluster has no restart pending" wait_for 10 none_pending
  server=$(postmaster "$REPLICA") of_leader=$(postmaster "$OLD")
  check "edit-config" ctl_says 0 edit-config --force -p max_connections=60
  check "every member shows that it needs a restart" wait_for 30 all_pending
  check "a replica restarts" ctl_says 0 restart "${SCOPE:-demo}" "$REPLICA" --force
  check "with a new server" test "$(postmaster "$REPLICA")" != "$server"
  server=$(postmaster "$REPLICA")
  check "those that need it restart" ctl_says 0 restart --pending --force
  check "not the one that was restarted before" test "$(postmaster "$REPLICA")" = "$server"
  check "the leader has a new server" test "$(postmaster "$OLD")" != "$of_leader"
  check "and still leads" leader_is "$OLD"
  check "nobody needs a restart" wait_for 30 none_pending
  check "the parameter counts" test "$(sql "$OLD" "show max_connections")" = 60
  settle
  judge
  lost_none
  check "edit-config, as it was" ctl_says 0 edit-config --force -p max_connections=50
  check "every member shows that it needs a restart" wait_for 30 all_pending
  # Less than before: a replica may not have less than its leader, so it gets there once the leader's restart has reached it.
  check "the leader restarts" ctl_says 0 restart "${SCOPE:-demo}" "$OLD" --force
  restarted() { ctl restart --pending --force >/dev/null 2>&1 && none_pending; }
  check "then the others" wait_for 60 restarted
  check "the parameter counts" test "$(sql "$REPLICA" "show max_connections")" = 50
  settle
}

# A replica is copied anew, by spiloctl and after its directory was deleted; the leader can't be.
scenario_reinit() {
  shared_cluster
  replicas
  local before
  before=$(stat -c %i "$WORK/$REPLICA/data")
  check "reinit" ctl_says 0 reinit "${SCOPE:-demo}" "$REPLICA" --force
  check "the directory is a new one" test "$(stat -c %i "$WORK/$REPLICA/data")" != "$before"
  need "it streams" wait_for 60 streams "$REPLICA"
  check "the leader can't be copied anew" ctl_says 1 reinit "${SCOPE:-demo}" "$OLD" --force
  check "its server did not notice" leader_is "$OLD"
  node_kill "$OTHER" TERM
  node_gone "$OTHER"
  as_user rm -rf "$WORK/$OTHER/data"
  begin "$OTHER"
  settle
  nothing_left() { ! compgen -G "$WORK/*/data.*new*" >/dev/null && ! compgen -G "$WORK/*/data.old*" >/dev/null; }
  check "nothing is left of the copies" wait_for 20 nothing_left
  judge
  lost_none
  uninterrupted
}
