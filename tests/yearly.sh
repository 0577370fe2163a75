#!/bin/sh
# tests/yearly.sh YEAR: changes the word and the ports of the protocol everywhere in this tree. Then last year's
# programs find nobody, and nobody finds them. The same YEAR gives everybody the same protocol. It prints what it
# changed. Run it again for the next year; for the same one it changes nothing. `make handout YEAR=2027` does it in a copy.
set -eu
year=${1-}
case $year in 20[0-9][0-9]) ;; *) echo "usage: tests/yearly.sh YEAR, such as 2027" >&2; exit 2 ;; esac
cd "$(dirname "$0")/.."
export LC_ALL=C  # the corpus of the fuzzer has bytes that are not UTF-8

old_word=$(sed -n 's/.* kMagic = "\(.*\)\/1";.*/\1/p' protocol.h)
old_port=$(sed -n 's/.* kDiscoveryPort = \([0-9]*\);.*/\1/p' protocol.h)

# As long as the old word, because some examples are at the limit of a line. The ports stay below 32768, where Linux
# begins to take those of outgoing connections. No new port is an old one, or sed would change it twice.
word=ChatByP${year#20}
if [ "$word" = "$old_word" ]; then
  echo "this is the protocol of $year already: $word/1, shared port $old_port"
  exit
fi
port=$((25252 + 257 + year * 263 % 6000))
distance=$((port - old_port))
if [ "${distance#-}" -lt 257 ]; then port=$((port + 514)); fi

swapped() { echo $((($1 & 255) << 8 | $1 >> 8)); }  # a port as it is without htons()
changes=$(mktemp)
trap 'rm -f "$changes"' EXIT
{
  echo "s,$old_word/,$word/,g"
  for n in $(seq 0 256); do printf 's/\\b%d\\b/%d/g\n' $((old_port + n)) $((port + n)); done
  printf 's/\\b%d\\b/%d/g\n' "$(swapped $((old_port + 1)))" "$(swapped $((port + 1)))"
} >"$changes"

# A capture contains checksums, so it stays, with the text about it: first-contact.md, from section 2 on.
find . \( -path ./.git -o -path ./.build \) -prune -o -type f ! -name '*.pcap' ! -name '*.png' ! -path ./docs/first-contact.md \
  ! -path ./tests/yearly.sh ! -path ./peer -print0 | xargs -0 sed -i -f "$changes"
sed -i -e '/^## 2/,$b' -f "$changes" docs/first-contact.md
echo "$word/1, shared port $port, own ports $((port + 1)) to $((port + 256)); it was $old_word/1, $old_port"
