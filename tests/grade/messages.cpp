// R6 and R7: messages, and the stream that carries them.

#include <signal.h>

#include "grade.h"

using namespace grade;

namespace {

// One line of that many bytes, which is a message: filled up by a field that nobody knows.
std::string message_of(size_t size, int number) {
  const std::string head = "MSG number=" + std::to_string(number) + " filler=",
                    tail = " :" + std::to_string(size) + " bytes";
  return head + text_of(size - head.size() - tail.size()) + tail;
}

}  // namespace

// ---- R6: what the program sends ------------------------------------------------------------------------------------

CASE(R6, IntroducesItselfAndSpeaks, "P5.2, P5.3, I2",
     "/msg connects to the user's port, says HELLO, then sends the message, with number and scope.") {
  auto&& [ann, zoe] = Strangers();
  ann.say("/msg " + zoe.at() + " " + words("Hello"));
  zoe.introduces = false;
  Talk& talk = zoe.called();
  const Line hello = talk.request("HELLO", {{"name", ann.name}, {"port", "25253"}, {"group", ann.group}});
  talk.send("OK " + zoe.here(hello["id"]) + "\n");
  const Line msg = talk.request("MSG", {{"scope", "private"}});
  check(msg.text == words("Hello"), ":" + words("Hello"), escaped(msg.whole));
  check(!msg["number"].empty() && msg["number"].find_first_not_of("0123456789") == std::string::npos, "a number",
        escaped(msg.whole));
}

CASE(R6, WaitsForTheReplyToItsHello, "P5.1", "Nothing more is said before the reply to HELLO has come.") {
  auto&& [ann, zoe] = Strangers();
  zoe.introduces = false;
  ann.say("/msg " + zoe.at() + " " + words("secret"));
  Talk& talk = zoe.called();
  talk.request("HELLO");
  talk.expect_silence(1);
}

CASE(R6, DeliveredMeansAcknowledged, "P5.3, I3",
     "A message is called delivered when the other side has said OK, and not before.") {
  auto&& [ann, zoe] = Strangers();
  ann.say("/msg " + zoe.at() + " " + words(": there"));
  Talk& talk = zoe.asked();
  talk.request("MSG");
  ann.prints_not("delivered ...", 1);
  talk.send("OK\n");
  ann.prints("delivered ..." + zoe.at() + ": " + words(": there"));
}

CASE(R6, ANoIsAFailure, "P5.1, P7, I3",
     "Any NO means that the message is not delivered, and the program says so.") {
  auto&& [ann, zoe] = Strangers();
  for (const char* no : {"NO unknown no such request", "NO toothache whatever that is"}) {
    ann.say("/msg " + zoe.at() + " " + words(no));
    Talk& talk = zoe.asked();
    talk.request("MSG");
    talk.send(std::string(no) + "\n");
    talk.claimed = false;  // it may be kept for the next
    ann.prints("failed ..." + zoe.at() + ": ...not delivered: " + words(no));
  }
  ann.prints_not("delivered ...");
}

CASE(R6, OneConversation, "P5.3", "Messages to one address go over one connection, with numbers that grow.") {
  auto&& [ann, zoe] = Strangers();
  ann.say("/msg " + zoe.at() + " " + words("one"));
  Talk& talk = zoe.asked();
  long last = -1;
  for (const char* text : {"one", "two", "three"}) {
    if (text != std::string("one")) ann.say("/msg " + zoe.at() + " " + words(text));
    const Line msg = talk.request("MSG");
    check(msg.text == words(text) && std::atol(msg["number"].c_str()) > last, "a larger number, :" + words(text),
          escaped(msg.whole));
    last = std::atol(msg["number"].c_str());
    talk.send("OK\n");
    ann.prints("delivered ..." + zoe.at() + ": " + words(text));
  }
}

CASE(R6, OneAfterTheOther, "P5.1, P5.3",
     "Each message waits for the reply to the one before, and none overtakes another.") {
  auto&& [ann, zoe] = Strangers();
  for (const char* text : {"one", "two", "three"}) ann.say("/msg " + zoe.at() + " " + words(text));
  Talk& talk = zoe.asked();
  for (const char* text : {"one", "two", "three"}) {
    const Line msg = talk.request("MSG");
    check(msg.text == words(text), ":" + words(text), escaped(msg.whole));
    talk.expect_silence(0.5);
    talk.send("OK\n");
  }
}

CASE(R6, NobodyIsThere, "I3, I6", "A message to an address where nobody listens fails, and the exit status shows it.") {
  Program ann("ann");
  ann.ready().say("/msg 127.0.0.1:9 " + words("hello"));
  ann.prints("failed ...127.0.0.1:9: ...not delivered: " + words("hello"));
  ann.end_input();
  ann.expect_exit(1);
}

CASE(R6, AnotherIsThere, "P5.2",
     "If another id answers than the one that was meant, nothing more is sent. (Needs the list.)") {
  auto&& [ann, zoe] = Listed();
  zoe.introduces = false;
  ann.say("/msg " + zoe.name + " " + words("secret"));
  Talk& talk = zoe.called();
  const Line hello = talk.request("HELLO");
  const std::string id = zoe.id;
  zoe.id = drawn_id("another");
  talk.send("OK " + zoe.here(hello["id"]) + "\n");
  zoe.id = id;
  ann.prints("failed " + zoe.who() + ": ...not delivered: " + words("secret"));
  check(!talk.has_line(), "no line to somebody else", "one");
}

CASE(R6, PlainLines, "I2, I3", "After /to WHO plain lines go to WHO, and //text sends /text.") {
  auto&& [ann, zoe] = Strangers();
  ann.say("/to " + zoe.at());
  ann.prints("to ..." + zoe.at());
  ann.say(words("a plain line") + "\n//" + words("no command"));  // one read() gets both
  Talk& talk = zoe.asked();
  for (const std::string& text : {words("a plain line"), "/" + words("no command")}) {
    const Line msg = talk.request("MSG", {{"scope", "private"}});
    check(msg.text == text, ":" + text, escaped(msg.whole));
    talk.send("OK\n");
  }
}

CASE(R6, ByTheBeginningOfAName, "I2",
     "/to takes the beginning of a name, if no other name begins with it. (Needs the list.)") {
  auto&& [ann, zoe] = Listed();
  ann.say("/to " + zoe.name.substr(0, 3));
  ann.prints("to " + zoe.who());
}

CASE(R6, NobodyAfterAWrongChoice, "I2",
     "After a /to that fails, nobody is chosen: the next plain line is refused. (Needs the list.)") {
  auto&& [ann, zoe] = Listed();
  ann.say("/to " + zoe.name);
  ann.prints("to " + zoe.who());
  ann.say("/to nobody");
  ann.prints("error: ...");
  ann.say("a plain line");
  ann.prints("error: ...");
}

CASE(R6, WaysToSayWho, "I2", "WHO is a name, a number of /list, NAME@IP:PORT, or IP:PORT. (Needs the list.)") {
  auto&& [ann, zoe] = Listed();
  ann.say("/list");
  const std::string entry = ann.prints("user ... - " + zoe.name + " " + zoe.group + " " + zoe.at());
  ann.prints("users 2");
  for (const std::string& who :
       {zoe.name, entry.substr(5, 1), zoe.who(), zoe.at()}) {
    ann.say("/msg " + who + " by " + who);
    Talk& talk = zoe.asked();
    check(talk.request("MSG").text == "by " + who, ":by " + who, "another text");
    talk.send("OK\n");
    talk.claimed = false;
    ann.prints("delivered " + zoe.who() + ": by " + who);
  }
}

CASE(R6, AmbiguousNames, "I2, I3",
     "If a name fits two users, the command is refused and both are named. (Needs the list.)") {
  auto&& [ann, zoe] = Listed();
  Stranger other("zoe");
  other.meet(ann);
  ann.say("/msg " + zoe.name + " which of you");
  const std::string line = ann.prints("error: ...");
  for (const std::string& who : {zoe.at(), other.at()})
    check(line.find(who) != std::string::npos, "the candidate " + who, escaped(line));
  ann.say("/msg " + other.who() + " " + words("you"));
  check(other.asked().request("MSG").text == words("you"), ":" + words("you"), "another text");
}

CASE_OF(40, R6, WhoComesLaterWithAnId, "I2",
        "/to means a user only while he stays listed: a later peer with his id gets nothing. (Needs the list.)") {
  auto&& [ann, zoe] = Listed();
  ann.say("/to " + zoe.name);
  ann.prints("to " + zoe.who());
  zoe.is_mute();
  zoe.tell(ann, zoe.bye());
  ann.prints("left " + zoe.who() + ": said bye");
  pause(16);  // until her id is free again
  Stranger eve("eve");
  eve.id = zoe.id;
  eve.meet(ann);
  ann.say(words("for zoe alone"));
  ann.say("/msg " + eve.name + " " + words("for you"));
  check(eve.asked().request("MSG").text == words("for you"), ":" + words("for you"), "another text");
}

CASE(R6, NamesThatLookAlike, "P3.1, I2, I3",
     "Names that differ only in invisible characters are the same for WHO: the command is refused. (Needs the list.)") {
  auto&& [ann, zoe] = Listed();
  Stranger other("zoe");
  other.name.insert(2, "\u200D");
  other.meet(ann);
  ann.say("/msg " + zoe.name + " which of you");
  const std::string line = ann.prints("error: ...");
  for (const std::string& who : {zoe.at(), other.at()})
    check(line.find(who) != std::string::npos, "the candidate " + who, escaped(line));
}

CASE(R6, UnknownNames, "I3, I6", "A message to a user who is not there is an error, and exit status 1.") {
  Program ann("ann");
  ann.ready().say("/msg nobody hello");
  ann.prints("error: ...");
  ann.say("hello?");
  ann.prints("error: ...");
  ann.end_input();
  ann.expect_exit(1);
}

CASE(R6, UnknownCommands, "I3, I6", "A command that does not exist is an error, and the program goes on.") {
  auto&& [ann, zoe] = Strangers();
  ann.say("/dance");
  ann.prints("error: ...");
  ann.say("/msg " + zoe.at() + " " + words("hello"));
  zoe.asked().send("OK\n");
  ann.prints("delivered ..." + zoe.at() + ": " + words("hello"));
  ann.end_input();
  ann.expect_exit(0);
}

CASE(R6, ToTheGroup, "I2, I3, P5.3",
     "/group reaches everyone in the user's group and nobody else, and says how many got it. (Needs the list.)") {
  auto&& [ann, zoe] = Listed();
  Stranger yan("yan"), eve("eve", 0, "chess");
  yan.meet(ann), eve.meet(ann);
  ann.say("/group " + words("for the group"));
  for (Stranger* each : {&zoe, &yan}) {
    Talk& talk = each->asked();
    check(talk.request("MSG", {{"scope", "group"}}).text == words("for the group"), ":" + words("for the group"), "another text");
    talk.send("OK\n");
  }
  ann.prints("delivered 2 of 2");
  ann.say("/msg " + eve.name + " " + words("only you"));
  check(eve.asked().request("MSG").text == words("only you"), "nothing but the second message", "the first");
}

CASE(R6, ToAll, "I2, I3, P5.3", "/all reaches everyone, and names those it could not reach. (Needs the list.)") {
  auto&& [ann, zoe] = Listed();
  Stranger eve("eve", 0, "chess"), yan("yan");
  eve.meet(ann), yan.meet(ann);
  ann.say("/all " + words("for everyone"));
  for (Stranger* each : {&zoe, &eve, &yan}) {
    Talk& talk = each->asked();
    check(talk.request("MSG", {{"scope", "all"}}).text == words("for everyone"), ":" + words("for everyone"), "another text");
    talk.send(each == &eve ? "NO failed not today\n" : "OK\n");
  }
  ann.prints("delivered 2 of 3; not reached: " + eve.who());
}

CASE(R6, LongTexts, "I2, P2.2", "A text of 4,000 bytes is sent, one of 4,001 refused.") {
  auto&& [ann, zoe] = Strangers();
  ann.say("/msg " + zoe.at() + " " + text_of(4001));
  ann.prints("error: ...");
  ann.say("/msg " + zoe.at() + " " + text_of(4000));
  check(zoe.asked().request("MSG").text == text_of(4000), "the 4,000 bytes", "another text");
}

CASE(R6, TextsAsTheyAre, "P3.2, I2", "Blanks, colons, TABs and every script arrive as they were typed.") {
  auto&& [ann, zoe] = Strangers();
  ann.say("/to " + zoe.at());
  Talk* talk = nullptr;
  for (const std::string text : {"two  blanks", ": a colon", "a=b c=d", "OK", "你好，世界", "tab\there",
                                 "\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x91\xa7"}) {
    ann.say(text);
    if (!talk) talk = &zoe.asked();
    const Line msg = talk->request("MSG");
    check(msg.text == text, ":" + escaped(text), escaped(msg.whole));
    talk->send("OK\n");
  }
}

CASE(R6, TheEndOfInput, "I2, I6",
     "The end of input also ends the last line. All is sent before the program ends, with 0 if all was delivered.") {
  Stranger zoe("zoe");
  Program ann("ann");
  ann.say("/msg " + zoe.at() + " one");
  ann.say_bytes("/msg " + zoe.at() + " two");  // as printf gives it, without an LF
  ann.end_input();
  Talk& talk = zoe.asked();
  for (int i = 0; i < 2; ++i) {
    talk.request("MSG");
    pause(0.5);
    talk.send("OK\n");
  }
  ann.expect_exit(0);
}

CASE(R6, TwoOfItsKindTalk, "P5.3, I3", "Between two peers that run this program messages arrive, in order and once. (Needs the list.)") {
  Program ann("ann"), bob("bob");
  ann.ready(), bob.ready();
  ann.prints("joined " + bob.name + "@...");
  for (int i = 0; i < 20; ++i) ann.say("/msg " + bob.name + " number " + std::to_string(i) + ".");
  for (int i = 0; i < 20; ++i) {
    const std::string line = bob.prints("message " + ann.name + "@... private: number ...");
    check(fits("..." + (" " + std::to_string(i)) + ".", line), "number " + std::to_string(i) + ".", escaped(line));
    ann.prints("delivered " + bob.name + "@...: number " + std::to_string(i) + ".");
  }
  bob.prints_not("message ...", 0.3);
}

CASE(R6, SeveralBlanks, "I2", "Several blanks between words count as one; blanks before a command do not count.") {
  auto&& [ann, zoe] = Strangers();
  ann.say("  /msg   " + zoe.at() + "    two  " + words("blanks"));
  const Line msg = zoe.asked().request("MSG");
  check(msg.text == "two  " + words("blanks"), ":two  " + words("blanks"), escaped(msg.whole));
}

CASE(R6, ANameThatIsANumber, "I2",
     "A word that is one user's name and another's number in /list is refused, and both are named. (Needs the list.)") {
  auto&& [ann, zoe] = Listed();
  Stranger yan("yan");
  yan.meet(ann);
  ann.say("/list");
  const std::string entry = ann.prints("user ... - " + yan.name + " ...");
  ann.prints("users 3");
  const std::string number = entry.substr(5, 1);
  zoe.name = number;
  zoe.tell(ann, zoe.here());
  ann.prints("changed " + zoe.me() + ": ...");
  ann.say("/msg " + number + " " + words("which of you"));
  const std::string line = ann.prints("error: ...");
  for (const std::string& who : {zoe.at(), yan.at()})
    check(line.find(who) != std::string::npos, "the candidate " + who, escaped(line));
}

// ---- R6: what the program shows ------------------------------------------------------------------------------------

CASE(R6, ShowsAMessage, "P5.3, I3", "A message is shown with its sender, the sender's address, and its scope.") {
  auto&& [ann, zoe] = Strangers();
  zoe.announced_ip = "10.9.9.9";  // what she says, and not where she is
  Talk& talk = zoe.introduced(ann);
  int number = 0;
  for (const char* scope : {"private", "group", "all"}) {
    const std::string request = "MSG number=" + std::to_string(++number) + " scope=";
    talk.ask(request + scope + " :" + words(scope), "OK...");
    ann.prints("message " + zoe.who() + " " + std::string(scope) + ": " + words(scope));
  }
}

CASE(R6, UnknownScopes, "P5.3", "An unknown scope, or none, is read as private.") {
  auto&& [ann, zoe] = Strangers();
  Talk& talk = zoe.introduced(ann);
  talk.ask("MSG number=1 scope=planet :" + words("planet"), "OK...");
  talk.ask("MSG number=2 :" + words("you"), "OK...");
  ann.prints("message " + zoe.who() + " private: " + words("planet"));
  ann.prints("message " + zoe.who() + " private: " + words("you"));
}

// ---- R7: lines, however the network cuts them ----------------------------------------------------------------------

CASE_WORTH(4, 30, R7, HelloInPieces, "P5.1, P3.2", "A HELLO is understood wherever the network cuts it.") {
  auto&& [ann, zoe] = Strangers();
  for (size_t cut = 0; cut <= zoe.hello().size(); ++cut) {
    Talk& talk = zoe.call(ann);
    talk.pieces(zoe.hello() + "\n", cut);
    talk.expect("OK ChatByP2P/1 HERE ...");
    talk.close();
  }
}

CASE_WORTH(4, 30, R7, MessagesInPieces, "P5.1, P3.2",
           "A MSG is understood wherever the network cuts it, and shown once.") {
  auto&& [ann, zoe] = Strangers();
  const std::string tail = " scope=all :" + words("héllo") + "\n";
  Talk& talk = zoe.introduced(ann);
  for (size_t cut = 0; cut <= tail.size() + 13; ++cut) {
    talk.pieces("MSG number=" + std::to_string(100 + cut) + tail, cut);
    talk.expect("OK...");
    ann.prints("message " + zoe.who() + " all: " + words("héllo"));
  }
  ann.prints_not("message ...", 0.2);
}

CASE_WORTH(4, 30, R7, OffersInPieces, "P5.1, P3.2", "An OFFER is understood wherever the network cuts it.") {
  auto&& [ann, zoe] = Strangers({"--accept", "always"});
  const std::string offer = "OFFER size=6 files=1 :" + drawn("file") + ".txt\n";
  for (size_t cut = 0; cut < offer.size(); ++cut) {
    Talk& talk = zoe.introduced(ann);
    talk.pieces(offer, cut);
    talk.expect("OK...");
    talk.ask("STOP :only a test", "NO stopped...");
    talk.close();
  }
}

CASE_WORTH(4, 30, R7, DataInPieces, "P5.1, P6.3", "DATA and its bytes are understood wherever the network cuts them.") {
  auto&& [ann, zoe] = Strangers({"--accept", "always"});
  const std::string data = "DATA offset=0 size=6\n" + six_bytes();
  for (size_t cut = 0; cut < data.size(); ++cut) {
    Talk& talk = zoe.offers(ann, "size=6 files=1 :" + std::to_string(cut), "OK...");
    talk.pieces(data, cut);
    talk.ask("END size=6 crc=" + crc(six_bytes()), "OK :" + std::to_string(cut));
    ann.has_stored(std::to_string(cut), six_bytes());
    talk.close();
  }
}

CASE_WORTH(4, 30, R7, EndsInPieces, "P5.1, P6.4", "An END is understood wherever the network cuts it.") {
  auto&& [ann, zoe] = Strangers({"--accept", "always"});
  const std::string end = "END size=6 crc=" + crc(six_bytes()) + "\n";
  for (size_t cut = 0; cut < end.size(); ++cut) {
    Talk& talk = zoe.offers(ann, "size=6 files=1 :" + std::to_string(cut), "OK...");
    talk.send("DATA offset=0 size=6\n" + six_bytes());
    talk.pieces(end, cut);
    talk.expect("OK :" + std::to_string(cut));
    talk.close();
  }
}

CASE_WORTH(4, 20, R7, ManyInOnePiece, "P5.1", "Several requests in one piece are answered in their order.") {
  auto&& [ann, zoe] = Strangers();
  Talk& talk = zoe.call(ann);
  talk.send(zoe.hello() + "\nMSG number=1 :" + words("one") + "\nDANCE\nMSG number=2 :" + words("two") +
            "\nMSG :wrong\n");
  for (const char* reply : {"OK ChatByP2P/1 HERE ...", "OK", "NO unknown...", "OK", "NO syntax..."})
    talk.expect(reply + std::string(reply == std::string("OK") ? "..." : ""));
  ann.prints("message " + zoe.who() + " private: " + words("one"));
  ann.prints("message " + zoe.who() + " private: " + words("two"));
}

CASE_WORTH(4, 20, R7, AFileInOnePiece, "P5.1, P6.3",
     "DATA, its bytes, and END may come in one piece; bytes that look like lines are bytes.") {
  auto&& [ann, zoe] = Strangers({"--accept", "always"});
  const std::string bytes = "END size=6 crc=0\nSTOP\n\r\n";
  Talk& talk = zoe.offers(ann, "size=" + std::to_string(bytes.size()) + " files=1 :tricky", "OK...");
  talk.send("DATA offset=0 size=5\n" + bytes.substr(0, 5) + "DATA offset=5 size=" + std::to_string(bytes.size() - 5) +
            "\n" + bytes.substr(5) + "END size=" + std::to_string(bytes.size()) + " crc=" + crc(bytes) + "\n");
  talk.expect("OK :tricky");
  ann.has_stored("tricky", bytes);
}

CASE(R7, CrLf, "P3.2", "Lines may end with CR LF; the CR is no part of the text.") {
  auto&& [ann, zoe] = Strangers({"--accept", "always"});
  Talk& talk = zoe.call(ann);
  talk.ask(zoe.hello() + "\r", "OK ChatByP2P/1 HERE ...");
  talk.ask("MSG number=1 :" + words("hello") + "\r", "OK...");
  ann.prints("message " + zoe.who() + " private: " + words("hello"));
  talk.ask("OFFER size=2 files=1 :cr.txt\r", "OK...");
  talk.ask("DATA offset=0 size=2\r\n\r\nEND size=2 crc=" + crc("\r\n") + "\r", "OK :cr.txt");
  ann.has_stored("cr.txt", "\r\n");
}

CASE(R7, HalfClose, "P5.1", "A peer that half-closes the connection still gets its replies.") {
  auto&& [ann, zoe] = Strangers();
  Talk& talk = zoe.call(ann);
  talk.send(zoe.hello() + "\nMSG number=1 :" + words("all") + "\n");
  talk.half_close();
  talk.expect("OK ChatByP2P/1 HERE ...");
  talk.expect("OK...");
  talk.expect_end();
  ann.prints("message " + zoe.who() + " private: " + words("all"));
}

CASE(R7, LongLines, "P2.2, P7",
     "A line of 4,095 or 4,096 bytes is read; one of 4,097 gets NO long, and ends the connection.") {
  auto&& [ann, zoe] = Strangers();
  Talk& talk = zoe.introduced(ann);
  talk.ask(message_of(4095, 1), "OK...");
  talk.ask(message_of(4096, 2), "OK...");
  talk.ask(message_of(4096, 3) + "\r", "OK...");  // its end is not counted
  ann.prints("message " + zoe.who() + " private: 4095 bytes");
  for (int i = 0; i < 2; ++i) ann.prints("message " + zoe.who() + " private: 4096 bytes");
  talk.ask(message_of(4097, 4), "NO long...");
  talk.expect_end();
  ann.prints_not("message ...");
}

CASE(R7, TextsAtTheirLimit, "P2.2, P5.3, P7",
     "A text of 3,999 or 4,000 bytes is shown; one of 4,001, or of none, gets NO syntax.") {
  auto&& [ann, zoe] = Strangers();
  Talk& talk = zoe.introduced(ann);
  for (const size_t size : {3999u, 4000u}) {
    talk.ask("MSG number=" + std::to_string(size) + " :" + text_of(size), "OK...");
    ann.prints("message " + zoe.who() + " private: " + text_of(size));
  }
  talk.ask("MSG number=1 :" + text_of(4001), "NO syntax...");
  talk.ask("MSG number=1 :", "NO syntax...");
  talk.ask("MSG number=1", "NO syntax...");
  ann.prints_not("message ...");
}

CASE(R7, NamesAtTheirLimit, "P2.2, P7", "Over TCP, too, a name has at most 32 characters, in any script.") {
  Program ann("ann");
  ann.ready();
  std::string foxes;
  for (int i = 0; i < 31; ++i) foxes += kFox;
  for (const auto& [name, good] : {std::pair(foxes, true),
                                   {foxes + kFox, true},
                                   {foxes + kFox + "x", false},
                                   {text_of(32), true},
                                   {text_of(33), false}}) {
    Stranger zoe(name);
    Talk& talk = zoe.call(ann);
    talk.ask(zoe.hello(), good ? "OK ChatByP2P/1 HERE ..." : "NO stranger...");
    talk.close();
  }
}

CASE(R7, Numbers, "P2.2, P3.2, P7",
     "A number goes from 0 to 2^63 - 1; anything else gets NO syntax, and the connection goes on.") {
  auto&& [ann, zoe] = Strangers();
  Talk& talk = zoe.introduced(ann);
  for (const char* bad : {"9223372036854775808", "99999999999999999999999", "-1", "+1", "1x", "0x1", ""})
    talk.ask(std::string("MSG number=") + bad + " :wrong", "NO syntax...");
  for (const char* good : {"0", "9223372036854775807", "007"}) {
    talk.ask(std::string("MSG number=") + good + " :" + good, "OK...");
    ann.prints("message " + zoe.who() + " private: " + std::string(good));
  }
  ann.prints_not("message ...");
}

CASE(R7, UnknownVerbs, "P7, P8", "An unknown verb gets NO unknown, and the connection goes on.") {
  auto&& [ann, zoe] = Strangers();
  Talk& talk = zoe.introduced(ann);
  for (const char* request : {"DANCE", "TIME zone=UTC", "msg number=1 :small letters", "DATA offset=0 size=0", "FILE :a",
                              "MISSING :a", "END size=0 crc=4294967295", "RESUME", "STOP"})
    talk.ask(request, "NO unknown...");
  talk.ask("MSG number=1 :still here", "OK...");
}

CASE(R7, UnknownFields, "P3.2, P8", "Unknown fields are skipped, and the known ones may come in any order.") {
  auto&& [ann, zoe] = Strangers();
  Talk& talk = zoe.introduced(ann);
  talk.ask("MSG colour=red scope=all mood= number=1 a=b=c :in any order", "OK...");
  ann.prints("message " + zoe.who() + " all: in any order");
  talk.ask("MSG number=2 : :blanks = kept ", "OK...");
  ann.prints("message " + zoe.who() + " private:  :blanks = kept ");
}

CASE(R7, AKeyGivenTwice, "P3.2, P7", "A key that is given twice makes the line wrong.") {
  auto&& [ann, zoe] = Strangers();
  Talk& talk = zoe.introduced(ann);
  talk.ask("MSG number=1 number=2 :twice", "NO syntax...");
  talk.ask("MSG number=1 scope=all scope=all :twice", "NO syntax...");
  ann.prints_not("message ...");
}

CASE(R7, StrangersFirst, "P5.2, P7",
     "Before an introduction, a request gets NO stranger; the introduction may follow.") {
  auto&& [ann, zoe] = Strangers();
  Talk& talk = zoe.call(ann);
  for (const std::string& request : {std::string("MSG number=1 :too early"), std::string("OFFER size=1 files=1 :x"),
                                     std::string("ChatByP2P/1 HELLO id=1"), std::string("DANCE badly")})
    talk.ask(request, "NO stranger...");
  talk.ask(zoe.hello(), "OK ChatByP2P/1 HERE ...");
  talk.ask("MSG number=1 :" + words("now"), "OK...");
  ann.prints("message " + zoe.who() + " private: " + words("now"));
  ann.prints_not("message ...");
}

CASE(R7, LaterVersions, "P8, P7",
     "A HELLO of a later version gets NO stranger, with the version spoken here, and another try is possible.") {
  auto&& [ann, zoe] = Strangers();
  Talk& talk = zoe.call(ann);
  talk.ask("ChatByP2P/2" + zoe.hello().substr(11), "NO stranger...ChatByP2P/1...");
  talk.ask(zoe.hello(), "OK ChatByP2P/1 HERE ...");
}

CASE(R7, ItsOwnId, "P7", "An introduction with the receiver's own id gets NO self.") {
  auto&& [ann, zoe] = Strangers();
  zoe.id = zoe.id_by_tcp(ann);
  zoe.call(ann).ask(zoe.hello(), "NO self...");
}

CASE(R7, AnotherId, "P5.2, P7", "HELLO may be repeated with another name, but not with another id.") {
  auto&& [ann, zoe] = Strangers();
  Talk& talk = zoe.introduced(ann);
  zoe.name = drawn("zora");
  talk.ask(zoe.hello(), "OK ChatByP2P/1 HERE ...");
  zoe.id = drawn_id("another");
  talk.ask(zoe.hello(), "NO other...");
  talk.expect_end();
}

CASE(R7, Repeats, "P5.3, P7",
     "A repeated message, with the same number, gets OK, and is not shown again.") {
  auto&& [ann, zoe] = Strangers();
  Talk& talk = zoe.introduced(ann);
  for (int i = 0; i < 2; ++i) talk.ask("MSG number=5 :" + words("once"), "OK...");
  talk.close();
  Talk& again = zoe.introduced(ann);
  again.ask("MSG number=5 :" + words("once"), "OK...");
  again.ask("MSG number=6 :" + words("all"), "OK...");
  ann.prints("message " + zoe.who() + " private: " + words("once"));
  ann.prints("message " + zoe.who() + " private: " + words("all"));
  ann.prints_not("message ...");
}

CASE(R7, ThirtyTwoRepeats, "P5.3",
     "The 32 highest numbers of a peer are remembered; a lower one is late, and is not shown.") {
  auto&& [ann, zoe] = Strangers();
  Talk& talk = zoe.introduced(ann);
  for (int round = 0; round < 2; ++round)
    for (int i = 1; i <= 32; ++i)
      talk.ask("MSG number=" + std::to_string(i) + " :number " + std::to_string(i), "OK...");
  talk.ask("MSG number=33 :that was all", "OK...");
  talk.ask("MSG number=1 :number 1", "OK...");  // lower than all that are remembered: it comes late
  for (int i = 1; i <= 32; ++i) ann.prints("message " + zoe.who() + " private: number " + std::to_string(i));
  ann.prints("message " + zoe.who() + " private: that was all");
  ann.prints_not("message ...");
}

CASE(R7, NoRepeats, "P5.3, P9",
     "The same number from another id, or from that id at another address, is another message.") {
  auto&& [ann, zoe] = Strangers();
  Stranger yan("yan"), mallory("mallory");
  mallory.id = zoe.id;
  Talk& forged = mallory.introduced(ann);
  for (int i = 1; i <= 32; ++i) forged.ask("MSG number=" + std::to_string(i) + " :one", "OK...");
  zoe.introduced(ann).ask("MSG number=5 :one", "OK...");
  yan.introduced(ann).ask("MSG number=5 :one", "OK...");
  for (const std::string& who : {zoe.who(), yan.who()})
    ann.prints("message " + who + " private: one");
}

CASE(R7, ASecondTry, "P5.3",
     "A message whose connection ends before its reply is sent once more, on a new one, with the same number.") {
  auto&& [ann, zoe] = Strangers();
  ann.say("/msg " + zoe.at() + " " + words("hello"));
  Talk& first = zoe.asked();
  const std::string number = first.request("MSG")["number"];
  first.close();
  Talk& second = zoe.asked();
  check(second.request("MSG", {{"number", number}}).text == words("hello"), ":" + words("hello"), "another text");
  second.send("OK\n");
  ann.prints("delivered ..." + zoe.at() + ": " + words("hello"));
}

CASE(R7, ASecondTryOfAKeptConnection, "P5.3",
     "The same goes for a kept connection; the next message does not overtake it, and its number is larger.") {
  auto&& [ann, zoe] = Strangers();
  ann.say("/msg " + zoe.at() + " one");
  Talk& first = zoe.asked();
  long last = std::atol(first.request("MSG")["number"].c_str());
  first.send("OK\n");
  ann.prints("delivered ..." + zoe.at() + ": one");
  first.reset();
  ann.say("/msg " + zoe.at() + " two");
  ann.say("/msg " + zoe.at() + " three");
  Talk& second = zoe.asked();
  for (const char* text : {"two", "three"}) {
    const Line msg = second.request("MSG");
    const long number = std::atol(msg["number"].c_str());
    check(msg.text == text, std::string(":") + text, escaped(msg.whole));
    check(number > last, "a number above " + std::to_string(last) + ": each message of a peer has a larger one",
          escaped(msg.whole));
    last = number;
    second.send("OK\n");
    ann.prints("delivered ..." + zoe.at() + ": " + std::string(text));
  }
}

CASE(R7, OnlyASecondTry, "P5.3, I3", "When the second try fails, too, the message has failed: it may have arrived.") {
  auto&& [ann, zoe] = Strangers();
  ann.say("/msg " + zoe.at() + " " + words("hello"));
  for (int i = 0; i < 2; ++i) {
    Talk& talk = zoe.asked();
    talk.request("MSG");
    talk.close();
  }
  ann.prints("failed ..." + zoe.at() + ": ...it may have arrived: " + words("hello"));
  ann.prints_not("delivered ...");
}

CASE_OF(45, R7, NoReply, "P5.3, P2.3",
        "When no reply comes for 10 s, the message is sent once more, on a new connection.") {
  auto&& [ann, zoe] = Strangers();
  ann.say("/msg " + zoe.at() + " " + words("hello"));
  Talk& first = zoe.asked();
  const std::string number = first.request("MSG")["number"];
  const double since = now();
  pause(7);
  Talk& second = zoe.asked();
  check(now() - since > 6.5, "it waits for 10 s", std::to_string(now() - since) + " s");
  second.request("MSG", {{"number", number}});
  second.send("OK\n");
  ann.prints("delivered ..." + zoe.at() + ": " + words("hello"));
}

CASE_WORTH(4, 20, R7, RepliesInPieces, "P3.2, P5.1",
     "Replies, too, are understood however they are cut, with CR LF or a text after OK.") {
  auto&& [ann, zoe] = Strangers();
  zoe.introduces = false;
  ann.say("/msg " + zoe.at() + " one");
  Talk& talk = zoe.called();
  talk.pieces("OK " + zoe.here(talk.request("HELLO")["id"]) + "\r\n", 0);
  talk.request("MSG");
  talk.pieces("OK\r\n", 0);
  ann.prints("delivered ..." + zoe.at() + ": one");
  ann.say("/msg " + zoe.at() + " two");
  talk.request("MSG");
  talk.pieces("OK whatever this is\n", 4);
  ann.prints("delivered ..." + zoe.at() + ": two");
}

CASE_OF(60, R7, IdleConversations, "P2.3, P5.1",
        "The opener closes a conversation that was not used for 30 s, without a line.") {
  auto&& [ann, zoe] = Strangers();
  ann.say("/msg " + zoe.at() + " " + words("hello"));
  Talk& talk = zoe.asked();
  talk.request("MSG");
  talk.send("OK\n");
  const double since = now();
  talk.expect_end(48);
  check(now() - since > 20 && !talk.has_line(), "it waits for 30 s, and says nothing",
        std::to_string(now() - since) + " s");
}
