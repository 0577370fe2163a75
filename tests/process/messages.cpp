// Conversations between real processes, and with peers written by hand on raw sockets.

#include <signal.h>

#include <optional>
#include <regex>

#include "support/testing.h"

class Messages : public OneHost {
 protected:
  // ann, who lists a bob that is written by hand.
  Process& ann_who_lists_bob() {
    Process& ann = network->peer(0, "ann");
    ann.wait_for("ready .*");
    bobs_datagrams_.emplace(Socket::udp(*network, 0, 40001));
    bobs_door_.emplace(Socket::tcp_listener(*network, 0, 40001));
    bobs_datagrams_->meet("127.0.0.1", 25253, "id=00000000000000bb ip=127.0.0.1 port=40001 name=bob group=lab");
    ann.wait_for("joined bob@127.0.0.1:40001 lab");
    return ann;
  }

  // Whom /to chose and /list numbered, and who is not there any more, gets nothing by either.
  static void expect_unchosen(Process& ann, const std::string& label) {
    ann.say("for nobody else");
    ann.wait_for("error: " + wording("ann", label + " has left; /to WHO chooses another"));
  }
  static void expect_unnumbered(Process& ann, const std::string& number, const std::string& label, const std::string& why) {
    ann.say("/msg " + number + " for nobody else");
    ann.wait_for("error: " + wording("ann", "number " + number + " was " + label + ", who " + why + "; /list shows the numbers now"));
  }

  std::optional<Socket> bobs_datagrams_, bobs_door_;
};

TEST_F(Messages, ArriveInOrderOnceAndAreAcknowledged) {
  Process& bob = network->peer(0, "bob");
  Process& ann = network->peer(0, "ann");
  ann.wait_for("joined bob.*");
  for (int i = 0; i < 500; ++i) ann.say("/msg bob number " + std::to_string(i));
  for (int i = 0; i < 500; ++i) bob.wait_for("message ann@\\S+ private: number " + std::to_string(i));
  EXPECT_TRUE(eventually([&] { return ann.count("delivered bob@.*") == 500; }));
  EXPECT_EQ(bob.count("message .*"), 500u);
}

// A connection stays open for a while. Where accept() hands on O_NONBLOCK, its thread could run in circles.
TEST_F(Messages, KeepNobodyBusyOnceTheyHaveArrived) {
  Process& bob = network->peer(0, "bob");
  Process& ann = network->peer(0, "ann");
  ann.wait_for("joined bob.*");
  ann.say("/msg bob hello");
  ann.wait_for("delivered bob@.*");
  EXPECT_TRUE(eventually([&] { return ann.is_waiting(); }));
  EXPECT_TRUE(eventually([&] { return bob.is_waiting(); }));
  EXPECT_GT(bob.uses("task"), 1u);  // the connection is there
}

TEST_F(Messages, KeepBlanksSlashesColonsTabsAndEveryScript) {
  Process& bob = network->peer(0, "bob");
  Process& ann = network->peer(0, "ann");
  ann.wait_for("joined bob.*");
  ann.say("/to bob");
  ann.wait_for("to bob@127.0.0.1:\\d+");
  for (const std::string text : {"two  blanks", ": starts like a field", "a=b c=d", "你好，世界", "👩‍👩‍👧 emoji", "tab\there"}) {
    ann.say(text);
    EXPECT_EQ(bob.wait_for("message ann@\\S+ private: .*").substr(37), text);
  }
  ann.say("//not a command");
  bob.wait_for("message ann@\\S+ private: /not a command");
}

TEST_F(Messages, OfTheLargestSizeArriveWholeAndLargerOnesAreRefused) {
  Process& bob = network->peer(0, "bob");
  Process& ann = network->peer(0, "ann");
  ann.wait_for("joined bob.*");
  ann.say("/to bob");
  ann.wait_for("to bob@.*");
  std::string chinese = "x";
  while (chinese.size() < 4000) chinese += "图";
  for (const std::string& text : {std::string(4000, 'x'), chinese}) {
    ann.say(text);
    const std::string line = bob.wait_for("message ann@\\S+ private: .*");
    EXPECT_EQ(line.substr(line.find(": ") + 2), text);
  }
  ann.say(chinese + "x");
  ann.wait_for("error: .*");
  ann.say("the last one");
  bob.wait_for("message ann@\\S+ private: the last one");
  EXPECT_EQ(bob.count("message .*"), 3u);
}

TEST_F(Messages, ThatCrossArriveOnceEachAndInOrder) {
  Process& bob = network->peer(0, "bob");
  Process& ann = network->peer(0, "ann");
  ann.wait_for("joined bob.*");
  bob.wait_for("joined ann.*");
  for (int i = 0; i < 100; ++i) {
    ann.say("/msg bob for bob " + std::to_string(i));
    bob.say("/msg ann for ann " + std::to_string(i));
  }
  for (int i = 0; i < 100; ++i) {
    bob.wait_for("message ann@\\S+ private: for bob " + std::to_string(i));
    ann.wait_for("message bob@\\S+ private: for ann " + std::to_string(i));
  }
  EXPECT_TRUE(eventually([&] { return ann.count("delivered .*") == 100 && bob.count("delivered .*") == 100; }));
  for (Process* one : {&ann, &bob}) EXPECT_EQ(one->count("message .*"), 100u);
}

TEST_F(Messages, OfSomeoneWhoChangesNameAndGroupCarryTheNewOnes) {
  Process& bob = network->peer(0, "bob");
  Process& ann = network->peer(0, "ann");
  ann.wait_for("joined bob.*");
  bob.wait_for("joined ann.*");
  ann.say("/msg bob by my old name");  // and the conversation goes on
  bob.wait_for("message ann@\\S+ private: by my old name");
  ann.say("/name anna");
  ann.wait_for("you anna@\\S+ lab");
  bob.wait_for("changed anna@\\S+ lab: was ann@\\S+ lab");
  ann.say("/msg bob by my new name");
  bob.wait_for("message anna@\\S+ private: by my new name");
  bob.say("/msg ann nobody is called so");
  bob.wait_for("error: " + wording("bob", "nobody called ann is online.*"));
  bob.say("/msg anna for you");
  ann.wait_for("message bob@\\S+ private: for you");
  ann.say("/join chess");
  bob.wait_for("changed anna@\\S+ chess: was anna@\\S+ lab");
  bob.say("/group nobody is in it");
  bob.wait_for("error: .*");
  bob.say("/join chess");
  ann.wait_for("changed bob@\\S+ chess: was bob@\\S+ lab");
  bob.say("/group for the players");
  ann.wait_for("message bob@\\S+ group: for the players");
  EXPECT_EQ(ann.count("message .*"), 2u);
}

// She numbers them from 1 again; and he keeps no conversation with her former self.
// Both are among the first 16 ports: others find nobody where loopback carries no broadcast, see elsewhere.c.
TEST_F(Messages, BeforeAndAfterTheirSenderWasRestartedAllArrive) {
  Process& bob = network->peer(0, "bob", {"--port", "25261"});
  Process* ann = &network->peer(0, "ann", {"--port", "25262"});
  ann->wait_for("joined bob.*");
  bob.wait_for("joined ann.*");
  ann->say("/msg bob before");
  ann->wait_for("delivered bob@\\S+: before");
  bob.say("/msg ann an answer");
  ann->wait_for("message bob@\\S+ private: an answer");
  ann->signal(SIGKILL);
  ann->exit_status();
  ann = &network->peer(0, "ann", {"--port", "25262"});
  ann->wait_for("joined bob.*");
  bob.wait_for("joined ann.*");
  ann->say("/msg bob after");
  ann->wait_for("delivered bob@\\S+: after");
  bob.say("/msg ann another answer");
  ann->wait_for("message bob@\\S+ private: another answer");
  EXPECT_EQ(bob.count("message ann@\\S+ private: (before|after)"), 2u);
}

TEST_F(Messages, FailWhileTheirReceiverIsAwayAndArriveOnceHeIsBack) {
  Process* bob = &network->peer(0, "bob", {"--port", "25301"});
  Process& ann = network->peer(0, "ann");
  ann.wait_for("joined bob.*");
  ann.say("/to bob");
  ann.wait_for("to bob@.*");
  ann.say("are you there?");
  ann.wait_for("delivered bob@\\S+: are you there\\?");
  bob->signal(SIGKILL);
  bob->exit_status();
  ann.say("and now?");
  ann.wait_for("failed bob@\\S+: .*; not delivered: and now\\?");
  bob = &network->peer(0, "bob", {"--port", "25301"});
  ann.wait_for("left bob@\\S+: replaced");
  ann.wait_for("joined bob.*");
  ann.say("not for whom I chose");
  ann.wait_for("error: " + wording("ann", "bob@\\S+ has left; he is back, and .*"));
  ann.say("/to bob");
  ann.wait_for("to bob@.*");
  ann.say("welcome back");
  bob->wait_for("message ann@\\S+ private: welcome back");
  EXPECT_EQ(bob->count("message .*"), 1u);
}

TEST_F(Messages, ToTheGroupAndToAllReportWhoGotThem) {
  Process& ann = network->peer(0, "ann");
  Process& bob = network->peer(0, "bob");
  Process& eve = network->peer(0, "eve", {"--group", "other"});
  ann.wait_for("joined bob.*");
  EXPECT_TRUE(eventually([&] { return ann.count("joined .*") == 2; }));
  ann.say("/group for the lab");
  ann.wait_for("delivered 1 of 1");
  bob.wait_for("message ann@\\S+ group: for the lab");
  ann.say("/all for everyone");
  ann.wait_for("delivered 2 of 2");
  bob.wait_for("message ann@\\S+ all: for everyone");
  eve.wait_for("message ann@\\S+ all: for everyone");
  EXPECT_EQ(eve.count("message .*"), 1u);
  bob.signal(SIGKILL);
  bob.exit_status();
  ann.say("/all who is left");
  ann.wait_for("delivered 1 of 2; not reached: bob@\\S+");
}

TEST_F(Messages, ReachTheRightOneOfTwoUsersCalledAnn) {
  Process& ann1 = network->peer(0, "ann", {"--port", "25261"});
  Process& ann2 = network->peer(0, "ann", {"--port", "25262"});
  Process& bob = network->peer(0, "bob", {"--port", "25263"});
  EXPECT_TRUE(eventually([&] { return bob.count("joined ann.*") == 2; }));
  bob.say("/msg ann which of you");
  bob.wait_for("error: " + wording("bob", "ann can mean more than one user; write ann@127.0.0.1:(25261|25262) "
                                          "or ann@127.0.0.1:(25261|25262)"));
  bob.say("/msg ann@127.0.0.1:25262 you, the second");
  ann2.wait_for("message bob@127.0.0.1:25263 private: you, the second");
  bob.say("/msg 127.0.0.1:25261 and you, the first");
  ann1.wait_for("message bob@127.0.0.1:25263 private: and you, the first");
  bob.say("/list");
  bob.wait_for("user 1 - ann lab 127.0.0.1:25261");
  bob.wait_for("user 2 - ann lab 127.0.0.1:25262");
  bob.wait_for("user 3 \\* bob lab 127.0.0.1:25263");
  bob.wait_for("users 3");
  bob.say("/msg 2 by number");
  ann2.wait_for("message .*: by number");
  EXPECT_EQ(ann1.count("message .*"), 1u);
}

TEST_F(Messages, ToANumberReachWhoHadItInTheLastList) {
  Process& bob = network->peer(0, "bob");
  Process& ann = network->peer(0, "ann");
  ann.wait_for("joined bob.*");
  ann.say("/list");
  ann.wait_for("user 2 - bob .*");
  ann.wait_for("users 2");
  Process& abe = network->peer(0, "abe");  // who comes before both
  ann.wait_for("joined abe.*");
  ann.say("/msg 2 still you");
  bob.wait_for("message ann@\\S+ private: still you");
  ann.say("/list");
  ann.wait_for("users 3");
  ann.say("/msg 2 me");
  ann.wait_for("error: " + wording("ann", "2 is you"));
  ann.say("/msg 3 you again");
  bob.wait_for("message ann@\\S+ private: you again");
  ann.say("/msg 1 and you");
  abe.wait_for("message ann@\\S+ private: and you");
  EXPECT_EQ(abe.count("message .*"), 1u);
}

TEST_F(Messages, ReachAUserWhoseNameLooksLikeANumber) {
  Process& seven = network->peer(0, "7", {"--port", "25261"});
  Process& two = network->peer(0, "2", {"--port", "25262"});
  Process& ann = network->peer(0, "ann", {"--port", "25263"});
  EXPECT_TRUE(eventually([&] { return ann.count("joined .*") == 2; }));
  ann.say("/msg 7 seven");
  seven.wait_for("message ann@\\S+ private: seven");
  ann.say("/list");  // 2 is number 1, 7 is number 2, ann is number 3
  ann.wait_for("users 3");
  ann.say("/msg 2 ambiguous: the name of one, the number of another");
  ann.wait_for("error: " + wording("ann", "2 can mean more than one user; .*"));
  ann.say("/msg 2@127.0.0.1:25262 now it is clear");
  two.wait_for("message ann@\\S+ private: now it is clear");
  EXPECT_EQ(seven.count("message .*"), 1u);
}

// bob falls silent and cleo says BYE; then others come, at another address, with the ids of those two.
TEST_F(Messages, ForWhomOneHasChosenGoToNobodyWhoComesLaterWithHisId) {
  Process& ann = ann_who_lists_bob();
  const std::string cleos = "id=00000000000000cc ip=127.0.0.1 port=40002 name=cleo group=lab";
  const Socket cleo = Socket::udp(*network, 0, 40002);
  cleo.meet("127.0.0.1", 25253, cleos);
  ann.wait_for("joined cleo@127.0.0.1:40002 lab");
  ann.say("/list");
  ann.wait_for("user 2 - bob .*");
  ann.wait_for("user 3 - cleo .*");
  ann.say("/to cleo");
  ann.wait_for("to cleo@127.0.0.1:40002");
  cleo.send_to("127.0.0.1", 25253, "ChatByP2P/1 BYE " + cleos);
  ann.wait_for("left cleo@127.0.0.1:40002: said bye");
  const Socket thief = Socket::udp(*network, 0, 40003, "127.0.0.2");
  const auto takes = [&](const std::string& who) {
    const std::string there = " ip=127.0.0.2 port=40003 name=eve group=lab";
    thief.meet("127.0.0.1", 25253, "id=" + who + there);
    return ann.prints("(joined|changed) eve@127.0.0.2:40003 lab.*", 1);
  };
  EXPECT_TRUE(eventually([&] { return takes("00000000000000bb"); }));
  ann.wait_for("changed eve@127.0.0.2:40003 lab: was bob@127.0.0.1:40001 lab");
  expect_unnumbered(ann, "2", "bob@127.0.0.1:40001", "is at another address now");
  EXPECT_TRUE(eventually([&] { return takes("00000000000000cc"); }));
  expect_unchosen(ann, "cleo@127.0.0.1:40002");
  expect_unnumbered(ann, "3", "cleo@127.0.0.1:40002", "has left");
}

TEST_F(Messages, GoToNobodyAfterAChoiceThatFailed) {
  Process& bob = network->peer(0, "bob");
  Process& ann = network->peer(0, "ann");
  ann.wait_for("joined bob.*");
  for (const std::string wrong : {"/to nobody", "/to bob hello", "/to"}) {
    ann.say("/to bob");
    ann.wait_for("to bob@.*");
    ann.say(wrong);
    ann.wait_for("error: .*");
    ann.say("not for bob");
    ann.wait_for("error: " + wording("ann", "to whom\\? choose with /to WHO, .*"));
  }
  ann.say("/msg bob for bob");
  bob.wait_for("message ann@\\S+ private: for bob");
  EXPECT_EQ(bob.count("message .*"), 1u);
}

TEST_F(Messages, AreTriedOnceMoreWhenAKeptConnectionHasDied) {
  Process& ann = network->peer(0, "ann");
  const Socket listener = Socket::tcp_listener(*network, 0, 40001);
  const std::string here = "OK ChatByP2P/1 HERE id=00000000000000bb ip=127.0.0.1 port=40001 name=bob group=lab\n";
  ann.say("/to 127.0.0.1:40001");
  ann.say("one");
  {
    Socket first = listener.accept();
    EXPECT_EQ(first.line().substr(0, 17), "ChatByP2P/1 HELLO");
    first.send(here);
    EXPECT_EQ(first.line(), "MSG number=1 scope=private :one");
    first.send("OK\n");
    ann.wait_for("delivered bob@127.0.0.1:40001: one");
    ann.say("two");
    EXPECT_EQ(first.line(), "MSG number=2 scope=private :two");
    ann.say("three");
  }  // closed without a reply: did it arrive?
  Socket second = listener.accept();
  second.line();
  second.send(here);
  EXPECT_EQ(second.line(), "MSG number=2 scope=private :two");  // the same number: the receiver can tell
  second.send("OK\n");
  ann.wait_for("delivered bob@127.0.0.1:40001: two");
  EXPECT_EQ(second.line(), "MSG number=3 scope=private :three");  // and nothing has overtaken it
}

// On macOS, no option of such a connection can be set any more.
TEST_F(Messages, AreTriedOnceMoreWhenAKeptConnectionWasReset) {
  Process& ann = ann_who_lists_bob();
  ann.say("/msg bob one");
  Socket first = bobs_door_->accept();
  first.line();
  first.send(kBobsReply);
  EXPECT_EQ(first.line(), "MSG number=1 scope=private :one");
  first.reset();
  Socket second = bobs_door_->accept();
  second.line();
  second.send(kBobsReply);
  EXPECT_EQ(second.line(), "MSG number=1 scope=private :one");
  second.send("OK\n");
  ann.wait_for("delivered bob@127.0.0.1:40001: one");
}

// Many have given up before they are accepted: nobody who comes after them has to wait for that.
TEST_F(Messages, OfWhoeverComesAfterManyWhoGaveUpAreRead) {
  Process& bob = network->peer(0, "bob", {"--port", "25301"});
  Process& ann = network->peer(0, "ann");
  ann.wait_for("joined bob.*");
  bob.signal(SIGSTOP);
  for (int i = 0; i < 100; ++i) Socket::tcp(*network, 0, "127.0.0.1", 25301).reset();
  ann.say("/msg bob here I am");
  bob.signal(SIGCONT);
  bob.wait_for("message ann@\\S+ private: here I am");
}

// macOS knows no upper limit, and takes none above 10,240.
TEST_F(Messages, OfAsManyAsAPeerTakesFindDescriptors) {
  const Folder folder;
  const std::string few = "ulimit -S -n 256 && exec \"$0\" --name bob --group lab --port 25301";
  Process bob(network->descriptor(0), {"/bin/sh", "-c", few, peer_program()}, folder.path());
  bob.wait_for("ready .*");
  const std::string limits = read_file("/proc/" + std::to_string(bob.pid()) + "/limits");
  std::smatch limit;
  ASSERT_TRUE(std::regex_search(limits, limit, std::regex("Max open files +(\\d+) +(\\d+) ")));
  const int hard = std::stoi(limit[2]);
  EXPECT_GE(std::stoi(limit[1]), std::min(hard, 3 * 512)) << limits;  // a connection, a folder and a file each
}

TEST_F(Messages, AreNotShownTwiceWhenTheyArriveTwice) {
  Process& bob = network->peer(0, "bob", {"--port", "25301"});
  bob.wait_for("ready .*");
  for (int time = 0; time < 2; ++time) {
    Socket ann = Socket::tcp(*network, 0, "127.0.0.1", 25301);
    ann.send(kAnnsHello + "MSG number=5 :once\n");
    EXPECT_EQ(ann.line().substr(0, 22), "OK ChatByP2P/1 HERE id");
    EXPECT_EQ(ann.line(), "OK");
  }
  Socket ann = Socket::tcp(*network, 0, "127.0.0.1", 25301);
  ann.send(kAnnsHello + "MSG number=6 :last\n");
  bob.wait_for("message ann@127.0.0.1:40000 private: last");
  EXPECT_EQ(bob.count("message .*once"), 1u);
}

TEST_F(Messages, FailWithASentenceWhenSomebodyElseAnswersAtTheAddress) {
  Process& ann = ann_who_lists_bob();
  ann.say("/msg bob secret");
  Socket impostor = bobs_door_->accept();
  impostor.line();
  impostor.send("OK ChatByP2P/1 HERE id=00000000000000ee ip=127.0.0.1 port=40001 name=eve group=lab\n");
  ann.wait_for("failed bob@127.0.0.1:40001: another user is at 127.0.0.1:40001 now; not delivered: secret");
  ann.say("/msg bob secret, too");
  EXPECT_EQ(bobs_door_->accept().line().substr(0, 17), "ChatByP2P/1 HELLO");  // he may be back
  EXPECT_TRUE(impostor.is_closed());  // and was told nothing
}

// bob is started anew on his port, under a new id, while messages for both wait there for the same connection.
TEST_F(Messages, ForWhoHasGoneFailAloneAndThoseForWhoeverIsThereArrive) {
  Process& ann = ann_who_lists_bob();
  ann.say("/msg bob one");
  Socket eve = bobs_door_->accept();
  EXPECT_EQ(eve.line().substr(0, 17), "ChatByP2P/1 HELLO");
  const std::string fields = "id=00000000000000ee ip=127.0.0.1 port=40001 name=eve group=lab";
  bobs_datagrams_->meet("127.0.0.1", 25253, fields);
  ann.wait_for("joined eve@127.0.0.1:40001 lab");
  ann.say("/msg eve two");
  ann.say("/msg 127.0.0.1:40001 three");
  ann.say("/list");
  ann.wait_for("users 2");
  eve.send("OK ChatByP2P/1 HERE " + fields + "\n");
  ann.wait_for("failed bob@127.0.0.1:40001: another user is at 127.0.0.1:40001 now; not delivered: one");
  for (const std::string text : {"two", "three"}) {
    const std::string line = eve.line();
    EXPECT_EQ(line.substr(line.find(':')), ":" + text);
    eve.send("OK\n");
    ann.wait_for("delivered eve@127.0.0.1:40001: " + text);
  }
}

TEST_F(Messages, AreNotSaidToHaveFailedForSureWhenTheyMayHaveArrived) {
  Process& ann = ann_who_lists_bob();
  const auto answer_as = [&](const std::string& who) {
    Socket socket = bobs_door_->accept();
    socket.line();
    socket.send("OK ChatByP2P/1 HERE ip=127.0.0.1 port=40001 group=lab " + who + "\n");
    return socket;
  };
  ann.say("/msg bob one");
  EXPECT_EQ(answer_as("id=00000000000000bb name=bob").line(), "MSG number=1 scope=private :one");  // bob ends here
  answer_as("id=00000000000000ee name=eve");
  ann.wait_for("failed bob@127.0.0.1:40001: another user is at 127.0.0.1:40001 now; it may have arrived: one");
  ann.say("/msg bob two");
  Socket silent = answer_as("id=00000000000000bb name=bob");
  EXPECT_EQ(silent.line(), "MSG number=2 scope=private :two");
  ann.say("/msg bob three");
  ann.say("/list");
  ann.wait_for("users 2");
  ann.signal(SIGINT);
  ann.wait_for("failed bob@127.0.0.1:40001: cancelled; it may have arrived: two");
  ann.wait_for("failed bob@127.0.0.1:40001: cancelled; not delivered: three");  // this one was never sent
}

TEST_F(Messages, ToManyThatMayHaveArrivedAreCountedApart) {
  Process& ann = ann_who_lists_bob();
  ann.say("/all hello");
  Socket first = bobs_door_->accept();
  first.line();
  first.send("OK ChatByP2P/1 HERE id=00000000000000bb ip=127.0.0.1 port=40001 name=bob group=lab\n");
  EXPECT_EQ(first.line(), "MSG number=1 scope=all :hello");
  bobs_door_.reset();  // bob's program ends, with the message read and not answered
  { const Socket ends = std::move(first); }
  ann.wait_for("failed bob@127.0.0.1:40001: .*; it may have arrived: hello");
  ann.wait_for("delivered 0 of 1; may have reached: bob@127.0.0.1:40001");
}

TEST_F(Messages, ToSomeoneWhoHasLeftAreRefusedWithTheReason) {
  Process& bob = network->peer(0, "bob", {"--port", "25301"});
  Process& ann = network->peer(0, "ann");
  ann.wait_for("joined bob.*");
  ann.say("/list");
  ann.wait_for("users 2");
  ann.say("/to bob");
  ann.wait_for("to bob@127.0.0.1:25301");
  bob.say("/quit");
  ann.wait_for("left bob@127.0.0.1:25301: said bye");
  expect_unchosen(ann, "bob@127.0.0.1:25301");
  expect_unnumbered(ann, "2", "bob@127.0.0.1:25301", "has left");
  ann.say("/msg bob@127.0.0.1:25301 hello?");
  ann.wait_for("error: " + wording("ann", "nobody called bob@127.0.0.1:25301 is online; .*"));
}

TEST_F(Messages, ToAPeerThatStandsStillAreReportedAndShownOnceAtMost) {
  Process& bob = network->peer(0, "bob");
  Process& ann = network->peer(0, "ann");
  ann.wait_for("joined bob.*");
  ann.say("/msg bob one");
  ann.wait_for("delivered bob@\\S+: one");
  bob.signal(SIGSTOP);
  ann.say("/msg bob two");
  ann.say("/msg bob that waits for two");
  ann.wait_for("failed bob@\\S+: no answer in time; it may have arrived: two", 60);
  ann.wait_for("failed bob@\\S+: no answer in time; not delivered: that waits for two");  // it was never sent
  bob.signal(SIGCONT);
  ann.wait_for("joined bob.*");
  ann.say("/msg bob three");
  bob.wait_for("message ann@\\S+ private: three");
  EXPECT_LE(bob.count("message .*: two"), 1u);
  EXPECT_EQ(bob.count("message .*: that waits for two"), 0u);
}

TEST_F(Messages, UnderAClaimedIdAreShownWithTheAddressTheyCameFrom) {
  Process& bob = network->peer(0, "bob", {"--port", "25301"});
  bob.wait_for("ready .*");
  const Socket ann = Socket::udp(*network, 0, 40000);
  ann.meet("127.0.0.1", 25301, "id=00000000000000aa ip=127.0.0.1 port=40000 name=ann group=lab");
  bob.wait_for("joined ann@127.0.0.1:40000 lab");
  Socket mallory = Socket::tcp(*network, 0, "127.0.0.1", 25301);
  mallory.send("ChatByP2P/1 HELLO id=00000000000000aa ip=127.0.0.1 port=666 name=ann group=lab\nMSG number=1 :forged\n");
  bob.wait_for("message ann@127.0.0.1:666 private: forged");
  Socket own = Socket::tcp(*network, 0, "127.0.0.1", 25301);  // whose number is not used up by that
  own.send(kAnnsHello + "MSG number=1 :genuine\n");
  bob.wait_for("message ann@127.0.0.1:40000 private: genuine");
  EXPECT_EQ(bob.count("changed .*"), 0u);
}

// Whoever claims an id uses up its numbers for himself only. And two students who type the same example are two.
TEST_F(Messages, AreNotSwallowedWhereAnotherAddressHasUsedTheirNumbers) {
  Process& bob = network->peer(0, "bob", {"--port", "25301"});
  bob.wait_for("ready .*");
  const auto say_yes = [&](const std::string& from, int last_number) {
    Socket speaker = Socket::tcp(*network, 0, "127.0.0.1", 25301, from);
    speaker.send(kAnnsHello);
    speaker.line();
    for (int number = 1; number <= last_number; ++number) {
      speaker.send("MSG number=" + std::to_string(number) + " :yes\n");
      EXPECT_EQ(speaker.line(), "OK");
    }
  };
  say_yes("127.0.0.2", 32);
  say_yes("127.0.0.1", 1);
  bob.wait_for("message ann@127.0.0.1:40000 private: yes");
  EXPECT_EQ(bob.count("message ann@127.0.0.2:40000 private: yes"), 32u);
}

TEST_F(Messages, OfAPersonWithOnlyANetcatAreAnswered) {
  Process& bob = network->peer(0, "bob", {"--port", "25301"});
  bob.wait_for("ready .*");
  const Folder scratch;
  network->run(0,
               "printf '%s\\r\\nMSG number=1 :hello from nc\\r\\n' "
               "'ChatByP2P/1 HELLO id=0123456789abcdef ip=127.0.0.1 port=9 name=nc group=lab' "
               "| timeout 60 nc -N 127.0.0.1 25301 > " + scratch.path("answer"));
  const std::string answer = read_file(scratch.path("answer"));
  EXPECT_TRUE(std::regex_match(answer, std::regex("OK ChatByP2P/1 HERE id=[0-9a-f]{16} ip=127.0.0.1 port=25301 name=bob "
                                                  "group=lab to=0123456789abcdef\nOK\n")))
      << answer;
  bob.wait_for("message nc@127.0.0.1:9 private: hello from nc");
}

TEST_F(Messages, ThatAreNotUnderstoodGetOneNoAndTheConnectionGoesOn) {
  Process& bob = network->peer(0, "bob", {"--port", "25301"});
  bob.wait_for("ready .*");
  Socket ann = Socket::tcp(*network, 0, "127.0.0.1", 25301);
  for (const auto& [request, reply] : std::vector<std::pair<std::string, std::string>>{
           {"MSG number=1 :too early", "NO stranger .*"},
           {"ChatByP2P/2 HELLO id=00000000000000aa ip=127.0.0.1 port=40000 name=ann group=lab", "NO stranger .* ChatByP2P/1"},
           {"ChatByP2P/1 HELLO id=00000000000000aa ip=127.0.0.1 port=40000 name=ann group=lab", "OK ChatByP2P/1 HERE .*"},
           {"DANCE", "NO unknown .*"},
           {"MSG number=x :text", "NO syntax .*"},
           {"MSG number=-1 :text", "NO syntax .*"},
           {"MSG number=99999999999999999999 :text", "NO syntax .*"},
           {"MSG number=1", "NO syntax .*"},
           {"MSG number=1 :", "NO syntax .*"},
           {"MSG number=1 number=2 :twice", "NO syntax .*"},
           {"OFFER size=-5 files=1 :x", "NO syntax .*"},
           {"MSG number=1 colour=red scope=private :unknown fields are skipped", "OK"},
       }) {
    ann.send(request + "\n");
    EXPECT_TRUE(std::regex_match(ann.line(), std::regex(reply))) << request;
  }
  bob.wait_for("message ann@\\S+ private: unknown fields are skipped");
  EXPECT_EQ(bob.count("message .*"), 1u);
}

TEST_F(Messages, WithBytesThatAreNotTextEndTheirConnectionOnly) {
  Process& bob = network->peer(0, "bob", {"--port", "25301"});
  bob.wait_for("ready .*");
  for (const std::string& bytes :
       std::vector<std::string>{std::string("MSG number=1 :\x1b[2J\n"), std::string("MSG number=1 :a\0b\n", 18), std::string("MSG number=1 :\xff\n"),
        "MSG number=1 :" + std::string(5000, 'x') + "\n", std::string(5000, 'x')}) {
    Socket ann = Socket::tcp(*network, 0, "127.0.0.1", 25301);
    ann.send(kAnnsHello + bytes);
    EXPECT_EQ(ann.line().substr(0, 2), "OK");
    EXPECT_TRUE(std::regex_match(ann.line(), std::regex("NO (text|long) .*")));
    EXPECT_TRUE(ann.is_closed());
  }
  Socket ann = Socket::tcp(*network, 0, "127.0.0.1", 25301);
  ann.send(kAnnsHello + "MSG number=9 :still here\n");
  bob.wait_for("message ann@\\S+ private: still here");
  EXPECT_EQ(bob.count("message .*"), 1u);
}

// A connection that is closed with unread bytes in it is reset, and then nothing that was lost is sent again.
TEST_F(Messages, ThatAreTooLongAreAnsweredThoughThePacketWithTheAnswerIsLost) {
  network = std::make_unique<Network>(2);
  network->peer(1, "ann").wait_for("ready .*");
  Socket stranger = Socket::tcp(*network, 2, "10.77.0.1", 25253);
  network->drop(1, "output", "tcp sport 25253");
  stranger.send(std::string(20'000, 'x'));
  EXPECT_TRUE(eventually([&] {  // the answer has been sent, and half the connection closed
    const std::string sockets = network->folder("ann").path("sockets");
    network->run(1, "ss -Htn state all sport = 25253 > " + sockets);
    return read_file(sockets).find("FIN-WAIT-1") != std::string::npos || read_file(sockets).find("ESTAB") == std::string::npos;
  }));
  network->run(1, "nft flush ruleset");
  EXPECT_EQ(stranger.line().substr(0, 8), "NO long ");
}
