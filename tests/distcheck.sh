#!/usr/bin/env bash
# Tests the tarball of `make dist` as a user without git would: unpacks it into an empty folder, builds it, installs it
# into an empty root, runs it from there, and removes it again without a trace.
set -euo pipefail

# Two installed peers, in their own network, meet, and one gets what the other said.
session() {
  ip link set lo up
  mkdir near far
  mkfifo far/in
  (cd far && exec chatbyp2p --name far <>in >out 2>&1) &
  for ((i = 0; i < 1800; ++i)); do
    if grep -q '^ready ' far/out 2>/dev/null; then break; fi
    sleep 0.1
  done
  echo '/msg far from near' | (cd near && timeout 180 chatbyp2p --name near)
  echo /quit >far/in
  wait
  grep -q '^message near@.* private: from near$' far/out
}

if [ "${1:-}" = session ]; then
  session
  exit
fi

cd "$(dirname "$0")/.."
script=$PWD/tests/distcheck.sh
tarball=$PWD/$(make --no-print-directory -s dist)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# All commands that there are, but git.
mkdir "$folder/commands"
for commands in /usr/bin /bin /usr/sbin /sbin; do
  ln -sf "$commands"/* "$folder/commands/"
done
rm -f "$folder"/commands/git*
export PATH=$folder/commands
unset MAKEFLAGS MAKELEVEL
if command -v git; then exit 1; fi

cd "$folder"
tar xzf "$tarball"
cd chatbyp2p-*
make -j2 CXXFLAGS=-O0 >/dev/null
./peer --version

root=$folder/root
make --no-print-directory install DESTDIR="$root" PREFIX=/usr >/dev/null
(cd "$root" && find . -type f | sort)
[ "$(find "$root" -type f | wc -l)" = 6 ]
cmp docs/install/chatbyp2p.1 "$root/usr/share/man/man1/chatbyp2p.1"
mkdir "$folder/session"
(cd "$folder/session" && PATH=$root/usr/bin:$PATH unshare -rn "$script" session)

make --no-print-directory uninstall DESTDIR="$root" PREFIX=/usr >/dev/null
[ -z "$(find "$root" ! -type d)" ]
[ -z "$(find "$root" -name '*chatbyp2p*')" ]
echo "$(basename "$tarball"): built without git, installed, run from there, and removed"
