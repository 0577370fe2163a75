#!/bin/sh
# make handout TO=FOLDER: puts what a class gets into a new folder: the assignment, the two specifications, the lab, a
# starter, the virtual classroom and the grader. Not in it: the reference program, the second implementation, the
# mistakes with their tests, and the lecturer's pages. docs/instructor.md, 1, helps you choose:
#
#   YEAR=2027      with that year's word and ports (tests/yearly.sh), in the whole pack
#   GRADER=built   the grader as a program and not as source; it runs where this one runs
set -eu
to=${1-}
[ -n "$to" ] || { echo "usage: make handout TO=FOLDER [YEAR=2027] [GRADER=built]" >&2; exit 2; }
if [ -e "$to" ]; then echo "handout: $to is there already; name a new folder" >&2; exit 2; fi
case ${GRADER:=source} in source | built) ;; *) echo "handout: GRADER is source or built" >&2; exit 2 ;; esac
mkdir -p "$to"
to=$(realpath "$to")
cd "$(dirname "$0")/.."

# Works on a copy, because yearly.sh changes files, and that year's grader is built from them.
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
tar -c --exclude=./.git --exclude=./.build --exclude=./peer . | tar --no-same-owner -xC "$tree"
cd "$tree"
if [ -n "${YEAR-}" ]; then tests/yearly.sh "$YEAR"; fi

# ---- What is in it ------------------------------------------------------------------------

mkdir -p "$to/docs/zh" "$to/tests"
cp docs/handout/README.md docs/handout/Makefile "$to"
cp -r docs/starter "$to"
cp -r docs/zh/starter "$to/docs/zh"
for name in assignment protocol interface first-contact lab; do
  cp docs/$name.* "$to/docs"
  if [ -e docs/zh/$name.md ]; then cp docs/zh/$name.md "$to/docs/zh"; fi
done
cp -r docs/wireshark "$to/docs"
for folder in docs docs/zh; do  # the pictures that they show: others draw how the reference is built
  mkdir "$to/$folder/pictures"
  cat "$to/$folder"/*.md | grep -oE '\(pictures/[a-z-]+\.(svg|png)' | cut -c2- | sort -u | while read -r picture; do
    cp "$folder/$picture" "$to/$folder/pictures"
  done
done
cp tests/classroom.sh "$to/tests"
if [ "$GRADER" = source ]; then
  mkdir "$to/tests/support"
  cp -r tests/grade "$to/tests"
  rm -f "$to"/tests/grade/wrong.* "$to"/tests/grade/unfinished.* "$to"/tests/grade/change.pl "$to/tests/grade/smallest.sh"
  for part in system testing ladder; do
    cp tests/support/$part.cpp tests/support/$part.h "$to/tests/support"
  done
else
  make -s .build/grade >&2
  cp .build/grade "$to"
fi

# ---- What it does not lead to ---------------------------------------------------------------

# A link to a file that students do not get becomes its text.
for document in "$to"/docs/*.md "$to"/docs/zh/*.md; do
  folder=$(dirname "$document")
  grep -oE '\]\([^)#:[:space:]]+' "$document" | cut -c3- | sort -u | while read -r target; do
    if [ ! -e "$folder/$target" ]; then
      quoted=$(printf '%s' "$target" | sed 's/[.]/\\./g')
      sed -i -E "s,\[([^]]*)\]\($quoted(#[^)]*)?\),\1,g" "$document"
    fi
  done
done

# Its Makefile has no program of its own to start, and none to trace.
sed -i 's,make classroom,make classroom PEER=mine/peer,g' "$to/docs/lab.md" "$to/docs/zh/lab.md"
sed -i '/^    make /d; s/ To make both again:$//' "$to/docs/first-contact.md"
echo "$to"
