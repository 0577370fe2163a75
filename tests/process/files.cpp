// Files between real processes, and with senders and receivers written by hand.

#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <regex>

#include "support/testing.h"

namespace {
const std::string kAnn = "ChatByP2P/1 HELLO id=00000000000000aa ip=127.0.0.1 port=40000 name=ann group=lab\n";
}

class Files : public OneHost {
 protected:
  // ann, who sends, and bob, who has found her; bob with these options.
  void meet(const std::vector<std::string>& options) {
    bob = &network->peer(0, "bob", options);
    ann = &network->peer(0, "ann");
    ann->wait_for("joined bob.*");
    bob->wait_for("joined ann.*");
  }
  std::string downloaded(const std::string& name) const { return network->folder("bob").path("downloads/" + name); }

  Process *ann = nullptr, *bob = nullptr;
};

TEST_F(Files, OfEveryKindOfNameArriveWhole) {
  meet({"--accept", "always"});
  const std::vector<std::pair<std::string, size_t>> files = {
      {"with blanks in it.txt", 1000}, {"文件 📎.bin", 100'000}, {"-rf", 10}, {"empty", 0}, {".hidden", 5}};
  for (const auto& [name, size] : files) {
    const std::string sent = network->folder("ann").write(name, random_bytes(size, 7));
    ann->say("/send bob " + name);
    ann->wait_for("send \\d+ delivered bob@\\S+ " + std::to_string(size) + " bytes, cksum \\d+: .*");
    bob->wait_for("receive \\d+ stored ann@\\S+ " + std::to_string(size) + " bytes, cksum \\d+: downloads/.*");
    EXPECT_EQ(cksum(downloaded(name)), cksum(sent)) << name;
  }
  EXPECT_EQ(network->folder("bob").names("downloads").size(), files.size());  // and no .part is left
}

TEST_F(Files, NeverReplaceOneThatIsThere) {
  meet({"--accept", "always"});
  network->folder("bob").write("downloads/report.pdf", "mine");
  network->folder("ann").write("report.pdf", "hers");
  for (int i = 1; i <= 2; ++i) {
    ann->say("/send bob report.pdf");
    ann->wait_for("send \\d+ delivered .*: report \\(" + std::to_string(i) + "\\).pdf");
    EXPECT_EQ(read_file(downloaded("report (" + std::to_string(i) + ").pdf")), "hers");
  }
  EXPECT_EQ(read_file(downloaded("report.pdf")), "mine");
}

TEST_F(Files, AreAskedForAndMayBeTakenUnderAnotherNameOrRejected) {
  meet({});
  network->folder("ann").write("a.txt", "hello\n");
  ann->say("/send bob a.txt");
  ann->wait_for("send 1 offered bob@\\S+ 6 bytes: a.txt");
  bob->wait_for("receive 1 offered ann@\\S+ 6 bytes: a.txt");
  bob->say("/transfers");
  bob->wait_for("receive 1 offered ann@\\S+ 6 bytes: a.txt");
  bob->wait_for("transfers 1");
  bob->say("/accept 1 ../b.txt");
  bob->wait_for("error: '../b.txt' is not a file name; .*");
  bob->say("/accept 1 b c.txt");
  bob->wait_for("receive 1 started .*");
  bob->wait_for("receive 1 stored ann@\\S+ 6 bytes, cksum 3015617425: downloads/b c.txt");
  ann->wait_for("send 1 delivered bob@\\S+ 6 bytes, cksum 3015617425: b c.txt");
  ann->say("/send bob a.txt");
  bob->wait_for("receive 2 offered .*");
  bob->say("/reject 2");
  ann->wait_for("send 2 failed bob@\\S+ \\d+ bytes, the user does not want it: a.txt");
  bob->wait_for("receive 2 failed ann@\\S+ \\d+ bytes, the user does not want it: a.txt");
  bob->say("/accept 2");
  bob->wait_for("error: there is no transfer '2'; .*");
  EXPECT_EQ(network->folder("bob").names("downloads"), std::vector<std::string>{"b c.txt"});
}

TEST_F(Files, AreRefusedByWhoNeverAcceptsAny) {
  meet({"--accept=never"});
  network->folder("ann").write("a.txt", "hello\n");
  ann->say("/send bob a.txt");
  ann->wait_for("send 1 failed bob@\\S+ \\d+ bytes, this user accepts no files: a.txt");
  bob->wait_for("receive 1 failed ann@\\S+ \\d+ bytes, this user accepts no files: a.txt");
  ann->end_input();
  EXPECT_EQ(ann->exit_status(), 1);
}

TEST_F(Files, GoInBothDirectionsAtOnceAndHoldUpNoMessage) {
  meet({"--accept", "always"});
  ann->say("/quit");
  ann->exit_status();
  ann = &network->peer(0, "ann2", {"--accept", "always"});
  ann->wait_for("joined bob.*");
  bob->wait_for("joined ann2.*");
  for (const char* name : {"1", "2", "3"}) {
    network->folder("ann2").write(std::string("a") + name, random_bytes(5'000'000, 1));
    network->folder("bob").write(std::string("b") + name, random_bytes(5'000'000, 2));
    ann->say(std::string("/send bob a") + name);
    bob->say(std::string("/send ann2 b") + name);
  }
  ann->say("/msg bob in between");
  bob->wait_for("message ann2@\\S+ private: in between");
  EXPECT_TRUE(eventually(20, [&] { return ann->count("send \\d delivered .*") == 3 && bob->count("send \\d delivered .*") == 3; }));
  for (const char* name : {"1", "2", "3"}) {
    EXPECT_EQ(read_file(downloaded(std::string("a") + name)), random_bytes(5'000'000, 1));
    EXPECT_EQ(read_file(network->folder("ann2").path(std::string("downloads/b") + name)), random_bytes(5'000'000, 2));
  }
}

TEST_F(Files, ThatCannotBeReadAreNamedAtOnce) {
  meet({});
  ::mkfifo(network->folder("ann").path("fifo").c_str(), 0600);
  for (const auto& [what, why] : std::vector<std::pair<std::string, std::string>>{
           {"nowhere.txt", "cannot read nowhere.txt: No such file or directory"},
           {"downloads", "downloads is not a file; only files can be sent"},
           {"fifo", "fifo is not a file; only files can be sent"},
           {"", "which file\\? /send WHO PATH"}}) {
    ann->say("/send bob " + what);
    ann->wait_for("error: " + why);
  }
}

TEST_F(Files, AreCancelledFromEitherSideAndTheOtherIsTold) {
  meet({});
  network->folder("ann").write("a", "hello\n");
  ann->say("/send bob a");
  bob->wait_for("receive 1 offered .*");
  ann->say("/cancel 1");
  ann->wait_for("send 1 failed bob@\\S+ \\d+ bytes, cancelled: a");
  bob->wait_for("receive 1 failed ann@\\S+ \\d+ bytes, the other user has cancelled it: a");
  ann->say("/send bob a");
  bob->wait_for("receive 2 offered .*");
  bob->say("/cancel 2");
  ann->wait_for("send 2 failed bob@\\S+ \\d+ bytes, the other user has cancelled it: a");
  bob->wait_for("receive 2 failed ann@\\S+ \\d+ bytes, .*: a");
}

TEST_F(Files, ThatTheirSenderCouldNotFinishLeaveNothingBehind) {
  meet({"--accept", "always", "--port", "25301"});
  const std::vector<std::pair<std::string, std::string>> ends = {
      {"DATA offset=0 size=6\nhel", "the connection ended in the middle of the file"},
      {"DATA offset=0 size=6\nhello\n", "the sender has gone"},
      {"DATA offset=0 size=6\nhello\nEND size=6 crc=1\n", "the file did not arrive as it was sent"},
      {"END size=0 crc=4294967295\n", "the file did not arrive as it was sent"},
      {"DATA offset=0 size=7\nhello!\n", "DATA or END was expected, .*"},
      {"DATA offset=3 size=3\nlo\n", "DATA or END was expected, .*"},
      {"DATA offset=0 size=-1\n", "DATA or END was expected, .*"},
      {"STOP :the dog ate it\n", "the dog ate it"}};
  int number = 0;
  for (const auto& [rest, why] : ends) {
    Socket sender = Socket::tcp(*network, 0, "127.0.0.1", 25301);
    sender.send(kAnn + "OFFER size=6 files=1 :x\n");
    sender.line();
    EXPECT_EQ(sender.line(), "OK");
    sender.send(rest);
    { const Socket closed = std::move(sender); }
    bob->wait_for("receive " + std::to_string(++number) + " failed ann@\\S+ \\d+ bytes, " + why + ": x");
  }
  EXPECT_TRUE(network->folder("bob").names("downloads").empty());
}

TEST_F(Files, WithHostileNamesStayInTheFolderOrAreRefused) {
  meet({"--accept", "always", "--port", "25301"});
  ::symlink("/etc/passwd", downloaded("link").c_str());
  ::symlink("/etc/passwd", downloaded("next.part").c_str());
  const auto offer = [&](const std::string& name) {
    Socket sender = Socket::tcp(*network, 0, "127.0.0.1", 25301);
    sender.send(kAnn + "OFFER size=6 files=1 :" + name + "\n");
    sender.line();
    const std::string answer = sender.line();
    if (answer != "OK") return answer;
    sender.send("DATA offset=0 size=6\nhello\nEND size=6 crc=3015617425\n");
    return sender.line();
  };
  EXPECT_EQ(offer("../../outside"), "OK :outside");
  EXPECT_EQ(offer("/etc/passwd"), "OK :passwd");
  EXPECT_EQ(offer("link"), "OK :link (1)");
  EXPECT_EQ(offer("next"), "OK :next");
  EXPECT_EQ(offer(std::string(255, 'n')), "OK :" + std::string(255, 'n'));
  for (const std::string& name : std::vector<std::string>{"", ".", "..", "a/..", "a/", "tab\there"})
    EXPECT_EQ(offer(name).substr(0, 7), "NO name") << name;
  EXPECT_EQ(offer(std::string(256, 'n')).substr(0, 7), "NO name");
  EXPECT_EQ(offer("a\x1b[2Jb").substr(0, 7), "NO text");
  EXPECT_EQ(network->folder("bob").names(), (std::vector<std::string>{"downloads"}));
  EXPECT_EQ(network->folder("bob").names("downloads").size(), 7u);
}

TEST_F(Files, LargerThanTheFreeSpaceAreRefusedWithTheSpaceThereIs) {
  meet({"--accept", "always", "--port", "25301"});
  Socket sender = Socket::tcp(*network, 0, "127.0.0.1", 25301);
  sender.send(kAnn + "OFFER size=9000000000000000000 files=1 :huge\n");
  sender.line();
  EXPECT_TRUE(std::regex_match(sender.line(), std::regex("NO space only \\d+ bytes are free")));
  bob->wait_for("receive 1 failed ann@\\S+ \\d+ bytes, only \\d+ bytes are free: huge");
}

TEST_F(Files, AreNotDeliveredByAnOkThatComesTooEarlyAndANoIsHeardMidway) {
  Process& sender = network->peer(0, "ann");
  const Socket listener = Socket::tcp_listener(*network, 0, 40001);
  network->folder("ann").write("big", random_bytes(50'000'000, 3));
  for (const std::string reply : {"OK :big", "NO failed the disk is full"}) {
    sender.say("/send 127.0.0.1:40001 big");
    Socket receiver = listener.accept();
    receiver.line();
    receiver.send("OK ChatByP2P/1 HERE id=00000000000000bb ip=127.0.0.1 port=40001 name=bob group=lab\n");
    receiver.line();
    receiver.send("OK\n" + reply + "\n");
    const std::string why = reply[0] == 'O' ? ":big" : "the disk is full";
    sender.wait_for("send \\d failed \\S+ 50000000 bytes, refused: " + why + ": big");
  }
  EXPECT_EQ(sender.count("send . delivered .*"), 0u);
}

TEST_F(Files, WhoseReceiverIsKilledAreNotReportedAsDelivered) {
  Process& sender = network->peer(0, "ann");
  const Socket listener = Socket::tcp_listener(*network, 0, 40001);
  network->folder("ann").write("big", random_bytes(50'000'000, 3));
  sender.say("/send 127.0.0.1:40001 big");
  {
    Socket receiver = listener.accept();
    receiver.line();
    receiver.send("OK ChatByP2P/1 HERE id=00000000000000bb ip=127.0.0.1 port=40001 name=bob group=lab\n");
    EXPECT_EQ(receiver.line(), "OFFER size=50000000 files=1 :big");
    receiver.send("OK\n");
    EXPECT_EQ(receiver.line(), "DATA offset=0 size=262144");
  }
  sender.wait_for("send 1 failed \\S+ 50000000 bytes, .*: big");
  EXPECT_EQ(sender.count("send 1 delivered .*"), 0u);
}
