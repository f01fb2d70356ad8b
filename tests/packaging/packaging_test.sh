#!/usr/bin/env bash
# packaging_test.sh BUILD_DIR CXX: installs the build to a temporary prefix and builds and runs a consumer with find_package and with pkg-config.
set -euo pipefail
build=$1
cxx=$2
here=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d /tmp/spilo-packaging.XXXXXX)
trap 'rm -rf "$dir"' EXIT

cmake --install "$build" --prefix "$dir/prefix" >"$dir/install.log" || { cat "$dir/install.log"; exit 1; }

cmake -S "$here/consumer" -B "$dir/find_package" -DCMAKE_CXX_COMPILER="$cxx" -DCMAKE_PREFIX_PATH="$dir/prefix" >"$dir/configure.log" ||
  { cat "$dir/configure.log"; exit 1; }
cmake --build "$dir/find_package" >"$dir/build.log" || { cat "$dir/build.log"; exit 1; }
"$dir/find_package/consumer" | grep -x 'n1 leads with a token'
echo "find_package: built and run"

pc=$(dirname "$(find "$dir/prefix" -name spilo.pc)")
# shellcheck disable=SC2046
PKG_CONFIG_PATH=$pc "$cxx" -std=c++20 -O0 "$here/consumer/main.cpp" -o "$dir/consumer" \
  $(PKG_CONFIG_PATH=$pc pkg-config --define-prefix --cflags --libs spilo)
"$dir/consumer" | grep -x 'n1 leads with a token'
echo "pkg-config: built and run"
