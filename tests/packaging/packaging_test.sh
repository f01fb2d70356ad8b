#!/usr/bin/env bash
# packaging_test.sh STEP SOURCE_DIR BUILD_DIR CXX: one way in which people use the library. `install` comes first: it fills the prefix
# that the others are built against.
set -euo pipefail
step=$1 source=$2 build=$3 cxx=$4
here=$source/tests/packaging
work=$build/packaging
prefix=$work/prefix

die() { echo "packaging: $*" >&2; exit 1; }
quiet() { # quiet COMMAND…: its output only when it fails
  "$@" >"$work/$step.log" 2>&1 || { cat "$work/$step.log"; return 1; }
}
# The library itself is not compiled again: see reuse_objects.sh.
reuse() {
  mkdir -p "$work"
  "$here/reuse_objects.sh" --table "$build" "$cxx" >"$work/$step.table"
  launcher="-DCMAKE_CXX_COMPILER_LAUNCHER=$here/reuse_objects.sh;$work/$step.table"
}
configure() { # configure SOURCE FOLDER [OPTION…]
  local from=$1 to=$2
  shift 2
  rm -rf "${work:?}/$to"
  quiet cmake -G Ninja -S "$from" -B "$work/$to" -DCMAKE_CXX_COMPILER="$cxx" "$@"
}
check_consumer() { # check_consumer PROGRAM GUARD: runs it, and looks at every line that it prints
  local said
  rm -f "$work"/consumer.db*
  said=$("$1" "$work/consumer.db") || die "$1 failed: $said"
  printf '%s\n' "$said"
  diff <(printf '%s\n' "$said") <(printf '%s\n' 'n1 leads with a token' 'sqlite: wrote and read' 'a node named n1' "guard: $2") ||
    die "$1 did not say what it should"
}

install() {
  rm -rf "$work"
  mkdir -p "$work"
  quiet cmake --install "$build" --prefix "$work/installed"
  # A tree that is moved goes on working: all that follows uses the moved one.
  mv "$work/installed" "$prefix"
  # Every public header is there, no other one, and what they include of ours is there too.
  diff <(cd "$source" && find libspilo/include backends/*/include -name '*.hpp' | sed 's,.*/include/,,' | sort) \
    <(cd "$prefix/include" && find . -name '*.hpp' | sed 's,^\./,,' | sort) || die "the installed headers are not the public ones"
  local header
  while read -r header; do
    [ -e "$prefix/include/$header" ] || die "an installed header includes $header, which is not installed"
  done < <(grep -rhoE '#include "[^"]+"' "$prefix/include" | sed 's/.*"\(.*\)"/\1/' | sort -u)
  # The guard needs nothing of the machine.
  local guard=$prefix/libexec/spilo/spilo-guard
  [ -x "$guard" ] || die "no guard program at $guard"
  ! readelf -l "$guard" | grep -q INTERP || die "the guard program needs a dynamic loader"
  "$prefix/bin/spiloctl" --help >"$work/help.txt" || die "the installed spiloctl does not run"
  "$prefix/bin/spilod" --version | grep -q '^spilod [0-9]' || die "the installed spilod does not run"
  # Nothing that was installed knows where it was built.
  ! grep -rlF -e "$build" -e "$source" "$prefix/lib" --include='*.cmake' --include='*.pc' || die "the package names the build tree"
  echo "installed: $(find "$prefix/include" -name '*.hpp' | wc -l) headers, $(find "$prefix" -name 'libspilo_*' | wc -l) libraries"
}

components() {
  configure "$here/components" components -DCMAKE_PREFIX_PATH="$prefix"
  grep 'components: all as promised' "$work/components.log"
}

find_package() {
  configure "$here/consumer" find_package -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_INSTALL_PREFIX="$prefix"
  quiet cmake --build "$work/find_package" -j2
  # A program that is installed beside the library finds the guard; one that lies elsewhere is told by the environment.
  quiet cmake --install "$work/find_package"
  check_consumer "$prefix/bin/consumer" "$prefix/bin/../libexec/spilo/spilo-guard"
  SPILO_GUARD_PATH="$prefix/libexec/spilo/spilo-guard" check_consumer "$work/find_package/consumer" "$prefix/libexec/spilo/spilo-guard"
}

pkg_config() {
  local pc
  pc=$(dirname "$(find "$prefix" -name spilo.pc)")
  export PKG_CONFIG_PATH=$pc
  # shellcheck disable=SC2046
  quiet "$cxx" -std=c++20 -O0 "$here/consumer/main.cpp" -o "$work/pkg_config" $(pkg-config --cflags --libs spilo)
  local guard
  guard=$(realpath "$(pkg-config --variable=guard_program spilo)")
  SPILO_GUARD_PATH=$guard check_consumer "$work/pkg_config" "$(realpath "$prefix")/libexec/spilo/spilo-guard"
}

third_party_store() {
  configure "$here/third_party_store" third_party_store -DCMAKE_PREFIX_PATH="$prefix"
  quiet cmake --build "$work/third_party_store" -j2
  local program=$work/third_party_store/third_party_store counters=$work/counters jobs=()
  rm -rf "$counters" "$work/counts.txt"
  "$program" mutants >"$work/mutants.txt" 2>&1 &
  local mutants=$!
  "$program" suite || die "the example store does not pass the suite"
  wait "$mutants" || { cat "$work/mutants.txt"; die "the suite does not find every mistake"; }
  cat "$work/mutants.txt"
  # Several processes on one store: no count is lost.
  mkdir -p "$counters"
  for _ in 1 2 3 4; do
    "$program" count "$counters" 50 >>"$work/counts.txt" &
    jobs+=($!)
  done
  for job in "${jobs[@]}"; do wait "$job" || die "counting failed"; done
  sort -n "$work/counts.txt" | tail -1 | grep -qx 200 || die "four processes counted to 50 each, and together to $(cat "$work/counts.txt")"
  echo "four processes counted to 200"
}

add_subdirectory() {
  reuse
  configure "$here/subdirectory" add_subdirectory "$launcher" -DSPILO_SOURCE_DIR="$source" -DSPILO_WERROR=ON \
    -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_FLAGS_RELEASE='-O2 -DNDEBUG'
  quiet cmake --build "$work/add_subdirectory" -j2
  "$work/add_subdirectory/consumer" | grep '^observing: looking at PostgreSQL$'
}

shared() {
  reuse
  configure "$source" shared-build "$launcher" -DBUILD_SHARED_LIBS=ON -DSPILO_BUILD_TESTS=OFF -DSPILO_BUILD_PROGRAMS=OFF \
    -DSPILO_WERROR=ON -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_FLAGS_RELEASE='-O2 -DNDEBUG' -DCMAKE_SHARED_LINKER_FLAGS=-Wl,-z,defs
  quiet cmake --build "$work/shared-build" -j2
  local tree=$work/shared
  rm -rf "$tree"
  quiet cmake --install "$work/shared-build" --prefix "$tree"
  [ -n "$(find "$tree" -name 'libspilo_node.so.0')" ] || die "there is no libspilo_node.so.0"
  configure "$here/consumer" shared-consumer -DCMAKE_PREFIX_PATH="$tree"
  quiet cmake --build "$work/shared-consumer" -j2
  # The library knows where it was loaded from, so a program anywhere finds the guard.
  env -u LD_LIBRARY_PATH -u SPILO_GUARD_PATH "$work/shared-consumer/consumer" "$work/shared.db" | tee "$work/shared.txt"
  local guard
  guard=$(sed -n 's/^guard: //p' "$work/shared.txt")
  [ "$(realpath "$guard")" = "$(realpath "$tree")/libexec/spilo/spilo-guard" ] || die "the guard was not found beside the library: $guard"
  grep -qx 'sqlite: wrote and read' "$work/shared.txt" && grep -qx 'a node named n1' "$work/shared.txt" || die "the consumer did not work"
}

"$step"
