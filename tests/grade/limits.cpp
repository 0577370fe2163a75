// The limits of protocol.md 2.2, each tested just inside and just outside; and how much many strangers, or one that
// floods, may cost.

#include <signal.h>

#include <algorithm>
#include <cstdlib>

#include "grade.h"

using namespace grade;

namespace {

// A peer that says one datagram, from its own port, and is gone: what it is asked goes nowhere.
void say_once(const Program& program, const std::string& ip, int port, const std::string& verb, const std::string& rest) {
  const Ear ear(port, ip);
  char id[17];
  std::snprintf(id, sizeof id, "%08x%08x", drawn_number("ids of " + ip, 1, 0xFFFFFFFE), static_cast<unsigned>(port));
  ear.pour(program.ip, program.port,
           "ChatByP2P/1 " + verb + " id=" + id + " ip=" + ip + " port=" + std::to_string(port) + " name=" +
               drawn("crowd") + std::to_string(port) + " group=" + drawn("crowd") + rest);
}

constexpr int kCrowdPort = 20000;

// That so many peers of that address show that they hear the program, at a pace that a slow language can follow.
void crowd(const Program& program, const std::string& id, const std::string& ip, int count) {
  for (int i = 0; i < count; ++i) {
    say_once(program, ip, kCrowdPort + i, "HERE", " to=" + id);
    if (i % 4 == 0) pause(0.002);
  }
}

// How many are on the list, oneself included.
int users(Program& program) {
  program.say("/list");
  return std::atoi(program.prints("users ...").substr(6).c_str());
}

// Of datagrams, some may be lost; who is listed already is not told again.
void fill(Program& program, const std::string& id, const std::vector<std::string>& ips, int count, int listed) {
  for (int i = 0; i < 3; ++i) {
    for (const std::string& ip : ips) crowd(program, id, ip, count);
    if (users(program) >= listed) return;
  }
}

void expect_users(Program& program, int expected) {
  const int came = users(program);
  check(came == expected, "/list ends with: users " + std::to_string(expected), "users " + std::to_string(came));
}

}  // namespace

// ---- The list -----------------------------------------------------------------------------------------------------

CASE_OF(40, R9, ACrowdAtOneAddress, "P2.2, P9",
        "At one IP address, at most 128 peers are listed; one at another address still is.") {
  Strangers both;
  Program& ann = both.ann;
  const std::string id = both.zoe.id_by_tcp(ann);
  fill(ann, id, {"127.0.0.2"}, 140, 129);
  const int before = users(ann);
  check(before == 129 || before == 130, "128 of 140 users at 127.0.0.2 are listed, oneself not counted",
        std::to_string(before - 1));  // zoe may be there as well
  crowd(ann, id, "127.0.0.3", 1);
  until(kSoon, [&] { return users(ann) > before; }, "one user at 127.0.0.3 is listed, too");
}

CASE_OF(60, R9, ACrowd, "P2.2, P9", "The list has room for 1,024 peers, and for no more.") {
  Program ann("ann");
  ann.ready();
  Stranger zoe("zoe");
  zoe.is_mute();
  const std::string id = zoe.id_by_tcp(ann);
  std::vector<std::string> ips;
  for (int i = 2; i < 10; ++i) ips.push_back("127.0.0." + std::to_string(i));
  fill(ann, id, ips, 128, 1025);
  expect_users(ann, 1025);
  crowd(ann, id, "127.0.0.10", 20);
  expect_users(ann, 1025);
}

CASE_OF(60, R9, WhoIsRemembered, "P2.2, P4.2",
        "1,280 peers are remembered; for one more, the peer that has been silent longest is forgotten.") {
  for (const bool is_forgotten : {false, true}) {
    Program ann("ann");
    ann.ready();
    Stranger first("first");
    first.is_mute();
    first.tell(ann, first.hello());
    first.hears("HERE", {{"to", first.id}});
    const int others = is_forgotten ? 2200 : 1150;
    const Ear mouth(kCrowdPort);
    for (int i = 0; i < others; ++i) {
      char id[17];
      std::snprintf(id, sizeof id, "%016x", 0x1000u + static_cast<unsigned>(i));
      mouth.pour(ann.ip, ann.port, "ChatByP2P/1 HELLO id=" + std::string(id) + " ip=127.0.0.1 port=" +
                                       std::to_string(kCrowdPort) + " name=n" + std::to_string(i) + " group=g");
      if (i % 4 == 0) pause(0.002);
    }
    pause(0.5);
    ann.say("/name " + drawn("new"));
    ann.prints("you " + drawn("new") + "@...");
    if (is_forgotten) first.ear.hears_not("HERE", {{"name", drawn("new")}}, 1.5);
    else first.hears("HERE", {{"name", drawn("new")}}, 4);
    ann.signal(SIGKILL);
  }
}

CASE_OF(60, R9, AFlood, "P9, P2.2", "However many ids are heard, the program does not fill its memory.") {
  constexpr size_t kMost = 4 * 1024;  // KiB: what a garbage collector may need
  constexpr double kPouring = 35;     // seconds at most; a busy machine pours less
  Program ann("ann");
  ann.ready();
  const Ear mouth(kCrowdPort);
  std::string longest;  // 32 characters of four bytes
  for (int i = 0; i < 32; ++i) longest += "\U0001F98A";
  size_t before = 0;
  unsigned poured = 0;
  for (const double end = now() + kPouring; poured < 60'000 && now() < end; ++poured) {
    char id[17];
    std::snprintf(id, sizeof id, "%016x", 0x10000000u + poured);
    mouth.pour(ann.ip, ann.port, "ChatByP2P/1 HELLO id=" + std::string(id) + " ip=127.0.0.1 port=" +
                                     std::to_string(kCrowdPort) + " name=" + longest + " group=" + longest);
    if (poured % 20 == 0) pause(0.001);
    if (poured == 5000) before = ann.memory();
  }
  const size_t after = ann.memory();
  check(after < before + kMost, "so many ids make it grow by less than 4 MiB",
        "by " + std::to_string((after - before) / 1024) + " MiB");
  ann.serves();
}

CASE_OF(60, R5, TheBeatOfAClass, "P2.3, P4.2",
        "With N users, N / 20 s pass between heartbeats if that is above 5, and every= says so. (Needs the list.)") {
  Strangers both;
  Program& ann = both.ann;
  Ear all(25252);
  const double early = now() + kEarlyBeats;
  const std::string id = both.zoe.id_by_tcp(ann);
  fill(ann, id, {"127.0.0.2", "127.0.0.3"}, 80, 161);
  std::vector<double> at;
  double fresh = now();
  until(40, [&] {
    if (now() > fresh + 3) {  // or they would fall silent
      for (const char* ip : {"127.0.0.2", "127.0.0.3"}) crowd(ann, id, ip, 80);
      fresh = now();
    }
    at.clear();
    for (const Datagram& one : all.heard) {
      const bool is_slow = Line(one.bytes).is("HERE", {{"name", ann.name}, {"every", "9"}});
      if (is_slow && one.at > early) at.push_back(one.at);
    }
    return at.size() >= 2;
  }, "two heartbeats with every=9 of " + ann.name + ", who lists 161 or 162 users");
  check(at[1] - at[0] > 7 && at[1] - at[0] < 12, "9 s between two heartbeats (from 7 to 12 s are accepted)",
        std::to_string(at[1] - at[0]).substr(0, 4) + " s");
}

CASE_OF(40, R5, TheByeOfAClass, "P4.2",
        "With over 50 users, BYE goes by broadcast, and by unicast to peers never heard that way. (Needs the list.)") {
  Ear all(25252);
  auto&& [ann, zoe] = Strangers();
  Stranger yan("yan");
  zoe.beats = yan.beats = false;
  zoe.meet(ann), yan.meet(ann);
  yan.ear.send("127.255.255.255", 25252, yan.here());
  fill(ann, zoe.id_by_tcp(ann), {"127.0.0.2"}, 70, 73);
  ann.say("/quit");
  zoe.hears("BYE", {{"name", ann.name}});
  all.hears("BYE", {{"name", ann.name}});
  yan.ear.hears_not("BYE", {}, 1);
}

// ---- Connections ---------------------------------------------------------------------------------------------------

CASE_OF(60, R9, TooManyConnectionsInAll, "P2.2, P5.1, P7",
        "512 connections are served in all; one more gets NO busy, and there is room again when one ends.") {
  Program bob("bob");
  bob.ready();
  std::list<Stranger> callers;
  std::vector<Talk*> talks;
  for (int i = 0; i < 4; ++i) {
    callers.emplace_back("caller" + std::to_string(i), 0, "lab", 0, "127.0.0." + std::to_string(i + 2));
    callers.back().is_mute();
    for (int k = 0; k < 128; ++k) talks.push_back(&callers.back().introduced(bob));
  }
  Stranger other("other", 0, "lab", 0, "127.0.0.9");
  Talk& refused = other.call(bob);
  refused.expect("NO busy...");
  refused.expect_end();
  for (int i = 0; i < 5; ++i) talks[static_cast<size_t>(i)]->close();
  pause(1);
  other.introduced(bob).ask("MSG number=1 :" + words("room"), "OK...");
}

// ---- Lines ---------------------------------------------------------------------------------------------------------

CASE(R8, NumbersOutOfRange, "P2.2, P3.2, P7",
     "A checksum may be up to 2^32 - 1, an offset or a size up to 2^63 - 1: beyond that the line is wrong.") {
  Program bob("bob", {"--accept", "always"});
  bob.ready();
  Stranger zoe("zoe");
  for (const char* line : {"END size=0 crc=4294967296", "END size=9223372036854775808 crc=4294967295",
                           "DATA offset=9223372036854775808 size=1", "END size=0", "END crc=4294967295",
                           "END size=0 crc=-1"}) {
    Talk& talk = zoe.offers(bob, "size=0 files=1 :" + the_file(), "OK...");
    talk.ask(line, "NO syntax...");
    talk.expect_end();
  }
  bob.has_not_stored(the_file());
  Talk& talk = zoe.offers(bob, "size=6 files=1 :" + the_file(), "OK...");
  talk.ask("DATA offset=0 size=6\nhello\nEND size=6 crc=3015617425", "OK :" + the_file());  // over 2^31
}

CASE(R10, PathsAtTheirLimit, "P2.2, P6.5, P7", "A path of 4,000 bytes is accepted; one of 4,001 gets NO syntax.") {
  Program bob("bob", {"--accept", "always"});
  bob.ready();
  Stranger zoe("zoe");
  for (const size_t size : {4000u, 4001u}) {
    std::string lines, all, path;
    for (int i = 0; i < 15; ++i) {
      path += text_of(250, 'x') + "/";
      lines += "FILE :" + path + "\n";
      all += path + "\n";
    }
    path += text_of(size - path.size(), 'y');
    Talk& talk = zoe.offers(bob, "size=0 files=16 :" + drawn("folder") + "/", "OK...");
    talk.send(lines + "FILE :" + path + "\nEND size=0 crc=" + crc(all + path + "\n") + "\n");
    talk.expect(size == 4000 ? "OK..." : "NO syntax...");
    talk.close();
  }
}
