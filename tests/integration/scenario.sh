#!/usr/bin/env bash
# Scenarios on real clusters: scenario.sh BIN STORE SCENARIO…
#
# Three spilod nodes with PostgreSQL 15 and a client that keeps writing; what the client saw decides. The scenarios of one call share
# a cluster and run one after the other, each on the whole and settled cluster that the one before left behind: a new cluster costs
# more than most scenarios. They are in scenarios/*.sh.
#
# In the environment: MEMBERS=3 makes the store of three members (members.sh), NETWORK=1 gives each node a host of its own
# (network.sh), RESULTS=FILE takes a line for each `outcome`.
set -uo pipefail
BIN=$1 STORE=$2
shift 2
here=$(cd "$(dirname "$0")" && pwd)
source "$here/../../examples/cluster.sh"
[ -z "${NETWORK:-}" ] || source "$here/network.sh"
[ -z "${MEMBERS:-}" ] || source "$here/members.sh"

source "$here/checks.sh"
SCENARIO=start
[ -z "${RESULTS:-}" ] || : >"$RESULTS"

ctl() { as_user "$BIN/spiloctl" -c "$WORK/${NODES[0]}.yml" "$@" </dev/null; }
ctl_says() { # ctl_says STATUS ARGUMENT…: CTL is what it printed
  local expected=$1 status=0
  shift
  CTL=$(ctl "$@" 2>&1) || status=$?
  [ "$status" = "$expected" ] || { say "spiloctl $* ended with $status: $CTL"; return 1; }
}

# What the client saw since the scenario began: the report's figures in GAP (ms), MISSING, SIDE_BY_SIDE.
since() { SINCE=$(now); }
judge() {
  local report
  report=$(writer_report "$SINCE" --json)
  say "client: $report"
  GAP=$(sed -E 's/.*"longest_gap_ms": ([0-9]+).*/\1/' <<<"$report")
  MISSING=$(sed -E 's/.*"missing": ([0-9a-z]+).*/\1/' <<<"$report")
  SIDE_BY_SIDE=$(sed -E 's/.*"side_by_side": ([0-9]+).*/\1/' <<<"$report")
  check "never two primaries" test "$SIDE_BY_SIDE" = 0
}
outcome() { # outcome TEXT: what became of it, for tests/integration/README.md
  say "outcome: $1; longest write outage $GAP ms, rows missing $MISSING, two primaries $SIDE_BY_SIDE times"
  [ -z "${RESULTS:-}" ] ||
    printf '%s\t%s\t%s\t%s\t%s\t%s\n' "$SCENARIO" "$STORE" "$1" "$GAP" "$MISSING" "$SIDE_BY_SIDE" >>"$RESULTS"
}
lost_none() { check "no acknowledged row is missing" test "$MISSING" = 0; }
# Asynchronous replication: what was not sent yet is lost with the server. The client has one row under way at a time.
lost_hardly_any() { check "hardly a row is lost by asynchronous replication ($MISSING)" test "$MISSING" -le 20; }
# The primary stays: whatever a busy machine makes of a single write, nobody waited for a lease.
uninterrupted() { check "no outage: the longest gap is shorter than the lease ($GAP ms)" test "$GAP" -lt $((TTL * 1000)); }
outage_below() { check "the outage was below $1 ms ($GAP ms)" test "$GAP" -lt "$1"; }
# The client holds a connection to every node that takes writes, so an old primary that still took one would show here.
silent_after_successor() { # silent_after_successor NODE
  local index
  for index in "${!NODES[@]}"; do [ "${NODES[$index]}" != "$1" ] || break; done
  check "$1 acknowledged nothing after the first row of its successor" test 0 = "$(sort -n -k3 "$WORK/acks" |
    awk -v since="$SINCE" -v old="$index" '$3 >= since && $2 != old { gone = 1 } $3 >= since && $2 == old && gone { n++ }
      END { print n + 0 }')"
}

settle() { # the cluster is whole again and the client writes
  local before
  need "all replicas stream" wait_for 90 replicas_stream
  before=$(acks)
  need "the client writes" wait_for 30 acks_grow "$before"
}
# A node that has just started asks everybody before it leads, for a ttl: it may have forgotten a promise to a leader without a
# store. Outages are only comparable once that time is over.
declare -A STARTED
begin() { STARTED[$1]=$SECONDS && node_start "$1"; }
rested() {
  local node
  for node in "${NODES[@]}"; do [ $((SECONDS - STARTED[$node])) -gt $((TTL + 1)) ] || return 1; done
}
start_cluster() {
  local node
  cluster_create n1 n2 n3
  for node in "${NODES[@]}"; do begin "$node"; done
  need "a leader" wait_for 60 find_leader
  need "all replicas stream" wait_for 90 replicas_stream
  # As long as a lease: a disk that holds a write up for two seconds closes no connection.
  writer_start --timeout-ms $((TTL * 1000))
}
shared_cluster() { # the cluster of the scenarios before, or a new one; OLD leads it
  [ ${#NODES[@]} != 0 ] || start_cluster
  settle
  wait_for 60 rested
  find_leader
  OLD=$LEADER
  since
}
end_cluster() {
  check "no secret is in any log" no_secrets
  cluster_destroy
  WORK= NODES=() SPILOD=() STARTED=()
}
replicas() { # REPLICA and OTHER, the two that do not lead
  local node
  REPLICA= OTHER=
  find_leader
  for node in "${NODES[@]}"; do
    [ "$node" = "$LEADER" ] || { [ -z "$REPLICA" ] && REPLICA=$node || OTHER=$node; }
  done
}

no_process_of() { [ -z "$(server_pids "$1")" ]; }
# In place of `sleep`, where a time has to pass to show that nothing happens.
a_while() { sleep "$1"; }
value_of() { # value_of NODE KEY: a number or a text of GET /patroni
  HTTP_PATIENCE=5 http GET "${REST_PORT[$1]}" /patroni || return 1
  sed -nE "s/.*\"$2\": \"?([^\",}]*)\"?[,}].*/\1/p" <<<"$HTTP_BODY"
}
timeline() { sql "$1" "select timeline_id from pg_control_checkpoint()"; }
knows() { HTTP_PATIENCE=2 http GET "${REST_PORT[$1]}" /config && [[ $HTTP_BODY == *"$2"* ]]; }
set_config() { # set_config PATCH [TEXT]: until every node that runs knows it, by a text in its configuration
  local node
  find_leader
  http PATCH "${REST_PORT[$LEADER]}" /config "$1"
  need "the configuration takes $1 ($HTTP_STATUS)" test "$HTTP_STATUS" = 200
  for node in "${NODES[@]}"; do
    ! node_runs "$node" || need "$node knows it" wait_for 30 knows "$node" "${2:-${1:1:-1}}"
  done
}
log_mark() { wc -l <"$WORK/$1.log"; }
logged_since() { tail -n +$(($2 + 1)) "$WORK/$1.log" | grep -q -- "$3"; } # logged_since NODE MARK PATTERN

for file in "$here"/scenarios/*.sh; do source "$file"; done
for SCENARIO in "$@"; do
  type "scenario_$SCENARIO" >/dev/null 2>&1 || die "no scenario $SCENARIO"
done
for SCENARIO in "$@"; do
  say "== $SCENARIO on $STORE (${SECONDS}s)"
  "scenario_$SCENARIO"
done
SCENARIO=end
[ ! -f "$WORK/acks" ] || settle
end_cluster
say "== done after ${SECONDS}s"
exit $failed
