#!/bin/sh
# make coverage: how many lines of each source file the tests have run, and which they have not. gcc counts them, and
# gcov, which comes with gcc, adds them up. Exits 1 if less than 95 % of a file's lines ran. $1: the folder of the build
# that ran the tests.
set -eu
folder=$1
for source in peer discovery transfer tests/unit/protocol tests/unit/console; do set -- "$@" "$folder/$source.gcda"; done
shift
gcov --relative-only "$@" >"$folder/gcov.log"
mkdir -p "$folder/lines"
mv ./*.gcov "$folder/lines"
# A line of a .gcov file is COUNT:NUMBER:TEXT; "#####", or "=====" on the way of an exception only, was never run. An
# inline function stands there once for each object that it is in.
status=0
for source in protocol.h discovery.cpp transfer.cpp peer.cpp; do
  awk -F: -v file="$source" '
    $1 ~ /[0-9#=]/ && $2 > 0 {
      number = $2 + 0
      known[number] = 1
      ran[number] += $1 !~ /[#=]/
      text[number] = substr($0, length($1 $2) + 3)
    }
    END {
      for (number in known) { all++; hit += ran[number] > 0 }
      for (i = 1; i < 10000; i++) if (i in known && !ran[i]) print file ":" i ":" text[i]
      printf "%s: %d of %d lines, %.1f %%\n", file, hit, all, 100 * hit / all
      exit hit < 0.95 * all
    }' "$folder/lines/$source.gcov" || status=1
done
exit "$status"
