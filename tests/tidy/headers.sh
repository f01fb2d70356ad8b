#!/usr/bin/env bash
# headers.sh SOURCE_DIR CXX: every public header compiles alone.
set -eu
cd "$1"
cxx=$2
includes=(-Ilibspilo/include)
for dir in backends/*/include; do includes+=("-I$dir"); done
export cxx
flags="-std=c++20 -fsyntax-only -x c++ ${includes[*]}"
find libspilo/include backends/*/include -name '*.hpp' | sort |
  xargs -P "$(nproc)" -I{} sh -c "$cxx $flags {} -Wno-pragma-once-outside-header || { echo 'does not compile alone: {}'; exit 255; }"
echo "headers: all compile alone"
