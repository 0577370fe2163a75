#!/bin/sh
# make model: Spin checks every order of events in the models of this folder. Each model opens with its claims.
#
#   make model                     all rules on: no claim may fail
#   make model SWITCHES=1          each rule off in turn: a claim must fail, or the model does not depend on that rule
#   make model RULE=HIGHEST        how a claim fails without this rule, as a story
set -eu
cd "${0%/*}"
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
deepest=1000000  # steps of one story

build() { # MODEL [RULE]: a program that searches
  cp "$1" "$room"
  (cd "$room" && spin ${2:+-D$2=0} -a "$1" && ${CC:-cc} -w -O2 -DSAFETY -DCOLLAPSE -o search pan.c)
}
search() { # STEPS: looks no further than so many into a story; what it has found is in the file `found`
  (cd "$room" && rm -f ./*.trail && ./search -m"$1" >found)
}
failed() { ls "$room"/*.trail >/dev/null 2>&1; }
story() { (cd "$room" && spin ${2:+-D$2=0} -k "$1.trail" -t -T -B "$1"); }  # MODEL [RULE]
claim() { # MODEL RULE: the claim that failed; 4 of messages.pml has no line of its own
  line=$(story "$@" | sed -n "s/^spin: $1:\([0-9]*\), Error: assertion violated.*/\1/p")
  sed -n "${line:-1}s/.*\/\* \(claim [0-9]*\) \*\/.*/\1/p" "$1"
}
states() { sed -n 's/^ *\([0-9]*\) states, stored.*/\1/p' "$room/found"; }
rules() { sed -n 's/^#ifndef \([A-Z_]*\) .*/\1/p' "$1"; }  # those with a comment behind them

# The shortest story is the easiest to read, so the search tries short ones first.
tell() { # MODEL RULE
  build "$1" "$2"
  for steps in 80 160 320 640 1300 2600 $deepest; do
    search "$steps"
    if failed; then
      story "$1" "$2"
      return
    fi
  done
  echo "nothing fails without $2"
}

bad=0
for model in *.pml; do
  if [ -n "${RULE-}" ]; then
    ! rules "$model" | grep -qx "$RULE" || tell "$model" "$RULE"
    continue
  fi
  if [ -n "${SWITCHES-}" ]; then
    for rule in $(rules "$model"); do
      build "$model" "$rule"
      search $deepest
      if failed; then
        echo "caught    $model without $rule: $(claim "$model" "$rule")"
      else
        echo "SURVIVED  $model without $rule"
        bad=1
      fi
    done
    continue
  fi
  build "$model"
  search $deepest
  if failed || ! grep -q '^State-vector' "$room/found" || grep -q 'max search depth too small' "$room/found"; then
    cat "$room/found"
    ! failed || story "$model"
    bad=1
  else
    echo "$model: $(states) states, and every claim holds in all of them"
  fi
done
[ $bad = 0 ]
