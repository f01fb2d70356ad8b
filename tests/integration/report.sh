#!/usr/bin/env bash
# report.sh DIRECTORY: what became of each scenario with an `outcome`, on each store, as the README beside this script.
set -euo pipefail
shopt -s nullglob
results=("$1"/*.tsv)
cat <<'TEXT'
# Scenarios on real clusters

Each runs three `spilod` nodes with PostgreSQL 15 on a real store, and a client that commits one row after the other on an open
connection; what the client saw decides. `scenario.sh` says how to run one by hand, `scenarios/*.sh` what each does:

- `failures.sh`: what breaks, and what is handed over in order
- `operator.sh`, `nodes.sh`, `patronictl.sh`: operators' requests, nodes that come and go, Patroni's own command
- `store.sh`: the store away within the lease, and for many times of it
- `store_trouble.sh`: a store of three members in trouble, and nodes that are cut off, in network namespaces

## A store in trouble

Written by `tests/run.sh` from its own run (`report.sh`). The write outage is the longest pause between two acknowledged commits, on a
machine that had other work to do; rows missing are acknowledged rows that the primary of the end does not have.

TEXT
if [ ${#results[@]} = 0 ]; then
  echo "No run has left results in $1." >&2
  exit 1
fi
echo '| scenario | store | outcome | longest write outage | rows missing | two primaries |'
echo '|---|---|---|---|---|---|'
cat "${results[@]}" | sort -s -t $'\t' -k1,1 -k2,2 | while IFS=$'\t' read -r scenario store text gap missing double; do
  echo "| \`$scenario\` | $store | $text | $gap ms | $missing | $([ "$double" = 0 ] && echo never || echo "$double times") |"
done
