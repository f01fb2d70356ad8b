# Sourced by scenario.sh: the store goes away while all members reach each other.

# The client's connection is still the one of before: it saw no error.
client_backend() { sql "$1" "select string_agg(pid::text, ' ') from pg_stat_activity where query like 'insert into spilo_writes%'"; }

undisturbed() { # undisturbed SERVER BACKEND HISTORY: as they were before the store went
  check "$OLD still leads" leader_is "$OLD"
  check "with the same server" test "$(postmaster "$OLD")" = "$1"
  check "the client's connection was never closed" test "$(client_backend "$OLD")" = "$2"
  check "nobody was promoted" test "$(timeline "$OLD")" = "$3"
}

# Stopped and started within the lease.
scenario_store_restarted() {
  shared_cluster
  local server backend history
  server=$(postmaster "$OLD") backend=$(client_backend "$OLD") history=$(timeline "$OLD")
  need "the client has a connection" test -n "$backend"
  store_stop
  a_while 1
  store_start
  a_while $((TTL + 1))
  undisturbed "$server" "$backend" "$history"
  settle
  judge
  lost_none
  uninterrupted
}

# Away for many times the lease: as long as every member answers the primary, it stays (failsafe_mode).
scenario_store_down() {
  shared_cluster
  local server backend history before end
  set_config '{"retry_timeout": 1, "ttl": 3}' '"ttl": 3'
  server=$(postmaster "$OLD") backend=$(client_backend "$OLD") history=$(timeline "$OLD")
  since
  store_stop
  end=$((SECONDS + ${STORE_DOWN_SECONDS:-30}))
  while [ $SECONDS -lt $end ] && [ "$(postmaster "$OLD")" = "$server" ]; do a_while 1; done
  check "the primary's server runs" test "$(postmaster "$OLD")" = "$server"
  before=$(acks)
  check "the client writes" wait_for 20 acks_grow "$before"
  check "the primary says why it may" test "$(value_of "$OLD" failsafe_mode_is_active)" = true
  store_start
  need "it still leads when the store is back" wait_for 30 leader_is "$OLD"
  settle
  a_while 4
  undisturbed "$server" "$backend" "$history"
  judge
  lost_none
  uninterrupted
  set_config "{\"ttl\": $TTL, \"retry_timeout\": $RETRY_TIMEOUT}" "\"ttl\": $TTL"
}

# The agent and the guard (if there is one: SPILO_GUARD=off) die at once while the store is away: nothing watches over the primary's
# server, which lives on. The agent that starts again has nobody to vouch for it: it ends it after a ttl, unless the cluster is paused,
# which patroni.dynamic.json remembers.
scenario_unguarded() {
  shared_cluster
  local server before
  leave_alone() { # leave_alone: OLD's server, without agent and guard, the store away
    local guard
    server=$(postmaster "$OLD") guard=$(guard_pid "$OLD")
    store_stop
    node_kill "$OLD" KILL
    [ "${SPILO_GUARD:-on}" = on ] || check "there is no guard" test -z "$guard"
    [ -z "$guard" ] || kill -9 "$guard"
    node_gone "$OLD"
    a_while $((TTL + 2)) # longer than the lease
    need "the server lives on, watched by nobody" test "$(postmaster "$OLD")" = "$server"
    before=$(acks)
    check "and takes writes" wait_for 20 acks_grow "$before"
    begin "$OLD"
  }
  takes_no_writes() { ! server_runs "$OLD" || [ "$(postmaster "$OLD")" != "$server" ] || [ "$(sql "$OLD" 'select pg_is_in_recovery()')" = t ]; }
  leave_alone
  need "the agent ends it after a ttl" wait_for $((TTL + 10)) takes_no_writes
  a_while 2
  # Back as a standby at most: the store has not told who leads.
  check "nobody leads" eval '! find_leader'
  before=$(acks)
  a_while $((TTL + 1))
  check "no row is acknowledged by anybody" test "$(acks)" = "$before"
  store_start
  need "somebody leads" wait_for 40 find_leader
  settle
  judge
  lost_hardly_any

  find_leader
  OLD=$LEADER
  wait_for 60 rested
  since
  need "pause is recognised by all ($OLD leads)" ctl_says 0 pause --wait
  # Each node writes it while it reloads.
  need "and kept beside the data" wait_for 10 grep -Eq '"pause": ?true' "$WORK/$OLD/data/patroni.dynamic.json"
  leave_alone
  a_while $((TTL * 2 + 3))
  check "the paused server runs on" test "$(postmaster "$OLD")" = "$server"
  before=$(acks)
  check "and takes writes" wait_for 20 acks_grow "$before"
  store_start
  need "it leads when the store is back" wait_for 40 leader_is "$OLD"
  check "resume is recognised by all" ctl_says 0 resume --wait
  settle
  check "with the same server" test "$(postmaster "$OLD")" = "$server"
  judge
  lost_none
  uninterrupted
}
