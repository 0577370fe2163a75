#!/bin/sh
# make mutants: tests the tests. docs/pitfalls.md has classic mistakes, and for most of them a change of a line or two
# that makes the mistake here, and the test that then fails. This applies each change in turn, in a copy, and runs that
# test. If the test passes, the mutant has survived: no test would notice the mistake. Exits 0 only if none survives.
#
#   make mutants NUMBERS='1 7 12'     only these pitfalls
#   make mutants GRADE=1              the grader judges each, too: which requirements noticed it (a minute each)
set -eu
cd "${0%/*}/.."
text=$PWD/docs/pitfalls.md
room=$PWD/.build/mutants
rm -rf "$room"
mkdir -p "$room/tree"
git ls-files -z | xargs -0 tar c | tar x -C "$room/tree"

# Of each pitfall that has a change: its number, the file, its first test, its name; and the old and the new lines.
awk -v room="$room" -v chosen=" ${NUMBERS-} " '
  /^### / { number = $2 + 0; name = $0; sub(/^### [0-9]+\. /, "", name); test = ""; changes = 0 }
  /^\*\*Caught by\*\*/ && match($0, /`[A-Z][A-Za-z]*\.[A-Za-z0-9]+`/) { test = substr($0, RSTART + 1, RLENGTH - 2) }
  /^mutant: / { file = $2; inside = 1; printf "" >(room "/" number ".old"); printf "" >(room "/" number ".new"); next }
  inside && /^```/ { inside = 0; if (test != "" && (chosen ~ /^ *$/ || index(chosen, " " number " "))) print number "\t" file "\t" test "\t" name }
  inside && /^- / { print substr($0, 3) >(room "/" number ".old") }
  inside && /^\+ / { print substr($0, 3) >(room "/" number ".new") }
' "$text" >"$room/list"

make_all() { make -C "$room/tree" -j"$(nproc)" CXXFLAGS=-O1 peer .build/run-tests >"$room/make.log" 2>&1; }
passes() { # TEST
  (cd "$room/tree" && PEER=$room/tree/peer JOBS=1 STRICT=1 timeout 300 .build/run-tests --gtest_filter="$1") \
    >"$room/test.log" 2>&1
}
# The requirements of which something failed, as "R2 R5".
graded() {
  (cd "$room/tree" && PEER=$room/tree/peer timeout 900 "$grader" --table) 2>/dev/null | tail -1 | tr '\t' ' '
}

grader=$PWD/.build/grade
make_all || { cat "$room/make.log"; exit 1; }
cut -f 3 "$room/list" | sort -u >"$room/tests"
while read -r test; do
  passes "$test" </dev/null || { echo "mutants: $test fails without any change"; cat "$room/test.log"; exit 1; }
done <"$room/tests"

survived=0 caught=0
tab=$(printf '\t')
while IFS=$tab read -r number file test name; do
  cp "$file" "$room/tree/$file"
  # All of the old lines, one after the other, must stand there exactly once.
  awk -v old="$room/$number.old" -v new="$room/$number.new" '
    function read(file,  all, line) { while ((getline line <file) > 0) all = all line "\n"; return all }
    BEGIN { from = read(old); to = read(new) }
    { all = all $0 "\n" }
    END {
      at = index(all, from)
      if (!at || index(substr(all, at + 1), from)) exit 1
      printf "%s", substr(all, 1, at - 1) to substr(all, at + length(from))
    }' "$file" >"$room/tree/$file" || { echo "mutants: the lines of $number are not in $file, or more than once"; exit 1; }
  if ! make_all; then
    echo "$number. $name: does not compile"
    cat "$room/make.log"
    exit 1
  elif passes "$test"; then
    echo "SURVIVED  $number. $name: $test"
    survived=$((survived + 1))
  else
    echo "caught    $number. $name: $test${GRADE:+; graded: $(graded)}"
    caught=$((caught + 1))
  fi
  cp "$file" "$room/tree/$file"
done <"$room/list"
echo "$caught caught, $survived survived"
[ $survived = 0 ]
