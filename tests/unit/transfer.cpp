// What transfer.cpp makes of what comes: lines and bytes in, lines and bytes out, without another process. Its classes
// are no one else's business, so they stand in no header: the whole file is included here.

#include <gtest/gtest.h>

#include "protocol.h"

namespace {

Identity peer_at(const std::string& id, const std::string& address) {
  Identity who;
  who.id = id;
  who.address = *parse_address(address);
  return who;
}

}  // namespace

#include "../../transfer.cpp"  // not this file, which has its name

// A client that has given up by the time of accept(): it made us deaf for a quarter of a second.
TEST(Listening, GoesOnAtOnceWhenWhoeverWantedToConnectHasGivenUp) {
  transfer::open([](uint32_t) { return true; });
  fd_set readable;
  FD_ZERO(&readable);
  transfer::watch(readable);
  transfer::accept_connection(readable);  // where nobody is
  FD_ZERO(&readable);
  transfer::watch(readable);
  EXPECT_TRUE(FD_ISSET(listening_socket.get(), &readable));
  listening_socket = Descriptor();
}

// It was the one with the smallest id that was forgotten: for each newcomer the same.
TEST(Repeats, OfWhoeverWroteLastAreKnownHoweverManyHaveWritten) {
  const auto sender = [](int n) { return peer_at(to_string(1'000'000 + n), "10.0.0.1:25253"); };
  writers.clear();
  for (int n = 1; n <= 3072; ++n) EXPECT_FALSE(transfer::is_repeat(sender(n), 1));
  EXPECT_FALSE(transfer::is_repeat(sender(1), 2));  // by now the second has not written for longest
  EXPECT_FALSE(transfer::is_repeat(sender(4000), 1));
  EXPECT_TRUE(transfer::is_repeat(sender(1), 1));
  EXPECT_TRUE(transfer::is_repeat(sender(1), 2));
  EXPECT_FALSE(transfer::is_repeat(sender(2), 1));
  writers.clear();
}
