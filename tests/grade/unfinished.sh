#!/bin/sh
# Checks that no case of a milestone needs anything from a later one. From tests/second, it makes programs that stop at
# milestones 1, 2, 3 and 4 (unfinished.txt says what to take out); the starter is milestone 0. Each must pass every case
# of its milestone and of earlier ones. MILESTONE=2 grades that one only.
set -eu
cd "${0%/*}/../.."
room=$PWD/.build/unfinished

# The second implementation, without what milestones after $1 bring, as $room/$1.
make_without() {
  cp tests/second/second.cpp "$room/$1.cpp"
  grep -v '^#' tests/grade/unfinished.txt | while IFS= read -r line; do
    brings=$(printf '%s' "$line" | cut -f 1) what=$(printf '%s' "$line" | cut -f 2)
    [ "$brings" -gt "$1" ] || continue
    OLD=$(printf '%s' "$line" | cut -f 3) NEW=$(printf '%s' "$line" | cut -f 4)
    export OLD NEW
    perl -0777 -pi tests/grade/change.pl "$room/$1.cpp" ||
      { echo "unfinished.txt: \"$what\" does not fit" >&2; exit 1; }
  done
  ${CXX:-g++} -std=c++17 -pthread -O0 -w "$room/$1.cpp" -o "$room/$1"
}

judge() {
  if [ "$1" -eq 0 ]; then
    cp -r docs/starter "$room/starter"
    make -s -C "$room/starter" peer
    cp "$room/starter/peer" "$room/0"
  else
    make_without "$1"
  fi
  report=$room/$1.report
  if PEER=$room/$1 MILESTONE=$1 .build/grade >"$report" 2>&1; then
    echo "reached   milestone $1 $(grep -oE ' [0-9]+ s, ' "$report" || true)"
  else
    echo "MISSED    milestone $1: $(grep -oE '^R[0-9]+\.[A-Za-z0-9]+|alike .*' "$report" | tr '\n' ' ')"
  fi
}

if [ $# -eq 1 ]; then
  judge "$1"
  exit
fi
rm -rf "$room"
mkdir -p "$room"
for number in ${MILESTONE:-0 1 2 3 4}; do echo "$number"; done |
  xargs -P "${JOBS:-5}" -I N tests/grade/unfinished.sh N >"$room/results"
sort -k 2 "$room/results"
! grep -qv '^reached' "$room/results"
