#!/usr/bin/env bash
# tidy.sh SOURCE_DIR: the rules of the house that a compiler can't check, as a test, so that nobody argues about them in review.
set -u
cd "$1" || exit 2
bad=0
# rule "what it says" PATTERN FILE…: no line of these files may match.
rule() {
  local says=$1 pattern=$2
  shift 2
  [ $# -gt 0 ] || return 0
  local hits
  hits=$(grep -nE -- "$pattern" "$@" /dev/null)
  [ -z "$hits" ] && return 0
  printf '%s\n%s\n\n' "$says:" "$hits"
  bad=1
}
mapfile -t pure < <(find libspilo -path '*/core/*.?pp' -o -path '*/model/*.?pp' -o -path '*/ha/*.?pp')
mapfile -t ports < <(find libspilo -path '*/ports/*.hpp')
mapfile -t runtime < <(find libspilo -path '*/runtime/*.?pp')
mapfile -t products < <(find libspilo backends cli examples -name '*.?pp' -not -path '*/testing/*')
mapfile -t public < <(find libspilo/include backends/*/include -name '*.hpp')
mapfile -t library < <(find libspilo backends -name '*.?pp')
mapfile -t all < <(find libspilo backends cli examples tests -name '*.?pp')

rule "the pure layers touch no Asio, thread, clock, chance, file or environment" \
  'boost/asio|<thread>|<random>|<fstream>|<filesystem>|steady_clock|system_clock|[^_a-z]getenv\(' "${pure[@]}"
rule "ports include nothing of Asio but awaitable, any_io_executor and any_completion_handler" \
  'include <boost/asio/(awaitable_|[b-z]|any_[a-bd-h])' "${ports[@]}"
rule "runtime names no adapter, no hands, no REST, no network" \
  'include "spilo/(etcd|sqlite|zookeeper|consul|pg|rest|net|config|testing)/' "${runtime[@]}"
rule "the library includes no adapter" 'include "spilo/(etcd|sqlite|zookeeper|consul)/' \
  $(find libspilo -name '*.?pp')
rule "no product includes the test doubles" 'include "spilo/testing/' \
  $(printf '%s\n' "${products[@]}" | grep -v '^examples/')
rule "no public header shows Beast, Boost.JSON, libpq, SQLite, yaml-cpp, OpenSSL or ZooKeeper" \
  'include <(boost/(beast|json)|libpq|sqlite3|yaml-cpp|openssl|zookeeper)' "${public[@]}"
rule "coroutines are not spawned detached: their exceptions would vanish" 'asio::detached|[( ,]detached\)' "${products[@]}"
rule "no product sleeps" 'sleep_for|this_thread|[^_a-z]u?sleep\(' "${products[@]}"
rule "no aggregate temporary beside co_await (g++ 12 destroys it twice)" \
  'co_await [^;]*(\(|, )\{|co_await [^;]*[(, ][A-Z][A-Za-z]*\{\.' "${library[@]}"
rule "no conditional expression beside co_await (g++ 12 destroys its class temporaries twice)" \
  'co_await [^;]* \? [^;]* : ' "${library[@]}"
rule "no line is longer than 150 columns" '^.{151}' "${library[@]}"
rule "nothing is left for later" '\b(TODO|FIXME|XXX)\b' "${all[@]}"

beast=$(grep -lE 'include <boost/beast' "${all[@]}")
expected=$(printf '%s\n' "$beast" | grep -cvE '^(libspilo/src/(net|rest)/)')
if [ -n "$beast" ] && [ "$expected" -ne 0 ]; then
  printf 'Beast is included outside of net/ and rest/:\n%s\n\n' "$beast"
  bad=1
fi
[ "$bad" = 0 ] && echo "tidy: ${#all[@]} files keep the rules of the house"
exit "$bad"
