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
}

TEST_F(Smallest, ListsWhoHasAnswered) {
  const Socket yans = Socket::udp(*network, 0, 25300);
  const std::string yan = "id=0123456789abcdef ip=127.0.0.1 port=25300 name=yan group=lab";
  yans.send_to("127.0.0.1", 25253, "ChatByP2P/1 HERE " + yan);
  const std::string question = yans.datagram();
  EXPECT_EQ(question.substr(0, 18), "ChatByP2P/1 HELLO ");
  zoe_->say("/list");
  zoe_->wait_for("users 2");
  yans.send_to("127.0.0.1", 25253, "ChatByP2P/1 HERE " + yan + " to=" + id_in(question));
  zoe_->wait_for("joined yan@127.0.0.1:25300 lab");
  zoe_->say("/list");
  zoe_->wait_for("users 3");
}

TEST_F(Smallest, TalksInBothDirections) {
  ann_->say("/msg zoe 你好, and two  blanks");
  ann_->wait_for("delivered zoe@127.0.0.1:25253: 你好, and two  blanks");
  zoe_->wait_for("message ann@127.0.0.1:25254 private: 你好, and two  blanks");
  zoe_->say("/msg ann Hi!");
  zoe_->wait_for("delivered ann@127.0.0.1:25254: Hi!");
  ann_->wait_for("message zoe@127.0.0.1:25253 private: Hi!");
  zoe_->say("/msg bob Hi!");
  zoe_->wait_for("error: no user is called bob");
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
  ann_->wait_for("send 2 failed zoe@127.0.0.1:25253 7 bytes, .*I cannot store downloads/big.*: big");
  EXPECT_EQ(read_file(folder_.path("downloads/big")), bytes);
  EXPECT_EQ(folder_.names("downloads"), std::vector<std::string>{"big"});
}

TEST_F(Smallest, SaysWhoLeavesAndLeaves) {
  ann_->say("/quit");
  zoe_->wait_for("left ann@127.0.0.1:25254: said bye");
  EXPECT_EQ(ann_->exit_status(), 0);  // it says BYE before it lets go of its port, which bob is to get
  Process& bob = network->peer(0, "bob");
  bob.wait_for("joined zoe@127.0.0.1:25253 lab");
  zoe_->wait_for("joined bob@127.0.0.1:25254 lab");
  zoe_->say("/quit");
  EXPECT_EQ(zoe_->exit_status(), 0);
  bob.wait_for("left zoe@127.0.0.1:25253: said bye");
}

// Nobody else is at that address: its peer has no room, or has hung up.
TEST_F(Smallest, SaysWhyAMessageWasNotDelivered) {
  const Socket yans = Socket::udp(*network, 0, 25300);
  const Socket listener = Socket::tcp_listener(*network, 0, 25300);
  yans.meet("127.0.0.1", 25253, "id=0123456789abcdef ip=127.0.0.1 port=25300 name=yan group=lab");
  zoe_->wait_for("joined yan@127.0.0.1:25300 lab");
  zoe_->say("/msg yan Hi!");
  {
    Socket connection = listener.accept();
    connection.line();
    connection.send("NO busy try again later\n");
    zoe_->wait_for("failed yan@127.0.0.1:25300: its last reply is \"NO busy try again later\"; not delivered: Hi!");
  }
  zoe_->say("/msg yan Hi again!");
  {
    Socket connection = listener.accept();
    connection.line();
  }
  zoe_->wait_for("failed yan@127.0.0.1:25300: its last reply is \"\"; not delivered: Hi again!");
}

// One recv() is no line, and one DATA comes in many.
TEST_F(Smallest, ReadsWhatTheNetworkCutsAndJoins) {
  Socket yans = Socket::tcp(*network, 0, "127.0.0.1", 25253);
  for (const char c : std::string("ChatByP2P/1 HELLO id=0123456789abcdef ip=127.0.0.1 port=25300 name=yan group=lab\r\n"))
    yans.send(std::string(1, c));
  EXPECT_EQ(yans.line().substr(0, 20), "OK ChatByP2P/1 HERE ");
  yans.send("MSG number=1 scope=all :one\r\nMSG number=2 scope=all :two\nOFFER size=6 files=1 :../../hello.txt\n");
  zoe_->wait_for("message yan@127.0.0.1:25300 all: one");
  zoe_->wait_for("message yan@127.0.0.1:25300 all: two");
  for (int i = 0; i < 3; ++i) EXPECT_EQ(yans.line(), "OK");
  yans.send("DATA offset=0 size=4\nhe");
  yans.send("llDATA offset=4 size=2\no");
  yans.send("\nEND size=6 crc=3015617425\n");
  EXPECT_EQ(yans.line(), "OK :hello.txt");
  EXPECT_EQ(read_file(folder_.path("downloads/hello.txt")), "hello\n");
}

TEST_F(Smallest, KeepsNoFileWithAWrongChecksum) {
  Socket yans = Socket::tcp(*network, 0, "127.0.0.1", 25253);
  yans.send("ChatByP2P/1 HELLO id=0123456789abcdef ip=127.0.0.1 port=25300 name=yan group=lab\n");
  yans.line();
  yans.send("OFFER size=6 files=1 :hello.txt\nDATA offset=0 size=6\nHello\nEND size=6 crc=3015617425\n");
  EXPECT_EQ(yans.line(), "OK");
  EXPECT_EQ(yans.line().substr(0, 12), "NO checksum ");
  EXPECT_FALSE(std::filesystem::exists(folder_.path("downloads/hello.txt")));
}

// It drops what makes no sense, and goes on.
TEST_F(Smallest, SurvivesNonsense) {
  const Socket anybody = Socket::udp(*network, 0, 25300);
  const std::string no_peer[] = {"", "\xff\xfe", "ChatByP2P/1 ", "ChatByP2P/1 HERE port=x name= group=",
                                 "ChatByP2P/1 BYE id=0123456789abcdef", "ChatByP2P/2 HERE id=1 name=two group=lab",
                                 "ChatByP2P/1 HERE id=1 name=" + std::string(600, 'x')};
  for (const std::string& one : no_peer) anybody.send_to("127.0.0.1", 25253, one);
  const std::string endings[] = {"\n", "DANCE badly\n", std::string(10'000, 'x') + "\n", "OFFER size=-1 files=1 :a\n",
                                 "OFFER size=99999999999999999999 files=1 :a\n", "OFFER size=6 files=1 :..\n",
                                 "OFFER size=6 files=1 :a/\n", "OFFER size=6 files=1 :a\nDATA size=-1\n",
                                 "OFFER size=6 files=1 :a\nEND\n", "MSG"};
  for (const std::string& one : endings) {
    Socket yans = Socket::tcp(*network, 0, "127.0.0.1", 25253);
    yans.send("ChatByP2P/1 HELLO id=0123456789abcdef ip=127.0.0.1 port=25300 name=yan group=lab\n");
    yans.line();
    yans.send(one);
    yans.end_output();
    while (yans.line_or_end()) {}
  }
  ann_->say("/msg zoe still there?");
  zoe_->wait_for("message ann@127.0.0.1:25254 private: still there\\?");
  zoe_->say("/list");
  zoe_->wait_for("user 1 \\* zoe lab 127.0.0.1:25253");
  zoe_->wait_for("user 2 - ann lab 127.0.0.1:25254");
  zoe_->say("/quit");
  EXPECT_EQ(zoe_->exit_status(), 0);
  EXPECT_EQ(zoe_->count("joined .*"), 1u);  // ann, and nobody else
  EXPECT_FALSE(std::filesystem::exists(folder_.path("downloads/a")));
}

TEST_F(Smallest, TakesNoBytesOfARefusedFileForRequests) {
  Socket yans = Socket::tcp(*network, 0, "127.0.0.1", 25253);
  yans.send("ChatByP2P/1 HELLO id=0123456789abcdef ip=127.0.0.1 port=25300 name=yan group=lab\n");
  EXPECT_EQ(yans.line().substr(0, 20), "OK ChatByP2P/1 HERE ");
  yans.send("OFFER size=6 files=1 :hello.txt\n");
  EXPECT_EQ(yans.line(), "OK");
  yans.send("DATA offset=0 size=7\n");
  EXPECT_EQ(yans.line().substr(0, 10), "NO syntax ");
  yans.send("MSG number=1 :from a file\n");
  EXPECT_TRUE(yans.is_closed());
}

TEST_F(Smallest, SaysInOneSentenceWhyItCannotStart) {
  const std::string program = working_folder() + "/.build/smallest";
  Process nowhere(network->descriptor(0), {program, "--interface", "eth9"}, folder_.path());
  EXPECT_EQ(nowhere.exit_status(), 2);
  nowhere.wait_for("smallest: no such network is up");

  const Network another(1);
  const Socket taken = Socket::udp(another, 0, 25252);
  taken.share_port_no_more();
  Process late(another.descriptor(0), {program}, folder_.path());
  EXPECT_EQ(late.exit_status(), 2);
  late.wait_for("smallest: another program has UDP port 25252");
}
