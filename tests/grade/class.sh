#!/usr/bin/env bash
# tests/grade/class.sh [--pairs] FOLDER: builds and grades each submission, that is, each subfolder of FOLDER, and prints
# a table of their points. Beside the subfolder NAME it leaves NAME.build, the output of `make`; NAME.grade, the report
# for its author; and NAME.pictures, a drawing of each failed case.
#
# With --pairs, all submissions meet each other on a virtual network. A second table says whether the row's program
# found the column's, and got a message and a file to it: "ok", or what did not work. For each pair that failed,
# FOLDER/pairs has a capture for Wireshark, ONE-OTHER.pcap.
#
# `make` runs whatever a Makefile says. So it runs without a network, for BUILD_SECONDS=120 at most, and, if you are
# root, as the user BUILD_USER=nobody, in a temporary copy. If the system does not allow taking the network away, a line
# says so. A submission can read whatever that user can: use a machine, or a container, that has nothing to lose.
#
#   PROGRAM=peer         the program that a submission must build
#   SUBMISSIONS=2        so many are graded at a time; by default, one on each core
#   PAIRS=8              so many pairs meet at a time
#   GRADER=file          a grader that is already built; it takes JOBS, LONG, FILTER and SEED as in main.cpp
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
grader=${GRADER:-$PWD/.build/grade}
[ -n "${GRADER-}" ] || make -j"$(nproc)" .build/grade >&2 || exit 2
cores=$(nproc)
scratch=$(mktemp -d)
chmod 755 "$scratch"
mkdir "$scratch/built" "$scratch/points"

# Each job is a process group, so it ends with all that it has started.
set -m
end_jobs() {
  for job in $(jobs -p); do kill -- "-$job" 2>/dev/null; done
  wait
}
trap 'rm -rf "$scratch"' EXIT
trap 'end_jobs; exit 1' INT TERM

# Runs COMMAND for each line of standard input, with that line as its argument; COUNT of them at a time.
at_once() {
  local count=$1 command=$2 line
  while IFS= read -r line; do
    while [ "$(jobs -rp | wc -l)" -ge "$count" ]; do wait -n; done
    "$command" "$line" </dev/null &
  done
  wait
}

# ---- Building -------------------------------------------------------------------------------------------------------

build_seconds=${BUILD_SECONDS:-120}
is_root=
if [ "$(id -u)" -eq 0 ] && setpriv --reuid "${BUILD_USER:-nobody}" --clear-groups true 2>/dev/null; then is_root=yes; fi
alone=(unshare -rn)
[ -z "$is_root" ] || alone=(unshare -n)
if ! "${alone[@]}" true 2>/dev/null; then
  alone=()
  echo "class.sh: this system takes no network away (unshare is refused), so what make starts can reach it" >&2
fi

# What `make` says in that folder, with nothing of ours in its environment.
run_make() {
  local folder=$1
  set -- timeout -k 5 "$build_seconds" env -i PATH="$PATH" HOME="$folder" LANG=C.UTF-8 make
  [ -z "$is_root" ] || set -- setpriv --reuid "${BUILD_USER:-nobody}" --clear-groups --no-new-privs "$@"
  (cd "$folder" && "${alone[@]}" "$@" 2>&1) | { head -c 1000000; cat >/dev/null; }
  return "${PIPESTATUS[0]}"
}

program_of() { echo "$scratch/built/$1/${PROGRAM:-peer}"; }
is_built() { [ -f "$(program_of "$1")" ] && [ -x "$(program_of "$1")" ]; }

build() {
  local name=$1
  local copy=$scratch/built/$name
  rm -f "$class/$name.build" "$class/$name.grade"
  rm -rf "$class/$name.pictures"
  cp -a "$class/$name" "$copy"
  if [ -n "$is_root" ]; then chown -R "${BUILD_USER:-nobody}" "$copy"; fi
  if [ ${#alone[@]} -eq 0 ]; then
    echo "class.sh: built with a network, which this system does not take away" >"$class/$name.build"
  fi
  run_make "$copy" >>"$class/$name.build"
  local status=$?
  if [ $status -eq 124 ]; then
    echo "class.sh: stopped after $build_seconds s; BUILD_SECONDS=600 gives it more" >>"$class/$name.build"
  fi
  # A program that was handed in with sources that do not build is not theirs.
  [ $status -eq 0 ] || rm -f "$(program_of "$name")"
  chmod -R a+rX "$copy"
}

# ---- Grading --------------------------------------------------------------------------------------------------------

submissions_at_once=${SUBMISSIONS:-$cores}

# Each has a core to itself for as long as it is graded: one that floods takes no time from another.
grade_on_core() {
  local core=$1 name
  local on_core=(taskset -c "$core")
  "${on_core[@]}" true 2>/dev/null || on_core=()
  awk -v count="$submissions_at_once" -v core="$core" 'NR % count == core' "$scratch/good" |
    while IFS= read -r name; do
      PEER=$(program_of "$name") POINTS="$scratch/points/$name" REPORTS="$class/$name.pictures" \
        "${on_core[@]}" "$grader" >"$class/$name.grade" 2>&1 </dev/null
      echo "class.sh: graded $name" >&2
    done
}

row() {
  local name=$1
  if ! is_built "$name"; then
    printf '%-24s %s\n' "$name" "does not build: see $name.build"
  elif [ ! -s "$scratch/points/$name" ]; then
    printf '%-24s %s\n' "$name" "cannot be graded here: see $name.grade"
  else
    printf '%-24s' "$name"
    # The line begins with the program, whose path may have blanks.
    awk '{ for (i = NF - 10; i < NF; ++i) printf " %6s", $i; printf " %7s\n", $NF }' "$scratch/points/$name"
  fi
}

: >"$scratch/submissions"
: >"$scratch/good"
for folder in "$class"/*/; do
  case $folder in */\*/ | *.pictures/ | */pairs/) ;; *) basename "$folder" >>"$scratch/submissions" ;; esac
done
at_once "$cores" build <"$scratch/submissions"
while IFS= read -r name; do
  if is_built "$name"; then echo "$name" >>"$scratch/good"; fi
done <"$scratch/submissions"
at_once "$submissions_at_once" grade_on_core < <(seq 0 $((submissions_at_once - 1)))

printf '%-24s %6s %6s %6s %6s %6s %6s %6s %6s %6s %6s %7s\n' peer R1 R2 R3 R4 R5 R6 R7 R8 R9 R10 total
while IFS= read -r name; do row "$name"; done <"$scratch/submissions"
[ -n "$pairs" ] || exit 0
[ -s "$scratch/good" ] || exit 0

# ---- Each meets each other one: a line "ONE OTHER RESULT" for each direction. Names may have blanks, but no TABs. -----

meet() {
  local one=${1%$'\t'*} other=${1#*$'\t'} results there back
  results=$("$grader" --pair "$(program_of "$one")" "$(program_of "$other")" "$class/pairs/$one-$other.pcap" \
    2>/dev/null)
  read -r there back <<<"$results"
  printf '%s\t%s\t%s\n%s\t%s\t%s\n' "$one" "$other" "${there:-nothing}" "$other" "$one" "${back:-nothing}" \
    >>"$scratch/results"
}

mkdir -p "$class/pairs"
rm -f "$class"/pairs/*.pcap
: >"$scratch/results"
awk -v OFS='\t' '{ for (i = 1; i < NR; ++i) print earlier[i], $0; earlier[NR] = $0 }' "$scratch/good" >"$scratch/pairs"
at_once "${PAIRS:-8}" meet <"$scratch/pairs"
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
  }' "$scratch/good" "$scratch/results"
rmdir "$class/pairs" 2>/dev/null || true
