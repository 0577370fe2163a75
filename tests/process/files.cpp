// Files between real processes, and with senders and receivers written by hand.

#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <memory>
#include <regex>
#include <thread>

#include "support/testing.h"

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

  size_t downloaded_size(const std::string& name) const {  // 0 if it is not there
    struct stat info{};
    return ::stat(downloaded(name).c_str(), &info) == 0 ? static_cast<size_t>(info.st_size) : 0;
  }

  // A sender written by hand: offers, and when it was accepted, sends `rest`.
  Socket offer(const std::string& what, const std::string& rest) const {
    Socket sender = Socket::tcp(*network, 0, "127.0.0.1", 25301);
    sender.send(kAnnsHello + "OFFER " + what + "\n");
    sender.line();
    EXPECT_EQ(sender.line().substr(0, 2), "OK");
    sender.send(rest);
    return sender;
  }
  // The CRC of those bytes, by the system's own command.
  std::string checksum(const std::string& bytes) const {
    const Folder scratch;
    const std::string printed = cksum(scratch.write("bytes", bytes));
    return printed.substr(0, printed.find(' '));
  }
  // A receiver written by hand, to whom something is offered: takes it, and says `answer`.
  Socket take(const Socket& listener, const std::string& answer) const {
    Socket receiver = listener.accept();
    receiver.line();
    receiver.send(kBobsReply);
    receiver.line();
    receiver.send(answer);
    return receiver;
  }

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

// Many disks of Macs and all sticks take "Notes" and "notes" for one name.
TEST_F(Files, NeverReplaceOneWhoseNameDiffersOnlyInItsCase) {
  meet({"--accept", "always"});
  network->folder("bob").write("downloads/notes", "mine");
  network->folder("ann").write("Notes", "hers");
  ann->say("/send bob Notes");
  const std::string name = ann->wait_for("send \\d+ delivered .*: Notes.*");
  EXPECT_EQ(read_file(downloaded(name.substr(name.find(": Notes") + 2))), "hers");
  EXPECT_EQ(read_file(downloaded("notes")), "mine");
  EXPECT_EQ(network->folder("bob").names("downloads").size(), 2u);
}

TEST_F(Files, OfAFolderWhoseNamesDifferOnlyInTheirCaseReplaceNoneOfThem) {
  meet({"--accept", "always"});
  const std::string folder = network->folder("ann").path("x");
  network->run(0, "mkdir " + folder + " && echo one >" + folder + "/README && echo two >" + folder + "/readme");
  ann->say("/send bob x");
  const std::string told = ann->wait_for("send \\d+ delivered .*: x/");
  EXPECT_EQ(read_file(downloaded("x/README")), "one\n");  // it comes first
  const bool is_left_out = told.find("not stored: readme (File exists)") != std::string::npos;
  EXPECT_EQ(read_file(downloaded("x/readme")), is_left_out ? "" : "two\n");
}

TEST_F(Files, ThatCanBeRunCanBeRunWhereTheyArrive) {
  meet({"--accept", "always", "--port", "25301"});
  network->run(0, "cd " + network->folder("ann").path() + " && printf '#!/bin/sh\n' | tee run text && chmod 750 run");
  for (const char* name : {"run", "text"}) {
    ann->say(std::string("/send bob ") + name);
    ann->wait_for(std::string("send \\d delivered .*: ") + name);
  }
  network->run(0, "test -x " + downloaded("run") + " && ! test -x " + downloaded("text"));
  // Resumed, too; and no more than his umask allows, which left the file of the earlier try for him alone.
  network->run(0, "cd " + network->folder("bob").path("downloads") + " && printf '#!/' >run.127.0.0.1.part && "
                      "chmod 600 run.127.0.0.1.part");
  ann->say("/send bob run");
  ann->wait_for("send 3 started .*, resumed at 3: run");
  ann->wait_for("send 3 delivered .*: run \\(1\\)");
  network->run(0, "test $(stat -c %a '" + downloaded("run (1)") + "') = 700");
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
  bob->wait_for("error: " + wording("bob", "'../b.txt' is not a file name; .*"));
  bob->say("/accept 1 b c.txt");
  bob->wait_for("receive 1 started .*");
  bob->wait_for("receive 1 stored ann@\\S+ 6 bytes, cksum 3015617425: downloads/b c.txt");
  ann->wait_for("send 1 delivered bob@\\S+ 6 bytes, cksum 3015617425: b c.txt");
  ann->say("/send bob a.txt");
  bob->wait_for("receive 2 offered .*");
  bob->say("/reject 2");
  ann->wait_for("send 2 failed bob@\\S+ \\d+ bytes, " + wording("bob", "the user does not want it") + ": a.txt");
  bob->wait_for("receive 2 failed ann@\\S+ \\d+ bytes, " + wording("bob", "you have rejected it") + ": a.txt");
  bob->say("/accept 2");
  bob->wait_for("error: " + wording("bob", "there is no transfer '2'; .*"));
  EXPECT_EQ(network->folder("bob").names("downloads"), std::vector<std::string>{"b c.txt"});
}

TEST_F(Files, OfAFolderAreTakenUnderTheNameThatItIsGiven) {
  meet({});
  network->run(0, "cd " + network->folder("ann").path() + " && mkdir -p photos/2026 && echo 1 > photos/2026/1");
  ann->say("/send bob photos");
  bob->wait_for("receive 1 offered ann@\\S+ 2 bytes in 2 files and folders: photos/");
  bob->say("/accept 1 anns photos");
  const std::string what = "2 bytes in 2 files and folders, cksum \\d+: ";
  bob->wait_for("receive 1 stored ann@\\S+ " + what + "downloads/anns photos/");
  ann->wait_for("send 1 delivered bob@\\S+ " + what + "anns photos/");
  network->run(0, "diff -r " + network->folder("ann").path("photos") + " '" + downloaded("anns photos") + "'");
  EXPECT_EQ(network->folder("bob").names("downloads"), std::vector<std::string>{"anns photos"});
}

TEST_F(Files, NeedNoNumberWhereOnlyOneCanBeMeant) {
  meet({});
  network->folder("ann").write("a.txt", "hello\n");
  network->folder("ann").write("b.txt", "hello\n");
  bob->say("/accept");
  bob->wait_for("error: " + wording("bob", "there is nothing to accept; /transfers lists what is under way"));
  ann->say("/send bob a.txt");
  bob->wait_for("receive 1 offered .*");
  ann->say("/send bob b.txt");
  bob->wait_for("receive 2 offered .*");
  for (const std::string command : {"/accept", "/reject", "/cancel"}) {
    bob->say(command);
    bob->wait_for("error: " + wording("bob", "which one\\? write " + command + " N; /transfers shows each with its N"));
  }
  bob->say("/reject 2");
  bob->wait_for("receive 2 failed .*");
  bob->say("/accept 2");  // a number is a number
  bob->wait_for("error: " + wording("bob", "there is no transfer '2'; .*"));
  bob->say("/accept c.txt");  // and what stands in its place is none
  bob->wait_for("error: " + wording("bob", "there is no transfer 'c.txt'; .*"));
  bob->say("/accept");
  bob->wait_for("receive 1 stored .*: downloads/a.txt");
  ann->wait_for("send 1 delivered .*");
  ann->say("/send bob b.txt");
  bob->wait_for("receive 3 offered .*");
  ann->say("/cancel");
  ann->wait_for("send 3 failed .*" + wording("ann", "cancelled") + ": b.txt");
  bob->wait_for("receive 3 failed .*");
}

TEST_F(Files, GoToWhomOneHasChosenUnlessTheFirstWordNamesAUser) {
  meet({});
  const Folder& folder = network->folder("ann");
  for (const char* name : {"a b.txt", "bob", "1"}) folder.write(name, "hello\n");
  ann->say("/send a b.txt");
  ann->wait_for("error: " + wording("ann", "to whom\\? /send WHO a b.txt"));
  ann->say("/send bbo a b.txt");
  ann->wait_for("error: " + wording("ann", "nobody called bbo is online; /list shows who is"));
  ann->say("/to bob");
  ann->say("/send a b.txt");
  bob->wait_for("receive 1 offered ann@\\S+ 6 bytes: a b.txt");
  ann->say("/list");
  ann->wait_for("users 2");
  ann->say("/send bob");
  ann->wait_for("error: " + wording("ann", "which file\\? /send WHO PATH"));
  ann->say("/send 1");  // a number of /list, though there is such a file
  ann->wait_for("error: " + wording("ann", "1 is you"));
  ann->say("/send ann a b.txt");
  ann->wait_for("error: " + wording("ann", "ann is you"));
  ann->say("/send bbo a b.txt");
  ann->wait_for("error: " + wording("ann", "nobody called bbo is online, and there is no file bbo a b.txt"));
  ann->say("/send ./bob");
  bob->wait_for("receive 2 offered ann@\\S+ 6 bytes: bob");
  bob->say("/quit");
  ann->wait_for("left bob@.*");
  ann->say("/send a b.txt");
  ann->wait_for("error: " + wording("ann", "bob@\\S+ has left; /to WHO chooses another"));
}

TEST_F(Files, AreRefusedByWhoNeverAcceptsAny) {
  meet({"--accept=never"});
  network->folder("ann").write("a.txt", "hello\n");
  ann->say("/send bob a.txt");
  ann->wait_for("send 1 failed bob@\\S+ \\d+ bytes, " + wording("bob", "this user accepts no files") + ": a.txt");
  bob->wait_for("receive 1 failed ann@\\S+ \\d+ bytes, " + wording("bob", "you accept no files") + ": a.txt");
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
  EXPECT_TRUE(eventually([&] { return ann->count("send \\d delivered .*") == 3 && bob->count("send \\d delivered .*") == 3; }));
  for (const char* name : {"1", "2", "3"}) {
    EXPECT_EQ(read_file(downloaded(std::string("a") + name)), random_bytes(5'000'000, 1));
    EXPECT_EQ(read_file(network->folder("ann2").path(std::string("downloads/b") + name)), random_bytes(5'000'000, 2));
  }
}

TEST_F(Files, ThatCannotBeReadAreNamedAtOnce) {
  meet({});
  ::mkfifo(network->folder("ann").path("fifo").c_str(), 0600);
  const std::string marked = network->folder("ann").write("a\u200e", "hello\n");  // a mark, which nobody sees
  for (const auto& [what, why] : std::vector<std::pair<std::string, std::string>>{
           {"nowhere.txt", "cannot read nowhere.txt: No such file or directory"},
           {"~nobody/x", "cannot read ~nobody/x: No such file or directory"},
           {"\"x\"", "cannot read x: No such file or directory"},
           {"fifo", "fifo is not a file or a folder"},
           {"..", ".. has no name of its own; write its full path"},
           {"/", "/ has no name; send a folder that is in it"},
           {marked, ".*/a\\\\xe2\\\\x80\\\\x8e has a character that cannot be sent; rename it"},
           {"", "which file\\? /send WHO PATH"}}) {
    ann->say("/send bob " + what);
    ann->wait_for("error: " + why);
  }
}

TEST_F(Files, AreFoundByPathsAsPeoplePasteThem) {
  const Folder home;
  home.write("my notes", "at home\n");
  ::setenv("HOME", home.path().c_str(), 1);
  bob = &network->peer(0, "bob", {"--accept", "always", "--dir", "'got it' "});
  ann = &network->peer(0, "ann");
  ann->wait_for("joined bob.*");
  const Folder& folder = network->folder("ann");
  folder.write("a report", "a report\n");
  folder.write("'quoted'", "a name with quotes\n");
  folder.write("quoted", "not this one\n");
  const std::vector<std::pair<std::string, std::string>> all = {
      {"~/my notes", "at home\n"},  {"'a report' ", "a report\n"},
      {"a\\ report", "a report\n"}, {"\"a report\"", "a report\n"}, {"a report ", "a report\n"},
      {"'quoted'", "a name with quotes\n"}};
  for (const auto& [typed, content] : all) {
    ann->say("/send bob " + typed);
    const std::string line = bob->wait_for("receive \\d+ stored .*: got it/.*");
    const size_t colon = line.rfind(": ");
    ASSERT_NE(colon, std::string::npos) << typed;
    EXPECT_EQ(read_file(network->folder("bob").path(line.substr(colon + 2))), content) << typed;
  }
}

TEST_F(Files, AreCancelledFromEitherSideAndTheOtherIsTold) {
  meet({});
  network->folder("ann").write("a", "hello\n");
  // What is said to the user of one who cancels, and to the other's.
  const auto own = [](const std::string& who) { return wording(who, "cancelled") + ": a"; };
  const auto others = [](const std::string& who) { return wording(who, "the other user has cancelled it") + ": a"; };
  ann->say("/send bob a");
  bob->wait_for("receive 1 offered .*");
  ann->say("/cancel 1");
  ann->wait_for("send 1 failed bob@\\S+ \\d+ bytes, " + own("ann"));
  bob->wait_for("receive 1 failed ann@\\S+ \\d+ bytes, " + others("ann"));
  ann->say("/send bob a");
  bob->wait_for("receive 2 offered .*");
  bob->say("/cancel 2");
  ann->wait_for("send 2 failed bob@\\S+ \\d+ bytes, " + others("bob"));
  bob->wait_for("receive 2 failed ann@\\S+ \\d+ bytes, " + own("bob"));
  ann->say("/send bob a");
  bob->wait_for("receive 3 offered .*");
  bob->say("/quit");
  ann->wait_for("send 3 failed bob@\\S+ \\d+ bytes, " + wording("bob", "the other user has left") + ": a");
}

// Of a file that is offered, so much has to be free, though little of it comes.
#define NEEDS_SPACE(gigabytes)                                                                   \
  if (std::filesystem::space("/tmp").available < (gigabytes) * 1'000'000'000ull)                 \
  GTEST_SKIP() << #gigabytes " GB have to be free in /tmp"

TEST_F(Files, AreCancelledMidwayFromEitherSideAndTheNextOneArrives) {
  meet({"--accept", "always"});
  NEEDS_SPACE(22);
  network->run(0, "truncate -s 20G " + network->folder("ann").path("big"));
  network->folder("ann").write("x", "hello\n");
  for (const Process* who : {ann, bob}) {
    ann->say("/send bob big");
    ann->wait_for("send \\d started .*: big");
    bob->wait_for("receive \\d started .*: big");
    who->say("/cancel");
    ann->wait_for("send \\d failed bob@\\S+ 21474836480 bytes, .*: big");
    bob->wait_for("receive \\d failed ann@\\S+ 21474836480 bytes, .*: big");
  }
  ann->say("/send bob x");
  ann->wait_for("send 3 delivered bob@\\S+ 6 bytes, cksum 3015617425: x");
  EXPECT_EQ(read_file(downloaded("x")), "hello\n");
  EXPECT_NE(::access(downloaded("big").c_str(), F_OK), 0);
}

TEST_F(Files, ThatWaitForAnAnswerHaveEachItsOwnAndHoldUpNoMessage) {
  meet({});
  for (const std::string name : {"1", "2", "3"}) {
    network->folder("ann").write(name, "hello\n");
    ann->say("/send bob " + name);
    bob->wait_for("receive " + name + " offered ann@\\S+ 6 bytes: " + name);
  }
  ann->say("/msg bob I take back the third");
  bob->wait_for("message ann@\\S+ private: I take back the third");
  ann->say("/cancel 3");
  bob->wait_for("receive 3 failed .*: 3");
  bob->say("/reject 1");
  ann->wait_for("send 1 failed .*: 1");
  bob->say("/msg ann I take the second");
  ann->wait_for("message bob@\\S+ private: I take the second");
  bob->say("/accept 2");
  ann->wait_for("send 2 delivered .*: 2");
  bob->wait_for("receive 2 stored .*: downloads/2");
  EXPECT_EQ(network->folder("bob").names("downloads"), std::vector<std::string>{"2"});
}

// Entries without bytes, one behind the other without a pause: the receiver never waits.
class FilesWithoutEnd : public Files {
 protected:
  void SetUp() override {
    Files::SetUp();
    if (IsSkipped()) return;
    meet({"--accept", "always", "--port", "25301"});
    sender = std::make_unique<Socket>(offer("size=0 files=100000000 :photos/", ""));
    feeder = std::thread([this] {
      for (int i = 100'000'000; sender->send("FILE :" + std::to_string(i) + "\n");) ++i;
    });
    EXPECT_TRUE(eventually([&] { return ::access(downloaded("photos.127.0.0.1.part/100001000").c_str(), F_OK) == 0; }));
  }
  void TearDown() override {
    if (!feeder.joinable()) return;
    if (HasFailure()) bob->signal(SIGKILL);  // or it would be fed for ever
    feeder.join();
  }
  std::unique_ptr<Socket> sender;
  std::thread feeder;
};

TEST_F(FilesWithoutEnd, AreCancelledAtOnce) {
  bob->say("/cancel 1");
  bob->wait_for("receive 1 failed ann@\\S+ 0 bytes in 100000000 files and folders, cancelled: photos/");
  EXPECT_EQ(sender->line(), "NO cancelled the other user has cancelled it");
  sender->end_output();  // or bob reads on for as long as he does so that his NO arrives
  EXPECT_TRUE(eventually([&] { return network->folder("bob").names("downloads").empty(); }));
}

TEST_F(FilesWithoutEnd, HoldUpNobodyWhoLeaves) {
  bob->signal(SIGTERM);
  bob->wait_for("receive 1 failed ann@\\S+ 0 bytes in 100000000 files and folders, cancelled: photos/");
  EXPECT_EQ(bob->exit_status(), 0);
}

TEST_F(Files, ThatTheirSenderCouldNotFinishAreNotStored) {
  meet({"--accept", "always", "--port", "25301"});
  const std::vector<std::pair<std::string, std::string>> ends = {
      {"DATA offset=0 size=6\nhello\nEND size=6 crc=1\n", "the file did not arrive as it was sent"},
      {"END size=0 crc=4294967295\n", "the file did not arrive as it was sent"},
      {"DATA offset=0 size=7\nhello!\n", "(.*expected.*|more entries than were offered)"},
      {"DATA offset=3 size=3\nlo\n", "(.*expected.*|more entries than were offered)"},
      {"DATA offset=0 size=-1\n", "(.*expected.*|more entries than were offered)"},
      {"FILE :x\n", "(.*expected.*|more entries than were offered)"},
      {"MISSING :x\n", "(.*expected.*|more entries than were offered)"},
      {"RESUME\n", "(.*expected.*|more entries than were offered)"},
      {"STOP :the dog ate it\n", "the dog ate it"},
      {"STOP now\n", "a line is VERB key=value ... :text"},
      {"DATA offset=0 size=6\nhel", "the connection ended in the middle of the file; what has arrived is kept, .*"}};
  int number = 0;
  for (const auto& [rest, why] : ends) {
    offer("size=6 files=1 :x", rest);
    bob->wait_for("receive " + std::to_string(++number) + " failed ann@\\S+ \\d+ bytes, " + why + ": x");
  }
  EXPECT_EQ(network->folder("bob").names("downloads"), std::vector<std::string>{"x.127.0.0.1.part"});
}

// On a system of 32 bits, too, where a size_t does not hold that number: 4294967299 would be 3, and END would be read next.
TEST_F(Files, OfMoreThanFourGigabytesMayComeInOnePiece) {
  meet({"--accept", "always", "--port", "25301"});
  NEEDS_SPACE(5);
  Socket sender = offer("size=4294967299 files=1 :x", "DATA offset=0 size=4294967299\nhelEND size=3 crc=" + checksum("hel") + "\n");
  EXPECT_TRUE(eventually([&] { return downloaded_size("x.127.0.0.1.part") > 3; }));  // END was taken for bytes of it
  bob->say("/cancel 1");
  EXPECT_EQ(sender.line(), "NO cancelled the other user has cancelled it");
}

TEST_F(Files, ThatComeBeforeTheirOfferIsAnsweredAreRefused) {
  meet({"--port", "25301"});
  Socket sender = Socket::tcp(*network, 0, "127.0.0.1", 25301);
  sender.send(kAnnsHello + "OFFER size=6 files=1 :x\nDATA offset=0 size=6\nhello\n");
  sender.line();
  EXPECT_EQ(sender.line(), "NO early an offer has to be answered before anything else comes");
  bob->wait_for("receive 1 failed ann@\\S+ 6 bytes, an offer has to be answered before anything else comes: x");
  EXPECT_TRUE(network->folder("bob").names("downloads").empty());
}

TEST_F(Files, AreShownUnderTheNameThatTheyWouldHave) {
  meet({"--port", "25301"});
  Socket sender = Socket::tcp(*network, 0, "127.0.0.1", 25301);
  sender.send(kAnnsHello + "OFFER size=6 files=1 :holiday.jpg" + std::string(300, ' ') + "/../.bashrc\n");
  bob->wait_for("receive 1 offered ann@\\S+ 6 bytes: .bashrc");
  bob->say("/transfers");
  bob->wait_for("receive 1 offered ann@\\S+ 6 bytes: .bashrc");
  Socket another = Socket::tcp(*network, 0, "127.0.0.1", 25301);
  another.send(kAnnsHello + "OFFER size=6 files=1 :/home/ann/photos/\n");
  bob->wait_for("receive 2 offered ann@\\S+ 6 bytes in 1 files and folders: photos/");
}

TEST_F(Files, LargerThanTheFreeSpaceAreRefusedWithTheSpaceThereIs) {
  meet({"--accept", "always", "--port", "25301"});
  Socket sender = Socket::tcp(*network, 0, "127.0.0.1", 25301);
  sender.send(kAnnsHello + "OFFER size=9000000000000000000 files=1 :huge\n");
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
    const Socket receiver = take(listener, "OK\n" + reply + "\n");
    const std::string why = reply[0] == 'O' ? "it was acknowledged before it was complete" : "the disk is full";
    sender.wait_for("send \\d failed \\S+ 50000000 bytes, " + why + ": big");
  }
  EXPECT_EQ(sender.count("send . delivered .*"), 0u);
}

TEST_F(Files, RefusedWithoutAReasonFailAllTheSame) {
  Process& sender = network->peer(0, "ann");
  const Socket listener = Socket::tcp_listener(*network, 0, 40001);
  network->folder("ann").write("x", "hello\n");
  sender.say("/send 127.0.0.1:40001 x");
  const Socket receiver = take(listener, "NO\n");
  sender.wait_for("send 1 failed \\S+ 6 bytes, no reason was given: x");
}

TEST_F(Files, WhoseReceiverIsKilledAreNotReportedAsDelivered) {
  meet({"--accept", "always"});
  NEEDS_SPACE(22);
  network->run(0, "truncate -s 20G " + network->folder("ann").path("big"));
  ann->say("/send bob big");
  ann->wait_for("send 1 started .*: big");
  bob->signal(SIGKILL);
  ann->wait_for("send 1 failed bob@\\S+ 21474836480 bytes, .*: big");
  EXPECT_EQ(ann->count("send 1 delivered .*"), 0u);
}

// ---- Going on where an earlier try ended --------------------------------------------------------

TEST_F(Files, AreResumedAfterABreakIfTheirBeginningIsTheSame) {
  meet({"--accept", "always", "--port", "25301"});
  network->folder("ann").write("x", "hello\n");
  offer("size=6 files=1 :x", "DATA offset=0 size=6\nhel");
  bob->wait_for("receive 1 failed .* 6 bytes, .*; what has arrived is kept, and resumes when it is sent again: x");
  ann->say("/send bob x");
  ann->wait_for("send 1 started bob@\\S+ 6 bytes, resumed at 3: x");
  ann->wait_for("send 1 delivered bob@\\S+ 6 bytes, cksum 3015617425: x");
  bob->wait_for("receive 2 started ann@\\S+ 6 bytes, resumed at 3: x");
  EXPECT_EQ(read_file(downloaded("x")), "hello\n");

  offer("size=6 files=1 :x", "DATA offset=0 size=6\nhal");
  bob->wait_for("receive 3 failed .*");
  ann->say("/send bob x");
  ann->wait_for("send 2 started bob@\\S+ 6 bytes: x");
  ann->wait_for("send 2 delivered bob@\\S+ 6 bytes, cksum 3015617425: x \\(1\\)");
  bob->wait_for("receive 4 started ann@\\S+ 6 bytes: x");
  EXPECT_EQ(read_file(downloaded("x (1)")), "hello\n");
  EXPECT_EQ(network->folder("bob").names("downloads"), (std::vector<std::string>{"x", "x (1)"}));
}

TEST_F(Files, OfWhichNothingIsLeftAreNotSaidToBeKept) {
  meet({"--accept", "always", "--port", "25301"});
  Socket sender = offer("size=6 files=1 :x", "DATA offset=0 size=6\nhel");
  EXPECT_TRUE(eventually([&] { return downloaded_size("x.127.0.0.1.part") == 3; }));
  network->run(0, "rm -r " + network->folder("bob").path("downloads"));
  sender.send("lo\nEND size=6 crc=3015617425\n");
  const std::string line = bob->wait_for("receive 1 failed .*: x");
  EXPECT_EQ(line.find("kept"), std::string::npos) << line;
}

TEST_F(Files, OfWhichAllOrMoreIsThereAreResumedToo) {
  meet({"--accept", "always", "--port", "25301"});
  network->folder("ann").write("x", "hello\n");
  int number = 0;
  for (const auto& [part, how] : std::vector<std::pair<std::string, std::string>>{
           {"hello\n", ", resumed at 6"}, {"hello\n\n", ""}, {"jello\n", ""}, {"", ""}}) {
    network->folder("bob").write("downloads/x.127.0.0.1.part", part);
    ann->say("/send bob x");
    ann->wait_for("send " + std::to_string(++number) + " started bob@\\S+ 6 bytes" + how + ": x");
    ann->wait_for("send . delivered .*");
  }
  for (const char* name : {"x", "x (1)", "x (2)", "x (3)"}) EXPECT_EQ(read_file(downloaded(name)), "hello\n");
  EXPECT_EQ(network->folder("bob").names("downloads").size(), 4u);
}

TEST_F(Files, DoNotTakeForTheirBeginningWhatIsAnothersOrALink) {
  meet({"--accept", "always", "--port", "25301"});
  network->folder("ann").write("x", "hello\n");
  // Left by a peer that was killed when the file had its final name, and had not lost the other one yet.
  network->folder("bob").write("downloads/x", "precious");
  EXPECT_EQ(::link(downloaded("x").c_str(), downloaded("x.127.0.0.1.part").c_str()), 0);
  ann->say("/send bob x");
  ann->wait_for("send 1 delivered .*: x \\(1\\)");
  EXPECT_EQ(read_file(downloaded("x")), "precious");
  // A transfer that is under way.
  Socket slow = offer("size=6 files=1 :x", "DATA offset=0 size=6\nhel");
  EXPECT_TRUE(eventually([&] { return read_file(downloaded("x.127.0.0.1.part")) == "hel"; }));
  ann->say("/send bob x");
  ann->wait_for("send 2 delivered .*: x \\(2\\)");
  slow.send("lo\nEND size=6 crc=3015617425\n");
  EXPECT_EQ(slow.line(), "OK :x (3)");
  // A link, that would lead our bytes to where it points.
  network->folder("bob").write("target", "mine");
  ::symlink("../target", downloaded("x.127.0.0.1.part").c_str());
  ann->say("/send bob x");
  ann->wait_for("send 3 delivered .*: x \\(4\\)");
  EXPECT_EQ(read_file(network->folder("bob").path("target")), "mine");
}

// ROUNDS=50 for more of it.
TEST_F(Files, KilledAtAnyMomentArriveWholeWhenTheyAreSentAgain) {
  const std::string content = random_bytes(40'000'000, 11);
  const auto start_bob = [&] { (bob = &network->peer(0, "bob", {"--accept", "always", "--port", "25261"}))->wait_for("ready .*"); };
  const auto start_ann = [&] { (ann = &network->peer(0, "ann", {"--port", "25262"}))->wait_for("ready .*"); };
  const auto part_size = [&] { return downloaded_size("big.127.0.0.1.part"); };
  // At no moment does a file stand under its final name that is not whole.
  const auto expect_only_whole_files = [&] {
    for (const std::string& name : network->folder("bob").names("downloads"))
      EXPECT_TRUE(name == "big.127.0.0.1.part" || read_file(downloaded(name)) == content) << name;
  };
  start_bob();
  start_ann();
  ann->wait_for("joined bob.*");
  network->folder("ann").write("big", content);
  std::mt19937 random(5);
  const char* const rounds = std::getenv("ROUNDS");
  int interrupted = 0;
  for (int round = 0; round < (rounds ? std::atoi(rounds) : 8); ++round) {
    ann->say("/send bob big");
    const size_t moment = random() % content.size();
    EXPECT_TRUE(eventually(60, [&] { return part_size() >= moment || ann->prints("send \\d+ delivered .*", 0); }));
    const bool sender_dies = round % 2 == 0;
    (sender_dies ? ann : bob)->signal(SIGKILL);
    EXPECT_EQ((sender_dies ? ann : bob)->exit_status(), 128 + SIGKILL);
    if (sender_dies) bob->wait_for("receive \\d+ (failed|stored) .*");
    else ann->wait_for("send \\d+ (failed|delivered) .*");
    expect_only_whole_files();
    const size_t prefix = part_size();
    interrupted += prefix > 0;
    if (sender_dies) start_ann();
    else start_bob();
    ann->wait_for("joined bob.*");
    ann->say("/send bob big");
    const std::string how = prefix > 0 ? ", resumed at " + std::to_string(prefix) : "";
    ann->wait_for("send \\d+ started bob@\\S+ 40000000 bytes" + how + ": big", 30);
    ann->wait_for("send \\d+ delivered .*", 30);
    bob->wait_for("receive \\d+ stored .*");
    expect_only_whole_files();
    EXPECT_EQ(part_size(), 0u);
    network->run(0, "rm -r " + network->folder("bob").path("downloads"));
  }
  EXPECT_GT(interrupted, 0);
}

// ---- Folders ---------------------------------------------------------------------------------------

TEST_F(Files, OfAFolderKeepTheirPlacesAndWhetherTheyCanBeRun) {
  meet({"--accept", "always"});
  const std::string from = network->folder("ann").path("photos"), to = downloaded("photos");
  network->run(0, "cd " + network->folder("ann").path() +
                      " && mkdir -p photos/a/b/c photos/empty 'photos/a b' && echo 1 > photos/1 && : > photos/a/zero && "
                      "head -c 3000000 /dev/urandom > photos/a/b/big && echo 文 > 'photos/a b/文件 📎' && "
                      "printf '#!/bin/sh\\n' > photos/a/run && chmod 750 photos/a/run && echo x > photos/a.txt");
  ann->say("/send bob photos/");
  ann->wait_for("send 1 offered bob@\\S+ \\d+ bytes in 11 files and folders: photos/");
  ann->wait_for("send 1 delivered bob@\\S+ \\d+ bytes in 11 files and folders, cksum \\d+: photos/");
  bob->wait_for("receive 1 stored ann@\\S+ \\d+ bytes in 11 files and folders, cksum \\d+: downloads/photos/");
  network->run(0, "diff -r " + from + " " + to + " && test -x " + to + "/a/run && ! test -x " + to + "/1");
  // Once more: the first one is left as it is.
  ann->say("/send bob photos");
  ann->wait_for("send 2 delivered .*: photos \\(1\\)/");
  network->run(0, "diff -r " + from + " '" + to + " (1)'");
  EXPECT_EQ(network->folder("bob").names("downloads").size(), 2u);
}

TEST_F(Files, OfAFolderThatCannotBeSentAreNamedAndTheOthersArrive) {
  meet({"--accept", "always"});
  network->run(0, "cd " + network->folder("ann").path() + " && mkdir photos && echo 1 > photos/1 && mkfifo photos/fifo && "
                      "ln -s /etc/passwd photos/link && ln -s / photos/root && echo 2 > \"photos/$(printf 'a\\tb')\"");
  ann->say("/send bob photos");
  const std::string line = ann->wait_for("send 1 delivered bob@\\S+ 2 bytes in 1 files and folders, cksum \\d+, not sent: .*: photos/");
  for (const char* what : {"fifo (a link or a special file)", "link (a link or a special file)", "root (a link or a special file)",
                           "a\tb (its name cannot be sent)"})
    EXPECT_NE(line.find(what), std::string::npos) << what;
  EXPECT_EQ(network->folder("bob").names("downloads/photos"), std::vector<std::string>{"1"});
  ann->end_input();
  EXPECT_EQ(ann->exit_status(), 1);
}

TEST_F(Files, OfAFolderThatChangeMeanwhileAreNamedOnBothSides) {
  meet({});
  const Folder& folder = network->folder("ann");
  network->run(0, "mkdir " + folder.path("photos"));
  folder.write("photos/1", random_bytes(20'000'000, 1));
  for (const char* name : {"photos/2", "photos/3", "photos/4"}) folder.write(name, "hello\n");
  ann->say("/send bob photos");
  bob->wait_for("receive 1 offered .*");  // she has listed them
  ::unlink(folder.path("photos/2").c_str());
  folder.write("photos/3", "hell");
  folder.write("photos/4", "hello\nagain");
  bob->say("/accept 1");
  const auto why = [](const std::string& words) { return " \\(" + wording("ann", words) + "\\)"; };
  const std::string what = "\\d+ bytes in 1 files and folders, cksum \\d+, not sent: 2" + why("No such file or directory") +
                           ", 3" + why("became shorter while it was sent") + ", 4" + why("became longer while it was sent");
  const std::string sent = ann->wait_for("send 1 delivered bob@\\S+ " + what + ": photos/");
  const std::string stored = bob->wait_for("receive 1 stored ann@\\S+ " + what + ": downloads/photos/");
  const auto size_of = [](const std::string& line) { return matches(line, "@\\S+ (\\d+) bytes").at(0)[1].str(); };
  EXPECT_EQ(size_of(sent), size_of(stored));
  EXPECT_EQ(network->folder("bob").names("downloads/photos"), std::vector<std::string>{"1"});
}

// Who may write in the folder that is offered lets the offer wait until a link has taken a place in it.
TEST_F(Files, BehindALinkThatWasPutInTheirPlaceAreNotSent) {
  meet({});
  const Folder& folder = network->folder("ann");
  network->run(0, "cd " + folder.path() + " && mkdir -p shared/sub/deeper secret");
  for (const char* name : {"shared/sub/x", "shared/y", "shared/z"}) folder.write(name, "public\n");
  folder.write("secret/x", "secret\n");
  ann->say("/send bob shared");
  bob->wait_for("receive 1 offered .*");
  network->run(0, "cd " + folder.path() + " && mv shared/sub old && ln -s ../secret shared/sub && rm shared/y && "
                      "ln -s ../secret/x shared/y");
  bob->say("/accept 1");
  const std::string what = ", not sent: " + wording("ann", "sub/ \\(became a link\\), y \\(became a link\\)");
  ann->wait_for("send 1 delivered .*" + what + ": shared/");
  bob->wait_for("receive 1 stored .*" + what + ": downloads/shared/");
  EXPECT_EQ(read_file(downloaded("shared/z")), "public\n");
  network->run(0, "cd " + downloaded("shared") + " && test \"$(find . -type f)\" = ./z");
}

TEST_F(Files, OfAFolderThatIsExchangedWhileItIsSentAreThoseOfTheFormer) {
  Process& sender = network->peer(0, "ann");
  const Socket listener = Socket::tcp_listener(*network, 0, 40001);
  const Folder& folder = network->folder("ann");
  network->run(0, "cd " + folder.path() + " && mkdir -p shared/sub secret");
  folder.write("shared/sub/1", std::string(50'000'000, 'x'));
  folder.write("shared/sub/2", "public\n");
  folder.write("secret/2", "secret\n");
  sender.say("/send 127.0.0.1:40001 shared");
  Socket receiver = take(listener, "OK\n");
  EXPECT_EQ(receiver.line(), "FILE :sub/");
  EXPECT_EQ(receiver.line(), "FILE :sub/1");
  network->run(0, "cd " + folder.path() + " && mv shared/sub old && ln -s ../secret shared/sub");
  std::string line = receiver.line();
  while (!line.empty() && line.find("FILE :sub/2") == std::string::npos) line = receiver.line();
  EXPECT_EQ(receiver.line(), "DATA offset=50000000 size=7");
  EXPECT_EQ(receiver.line(), "public");
}

TEST_F(Files, WhoseNameWasGivenToALinkAreSentAsTheyWereWhenTheyWereOffered) {
  meet({});
  const Folder& folder = network->folder("ann");
  folder.write("x", "public\n");
  folder.write("secret", "secret\n");
  ann->say("/send bob x");
  bob->wait_for("receive 1 offered .*");
  network->run(0, "cd " + folder.path() + " && mv x old && ln -s secret x");
  bob->say("/accept 1");
  bob->wait_for("receive 1 stored .*: downloads/x");
  EXPECT_EQ(read_file(downloaded("x")), "public\n");
}

TEST_F(Files, OfADeepFolderNeedFewDescriptors) {
  meet({"--accept", "always"});
  const Folder folder;
  network->run(0, "cd " + folder.path() + " && p=deep; for i in $(seq 200); do mkdir $p && echo $i > $p/a && "
                      "echo $i > $p/z; p=$p/m; done");
  Process few(network->descriptor(0), {"/bin/sh", "-c", "ulimit -n 20 && exec \"$0\" --name few", peer_program()},
              folder.path());
  few.wait_for("joined bob.*");
  few.say("/send bob deep");
  few.wait_for("send 1 delivered bob@\\S+ \\d+ bytes in 599 files and folders, cksum \\d+: deep/");
  network->run(0, "diff -r " + folder.path("deep") + " " + downloaded("deep"));
}

TEST_F(Files, OfAFolderThatTheirSenderMissesAreNotStored) {
  meet({"--accept", "always", "--port", "25301"});
  Socket sender = offer("size=6 files=3 :photos/", "FILE :1\nDATA offset=0 size=3\nhelMISSING :became shorter\nFILE :2\nFILE :3/\nMISSING :gone\n"
                        "END size=3 crc=" + checksum("1\nhel2\n3/\n") + "\n");
  EXPECT_EQ(sender.line(), "OK :photos/");
  bob->wait_for("receive 1 stored ann@\\S+ 3 bytes in 1 files and folders, cksum \\d+, not sent: 1 \\(became shorter\\), 3/ \\(gone\\): downloads/photos/");
  EXPECT_EQ(network->folder("bob").names("downloads/photos"), std::vector<std::string>{"2"});
}

// Here, because the download folder has a long path itself. What is in a folder that cannot be stored cannot be either.
TEST_F(Files, OfAFolderWhosePathsAreTooLongForTheReceiverAreNamedOnBothSidesAndTheOthersArrive) {
  const Folder home;
  const std::string downloads = home.path(std::string(200, 'd'));
  meet({"--accept", "always", "--port", "25301", "--dir", downloads});
  std::string lines, all, path;
  const auto enter = [&](const std::string& entry) {
    lines += "FILE :" + entry + "\n";
    all += entry + "\n";
  };
  enter("a");
  while (path.size() < 3750) enter(path += std::string(249, 'x') + "/");
  enter(path + std::string(240, 'w'));
  lines += "MISSING :gone\n";  // it counts once
  enter(path + std::string(240, 'y'));
  lines += "DATA offset=0 size=6\nhello\n";
  all += "hello\n";
  enter("z");
  lines += "DATA offset=6 size=6\nhello\n";
  all += "hello\n";
  Socket sender = offer("size=12 files=19 :photos/", lines + "END size=12 crc=" + checksum(all) + "\n");
  const std::string answer = sender.line();
  EXPECT_TRUE(std::regex_match(answer, std::regex("OK missing=1 :photos/\tx+… \\(File name too long\\)"))) << answer;
  bob->wait_for("receive 1 stored ann@\\S+ 12 bytes in 17 files and folders, cksum \\d+, not sent: x+… \\(gone\\), not stored: x+… \\(File name too long\\): .*/photos/");
  EXPECT_EQ(read_file(downloads + "/photos/z"), "hello\n");
}

// However many they are, and whatever the sender says of them.
TEST_F(Files, OfAFolderThatAreMissingAreNamedInALineThatIsNotTooLong) {
  meet({"--accept", "always", "--port", "25301"});
  std::string lines, paths;
  for (int i = 1000; i < 2000; ++i) {
    const std::string path = std::to_string(i) + std::string(240, 'x');
    lines += "FILE :" + path + "\nMISSING :" + std::string(3000, 'y') + "\n";
    paths += path + "\n";
  }
  Socket sender = offer("size=0 files=1000 :photos/", lines + "END size=0 crc=" + checksum(paths) + "\n");
  EXPECT_EQ(sender.line(), "OK :photos/");
  const std::string line = bob->wait_for("receive 1 stored ann@\\S+ 0 bytes in 0 files and folders, cksum \\d+, not sent: 1000x.* and 992 more: downloads/photos/");
  EXPECT_LT(line.size(), 4096u);
  network->run(0, "cd " + network->folder("ann").path() + " && mkdir photos && for i in $(seq 20); do ln -s / photos/$i; done");
  ann->say("/send bob photos");
  ann->wait_for("send 1 delivered .*, not sent: .* and 12 more: photos \\(1\\)/");
}

// Deeper than a small stack could follow; such as musl gives to threads, or `ulimit -s`.
TEST_F(Files, OfAFolderThatIsAThousandDeepAreRemovedAgain) {
  const Folder folder;
  const std::string stack = sanitizer().empty() ? "ulimit -s 128 && " : "";  // those need more
  const std::string command = stack + "exec \"$0\" --name bob --group lab --port 25301 --accept always";
  Process small(network->descriptor(0), {"/bin/sh", "-c", command, peer_program()}, folder.path());
  small.wait_for("ready .*");
  std::string lines, path;
  while (path.size() < 3900) lines += "FILE :" + (path += "a/") + "\n";
  {
    Socket sender = offer("size=6 files=9999 :photos/", lines + "FILE :" + path + "x\nDATA offset=0 size=3\nhel");
    EXPECT_TRUE(eventually(60, [&] { return ::access(folder.path("downloads/photos.127.0.0.1.part/" + path + "x").c_str(), F_OK) == 0; }));
  }
  small.wait_for("receive 1 failed .*");
  EXPECT_TRUE(eventually(60, [&] { return folder.names("downloads").empty(); }));
}

TEST_F(Files, OfAFolderWithHostilePathsAreRefused) {
  meet({"--accept", "always", "--port", "25301"});
  int number = 0;
  for (const std::string entry : {"FILE :../x", "FILE :/etc/x", "FILE :a/../../x", "FILE :", "FILE :..", "FILE :a//b", "FILE :tab\there",
                                  "FILE :a\nFILE :a", "FILE :b\nFILE :a", "FILE :a\nFILE :b\nFILE :c", "DATA offset=0 size=1\nx",
                                  "FILE :a/\nDATA offset=0 size=1\nx", "FILE :missing/a", "FILE :a\nDATA offset=0 size=7\nhello!!",
                                  "OFFER size=1 files=1 :x", "FILE :a\nMISSING :x\nMISSING :x", "MISSING :x"}) {
    Socket sender = offer("size=6 files=2 :photos/", entry + "\n");
    EXPECT_EQ(sender.line().substr(0, 3), "NO ") << entry;
    bob->wait_for("receive " + std::to_string(++number) + " failed .*");
  }
  EXPECT_EQ(network->folder("bob").names(), std::vector<std::string>{"downloads"});
  EXPECT_TRUE(eventually([&] { return network->folder("bob").names("downloads").empty(); }));
}

TEST_F(Files, OfAFolderThatBrokeAreSentAnewAndNothingOfItIsLeft) {
  meet({"--accept", "always", "--port", "25301"});
  network->run(0, "cd " + network->folder("ann").path() + " && mkdir -p photos/a && echo hello > photos/a/1 && : > photos/a/2 && "
                      "echo hello > photos/b");
  const std::string whole = "FILE :a/\nFILE :a/1\nDATA offset=0 size=6\nhello\nFILE :a/2\nFILE :b\nDATA offset=6 size=6\nhello\n";
  const auto is_empty = [&] { return network->folder("bob").names("downloads").empty(); };
  int number = 0;
  for (size_t cut = 1; cut < whole.size(); cut += 13) {
    offer("size=12 files=4 :photos/", whole.substr(0, cut));
    const std::string line = bob->wait_for("receive " + std::to_string(++number) + " failed .*: photos/");
    EXPECT_EQ(line.find("kept"), std::string::npos) << line;
    EXPECT_TRUE(eventually(is_empty)) << cut;
  }
  ann->say("/send bob photos");
  ann->wait_for("send 1 started bob@\\S+ 12 bytes in 4 files and folders: photos/");
  ann->wait_for("send 1 delivered bob@\\S+ 12 bytes in 4 files and folders, .*");
  network->run(0, "diff -r " + network->folder("ann").path("photos") + " " + downloaded("photos"));
}

TEST_F(Files, OfAFolderWhoseReceiverWasKilledAreNotMixedWithWhatItLeft) {
  meet({"--accept", "always", "--port", "25301"});
  network->run(0, "cd " + network->folder("ann").path() + " && mkdir photos && echo hello > photos/a");
  network->run(0, "cd " + network->folder("bob").path() + " && mkdir -p downloads/photos.127.0.0.1.part/b/c/d && "
                      "echo old > downloads/photos.127.0.0.1.part/a && ln -s /etc downloads/photos.127.0.0.1.part/b/c/etc && "
                      "echo old > downloads/photos.127.0.0.1.part/b/c/d/e");
  ann->say("/send bob photos");
  ann->wait_for("send 1 delivered bob@\\S+ 6 bytes in 1 files and folders, cksum \\d+: photos/");
  network->run(0, "diff -r " + network->folder("ann").path("photos") + " " + downloaded("photos"));
  EXPECT_EQ(network->folder("bob").names("downloads"), std::vector<std::string>{"photos"});
}

// As one of an older version may do.
TEST_F(Files, OfAFolderAreSentAnewWhateverBeginningItsReceiverNames) {
  Process& sender = network->peer(0, "ann");
  const Socket listener = Socket::tcp_listener(*network, 0, 40001);
  network->run(0, "cd " + network->folder("ann").path() + " && mkdir photos && printf hello > photos/a");
  sender.say("/send 127.0.0.1:40001 photos");
  Socket receiver = take(listener, "OK entries=1 offset=2 crc=" + checksum("a\nhe") + "\n");
  EXPECT_EQ(receiver.line(), "FILE :a");
  EXPECT_EQ(receiver.line(), "DATA offset=0 size=5");
  sender.wait_for("send 1 started \\S+ 5 bytes in 1 files and folders: photos/");
}

// ---- To many ------------------------------------------------------------------------------------------

TEST_F(Files, SentToAllReachEachAsIfAloneAndTheSumSaysWhoGotThem) {
  meet({"--accept", "always"});
  network->peer(0, "carl", {"--accept", "never"});
  Process& dora = network->peer(0, "dora", {"--group", "physics"});
  for (const char* name : {"carl", "dora"}) EXPECT_TRUE(ann->prints("joined " + std::string(name) + ".*", 30));
  network->folder("ann").write("x", "hello\n");
  ann->say("/sendall x");
  ann->wait_for("send \\d delivered bob@.*");  // though dora has not answered
  dora.wait_for("receive 1 offered .*");
  dora.say("/accept 1");
  ann->wait_for("sent to 2 of 3, bob@\\S+, dora@\\S+; not reached: carl@\\S+ \\(this user accepts no files\\): x");
  ann->say("/sendgroup x");
  ann->wait_for("sent to 1 of 2, bob@\\S+; not reached: carl@\\S+ \\(this user accepts no files\\): x");
  ann->say("/sendall nowhere");
  ann->wait_for("error: cannot read nowhere: No such file or directory");
  ann->say("/sendall");
  ann->wait_for("error: " + wording("ann", "which file\\? /sendall PATH"));
}

TEST_F(Files, OfPeersThatShareADownloadFolderDoNotMix) {
  const Folder shared;
  std::vector<Process*> receivers;
  for (const char* name : {"b1", "b2", "b3"}) receivers.push_back(&network->peer(0, name, {"--accept", "always", "--dir", shared.path()}));
  ann = &network->peer(0, "ann");
  for (const char* name : {"b1", "b2", "b3"}) EXPECT_TRUE(ann->prints(std::string("joined ") + name + ".*", 30));
  const std::string content = random_bytes(20'000'000, 4);
  network->folder("ann").write("x", content);
  ann->say("/sendall x");
  ann->wait_for("sent to 3 of 3, .*: x", 30);
  for (const char* name : {"x", "x (1)", "x (2)"}) EXPECT_TRUE(read_file(shared.path(name)) == content) << name;
  EXPECT_EQ(shared.names().size(), 3u);
}

// ---- Trouble, said on both sides -------------------------------------------------------------------------

TEST_F(Files, ThatChangeWhileTheyAreSentFailOnBothSides) {
  meet({});
  int number = 0;
  for (const auto& [now, why] : std::vector<std::pair<std::string, std::string>>{
           {"hell", "the file became shorter while it was sent"}, {"hello\nagain", "the file became longer while it was sent"}}) {
    const std::string n = std::to_string(++number);
    network->folder("ann").write("x", "hello\n");
    ann->say("/send bob x");
    bob->wait_for("receive " + n + " offered .*");
    network->folder("ann").write("x", now);
    bob->say("/accept " + n);
    ann->wait_for("send " + n + " failed bob@\\S+ 6 bytes, " + wording("ann", why) + ": x");
    bob->wait_for("receive " + n + " failed ann@\\S+ 6 bytes, " + wording("ann", why) + ".*: x");
  }
  EXPECT_NE(::access(downloaded("x").c_str(), F_OK), 0);
}

TEST_F(Files, ThatNeverHadTheirSizeAreNotSaidToHaveChanged) {
  meet({"--accept", "always"});
  ann->say("/send bob /proc/version");
  const std::string why = wording("ann", "the file is longer than its size says");
  ann->wait_for("send 1 failed bob@\\S+ 0 bytes, " + why + ": version");
  bob->wait_for("receive 1 failed ann@\\S+ 0 bytes, " + why + ".*: version");
}

TEST_F(Files, OfWhichOneHalfIsOldAndOneHalfNewAreNotDelivered) {
  Process& sender = network->peer(0, "ann");
  const Socket listener = Socket::tcp_listener(*network, 0, 40001);
  const std::string path = network->folder("ann").write("x", std::string(50'000'000, 'a'));
  sender.say("/send 127.0.0.1:40001 x");
  {
    Socket receiver = take(listener, "OK\n");
    EXPECT_EQ(receiver.line(), "DATA offset=0 size=1048576");
    network->run(0, "printf b | dd of=" + path + " bs=1 seek=49999999 conv=notrunc 2>/dev/null");
    while (receiver.line_or_end()) {}
  }
  sender.wait_for("send 1 failed \\S+ 50000000 bytes, the file was changed while it was sent: x");
}

TEST_F(Files, ThatFillTheDiskMidwayFailOnBothSides) {
  const std::string command = "mount -t tmpfs -o size=1m none downloads && exec \"$0\" --name bob --port 25301 --accept always";
  const Folder folder;
  network->run(0, "mkdir " + folder.path("downloads"));
  Process full(network->descriptor(0), {"/usr/bin/unshare", "-m", "sh", "-c", command, peer_program()}, folder.path());
  full.wait_for("ready .*");
  ann = &network->peer(0, "ann");
  ann->wait_for("joined bob.*");
  network->folder("ann").write("x", random_bytes(600'000, 1));
  Socket first = offer("size=600000 files=1 :a", "DATA offset=0 size=1\nx");
  full.wait_for("receive 1 started .*");
  // Another would fit by itself; but the first one was promised the room.
  ann->say("/send bob x");
  ann->wait_for("send 1 failed bob@\\S+ 600000 bytes, only \\d+ bytes are free, less what other transfers still need: x");
  // Another program was promised nothing.
  const std::string filler = "/proc/" + std::to_string(full.pid()) + "/root" + folder.path("downloads/filler");
  network->run(0, "head -c 600000 /dev/zero > " + filler);
  first.send("DATA offset=1 size=599999\n" + std::string(599'999, 'a'));
  EXPECT_EQ(first.line(), "NO failed cannot store a: No space left on device");
  full.wait_for("receive 1 failed ann@\\S+ 600000 bytes, cannot store a: No space left on device; what has arrived is kept, and resumes when it is sent again: a");
  ann->say("/send bob x");
  ann->wait_for("send 2 failed bob@\\S+ 600000 bytes, only \\d+ bytes are free.*: x");
  ann->say("/msg bob still here?");
  full.wait_for("message ann@\\S+ private: still here\\?");
  // What the first one did not fill is free again.
  network->run(0, "rm " + filler + " $(dirname " + filler + ")/a.*.part");
  ann->say("/send bob x");
  ann->wait_for("send 3 delivered .*");
}

// `ulimit -f`, as a system may set it for all: what writes more is sent SIGXFSZ, which ends a program that is not prepared.
TEST_F(Files, LargerThanTheSystemAllowsFailAloneAndSoDoesTheTrace) {
  const Folder folder;
  const std::string command = "ulimit -f 20 && exec \"$0\" --name bob --group lab --port 25301 --accept always --trace=trace";
  Process limited(network->descriptor(0), {"/bin/sh", "-c", command, peer_program()}, folder.path());
  limited.wait_for("ready .*");
  ann = &network->peer(0, "ann");
  ann->wait_for("joined bob.*");
  network->folder("ann").write("big", std::string(200'000, 'x'));
  network->folder("ann").write("x", "hello\n");
  ann->say("/send bob big");
  ann->wait_for("send 1 failed bob@\\S+ 200000 bytes, cannot store big: File too large: big");
  limited.wait_for("receive 1 failed ann@\\S+ 200000 bytes, cannot store big: File too large; what has arrived is kept, .*: big");
  for (int i = 0; i < 20; ++i) ann->say("/msg bob " + std::string(1000, 'x'));  // more than the trace may have
  EXPECT_TRUE(eventually([&] { return ann->count("delivered bob.*") == 20; }));
  ann->say("/send bob x");
  ann->wait_for("send 2 delivered .*");
  EXPECT_GT(read_file(folder.path("trace")).size(), 10'000u);
}

// What a disk does that cannot be made everywhere: a function of the system is replaced by one that does the same.
class FilesOnAnotherDisk : public Files {
 protected:
  // bob, with that function; and ann, who has found him.
  void meet(const std::string& function) {
    const std::string fake = disk.write("fake.cpp", "#include <errno.h>\n#include <fcntl.h>\n#include <string.h>\n#include <sys/stat.h>\n"
                                         "#include <unistd.h>\nextern \"C\" " + function + "\n");
    network->run(0, "g++ -shared -fPIC " + fake + " -o " + disk.path("fake.so") + " && mkdir " + disk.path("downloads"));
    const std::vector<std::string> command = {
        "/usr/bin/env", "LD_PRELOAD=" + disk.path("fake.so"),
        peer_program(), "--name", "bob", "--group", "lab", "--port", "25301", "--accept", "always"};
    process = std::make_unique<Process>(network->descriptor(0), command, disk.path());
    bob = process.get();
    bob->wait_for("ready .*");
    ann = &network->peer(0, "ann");
    ann->wait_for("joined bob.*");
    network->folder("ann").write("x", "hello\n");
  }
  const Folder disk;
  std::unique_ptr<Process> process;
};

// FAT and exFAT, of USB sticks, have no hard links: EPERM. Others that have none say so in their own way.
TEST_F(FilesOnAnotherDisk, WithoutHardLinksReplaceNothingEither) {
  meet("int link(const char*, const char*) {\n"
       "  static const int kErrors[] = {EPERM, EOPNOTSUPP, ENOSYS, EMLINK, EINVAL};\n"
       "  static int calls;\n"
       "  return errno = kErrors[calls++ % 5], -1;\n"
       "}");
  disk.write("downloads/x", "precious");
  for (int i = 1; i <= 5; ++i) {
    const std::string name = "x (" + std::to_string(i) + ")";
    ann->say("/send bob x");
    // Each name that is tried is a call: two, three, four... of them.
    ann->wait_for("send " + std::to_string(i) + " delivered bob@\\S+ 6 bytes, cksum 3015617425: x \\(" + std::to_string(i) + "\\)");
    EXPECT_EQ(read_file(disk.path("downloads/" + name)), "hello\n");
  }
  EXPECT_EQ(read_file(disk.path("downloads/x")), "precious");
  EXPECT_EQ(disk.names("downloads"), (std::vector<std::string>{"x", "x (1)", "x (2)", "x (3)", "x (4)", "x (5)"}));
}

// On a disk that knows fewer names than ours, as FAT does, or takes two for one.
TEST_F(FilesOnAnotherDisk, ThatDoesNotTakeAllNamesLeaveOutThoseOfAFolderAlone) {
  meet("int mkdir(const char* path, mode_t mode) {\n"
       "  if (strchr(path, ':')) return errno = EINVAL, -1;\n"
       "  return mkdirat(AT_FDCWD, path, mode);\n"
       "}");
  network->run(0, "cd " + network->folder("ann").path() + " && mkdir -p photos/b:c/d && echo 1 > photos/a && echo 2 > photos/b:c/d/e && "
                  "echo 3 > photos/z");
  ann->say("/send bob photos");
  const std::string which = ", not stored: b:c/ \\(Invalid argument\\), b:c/d/ \\(its folder could not be stored\\), "
                            "b:c/d/e \\(its folder could not be stored\\): ";
  bob->wait_for("receive 1 stored ann@\\S+ 6 bytes in 2 files and folders, cksum \\d+" + which + "downloads/photos/");
  ann->wait_for("send 1 delivered bob@\\S+ 6 bytes in 2 files and folders, cksum \\d+" + which + "photos/");
  EXPECT_EQ(disk.names("downloads/photos"), (std::vector<std::string>{"a", "z"}));
  ann->end_input();
  EXPECT_EQ(ann->exit_status(), 1);
}

TEST_F(FilesOnAnotherDisk, ThatIsSlowAreNotStoredIfTheyAreCancelledMeanwhile) {
  meet("int fsync(int) { while (access(\"ready\", F_OK) != 0) usleep(1000); return 0; }");
  ann->say("/send bob x");
  bob->wait_for("receive 1 started .*");
  EXPECT_TRUE(eventually([&] { return read_file(disk.path("downloads/x.127.0.0.1.part")) == "hello\n"; }));
  bob->say("/cancel 1");
  bob->say("/transfers");
  bob->wait_for("transfers 1");  // the command before has been obeyed
  disk.write("ready", "");
  bob->wait_for("receive 1 failed ann@\\S+ 6 bytes, cancelled; what has arrived is kept, and resumes when it is sent again: x");
  ann->wait_for("send 1 failed bob@\\S+ 6 bytes, the other user has cancelled it: x");
  EXPECT_EQ(disk.names("downloads"), std::vector<std::string>{"x.127.0.0.1.part"});
}

TEST_F(Files, ThatAreCutShortByLeavingAreToldToTheOtherSide) {
  meet({"--accept", "always"});
  NEEDS_SPACE(22);
  network->folder("ann").write("big", random_bytes(100, 1));
  network->run(0, "truncate -s 20G " + network->folder("ann").path("big"));
  for (const int how : {SIGINT, SIGTERM, 0}) {
    ann->say("/send bob big");
    ann->wait_for("send 1 started .*");
    EXPECT_TRUE(eventually([&] { return downloaded_size("big.127.0.0.1.part") > 0; }));
    if (how != 0) ann->signal(how);
    else for (int i = 0; i < 2; ++i) ann->say("/quit");
    ann->wait_for("send 1 failed bob@\\S+ \\d+ bytes, " + wording("ann", "cancelled") + ": big");
    EXPECT_EQ(ann->exit_status(), 1);
    bob->wait_for("receive \\d failed ann@\\S+ \\d+ bytes, " + wording("ann", "the other user has left") +
                  "; what has arrived is kept, and resumes when it is sent again: big");
    network->run(0, "rm -f " + downloaded("big.127.0.0.1.part"));
    if (how == 0) break;
    ann = &network->peer(0, "ann");
    ann->wait_for("joined bob.*");
  }
}

// bob's main thread waits for somebody to read what he prints, when the thread of the transfer begins it.
TEST_F(Files, ThatAreBeingReceivedAreNotWaitedForByQuit) {
  meet({"--accept", "always", "--port", "25301"});
  Socket sender = offer("size=6 files=1 :x", "DATA offset=0 size=6\nhel");
  EXPECT_TRUE(eventually([&] { return read_file(downloaded("x.127.0.0.1.part")) == "hel"; }));
  bob->say("/quit");
  bob->wait_for("receive 1 failed ann@\\S+ 6 bytes, cancelled; what has arrived is kept, and resumes when it is sent again: x");
  EXPECT_EQ(sender.line(), "NO cancelled the other user has left");
  EXPECT_EQ(bob->exit_status(), 0);
  ann->wait_for("left bob@\\S+: said bye");
}

TEST_F(Files, ThatAreResumedHaveTheirSpeedThoughTheirStartIsNoticedLate) {
  meet({"--accept", "always", "--port", "25301"});
  network->folder("bob").write("downloads/x.127.0.0.1.part", std::string(1'000'000, 'x'));
  Socket sender = Socket::tcp(*network, 0, "127.0.0.1", 25301);
  sender.send(kAnnsHello);
  sender.line();
  bob->say("/list");
  bob->wait_for("users \\d");
  // In one piece: bob stops reading once nobody reads what he prints, and would leave the rest of them where they are.
  std::string helps = "/help";
  for (int i = 1; i < 500; ++i) helps += "\n/help";
  bob->say(helps);
  EXPECT_TRUE(eventually([&] { return bob->has_read(); }));
  sender.send("OFFER size=90000000 files=1 :x\n");
  EXPECT_EQ(sender.line().substr(0, 28), "OK entries=1 offset=1000000 ");
  sender.send("RESUME\nDATA offset=1000000 size=80000000\n" + std::string(80'000'000, 'x'));
  EXPECT_TRUE(eventually([&] { return downloaded_size("x.127.0.0.1.part") == 81'000'000; }));
  bob->wait_for("receive 1 started .*, resumed at 1000000: x");
  bob->say("/transfers");
  bob->wait_for("receive 1 started ann@\\S+ 90000000 bytes, 81000000 done, [1-9]\\d* MB/s: x");
}

TEST_F(Files, UnderWayAreListedWithWhatIsDone) {
  meet({"--accept", "always", "--port", "25301"});
  Socket sender = offer("size=6 files=1 :x", "DATA offset=0 size=6\nhel");
  bob->wait_for("receive 1 started .*");
  EXPECT_TRUE(eventually([&] { return read_file(downloaded("x.127.0.0.1.part")) == "hel"; }));
  bob->say("/transfers");
  bob->wait_for("receive 1 started ann@\\S+ 6 bytes, 3 done, 0 MB/s: x");
  bob->wait_for("transfers 1");
  bob->say("/cancel 1");
  bob->wait_for("receive 1 failed ann@\\S+ 6 bytes, cancelled; what has arrived is kept, and resumes when it is sent again: x");
  EXPECT_EQ(sender.line(), "NO cancelled the other user has cancelled it");
}

TEST_F(Files, AreNotSaidToHaveFailedForSureWhenTheyMayHaveArrived) {
  Process& sender = network->peer(0, "ann");
  const Socket listener = Socket::tcp_listener(*network, 0, 40001);
  network->folder("ann").write("x", "hello\n");
  const auto take_all = [&] {
    sender.say("/send 127.0.0.1:40001 x");
    Socket receiver = take(listener, "OK\n");
    for (const char* line : {"DATA offset=0 size=6", "hello", "END size=6 crc=3015617425"}) EXPECT_EQ(receiver.line(), line);
    return receiver;
  };
  take_all();  // and ends the connection
  sender.wait_for("send 1 failed \\S+ 6 bytes, the other side closed the connection; it may have arrived: x");
  Socket silent = take_all();
  sender.say("/cancel 2");
  sender.wait_for("send 2 failed \\S+ 6 bytes, cancelled; it may have arrived: x");
  EXPECT_TRUE(silent.is_closed());  // a STOP would come too late to be one
  Socket refuses = take_all();
  refuses.send("NO failed the disk is full\n");
  sender.wait_for("send 3 failed \\S+ 6 bytes, the disk is full: x");
}

TEST_F(Files, LeaveNoThreadAndNoDescriptorBehindHoweverTheyEnd) {
  meet({"--accept", "always", "--port", "25301"});
  NEEDS_SPACE(22);
  const Folder& folder = network->folder("ann");
  network->run(0, "cd " + folder.path() + " && mkdir photos && echo 1 > photos/1 && echo 2 > photos/2 && truncate -s 20G big");
  folder.write("x", "hello\n");
  const size_t descriptors = ann->uses("fd");
  ann->say("/send bob x");  // the first thread of all may bring others, which stay: ThreadSanitizer's
  ann->wait_for("send 1 delivered .*");
  EXPECT_TRUE(eventually([&] { return ann->uses("fd") == descriptors && bob->uses("fd") == descriptors; }));
  std::vector<size_t> before;
  for (const Process* process : {ann, bob})
    for (const char* what : {"fd", "task"}) before.push_back(process->uses(what));
  for (int i = 0; i < 5; ++i) {
    for (const char* what : {"x", "photos", "big"}) ann->say(std::string("/send bob ") + what);
    offer("size=6 files=1 :y", "DATA offset=0 size=6\nhel");
    offer("size=6 files=2 :z/", "FILE :1\nFILE :../1\n");
    ann->wait_for("send (\\d+) started .*: big");
    ann->say("/transfers");
    const std::string line = ann->wait_for("send \\d+ started .* done, .*: big");
    ann->say("/cancel " + line.substr(5, line.find(' ', 5) - 5));
    ann->wait_for("send \\d+ failed .*, cancelled: big");
  }
  EXPECT_TRUE(eventually([&] { return ann->count("send \\d+ delivered .*") == 11 && bob->count("receive \\d+ failed .*") == 15; }));
  size_t i = 0;
  for (const Process* process : {ann, bob})
    for (const char* what : {"fd", "task"}) {
      EXPECT_TRUE(eventually([&] { return process->uses(what) <= before[i]; })) << what << " " << process->uses(what);
      ++i;
    }
}
