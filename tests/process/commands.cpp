// The command line as docs/interface.md has it: options, commands, bad input, exit status.

#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <deque>
#include <filesystem>

#include "support/testing.h"

namespace {

// Signals it again and again, until it has ended or 30 s have passed: its exit status.
int status_after_insisting(Process& process, int number) {
  EXPECT_TRUE(eventually([&] {
    process.signal(number);
    siginfo_t ended{};
    const auto pid = static_cast<id_t>(process.pid());
    return ::waitid(P_PID, pid, &ended, WEXITED | WNOHANG | WNOWAIT) == 0 && ended.si_pid != 0;
  }));
  return process.exit_status();
}

}  // namespace

class Commands : public OneHost {
 protected:
  // For sh: ann, as a program in a script or a pipe.
  static std::string ann_in(const Folder& folder) {
    return "cd " + folder.path() + " && " + peer_program() + " --name ann --group lab";
  }
};

TEST_F(Commands, WrongOptionsAreOneSentenceAndExitTwo) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> wrong = {
      {{"--colour", "red"}, "peer: unknown option '--colour'; --help lists them"},
      {{"ann"}, "peer: unknown option 'ann'; --help lists them"},
      {{"--", "ann"}, "peer: unexpected 'ann'; see --help"},
      {{"--port"}, "peer: --port needs a value; see --help"},
      {{"--name", "two words"}, "peer: --name takes 1 to 32 characters .*"},
      {{"--name="}, "peer: --name takes 1 to 32 characters .*"},
      {{"--name", std::string(33, 'n')}, "peer: --name takes 1 to 32 characters .*"},
      {{"--name", "/quit"}, "peer: --name takes 1 to 32 characters .* no / first.*"},
      {{"--group", "a\tb"}, "peer: --group takes 1 to 32 characters .*"},
      {{"--name", "\x1b[2J"}, "peer: --name takes .* not '\\\\x1b\\[2J'"},
      {{"--port", "http"}, "peer: --port takes 1024 to 65535, .*"},
      {{"--port", "80"}, "peer: --port takes 1024 to 65535, .*"},
      {{"--port", "65536"}, "peer: --port takes 1024 to 65535, .*"},
      {{"--port", "25252"}, "peer: --port takes 1024 to 65535, .*"},
      {{"--interface", "eth9"}, "peer: there is no network interface 'eth9'; there are lo.*"},
      {{"--trace=/nowhere/at/all"}, "peer: cannot write /nowhere/at/all: No such file or directory"},
      {{"--accept", "perhaps"}, "peer: --accept takes ask, always or never.*; not 'perhaps'"},
      {{"--dir", "/nowhere/at/all"}, "peer: files cannot be stored in /nowhere/at/all: No such file or directory"},
      {{"--dir", "/etc/passwd"}, "peer: files cannot be stored in /etc/passwd: .*"}};
  for (const auto& [options, sentence] : wrong) {
    Process& peer = network->peer(0, "x", options);
    EXPECT_EQ(peer.exit_status(), 2);
    peer.wait_for(sentence);
  }
}

TEST_F(Commands, HelpListsTheOptionsAndExitsZero) {
  for (const char* help : {"--help", "-h"}) {
    Process& peer = network->peer(0, "x", {help});
    EXPECT_EQ(peer.exit_status(), 0);
    for (const char* option : {"name", "group", "port", "interface", "dir", "accept", "trace", "version", "help"})
      EXPECT_EQ(peer.count("  --" + std::string(option) + "\\b.*"), 1u) << option;
  }
}

TEST_F(Commands, VersionNamesTheProgramAndTheProtocol) {
  Process& peer = network->peer(0, "x", {"--version"});
  EXPECT_EQ(peer.exit_status(), 0);
  EXPECT_EQ(peer.count("ChatByP2P \\d+\\.\\d+\\.\\d+, protocol ChatByP2P/1"), 1u) << peer.output();
  EXPECT_EQ(peer.lines().size(), 1u);
}

TEST_F(Commands, TwoDashesEndTheOptions) {
  network->peer(0, "x", {"--name", "x", "--group", "lab", "--"}).wait_for("ready x@.* lab");
}

TEST_F(Commands, TheProgramGoesByTheNameThatItWasCalledBy) {
  const Folder folder;
  const std::string program = folder.path("chatbyp2p");
  network->run(0, "ln -s " + peer_program() + " " + program);
  Process wrong(network->descriptor(0), {program, "--colour"}, folder.path());
  EXPECT_EQ(wrong.exit_status(), 2);
  wrong.wait_for("chatbyp2p: unknown option '--colour'; --help lists them");
  Process help(network->descriptor(0), {program, "--help"}, folder.path());
  help.wait_for("usage: chatbyp2p .*");
}

TEST_F(Commands, HelpThatCannotBeWrittenIsNoSuccess) {
  for (const char* option : {"--help", "--version"})
    network->run(0, peer_program() + " " + option + " >/dev/full; test $? -eq 1");
}

TEST_F(Commands, AUserWhoseNameIsNoneIsCalledUser) {
  const Folder folder;
  const std::vector<std::pair<std::string, std::string>> users = {
      {"USER=zoë", "zoë"},        {"USER=two words", "user"}, {"USER=", "user"},
      {"USER=\x1b[2J", "user"},  {"USER=\xff", "user"},      {"USER=" + std::string(33, 'n'), "user"},
      {"--unset=USER", "user"}};
  for (const auto& [user, name] : users) {
    Process peer(network->descriptor(0), {"/usr/bin/env", user, peer_program()}, folder.path());
    peer.wait_for("ready " + name + "@127.0.0.1:25253 lab");
    peer.say("/quit");
    EXPECT_EQ(peer.exit_status(), 0) << user;
  }
}

TEST_F(Commands, ATakenPortIsNamedWithTheRemedy) {
  network->peer(0, "first", {"--port", "25300"}).wait_for("ready .*");
  Process& second = network->peer(0, "second", {"--port", "25300"});
  EXPECT_EQ(second.exit_status(), 2);
  second.wait_for("peer: .* port 25300: Address already in use; --port chooses another");
}

TEST_F(Commands, APortThatAnotherProgramHasIsNamedWithWhatHelps) {
  {
    const Socket other = Socket::udp(*network, 0, 25252);
    other.share_port_no_more();
    Process& peer = network->peer(0, "bob");
    EXPECT_EQ(peer.exit_status(), 1);
    peer.wait_for("peer: another program holds UDP port 25252, .*; end it: ss -lunp \\| grep 25252 names it .*");
  }
  std::vector<Socket> all;
  for (int port = 25253; port <= 25508; ++port) all.push_back(Socket::tcp_listener(*network, 0, port));
  Process& peer = network->peer(0, "cleo");
  EXPECT_EQ(peer.exit_status(), 1);
  peer.wait_for("peer: ports 25253 to 25508 are all taken, .*; end a program .*, or choose another port with --port N");
}

TEST_F(Commands, AnInterfaceThatDoesNotExistIsSaidWithThoseThatDo) {
  Process& peer = network->peer(0, "bob", {"--interface", "eth9"});
  EXPECT_EQ(peer.exit_status(), 2);
  peer.wait_for("peer: there is no network interface 'eth9'; there are lo");
}

TEST_F(Commands, WithoutAUsableDefaultFolderTheRestStillWorks) {
  const Folder scratch;
  scratch.write("downloads", "a file is in the way");
  Process bob(network->descriptor(0), {peer_program(), "--name", "bob", "--accept", "always"}, scratch.path());
  bob.wait_for("note: files cannot be stored in downloads: .*; choose another folder with --dir");
  Process& ann = network->peer(0, "ann");
  network->folder("ann").write("a", "hello\n");
  ann.wait_for("joined bob.*");
  ann.say("/send bob a");
  ann.wait_for("send 1 failed bob@\\S+ 6 bytes, cannot store a: .*: a");
  ann.say("/msg bob but we can talk");
  bob.wait_for("message ann@\\S+ private: but we can talk");
}

TEST_F(Commands, WhatTheSystemRefusesAtStartIsOneSentenceAndExitOne) {
  const Folder folder;
  // LeakSanitizer needs a descriptor itself, and would take its absence for an error of the program.
  const std::string no_leaks = "export ASAN_OPTIONS=$ASAN_OPTIONS:detect_leaks=0; ";
  // What the tests themselves were given.
  const std::string close = "exec 3<&- 4<&- 5<&- 6<&- 7<&- 8<&- 9<&-; ";
  const std::string few = no_leaks + close + "ulimit -n 6; exec \"$0\" --name ann";
  Process peer(network->descriptor(0), {"/bin/sh", "-c", few, peer_program()}, folder.path());
  EXPECT_EQ(peer.exit_status(), 1);
  peer.wait_for("peer: socket: Too many open files");
  const std::string many = no_leaks + "ulimit -n 2000; for i in $(seq 3 1100); do "
                           "eval \"exec $i</dev/null\"; done; exec \"$0\" --name ann";
  Process late(network->descriptor(0), {"/bin/bash", "-c", many, peer_program()}, folder.path());
  EXPECT_EQ(late.exit_status(), 1);  // a descriptor that select() cannot watch is none
  late.wait_for("peer: pipe: Too many open files");
}

TEST_F(Commands, WithoutADescriptorLeftItSaysSoAndGoesOnWhenSomeAreFree) {
  const Folder folder;
  folder.write("x", "hello\n");
  Process bob(network->descriptor(0),
              {"/bin/sh", "-c", "ulimit -n 20 && exec \"$0\" --name bob --group lab --port 25301", peer_program()},
              folder.path());
  Process& ann = network->peer(0, "ann");
  bob.wait_for("joined ann.*");
  std::deque<Socket> callers;
  for (int i = 0; i < 30; ++i) {
    callers.push_back(Socket::tcp(*network, 0, "127.0.0.1", 25301));
    callers.back().send("ChatByP2P/1 HELLO id=00000000000000aa ip=127.0.0.1 port=9 name=zoe group=lab\n");
  }
  const auto used = [&] {
    const std::filesystem::directory_iterator open("/proc/" + std::to_string(bob.pid()) + "/fd");
    return std::count_if(begin(open), end(open), [](auto& fd) { return std::stoi(fd.path().filename()) < 20; });
  };
  EXPECT_TRUE(eventually([&] { return used() == 20; }));
  const auto busy = [&] {  // seconds that the main thread has had a processor so far
    return std::stod(read_file("/proc/" + std::to_string(bob.pid()) + "/schedstat")) / 1e9;
  };
  const double before = busy();
  EXPECT_FALSE(bob.prints("left .*", 2));
  EXPECT_LT(busy() - before, 0.2);  // the callers that wait in the queue do not make it turn round and round
  bob.say("/send ann x");
  bob.wait_for("error: cannot read x: Too many open files");
  bob.say("/msg ann hello?");
  bob.wait_for("failed ann@\\S+: socket: Too many open files; not delivered: hello\\?");
  EXPECT_EQ(callers.front().line().substr(0, 2), "OK");
  while (callers.size() > 2) callers.pop_front();
  EXPECT_EQ(callers.back().line().substr(0, 2), "OK");  // it has waited, and was not forgotten
  EXPECT_TRUE(eventually([&] { return used() < 20; }));
  bob.say("/msg ann hello!");
  ann.wait_for("message bob@\\S+ private: hello!");
}

TEST_F(Commands, WithoutAnyInterfaceItWaitsForOne) {
  network->run(0, "ip link set lo down");
  Process& ann = network->peer(0, "ann");
  ann.wait_for("ready ann@.*");
  ann.wait_for("note: no network interface is up; waiting for one");
  network->run(0, "ip link set lo up");
  network->peer(0, "bob");
  ann.wait_for("joined bob.*");
}

TEST_F(Commands, EachWrongCommandIsOneSentenceAndTheProgramGoesOn) {
  Process& ann = network->peer(0, "ann");
  network->peer(0, "bob");
  ann.wait_for("joined bob.*");
  const std::vector<std::pair<std::string, std::string>> wrong = {
      {"/dance", "there is no command /dance; /help lists them"},
      {"/", "there is no command /; /help lists them"},
      {"/lsit", "there is no command /lsit; /help lists them"},
      {"/sen", "there is no command /sen \\(did you mean /send or /sendgroup or /sendall\\?\\); .*"},
      {"/list all", "/list takes no arguments; /help /list"},
      {"/help dance", "there is no command /dance; .*"},
      {"hello?", "to whom\\? choose with /to WHO, or write /msg WHO TEXT"},
      {"/to", "to whom\\? .*"},
      {"/to nobody", "nobody called nobody is online; /list shows who is"},
      {"/to bobo", "nobody called bobo is online; /list shows who is"},
      {"/msg bo hello", "nobody called bo is online \\(did you mean bob@127.0.0.1:\\d+\\?\\); .*"},
      {"/msg b hello", "nobody called b is online \\(did you mean bob@127.0.0.1:\\d+\\?\\); .*"},
      {"    /list all", "/list takes no arguments; .*"},  // pasted out of a document
      {"/to 99", "nobody called 99 is online; .*"},
      {"/msg", "to whom\\? .*"},
      {"/msg bob", "there is no text to send"},
      {"/msg ann hello", "ann is you"},
      {"/msg bob " + std::string(4001, 'x'), "a message has at most 4000 bytes; this one has 4001"},
      {"/msg bob a\x1b[2Jb", "a message must be UTF-8, without control characters"},
      {"/msg bob \xff", "a message must be UTF-8, without control characters"},
      {"/group", "there is no text to send"},
      {"/all", "there is no text to send"},
      {"/send", "to whom\\? .*"},
      {"/send bob", "which file\\? /send WHO PATH"},
      {"/accept", "there is nothing to accept; /transfers lists what is under way"},
      {"/accept one", "there is no transfer 'one'; .*"},
      {"/reject 7", "there is no transfer '7'; .*"},
      {"/cancel 7", "there is no transfer '7'; .*"},
      {"/name", "a name or group is 1 to 32 characters .*"},
      {"/name /quit", "a name or group is 1 to 32 characters .* no / first"},
      {"/name two words", "a name or group is 1 to 32 characters .*"},
      {"/join " + std::string(33, 'g'), "a name or group is 1 to 32 characters .*"},
      {"/list x", "/list takes no arguments; /help /list"},
      {"/help dance", "there is no command /dance.*; /help lists them"},
      {"/to bob hello", "/to takes one user; /msg bob TEXT sends one message"},
      {"/msg bbo hello", "nobody called bbo is online; /list shows who is"},
      {"/diag nobody", "nobody called nobody is online; .*"},
      {"/scan here", "/scan takes ADDRESS, ADDRESS:PORT, NETWORK/BITS, or no argument"},
      {"/scan 127.0.0.1/33", "/scan takes ADDRESS, .*"},
      {"/scan 127.0.0.1:0", "/scan takes ADDRESS, .*"},
      {"/scan 10.1.2.3", "no usable route leads to 10.1.2.3"}};
  for (const auto& [command, sentence] : wrong) {
    ann.say(command);
    ann.wait_for("error: " + sentence);
  }
  ann.say("/msg bob " + std::string(4000, 'x'));
  ann.wait_for("delivered bob@\\S+: x{10}.*");
}

TEST_F(Commands, MayHaveSeveralBlanksBetweenTheirWordsAndBeforeThem) {
  Process& bob = network->peer(0, "bob");
  Process& ann = network->peer(0, "ann");
  ann.wait_for("joined bob.*");
  network->folder("ann").write("a  file", "hello\n");
  ann.say("   /msg   bob   two  blanks ");
  bob.wait_for("message ann@\\S+ private: two  blanks ");
  ann.say("/group    to us");
  bob.wait_for("message ann@\\S+ group: to us");
  ann.say("/to   bob  ");
  ann.wait_for("to bob@\\S+");
  ann.say("/send   bob   a  file");
  bob.wait_for("receive 1 offered ann@\\S+ 6 bytes: a  file");
  bob.say("  /accept   1   my  file");
  bob.wait_for("receive 1 stored ann@\\S+ 6 bytes, cksum 3015617425: downloads/my  file");
  ann.say("/name   anna");
  ann.wait_for("you anna@\\S+ lab");
  ann.say("/list   ");
  ann.wait_for("users 2");
  EXPECT_EQ(ann.count("error: .*"), 0u) << ann.output();
}

TEST_F(Commands, OneselfIsNobodyToWriteToUnderAnyAddressEither) {
  network->run(0, "ip addr add 10.9.9.9/32 dev lo");
  Process& ann = network->peer(0, "ann", {"--port", "25301"});
  Process& bob = network->peer(0, "bob", {"--port", "25302"});
  ann.wait_for("joined bob.*");
  network->folder("ann").write("x", "hello\n");
  for (const std::string ip : {"127.0.0.1", "127.1.2.3", "10.9.9.9", "0.0.0.0"}) {
    const std::string address = ip + ":25301";
    for (const std::string& command : {"/to " + address, "/msg " + address + " hi", "/send " + address + " x"}) {
      ann.say(command);
      ann.wait_for("error: " + address + " is you");
    }
  }
  ann.say("/to ann@127.0.0.1:25301");
  ann.wait_for("error: ann@127.0.0.1:25301 is you");
  ann.say("/msg 10.9.9.9:25302 at another port it is another");
  bob.wait_for("message ann@\\S+ private: at another port it is another");
}

TEST_F(Commands, AServiceStaysAsTheInterfaceSaysUntilItIsToldToLeave) {
  const std::string text = read_file("docs/interface.md");
  const auto shown = matches(text, "\n    (\\./peer .* <>commands) >box.log &\n");
  ASSERT_EQ(shown.size(), 1u);
  const Folder folder;
  ASSERT_EQ(::symlink(peer_program().c_str(), folder.path("peer").c_str()), 0);
  const std::string command = "mkfifo commands && exec " + shown[0][1].str();
  Process box(network->descriptor(0), {"/bin/sh", "-c", command}, folder.path());
  Process& ann = network->peer(0, "ann");
  ann.wait_for("joined box@.*");
  box.wait_for("joined ann@.*");
  const std::string commands = " >" + folder.path("commands");
  const std::vector<std::string> lines = {"/all one", "/all two"};
  for (const std::string& line : lines) {  // each by a writer of its own, who closes it again
    network->run(0, "echo '" + line + "'" + commands);
    ann.wait_for("message box@\\S+ all: " + line.substr(5));
  }
  network->folder("ann").write("x", "hello\n");
  ann.say("/send box x");
  ann.wait_for("send 1 delivered .*");
  network->run(0, "echo /quit" + commands);
  EXPECT_EQ(box.exit_status(), 0) << box.output();
}

TEST_F(Commands, TheEndOfInputLetsWhatIsSentFinish) {
  Process& bob = network->peer(0, "bob", {"--accept", "always"});
  bob.wait_for("ready .*");
  Process& ann = network->peer(0, "ann");
  network->folder("ann").write("big", random_bytes(20'000'000, 4));
  ann.say("/msg bob one");  // read only after bob was found: nobody waits for him here
  ann.say("/send bob big");
  ann.say("/msg bob two");
  ann.end_input();
  EXPECT_EQ(ann.exit_status(), 0) << ann.output();
  bob.wait_for("message ann@\\S+ private: one");
  bob.wait_for("left ann@\\S+: said bye");  // behind all that he has to say of her: ann may be gone before he has said it
  EXPECT_EQ(bob.count("message .*"), 2u);
  EXPECT_EQ(bob.count("receive 1 stored .* 20000000 bytes, cksum \\d+: downloads/big"), 1u);
}

TEST_F(Commands, TheEndOfInputEndsItsLastLineToo) {
  Process& bob = network->peer(0, "bob");
  bob.wait_for("ready .*");
  const Folder folder;
  const std::string program = ann_in(folder);
  network->run(0, "printf '/msg 127.0.0.1:25253 hi' | (" + program + ")");
  bob.wait_for("message ann@\\S+ private: hi");
  network->run(0, "printf '/list' | (" + program + ") > " + folder.path("list"));
  const std::string list = read_file(folder.path("list"));
  EXPECT_FALSE(matches(list, "\nusers [12]\n").empty()) << list;
}

TEST_F(Commands, TheInputMayHaveTheLineEndsOfWindows) {
  Process& bob = network->peer(0, "bob");
  bob.wait_for("ready .*");
  const Folder folder;
  const std::string program = ann_in(folder);
  network->run(0, "printf '/msg 127.0.0.1:25253 hi\\r\\n/quit\\r\\n' | (" + program + ")");
  bob.wait_for("message ann@\\S+ private: hi");
}

TEST_F(Commands, WithoutStandardInputOutputOrErrorItTalksAllTheSame) {
  Process& bob = network->peer(0, "bob");
  bob.wait_for("ready .*");
  const Folder folder;
  folder.write("commands", "/msg 127.0.0.1:25253 hi");
  const std::string program = ann_in(folder) + " ";
  const std::vector<std::string> closed = {"<commands >&-", "<commands 2>&-", "<commands >&- 2>&-"};
  for (const std::string& which : closed) {
    network->run(0, program + which);
    bob.wait_for("message ann@\\S+ private: hi");
    bob.wait_for("left ann@\\S+: said bye");
  }
  for (const std::string which : {"<&-", "<&- >&-", "<&- >&- 2>&-"}) {  // no input is one that has ended
    network->run(0, "timeout 60 sh -c '" + program + which + "'");
    bob.wait_for("left ann@\\S+: said bye");
  }
}

TEST_F(Commands, TheExitStatusSaysWhetherAllWasDelivered) {
  network->peer(0, "bob").wait_for("ready .*");
  for (const auto& [command, status] : std::vector<std::pair<std::string, int>>{
           {"/msg 127.0.0.1:25253 hello", 0}, {"/msg nobody hello", 1}, {"/send bob nothing", 1}, {"hello", 1},
           {"/msg 127.0.0.1:9 hello", 1}, {"/dance", 0}}) {
    Process& ann = network->peer(0, "ann");
    ann.say(command);
    ann.end_input();
    EXPECT_EQ(ann.exit_status(), status) << command << "\n" << ann.output();
  }
}

TEST_F(Commands, OutputThatNobodyCanReadIsAFailure) {
  const Folder scratch;
  network->run(0, "echo /list | " + peer_program() + " --name ann --dir " + scratch.path() + " > /dev/full; test $? -eq 1");
}

// As "./peer | head -n 2": the pipe has nobody who reads it any more. SIGPIPE would end the program without a BYE.
TEST_F(Commands, APipeThatIsClosedIsAFailureOfWhichTheOthersAreTold) {
  Process& bob = network->peer(0, "bob");
  bob.wait_for("ready .*");
  const Folder folder;
  const std::string command = "exec 3>&1; { \"$0\" --name ann --group lab; echo status $? >&3; } | head -n 2";
  Process ann(network->descriptor(0), {"/bin/sh", "-c", command, peer_program()}, folder.path());
  ann.wait_for("joined bob@.*");  // the second of them
  bob.wait_for("joined ann@.*");
  EXPECT_TRUE(eventually([&] {
    ann.say("/list");
    return ann.prints("status \\d+", 0.1);
  }));
  ann.wait_for("status 1");
  bob.wait_for("left ann@\\S+: said bye");
}

TEST_F(Commands, ASecondQuitDoesNotWait) {
  network->peer(0, "bob");
  Process& ann = network->peer(0, "ann");
  network->folder("ann").write("a", "hello\n");
  ann.wait_for("joined bob.*");
  ann.say("/send bob a");  // an offer that nobody answers
  ann.wait_for("send 1 offered .*");
  ann.say("/quit");
  ann.say("/list");
  ann.wait_for("error: leaving; .*");
  ann.say("/quit");
  EXPECT_EQ(ann.exit_status(), 1);  // the offer would be open for 120 s
}

TEST_F(Commands, ASecondSignalEndsWhatADiskThatHangsKeepsFromLeaving) {
  NEEDS_PROGRAM("cc", "gcc");
  const Folder folder;
  const std::string start = "export LD_PRELOAD=" +
                            hung_disk(*network, folder) + "; exec \"$0\" --name bob --group lab --accept always";
  for (const int number : {SIGINT, SIGTERM}) {
    ::unlink(folder.path("hangs").c_str());
    Process bob(network->descriptor(0), {"/bin/sh", "-c", start, peer_program()}, folder.path());
    Process& ann = network->peer(0, "ann");
    network->folder("ann").write("a", "hello\n");
    ann.wait_for("joined bob.*");
    ann.say("/send bob a");
    ann.wait_for("send 1 started .*");
    EXPECT_TRUE(eventually([&] { return ::access(folder.path("hangs").c_str(), F_OK) == 0; })) << bob.output();
    bob.signal(number);
    ann.wait_for("left bob@\\S+: said bye");  // the first one is obeyed, as far as it can be
    EXPECT_EQ(status_after_insisting(bob, number), 128 + number);
    ann.say("/quit");
    ann.say("/quit");
    ann.exit_status();
  }
}

TEST_F(Commands, ASecondSignalEndsWhatStandsStillForNobodyReadsItsOutput) {
  // Under ThreadSanitizer a handler does not run before the call that the signal met has returned: here, never.
  if (sanitizer() == "thread") return;
  const Folder folder;
  network->run(0, "mkfifo " + folder.path("output"));
  const int reader = ::open(folder.path("output").c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  Process ann(network->descriptor(0), {"/bin/sh", "-c", "exec \"$0\" --name ann --group lab >output", peer_program()},
              folder.path());
  for (int i = 0; i < 300; ++i) ann.say("/help");
  int unread = 0;
  EXPECT_TRUE(eventually([&] { return ::ioctl(reader, FIONREAD, &unread) == 0 && unread > 40'000; })) << unread;
  EXPECT_EQ(status_after_insisting(ann, SIGTERM), 128 + SIGTERM);
  ::close(reader);
}

// timeout(1) sends its signal to the program and to its group.
TEST_F(Commands, TwoSignalsAtOnceAreOne) {
  Process& ann = network->peer(0, "ann");
  Process& bob = network->peer(0, "bob");
  ann.wait_for("joined bob.*");
  for (int i = 0; i < 2; ++i) bob.signal(SIGTERM);
  EXPECT_EQ(bob.exit_status(), 0);
  ann.wait_for("left bob@\\S+: said bye");
}
