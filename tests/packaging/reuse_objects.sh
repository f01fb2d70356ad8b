#!/usr/bin/env bash
# A compiler launcher that does not compile again what another build of this tree has compiled with the same command.
#   reuse_objects.sh --table BUILD_DIR COMPILER >TABLE   what that build (with Ninja) has: each command and its object
#   reuse_objects.sh TABLE COMPILER ARGUMENT…            copies the object of that command, or compiles
# Only the names of the output may differ. Equal commands on equal sources give equal objects, so nothing is left out of the proof.
set -euo pipefail

# The command without its output: key, object and depfile.
take_apart() {
  key="" object="" depfile=""
  while [ $# -gt 0 ]; do
    case $1 in
      -MT) shift ;;
      -MF) depfile=$2; shift ;;
      -MD) ;;
      -o) object=$2; shift ;;
      *) key+="$1 " ;;
    esac
    shift
  done
}

if [ "$1" = --table ]; then
  build=$2 compiler=$3
  [ -e "$build/build.ninja" ] || exit 0
  ninja -C "$build" -t commands | grep -E -- ' -c [^ ]+\.cpp$' | while IFS= read -r line; do
    eval "set -- $line"
    while [ $# -gt 0 ] && [ "$1" != "$compiler" ]; do shift; done
    take_apart "$@"
    if [ -e "$build/$object" ]; then printf '%s\t%s\n' "$key" "$build/$object"; fi
  done
  exit 0
fi

table=$1
shift
take_apart "$@"
found=$(awk -F '\t' -v key="$key" '$1 == key { print $2; exit }' "$table")
[ -n "$found" ] || exec "$@"
cp "$found" "$object"
printf '%s:\n' "$object" >"$depfile"
