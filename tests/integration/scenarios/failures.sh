# Sourced by scenario.sh: what breaks, and what is handed over in order.

# Planned, to whom the nodes choose and to whom we choose; nothing is lost, and nonsense is refused.
scenario_switchover() {
  shared_cluster
  local first=$OLD
  http POST "${REST_PORT[$OLD]}" /switchover "{\"leader\": \"$OLD\"}"
  check "the switchover is reported as done ($HTTP_STATUS $HTTP_BODY)" test "$HTTP_STATUS" = 200
  need "somebody else leads" wait_for 20 new_leader "$OLD"
  settle
  judge
  lost_none
  silent_after_successor "$OLD"
  outage_below 3000
  since
  OLD=$LEADER
  http POST "${REST_PORT[$OLD]}" /switchover "{\"leader\": \"$OLD\", \"candidate\": \"$first\"}"
  check "back again ($HTTP_STATUS $HTTP_BODY)" test "$HTTP_STATUS" = 200
  need "the candidate leads" wait_for 20 leader_is "$first"
  settle
  http POST "${REST_PORT[$first]}" /switchover '{"leader": "nobody"}'
  check "a wrong leader is refused ($HTTP_STATUS $HTTP_BODY)" test "$HTTP_STATUS" = 412
  check "and nothing happens" leader_is "$first"
  judge
  lost_none
}

# A crashed server, with no patience for it: somebody else leads, without waiting for the lease to run out.
scenario_postmaster_killed() {
  shared_cluster
  kill -9 "$(postmaster "$OLD")"
  need "somebody else leads" wait_for $((LEASE + 20)) new_leader "$OLD"
  settle
  judge
  lost_hardly_any
  silent_after_successor "$OLD"
  outage_below $((TTL * 1000))
}

# A crashed server, with patience for it: it starts again where it was, and loses nothing.
scenario_postmaster_restarts() {
  shared_cluster
  local server history
  set_config '{"primary_start_timeout": 300}'
  server=$(postmaster "$OLD") history=$(timeline "$OLD")
  since
  kill -9 "$server"
  comes_back() { leader_is "$OLD" && server_runs "$OLD" && [ "$(postmaster "$OLD")" != "$server" ]; }
  need "the same node leads with a new server" wait_for 60 comes_back
  settle
  check "on the same timeline" test "$(timeline "$OLD")" = "$history"
  judge
  lost_none
  outage_below 10000
  set_config '{"primary_start_timeout": 0}'
}

# The agent is killed and its server lives on: the guard ends it before anybody else leads.
scenario_agent_killed() {
  shared_cluster
  node_kill "$OLD" KILL
  node_gone "$OLD"
  need "somebody else leads" wait_for $((LEASE + 20)) new_leader "$OLD"
  check "the old server has ended" no_process_of "$OLD"
  check "the guard wrote why" grep -q "ended PostgreSQL" "$WORK/$OLD/data.guard.log"
  begin "$OLD"
  settle
  judge
  lost_hardly_any
  silent_after_successor "$OLD"
  outage_below $((LEASE * 1000 + 3000))
}

# The agent is frozen and its server lives on, with the client committing on an open connection.
scenario_agent_frozen() {
  shared_cluster
  local before
  node_kill "$OLD" STOP
  need "somebody else leads" wait_for $((LEASE + 20)) new_leader "$OLD"
  check "the old server has ended" no_process_of "$OLD"
  before=$(acks)
  check "the client writes to the new leader" wait_for 20 acks_grow "$before"
  node_kill "$OLD" CONT
  settle
  check "the woken node did not take the lock back" test "$LEADER" != "$OLD"
  judge
  lost_hardly_any
  silent_after_successor "$OLD"
  outage_below $((LEASE * 1000 + 3000))
}

# The agent is killed and comes back within the lease: no client notices anything.
scenario_agent_restarted() {
  shared_cluster
  local server guard
  server=$(postmaster "$OLD") guard=$(guard_pid "$OLD")
  node_kill "$OLD" KILL
  node_gone "$OLD"
  begin "$OLD"
  a_while $((TTL + 2))
  check "the same server runs on" test "$(postmaster "$OLD")" = "$server"
  check "under the same guard" test "$(guard_pid "$OLD")" = "$guard"
  check "and still leads" leader_is "$OLD"
  settle
  judge
  lost_none
  uninterrupted
}

# Agent, guard and server at once, as with a machine that is switched off.
scenario_node_killed() {
  shared_cluster
  kill_node "$OLD"
  need "somebody else leads" wait_for $((LEASE + 20)) new_leader "$OLD"
  begin "$OLD"
  settle
  judge
  lost_hardly_any
  outage_below $((LEASE * 1000 + 3000))
}

# SIGTERM: leadership is handed over, the server stopped, and nothing lost.
scenario_agent_stopped() {
  shared_cluster
  local mark
  mark=$(log_mark "$OLD")
  node_kill "$OLD" TERM
  need "somebody else leads" wait_for 20 new_leader "$OLD"
  need "the agent ends" node_gone "$OLD"
  check "with status 0" logged_since "$OLD" "$mark" "exit 0"
  check "its server has stopped" no_process_of "$OLD"
  guard_gone() { [ -z "$(guard_pid "$OLD")" ]; }
  check "its guard has gone" wait_for 5 guard_gone
  begin "$OLD"
  settle
  judge
  lost_none
  outage_below 3000
}

# The primary and everything of it at once, by their own ids.
kill_node() {
  local pid
  node_kill "$1" KILL
  pid=$(guard_pid "$1") && kill -9 "$pid"
  server_kill "$1"
  node_gone "$1"
}

# The replicas' servers crash, the primary writes on alone and dies: what it had alone has to go when it comes back, by pg_rewind,
# because a copy would take hours with a real database. The replicas' agents are held meanwhile, or they would start them again.
scenario_diverged() {
  shared_cluster
  # The replicas are frozen below. Where that takes longer than the ttl, the primary lists itself alone in failsafe, and then nobody may
  # lead after it by himself.
  set_config '{"failsafe_mode": false}'
  replicas
  local mark
  writer_stop
  node_kill "$REPLICA" STOP
  node_kill "$OTHER" STOP
  server_kill "$REPLICA"
  server_kill "$OTHER"
  sql "$OLD" "create table alone as select generate_series(1, 100) as n" || need "rows that nobody else has" false
  kill_node "$OLD"
  node_kill "$REPLICA" CONT
  node_kill "$OTHER" CONT
  need "one of the others leads" wait_for 60 new_leader "$OLD"
  since
  writer_start
  mark=$(log_mark "$OLD")
  begin "$OLD"
  settle
  check "it came back by pg_rewind" logged_since "$OLD" "$mark" "rejoin $LEADER: rewind"
  is_gone() { [ "$(sql "$OLD" "select to_regclass('alone') is null")" = t ]; }
  check "and has what all have" wait_for 20 is_gone
  judge
  lost_none
}

# The replicas were stopped in order, then the primary is lost for good: it might as well be alive without a store, asking nobody but
# itself (failsafe_mode). So nobody leads by himself; an operator who knows better decides.
scenario_last_one_lost() {
  shared_cluster
  replicas
  writer_stop
  node_kill "$REPLICA" TERM
  node_kill "$OTHER" TERM
  need "a replica ends" node_gone "$REPLICA"
  need "the other too" node_gone "$OTHER"
  all_alone() { HTTP_PATIENCE=2 http GET "${REST_PORT[$OLD]}" /failsafe && [[ $HTTP_BODY != *"\"$REPLICA\""* && $HTTP_BODY != *"\"$OTHER\""* ]]; }
  need "the primary knows that it is alone" wait_for 30 all_alone
  kill_node "$OLD"
  begin "$REPLICA"
  begin "$OTHER"
  need "a replica's server runs" wait_for 60 server_runs "$REPLICA"
  need "the other's too" wait_for 60 server_runs "$OTHER"
  a_while $((TTL + 2))
  check "nobody leads" eval '! find_leader'
  check "the cluster is shown without a leader" ctl_says 0 list
  check "the log says what to do" grep -q "not racing.*spiloctl failover" "$WORK/$REPLICA.log"
  check "an operator decides" ctl_says 0 failover --force --candidate "$REPLICA"
  need "the named one leads" wait_for 20 leader_is "$REPLICA"
  since
  writer_start
  begin "$OLD"
  settle
  judge
  lost_none
}
