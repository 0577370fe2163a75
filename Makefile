# make          the program, ./peer             make demo    three peers on this host talk to each other
# make test     all tests                       make clean   removes what was built
#
# CXX and CXXFLAGS may be given: make CXX=clang++ CXXFLAGS='-O1 -g -fsanitize=address'

CXXFLAGS ?= -O2 -g
override CXXFLAGS += -std=c++17 -Wall -Wextra -Wpedantic -Wshadow -Wconversion -pthread

peer: peer.o discovery.o transfer.o
	$(CXX) $(CXXFLAGS) $(LDFLAGS) -o $@ $^

peer.o discovery.o transfer.o: protocol.h
