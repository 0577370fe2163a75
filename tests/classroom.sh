#!/bin/sh
# make classroom: HOSTS virtual machines (default 4) on one network inside this machine, each with a terminal in which a
# peer runs. One person can play a whole class. How to play it: docs/lab.md.
#
#   ann  10.77.0.1  eth0 ------ v1 |         A machine is a network namespace: interfaces, addresses, ports of its own.
#   bob  10.77.0.2  eth0 ------ v2 | br0     A cable is a veth pair: what goes in at one end comes out at the other.
#   carl 10.77.0.3  eth0 ------ v3 |         The switch is a bridge, in one namespace more. Nothing leads out of it.
#
# Without a terminal it still starts, says how to look in, and lasts until the session or this script ends.
set -eu
peer=${PEER-}
case $peer in '' | /*) ;; *) peer=$PWD/$peer ;; esac  # from where it was typed
cd "${0%/*}/.."
PATH=$PATH:/usr/sbin:/sbin  # where nft and tc are, which an ordinary user's may lack
export PEER="${peer:=$PWD/peer}"
self=$PWD/tests/classroom.sh
room=/run/class

fail() { echo "classroom: $1" >&2; exit "${2-1}"; }
mux() { tmux -u -f /dev/null -S $room/tmux "$@"; }  # a server of its own: the user's sessions are not touched

# ---- What runs in each terminal: this script again -----------------------------------------------

case ${1-} in
host)  # NAME: that machine's peer, and when it has ended, a shell there
  cd $room/"$2"
  trap : INT  # Ctrl-C is meant for the peer
  ip netns exec "$2" "$peer" --name "$2" --group lab || true
  echo "$2's peer has ended. This is a shell on that machine; a new peer: $peer --name $2 --group lab"
  exec env PS1="$2# " ip netns exec "$2" sh -i ;;
switch)
  cd $room
  cat <<'END'
This is a shell on the switch; machine N is plugged into its port vN. Each of
these lines can be typed as it stands.
  ip link set v2 down          take bob's cable out; "up" puts it back
  tcpdump -lnA -i br0 udp      read what they say (if root started the class)
  nft 'add table bridge f;
       add chain bridge f lose { type filter hook forward priority 0; };
       add rule bridge f lose numgen random mod 100 < 20 drop'
                               lose a fifth of all packets; as it was:
  nft flush ruleset
  ip netns exec bob ss -lun    any command on bob's machine
  ls */downloads               what has been received; it goes with the class
END
  exec env PS1='switch# ' sh -i ;;
esac

# ---- Namespaces, in which all of it lives --------------------------------------------------------

hosts=${HOSTS:-4}
if [ "${1-}" != inside ]; then
  case $hosts in *[!0-9]* | 0* | ???*) hosts=31 ;; esac
  [ "$hosts" -le 30 ] || fail "HOSTS is the number of machines, 1 to 30, and not '$HOSTS'" 2
  { [ -f "$peer" ] && [ -x "$peer" ]; } || fail "there is no $peer yet; make it with: make"
  command -v ip >/dev/null || fail "the command ip is missing; install it with: sudo apt-get install iproute2"

  # A network that nobody else sees, and so are the mounts and the processes. An ordinary user may have that in a user
  # namespace: there he is root, over what belongs to it and over nothing else.
  new="--net --mount --pid" enter="nsenter"
  [ "$(id -u)" = 0 ] || new="--user --map-root-user $new" enter="nsenter --user --preserve-credentials"
  # shellcheck disable=SC2086 # several options in one variable
  why=$(unshare $new mount -t tmpfs none /run 2>&1) || fail "namespaces are not allowed here ($why): use 'sudo make \
classroom', or, on Ubuntu, allow them to all users until the next start of the system with 'sudo sysctl -w \
kernel.apparmor_restrict_unprivileged_userns=0'; a container has to be started with --privileged"
  # shellcheck disable=SC2086
  exec unshare $new "$self" inside "$enter"
fi

# The first process started from here is process 1 of the new namespace. The others do not outlive it: the kernel kills
# them, and then takes down each namespace that nobody is in, with its links and its mounts. So to clean up is to end
# this one process, and pdeathsig does so even when this script is killed by a signal that it cannot catch.
setpriv --pdeathsig KILL sleep infinity &
first=$!
terminal=$first
leave() {
  trap '' EXIT INT TERM HUP
  # Not needed for cleaning up, but kinder: tmux leaves the user's terminal in order, and the peers say BYE.
  { timeout 5 tmux -S $room/tmux kill-server && wait $terminal; } 2>/dev/null || true
  kill -KILL $first
  exit "$1"
}
trap 'leave $?' EXIT
trap 'leave 0' INT TERM HUP

# "ip netns" keeps its names in /run, which belongs to root. This mount is another /run, empty, in memory, seen by the
# class only; the download folders are there, too.
mount -t tmpfs none /run
mount -t proc none /proc  # which processes it shows depends on who mounted it
mkdir $room

# ---- The network ---------------------------------------------------------------------------------

name_of() { # N: ann, bob … zoe, ann2, bob2 …
  n=$(($1 - 1))
  set -- ann bob carl dora emil fay gus hana ivan joy kai lea max nora otto pia quin rosa sam tia udo vera will xena \
    yves zoe
  round=$((n / $# + 1))
  shift $((n % $#))
  [ $round = 1 ] && echo "$1" || echo "$1$round"
}

# Linux has one table for the neighbours (IP address, MAC address) that all its namespaces know, with room for 1,024.
# N machines fill N * (N - 1) of it, and each address that a sweep asks for in vain one more. So the network is a /27:
# it has 30 addresses, and no class is larger.
ip link set lo up
ip link add br0 type bridge forward_delay 0 mcast_snooping 0  # or it would let nothing through for the first 30 s
ip link set br0 up
for host in $(seq "$hosts"); do
  name=$(name_of "$host")
  ip netns add "$name"
  ip link add "v$host" type veth peer name eth0 netns "$name"
  ip link set "v$host" master br0 up
  ip -n "$name" link set lo up
  ip -n "$name" link set eth0 up
  ip -n "$name" addr add "10.77.0.$host/27" brd + dev eth0
  mkdir -p "$room/$name"
  echo "Greetings from $name" >"$room/$name/$name.txt"  # something to send
done

# ---- The terminals -------------------------------------------------------------------------------

enter="$2 --target $first --mount --pid --net"  # begins each command that is to run in the class, from outside it
exec 3<&0  # what waits below does so in the background, or traps would wait, too; and there input has to be handed on
if ! command -v tmux >/dev/null; then
  echo "tmux is not installed (sudo apt-get install tmux), so open a terminal for each machine, and type there:"
  for host in $(seq "$hosts"); do echo "  PEER='$peer' $enter $self host $(name_of "$host")"; done
  echo "and for the switch:"
  echo "  PEER='$peer' $enter $self switch"
  echo "Enter ends the class."
  read -r _ <&3 &
else
  unset TMUX  # this may be typed inside another tmux
  windows=$(((hosts + 5) / 6))  # of at most six panes
  panes=$(((hosts + windows - 1) / windows))
  for host in $(seq "$hosts"); do
    name=$(name_of "$host")
    # The size of a small terminal: in a larger one it grows, but what a smaller one has no room for scrolls away.
    if [ "$host" = 1 ]; then open="new-session -d -s class -x 80 -y 24 -n $name.."
    elif [ $(((host - 1) % panes)) = 0 ]; then open="new-window -d -t class: -n $name.."
    else open="split-window -d -t $pane"
    fi
    # shellcheck disable=SC2086 # a command and its options
    pane=$(mux $open -P -F '#{pane_id}' "$self" host "$name")
    mux select-layout -t "$pane" tiled \; select-pane -t "$pane" -T "$name 10.77.0.$host"
  done
  mux new-window -d -t class: -n switch "$self" switch \; select-pane -t class:switch -T switch
  mux set -g mouse on \; set -g pane-border-status top \; set -g pane-border-format ' #{pane_title} ' \; \
    set -g status-left '' \; set -g status-right-length 90 \; \
    set -g status-right 'click to choose | Ctrl-b z: zoom | Ctrl-b d: end '
  if [ -t 0 ]; then
    mux attach <&3 &
  else
    echo "The class has begun; to see it: $enter tmux -S $room/tmux attach"
    mux wait-for end &
  fi
fi
terminal=$!
wait $terminal || true
