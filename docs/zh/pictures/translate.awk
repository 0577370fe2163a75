# make pictures: a .dot file with its labels in Chinese, from the table beside this file.
#
#   awk -f docs/zh/pictures/translate.awk docs/zh/pictures/labels.txt docs/pictures/lab.dot | dot -Tsvg

FILENAME ~ /labels\.txt$/ {
  split($0, pair, " = ")
  if ($0 !~ /^#/) chinese[pair[1]] = (2 in pair) ? pair[2] : pair[1]
  next
}

{
  rest = $0
  while (match(rest, /label="[^"]*"/)) {
    before = substr(rest, 1, RSTART + 6)
    label = substr(rest, RSTART + 7, RLENGTH - 8)
    rest = substr(rest, RSTART + RLENGTH - 1)
    printf "%s%s", before, translated(label)
  }
  print rest
}

END { exit failed }

# The blanks around a label only keep it away from its arrow, so the table does not have them.
function translated(label,    margin, words) {
  match(label, /^ */)
  margin = substr(label, 1, RLENGTH)
  words = label
  gsub(/^ +| +$/, "", words)
  gsub(/\\n +/, "\\n", words)
  if (!(words in chinese)) {
    print "docs/zh/pictures/labels.txt has no: " words >"/dev/stderr"
    failed = 1
  }
  words = chinese[words]
  gsub(/\\n/, "\\n" margin, words)
  match(label, / *$/)
  return margin words substr(label, RSTART, RLENGTH)
}
