#!/bin/sh
# Gradescope runs this once, as root, when it makes the container: docs/instructor.md, 3. chatbyp2p is the folder that
# `make handout` has made. Submissions are built and graded as the user student, who cannot change what lies here.
set -eu
apt-get update
apt-get install -y g++ make libgtest-dev iproute2 nftables
make -C /autograder/source/chatbyp2p .build/grade
chmod -R a+rX /autograder/source
useradd --create-home student
