# Sourced by scenario.sh: a store of three members in trouble (MEMBERS=3), and nodes that are cut off (NETWORK=1). Whatever happens to
# the store, a primary that may stay does, and no client loses a row.

calm() { # before the trouble: what must be the same afterwards
  shared_cluster
  SERVER=$(postmaster "$OLD") BACKEND=$(client_backend "$OLD") HISTORY=$(timeline "$OLD")
  need "the client has a connection" test -n "$BACKEND"
}
stayed() { # stayed OUTCOME
  undisturbed "$SERVER" "$BACKEND" "$HISTORY"
  settle
  judge
  lost_none
  uninterrupted
  outcome "$1"
}
keeps_writing() { # keeps_writing SECONDS: the client does, for as long
  local end=$((SECONDS + $1)) before
  while [ $SECONDS -lt $end ]; do
    before=$(acks)
    check "the client writes" wait_for 5 acks_grow "$before" || return 1
    a_while 1
  done
}

# A member that does not lead the store, perhaps the one that our nodes talk to.
scenario_store_member_killed() {
  calm
  local id
  need "the store has a leader" wait_for 20 store_leader
  for id in "${MEMBER_IDS[@]}"; do [ "$id" = "$MEMBER" ] || break; done
  member_end "$id"
  keeps_writing $((TTL * 2))
  member_start "$id"
  need "the member is back" wait_for 60 members_ready
  stayed "the primary stays"
}

scenario_store_leader_killed() {
  calm
  need "the store has a leader" wait_for 20 store_leader
  member_end "$MEMBER"
  keeps_writing $((TTL * 2))
  member_start "$MEMBER"
  need "the member is back" wait_for 60 members_ready
  stayed "the primary stays; the store's new leader keeps the lease"
}

# All members at once, and back before the lease is over.
scenario_store_all_restarted() {
  calm
  store_stop
  store_start
  keeps_writing $((TTL + 1))
  stayed "the primary stays"
}

# Nobody to renew with for a minute, while all nodes reach each other.
scenario_store_gone() {
  calm
  store_stop
  keeps_writing "${STORE_DOWN_SECONDS:-60}"
  check "the primary says why it may" test "$(value_of "$OLD" failsafe_mode_is_active)" = true
  store_start
  need "it still leads when the store is back" wait_for 60 leader_is "$OLD"
  keeps_writing $((TTL + 1))
  stayed "the primary stays, by the promise of all members (failsafe_mode)"
}

# Every key is deleted. Nobody else may be promoted, and what the primary knows comes back.
scenario_store_wiped() {
  calm
  need "all keys are deleted" store_wipe
  restored() { leader_is "$OLD" && knows "$OLD" '"ttl": '"$TTL" && ctl list --format json | grep -q '"Role": "Leader"'; }
  need "the primary's keys are back" wait_for 60 restored
  keeps_writing $((TTL * 2))
  check "all members are back" test "$(ctl list --format json | grep -o '"Member"' | wc -l)" = 3
  stayed "the primary stays and restores lock, configuration, history and system identifier"
}

# All members die and come back with nothing, on the same ports: a store that was lost and installed again. To our sessions it is another
# one, whose numbers begin anew.
scenario_store_replaced() {
  calm
  local id node began
  # One more term of the old store, so that all its numbers are beyond those of the new one.
  store_stop
  store_start
  keeps_writing 2
  store_stop
  for id in "${MEMBER_IDS[@]}"; do
    need "member $id had data" test -d "$WORK/$STORE-$id"
    rm -rf "$WORK/$STORE-$id"
  done
  store_start
  began=$SECONDS
  # Read from the store itself: the configuration, every member and the lock.
  restored() {
    local listed
    ctl show-config 2>/dev/null | grep -q "ttl: $TTL" && listed=$(ctl list --format json 2>/dev/null) &&
      grep -q '"Role": "Leader"' <<<"$listed" && [ "$(grep -o '"Member"' <<<"$listed" | wc -l)" = 3 ] && leader_is "$OLD"
  }
  need "the primary's keys and all members are in the new store" wait_for 90 restored
  say "restored $((SECONDS - began)) s after the store's start"
  keeps_writing $((TTL * 2))
  for node in "${NODES[@]}"; do check "$node runs" node_runs "$node"; done
  stayed "the primary stays and restores lock, configuration, history and system identifier"
  # And the cluster is a whole one.
  replicas
  need "a switchover is done" ctl_says 0 switchover --candidate "$REPLICA" --force
  need "the candidate leads" wait_for 20 leader_is "$REPLICA"
  settle
  judge
  lost_none
}

# Every answer takes half of a lease longer.
scenario_store_slow() {
  calm
  proxies_slow
  keeps_writing $((TTL * 4))
  proxies_pass
  keeps_writing $((TTL + 1))
  stayed "the primary stays"
}

# The primary's host does not reach the store; all others do, and everybody reaches everybody.
scenario_cut_from_store() {
  calm
  cut "$OLD" "$MEMBER_HOST"
  keeps_writing $((TTL * 4))
  mend "$OLD"
  need "it leads when it reaches the store again" wait_for 60 leader_is "$OLD"
  keeps_writing $((TTL + 1))
  stayed "the primary stays, by the promise of all members (failsafe_mode)"
}

# The reverse: it reaches the store and its clients, and none of the other nodes.
scenario_cut_from_peers() {
  calm
  local node peers=()
  for node in "${NODES[@]}"; do [ "$node" = "$OLD" ] || peers+=("$(node_host "$node")"); done
  cut "$OLD" "${peers[@]}"
  keeps_writing $((TTL * 4))
  mend "$OLD"
  # The streams are still there on both sides, but TCP takes its time to try again.
  caught_up() {
    [ "$(sql "$OLD" "select count(*) = 2 and bool_and(pg_wal_lsn_diff(pg_current_wal_lsn(), flush_lsn) < 100000)
      from pg_stat_replication")" = t ]
  }
  need "the replicas catch up" wait_for 120 caught_up
  stayed "the primary stays, because it holds the lock"
}

# It reaches nobody but its clients: it must have stopped before another is promoted.
scenario_isolated() {
  calm
  local node others=("$MEMBER_HOST")
  for node in "${NODES[@]}"; do [ "$node" = "$OLD" ] || others+=("$(node_host "$node")"); done
  # Asynchronous replication: what the client writes on the lonely primary until its lease is over is lost. So it writes nothing then.
  writer_stop
  cut "$OLD" "${others[@]}"
  need "somebody else leads" wait_for $((TTL + 20)) new_leader "$OLD"
  # It may run again by now, as a replica.
  check "the old server has ended" test ! -e "/proc/$SERVER"
  since
  writer_start
  keeps_writing 3
  mend "$OLD"
  settle
  check "it comes back as a replica" test "$LEADER" != "$OLD"
  judge
  lost_none
  outcome "the primary ends itself before another is promoted, and comes back as a replica"
}
