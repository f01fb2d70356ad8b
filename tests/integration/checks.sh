# Sourced by scenario.sh and bad_input.sh after cluster.sh: what is checked is told, and logs are shown when something failed.
# SCENARIO names what is going on.
failed=0
failures=()
check() { # check TEXT COMMAND…
  local text=$1
  shift
  if "$@"; then
    say "ok: $text"
  else
    say "FAILED: $SCENARIO: $text ($*)"
    failures+=("$SCENARIO: $text")
    failed=1
  fi
}
need() { # a check without which the rest makes no sense
  local before=${#failures[@]}
  check "$@"
  [ "${#failures[@]}" = "$before" ] || exit 1
}
finish() {
  local status=$?
  [ $failed = 0 ] || status=1
  if [ $status != 0 ] || [ -n "${SHOW_LOGS:-}" ]; then
    local node
    for node in "${NODES[@]}"; do
      printf -- '---- log of %s ----\n' "$node"
      tail -n "${LOG_LINES:-80}" "$WORK/$node.log"
      printf -- '---- PostgreSQL of %s ----\n' "$node"
      tail -n 15 "$WORK/$node/data.log" "$WORK/$node/data.guard.log" 2>/dev/null
    done
    printf -- '---- FAILED: %s\n' "${failures[@]}"
  fi
  [ -z "$WORK" ] || cluster_destroy
  ! declare -F proxies_end >/dev/null || proxies_end
  ! declare -F network_down >/dev/null || network_down
  exit $status
}
trap finish EXIT
trap 'exit 1' INT TERM

no_secrets() { ! grep -l seKret "$WORK"/*.log "$WORK"/*/data.log 2>/dev/null; }
