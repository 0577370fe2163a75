#!/bin/sh
# tests/grade/class.sh FOLDER: builds and grades each submission, that is, each subfolder of FOLDER with a Makefile, and
# prints a table of their points. What `make` said, and the report for its author, are kept beside it, as
# FOLDER/NAME.build and FOLDER/NAME.grade.
#
# `make` runs whatever a Makefile says. So it runs without a network, for BUILD_SECONDS=120 at most, and if this is run
# as root, as the user BUILD_USER=nobody, in a copy that is thrown away. It can read what that user can: so use a
# machine, or a container, that has nothing to lose. PROGRAM=peer is the name of what it must build.
set -u
[ $# -eq 1 ] && [ -d "$1" ] || { echo "usage: tests/grade/class.sh FOLDER" >&2; exit 2; }
cd "$(dirname "$0")/../.." || exit 2
here=$PWD
class=$(cd "$OLDPWD" && realpath "$1")
make .build/grade >&2 || exit 2
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 1' INT TERM
chmod 755 "$scratch"

unprivileged() {
  if [ "$(id -u)" -eq 0 ]; then
    setpriv --reuid "${BUILD_USER:-nobody}" --clear-groups --no-new-privs "$@"
  else
    "$@"
  fi
}

build() { # FOLDER: what `make` makes there, with nothing of ours in its environment
  if unprivileged unshare -rn true 2>/dev/null; then network="unshare -rn"; else network=; fi
  (cd "$1" && unprivileged timeout -k 5 "${BUILD_SECONDS:-120}" $network \
    env -i PATH="$PATH" HOME="$1" LANG=C.UTF-8 make </dev/null 2>&1) | head -c 1000000
}

printf '%-24s %6s %6s %6s %6s %6s %6s %6s %6s %6s %6s %7s\n' peer R1 R2 R3 R4 R5 R6 R7 R8 R9 R10 total
for submission in "$class"/*/; do
  name=$(basename "$submission")
  [ -e "$submission/Makefile" ] || continue
  cp -a "$submission" "$scratch/$name"
  if [ "$(id -u)" -eq 0 ]; then chown -R "${BUILD_USER:-nobody}" "$scratch/$name"; fi
  build "$scratch/$name" >"$class/$name.build"
  program=$scratch/$name/${PROGRAM:-peer}
  if [ -f "$program" ] && [ -x "$program" ]; then
    chmod -R a+rX "$scratch/$name"
    PEER=$program POINTS="$scratch/points" "$here/.build/grade" >"$class/$name.grade" 2>&1
    read -r _ points <"$scratch/points"
    printf '%-24s' "$name"
    printf ' %6s %6s %6s %6s %6s %6s %6s %6s %6s %6s %7s\n' $points
  else
    printf '%-24s %s\n' "$name" "does not build: see $name.build"
  fi
  rm -rf "${scratch:?}/$name" "$scratch/points"
done
