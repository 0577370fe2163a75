// The smallest peer, docs/smallest/peer.cpp, and ./peer on one host: they find each other, talk, and send a file.

#include <filesystem>

#include "support/testing.h"

class Smallest : public OneHost {
 protected:
  void SetUp() override {
    OneHost::SetUp();
    if (!network) return;
    zoe_ = std::make_unique<Process>(
        network->descriptor(0), std::vector<std::string>{working_folder() + "/.build/smallest", "--name", "zoe", "--group", "lab"},
        folder_.path());
    zoe_->wait_for("ready zoe@127.0.0.1:25253 lab");
    ann_ = &network->peer(0, "ann");
    ann_->wait_for("joined zoe@127.0.0.1:25253 lab");
    zoe_->wait_for("joined ann@127.0.0.1:25254 lab");
  }
  static std::string working_folder() { return std::filesystem::current_path(); }

  Folder folder_;
  std::unique_ptr<Process> zoe_;
  Process* ann_ = nullptr;
};

TEST_F(Smallest, FindsAndListsUs) {
  zoe_->say("/list");
  zoe_->wait_for("user 1 \\* zoe lab 127.0.0.1:25253");
  zoe_->wait_for("user 2 - ann lab 127.0.0.1:25254");
  zoe_->wait_for("users 2");
}

TEST_F(Smallest, TalksInBothDirections) {
  ann_->say("/msg zoe 你好, and two  blanks");
  ann_->wait_for("delivered zoe@127.0.0.1:25253: 你好, and two  blanks");
  zoe_->wait_for("message ann@127.0.0.1:25254 private: 你好, and two  blanks");
  zoe_->say("/msg ann Hi!");
  zoe_->wait_for("delivered ann@127.0.0.1:25254: Hi!");
  ann_->wait_for("message zoe@127.0.0.1:25253 private: Hi!");
  zoe_->say("/msg bob Hi!");
  zoe_->wait_for("error: no user is called bob; .*");
}

TEST_F(Smallest, ReceivesAFileAsItWasAndReplacesNone) {
  const Folder here;
  const std::string bytes = random_bytes(3'000'001, 5);
  const std::string path = here.write("big", bytes);
  ann_->say("/send zoe " + path);
  ann_->wait_for("send 1 delivered zoe@127.0.0.1:25253 3000001 bytes, cksum \\d+: big");
  zoe_->wait_for("receive 1 stored ann@127.0.0.1:25254 3000001 bytes: downloads/big");
  EXPECT_EQ(read_file(folder_.path("downloads/big")), bytes);
  here.write("big", "another");
  ann_->say("/send zoe " + path);
  ann_->wait_for("send 2 failed zoe@127.0.0.1:25253 7 bytes, .*File exists.*: big");
  EXPECT_EQ(read_file(folder_.path("downloads/big")), bytes);
  EXPECT_EQ(folder_.names("downloads"), std::vector<std::string>{"big"});
}

TEST_F(Smallest, SaysWhoLeavesAndLeaves) {
  ann_->say("/quit");
  zoe_->wait_for("left ann@127.0.0.1:25254: said bye");
  Process& bob = network->peer(0, "bob");
  bob.wait_for("joined zoe@127.0.0.1:25253 lab");
  zoe_->wait_for("joined bob@127.0.0.1:25254 lab");
  zoe_->say("/quit");
  EXPECT_EQ(zoe_->exit_status(), 0);
  bob.wait_for("left zoe@127.0.0.1:25253: said bye");
}
