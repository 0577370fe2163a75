#!/bin/sh
# tests/grade/class.sh [--pairs] FOLDER: builds and grades each submission, that is, each subfolder of FOLDER with a
# Makefile, and prints a table of their points. Beside the subfolder NAME it leaves NAME.build, the output of `make`;
# NAME.grade, the report for its author; and NAME.pictures, a drawing of each failed case.
#
# With --pairs, all submissions meet each other on a virtual network. A second table says whether the row's program
# found the column's, and got a message and a file to it: "ok", or what did not work. For each pair that failed,
# FOLDER/pairs has a capture for Wireshark, ONE-OTHER.pcap.
#
# `make` runs whatever a Makefile says. So it runs without a network, for BUILD_SECONDS=120 at most, and, if you are
# root, as the user BUILD_USER=nobody, in a temporary copy. If the system does not allow taking the network away, a line
# says so. A submission can read whatever that user can: use a machine, or a container, that has nothing to lose.
# PROGRAM=peer is the program that it must build. JOBS=4 pairs meet at a time. GRADER=file is a grader that is already
# built.
set -u
pairs=
if [ "${1-}" = --pairs ]; then
  pairs=yes
  shift
fi
if [ $# -ne 1 ] || [ ! -d "$1" ]; then
  echo "usage: tests/grade/class.sh [--pairs] FOLDER" >&2
  exit 2
fi
class=$(realpath "$1")
cd "$(dirname "$0")/../.." || exit 2
here=$PWD
grade=${GRADER:-$here/.build/grade}
[ -n "${GRADER-}" ] || make -j"$(nproc)" .build/grade >&2 || exit 2
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 1' INT TERM
chmod 755 "$scratch"

is_root=
if [ "$(id -u)" -eq 0 ] && setpriv --reuid "${BUILD_USER:-nobody}" --clear-groups true 2>/dev/null; then is_root=yes; fi
alone="unshare -rn"
[ -z "$is_root" ] || alone="unshare -n"
if ! $alone true 2>/dev/null; then
  alone=
  echo "class.sh: this system takes no network away (unshare is refused), so what make starts can reach it" >&2
fi

build() { # FOLDER: what `make` says there, with nothing of ours in its environment
  folder=$1
  set -- timeout -k 5 "${BUILD_SECONDS:-120}" env -i PATH="$PATH" HOME="$folder" LANG=C.UTF-8 make
  [ -z "$is_root" ] || set -- setpriv --reuid "${BUILD_USER:-nobody}" --clear-groups --no-new-privs "$@"
  # shellcheck disable=SC2086 # two words, or none
  (cd "$folder" && $alone "$@" </dev/null 2>&1) | head -c 1000000
}

printf '%-24s %6s %6s %6s %6s %6s %6s %6s %6s %6s %6s %7s\n' peer R1 R2 R3 R4 R5 R6 R7 R8 R9 R10 total
for submission in "$class"/*/; do
  name=$(basename "$submission")
  [ -e "$submission/Makefile" ] || continue
  cp -a "$submission" "$scratch/$name"
  if [ -n "$is_root" ]; then chown -R "${BUILD_USER:-nobody}" "$scratch/$name"; fi
  [ -n "$alone" ] || echo "class.sh: built with a network, which this system does not take away" >"$class/$name.build"
  [ -z "$alone" ] || : >"$class/$name.build"
  build "$scratch/$name" >>"$class/$name.build"
  program=$scratch/$name/${PROGRAM:-peer}
  if [ -f "$program" ] && [ -x "$program" ]; then
    chmod -R a+rX "$scratch/$name"
    rm -rf "$class/$name.pictures"
    PEER=$program POINTS="$scratch/points" REPORTS="$class/$name.pictures" "$grade" \
      >"$class/$name.grade" 2>&1
    echo "$name" >>"$scratch/built"
    if [ ! -s "$scratch/points" ]; then
      printf '%-24s %s\n' "$name" "cannot be graded here: see $name.grade"
      continue
    fi
    points=$(awk '{ for (i = NF - 10; i <= NF; ++i) print $i }' "$scratch/points")  # behind the program
    printf '%-24s' "$name"
    # shellcheck disable=SC2086 # a word for each column
    printf ' %6s %6s %6s %6s %6s %6s %6s %6s %6s %6s %7s\n' $points
  else
    printf '%-24s %s\n' "$name" "does not build: see $name.build"
  fi
  rm -f "$scratch/points"
done
[ -n "$pairs" ] || exit 0
[ -e "$scratch/built" ] || exit 0

# ---- Each meets each other one: a line "ONE OTHER RESULT" for each direction. Names may have blanks, but no TABs.

mkdir -p "$class/pairs"
meet() { # NUMBER: the pair of this line
  IFS="$tab" read -r one other <<PAIR
$(sed -n "$1p" "$scratch/pairs")
PAIR
  read -r there back <<RESULT
$("$grade" --pair "$scratch/$one/${PROGRAM:-peer}" "$scratch/$other/${PROGRAM:-peer}" "$class/pairs/$one-$other.pcap" 2>/dev/null)
RESULT
  printf '%s\t%s\t%s\n' "$one" "$other" "${there:-nothing}"
  printf '%s\t%s\t%s\n' "$other" "$one" "${back:-nothing}"
}
tab=$(printf '\t')
awk -v OFS='\t' '{ for (i = 1; i < NR; ++i) print earlier[i], $0; earlier[NR] = $0 }' "$scratch/built" >"$scratch/pairs"
total=$(wc -l <"$scratch/pairs")
number=0
while [ "$number" -lt "$total" ]; do
  for _ in $(seq "${JOBS:-4}"); do
    number=$((number + 1))
    [ "$number" -gt "$total" ] || meet "$number" >"$scratch/result.$number" &
  done
  wait
done
cat "$scratch"/result.* >"$scratch/results" 2>/dev/null
echo
awk -F '\t' '
  NR == FNR { names[++count] = $0; next }
  { result[$1, $2] = $3 }
  END {
    printf "%-24s", "from, to"
    for (i = 1; i <= count; ++i) printf " %-20s", substr(names[i], 1, 20)
    print ""
    for (i = 1; i <= count; ++i) {
      printf "%-24s", substr(names[i], 1, 24)
      for (k = 1; k <= count; ++k) printf " %-20s", i == k ? "-" : result[names[i], names[k]]
      print ""
    }
  }' "$scratch/built" "$scratch/results"
rmdir "$class/pairs" 2>/dev/null || true
