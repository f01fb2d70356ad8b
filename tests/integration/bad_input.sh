#!/usr/bin/env bash
# What people get wrong, against the real programs: bad_input.sh BIN. Each message names the cause and the cure, nothing is left half
# done, and nothing that was there is touched.
set -uo pipefail
BIN=$1 STORE=sqlite
here=$(cd "$(dirname "$0")" && pwd)
source "$here/../../examples/cluster.sh"
source "$here/checks.sh"
TTL=3 RETRY_TIMEOUT=1
SCENARIO=start

edit() { as_user sed -i "$2" "$WORK/$1.yml"; } # edit NODE SED-SCRIPT
fresh() { # fresh NODE: a node as one configures it, which was never started
  as_user rm -rf "$WORK/$1" "$WORK/$1.log" "$WORK/$1.yml"
  local node others=()
  for node in "${NODES[@]}"; do [ "$node" = "$1" ] || others+=("$node"); done
  NODES=("${others[@]}")
  node_create "$1"
}
# said STATUS COMMAND…: OUT is all that it printed, with its working directory as W.
said() {
  local expected=$1 status=0
  shift
  OUT=$(as_user timeout 60 "$@" 2>&1 </dev/null) || status=$?
  OUT=${OUT//$WORK/W}
  [ "$status" = "$expected" ] || { say "status $status: $OUT"; return 1; }
}
is() { [ "$OUT" = "$1" ] || { diff <(echo "$1") <(echo "$OUT"); return 1; }; }
has() { [[ $OUT == *"$1"* ]] || { say "it said: $OUT"; return 1; }; }
# logs NODE LEVEL TEXT: within a time, while it runs.
line_is_there() { sed "s#$WORK#W#g" "$WORK/$1.log" | grep -F -- "$2: " | grep -qF -- "$3"; }
logs() { wait_for 30 line_is_there "$@" || { tail -5 "$WORK/$1.log"; return 1; }; }
ends() { kill "${SPILOD[$1]}" && node_gone "$1"; }
validates() { said "$1" "$BIN/spilod" --validate-config "$WORK/$2.yml"; } # validates STATUS NODE

# ---- configuration ------------------------------------------------------------------------------

all_at_once() {
  fresh bad
  edit bad 's/connect_address: 127.0.0.1:'"${REST_PORT[bad]}"'/conect_address: 127.0.0.1:1/; s/ttl: 3/ttl: 2/
    s/data_dir: .*/data_dir: 7/; s/password: '"$SUPERUSER_PASSWORD"'/password: 12/; s/max_connections: 50/max_connections: -1/'
  local expected="W/bad.yml:5: error: restapi.conect_address: unknown key, did you mean restapi.connect_address?
W/bad.yml:20: error: postgresql.data_dir: must be text (put it in quotes), but is 7
W/bad.yml:23: error: postgresql.authentication.superuser.password: must be text (put it in quotes), but is an integer
W/bad.yml:9: error: bootstrap.dcs.ttl: must be at least 3 seconds, but is 2
W/bad.yml:15: error: bootstrap.dcs.postgresql.parameters.max_connections: must be a whole number, at least 25, but is -1"
  check "--validate-config tells all problems at once" validates 1 bad
  check "with line, cause and cure" is "$expected"
  check "spilod refuses to start, with the same words" said 1 "$BIN/spilod" "$WORK/bad.yml"
  check "exactly" is "$expected"
  check "nothing was created" test -z "$(ls "$WORK/bad")"
  fresh bad
  edit bad 's/ttl: 3/ttl: 10/; s/loop_wait: 1/loop_wait: 3/; s/retry_timeout: 1/retry_timeout: 4/'
  check "a sum that can't work" validates 1 bad
  check "shows the sum and the ways out" is "W/bad.yml:9: error: bootstrap.dcs.ttl: loop_wait + 2*retry_timeout = 3 + 2*4 = 11 seconds \
must not be more than ttl = 10: a store that is slow for that long would cost the primary its lock; set ttl to at least 11, or \
retry_timeout to at most 3"
  check "a file that is not there" said 1 "$BIN/spilod" "$WORK/nowhere.yml"
  check "is named" is "W/nowhere.yml: error: can't be read: No such file or directory"
  check "no configuration at all" said 1 "$BIN/spilod"
  check "says how to give one" has "name a file, or set SPILO_SCOPE"
  check "an unknown option is exit code 2" said 2 "$BIN/spilod" --frobnicate
}

as_root() {
  [ "$(id -u)" = 0 ] || { say "skipped: not root"; return; }
  fresh bad
  local status=0
  OUT=$(timeout 30 "$BIN/spilod" "$WORK/bad.yml" 2>&1) || status=$?
  check "root is refused" test "$status" = 1
  check "and told who else" has "CRITICAL: running as root: PostgreSQL refuses to be started by root; run this as the user that owns the data directory"
  check "nothing was created" test -z "$(ls "$WORK/bad")"
}

# ---- directories and ports ----------------------------------------------------------------------

directories() {
  fresh bad
  edit bad "s#data_dir: .*#data_dir: /proc/nowhere/data#"
  check "a directory that can't be made is found by --validate-config" validates 1 bad
  check "with the cure" has "error: postgresql.data_dir: /proc/nowhere/data does not exist and can't be created: "
  node_start bad
  check "the node says so as an error" logs bad ERROR "data_dir /proc/nowhere/data does not exist and can't be created in /proc/nowhere by this user"
  check "it answers nevertheless" wait_for 10 has_status "${REST_PORT[bad]}" /liveness
  check "and does not pretend to be ready" eval '! has_status "${REST_PORT[bad]}" /readiness'
  ends bad

  fresh bad
  as_user mkdir "$WORK/bad/data"
  as_user touch "$WORK/bad/data/holiday.jpg"
  check "a directory with something else in it is found by --validate-config" validates 1 bad
  check "with the cure" has "error: postgresql.data_dir: W/bad/data is not empty and is no data directory of PostgreSQL (it has no PG_VERSION); name another directory"
  node_start bad
  check "the node says what is there" logs bad ERROR "W/bad/data is not empty (it has holiday.jpg), but has no PG_VERSION: it is no PostgreSQL data directory and is left alone; empty it, or correct data_dir"
  ends bad
  check "it is still there, alone" test "$(ls -A "$WORK/bad/data")" = holiday.jpg

  fresh bad
  edit bad "s#sqlite: .*#sqlite: {path: $WORK/nodir/store.db}#"
  check "a store's directory that is missing" validates 1 bad
  check "is named" has "error: sqlite.path: the directory W/nodir can't be written by this user"
}

# A program on our port: another server, as far as anybody knows.
hold_port() {
  local script='use IO::Socket::INET; my $s = IO::Socket::INET->new(LocalAddr => "127.0.0.1", LocalPort => $ARGV[0], Listen => 1, ReuseAddr => 1) or die; sleep 120'
  perl -e "$script" "$1" &
  HOLDER=$!
  wait_for 10 eval "! port_is_free $1"
}
release_port() { kill "$HOLDER" && wait "$HOLDER" 2>/dev/null; }

ports() {
  fresh bad
  hold_port "${PG_PORT[bad]}"
  check "a taken port is found by --validate-config" validates 1 bad
  check "with the cure" has "error: postgresql.listen: port ${PG_PORT[bad]} on 127.0.0.1 is taken by another program; end that program or set another port"
  node_start bad
  check "the node says so" logs bad ERROR "port ${PG_PORT[bad]} on 127.0.0.1 is taken by another process; end that one (\`ss -ltnp\` names it) or change postgresql.listen"
  check "nothing was created" test ! -e "$WORK/bad/data"
  release_port
  check "once it is free, the cluster is created" wait_for 60 leader_is bad
  check "without leftovers" test -z "$(compgen -G "$WORK/bad/data.failed*")"
}

# ---- passwords: on the node that the scenario before left running -----------------------------------

passwords() {
  fresh second
  edit second "s/password: $REPLICATION_PASSWORD/password: wrong/"
  node_start second
  check "a replica with a wrong password says which, and where to correct it" logs second ERROR "password authentication failed for user \"replicator\""
  check "with the cure" logs second ERROR "; the password under postgresql.authentication is not the one that this server has: correct it there, or with ALTER ROLE on the primary"
  ends second
  check "no half of a copy is left" eval '[ ! -e "$WORK/second/data" ]'
  edit second "s/password: wrong/password: $REPLICATION_PASSWORD/"
  node_start second
  check "with the right one it joins" wait_for 60 streams second
  ends second

  ends bad
  edit bad "s/password: $SUPERUSER_PASSWORD/password: wrong/"
  node_start bad
  check "a wrong superuser's password is an error" logs bad ERROR "PostgreSQL runs, but can't be looked at: "
  check "with the cure" logs bad ERROR "FATAL:  28P01: password authentication failed for user \"postgres\"; the password under postgresql.authentication"
  ends bad
  edit bad "s/password: wrong/password: $SUPERUSER_PASSWORD/"
  node_start bad
  check "with the right one it leads again" wait_for 60 leader_is bad
}

# ---- the store ----------------------------------------------------------------------------------

stores() {
  local etcd
  free_port etcd
  fresh far
  edit far "s#^sqlite: .*#etcd3: {host: 127.0.0.1:$etcd}#"
  node_start far
  check "a store that does not answer is named" logs far WARNING "waiting on etcd3 http://127.0.0.1:$etcd: reading the cluster: etcd: http://127.0.0.1:$etcd (127.0.0.1): connect: Connection refused"
  ends far
  check "spiloctl says the same, and asks whether it runs" said 1 "$BIN/spiloctl" -c "$WORK/far.yml" list
  check "by its address" has "http://127.0.0.1:$etcd"
  check "as a question" has "Is the store running"

  source "$here/../../examples/stores/etcd.sh"
  STORE_PORT=$etcd
  store_start
  local call
  for call in 'user/add {"name": "root", "password": "r"}' 'role/add {"name": "root"}' 'user/grant {"user": "root", "role": "root"}' \
    'enable {}'; do
    http POST "$etcd" "/v3/auth/${call%% *}" "${call#* }"
    need "etcd: $call" test "$HTTP_STATUS" = 200
  done
  edit far "s#^etcd3: .*#etcd3: {host: 127.0.0.1:$etcd, username: root, password: wrong-seKret}#"
  node_start far
  check "a store that does not know the password says so" logs far WARNING "waiting on etcd3 http://127.0.0.1:$etcd: "
  check "with the cause and what to correct" logs far WARNING "auth/authenticate as user root: etcdserver: authentication failed, invalid user ID or password (check user and password)"
  ends far
  store_stop
}

# ---- REST ---------------------------------------------------------------------------------------

refused() { # refused STATUS METHOD PATH BODY TEXT
  http "$2" "${REST_PORT[bad]}" "$3" "$4"
  [ "$HTTP_STATUS" = "$1" ] && [[ $HTTP_BODY == *"$5"* ]] || { say "$HTTP_STATUS $HTTP_BODY"; return 1; }
}
raw() { # raw HOST TEXT: OUT is the answer to exactly that text
  OUT=$(exec 3<>"/dev/tcp/$1/${REST_PORT[bad]}" && printf '%b' "$2" >&3 && timeout 40 cat <&3)
}

rest() {
  local before after
  before=$(http GET "${REST_PORT[bad]}" /config && echo "$HTTP_BODY")
  check "no JSON" refused 400 PATCH /config '{"ttl": ' "not JSON"
  check "no object" refused 400 PATCH /config '[1]' "a JSON object is expected, this is: list"
  check "all that is wrong with a configuration at once" refused 422 PATCH /config '{"ttl": 1, "loop_wait": "x", "postgresql": {"paramters": {}}}' '"violations"'
  local path
  for path in ttl loop_wait postgresql.paramters; do
    check "among them $path" eval "[[ \$HTTP_BODY == *'\"path\": \"$path\"'* ]]"
  done
  check "a number where a name belongs" refused 400 POST /switchover '{"leader": 5}' "leader must be text, not integer"
  check "a candidate that does not exist" refused 412 POST /switchover '{"leader": "bad", "candidate": "nobody"}' "candidate does not exist"
  check "a time that has no zone" refused 422 POST /switchover '{"leader": "bad", "candidate": "x", "scheduled_at": "tomorrow"}' "Unable to parse scheduled timestamp. It should be in an unambiguous format, e.g. ISO 8601"
  check "a filter that is none" refused 400 POST /restart '{"weather": "nice"}' "Unknown filter for the scheduled restart: weather"
  check "a time that is none" refused 400 POST /restart '{"timeout": "soon"}' "timeout must be a positive number of seconds, not \"soon\""
  check "the leader can't be copied anew" refused 503 POST /reinitialize '' "I am the leader, can not reinitialize"
  check "nothing here" refused 501 POST /explode '' "Server does not support this operation (POST /explode)"
  raw 127.0.0.1 "PATCH /config HTTP/1.0\r\nContent-Length: 99999999\r\n\r\n{"
  check "a body that is too large is not read" has "413"
  check "the limit is told" has "bytes"
  raw 127.0.0.1 "PATCH /config HTTP/1.0\r\nContent-Length: 20\r\n\r\n{"
  check "a body that does not come is given up" has "408"
  check "after a time that is told" has "did not arrive within"
  raw 127.0.0.1 "GET /\r\n\r\n"
  check "no HTTP" has "400"
  local address
  for address in $(hostname -I 2>/dev/null); do
    [[ $address == *:* ]] && continue
    edit bad "s/listen: 127.0.0.1:${REST_PORT[bad]}/listen: 0.0.0.0:${REST_PORT[bad]}/"
    ends bad
    node_start bad
    wait_for 60 leader_is bad || need "it leads" false
    raw "$address" "POST /switchover HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}"
    check "from elsewhere nothing can be changed without credentials" has " 403 "
    check "and the ways to allow it are told" has "Configure restapi.authentication (username and password), restapi.verify_client with certfile and cafile, or restapi.allowlist"
    raw "$address" "GET /health HTTP/1.0\r\n\r\n"
    check "to look is allowed" has " 200 "
    break
  done
  after=$(http GET "${REST_PORT[bad]}" /config && echo "$HTTP_BODY")
  check "none of this changed anything" test "$before" = "$after"
  check "it leads as before" leader_is bad
}

# ---- spiloctl -----------------------------------------------------------------------------------

ctl() { said "$1" "$BIN/spiloctl" -c "$WORK/bad.yml" "${@:2}"; }

commands() {
  check "an unknown member" ctl 1 restart demo nobody --force
  check "the members are named" has "nobody is not a member of cluster demo. Its members are: bad"
  check "a candidate that is none" ctl 1 switchover --force --candidate nobody
  check "is told why" has "No candidates found to switchover to. Every other member is missing or tagged nofailover."
  check "a leader that is none" ctl 1 switchover --force --leader nobody
  check "is told who leads" has "Member nobody is not the leader of cluster demo: bad is."
  check "a cluster that is none" ctl 1 switchover other --force
  check "is told what to look at" has "The store has nothing of that name. The first word is the cluster, members come after it: is the name right?"
  check "a configuration that can't work" ctl 1 edit-config --force -s ttl=1 -s postgresql.paramters.x=1
  check "all of it at once: the ttl" has "ttl: must be at least 3 seconds"
  check "and the typing error" has "did you mean"
  check "a verb that is none" ctl 2 explode
  check "without a file" said 1 env -u HOME "$BIN/spiloctl" list
  check "it says how to give one" has "-c FILE"
}

cluster_create
for SCENARIO in all_at_once as_root directories ports passwords stores rest commands; do
  say "== $SCENARIO (${SECONDS}s)"
  "$SCENARIO"
done
SCENARIO=end
check "no secret is in any log" no_secrets
say "== done after ${SECONDS}s"
exit $failed
