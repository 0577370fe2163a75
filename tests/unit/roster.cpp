// The rules of docs/protocol.md, 4.2 to 4.4, each at its exact time: a Roster is told what has come
// and what time it is, and says what it sends. No socket, no waiting.

#include <gtest/gtest.h>

#include "discovery.cpp"  // Roster is a part of it that no other file has to know

namespace {

const std::string kAnn = "00000000000000aa", kBob = "00000000000000bb", kCleo = "00000000000000cc";
const Address kBobsDoor = *parse_address("10.77.0.2:25253");

Identity identity(const std::string& id, const std::string& name) {
  Identity who;
  who.id = id;
  who.name = name;
  who.group = "lab";
  who.address.port = 25253;
  return who;
}

Interface network(const std::string& name, const std::string& address, int bits) {
  return {name, *parse_ip(address), ~uint32_t{0} << (32 - bits)};
}

// Ann at 10.77.0.1, on a network of six addresses; what she sends and tells is kept as text.
class RosterRules : public testing::Test {
 protected:
  using Texts = std::vector<std::string>;
  Roster ann{identity(kAnn, "ann"), 1};
  Roster::Time now{1h};

  void start() {
    ann.start({network("lo", "127.0.0.1", 8), network("eth0", "10.77.0.1", 29)}, now);
  }

  // Ann in peace: she has greeted and swept, and nobody was there.
  void settle() {
    start();
    pass(4s);
    sent();
  }

  // Lets so much time pass, and what is due be done when it is.
  void pass(Clock::duration time) {
    const auto end = now + time;
    while (ann.next_due() <= end) {
      now = std::max(now, ann.next_due());
      ann.run(now);
    }
    now = end;
  }

  void hear(const std::string& words, Address from = kBobsDoor) {
    const auto said = Announcement::parse("ChatByP2P/1 " + words + " ip=10.77.0.2 group=lab");
    ASSERT_TRUE(said) << words;
    ann.hear(*said, from, now);
  }
  void bob_says(const std::string& verb, const std::string& more = "") {
    hear(verb + " id=" + kBob + " port=25253 name=bob" + more);
  }
  void bob_is_listed() {
    bob_says("HERE", " to=" + kAnn);
    ASSERT_EQ(told(), Texts{"joined bob@10.77.0.2:25253 "});
    sent();
  }

  // "HELLO 10.77.0.2:25253", and what of `to` and `ask` there is.
  Texts sent() {
    Texts texts;
    for (const Datagram& datagram : ann.take_datagrams()) {
      const Announcement& what = datagram.what;
      std::string text(kVerbs[static_cast<size_t>(what.verb)]);
      text += " " + datagram.to.text();
      if (what.who.id != kAnn) text += " of " + what.who.name;
      if (!what.to.empty()) text += " to=" + what.to;
      if (what.ask_host) text += " ask=host";
      texts.push_back(text);
    }
    return texts;
  }

  static std::string text_of(const Event& event) {
    if (const auto* joined = std::get_if<UserJoined>(&event)) return "joined " + joined->who.label() + " ";
    if (const auto* left = std::get_if<UserLeft>(&event)) return "left " + left->who.label() + " " + left->why;
    if (const auto* told = std::get_if<Told>(&event)) return told->line;
    const auto& changed = std::get<UserChanged>(event);
    return "changed " + changed.who.label() + " " + changed.before.label() + " " + changed.before.group;
  }
  Texts told() {
    Texts texts;
    for (const Event& event : ann.take_events()) texts.push_back(text_of(event));
    return texts;
  }

  size_t count(const Texts& texts, const std::string& text) const {
    return static_cast<size_t>(std::count(texts.begin(), texts.end(), text));
  }
};

const std::string kQuestion = "HELLO 10.77.0.2:25253 ask=host";

// ---- 4.2 Who says what, and when ------------------------------------------------------

TEST_F(RosterRules, ThreeHellosAreBroadcastOnEachNetworkAQuarterOfASecondApart) {
  start();
  for (int i = 0; i < 3; ++i) {
    pass(0s);
    const Texts hellos = sent();
    EXPECT_EQ(count(hellos, "HELLO 127.255.255.255:25252"), 1u);
    EXPECT_EQ(count(hellos, "HELLO 10.77.0.7:25252"), 1u);
    pass(249ms);
    EXPECT_EQ(count(sent(), "HELLO 10.77.0.7:25252"), 0u);
    pass(1ms);
  }
  pass(1s);
  EXPECT_EQ(count(sent(), "HELLO 10.77.0.7:25252"), 0u);
}

TEST_F(RosterRules, AHeartbeatIsBroadcastEveryFiveSecondsGiveOrTakeAHalf) {
  settle();
  Roster::Time last = now;
  for (int i = 0; i < 20; ++i) {
    Texts beat;
    while (beat.empty()) {
      pass(ann.next_due() - now);
      beat = sent();
    }
    EXPECT_EQ(beat, (Texts{"HERE 127.255.255.255:25252", "HERE 10.77.0.7:25252"}));
    if (i > 0) {
      EXPECT_GE(now - last, 4500ms);
      EXPECT_LE(now - last, 5500ms);
    }
    last = now;
  }
}

TEST_F(RosterRules, AHelloIsAnsweredAtOnceToWhereItCameFrom) {
  settle();
  hear("HELLO id=" + kBob + " port=25253 name=bob", *parse_address("10.77.0.2:40000"));
  EXPECT_EQ(sent(), Texts{"HERE 10.77.0.2:40000 to=" + kBob});
  EXPECT_EQ(ann.peers().size(), 0u);  // from another port than its own, it is answered and nothing more
}

TEST_F(RosterRules, ANewNameIsToldToEachWhoIsRemembered) {
  settle();
  bob_says("HERE");
  sent();
  ann.rename("anna", "chess");
  const auto told_bob = ann.take_datagrams();
  ASSERT_EQ(told_bob.size(), 1u);
  EXPECT_EQ(told_bob[0].to, kBobsDoor);
  EXPECT_EQ(told_bob[0].what.verb, Verb::here);
  EXPECT_EQ(told_bob[0].what.who.name, "anna");
  EXPECT_EQ(told_bob[0].what.who.group, "chess");
}

TEST_F(RosterRules, AByeIsBroadcastAndSentToEach) {
  settle();
  bob_says("HERE");
  sent();
  ann.leave();
  EXPECT_EQ(sent(), (Texts{"BYE 127.255.255.255:25252", "BYE 10.77.0.7:25252", "BYE 10.77.0.2:25253"}));
}

TEST_F(RosterRules, WhoSaysByeIsTakenOffAtOnceAndNotListedAgainForFifteenSeconds) {
  settle();
  bob_is_listed();
  bob_says("BYE");
  EXPECT_EQ(told(), Texts{"left bob@10.77.0.2:25253 said bye"});
  pass(14999ms);
  sent();
  bob_says("HERE", " to=" + kAnn);
  bob_says("HELLO");
  EXPECT_EQ(told(), Texts{});
  EXPECT_EQ(sent(), Texts{"HERE 10.77.0.2:25253 to=" + kBob});  // its questions are answered
  pass(1ms);
  bob_says("HERE", " to=" + kAnn);
  EXPECT_EQ(told(), Texts{"joined bob@10.77.0.2:25253 "});
}

TEST_F(RosterRules, AByeSaidWhileQuestionsAreOpenIsAByeAllTheSame) {
  settle();
  bob_says("HERE");
  for (int i = 0; i < 24; ++i) {  // and it answers none of them
    pass(500ms);
    bob_says("HERE");
  }
  bob_says("BYE");
  pass(5s);
  sent();
  bob_says("HERE", " to=" + kAnn);
  EXPECT_EQ(told(), Texts{});
  EXPECT_EQ(ann.users().size(), 0u);
}

TEST_F(RosterRules, NobodySaysByeForAnother) {
  settle();
  bob_is_listed();
  hear("BYE id=" + kBob + " port=25253 name=bob", *parse_address("10.77.0.3:25253"));
  hear("BYE id=" + kBob + " port=25253 name=bob", *parse_address("10.77.0.2:40000"));
  EXPECT_EQ(told(), Texts{});
}

// ---- 4.3 Sweeps, and hosts with several instances ---------------------------------------

TEST_F(RosterRules, EachAddressOfANetworkIsAskedTwiceOneEverySevenMilliseconds) {
  start();
  Texts all;
  for (int i = 0; i < 12; ++i) {
    pass(0s);
    Texts probes = sent();
    const auto is_broadcast = [](const std::string& text) { return text.find("ask=host") == std::string::npos; };
    probes.erase(std::remove_if(probes.begin(), probes.end(), is_broadcast), probes.end());
    ASSERT_EQ(probes.size(), 1u) << i;
    all.push_back(probes[0]);
    now += 6999us;
    ann.run(now);
    EXPECT_EQ(sent(), Texts{});
    now += 1us;
  }
  for (int host = 1; host <= 6; ++host)
    EXPECT_EQ(count(all, "HELLO 10.77.0." + std::to_string(host) + ":25252 ask=host"), 2u);
}

TEST_F(RosterRules, OfALargeNetworkTheTwentyTwoAroundOneselfIsSwept) {
  ann.start({network("eth0", "10.77.6.1", 16)}, now);
  std::map<std::string, int> asked;
  pass(20s);
  for (const std::string& text : sent())
    if (text.find("ask=host") != std::string::npos) ++asked[text];
  EXPECT_EQ(asked.size(), 1022u);
  EXPECT_EQ(asked.count("HELLO 10.77.4.1:25252 ask=host"), 1u);
  EXPECT_EQ(asked.count("HELLO 10.77.7.254:25252 ask=host"), 1u);
}

TEST_F(RosterRules, AHostIsAnsweredForByOneOfItsInstances) {
  settle();
  const Address mate = *parse_address("10.77.0.1:25254");
  hear("HERE id=" + kCleo + " port=25254 name=cleo to=" + kAnn, mate);
  sent();
  hear("HELLO id=" + kBob + " port=25253 name=bob ask=host");
  EXPECT_EQ(sent(), (Texts{"HERE 10.77.0.2:25253 to=" + kBob, "HERE 10.77.0.2:25253 of cleo", kQuestion}));
  hear("HELLO id=" + kCleo + " port=25254 name=cleo ask=host", mate);
  EXPECT_EQ(sent(), Texts{"HERE 10.77.0.1:25254 to=" + kCleo});  // not to itself
}

TEST_F(RosterRules, HearsayListsNobodyAndMakesHerAskAtTheDoor) {
  settle();
  hear("HERE id=" + kBob + " port=25253 name=bob to=" + kAnn, *parse_address("10.77.0.2:40000"));
  EXPECT_EQ(sent(), Texts{"HELLO 10.77.0.2:25253"});
  EXPECT_EQ(ann.peers().size(), 0u);
  bob_is_listed();
  hear("HERE id=" + kBob + " port=25253 name=bob", *parse_address("10.77.0.2:40000"));
  EXPECT_EQ(sent(), Texts{});  // known already
}

// ---- 4.4 The list ---------------------------------------------------------------------

TEST_F(RosterRules, AStrangerIsAskedAndListedWhenItAnswers) {
  settle();
  bob_says("HERE");
  EXPECT_EQ(sent(), Texts{kQuestion});
  EXPECT_EQ(ann.users().size(), 0u);
  bob_says("HERE", " to=" + kCleo);  // an answer, but to somebody else
  EXPECT_EQ(told(), Texts{});
  bob_says("HELLO", " to=" + kAnn);  // and no answer at all
  EXPECT_EQ(told(), Texts{});
  bob_says("HERE", " to=" + kAnn);
  EXPECT_EQ(told(), Texts{"joined bob@10.77.0.2:25253 "});
  ASSERT_EQ(ann.users().size(), 1u);
  EXPECT_EQ(ann.users()[0].label(), "bob@10.77.0.2:25253");
}

TEST_F(RosterRules, WhoIsListedAndAsksIsAskedBackButNotWithinFiveSeconds) {
  settle();
  bob_is_listed();
  pass(5s);
  sent();
  bob_says("HELLO");
  EXPECT_EQ(count(sent(), kQuestion), 0u);
  pass(1ms);
  bob_says("HELLO");
  EXPECT_EQ(count(sent(), kQuestion), 1u);
}

TEST_F(RosterRules, WhoIsOverdueIsAskedTwiceASecondAndGoneAfterFifteen) {
  settle();
  bob_is_listed();
  pass(5999ms);
  EXPECT_EQ(count(sent(), kQuestion), 0u);
  pass(1ms);
  EXPECT_EQ(count(sent(), kQuestion), 1u);
  pass(500ms);
  EXPECT_EQ(count(sent(), kQuestion), 1u);
  pass(8499ms);
  EXPECT_EQ(count(sent(), kQuestion), 16u);
  EXPECT_EQ(told(), Texts{});
  pass(1ms);
  EXPECT_EQ(told(), Texts{"left bob@10.77.0.2:25253 silent for 15 s"});
  EXPECT_EQ(ann.peers().size(), 0u);
}

TEST_F(RosterRules, WhoIsHeardAndDoesNotAnswerTwentyFourQuestionsIsTakenOff) {
  settle();
  bob_is_listed();
  pass(5001ms);
  bob_says("HELLO");  // the first question
  for (int i = 0; i < 24; ++i) {
    EXPECT_EQ(told(), Texts{}) << i;
    pass(500ms);
    bob_says("HERE");
  }
  EXPECT_EQ(told(), Texts{"left bob@10.77.0.2:25253 does not hear us"});
  EXPECT_EQ(count(sent(), kQuestion), 24u);
  for (int i = 0; i < 9; ++i) {
    pass(500ms);
    bob_says("HERE");
  }
  EXPECT_EQ(count(sent(), kQuestion), 1u);  // from now on every 5 s
  bob_is_listed();                          // and listed again as soon as it answers
}

TEST_F(RosterRules, AnAddressStaysUntilItHasBeenSilentForTenSeconds) {
  settle();
  bob_is_listed();
  const Address other = *parse_address("10.77.0.3:25253");
  pass(10s);
  hear("HERE id=" + kBob + " port=25253 name=evil to=" + kAnn, other);
  EXPECT_EQ(told(), Texts{});
  pass(1ms);
  sent();
  hear("HERE id=" + kBob + " port=25253 name=bob", other);
  EXPECT_EQ(told(), Texts{"changed bob@10.77.0.3:25253 bob@10.77.0.2:25253 lab"});
  EXPECT_EQ(sent(), Texts{"HELLO 10.77.0.3:25253 ask=host"});  // does it hear us there?
}

TEST_F(RosterRules, WhoHasMovedIsAskedFromTheFirstQuestionOn) {
  settle();
  bob_says("HERE");
  pass(12s);  // 24 questions, to where it is no more
  sent();
  hear("HERE id=" + kBob + " port=25253 name=bob", *parse_address("10.77.0.3:25253"));
  EXPECT_EQ(count(sent(), "HELLO 10.77.0.3:25253 ask=host"), 1u);
  pass(500ms);
  EXPECT_EQ(count(sent(), "HELLO 10.77.0.3:25253 ask=host"), 1u);
}

TEST_F(RosterRules, NobodyMovesToWhereAnotherIsListed) {
  settle();
  bob_is_listed();
  const Address cleos = *parse_address("10.77.0.3:25253");
  pass(11s);
  hear("HERE id=" + kCleo + " port=25253 name=cleo to=" + kAnn, cleos);
  told();
  hear("HERE id=" + kBob + " port=25253 name=bob", cleos);
  EXPECT_EQ(told(), Texts{});
}

TEST_F(RosterRules, ANewIdAtAnAddressReplacesTheFormerOnlyOnceItAnswers) {
  settle();
  bob_is_listed();
  hear("HELLO id=" + kCleo + " port=25253 name=bob");
  EXPECT_EQ(told(), Texts{});
  hear("HERE id=" + kCleo + " port=25253 name=bob to=" + kAnn);
  EXPECT_EQ(told(), (Texts{"left bob@10.77.0.2:25253 replaced", "joined bob@10.77.0.2:25253 "}));
  pass(4999ms);
  bob_says("HERE", " to=" + kAnn);  // read late
  EXPECT_EQ(told(), Texts{});
  ASSERT_EQ(ann.users().size(), 1u);
  EXPECT_EQ(ann.users()[0].id, kCleo);
}

TEST_F(RosterRules, AnIntroductionOverTcpListsNobodyAndMakesHerAskOnce) {
  settle();
  Identity bob = identity(kBob, "bob");
  bob.address = kBobsDoor;
  ann.hear_introduction(bob);
  EXPECT_EQ(sent(), Texts{"HELLO 10.77.0.2:25253"});
  EXPECT_EQ(ann.peers().size(), 0u);
  bob_is_listed();
  ann.hear_introduction(bob);
  EXPECT_EQ(sent(), Texts{});
}

TEST_F(RosterRules, ASourceThatIsNoUnicastAddressGetsNoAnswer) {
  settle();
  for (const char* const ip : {"10.77.0.7", "10.77.0.0", "255.255.255.255", "127.255.255.255", "224.0.0.1", "239.1.2.3", "0.0.0.0"})
    hear("HELLO id=" + kBob + " port=25253 name=bob", {*parse_ip(ip), 25253});
  hear("HELLO id=" + kBob + " port=25253 name=bob", {kBobsDoor.ip, 0});
  EXPECT_EQ(sent(), Texts{});
  EXPECT_EQ(ann.peers().size(), 0u);
}

TEST_F(RosterRules, OneHasNoEntryOfOneself) {
  settle();
  hear("HERE id=" + kAnn + " port=25253 name=ann to=" + kAnn, *parse_address("10.77.0.1:25253"));
  EXPECT_EQ(told(), Texts{});
  EXPECT_EQ(ann.peers().size(), 0u);
}

// ---- 2.2 Limits -----------------------------------------------------------------------

std::string id_of(size_t i) {
  char id[17];
  std::snprintf(id, sizeof id, "%016zx", i + 0x1000);
  return id;
}

TEST_F(RosterRules, OneAddressIsListedAHundredAndTwentyEightTimesAndAllAThousandAndTwentyFour) {
  settle();
  for (size_t i = 0; i < 140; ++i) {
    const std::string port = std::to_string(30000 + i);
    hear("HERE id=" + id_of(i) + " port=" + port + " name=one to=" + kAnn, {kBobsDoor.ip, static_cast<uint16_t>(30000 + i)});
  }
  EXPECT_EQ(ann.users().size(), 128u);
  for (size_t i = 0; i < 1100; ++i) {
    const uint32_t ip = *parse_ip("10.78.0.1") + static_cast<uint32_t>(i);
    hear("HERE id=" + id_of(1000 + i) + " port=25253 name=many to=" + kAnn, {ip, 25253});
  }
  EXPECT_EQ(ann.users().size(), 1024u);
}

TEST_F(RosterRules, WhoHasNotAnsweredMakesRoomLongestSilentFirst) {
  settle();
  bob_is_listed();
  for (size_t i = 0; i < 5000; ++i) {
    now += 1us;
    hear("HELLO id=" + id_of(i) + " port=25253 name=flood", {*parse_ip("10.78.0.1") + static_cast<uint32_t>(i), 25253});
  }
  EXPECT_EQ(ann.peers().size(), 1280u);
  EXPECT_EQ(ann.users().size(), 1u);
  EXPECT_EQ(ann.peers().count(id_of(0)), 0u);
  EXPECT_EQ(ann.peers().count(id_of(4999)), 1u);
}

// ---- /scan ----------------------------------------------------------------------------

TEST_F(RosterRules, AScanAsksAllThatItWasToldToWhateverElseHappensAndTellsItsEnd) {
  settle();
  ann.scan({{*parse_ip("10.80.0.0"), 28, kDiscoveryPort}}, now);
  pass(50ms);
  ann.use_networks({network("eth1", "10.81.0.1", 24)}, now);  // a cable is plugged in
  pass(200ms + 14 * 7ms);
  const Texts probes = sent();
  for (int host = 1; host <= 14; ++host)
    EXPECT_EQ(count(probes, "HELLO 10.80.0." + std::to_string(host) + ":25252 ask=host"), 2u) << host;
  EXPECT_EQ(told(), Texts{});
  pass(1s);
  EXPECT_EQ(told(), Texts{"scanned 14 addresses; 0 users online"});
}

TEST_F(RosterRules, HoweverOftenAScanIsBegunOneAddressIsAskedAtATime) {
  settle();
  for (int i = 0; i < 3; ++i) ann.scan({{*parse_ip("10.80.0.0"), 24, kDiscoveryPort}}, now);
  for (int i = 0; i < 100; ++i) {
    pass(7ms);
    const Texts said = sent();
    const auto is_probe = [](const std::string& text) { return text.find("10.80.0.") != text.npos; };
    EXPECT_LE(std::count_if(said.begin(), said.end(), is_probe), i == 0 ? 2 : 1) << i;
  }
}

TEST_F(RosterRules, WhoIsListedMayMoveThoughTheListIsFull) {
  settle();
  for (size_t i = 0; i < 1023; ++i) {
    const uint32_t ip = *parse_ip("10.78.0.1") + static_cast<uint32_t>(i);
    hear("HERE id=" + id_of(i) + " port=25253 name=many to=" + kAnn, {ip, 25253});
  }
  told();
  bob_is_listed();
  pass(10s + 1ms);
  hear("HERE id=" + kBob + " port=25253 name=bob", *parse_address("10.77.0.3:25253"));
  EXPECT_EQ(told(), Texts{"changed bob@10.77.0.3:25253 bob@10.77.0.2:25253 lab"});
}

TEST_F(RosterRules, AnotherScanTakesThePlaceOfTheFirst) {
  settle();
  ann.scan({{*parse_ip("10.80.0.0"), 24, kDiscoveryPort}}, now);
  pass(50ms);
  ann.scan({{*parse_ip("10.80.0.9"), 32, 25253}}, now);
  pass(5s);
  EXPECT_EQ(told(), Texts{"scanned 1 addresses; 0 users online"});
}

}  // namespace
