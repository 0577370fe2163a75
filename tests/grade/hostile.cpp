// R9: a peer that breaks the protocol harms nobody, and the others are served meanwhile.

#include <unistd.h>

#include <algorithm>

#include "grade.h"

using namespace grade;

namespace {

std::string garbage(size_t size, unsigned seed) { return random_bytes(size, seed); }

// That nothing it has printed would steer a terminal.
void expect_printable(const Program& program) {
  for (const char c : program.output())
    check(c == '\n' || (static_cast<unsigned char>(c) >= 0x20 && c != 0x7F),
          "no control character in what " + program.name + " prints", escaped(std::string(1, c)));
  for (const char* hidden : {"\xc2\x9b", "\xe2\x80\xae"})
    check(program.output().find(hidden) == std::string::npos,
          "no control character in what " + program.name + " prints", escaped(hidden));
}

// bob, who takes every file, and is attacked.
struct Attacked {
  Attacked() : bob("bob", {"--accept", "always"}), mallory("mallory") { bob.ready(); }
  Program bob;
  Stranger mallory;
};

}  // namespace

CASE(R9, GarbageOverUdp, "P4.1, P9", "Datagrams of garbage are dropped, and the next peer gets its answer.") {
  Attacked on;
  for (unsigned i = 0; i < 300; ++i) on.mallory.tell(on.bob, garbage(i * 3, i));
  for (const std::string& head : {on.mallory.hello(), std::string("ChatByP2P/1 "), std::string("ChatByP2P/1 HELLO ")})
    for (unsigned i = 0; i < 20; ++i) on.mallory.tell(on.bob, head + garbage(i, i));
  on.bob.serves();
  expect_printable(on.bob);
}

CASE(R9, GarbageOverTcp, "P7, P9", "Garbage over TCP ends its own connection at most.") {
  Attacked on;
  for (unsigned i = 0; i < 30; ++i) {
    Talk& talk = i % 2 == 0 ? on.mallory.call(on.bob) : on.mallory.introduced(on.bob);
    talk.send(garbage(i * 200, i) + "\n");
    talk.close();
  }
  on.bob.serves();
  expect_printable(on.bob);
}

CASE(R9, LinesThatAreNotText, "P3.1, P7",
     "A line with control characters, or not in UTF-8, gets NO text, and ends the connection.") {
  Attacked on;
  for (const std::string& text :
       {std::string("\x1b[2J"), std::string("a\0b", 3), std::string("\x7f"), std::string("a\rb"), std::string("\xff"),
        std::string("\xc0\xaf"), std::string("\xed\xa0\x80"), std::string("\xc2\x9b"), std::string("\xe2\x80\xae"),
        std::string("\xe2\x80\xa8")}) {
    Talk& talk = on.mallory.introduced(on.bob);
    talk.ask("MSG number=1 :" + text, "NO text...");
    talk.expect_end();
  }
  on.bob.prints_not("message ...");
  on.bob.serves();
  expect_printable(on.bob);
}

CASE(R9, ASourceThatIsNoPeers, "P4.2, P9",
     "A HELLO whose source is a broadcast address gets no answer: it would go to a whole network.") {
  Attacked on;
  Ear all(31000, "127.255.255.255");
  Stranger forged("forged", 31001);
  std::string hello = forged.hello();
  hello.replace(hello.find("=31001"), 6, "=31000");
  Socket::forge(network(), 0, "127.255.255.255", 31000, "127.0.0.1", on.bob.port, hello);
  on.bob.serves();
  all.hears_not("HERE", {}, 0.5);
  all.hears_not("HELLO", {}, 0);
}

CASE(R9, LinesWithoutEnd, "P2.2, P7", "A line that does not end gets NO long, and does not fill the memory.") {
  Attacked on;
  Talk& talk = on.mallory.introduced(on.bob);
  for (int i = 0; i < 50 && talk.send(text_of(100'000)); ++i) pause(0.001);
  talk.expect("NO long...");
  on.bob.serves();
}

CASE(R9, RepliesAsRequests, "P7", "Replies that nobody asked for are unknown requests.") {
  Attacked on;
  Talk& talk = on.mallory.introduced(on.bob);
  for (const char* line : {"OK", "NO busy go away", "OK :../../x"}) {
    const std::string reply = (talk.send(std::string(line) + "\n"), talk.line());
    check(fits("NO unknown...", reply) || fits("NO syntax...", reply), "NO unknown ...", escaped(reply));
  }
  on.bob.serves();
}

CASE(R9, ASilentStranger, "P2.3, P9", "While one caller says nothing, or half a line, another is served.") {
  Attacked on;
  on.mallory.call(on.bob);
  on.mallory.call(on.bob).send("ChatByP2P/1 HEL");
  on.mallory.introduced(on.bob).send("MSG number=1 :and th");
  on.bob.serves();
  on.bob.say("/list");
  on.bob.prints("users ...");
}

CASE_OF(40, R9, HalfALine, "P2.3, P7",
        "A line without an end gets NO failed after 10 s, and a caller who says nothing is cut off.") {
  Attacked on;
  Talk &mute = on.mallory.call(on.bob), &half = on.mallory.introduced(on.bob);
  half.send("MSG number=1 :and th");
  pause(6.5);
  check(!mute.has_ended(), "a caller who says nothing is cut off after 10 s", "after less than 6.5 s");
  check(!half.has_ended(), "half a line ends no connection before 10 s", "after less than 6.5 s");
  if (half.has_line()) fail("half a line is not answered before 10 s", escaped(half.line()));
  half.expect("NO failed...");
  half.expect_end();
  mute.expect_end();
}

CASE(R9, ALineThatBreaksOff, "P7",
     "A line that breaks off with its connection gets NO failed, and is not carried out.") {
  Attacked on;
  Talk& talk = on.mallory.introduced(on.bob);
  talk.send("MSG number=1 :launch them n");
  talk.half_close();
  talk.expect("NO failed...");
  talk.expect_end();
  on.bob.prints_not("message ...", 0.3);
}

CASE(R9, ManyConnections, "P9, P2.2", "While 20 connections are kept open, another works.") {
  Attacked on;
  for (int i = 0; i < 20; ++i) on.mallory.introduced(on.bob);
  on.bob.serves();
}

CASE(R9, TooManyConnections, "P2.2, P5.1, P7",
     "From one address 128 connections are served; one more gets NO busy, and one from elsewhere is served.") {
  Attacked on;
  for (int i = 0; i < 128; ++i) on.mallory.introduced(on.bob);
  Talk& talk = on.mallory.call(on.bob);
  talk.expect("NO busy...");
  talk.expect_end();
  Stranger other("other", 0, "lab", 0, "127.0.0.2");
  other.introduced(on.bob).ask("MSG number=1 :is there room?", "OK...");
}

CASE(R9, AResetInAFile, "P6.4, P9",
     "A connection that is reset in the middle of a file leaves nothing under its name, and others are served.") {
  Attacked on;
  Talk& talk = on.mallory.offers(on.bob, "size=100000 files=1 :half.txt");
  talk.send("DATA offset=0 size=100000\n" + text_of(50'000));
  pause(0.1);
  talk.reset();
  on.bob.prints("receive ... failed " + on.mallory.who() + " 100000 bytes, ...: half.txt");
  on.bob.has_not_stored("half.txt");
  on.bob.serves();
}

CASE(R9, FileNamesThatAreNone, "P6.1, P7",
     "Invalid file names are refused with NO name, and nothing is stored.") {
  Attacked on;
  for (const std::string& name : {std::string(".."), std::string("."), std::string("a/.."), std::string("/"),
                                  std::string("//"), std::string("../"), text_of(256), std::string("a\tb")}) {
    Talk& talk = on.mallory.introduced(on.bob);
    talk.ask("OFFER size=0 files=1 :" + name, "NO name...");
    talk.expect_end();
  }
  check(on.bob.stored().empty(), "nothing in downloads/", on.bob.stored().empty() ? "" : escaped(on.bob.stored()[0]));
  on.bob.serves();
}

CASE(R9, FileNamesThatLeadAway, "P6.1, P9",
     "Only the last component of a path is used and shown: nothing is stored outside the folder.") {
  Attacked on;
  for (const auto& [path, name] : {std::pair<std::string, std::string>("../../escaped", "escaped"),
                                   {"/tmp/../absolute", "absolute"},
                                   {"a/b/c.txt", "c.txt"},
                                   {text_of(255), text_of(255)}}) {
    Talk& talk = on.mallory.offers(on.bob, "size=6 files=1 :" + path);
    on.bob.prints("receive ... offered ... 6 bytes: " + name);
    talk.send("DATA offset=0 size=6\n" + six_bytes());
    const std::string reply = (talk.send("END size=6 crc=" + crc(six_bytes()) + "\n"), talk.line());
    check(fits("OK :" + name, reply), "OK :" + escaped(name, 40), escaped(reply));
    on.bob.has_stored(name, six_bytes());
    talk.close();
  }
  check(::access(on.bob.path("../escaped").c_str(), F_OK) == -1, "no file outside downloads/", "there is one");
}

CASE(R9, FileNamesThatSteer, "P3.1, P7, I3",
     "A file name with an escape sequence is not text; one with quotes and blanks is a name.") {
  Attacked on;
  on.mallory.introduced(on.bob).ask("OFFER size=0 files=1 :\x1b]0;owned\x07", "NO text...");
  const std::string odd = "-rf $(reboot) `x` ; \"a' *.txt";
  Talk& talk = on.mallory.offers(on.bob, "size=0 files=1 :" + odd);
  talk.ask("END size=0 crc=4294967295", "OK :" + odd);
  on.bob.has_stored(odd, "");
  expect_printable(on.bob);
}

CASE(R9, LinksAreNotFollowed, "P9", "A symbolic link in the download folder is neither followed nor replaced.") {
  Attacked on;
  const std::string precious = on.bob.write("precious", "mine");
  on.bob.write("downloads/other", "");
  check(::symlink("../precious", on.bob.path("downloads/x").c_str()) == 0, "a link", "none");
  Talk& talk = on.mallory.offers(on.bob, "size=6 files=1 :x");
  talk.ask("DATA offset=0 size=6\n" + six_bytes() + "END size=6 crc=" + crc(six_bytes()), "OK :...");
  check(read_file(precious) == "mine", "the file that the link points to, as it was", escaped(read_file(precious)));
}

CASE(R9, AForgedId, "P5.2, P4.4",
     "A message under another's id is shown with its source address, and takes nothing from the owner. "
     "(Needs the list.)") {
  Attacked on;
  Stranger zoe("zoe");
  zoe.meet(on.bob);
  on.mallory.id = zoe.id;
  on.mallory.name = zoe.name;
  on.mallory.introduced(on.bob).ask("MSG number=1 :" + words("forged"), "OK...");
  on.bob.prints("message " + on.mallory.who() + " private: " + words("forged"));
  on.bob.prints_not("changed ...", 0.3);
  on.bob.say("/msg " + zoe.who() + " " + words("real one"));
  check(zoe.asked().request("MSG").text == words("real one"), ":" + words("real one"), "another text");
}

CASE(R9, AnIntroductionOustsNobody, "P5.2, P4.4",
     "A new id that introduces itself over TCP, with a listed peer's port, takes nothing from it. (Needs the list.)") {
  Attacked on;
  Stranger zoe("zoe");
  zoe.meet(on.bob);
  Stranger liar("liar");
  const std::string hello = "ChatByP2P/1 HELLO id=" + liar.id + " ip=127.0.0.1 port=" + std::to_string(zoe.ear.port) +
                            " name=" + liar.name + " group=" + liar.group;
  liar.call(on.bob).ask(hello, "OK ChatByP2P/1 HERE ...");
  on.bob.prints_not("left ...", 1);
  on.bob.prints_not("joined " + liar.name + "@...");
  on.bob.say("/msg " + zoe.name + " " + words("still you"));
  check(zoe.asked().request("MSG").text == words("still you"), ":" + words("still you"), "another text");
}

CASE(R9, AnIntroductionRenamesNobody, "P5.2, P4.4",
     "Over TCP nobody gets another name or group on the list, under his own id or another's. (Needs the list.)") {
  Attacked on;
  Stranger zoe("zoe");
  zoe.meet(on.bob);
  const std::string me = zoe.me(), name = zoe.name, group = zoe.group;
  zoe.beats = false;
  zoe.name = drawn("other");
  zoe.group = drawn("elsewhere");
  const std::string hello = zoe.hello();
  zoe.name = name;
  zoe.group = group;
  zoe.call(on.bob).ask(hello, "OK ChatByP2P/1 HERE ...");
  on.bob.prints_not("changed ...", 1);
  on.bob.say("/list");
  on.bob.prints("user ... - " + name + " " + group + " " + zoe.at());
}

CASE(R9, RepliesThatAreNone, "P3.2, P5.1, P7",
     "If the reply is garbage, or a line without end, the message fails, and the program goes on.") {
  Attacked on;
  on.mallory.introduces = false;
  for (const std::string& reply :
       {garbage(5000, 1) + "\n", text_of(200'000), std::string("\n"), std::string("OKAY\n")}) {
    const size_t before = on.bob.count("failed ...");
    const auto has_failed = [&] { return on.bob.count("failed ...") > before; };
    on.bob.say("/msg " + on.mallory.at() + " " + words("hello"));
    for (;;) {  // it may try again
      until(kSoon + 4, [&] { return has_failed() || on.mallory.is_called(); },
            on.bob.name + " connects, or says that the message has failed");
      if (has_failed()) break;
      Talk& talk = on.mallory.called();
      talk.request("HELLO");
      talk.send(reply);
      talk.half_close();
    }
    on.bob.prints("failed ..." + on.mallory.at() + ": ...not delivered: " + words("hello"));
  }
  on.bob.serves();
  expect_printable(on.bob);
}

CASE(R9, AFileThatIsTooLarge, "P6.1, P7",
     "A file larger than the free space gets NO space; a malformed size, NO syntax.") {
  Attacked on;
  Talk& talk = on.mallory.introduced(on.bob);
  for (const char* what :
       {"size=-1 files=1 :x", "size=9223372036854775808 files=1 :x", "size=6 :x", "files=1 :x", "size=6 files=1"})
    talk.ask(std::string("OFFER ") + what, "NO syntax...");
  talk.ask("OFFER size=9223372036854775807 files=1 :x", "NO space...");
  talk.expect_end();
}
