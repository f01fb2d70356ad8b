#!/usr/bin/env bash
# Installs what the tests need, builds everything and passes all tests: from a fresh Debian 12 and a clean clone, as root or as a user with
# sudo. `tests/run.sh --quick` leaves the sanitizer builds out; `--only REGEX` runs the tests of that name in the default build.
set -euo pipefail
cd "$(dirname "$0")/.."
source tests/support/install.sh

quick=0
only=""
while [ $# -gt 0 ]; do
  case "$1" in
    --quick) quick=1 ;;
    --only) only="$2"; quick=1; shift ;;
    -h|--help) sed -n '2,3p' "$0"; exit 0 ;;
    *) echo "tests/run.sh: unknown argument '$1'; see --help" >&2; exit 2 ;;
  esac
  shift
done

stage() { printf '\n== %s (%dm%02ds)\n' "$1" $((SECONDS / 60)) $((SECONDS % 60)); }

stage "packages"
install_packages "${build_packages[@]}" "${test_packages[@]}"
install_consul

# PostgreSQL refuses to run as root, so root's tests drop to the user postgres, who must be able to reach the programs.
if [ "$(id -u)" = 0 ] && ! setpriv --reuid=postgres --regid=postgres --clear-groups test -r "$PWD/CMakeLists.txt"; then
  copy=$(mktemp -d /var/tmp/spilo-tests.XXXXXX)
  chmod 755 "$copy"
  trap 'rm -rf "$copy"' EXIT
  echo "the user postgres can't reach $PWD: building and testing in $copy"
  cp -a . "$copy/spilo"
  rm -rf "$copy"/spilo/build*
  chmod 755 "$copy/spilo"
  arguments=()
  [ "$quick" = 0 ] || arguments+=(--quick)
  [ -z "$only" ] || arguments=(--only "$only")
  "$copy/spilo/tests/run.sh" "${arguments[@]}"
  mkdir -p build && cp -a "$copy/spilo/build/bin" build/
  exit
fi

jobs=$(nproc)
[ "$jobs" -le 4 ] || jobs=4
build() { # build PRESET [TARGET…]
  local preset=$1
  shift
  cmake --preset "$preset" -DSPILO_BUILD_TESTS=ON >"build-$preset.log" 2>&1 || { cat "build-$preset.log"; return 1; }
  rm -f "build-$preset.log"
  cmake --build --preset "$preset" -j "$jobs" ${1:+--target "$@"} 2>&1 | { grep -vE '^\[[0-9]+/[0-9]+\] (Building|Linking)' || true; }
}

stage "build: what users run (g++, optimised)"
build default

# Most tests wait for servers, so there are more of them at a time than processors (see tests/CMakeLists.txt); what they leave of the
# processors builds for the sanitizers, at the lowest priority.
if [ "$quick" = 0 ]; then
  set -m  # a process group of its own, which ends with us
  { renice -n 19 -p "$BASHPID" >/dev/null; build asan sanitized_tests && build tsan threaded_tests; } >build/sanitizers.log 2>&1 &
  sanitizers=$!
  set +m
  trap 'kill -- -"$sanitizers" 2>/dev/null || true' EXIT
fi

stage "tests: everything, with real servers"
ctest --preset default --no-tests=error -j $((jobs + 1)) ${only:+-R "$only"}

# What became of the stores in trouble, as this run saw it; a part of a run has no say in it.
[ -n "$only" ] || { tests/integration/report.sh build/integration-results >build/scenarios.md && cp build/scenarios.md tests/integration/README.md; }

if [ "$quick" = 0 ]; then
  stage "build: clang with AddressSanitizer and UBSan, and with ThreadSanitizer"
  renice -n 0 -g "$sanitizers" >/dev/null 2>&1 || true  # only root may; the rest of the build goes on in any case
  wait "$sanitizers" || { cat build/sanitizers.log; exit 1; }
  trap - EXIT
  # Everything that needs no server, once more.
  stage "tests: AddressSanitizer and UBSan"
  ctest --preset asan --no-tests=error -j "$jobs" -L sanitized
  # The supervisor claims one thread: nobody else may touch it.
  stage "tests: ThreadSanitizer, the supervisor and its simulator"
  ctest --preset tsan --no-tests=error -j "$jobs" -L threaded
fi
stage "all passed"
