// The rules of docs/protocol.md, 4.2 to 4.4, each at its exact time: the test tells a Roster what
// has come and what time it is, and the Roster says what to send. No socket, no waiting.

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

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
  Interface interface;
  interface.name = name;
  interface.ip = *parse_ip(address);
  interface.netmask = bits == 0 ? 0 : ~uint32_t{0} << (32 - bits);
  return interface;
}

std::string id_of(size_t i) {
  char id[17];
  std::snprintf(id, sizeof id, "%016zx", i + 0x1000);
  return id;
}

// Ann at 10.77.0.1, on a network of six addresses; what she sends and tells is kept as text.
class RosterRules : public testing::Test {
 protected:
  using Texts = std::vector<std::string>;
  Roster ann{identity(kAnn, "ann"), 1};
  Time now{1h};

  void start() {
    ann.start({network("lo", "127.0.0.1", 8), network("eth0", "10.77.0.1", 29)}, now);
    hear_herself("HELLO", Door::shared);
  }

  // On loopback, where Linux gives her own broadcasts back to her.
  void hear_herself(const std::string& verb, Door door) {
    hear(verb + " id=" + kAnn + " port=25253 name=ann", *parse_address("127.0.0.1:25253"), door);
  }

  // Ann in peace: she has greeted and swept, and nobody was there.
  void settle() {
    start();
    pass(10s);
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

  void hear(const std::string& words, Address from = kBobsDoor, Door door = Door::own) {
    const auto said = Announcement::parse("ChatByP2P/1 " + words + " ip=10.77.0.2 group=lab");
    ASSERT_TRUE(said) << words;
    ann.hear(*said, from, door, now);
  }
  void bob_says(const std::string& verb, const std::string& more = "", Door door = Door::own) {
    hear(verb + " id=" + kBob + " port=25253 name=bob" + more, kBobsDoor, door);
  }
  void bob_broadcasts(const std::string& verb, const std::string& more = "") {
    bob_says(verb, more, Door::shared);
  }
  // So many others are listed, at 10.78.0.1 and on.
  void others_are_listed(size_t count) {
    for (size_t i = 0; i < count; ++i) {
      const Address address{*parse_ip("10.78.0.1") + static_cast<uint32_t>(i), 25253};
      hear("HERE id=" + id_of(0x8000 + i) + " port=25253 name=many every=60 to=" + kAnn, address);
    }
    ASSERT_GE(ann.users().size(), count);
    told();
    sent();
  }
  // From the ports of one IP address: as many of them as there is room for are listed.
  void others_answer_from(uint32_t ip, size_t count) {
    for (size_t i = 0; i < count; ++i) {
      const auto port = static_cast<uint16_t>(30000 + i);
      const std::string who = "id=" + id_of(i) + " port=" + std::to_string(port);
      hear("HERE " + who + " name=one every=60 to=" + kAnn, {ip, port});
    }
  }
  // After so long without a word, but not at that moment, bob may have another address.
  void expect_movable_after(std::chrono::seconds silence) {
    const Address other = *parse_address("10.77.0.3:25253");
    pass(silence);
    hear("HERE id=" + kBob + " port=25253 name=evil to=" + kAnn, other);
    EXPECT_EQ(told(), Texts{});
    pass(1ms);
    sent();
    hear("HERE id=" + kBob + " port=25253 name=bob", other);
    EXPECT_EQ(told(), Texts{"changed bob@10.77.0.3:25253 bob@10.77.0.2:25253 lab"});
  }

  void bob_is_listed() {
    bob_says("HERE", " to=" + kAnn);
    ASSERT_EQ(told(), Texts{"joined bob@10.77.0.2:25253 "});
    sent();
  }

  // Of what was sent, to whom the probes of a sweep went.
  Texts probes() {
    Texts all;
    for (const Datagram& datagram : ann.take_datagrams())
      if (datagram.what.ask_host) all.push_back(datagram.to.text());
    return all;
  }
  // A minute after it, and not earlier.
  void expect_a_sweep_a_minute_after_a_broadcast() {
    bob_broadcasts("HERE", " every=60 to=" + kAnn);
    pass(60s - 1ms);
    EXPECT_EQ(probes(), Texts{});
    pass(5s);
    EXPECT_EQ(count(probes(), "10.77.0.3:25253"), 1u);
  }

  // Until then nobody is probed. A sweep begins with her own host: others may be on it.
  void expect_sweep_after(Clock::duration time) {
    pass(time - 1ms);
    EXPECT_EQ(probes(), Texts{});
    pass(1ms);
    EXPECT_EQ(probes(), Texts{"10.77.0.1:25253"});
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
      if (what.every > 5s) text += " every=" + std::to_string(what.every.count());
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

// On macOS and the BSDs.
TEST_F(RosterRules, WhereLoopbackCarriesNoBroadcastItsFirstSixteenPortsAreAsked) {
  ann.start({network("lo", "127.0.0.1", 8)}, now);
  pass(249ms);
  EXPECT_EQ(sent(), Texts{"HELLO 127.255.255.255:25252"});  // its echo may be on the way
  Texts expected;
  for (int port = 25254; port <= 25268; ++port)  // 25253 is her own
    expected.push_back("HELLO 127.0.0.1:" + std::to_string(port) + " ask=host");
  expected.push_back("HELLO 127.255.255.255:25252");
  pass(1ms);
  EXPECT_EQ(sent(), expected);
  pass(250ms);
  EXPECT_EQ(sent(), expected);
  pass(1s);
  EXPECT_EQ(sent(), Texts{});
  hear("HERE id=" + kBob + " port=25254 name=bob to=" + kAnn, *parse_address("127.0.0.1:25254"));
  told();
  pass(2s);  // her heartbeat; and another may have come
  const Texts later = sent();
  EXPECT_EQ(count(later, "HERE 127.255.255.255:25252"), 1u);
  EXPECT_EQ(count(later, "HELLO 127.0.0.1:25254 ask=host"), 0u);
  EXPECT_EQ(count(later, "HELLO 127.0.0.1:25268 ask=host"), 1u);
}

TEST_F(RosterRules, WhereSheHearsHerselfOnLoopbackNobodyIsAskedThere) {
  ann.start({network("lo", "127.0.0.1", 8)}, now);
  hear_herself("HELLO ask=host", Door::shared);  // a question, and no broadcast
  hear_herself("HELLO", Door::own);
  pass(250ms);
  EXPECT_EQ(sent().size(), 17u);
  hear_herself("HELLO", Door::shared);
  pass(250ms);
  EXPECT_EQ(sent(), Texts{"HELLO 127.255.255.255:25252"});
}

// In a large class there is always somebody who has missed all three HELLOs.
TEST_F(RosterRules, TheFirstThreeHeartbeatsComeTwoSecondsApart) {
  start();
  others_are_listed(252);
  std::vector<Clock::duration> pauses;
  Time last = now;
  while (pauses.size() < 5) {
    pass(ann.next_due() - now);
    if (count(sent(), "HERE 10.77.0.7:25252 every=13") == 0) continue;
    pauses.push_back(now - last);
    last = now;
  }
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_GE(pauses[i], 1800ms);
    EXPECT_LE(pauses[i], 2200ms);
  }
  EXPECT_GE(pauses[4], 11700ms);
}

// Or those who started together would send theirs together, and a minute would have more of them than the next.
TEST_F(RosterRules, ThePauseAfterThemHasAnyLengthUpToTheInterval) {
  Clock::duration shortest = 1h;
  Clock::duration longest{};
  for (uint32_t seed = 1; seed <= 100; ++seed) {
    Roster one(identity(kAnn, "ann"), seed);
    one.start({network("eth0", "10.77.0.1", 29)}, now);
    std::vector<Time> beats;
    for (Time at = now; beats.size() < 4; at = one.next_due()) {
      one.run(at);
      for (const Datagram& datagram : one.take_datagrams())
        if (datagram.what.verb == Verb::here) beats.push_back(at);
    }
    shortest = std::min(shortest, beats[3] - beats[2]);
    longest = std::max(longest, beats[3] - beats[2]);
  }
  EXPECT_LT(shortest, 500ms);
  EXPECT_GT(longest, 4500ms);
  EXPECT_LE(longest, 5s);
}

TEST_F(RosterRules, AHeartbeatIsBroadcastEveryFiveSecondsGiveOrTakeAHalf) {
  settle();
  Time last = now;
  std::vector<Clock::duration> pauses;
  for (int i = 0; i < 50; ++i) {
    Texts beat;
    while (beat.empty()) {
      pass(ann.next_due() - now);
      beat = sent();
    }
    EXPECT_EQ(beat, (Texts{"HERE 127.255.255.255:25252", "HERE 10.77.0.7:25252"}));
    if (i > 0) pauses.push_back(now - last);
    last = now;
  }
  const auto [least, most] = std::minmax_element(pauses.begin(), pauses.end());
  EXPECT_GE(*least, 4500ms);
  EXPECT_LT(*least, 4700ms);
  EXPECT_GT(*most, 5300ms);
  EXPECT_LE(*most, 5500ms);
}

// So that all together say no more than 20 a second.
TEST_F(RosterRules, TheHeartbeatIsSlowerInAClassOfMoreThanAHundred) {
  settle();
  others_are_listed(99);
  pass(5500ms);
  EXPECT_GE(count(sent(), "HERE 10.77.0.7:25252"), 1u);  // a hundred with herself: 5 s, as ever
  others_are_listed(1000);
  pass(5500ms);  // the next one comes as the one before has said
  EXPECT_EQ(count(sent(), "HERE 10.77.0.7:25252 every=51"), 1u);
  const auto beat = now;
  pass(45900ms - 5500ms);
  EXPECT_EQ(count(sent(), "HERE 10.77.0.7:25252 every=51"), 0u);
  pass(10200ms + 5500ms);
  EXPECT_EQ(count(sent(), "HERE 10.77.0.7:25252 every=51"), 1u);
  EXPECT_LT(now - beat, 62s);
}

// All together, over a thousand seconds; one more each, for the moment at which the count begins.
TEST_F(RosterRules, TheHeartbeatsOfAClassAreTwentyASecondAtMost) {
  settle();
  for (const size_t users : {30u, 100u, 253u, 1000u}) {
    others_are_listed(users - 1);
    pass(60s);  // with the next heartbeat she keeps to their number
    size_t beats = 0;
    for (int i = 0; i < 20; ++i) {
      others_are_listed(users - 1);  // or they would be gone
      pass(50s);
      for (const std::string& one : sent())
        if (one.find("HERE 10.77.0.7:25252") == 0) ++beats;
    }
    EXPECT_GE(beats, 15u) << users;
    EXPECT_LE((beats - 1) * users, 20u * 1000u) << users << " users, " << beats << " heartbeats";
  }
}

TEST_F(RosterRules, WhatSheSaysBetweenHeartbeatsNamesTheIntervalThatSheBroadcastLast) {
  settle();
  others_are_listed(200);
  bob_says("HELLO");
  EXPECT_EQ(count(sent(), "HERE 10.77.0.2:25253 to=" + kBob), 1u);
  pass(5500ms);
  sent();
  bob_says("HELLO");
  EXPECT_EQ(count(sent(), "HERE 10.77.0.2:25253 to=" + kBob + " every=11"), 1u);
}

TEST_F(RosterRules, APeerIsOverdueAndGoneByItsOwnInterval) {
  settle();
  bob_says("HERE", " every=20 to=" + kAnn);
  sent();
  pass(23999ms);
  EXPECT_EQ(count(sent(), kQuestion), 0u);
  pass(1ms);
  EXPECT_EQ(count(sent(), kQuestion), 1u);
  told();
  pass(35999ms);
  EXPECT_EQ(told(), Texts{});
  pass(1ms);
  EXPECT_EQ(told(), Texts{"left bob@10.77.0.2:25253 silent for 60 s"});
}

// To look at each of a hundred peers at a moment of its own woke an idle program twice as often.
TEST_F(RosterRules, PeersThatKeepToTheirHeartbeatsAreLookedAtTogether) {
  settle();
  const auto begin = now;
  std::set<Time> looks;
  for (int i = 0; i < 1200; ++i) {
    const size_t one = static_cast<size_t>(i) % 99;
    const Address address{*parse_ip("10.78.0.1") + static_cast<uint32_t>(one), 25253};
    const std::string answers = i < 99 ? " to=" + kAnn : "";
    hear("HERE id=" + id_of(one) + " port=25253 name=many" + answers, address, Door::shared);
    const auto end = now + 51ms;  // 5.05 s between the heartbeats of each
    for (now = std::min(end, ann.next_due()); now < end; now = std::min(end, ann.next_due())) {
      looks.insert(now);
      ann.run(now);
    }
  }
  const auto length = static_cast<size_t>((now - begin) / 1s);
  EXPECT_EQ(ann.users().size(), 99u);
  EXPECT_LE(looks.size(), 5 * length);
}

TEST_F(RosterRules, AnotherAddressMayTakeItsIdAfterTwoOfItsIntervals) {
  settle();
  bob_says("HERE", " every=20 to=" + kAnn);
  told();
  expect_movable_after(40s);
}

// Else one of 10^6 s would be listed for a month after it has gone.
TEST_F(RosterRules, AnIntervalThatIsNotFromFiveToSixtyIsIgnored) {
  settle();
  for (const char* const every : {"4", "61", "1000000", "-7", "x", ""}) {
    bob_says("HERE", " to=" + kAnn + " every=" + every);
    EXPECT_EQ(ann.peers().at(kBob).every, 5s) << every;
  }
  bob_says("HERE", " every=60 to=" + kAnn);
  EXPECT_EQ(ann.peers().at(kBob).every, 60s);
}

TEST_F(RosterRules, TheAnswerToABroadcastWaitsUpToHalfAMillisecondForEachUser) {
  settle();
  others_are_listed(399);  // with herself 400: 200 ms
  pass(6s);
  sent();  // a heartbeat, and now all that she says has every=20
  std::vector<Clock::duration> waits;
  for (int i = 0; i < 40; ++i) {
    const std::string id = id_of(static_cast<size_t>(i));
    hear("HELLO id=" + id + " port=25253 name=zoe", {kBobsDoor.ip, 30000}, Door::shared);
    EXPECT_EQ(sent(), Texts{});
    const auto began = now;
    while (now - began < 1s && count(sent(), "HERE 10.77.0.2:30000 to=" + id + " every=20") == 0)
      pass(1ms);
    waits.push_back(now - began);
  }
  const auto [least, most] = std::minmax_element(waits.begin(), waits.end());
  EXPECT_LE(*most, 200ms + 1ms);
  EXPECT_GT(*most, 100ms);
  EXPECT_LT(*least, 100ms);
}

TEST_F(RosterRules, ToThreeBroadcastsInARowGoesOneAnswerAndOneQuestion) {
  settle();
  others_are_listed(999);
  for (int i = 0; i < 3; ++i) bob_broadcasts("HELLO");
  EXPECT_EQ(sent(), Texts{});
  pass(500ms);
  const Texts all = sent();
  EXPECT_EQ(count(all, "HERE 10.77.0.2:25253 to=" + kBob), 1u);
  EXPECT_EQ(count(all, kQuestion), 1u);
}

// It has answered her own broadcast before she came to ask it.
TEST_F(RosterRules, WhoAnswersBeforeItIsAskedIsNotAsked) {
  settle();
  others_are_listed(999);
  bob_broadcasts("HELLO");
  bob_says("HERE", " to=" + kAnn);
  pass(1s);
  EXPECT_EQ(count(sent(), kQuestion), 0u);
}

TEST_F(RosterRules, AProbeIsAnsweredAtOnceThoughItComesToTheSharedPort) {
  settle();
  others_are_listed(999);
  bob_broadcasts("HELLO", " ask=host");
  EXPECT_EQ(count(sent(), "HERE 10.77.0.2:25253 to=" + kBob), 1u);
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

TEST_F(RosterRules, InACrowdByeGoesByBroadcastAndToThoseNeverHeardByBroadcast) {
  settle();
  others_are_listed(48);
  bob_broadcasts("HERE");
  bob_is_listed();
  ann.leave();
  EXPECT_EQ(sent().size(), 2u + 49u);  // fifty with herself: to each
  others_are_listed(49);
  ann.leave();
  const Texts byes = sent();
  EXPECT_EQ(byes.size(), 2u + 49u);
  EXPECT_EQ(count(byes, "BYE 10.77.0.2:25253"), 0u);
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

TEST_F(RosterRules, BroadcastComesFirstAndTheSweepAfterThreeSecondsNearestFirst) {
  start();
  expect_sweep_after(3s);
  Texts all;
  for (int i = 0; i < 11; ++i) {
    pass(249ms);
    EXPECT_EQ(probes(), Texts{}) << i;
    pass(1ms);
    const Texts next = probes();
    ASSERT_EQ(next.size(), 1u) << i;
    all.push_back(next[0]);
  }
  EXPECT_EQ(all, (Texts{"10.77.0.2:25253", "10.77.0.3:25253", "10.77.0.4:25253", "10.77.0.6:25253", "10.77.0.5:25253",
                        "10.77.0.1:25252", "10.77.0.2:25252", "10.77.0.3:25252", "10.77.0.4:25252", "10.77.0.6:25252",
                        "10.77.0.5:25252"}));
  pass(60s);
  EXPECT_EQ(probes(), Texts{});
}

// A firewall lets in who is asked while it is remembered that he was: for 30 s.
TEST_F(RosterRules, TwoPeersAskEachOtherAtTheSameStep) {
  const std::vector<std::string> ips = {"10.77.0.1", "10.77.0.9", "10.77.0.120", "10.77.0.254"};
  std::map<std::string, std::map<std::string, Clock::duration>> asked_after;
  for (const std::string& ip : ips) {
    Roster peer(identity(kAnn, "ann"), 1);
    peer.start({network("eth0", ip, 24)}, now);
    for (Clock::duration time = 0s; time < 70s; time += 250ms) {
      peer.run(now + time);
      for (const Datagram& datagram : peer.take_datagrams())
        if (datagram.what.ask_host && datagram.to.port == 25253) asked_after[ip][datagram.to.ip_text()] = time;
    }
  }
  for (const std::string& one : ips) {
    for (const std::string& other : ips) {
      if (one == other) continue;
      const auto apart = asked_after[one].at(other) - asked_after[other].at(one);
      EXPECT_LE(std::chrono::abs(apart), 750ms) << one << " " << other;
    }
  }
}

TEST_F(RosterRules, OfALargeNetworkTheTwentyTwoAroundOneselfIsSwept) {
  ann.start({network("eth0", "10.77.6.1", 16)}, now);
  pass(3s + 2 * 1022 * 250ms);
  std::map<std::string, int> asked;
  for (const std::string& address : probes()) ++asked[address];
  EXPECT_EQ(asked.size(), 2 * 1022u);
  EXPECT_EQ(asked.count("10.77.4.1:25253"), 1u);
  EXPECT_EQ(asked.count("10.77.7.254:25252"), 1u);
}

TEST_F(RosterRules, ABroadcastOfAnotherHostMakesTheSweepNeedless) {
  start();
  bob_broadcasts("HERE");
  pass(20s);
  EXPECT_EQ(count(probes(), "10.77.0.3:25253"), 0u);
}

TEST_F(RosterRules, AfterAnAnswerToOurBroadcastTheSweepWaitsForAHeartbeat) {
  start();
  bob_says("HERE", " to=" + kAnn);
  pass(15s - 1ms);
  EXPECT_EQ(count(probes(), "10.77.0.1:25253"), 0u);
  bob_broadcasts("HERE");
  pass(20s);
  EXPECT_EQ(count(probes(), "10.77.0.3:25253"), 0u);
}

// Where bob's broadcasts reach her no more, others' may not reach her, either.
TEST_F(RosterRules, ANetworkThatLetsBroadcastsThroughNoMoreIsSweptAfterAMinute) {
  start();
  pass(2s);
  expect_a_sweep_a_minute_after_a_broadcast();
}

// Also if she had begun to sweep before broadcasts came through.
TEST_F(RosterRules, ANetworkWhereASweepWasEndedByABroadcastIsSweptAMinuteAfterTheLast) {
  start();
  pass(3s);
  bob_broadcasts("HERE", " every=60 to=" + kAnn);
  sent();
  pass(30s);
  expect_a_sweep_a_minute_after_a_broadcast();
}

// Ann is behind a firewall that lets in only answers, and was started again on her port: bob, whom
// her former self has asked, still gets through.
TEST_F(RosterRules, AnAnswerWithoutAHeartbeatDoesNotHideTheOthers) {
  start();
  bob_says("HERE", " to=" + kAnn);
  pass(20s);
  EXPECT_EQ(count(probes(), "10.77.0.3:25253"), 1u);
}

TEST_F(RosterRules, ABroadcastThatIsHeardMeanwhileEndsTheSweep) {
  start();
  pass(3s);
  probes();
  bob_broadcasts("HELLO");
  pass(20s);
  EXPECT_EQ(count(probes(), "10.77.0.3:25253"), 0u);
}

// Each of these was heard, and none of them by broadcast.
TEST_F(RosterRules, ThatSomebodyWasHeardDoesNotMakeTheSweepNeedless) {
  start();
  bob_says("HELLO", " ask=host", Door::shared);  // a probe
  pass(0s);
  bob_says("HERE", " to=" + kAnn);               // it was asked by itself
  hear("HERE id=" + kCleo + " port=25254 name=cleo", *parse_address("10.77.0.1:25254"), Door::shared);  // beside her
  hear("HERE id=" + id_of(1) + " port=25253 name=dora", *parse_address("10.99.0.1:25253"), Door::shared);  // elsewhere
  pass(6s);
  EXPECT_EQ(count(probes(), "10.77.0.3:25253"), 1u);
}

TEST_F(RosterRules, AnAnswerToAnIntroductionOrToHearsayDoesNotMakeTheSweepNeedless) {
  start();
  Identity bob = identity(kBob, "bob");
  bob.address = kBobsDoor;
  ann.hear_introduction(bob);
  bob_says("HERE", " to=" + kAnn);
  hear("HERE id=" + kCleo + " port=25254 name=cleo", *parse_address("10.77.0.4:25253"));
  hear("HERE id=" + kCleo + " port=25254 name=cleo to=" + kAnn, *parse_address("10.77.0.4:25254"));
  pass(6s);
  EXPECT_EQ(count(probes(), "10.77.0.3:25253"), 1u);
}

TEST_F(RosterRules, WhereAPeerIsListedTheSweepDoesNotAsk) {
  start();
  pass(3s);
  bob_says("HELLO", " ask=host", Door::shared);
  bob_says("HERE", " to=" + kAnn);
  pass(10s);
  const Texts all = probes();
  EXPECT_EQ(count(all, "10.77.0.2:25252"), 0u);
  EXPECT_EQ(count(all, "10.77.0.3:25252"), 1u);
}

TEST_F(RosterRules, SeveralInstancesOfAHostSweepTogetherAtThePaceOfOne) {
  start();
  hear("HERE id=" + kBob + " port=25254 name=bob every=60 to=" + kAnn, {INADDR_LOOPBACK, 25254});
  hear("HERE id=" + kCleo + " port=25255 name=cleo every=60 to=" + kAnn,
       {*parse_ip("10.77.0.1"), 25255});
  others_are_listed(1);  // on another host: she has a cable of her own
  pass(3s + 3 * 750ms - 1ms);
  EXPECT_EQ(probes().size(), 3u);
  pass(1ms);
  EXPECT_EQ(probes().size(), 1u);
}

// When the clock on the wall shows full five minutes: so do all, and two behind firewalls find each
// other though one came later.
TEST_F(RosterRules, ASweepIsRepeatedOnceAndThenAsLongAsSomebodyIsThere) {
  now += 100s;
  start();
  pass(299s - 100s);
  EXPECT_EQ(count(probes(), "10.77.0.3:25253"), 1u);
  pass(10s);
  EXPECT_EQ(count(probes(), "10.77.0.3:25253"), 1u);
  pass(20min);
  EXPECT_EQ(count(probes(), "10.77.0.3:25253"), 0u);
  bob_says("HERE", " every=60 to=" + kAnn);
  for (int i = 0; i < 3; ++i) {
    for (int k = 0; k < 10; ++k) {
      pass(30s);
      bob_says("HERE", " every=60 to=" + kAnn);
    }
    EXPECT_EQ(count(probes(), "10.77.0.3:25253"), 1u) << i;
  }
}

TEST_F(RosterRules, ALargeNetworkIsSweptAgainAfterTenMinutesForASweepTakesEight) {
  ann.start({network("eth0", "10.77.6.1", 22)}, now);
  pass(10min - 1s);
  EXPECT_EQ(count(probes(), "10.77.6.2:25253"), 1u);
  pass(10s);
  EXPECT_EQ(count(probes(), "10.77.6.2:25253"), 1u);
}

// Her own clock stood still while her laptop slept, or somebody has set the one on the wall.
TEST_F(RosterRules, WhenTheWallClockIsSetTheNextSweepMovesWithIt) {
  start();
  pass(200s);
  probes();
  ann.set_epoch(Time{} - 30s);  // the wall clock shows 230 s past the hour
  expect_sweep_after(70s);
  bob_says("HERE", " every=60 to=" + kAnn);
  pass(100s);
  probes();
  bob_says("HERE", " every=60 to=" + kAnn);
  ann.set_epoch(Time{} + 30s);  // 340 s past the hour
  pass(130s);
  bob_says("HERE", " every=60 to=" + kAnn);
  pass(130s - 1ms);
  EXPECT_EQ(count(probes(), "10.77.0.1:25253"), 0u);
  pass(1ms);
  EXPECT_EQ(count(probes(), "10.77.0.1:25253"), 1u);
}

TEST_F(RosterRules, ThatTheWallClockIsSetDoesNotMoveTheFirstSweep) {
  start();
  ann.set_epoch(Time{} - 100s);
  expect_sweep_after(3s);
}

// As NTP does all the time. The sweep that is due must not be put off for five minutes by it.
TEST_F(RosterRules, AWallClockThatRunsALittleFasterChangesNothing) {
  start();
  pass(300s - 1ms);
  probes();
  ann.set_epoch(Time{} - 2ms);
  pass(1ms);
  EXPECT_EQ(probes(), Texts{"10.77.0.1:25253"});
}

// Three share the pace, so a /24 takes 381 s. She came at 250 s past the hour, and her first sweep
// has not ended when the clock shows full ten minutes: the second asks all its addresses.
TEST_F(RosterRules, ASweepThatTakesLongerThanFiveMinutesIsRepeatedEveryTen) {
  now += 250s;
  ann.start({network("lo", "127.0.0.1", 8), network("eth0", "10.77.0.1", 24)}, now);
  hear_herself("HELLO", Door::shared);
  bob_says("HELLO", " ask=host", Door::shared);  // so he is on another host, and she sweeps on and on
  const std::string words = " name=other every=60 to=" + kAnn;
  std::map<std::string, int> asked;
  const auto pass_with_others = [&](std::chrono::seconds time) {
    for (const auto end = now + time; now < end; pass(1s)) {
      bob_says("HERE", " every=60 to=" + kAnn);
      hear("HERE id=" + kCleo + " port=25254" + words, {INADDR_LOOPBACK, 25254});
      hear("HERE id=" + id_of(1) + " port=25255" + words, {INADDR_LOOPBACK, 25255});
    }
    for (const std::string& address : probes()) ++asked[address];
  };
  pass_with_others(949s);
  EXPECT_EQ(asked["10.77.0.129:25252"], 1);  // the farthest
  EXPECT_EQ(asked["10.77.0.1:25253"], 2);
  pass_with_others(2s);
  EXPECT_EQ(asked["10.77.0.1:25253"], 3);
}

// Each /23 alone would take 255 s.
TEST_F(RosterRules, TwoNetworksThatTakeTurnsAreBothSweptToTheirEnd) {
  ann.start({network("eth0", "10.77.0.1", 23), network("eth1", "10.78.0.1", 23)}, now);
  pass(599s);
  std::map<std::string, int> asked;
  for (const std::string& address : probes()) ++asked[address];
  EXPECT_EQ(asked["10.77.1.0:25252"], 1);  // the farthest
  EXPECT_EQ(asked["10.78.1.0:25252"], 1);
  EXPECT_EQ(asked["10.77.0.1:25253"], 1);
}

TEST_F(RosterRules, ANewInterfaceIsSweptAndTheOthersAreNot) {
  settle();
  ann.use_networks({network("lo", "127.0.0.1", 8), network("eth0", "10.77.0.1", 29), network("wlan0", "10.81.0.1", 30)},
                   now);
  pass(0s);
  EXPECT_EQ(count(sent(), "HELLO 10.81.0.3:25252"), 1u);  // three HELLOs by broadcast, on all
  pass(20s);
  const Texts all = probes();
  EXPECT_EQ(count(all, "10.81.0.2:25253"), 1u);
  EXPECT_EQ(count(all, "10.77.0.3:25253"), 0u);
}

// No broadcast can go there, so there is nothing to wait for.
TEST_F(RosterRules, AnInterfaceWithANewAddressIsSweptAgain) {
  settle();
  ann.use_networks({network("lo", "127.0.0.1", 8), network("eth0", "10.77.0.1", 28)}, now);
  expect_sweep_after(3s);
}

TEST_F(RosterRules, APointToPointInterfaceAsksItsOtherEndAtOnce) {
  Interface tunnel = network("tun0", "10.9.0.1", 32);
  tunnel.other_end = *parse_ip("10.9.0.2");
  ann.start({tunnel}, now);
  pass(1s);
  EXPECT_EQ(probes(), (Texts{"10.9.0.2:25253", "10.9.0.2:25252"}));
}

TEST_F(RosterRules, AThirtyOneHasTwoAddressesAndAThirtyTwoOne) {
  ann.start({network("eth0", "10.9.0.0", 31), network("eth1", "10.8.0.1", 32)}, now);
  pass(5s);
  Texts all = probes();
  std::sort(all.begin(), all.end());
  EXPECT_EQ(all, (Texts{"10.8.0.1:25252", "10.8.0.1:25253", "10.9.0.0:25252", "10.9.0.0:25253", "10.9.0.1:25252",
                        "10.9.0.1:25253"}));
}

TEST_F(RosterRules, WithScanOffNothingIsSwept) {
  ann.never_sweep();
  start();
  pass(10min);
  EXPECT_EQ(probes(), Texts{});
  ann.scan({{kBobsDoor.ip}}, now);
  pass(1s);
  EXPECT_EQ(probes(), (Texts{"10.77.0.2:25253", "10.77.0.2:25252"}));
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

// In a large class, whose intervals are long: a whole class that is silent must not bring a storm.
TEST_F(RosterRules, WhoIsListedAndSilentIsAskedTwentyFourTimesAndThenEveryFiveSeconds) {
  settle();
  bob_says("HERE", " every=60 to=" + kAnn);
  pass(72s + 11500ms);
  EXPECT_EQ(count(sent(), kQuestion), 24u);
  pass(90s);
  EXPECT_EQ(count(sent(), kQuestion), 18u);
  EXPECT_EQ(ann.users().size(), 1u);
}

TEST_F(RosterRules, AnAddressStaysUntilItHasBeenSilentForTenSeconds) {
  settle();
  bob_is_listed();
  expect_movable_after(10s);
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

// Two that were started on one port within a moment: the later one is there.
TEST_F(RosterRules, TheAnswerThatWaitsGoesToWhoAskedLast) {
  settle();
  others_are_listed(1);
  bob_broadcasts("HELLO");
  hear("HELLO id=" + kCleo + " port=25253 name=bob", kBobsDoor, Door::shared);
  pass(1s);
  const Texts all = sent();
  EXPECT_EQ(count(all, "HERE 10.77.0.2:25253 to=" + kCleo), 1u);
  EXPECT_EQ(count(all, "HERE 10.77.0.2:25253 to=" + kBob), 0u);
}

TEST_F(RosterRules, HearsayOfWhoIsListedElsewhereMakesHerAskThereAllTheSame) {
  settle();
  bob_is_listed();
  hear("HERE id=" + kBob + " port=25253 name=bob", *parse_address("10.77.0.3:40000"));
  EXPECT_EQ(sent(), Texts{"HELLO 10.77.0.3:25253"});
  EXPECT_EQ(told(), Texts{});
}

TEST_F(RosterRules, WhoIsGoneNoLongerCountsAmongTheUsers) {
  settle();
  others_are_listed(199);
  pass(30s);
  bob_says("HELLO");
  EXPECT_EQ(sent().back(), "HELLO 10.77.0.2:25253 ask=host every=10");
  pass(180s);
  sent();
  bob_says("HELLO");
  EXPECT_EQ(sent().back(), kQuestion);
}

// The former peer's BYE is read late; nothing is listed under its id for 5 s as it is.
TEST_F(RosterRules, AByeUnderAnIdThatWasReplacedChangesNothing) {
  settle();
  bob_is_listed();
  hear("HERE id=" + kCleo + " port=25253 name=bob to=" + kAnn);
  bob_says("BYE");
  told();
  pass(5s);
  bob_says("HERE", " to=" + kAnn);
  EXPECT_EQ(told(), (Texts{"left bob@10.77.0.2:25253 replaced", "joined bob@10.77.0.2:25253 "}));
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

// ---- 4.5 Every input in every state ----------------------------------------------------

// A row of the table in docs/protocol.md, 4.5: the input, and what it does in each state.
struct Row {
  std::string input;
  std::array<std::string, 4> cells;  // in the order of kStates
};

const std::array<std::string, 4> kStates = {"unknown", "HEARD", "LISTED", "LEFT"};
const Address kElsewhere = *parse_address("10.77.0.3:25253");
const Address kOtherPort = *parse_address("10.77.0.2:40000");

std::vector<Row> rows_of_the_list() {
  std::ifstream specification("docs/protocol.md");
  std::vector<Row> rows;
  bool is_inside = false;
  for (std::string line; std::getline(specification, line);) {
    if (line.rfind("### 4.5 ", 0) == 0) is_inside = true;
    if (line.rfind("## 5", 0) == 0) break;
    if (!is_inside || line.rfind("| ", 0) != 0) continue;
    std::istringstream cells(line.substr(2));
    Row row;
    std::getline(cells, row.input, '|');
    for (std::string& cell : row.cells) std::getline(cells, cell, '|');
    if (row.input != "input ") rows.push_back(row);
  }
  return rows;
}

// Bob's entry, in a list of its own.
class EntryOfBob : public RosterRules {
 public:
  void TestBody() override {}

  void enter(const std::string& state) {
    settle();
    if (state == "HEARD") bob_says("HERE");
    if (state == "LISTED" || state == "LEFT") bob_is_listed();
    if (state == "LEFT") bob_says("BYE");
  }

  // What the table calls it. False for what does not come, or not in that state.
  bool happens(const std::string& input, const std::string& state) {
    const auto is = [&](const std::string& words) { return input.find(words) != input.npos; };
    const bool is_known = state != "unknown";
    const bool is_from_elsewhere = is("from another address");
    const std::string to = is("with our id") || is("no room") ? " to=" + kAnn : "";
    const std::string verb = input.substr(1, input.find('`', 1) - 1);
    const std::string words = verb + " id=" + kBob + " port=25253 name=bob" + to;
    pass(is(", later") ? 10001ms : 5001ms);
    if (is("no room")) others_answer_from(kBobsDoor.ip, 128);
    sent();
    if (is("another id")) hear("HERE id=" + kCleo + " port=25253 name=cleo to=" + kAnn);
    else if (is("introduction")) introduce();
    else if (is("another port than")) hear(words, from = kOtherPort);
    else if (is_from_elsewhere && is_known) hear(words, from = kElsewhere);
    else if (is("no room")) hear("HERE id=" + kBob + " port=25253 name=bob to=" + kAnn);
    else if (!is_from_elsewhere && (is("from the") || is("from there"))) hear(words);
    else return false;
    if (is("address or port")) hear(words, kOtherPort);
    return true;
  }

  // Whether that time comes, which brings the input.
  bool waits(const std::string& input, const std::string& state) {
    const auto is = [&](const std::string& words) { return input.find(words) != input.npos; };
    if (is("overdue (3)")) pass(6250ms);
    else if (is("the last question")) pass(state == "LISTED" ? 7s : 750ms);
    else if (is("three intervals") || is("are over")) pass(15s);
    else if (is("in vain")) answer_nothing();
    else return false;
    return true;
  }

  void answer_nothing() {
    for (int i = 0; i < 40; ++i) {
      pass(500ms);
      bob_says(i == 12 ? "HELLO" : "HERE");
    }
  }

  void introduce() {
    Identity bob = identity(kBob, "bob");
    bob.address = kBobsDoor;
    ann.hear_introduction(bob);
  }

  std::string state() const {
    const auto bob = ann.peers().find(kBob);
    if (bob == ann.peers().end()) return "unknown";
    return kStates[static_cast<size_t>(bob->second.state) + 1];
  }

  void expect(const std::string& cell, const std::string& before) {
    const auto says = [&](const std::string& words) { return cell.find(words) != cell.npos; };
    std::string after = before;
    for (const std::string& one : kStates)
      if (says("`" + one + "`") || says(" unknown")) after = says(" unknown") ? "unknown" : one;
    EXPECT_EQ(state(), after);
    const Address door{from.ip, kBobsDoor.port};
    Texts expected;
    if (says("answer")) expected.push_back("HERE " + from.text() + " to=" + kBob);
    if (says("question")) expected.push_back("HELLO " + door.text() + " ask=host");
    if (says("`HELLO`")) expected.push_back("HELLO " + door.text());
    EXPECT_EQ(sent(), expected);
    if (after == "unknown") return;
    EXPECT_EQ(ann.peers().at(kBob).who.address, says("that address") ? kElsewhere : kBobsDoor);
  }

  size_t questions() { return count(sent(), kQuestion); }

  Address from = kBobsDoor;
};

TEST(ListTable, SaysWhatEachInputDoesInEachState) {
  int tried = 0;
  for (const Row& row : rows_of_the_list())
    for (size_t i = 0; i < kStates.size(); ++i) {
      SCOPED_TRACE(kStates[i] + ", " + row.input + ": " + row.cells[i]);
      const bool is_none = row.cells[i] == " – ";
      EntryOfBob bob, waiting;
      bob.enter(kStates[i]);
      waiting.enter(kStates[i]);
      if (bob.happens(row.input, kStates[i])) {
        bob.expect(row.cells[i], kStates[i]);
        ++tried;
      } else if (!is_none) {
        ASSERT_TRUE(waiting.waits(row.input, kStates[i]));
        const bool is_asked = row.cells[i].find("question") != std::string::npos;
        if (is_asked) EXPECT_GE(waiting.questions(), 1u);
        else EXPECT_NE(row.cells[i].find(waiting.state()), std::string::npos) << waiting.state();
        ++tried;
      }
    }
  EXPECT_GE(tried, 60);
}

// ---- 2.2 Limits -----------------------------------------------------------------------

TEST_F(RosterRules, OneAddressIsListedAHundredAndTwentyEightTimesAndAllAThousandAndTwentyFour) {
  settle();
  others_answer_from(kBobsDoor.ip, 140);
  EXPECT_EQ(ann.users().size(), 128u);
  for (size_t i = 0; i < 1100; ++i) {
    const uint32_t ip = *parse_ip("10.78.0.1") + static_cast<uint32_t>(i);
    hear("HERE id=" + id_of(1000 + i) + " port=25253 name=many to=" + kAnn, {ip, 25253});
  }
  EXPECT_EQ(ann.users().size(), 1024u);
}

TEST_F(RosterRules, NoListedPeerMovesToAnIpAddressWhereAHundredAndTwentyEightAreListed) {
  settle();
  others_answer_from(kElsewhere.ip, 128);
  told();
  bob_is_listed();
  pass(10001ms);
  hear("HERE id=" + kBob + " port=25253 name=bob to=" + kAnn, kElsewhere);
  EXPECT_EQ(told(), Texts{});
  EXPECT_EQ(ann.peers().at(kBob).who.address, kBobsDoor);
}

// Perhaps somebody leaves, and there is room; or it is gone itself.
TEST_F(RosterRules, WhoAnswersAndFindsNoRoomIsAskedAgainAndForgottenLikeAnyOther) {
  settle();
  others_answer_from(kBobsDoor.ip, 129);
  sent();
  EXPECT_EQ(ann.users().size(), 128u);
  pass(12s);
  const Texts all = sent();
  const auto is_question = [](const std::string& text) { return text.rfind("HELLO 10.77.0.2:30128 ", 0) == 0; };
  EXPECT_EQ(std::count_if(all.begin(), all.end(), is_question), 2);
  pass(168s);
  EXPECT_EQ(ann.peers().size(), 0u);
}

TEST_F(RosterRules, AFloodOfBroadcastQuestionsIsNotRemembered) {
  settle();
  others_are_listed(1000);
  for (size_t i = 0; i < 5000; ++i) {
    const Address source{*parse_ip("10.79.0.1") + static_cast<uint32_t>(i), 30000};
    hear("HELLO id=" + id_of(i) + " port=25253 name=flood", source, Door::shared);
  }
  pass(1s);
  const Texts all = sent();
  const auto is_answer = [](const std::string& text) { return text.find(" to=") != text.npos; };
  EXPECT_EQ(std::count_if(all.begin(), all.end(), is_answer), 1280);
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
  ann.scan({{*parse_ip("10.80.0.0"), 28}}, now);
  EXPECT_EQ(told(), Texts{"note: scanning 14 addresses, 8 s to go"});
  pass(1s);
  ann.use_networks({network("eth1", "10.81.0.1", 24)}, now);  // a cable is plugged in
  bob_broadcasts("HERE");
  pass(5750ms);
  const Texts all = probes();
  for (int host = 1; host <= 14; ++host)
    for (const std::string port : {":25253", ":25252"})
      EXPECT_EQ(count(all, "10.80.0." + std::to_string(host) + port), 1u) << host << port;
  EXPECT_EQ(told(), Texts{});
  pass(1s);
  EXPECT_EQ(told(), Texts{"scanned 14 addresses; 0 users online"});
}

TEST_F(RosterRules, AScanBeginsAtOnceAtTheAddressThatWasTyped) {
  start();
  ann.scan({{*parse_ip("10.80.0.100"), 24}}, now);
  pass(500ms);
  EXPECT_EQ(probes(), (Texts{"10.80.0.100:25253", "10.80.0.101:25253", "10.80.0.99:25253"}));
}

TEST_F(RosterRules, AScanTellsEveryHalfMinuteHowFarItIs) {
  settle();
  ann.scan({{*parse_ip("10.80.0.1"), 24}}, now);
  pass(2 * 254 * 250ms + 1s);
  EXPECT_EQ(told(), (Texts{"note: scanning 254 addresses, 128 s to go", "note: scanning 254 addresses, 98 s to go",
                           "note: scanning 254 addresses, 68 s to go", "note: scanning 254 addresses, 38 s to go",
                           "note: scanning 254 addresses, 8 s to go", "scanned 254 addresses; 0 users online"}));
}

TEST_F(RosterRules, AScanOfOneAddressAsksAtBothPortsOrTwiceAtTheOneThatWasTyped) {
  settle();
  ann.scan({{kBobsDoor.ip}}, now);
  pass(250ms);
  EXPECT_EQ(probes(), (Texts{"10.77.0.2:25253", "10.77.0.2:25252"}));
  pass(999ms);
  EXPECT_EQ(told(), Texts{});
  pass(1ms);
  EXPECT_EQ(told(), Texts{"scanned 1 addresses; 0 users online"});
  ann.scan({{kBobsDoor.ip, 32, 40000}}, now);
  pass(1s);
  EXPECT_EQ(probes(), (Texts{"10.77.0.2:40000", "10.77.0.2:40000"}));
}

TEST_F(RosterRules, OnlyAScanThatWasTypedSaysThatANetworkIsTooLarge) {
  ann.start({network("eth0", "10.77.6.1", 16)}, now);
  pass(10min);
  EXPECT_EQ(told(), Texts{});
  ann.scan_all(now);
  EXPECT_EQ(told()[0], "note: a scan asks at most 1,022 addresses: of 10.77.6.1/16, only the /22 around it; /scan "
                       "NETWORK/22 asks another");
}

TEST_F(RosterRules, HoweverOftenAScanIsBegunFourAddressesASecondAreAsked) {
  start();
  pass(3500ms);  // amid a sweep
  probes();
  for (int i = 0; i < 3; ++i) ann.scan({{*parse_ip("10.80.0.0"), 24}}, now);
  pass(10s);
  EXPECT_LE(probes().size(), 41u);
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
  ann.scan({{*parse_ip("10.80.0.0"), 24}}, now);
  pass(50ms);
  told();
  ann.scan({{*parse_ip("10.80.0.9"), 32, 25253}}, now);
  pass(5s);
  EXPECT_EQ(told(), Texts{"scanned 1 addresses; 0 users online"});
}

}  // namespace

// ---- For tests/unit/console.cpp ---------------------------------------------------------

// Discovery, as peer.cpp asks it: on 10.77.0.0/24, and with these on the list. Each has answered.
void let_discovery_list(const std::vector<Identity>& users) {
  const Time now{1h};
  interfaces = {network("lo", "127.0.0.1", 8), network("eth0", "10.77.0.1", 24)};
  roster.emplace(myself, 1);
  roster->start(interfaces, now);
  for (const Identity& user : users) {
    Announcement here;
    here.verb = Verb::here;
    here.who = user;
    here.to = myself.id;
    roster->hear(here, user.address, Door::own, now);
  }
}
