#!/bin/sh
# make wrong: grades the grader. Each program of wrong.txt has one change, and must fail the case named there; without
# the change it must pass. JOBS=6 run at a time, because a case mostly waits. WRONG='TEXT' takes only lines with TEXT in
# them.
set -eu
cd "${0%/*}/../.."
room=$PWD/.build/wrong

# With NEW in the place of OLD.
change() { # FROM TO
  perl -0777 -p tests/grade/change.pl "$1" >"$2"
}

make_second() { # NUMBER
  change tests/second/second.cpp "$room/$1.cpp" && ${CXX:-g++} -std=c++17 -pthread -O0 "$room/$1.cpp" -o "$room/$1"
}

# Ours in a tree of its own, with what was built of it already: what depends on the change is built anew.
make_ours() { # NUMBER
  tree=$room/$1.tree
  mkdir -p "$tree/.build"
  git ls-files -z | xargs -0 cp -a --parents -t "$tree"
  cp -a peer "$tree"
  cp -a .build/tests .build/*.[od] .build/ladder .build/smallest .build/grade .build/second .build/run-* "$tree/.build"
  file=$(grep -lF -e "$OLD" protocol.h discovery.cpp transfer.cpp peer.cpp)
  change "$file" "$tree/$file" && make -C "$tree" peer .build/run-tests
}

fails() { # NUMBER CASE: whether somebody notices
  case $2 in
    R[0-9]*) ! PEER=$room/$1 FILTER=$2 LONG=1 SECOND_TRIES=0 .build/grade ;;
    *) ! (cd "$room/$1.tree" && PEER=$PWD/peer KINDS=plain STEPS='' STRICT=1 .build/run-tests --gtest_filter="$2") ;;
  esac
}

# One line of the table: what is wrong, the case, the old text, the new one.
judge() {
  number=$1
  column() { sed -n "${number}p" "$room/list" | cut -f "$1"; }
  name=$(column 1) case=$(column 2) OLD=$(column 3) NEW=$(column 4)
  export OLD NEW
  case $case in R[0-9]*) whose=second ;; *) whose=ours ;; esac
  if ! "make_$whose" "$number" >"$room/$number.log" 2>&1; then
    echo "BROKEN    $name: its text is not there once, or does not compile: $room/$number.log"
  elif fails "$number" "$case" >"$room/$number.report" 2>&1; then
    echo "caught    $name: $case"
    rm -rf "${room:?}/$number" "$room/$number.tree"
  else
    echo "SURVIVED  $name: $case"
  fi
}

if [ $# -eq 1 ]; then
  judge "$1"
  exit
fi
rm -rf "$room"
mkdir -p "$room"
grep -v '^#' tests/grade/wrong.txt | grep -F -e "${WRONG-}" >"$room/list"
cut -f 2 "$room/list" | grep '^R[0-9]' | sort -u | xargs -P "${JOBS:-6}" -I CASE sh -c \
  'PEER=$PWD/.build/second FILTER=CASE LONG=1 .build/grade >/dev/null 2>&1 || echo "SURVIVED  nothing is wrong, and yet it fails CASE"' \
  >"$room/results"
tests=$(cut -f 2 "$room/list" | grep -v '^R[0-9]' | sort -u | paste -sd :)
if [ -n "$tests" ] && ! STRICT=1 .build/run-tests --gtest_filter="$tests" >"$room/tests.log" 2>&1; then
  echo "SURVIVED  nothing is wrong, and yet it fails a test: $room/tests.log" >>"$room/results"
fi
seq "$(wc -l <"$room/list")" | xargs -P "${JOBS:-6}" -I N tests/grade/wrong.sh N >>"$room/results"
sort "$room/results"
echo "$(grep -c '^caught' "$room/results") caught, $(grep -vc '^caught' "$room/results") not"
! grep -qv '^caught' "$room/results"
