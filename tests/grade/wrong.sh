#!/bin/sh
# make wrong: the grader is graded. Each program of wrong.txt, which is tests/second with one thing changed, must fail the
# case that is named there; tests/second itself must pass it. JOBS=6 at a time, for most of a case is waiting.
# WRONG='TEXT' makes those only whose line has TEXT in it.
set -eu
cd "${0%/*}/../.."
room=$PWD/.build/wrong
tab=$(printf '\t')

# One line of the table: what is wrong, the case, the old text, the new one.
judge() {
  number=$1
  IFS=$tab read -r name case old_and_new <<LINE
$(sed -n "${number}p" "$room/list")
LINE
  source=$room/$number.cpp program=$room/$number
  if ! OLD=${old_and_new%%"$tab"*} NEW=${old_and_new#*"$tab"} perl -0777 -pe '
      my ($from, $to) = @ENV{"OLD", "NEW"};
      my $found = () = /\Q$from\E/g;
      die "$found times\n" if $found != 1;
      s/\Q$from\E/$to/' tests/second/second.cpp >"$source" 2>"$program.log" ||
    ! ${CXX:-g++} -std=c++17 -pthread -O0 "$source" -o "$program" 2>>"$program.log"; then
    echo "BROKEN    $name: its text is not there once, or does not compile: $program.log"
  elif PEER=$program FILTER=$case LONG=1 SECOND_TRIES=0 .build/grade >"$program.report" 2>&1; then
    echo "SURVIVED  $name: $case"
  else
    echo "caught    $name: $case"
    rm -f "$program"
  fi
}

if [ $# -eq 1 ]; then
  judge "$1"
  exit
fi
rm -rf "$room"
mkdir -p "$room"
grep -v '^#' tests/grade/wrong.txt | grep -F -e "${WRONG-}" >"$room/list"
# shellcheck disable=SC2016 # it is expanded there
cut -f 2 "$room/list" | sort -u | xargs -P "${JOBS:-6}" -I CASE sh -c \
  'PEER=$PWD/.build/second FILTER=CASE LONG=1 .build/grade >/dev/null 2>&1 || echo "SURVIVED  nothing is wrong, and yet it fails CASE"' \
  >"$room/results"
seq "$(wc -l <"$room/list")" | xargs -P "${JOBS:-6}" -I N tests/grade/wrong.sh N >>"$room/results"
sort "$room/results"
echo "$(grep -c '^caught' "$room/results") caught, $(grep -vc '^caught' "$room/results") not"
! grep -qv '^caught' "$room/results"
