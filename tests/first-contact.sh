#!/bin/sh
# make trace, make capture: the first contact of two peers, seen from inside and on the cable. ann and bob, each on a
# separate machine, meet, say something, send a small file, and leave.
#
#   ann 10.77.0.1  eth0 ----------- eth0  10.77.0.2 bob      two network namespaces, and a veth pair as the cable
#
#   first-contact.sh trace [--svg]    draws what both peers traced as one ladder: tests/ladder/main.cpp
#   first-contact.sh capture FILE     writes what tcpdump saw on the cable to FILE, for Wireshark
#
# docs/first-contact.md explains what the two show.
set -eu
cd "${0%/*}/.."
PATH=$PATH:/usr/sbin:/sbin  # as in classroom.sh
peer=$(realpath "${PEER:-peer}")

# A private network, and a private, empty /run for the names of its namespaces; as in classroom.sh.
if [ -z "${PRIVATE-}" ]; then
  new="--net --mount"
  [ "$(id -u)" = 0 ] || new="--user --map-root-user $new"
  [ "$1" != capture ] || command -v tcpdump >/dev/null || { echo "tcpdump is missing: apt-get install tcpdump" >&2; exit 1; }
  # shellcheck disable=SC2086 # several options in one variable
  PRIVATE=1 exec unshare $new "$0" "$@"
fi
mount -t tmpfs none /run
folder=$(mktemp -d)
trap 'kill $pids 2>/dev/null || true; rm -rf "$folder"' EXIT
pids=

sees() { # FILE PATTERN [TIMES]: waits, a minute or so at most, until so many lines of it match
  tries=0
  # shellcheck disable=SC2126 # grep -c prints nothing of a file that is not there yet
  until [ "$(grep -asE -- "$2" "$folder/$1" | wc -l)" -ge "${3-1}" ]; do
    tries=$((tries + 1))
    [ $tries -lt 3000 ] || { echo "first-contact: $1 does not show: $2" >&2; cat "$folder"/*.out >&2; exit 1; }
    sleep 0.02
  done
}

# Where tcpdump is root it becomes another user, and in a user namespace as above there is none. So it gets another one,
# in which it is nobody in particular, and may do all with the network that begins there: that is ann's.
if [ "$1" = capture ]; then
  (cd "$folder" && exec unshare --user --keep-caps --net sh -c 'echo made >made
    until ip link set eth0 up 2>/dev/null; do sleep 0.02; done
    exec tcpdump --immediate-mode -U -i eth0 -w cable.pcap') 2>"$folder/tcpdump.out" &
  tcpdump=$!
  pids=$tcpdump
  sees made made
  ip netns attach ann $tcpdump
else
  ip netns add ann
fi
ip netns add bob
for name in ann bob; do
  ip -n $name link set lo up
  echo 1 | ip netns exec $name tee /proc/sys/net/ipv6/conf/default/disable_ipv6 >/dev/null  # it would only chatter
done
ip link add eth0 netns ann type veth peer name eth0 netns bob
ip -n ann addr add 10.77.0.1/30 brd + dev eth0
ip -n bob addr add 10.77.0.2/30 brd + dev eth0
for name in ann bob; do ip -n $name link set eth0 up; done
for name in ann bob; do  # the kernel notes some time later that there is somebody at the other end
  until ip -n $name -brief link show eth0 | grep -q ' UP '; do sleep 0.02; done
done

start() { # NAME
  mkfifo "$folder/$1.in"
  mkdir "$folder/$1"
  (cd "$folder/$1" && exec ip netns exec "$1" "$peer" --interface eth0 --name "$1" --group lab --trace="../$1.trace" \
    <"../$1.in" >"../$1.out") &
  pids="$pids $!"
}

[ "$1" != capture ] || sees tcpdump.out 'listening on'
start ann
exec 4>"$folder/ann.in"
sees ann.trace '-> 10.77.0.3:25252 .* HELLO' 3  # ann's burst is over
start bob
exec 5>"$folder/bob.in"
sees ann.out 'joined bob'
sees bob.out 'joined ann'
sees bob.trace '-> 10.77.0.3:25252 .* HELLO' 3
echo '/msg bob Hi Bob, here is the poem.' >&4
sees ann.out 'delivered bob'
echo 'The woods are lovely, dark and deep.' >"$folder/ann/poem.txt"
echo '/send bob poem.txt' >&4
sees bob.out 'receive 1 offered'
echo '/accept 1' >&5
sees ann.out 'send 1 delivered'
cmp "$folder/ann/poem.txt" "$folder/bob/downloads/poem.txt"
echo '/quit' >&4
sees bob.out 'left ann'
sees bob.trace ' closed$' 2
echo '/quit' >&5
for pid in $pids; do [ "$pid" = "${tcpdump-}" ] || wait "$pid"; done

if [ "$1" = capture ]; then
  sees cable.pcap 'BYE .*name=bob' 2
  kill "$tcpdump"
  wait "$tcpdump" || true
  pids=
  cp "$folder/cable.pcap" "$2"
  exit
fi
pids=

"${LADDER:-.build/ladder}" ${2:+"$2"} --title='The first contact of two peers' \
  ann="$folder/ann.trace" bob="$folder/bob.trace"
