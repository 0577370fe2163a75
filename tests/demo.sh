#!/bin/sh
# make demo: the whole program without a second machine. Three peers on this host, over loopback only, find each other,
# talk, send a file, and leave. It shows what each of them printed ("> " is what its user typed), and exits 0 only if
# everything happened.
set -u
# It runs in its own network namespace, if the system allows one, and so disturbs no other peer on this host.
if [ -z "${PRIVATE-}" ] && unshare -rn ip link set lo up 2>/dev/null; then
  PRIVATE=1 exec unshare -rn sh -c 'ip link set lo up && exec "$0"' "$0"
fi
peer=$(realpath "${PEER:-peer}")
folder=$(mktemp -d)
trap 'kill $pids 2>/dev/null; rm -rf "$folder"' EXIT
pids=

start() { # NAME OPTION...
  name=$1
  mkfifo "$folder/$name.in"
  mkdir "$folder/$name"
  (cd "$folder/$name" && exec "$peer" --interface lo --name "$@" <"../$name.in" >>"../$name.out" 2>&1) &
  pids="$pids $!"
}

say() { # NAME LINE; descriptors 4, 5 and 6 keep the inputs open
  echo "> $2" >>"$folder/$1.out"
  case $1 in ann) echo "$2" >&4 ;; bob) echo "$2" >&5 ;; cleo) echo "$2" >&6 ;; esac
}

sees() { # NAME PATTERN: waits, a minute or so at most, until NAME has printed a line that matches
  tries=0
  until grep -qxE -- "$2" "$folder/$1.out"; do
    tries=$((tries + 1))
    [ $tries -lt 1200 ] || { echo "demo: $1 has not seen: $2"; cat "$folder"/*.out; exit 1; }
    sleep 0.05
  done
}

start ann --group lab
exec 4>"$folder/ann.in"
sees ann 'ready ann@.*'
start bob --group lab
exec 5>"$folder/bob.in"
sees ann 'joined bob@.* lab'
sees bob 'joined ann@.* lab'
start cleo --group library
exec 6>"$folder/cleo.in"
for name in ann bob; do sees $name 'joined cleo@.* library'; done
sees cleo 'joined ann@.* lab'
sees cleo 'joined bob@.* lab'

say ann '/list'
sees ann 'users [0-9]*'
say ann '/msg bob Hi Bob, shall I send you the poem?'
sees bob 'message ann@.* private: Hi Bob, .*'
sees ann 'delivered bob@.*'
say bob '/to ann'
sees bob 'to ann@.*'
say bob 'Yes, please!'
sees bob 'delivered ann@.*: Yes, please!'
sees ann 'message bob@.* private: Yes, please!'
printf 'The woods are lovely, dark and deep.\n' >"$folder/ann/poem.txt"
say ann '/send bob poem.txt'
sees bob 'receive 1 offered ann@.*: poem.txt'
say bob '/accept 1'
sees ann 'send 1 delivered bob@.*: poem.txt'
sees bob 'receive 1 stored ann@.*: downloads/poem.txt'
cmp "$folder/ann/poem.txt" "$folder/bob/downloads/poem.txt" || exit 1
say cleo '/all 图书馆六点关门 (the library closes at six)'
for name in ann bob; do sees $name 'message cleo@.* all: .*'; done
sees cleo 'delivered [0-9]+ of [0-9]+'
say ann '/quit'
for name in bob cleo; do sees $name 'left ann@.*: said bye'; done
say bob '/quit'
sees cleo 'left bob@.*: said bye'
say cleo '/quit'
for pid in $pids; do wait "$pid" || exit 1; done
pids=
for name in ann bob cleo; do
  echo "--- what $name saw"
  cat "$folder/$name.out"
done
