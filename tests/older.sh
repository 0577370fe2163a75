#!/bin/sh
# Our peer meets one of the commit before sweeps became polite and heartbeats rare: they must find each other in each
# way, talk and send files, whichever of the two is the older. Both say ChatByP2P/1.
set -eu
cd "${0%/*}/.."
commit=5cd27a9
older=.build/older
if ! git cat-file -e "$commit^{commit}" 2>/dev/null; then
  echo "skipped: the history of this copy does not reach back to $commit"
  exit
fi
mkdir -p $older
git archive $commit Makefile protocol.h discovery.cpp transfer.cpp peer.cpp | tar -x -C $older
CXXFLAGS=-O1 make -s -C $older peer
for name in ann bob; do
  echo "The older one plays $name."
  SECOND=$older/peer SECOND_PLAYS=$name KINDS=plain STEPS='' STRICT=1 .build/run-tests --gtest_filter='Versions.*' --gtest_brief=1
done
