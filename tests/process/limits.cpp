// The times of docs/protocol.md, 2.3, that are minutes, without waiting for them: the test sets the
// peer's clock forward. It checks each time twice: just before its end nothing has happened yet,
// and just after it the time is up.

#include "support/testing.h"

namespace {

const std::string kBytes = "DATA offset=0 size=6\nhello\nEND size=6 crc=3015617425\n";

}  // namespace

class Limits : public OneHost {
 protected:
  void SetUp() override {
    OneHost::SetUp();
    NEEDS_PROGRAM("cc", "gcc");
  }

  // bob, the program, whom ann, written by hand, calls.
  void start_bob(const std::string& accept) {
    const std::vector<std::string> options = {"--name", "bob",   "--group",  "lab",
                                              "--port", "25301", "--accept", accept};
    peer = std::make_unique<ClockedPeer>(*network, 0, options);
    peer->process().wait_for("ready .*");
  }
  Socket call_bob() const {
    Socket ann = Socket::tcp(*network, 0, "127.0.0.1", 25301);
    ann.send(kAnnsHello);
    EXPECT_EQ(ann.line().substr(0, 20), "OK ChatByP2P/1 HERE ");
    return ann;
  }

  // ann, the program, who sends a file to bob, written by hand.
  void start_ann() {
    const std::vector<std::string> options = {"--name", "ann", "--group", "lab"};
    peer = std::make_unique<ClockedPeer>(*network, 0, options);
    peer->process().wait_for("ready .*");
    peer->folder().write("x", "hello\n");
    bobs_door.emplace(Socket::tcp_listener(*network, 0, 40001));
  }
  Socket take_offer() const {
    peer->process().say("/send 127.0.0.1:40001 x");
    Socket bob = bobs_door->accept();
    bob.line();
    bob.send(kBobsReply);
    EXPECT_EQ(bob.line(), "OFFER size=6 files=1 :x");
    return bob;
  }
  static void take_bytes(Socket& bob) {
    bob.send("OK\n");
    for (const char* line : {"DATA offset=0 size=6", "hello", "END size=6 crc=3015617425"})
      EXPECT_EQ(bob.line(), line);
  }

  // So many seconds go by, and what is under way does not fail for it: what the caller does next
  // shows that. Some seconds less than the limit, for a busy machine takes some itself.
  void expect_patience(int seconds) const {
    peer->let_pass(seconds);
    EXPECT_FALSE(peer->process().prints("(send|receive) . failed .*", 1));
  }

  std::unique_ptr<ClockedPeer> peer;
  std::optional<Socket> bobs_door;
};

TEST_F(Limits, AConversationMayBeUnusedForSixtySeconds) {
  start_bob("ask");
  Socket ann = call_bob();
  expect_patience(50);
  ann.send("MSG number=1 :still there?\n");
  EXPECT_EQ(ann.line(), "OK");
  peer->process().wait_for("message ann@\\S+ private: still there\\?");
  peer->let_pass(61);
  EXPECT_TRUE(ann.is_closed());
}

TEST_F(Limits, AnOfferMayBeAnsweredWithinTwoMinutes) {
  start_bob("ask");
  Process& bob = peer->process();
  Socket ann = call_bob();
  ann.send("OFFER size=6 files=1 :x\n");
  bob.wait_for("receive 1 offered .*");
  expect_patience(110);
  bob.say("/accept 1");
  EXPECT_EQ(ann.line(), "OK");
  ann.send(kBytes);
  EXPECT_EQ(ann.line(), "OK :x");
  ann.send("OFFER size=6 files=1 :y\n");
  bob.wait_for("receive 2 offered .*");
  peer->let_pass(121);
  EXPECT_EQ(ann.line().substr(0, 11), "NO timeout ");
  bob.wait_for("receive 2 failed ann@\\S+ 6 bytes, you did not answer within 120 s: y");
}

TEST_F(Limits, AnOffersAnswerIsWaitedForFor250Seconds) {
  start_ann();
  Process& ann = peer->process();
  {
    Socket bob = take_offer();
    expect_patience(240);
    take_bytes(bob);
    bob.send("OK :x\n");
    ann.wait_for("send 1 delivered .*");
  }
  const Socket silent = take_offer();
  peer->let_pass(251);
  ann.wait_for("send 2 failed \\S+ 6 bytes, no answer in time: x");
}

// It is read a MiB at a time: three times here.
TEST_F(Limits, WhatIsLeftOfAnEarlierTryIsReadForTwoMinutesAtMost) {
  start_bob("always");
  const std::string left(2'097'153, 'x');
  const std::string part = peer->folder().write("downloads/x.127.0.0.1.part", left);
  const std::string sum = cksum(part);
  const std::string crc = sum.substr(0, sum.find(' '));
  for (const auto& [seconds, answer] : {std::pair(41, std::string("OK")),
                                        {36, "OK entries=1 offset=2097153 crc=" + crc}}) {
    peer->slow_down_reading(seconds);
    {
      Socket ann = call_bob();
      ann.send("OFFER size=2097153 files=1 :x\n");
      EXPECT_EQ(ann.line(), answer);
    }
    peer->process().wait_for("receive . failed .*");
  }
}

TEST_F(Limits, ASenderMayThinkFor130SecondsAboutTheBeginningThatIsThere) {
  start_bob("always");
  peer->folder().write("downloads/x.127.0.0.1.part", "hel");
  Socket ann = call_bob();
  ann.send("OFFER size=6 files=1 :x\n");
  EXPECT_EQ(ann.line(), "OK entries=1 offset=3 crc=3584098466");
  expect_patience(120);
  ann.send("RESUME\nDATA offset=3 size=3\nlo\nEND size=6 crc=3015617425\n");
  EXPECT_EQ(ann.line(), "OK :x");
  ann.send("OFFER size=6 files=1 :y\n");
  EXPECT_EQ(ann.line(), "OK");
  peer->let_pass(131);
  EXPECT_EQ(ann.line().substr(0, 10), "NO failed ");
  peer->process().wait_for("receive 2 failed ann@\\S+ 6 bytes, the sender fell silent: y");
}

TEST_F(Limits, AReceiverMayTakeFiveMinutesToStoreAFile) {
  start_ann();
  Process& ann = peer->process();
  {
    Socket bob = take_offer();
    take_bytes(bob);
    expect_patience(290);
    bob.send("OK :x\n");
    ann.wait_for("send 1 delivered .*");
  }
  Socket silent = take_offer();
  take_bytes(silent);
  peer->let_pass(301);
  ann.wait_for("send 2 failed \\S+ 6 bytes, no answer in time; it may have arrived: x");
}
