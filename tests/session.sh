#!/bin/sh
# make pictures: docs/pictures/session.svg, two terminals of a real session in the virtual classroom (tests/classroom.sh).
# Ann and bob find each other, talk, and send a file; each of their terminals has 80 columns. It needs tmux.
#
#   tests/session.sh >docs/pictures/session.svg
set -eu
cd "${0%/*}/.."
folder=$(mktemp -d)
trap 'kill "$class" 2>/dev/null; rm -rf "$folder"' EXIT
HOSTS=2 tests/classroom.sh </dev/null >"$folder/said" 2>&1 &
class=$!

wait_for() { # COMMAND: until it succeeds, a minute or so at most
  tries=0
  until eval "$1"; do
    tries=$((tries + 1))
    [ $tries -lt 600 ] || { echo "session: in vain: $1" >&2; cat "$folder"/* >&2; exit 1; }
    sleep 0.1
  done
}
wait_for 'grep -q "to see it: " "$folder/said"'
mux=$(sed -n 's/.*to see it: \(.*\) attach$/\1/p' "$folder/said")
$mux resize-window -t class:0 -x 80 -y 34
$mux select-layout -t class:0 even-vertical

ann=class:0.0 bob=class:0.1
screen() { $mux capture-pane -p -t "$1"; }
types() { # PANE TEXT
  $mux send-keys -t "$1" -l "$2"
  $mux send-keys -t "$1" Enter
}
sees() { # PANE PATTERN
  wait_for "screen $1 | grep -qE '$2'"
}
sees $ann '^joined bob@'
sees $bob '^joined ann@'
types $ann '/to bob'
sees $ann '^ann to bob>'
types $ann 'Hi Bob, shall I send you my notes?'
sees $bob 'shall I send you my notes'
sees $ann 'delivered bob'
types $bob '/msg ann 好的, yes please!'
sees $ann 'yes please!$'
types $ann '/send ann.txt'
sees $bob '^receive 1 offered'
types $bob '/accept'
sees $bob '^receive 1 stored'
sees $ann '^send 1 delivered'

# ---- As a picture -------------------------------------------------------------------------

for pane in $ann $bob; do screen "$pane" | sed 's/ *$//; /^$/d' >"$folder/${pane#class:0.}"; done
lines() { wc -l <"$folder/$1"; }
row=19 top=44
first=$(($(lines 0) * row)) second=$(($(lines 1) * row))
height=$((first + second + 2 * top + 42))
cat <<END
<svg xmlns="http://www.w3.org/2000/svg" width="720" height="$height" viewBox="0 0 720 $height" role="img">
<title>Two terminals: ann and bob find each other, talk, and send a file</title>
<style>
  .page { fill: #ffffff; }
  .card { fill: #f6f8fa; stroke: #8c959f; }
  .bar { fill: #dde3ea; }
  text { font: 14px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; white-space: pre; fill: #1f2328; }
  .name { font-weight: bold; }
  .typed { fill: #0550ae; font-weight: bold; }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117; }
    .card { fill: #161b22; stroke: #6e7681; }
    .bar { fill: #2a313c; }
    text { fill: #e6edf3; }
    .typed { fill: #79c0ff; }
  }
</style>
<rect class="page" width="720" height="$height"/>
END
draw() { # NAME FILE Y HEIGHT
  echo "<rect class=\"card\" x=\"8\" y=\"$3\" width=\"704\" height=\"$(($4 + top))\" rx=\"8\"/>"
  echo "<rect class=\"bar\" x=\"9\" y=\"$(($3 + 1))\" width=\"702\" height=\"26\" rx=\"7\"/>"
  echo "<text class=\"name\" x=\"20\" y=\"$(($3 + 19))\">$1</text>"
  sed 's/&/\&amp;/g; s/</\&lt;/g; s/>/\&gt;/g' "$folder/$2" | awk -v y=$(($3 + top)) -v row=$row '
    { class = $0 ~ /^(ann|bob)( to [a-z]+)?&gt; ./ ? " class=\"typed\"" : ""
      if ($0 != "") printf "<text%s x=\"20\" y=\"%d\">%s</text>\n", class, y, $0
      y += row }'
}
draw 'ann 10.77.0.1' 0 8 "$first"
draw 'bob 10.77.0.2' 1 $((first + top + 24)) "$second"
echo '</svg>'
