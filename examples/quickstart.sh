#!/usr/bin/env bash
# Shows what libspilo does, from a fresh Debian 12 and a clean clone, as root or as a user with sudo:
# installs what is missing, builds, starts three PostgreSQL nodes, keeps a client writing, switches
# over, kills a primary, kills another primary's agent, and tells what the client noticed.
#
#   examples/quickstart.sh [--store NAME] [--keep] [--build DIRECTORY]
#
# A store is a file in examples/stores; sqlite (the default) is the embedded one: nothing else to run.
# --keep leaves the cluster up and prints how to connect. --build uses programs that are already
# built (DIRECTORY/bin).
set -euo pipefail
cd "$(dirname "$0")/.."

STORE=sqlite keep= build=
while [ $# -gt 0 ]; do
  case "$1" in
    --store) STORE=${2:-}; shift ;;
    --keep) keep=1 ;;
    --build) build=${2:-}; shift ;;
    -h|--help) sed -n '2,10p' "$0" | cut -c3-; exit 0 ;;
    *) echo "quickstart.sh: unknown argument '$1'; see --help" >&2; exit 2 ;;
  esac
  shift
done
stores=$(cd examples/stores && echo *.sh)
[ -f "examples/stores/$STORE.sh" ] ||
  { echo "quickstart.sh: there is no store '$STORE', only: ${stores//.sh/}" >&2; exit 2; }

title() { printf '\n== %s\n' "$*"; }

title "packages"
source tests/support/install.sh
source "examples/stores/$STORE.sh"
install_packages "${build_packages[@]}" "${store_packages[@]}"
! declare -F store_install >/dev/null || store_install
echo "all there"

if [ -z "$build" ]; then
  build=$PWD/build
  title "build (some minutes the first time)"
  cmake --preset default >/tmp/spilo-quickstart.$$ 2>&1 &&
    cmake --build --preset default --target spilod spiloctl spilo_writer >>/tmp/spilo-quickstart.$$ 2>&1 ||
    { tail -40 /tmp/spilo-quickstart.$$ >&2; rm -f /tmp/spilo-quickstart.$$; exit 1; }
  rm -f /tmp/spilo-quickstart.$$
  echo "built into $build/bin"
fi

source examples/cluster.sh
WORK=$(mktemp -d /tmp/spilo-quickstart-XXXXXX)
# The nodes run as another user when this is root, who may not be able to look into our home.
mkdir "$WORK/bin"
chmod 755 "$WORK" "$WORK/bin"
cp "$build"/bin/{spilod,spilo-guard,spiloctl,spilo-writer} "$WORK/bin/"
BIN=$WORK/bin

finish() {
  local status=$?
  trap - EXIT
  if [ $status != 0 ]; then
    echo "quickstart.sh: something went wrong; the end of each log:" >&2
    for node in "${NODES[@]}"; do tail -n 15 "$WORK/$node.log" | sed "s/^/$node: /" >&2; done
  fi
  cluster_destroy || true
  exit $status
}
trap finish EXIT
trap 'exit 130' INT TERM

ctl() { as_user "$BIN/spiloctl" -c "$WORK/n1.yml" "$@"; }

title "three nodes on $store_title"
cluster_create n1 n2 n3
cluster_start
ctl list

title "a client writes, one row after the other, through whichever node is the primary"
writer_start
sleep 2
echo "$(acks) rows are acknowledged so far"

# tell SINCE TITLE MAY_LOSE: what the client noticed.
tell() {
  wait_for 90 replicas_stream || die "not every replica streams after 90 s"
  local before report
  before=$(acks)
  wait_for 30 acks_grow "$before" || die "the client can't write"
  report=$(writer_report "$1" --json || true)
  local gap missing double
  gap=$(sed -E 's/.*"longest_gap_ms": ([0-9]+).*/\1/' <<<"$report")
  missing=$(sed -E 's/.*"missing": ([0-9]+).*/\1/' <<<"$report")
  double=$(sed -E 's/.*"side_by_side": ([0-9]+).*/\1/' <<<"$report")
  printf '%-34s write outage %5s ms, acknowledged rows missing: %s\n' "$2" "$gap" "$missing"
  if [ "$3" = none ] && [ "$missing" != 0 ]; then die "rows are missing where none may be: $report"; fi
  [ "$double" = 0 ] || die "two primaries at the same time: $report"
}

title "switchover"
find_leader
old=$LEADER since=$(now)
ctl switchover --force
wait_for 30 new_leader "$old" || die "nobody else leads"
tell "$since" "switchover from $old to $LEADER:" none

title "the primary's server is killed with kill -9"
find_leader
old=$LEADER since=$(now)
kill -9 "$(postmaster "$old")"
wait_for $((TTL + 30)) new_leader "$old" || die "nobody else leads"
tell "$since" "server of $old killed, $LEADER leads:" some

title "another primary's agent is killed with kill -9, its server still runs"
find_leader
old=$LEADER since=$(now)
node_kill "$old" KILL
wait_for $((TTL + 30)) new_leader "$old" || die "nobody else leads"
echo "its guard: $(tail -n 1 "$WORK/$old/data.guard.log" | sed "s#$WORK/##")"
node_start "$old"
tell "$since" "agent of $old killed, $LEADER leads:" some

cat <<'TEXT'

Replication is asynchronous here, as by default: a server that is killed may take rows with it that it
had not sent yet. A switchover loses none, and at no time did two nodes acknowledge rows.
TEXT

title "the end"
ctl list
if [ -n "$keep" ]; then
  trap - EXIT
  writer_stop
  find_leader
  # The agents stop their servers in order and need the store for it.
  cat >"$WORK/end.sh" <<END
kill ${SPILOD[*]}
for pid in ${SPILOD[*]}; do while kill -0 "\$pid" 2>/dev/null; do sleep 0.1; done; done
${STORE_PID:+kill $STORE_PID}
rm -rf $WORK
END
  cat <<TEXT
The cluster stays up, in $WORK. The primary is $LEADER:
  psql "$(conninfo "$LEADER")"
  $BIN/spiloctl -c $WORK/n1.yml list
  curl http://127.0.0.1:${REST_PORT[$LEADER]}/cluster
To end it and to remove all of it:
  bash $WORK/end.sh
TEXT
fi
