# Sourced by scenario.sh: how nodes come into a cluster, and which may not. These make clusters of their own, of one or two nodes.

own_cluster() { # own_cluster SCOPE: a directory and a store without nodes; the cluster of the scenario before ends
  [ -z "$WORK" ] || end_cluster
  SCOPE=$1
  cluster_create
}
spilod_ends() { # spilod_ends STATUS NODE: by itself; within a minute
  local status=0
  as_user timeout 60 "$BIN/spilod" "$WORK/$2.yml" >"$WORK/$2.log" 2>&1 </dev/null || status=$?
  [ "$status" = "$1" ] || { say "spilod ended with $status"; return 1; }
}
edit() { as_user sed -i "$2" "$WORK/$1.yml"; } # edit NODE SED-SCRIPT
make_server() { # make_server NODE: a data directory that is nobody's yet
  as_user tee "$WORK/password" <<<"$SUPERUSER_PASSWORD" >/dev/null
  as_user "$PG_BIN/initdb" -D "$WORK/$1/data" -U postgres -A scram-sha-256 --pwfile "$WORK/password" -E UTF8 --locale C \
    >"$WORK/initdb.log" 2>&1 || need "initdb: $(tail -3 "$WORK/initdb.log")" false
}
run_server() { # as somebody had started it before libspilo came
  as_user "$PG_BIN/pg_ctl" -D "$WORK/$1/data" -w -l "$WORK/$1/data.log" start \
    -o "-c port=${PG_PORT[$1]} -c listen_addresses=127.0.0.1 -c unix_socket_directories=$WORK/$1" >/dev/null ||
    need "pg_ctl start" false
}

# A name can be used by one node only, and so can an address; who comes second says so and touches nothing.
scenario_same_name_twice() {
  own_cluster once
  node_create one
  node_create twin
  node_start one
  need "a leader" wait_for 60 leader_is one
  edit twin "s/name: twin/name: one/"
  check "a second node of that name exits with 1" spilod_ends 1 twin
  check "it says so and what to do" grep -q "already a node named 'one'.*give this one another name" "$WORK/twin.log"
  check "nothing was created" test ! -e "$WORK/twin/data"
  edit twin "s/name: one/name: twin/; s/127.0.0.1:${REST_PORT[twin]}/127.0.0.1:${REST_PORT[one]}/"
  check "a taken REST port: it exits with 1" spilod_ends 1 twin
  check "it says which ($(tail -1 "$WORK/twin.log"))" grep -q "127.0.0.1:${REST_PORT[one]}" "$WORK/twin.log"
  check "nothing was created" test ! -e "$WORK/twin/data"
  check "the first one is untouched" leader_is one
}

# The data of another cluster: neither copied over nor started as a member of this one.
scenario_foreign_system() {
  own_cluster foreign
  node_create home
  node_create stranger
  make_server stranger
  local before
  before=$(as_user "$PG_BIN/pg_controldata" "$WORK/stranger/data" | grep -v "Time of latest")
  node_start home
  need "a leader" wait_for 60 leader_is home
  check "the node with other data exits with 1" spilod_ends 1 stranger
  say "$(grep -E 'CRITICAL|ERROR' "$WORK/stranger.log")"
  check "it says so" grep -qi "system ID mismatch, node stranger belongs to a different cluster" "$WORK/stranger.log"
  check "its data is as it was" test "$(as_user "$PG_BIN/pg_controldata" "$WORK/stranger/data" | grep -v "Time of latest")" = "$before"
  check "nothing else was made beside it" test -z "$(compgen -G "$WORK/stranger/data.*" | grep -v 'data\.\(log\|guard\|lock\)')"
  check "the leader still leads" leader_is home
}

# A data directory that somebody made before libspilo came: it becomes the cluster, and the next node copies it.
scenario_adopt_directory() {
  own_cluster adopted
  node_create first
  make_server first
  run_server first
  sql first "create table precious as select generate_series(1, 1000) as n" || need "rows from before" false
  as_user "$PG_BIN/pg_ctl" -D "$WORK/first/data" -w stop >/dev/null || need "pg_ctl stop" false
  node_start first
  need "it leads" wait_for 60 leader_is first
  # /primary says who holds the lock; its promotion is going on by then.
  takes_writes() { [ "$(sql first "select pg_is_in_recovery()")" = f ]; }
  need "and takes writes" wait_for 20 takes_writes
  check "its rows are there" test "$(sql first "select count(*) from precious")" = 1000
  sql first "create role replicator login replication password '$REPLICATION_PASSWORD'" || need "an account for replicas" false
  node_create second
  node_start second
  need "a second node streams" wait_for 90 streams second
  check "with the same rows" test "$(sql second "select count(*) from precious")" = 1000
}

# A server that runs, with clients on it: the agent takes charge of it without a restart.
scenario_adopt_server() {
  own_cluster running
  node_create alive
  make_server alive
  run_server alive
  local server before
  server=$(postmaster alive)
  writer_start
  since
  node_start alive
  need "it leads" wait_for 60 leader_is alive
  before=$(acks)
  check "the client writes" wait_for 20 acks_grow "$before"
  check "to the same server" test "$(postmaster alive)" = "$server"
  check "which has a guard now" wait_for 10 test -n "$(guard_pid alive)"
  judge
  lost_none
  uninterrupted
}

# One process, two clusters: each has its leader; SIGTERM ends both in order.
scenario_two_clusters() {
  own_cluster red
  node_create red1
  SCOPE=blue
  node_create blue1
  (become setsid "$BIN/spilod" "$WORK/red1.yml" "$WORK/blue1.yml" >>"$WORK/red1.log" 2>&1 </dev/null) &
  SPILOD[red1]=$!
  disown $!
  need "one leads" wait_for 60 leader_is red1
  need "the other leads" wait_for 60 leader_is blue1
  check "they are two clusters" test "$(value_of red1 database_system_identifier)" != "$(value_of blue1 database_system_identifier)"
  check "each line says of which it is" grep -q "red" "$WORK/red1.log"
  # What happens to one does not touch the other.
  local server
  server=$(postmaster blue1)
  kill -9 "$(postmaster red1)"
  red_is_back() { leader_is red1 && server_runs red1; }
  check "a killed server of one comes back" wait_for 60 red_is_back
  check "the other did not notice" test "$(postmaster blue1)" = "$server"
  node_kill red1 TERM
  need "SIGTERM ends the process" node_gone red1
  check "with one server" no_process_of red1
  check "and the other" no_process_of blue1
}
