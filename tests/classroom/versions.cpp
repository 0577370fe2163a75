// Two peers on two hosts: each way of finding each other alone, then messages and a file, in both
// directions. tests/older.sh has one of the two played by a program of an earlier commit.

#include "support/testing.h"

class Versions : public testing::Test {
 protected:
  void SetUp() override {
    NEEDS_NAMESPACES();
    begin();
  }
  void begin() { network_ = std::make_unique<Network>(2); }

  // What fits the rule of nft is dropped until let_in().
  void keep_out(const std::string& rule) {
    for (const int host : {1, 2}) network_->drop(host, "input", rule);
  }
  void let_in() {
    for (const int host : {1, 2}) network_->run(host, "nft flush ruleset");
  }

  void start_ann() {
    ann_ = &network_->peer(1, "ann", {"--accept", "always"});
    ann_->wait_for("ready ann@10.77.0.1:25253 lab");
  }
  void start_bob() {
    bob_ = &network_->peer(2, "bob", {"--accept", "always"});
    bob_->wait_for("ready bob@10.77.0.2:25253 lab");
  }

  bool are_listed_within_a_second() {
    return ann_->prints("joined bob@10.77.0.2:25253 lab", 1) && bob_->prints("joined ann@10.77.0.1:25253 lab", 1);
  }
  void expect_both_listed() {
    ann_->wait_for("joined bob@10.77.0.2:25253 lab");
    bob_->wait_for("joined ann@10.77.0.1:25253 lab");
  }

  void expect_talk_and_a_file(Process& from, const std::string& name, Process& to) {
    const std::string other = name == "ann" ? "bob" : "ann";
    from.say("/msg " + other + " from " + name);
    from.wait_for("delivered " + other + "@\\S+: from " + name);
    to.wait_for("message " + name + "@\\S+ private: from " + name);
    const std::string file = "of " + name;
    const std::string sent = network_->folder(name).write(file, random_bytes(3'000'001, 5));
    from.say("/send " + other + " " + file);
    from.wait_for("send \\d delivered .*");
    const std::string received = network_->folder(other).path("downloads/" + file);
    EXPECT_EQ(cksum(received), cksum(sent));
  }

  void expect_all_works() {
    expect_talk_and_a_file(*ann_, "ann", *bob_);
    expect_talk_and_a_file(*bob_, "bob", *ann_);
    EXPECT_FALSE(ann_->prints("left .*", 17));  // each goes on to hear the other
    EXPECT_EQ(bob_->count("left .*"), 0u);
    bob_->say("/quit");
    ann_->wait_for("left bob@10.77.0.2:25253: said bye");
  }

  std::unique_ptr<Network> network_;
  Process* ann_ = nullptr;
  Process* bob_ = nullptr;
};

TEST_F(Versions, FindEachOtherByTheFirstHelloWhoeverComesFirst) {
  EXPECT_TRUE(in_three_tries([this] {
    begin();
    start_ann();
    start_bob();
    return are_listed_within_a_second();
  }));
  expect_both_listed();
  expect_all_works();
}

TEST_F(Versions, FindEachOtherByAHeartbeat) {
  keep_out("meta l4proto udp");
  start_ann();
  start_bob();
  EXPECT_FALSE(ann_->prints("joined .*", 11));  // until all that is said at the start is over
  let_in();
  expect_both_listed();
  expect_all_works();
}

TEST_F(Versions, FindEachOtherByAScan) {
  keep_out("meta l4proto udp");
  start_ann();
  start_bob();
  EXPECT_FALSE(ann_->prints("joined .*", 11));
  let_in();
  keep_out("meta pkttype broadcast");
  ann_->say("/scan 10.77.0.2");
  expect_both_listed();
  expect_all_works();
}
