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
  outage_below 1000
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
  outage_below 1000
  set_config "{\"ttl\": $TTL, \"retry_timeout\": $RETRY_TIMEOUT}" "\"ttl\": $TTL"
}
