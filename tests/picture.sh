#!/bin/sh
# tests/picture.sh FILE COMMAND...: FILE becomes the picture that COMMAND draws of a run, for make pictures. If it shows
# such a run already, it stays as it is: only times, ids and the ports that the kernel chose would differ.
set -eu
file=$1
shift
new=$(mktemp)
trap 'rm -f "$new"' EXIT
"$@" >"$new"

words() {
  grep -oE '>[^<]+<' "$1" | sed -E 's/^> *[0-9]+\.[0-9]{4}</TIME/; s/^>[0-9]{2}:[0-9]{2}/TIME/
    s/(id|to)=[0-9a-f]{16}/\1=ID/g; s/\b(3[2-9]|[45][0-9]|60)[0-9]{3}\b/PORT/g' | sort -u
}
if [ ! -e "$file" ] || [ "$(words "$file")" != "$(words "$new")" ]; then cat "$new" >"$file"; fi
