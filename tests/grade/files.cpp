// R8 and R10: files, folders, and files that go on after a break.

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "grade.h"

using namespace grade;

namespace {

// The content that most files have here, as it travels.
std::string six_as_data() { return "DATA offset=0 size=6\n" + six_bytes(); }
std::string six_as_end() { return "END size=6 crc=" + crc(six_bytes()); }

// bob, who receives, and zoe, who offers.
struct Receiver {
  explicit Receiver(const std::string& accept = "always") : bob("bob", {"--accept", accept}), zoe("zoe") { bob.ready(); }
  Talk& asks(const std::string& what) {
    Talk& talk = zoe.introduced(bob);
    talk.send("OFFER " + what + "\n");
    return talk;
  }
  // The N of the next offer.
  std::string offered() {
    const std::string line = bob.prints("receive ... offered " + zoe.who() + " 6 bytes: " + the_file());
    return line.substr(8, line.find(' ', 8) - 8);
  }
  Program bob;
  Stranger zoe;
};

// ann, who sends, and zoe, who gets it.
struct Sender {
  Sender() : ann("ann"), zoe("zoe") { ann.ready(); }
  // What she offers, up to her OFFER.
  Talk& offer(const std::string& path, const Fields& fields, const std::string& name) {
    ann.say("/send " + zoe.at() + " " + path);
    Talk& talk = zoe.asked();
    const Line line = talk.request("OFFER", fields);
    check(line.text == name, ":" + name, escaped(line.whole));
    return talk;
  }
  Program ann;
  Stranger zoe;
};

// Reads what a sender sends up to END: its bytes, or of a folder, what the checksum is over. Its offsets must be right.
struct Received {
  Received(Talk& talk, size_t offset = 0) {
    for (;;) {
      const Line line(talk.line("FILE, DATA or END"));
      if (line.verb == "DATA") {
        const size_t size = static_cast<size_t>(std::atoll(line["size"].c_str()));
        check(line["offset"] == std::to_string(offset), "DATA offset=" + std::to_string(offset), escaped(line.whole));
        bytes += talk.bytes(size);
        offset += size;
      } else if (line.verb == "FILE") {
        entries += (line["mode"] == "x" ? "x " : "") + line.text + "\n";
        bytes += line.text + "\n";
      } else {
        check(line.verb == "END", "FILE, DATA or END", escaped(line.whole));
        check(line["size"] == std::to_string(offset), "END size=" + std::to_string(offset), escaped(line.whole));
        crc = line["crc"];
        return;
      }
    }
  }
  std::string bytes, entries, crc;
};

const std::string kRun = "#!/bin/sh\nls";

}  // namespace

// ---- R8: receiving -------------------------------------------------------------------------------------------------

CASE(R8, AsksItsUser, "P6.2, I2, I3",
     "An offered file is announced; /accept N lets it come; then it is stored, with its checksum.") {
  Receiver r("ask");
  Talk& talk = r.asks("size=6 files=1 :" + the_file());
  const std::string n = r.offered();
  talk.expect_silence(1);
  r.bob.say("/accept " + n);
  talk.expect("OK...");
  talk.ask(six_as_data() + six_as_end(), "OK :" + the_file());
  r.bob.prints("receive " + n + " started " + r.zoe.who() + " 6 bytes: " + the_file());
  r.bob.prints("receive " + n + " stored " + r.zoe.who() + " 6 bytes, cksum " + crc(six_bytes()) + ": downloads/" + the_file());
  r.bob.has_stored(the_file(), six_bytes());
}

CASE(R8, AcceptsAlways, "I1", "With --accept always a file comes without a question.") {
  Receiver r;
  r.zoe.offers(r.bob, "size=6 files=1 :" + the_file(), "OK...").ask(six_as_data() + six_as_end(), "OK :" + the_file());
  r.bob.has_stored(the_file(), six_bytes());
}

CASE(R8, AcceptsNever, "I1, P7", "With --accept never each offer is declined.") {
  Receiver r("never");
  Talk& talk = r.asks("size=6 files=1 :" + the_file());
  talk.expect("NO declined...");
  talk.expect_end();
}

CASE(R8, Rejects, "I2, P7", "/reject N declines an offer.") {
  Receiver r("ask");
  Talk& talk = r.asks("size=6 files=1 :" + the_file());
  const std::string n = r.offered();
  r.bob.say("/reject " + n);
  talk.expect("NO declined...");
  talk.expect_end();
  r.bob.prints("receive " + n + " failed " + r.zoe.who() + " 6 bytes, ...: " + the_file());
}

CASE(R8, AcceptsUnderAnotherName, "I2, P6.4", "/accept N AS stores it under the name AS, which the sender is told.") {
  Receiver r("ask");
  Talk& talk = r.asks("size=6 files=1 :" + the_file());
  r.bob.say("/accept " + r.offered() + " my " + the_file());
  talk.expect("OK...");
  talk.ask(six_as_data() + six_as_end(), "OK :my " + the_file());
  r.bob.has_stored("my " + the_file(), six_bytes());
  r.bob.has_not_stored(the_file());
}

CASE(R8, ChoosesTheFolder, "I1", "--dir chooses the folder, which is created if its parent exists.") {
  Program bob("bob", {"--accept", "always", "--dir", "elsewhere"});
  bob.ready();
  Stranger zoe("zoe");
  zoe.offers(bob, "size=6 files=1 :" + the_file(), "OK...").ask(six_as_data() + six_as_end(), "OK :" + the_file());
  check(read_file(bob.path("elsewhere/" + the_file())) == six_bytes(), "the file elsewhere/" + the_file(), "none, or another");
}

CASE(R8, NothingIncompleteHasAName, "P6.4, P9",
     "Until everything has come and is verified, no file has that name.") {
  Receiver r;
  Talk& talk = r.zoe.offers(r.bob, "size=6 files=1 :" + the_file());
  talk.send("DATA offset=0 size=6\n" + six_bytes().substr(0, 3));
  pause(0.5);
  r.bob.has_not_stored(the_file());
  talk.send(six_bytes().substr(3));
  pause(0.5);
  r.bob.has_not_stored(the_file());
  talk.ask(six_as_end(), "OK :" + the_file());
  r.bob.has_stored(the_file(), six_bytes());
}

CASE(R8, WrongChecksums, "P6.4, P7", "A file whose checksum or size is wrong is thrown away: NO checksum.") {
  Receiver r;
  for (const std::string& end :
       {std::string("END size=6 crc=1"), std::string("END size=5 crc=" + crc(six_bytes())), "END size=0 crc=" + crc("")}) {
    Talk& talk = r.zoe.offers(r.bob, "size=6 files=1 :" + the_file(), "OK...");
    talk.ask(six_as_data() + end, "NO checksum...");
    talk.expect_end();
    r.bob.prints("receive ... failed " + r.zoe.who() + " 6 bytes, ...: " + the_file());
  }
  r.bob.has_not_stored(the_file());
}

CASE(R8, LessThanOffered, "P6.4, P7", "Fewer bytes than offered are refused, even if their checksum is right.") {
  Receiver r;
  Talk& talk = r.zoe.offers(r.bob, "size=7 files=1 :" + the_file());
  talk.ask(six_as_data() + six_as_end(), "NO checksum...");
  r.bob.has_not_stored(the_file());
}

CASE(R8, MoreThanOffered, "P6.3, P7",
     "More bytes than offered, none, those of another offset, or a line that belongs elsewhere are refused.") {
  Receiver r;
  for (const std::string& data :
       {std::string("DATA offset=0 size=7\nhello!\n"), std::string("DATA offset=1 size=5\n"), std::string("DATA offset=0 size=-1\n"),
        std::string("DATA offset=0 size=0\n"), "DATA offset=0 size=6\n" + six_bytes() + "DATA offset=6 size=1\n",
        std::string("FILE :a\n"), std::string("MISSING :a\n"), std::string("MSG number=1 :too late\n"), std::string("DANCE\n")}) {
    Talk& talk = r.zoe.offers(r.bob, "size=6 files=1 :" + the_file(), "OK...");
    talk.send(data);
    talk.expect("NO syntax...");
    talk.expect_end();
  }
  r.bob.has_not_stored(the_file());
}

CASE(R8, ReplacesNothing, "P6.4",
     "A file that exists is not replaced: the new one gets another name, which the sender is told.") {
  Receiver r;
  r.bob.write("downloads/" + the_file(), "mine");
  Talk& talk = r.zoe.offers(r.bob, "size=6 files=1 :" + the_file());
  talk.send(six_as_data() + six_as_end() + "\n");
  const std::string name = Line(talk.expect("OK :...")).text;
  check(name != the_file(), "a name other than " + the_file(), name);
  r.bob.has_stored(the_file(), "mine");
  r.bob.has_stored(name, six_bytes());
}

CASE(R8, EmptyFiles, "P6.4", "An empty file has no DATA, and the checksum 4294967295.") {
  Receiver r;
  r.zoe.offers(r.bob, "size=0 files=1 :empty").ask("END size=0 crc=4294967295", "OK :empty");
  r.bob.has_stored("empty", "");
}

CASE(R8, BytesTooEarly, "P6.2, P7", "Any line before the answer, right or wrong, ends the offer: NO early.") {
  Receiver r("ask");
  for (const char* line : {"DATA offset=0 size=6\nhello", "MSG number=1 :too early", "DANCE badly", "STOP it"}) {
    Talk& talk = r.asks("size=6 files=1 :" + the_file());
    r.offered();
    talk.ask(line, "NO early...");
    talk.expect_end();
  }
  r.bob.has_not_stored(the_file());
}

CASE(R8, TheSenderStops, "P6.2, P6.3, P7",
     "STOP, before or after the answer, is understood: NO stopped; the user is told.") {
  Receiver r("ask");
  Talk& talk = r.asks("size=6 files=1 :" + the_file());
  const std::string n = r.offered();
  talk.ask("STOP :I have changed my mind", "NO stopped...");
  talk.expect_end();
  r.bob.prints("receive " + n + " failed " + r.zoe.who() + " 6 bytes, ...: " + the_file());
  Talk& second = r.asks("size=6 files=1 :" + the_file());
  r.bob.say("/accept " + r.offered());
  second.expect("OK...");
  second.ask("DATA offset=0 size=3\nhelSTOP :the dog ate it", "NO stopped...");
  r.bob.prints("receive ... failed " + r.zoe.who() + " 6 bytes, ...the dog ate it...: " + the_file());
}

CASE(R8, TheReceiverCancels, "I2, P7", "/cancel N ends an incoming transfer, and tells the sender: NO cancelled.") {
  Receiver r("ask");
  Talk& talk = r.asks("size=6 files=1 :" + the_file());
  const std::string n = r.offered();
  r.bob.say("/accept " + n);
  talk.expect("OK...");
  talk.send("DATA offset=0 size=6\n" + six_bytes().substr(0, 3));
  r.bob.prints("receive " + n + " started ...");
  r.bob.say("/cancel " + n);
  const double since = now();
  talk.expect("NO cancelled...");
  expect_took(since, 0, 3, "NO cancelled comes within half a second");
  r.bob.prints("receive " + n + " failed " + r.zoe.who() + " 6 bytes, ...: " + the_file());
  r.bob.has_not_stored(the_file());
}

CASE(R8, ItsConnectionGoesOn, "P6.4", "After the OK to END the connection goes on: a message, or another file.") {
  Receiver r;
  Talk& talk = r.zoe.offers(r.bob, "size=6 files=1 :a");
  talk.ask(six_as_data() + six_as_end(), "OK :a");
  talk.ask("MSG number=1 :did you get it?", "OK...");
  talk.ask("OFFER size=6 files=1 :b", "OK...");
  talk.ask(six_as_data() + six_as_end(), "OK :b");
}

CASE(R8, TransfersAreListed, "I2, I3", "/transfers lists what is offered and under way; a wrong number is an error.") {
  Receiver r("ask");
  r.asks("size=6 files=1 :" + the_file());
  const std::string n = r.offered();
  r.bob.say("/transfers");
  r.bob.prints("receive " + n + " offered " + r.zoe.who() + " 6 bytes...: " + the_file());
  r.bob.prints("transfers 1");
  r.bob.say("/accept 99");
  r.bob.prints("error: ...");
}

CASE(R8, AnOfferHoldsUpNothing, "P5.3, P6", "While an offer waits for its answer, messages come and go.") {
  Receiver r("ask");
  r.asks("size=6 files=1 :" + the_file());
  r.offered();
  r.zoe.introduced(r.bob).ask("MSG number=1 :in between", "OK...");
  r.bob.prints("message " + r.zoe.who() + " private: in between");
  r.bob.say("/msg " + r.zoe.at() + " wait");
  r.zoe.asked().send("OK\n");
  r.bob.prints("delivered ..." + r.zoe.at() + ": wait");
}

// ---- R8: sending ---------------------------------------------------------------------------------------------------

CASE(R8, SendsAFile, "P6, I3",
     "/send offers a file, sends it when it is accepted, and says so when the other side has stored it.") {
  Sender s;
  s.ann.write("my " + the_file(), six_bytes());
  Talk& talk = s.offer("my " + the_file(), {{"size", "6"}, {"files", "1"}}, "my " + the_file());
  s.ann.prints("send 1 offered ..." + s.zoe.at() + " 6 bytes: my " + the_file());
  talk.expect_silence(1);
  talk.send("OK\n");
  s.ann.prints("send 1 started ..." + s.zoe.at() + " 6 bytes: my " + the_file());
  const Received got(talk);
  check(got.bytes == six_bytes() && got.crc == crc(six_bytes()), escaped(six_bytes()) + ", crc=" + crc(six_bytes()),
        escaped(got.bytes) + ", crc=" + got.crc);
  s.ann.prints_not("send 1 delivered ...", 0.5);
  talk.send("OK :another name.txt\n");
  s.ann.prints("send 1 delivered ..." + s.zoe.at() + " 6 bytes, cksum " + crc(six_bytes()) + ": another name.txt");
}

CASE(R8, SendsAnEmptyFile, "P6.4", "An empty file is sent, too, with its checksum.") {
  Sender s;
  s.ann.write("empty", "");
  Talk& talk = s.offer("empty", {{"size", "0"}}, "empty");
  talk.send("OK\n");
  const Received got(talk);
  check(got.bytes.empty() && got.crc == "4294967295", "no bytes, crc=4294967295", "crc=" + got.crc);
}

CASE(R8, SendsALargeFile, "P6.3, P6.4",
     "A file of some megabytes arrives byte for byte, with offsets, sizes and checksum, though its reader pauses.") {
  Sender s;
  const std::string content = random_bytes(9'000'001, 1);  // more than the buffers on the way hold
  s.ann.write("large", content);
  Talk& talk = s.offer(s.ann.path("large"), {{"size", "9000001"}, {"files", "1"}}, "large");
  talk.send("OK\n");
  talk.rest(1);  // long enough for send() to take less than it was given
  const Received got(talk);
  check(got.bytes == content, "the bytes of the file", "other bytes");
  check(got.crc == crc(content), "crc=" + crc(content), got.crc);
}

CASE(R8, SendsWhatItOffered, "P9, P6.3",
     "If a link replaces the offered file, its target is not sent.") {
  Sender s;
  s.ann.write("a.txt", "public");
  const std::string secret = s.ann.write("secret", "secret"), offered = s.ann.path("a.txt");
  Talk& talk = s.offer("a.txt", {{"size", "6"}}, "a.txt");
  check(::unlink(offered.c_str()) == 0, "no file", "one");
  check(::symlink(secret.c_str(), offered.c_str()) == 0, "a link", "none");
  talk.send("OK\n");
  const Line line(talk.line("DATA, or STOP"));
  if (line.verb == "STOP") return;
  const std::string bytes = talk.bytes(6);
  check(bytes == "public", "the file as it was offered", escaped(bytes));
}

CASE(R8, AnOfferThatIsDeclined, "P6.2, I3, I6",
     "After a NO to the offer nothing is sent, the user sees why, and the exit status is 1.") {
  Sender s;
  s.ann.write("a.txt", six_bytes());
  Talk& talk = s.offer("a.txt", {}, "a.txt");
  talk.send("NO declined not now\n");
  s.ann.prints("send 1 failed ..." + s.zoe.at() + " 6 bytes, ...: a.txt");
  check(!talk.has_line(), "nothing more", "a line");
  s.ann.end_input();
  s.ann.expect_exit(1);
}

CASE(R8, ANoInTheMiddle, "P6.3, I3",
     "A NO in the middle of a file is noticed, its sentence shown, and the sending ends.") {
  Sender s;
  s.ann.write("large", text_of(60'000'000));
  Talk& talk = s.offer("large", {}, "large");
  talk.send("OK\n");
  talk.request("DATA");
  talk.send("NO failed the disk is full\n");
  s.ann.prints("send 1 failed ..." + s.zoe.at() + " 60000000 bytes, ...the disk is full...: large");
}

CASE(R8, AnEndThatIsRefused, "P6.4, I3", "A NO to END means that the file has not arrived.") {
  Sender s;
  s.ann.write("a.txt", six_bytes());
  Talk& talk = s.offer("a.txt", {}, "a.txt");
  talk.send("OK\n");
  const Received got(talk);
  talk.send("NO checksum the file did not arrive as it was sent\n");
  s.ann.prints("send 1 failed ..." + s.zoe.at() + " 6 bytes, ...: a.txt");
  s.ann.prints_not("send 1 delivered ...");
}

CASE(R8, AnOkTooEarly, "P6.3", "An OK before the END is a failure, and not a delivery.") {
  Sender s;
  s.ann.write("large", text_of(60'000'000));
  Talk& talk = s.offer("large", {}, "large");
  talk.send("OK\nOK :large\n");
  s.ann.prints("send 1 failed ..." + s.zoe.at() + " 60000000 bytes, ...: large");
}

CASE(R8, AReceiverThatIsGone, "I3, P6.4",
     "When the connection ends before the reply to END, the file is not called delivered.") {
  Sender s;
  s.ann.write("a.txt", six_bytes());
  Talk& talk = s.offer("a.txt", {}, "a.txt");
  talk.send("OK\n");
  const Received got(talk);
  talk.close();
  s.ann.prints("send 1 failed ..." + s.zoe.at() + " 6 bytes, ...it may have arrived: a.txt");
}

CASE(R8, TheSenderCancels, "I2, P6.2", "/cancel N withdraws an offer, and tells the receiver: STOP.") {
  Sender s;
  s.ann.write("a.txt", six_bytes());
  Talk& talk = s.offer("a.txt", {}, "a.txt");
  s.ann.say("/cancel 1");
  const double since = now();
  talk.request("STOP");
  expect_took(since, 0, 3, "STOP comes within half a second");
  talk.send("NO stopped all right\n");
  s.ann.prints("send 1 failed ..." + s.zoe.at() + " 6 bytes, ...: a.txt");
}

CASE(R8, FilesThatAreNotThere, "I3, I6", "A file that is not there is an error, and exit status 1.") {
  Sender s;
  s.ann.say("/send " + s.zoe.at() + " nowhere.txt");
  s.ann.prints("error: ...");
  s.ann.end_input();
  s.ann.expect_exit(1);
}

CASE(R8, ToAll, "I2, I3",
     "/sendall offers to everyone, and says at the end who has it and who has not. (Needs the list.)") {
  Sender s;
  Stranger yan("yan");
  s.zoe.meet(s.ann), yan.meet(s.ann);
  s.ann.write("a.txt", six_bytes());
  s.ann.say("/sendall a.txt");
  Talk &one = s.zoe.asked(), &two = yan.asked();
  one.request("OFFER"), two.request("OFFER");
  two.send("NO declined not now\n");
  one.send("OK\n");
  const Received got(one);
  one.send("OK :a.txt\n");
  s.ann.prints("sent to 1 of 2, " + s.zoe.who() + "; not reached: " + yan.who() + " (...): a.txt");
}

CASE(R8, TwoOfItsKind, "P6, I3, I6",
     "Between two peers that run this program a file arrives as it was; the end of input waits for it. (Needs the list.)") {
  Program bob("bob", {"--accept", "always"}), ann("ann");
  bob.ready(), ann.ready();
  const std::string content = random_bytes(1'000'000, 2);
  ann.write("photo.jpg", content);
  ann.prints("joined " + bob.name + "@...");
  ann.say("/send " + bob.name + " photo.jpg");
  ann.end_input();
  ann.prints("send 1 delivered " + bob.name + "@... 1000000 bytes, cksum " + crc(content) + ": photo.jpg");
  bob.prints("receive 1 stored " + ann.name + "@... 1000000 bytes, cksum " + crc(content) + ": downloads/photo.jpg");
  bob.has_stored("photo.jpg", content);
  ann.expect_exit(0);
}

// ---- R8: what is easily forgotten ----------------------------------------------------------------------------------

CASE(R8, BytesThatAreNoText, "I3", "Bytes that are not UTF-8 are printed as \\xhh, in lower case.") {
  const std::string folder = "d" + std::string("\xff\xae");
  Program bob("bob", {"--accept", "always", "--dir", folder});
  bob.ready();
  Stranger zoe("zoe");
  zoe.offers(bob, "size=6 files=1 :" + the_file()).ask(six_as_data() + six_as_end(), "OK :" + the_file());
  bob.prints("receive 1 stored " + zoe.who() + " 6 bytes, cksum " + crc(six_bytes()) + ": d\\xff\\xae/" + the_file());
}

CASE(R8, TwoOffersOfOneName, "P6.4",
     "Two files of one name that come at the same time are both stored, under two names.") {
  Receiver r;
  Stranger yan("yan", 0, "lab", 0, "127.0.0.2");
  Talk &one = r.zoe.offers(r.bob, "size=6 files=1 :" + the_file()),
       &two = yan.offers(r.bob, "size=3 files=1 :" + the_file());
  one.send("DATA offset=0 size=6\n" + six_bytes().substr(0, 3));
  two.ask("DATA offset=0 size=3\nabcEND size=3 crc=" + crc("abc"), "OK :" + the_file());
  one.send(six_bytes().substr(3) + six_as_end() + "\n");
  const std::string name = Line(one.expect("OK :...")).text;
  check(name != the_file(), "a name other than " + the_file(), name);
  r.bob.has_stored(the_file(), "abc");
  r.bob.has_stored(name, six_bytes());
}

// ---- R10: folders --------------------------------------------------------------------------------------------------

CASE(R10, AFolderArrives, "P6.5, I3", "A folder arrives with its files, its subfolders, and what can be executed.") {
  Receiver r;
  const std::string sum = "a.txt\n" + six_bytes() + "sub/\nsub/run.sh\n" + kRun;
  Talk& talk = r.zoe.offers(r.bob, "size=18 files=3 :photos/");
  talk.send("FILE :a.txt\n" + six_as_data() + "FILE :sub/\nFILE mode=x :sub/run.sh\nDATA offset=6 size=12\n" + kRun);
  talk.ask("END size=18 crc=" + crc(sum), "OK :photos/");
  r.bob.has_stored("photos/a.txt", six_bytes());
  r.bob.has_stored("photos/sub/run.sh", kRun);
  struct stat run {}, text {};
  ::stat(r.bob.path("downloads/photos/sub/run.sh").c_str(), &run),
      ::stat(r.bob.path("downloads/photos/a.txt").c_str(), &text);
  check((run.st_mode & 0100) != 0 && (text.st_mode & 0111) == 0, "run.sh can be executed, and a.txt cannot",
        "otherwise");
  r.bob.prints("receive ... stored " + r.zoe.who() + " 18 bytes in 3 files and folders, cksum " + crc(sum) +
               ": downloads/photos/");
}

CASE(R10, AFileThatCanBeRun, "P6.1", "A single file stays executable, like one in a folder.") {
  Sender s;
  ::chmod(s.ann.write("run.sh", kRun).c_str(), 0755);
  Program bob("bob", {"--accept", "always"});
  bob.ready();
  s.offer("run.sh", {{"size", "12"}, {"files", "1"}, {"mode", "x"}}, "run.sh");
  s.ann.write("a.txt", six_bytes());
  s.offer("a.txt", {{"size", "6"}, {"mode", "-"}}, "a.txt");
  Talk& talk = s.zoe.offers(bob, "size=12 files=1 mode=x :run.sh");
  talk.send("DATA offset=0 size=12\n" + kRun);
  talk.ask("END size=12 crc=" + crc(kRun), "OK :run.sh");
  struct stat run{};
  ::stat(bob.path("downloads/run.sh").c_str(), &run);
  check((run.st_mode & 0100) != 0, "run.sh can be executed", "it cannot");
}

CASE(R10, EmptyOnes, "P6.5", "Empty files and empty subfolders arrive, too.") {
  Receiver r;
  Talk& talk = r.zoe.offers(r.bob, "size=0 files=2 :photos/");
  talk.ask("FILE :empty\nFILE :none/\nEND size=0 crc=" + crc("empty\nnone/\n"), "OK :photos/");
  r.bob.has_stored("photos/empty", "");
  struct stat folder {};
  check(::stat(r.bob.path("downloads/photos/none").c_str(), &folder) == 0 && S_ISDIR(folder.st_mode),
        "a folder photos/none", "none");
}

CASE(R10, WrongChecksums, "P6.5, P6.4", "A folder whose checksum is wrong is not stored.") {
  Receiver r;
  Talk& talk = r.zoe.offers(r.bob, "size=6 files=1 :photos/");
  talk.ask("FILE :a.txt\n" + six_as_data() + six_as_end(), "NO checksum...");
  r.bob.has_not_stored("photos");
}

CASE(R10, NothingIncompleteHasAName, "P6.4, P6.5", "Until everything has come, no folder has that name.") {
  Receiver r;
  Talk& talk = r.zoe.offers(r.bob, "size=6 files=1 :photos/");
  talk.send("FILE :a.txt\n" + six_as_data());
  pause(0.5);
  r.bob.has_not_stored("photos");
  talk.reset();
  r.bob.prints("receive ... failed " + r.zoe.who() + " 6 bytes in 1 files and folders, ...: photos/");
  r.bob.has_not_stored("photos");
}

CASE(R10, APathThatIsTooLong, "P6.5",
     "An entry whose path is too long to be stored does not fail the others.") {
  Receiver r;
  std::string lines, all, path;
  for (int i = 0; i < 15; ++i) {
    path += std::string(250, 'x') + "/";
    lines += "FILE :" + path + "\n";
    all += path + "\n";
  }
  path += std::string(230, 'y');
  Talk& talk = r.zoe.offers(r.bob, "size=6 files=17 :photos/");
  talk.send(lines + "FILE :" + path + "\nFILE :z\n" + six_as_data());
  talk.ask("END size=6 crc=" + crc(all + path + "\nz\n" + six_bytes()), "OK...");
  r.bob.has_stored("photos/z", six_bytes());
}

CASE(R10, WhatTheReceiverLeftOut, "P6.5, I3",
     "The sender's user is told what the receiver could not store.") {
  Sender s;
  for (const char* file : {"a", "b"}) s.ann.write(std::string("photos/") + file, six_bytes());
  Talk& talk = s.offer("photos", {{"size", "12"}, {"files", "2"}}, "photos/");
  talk.send("OK\n");
  const Received got(talk);
  talk.send("OK missing=1 :photos (1)/\ta (File name too long)\n");
  s.ann.prints("send 1 delivered ..." + s.zoe.at() + " 12 bytes in 1 files and folders, cksum " + got.crc +
               ", not stored: a (File name too long): photos (1)/");
}

CASE(R10, WhatIsMissing, "P6.5, I3", "Entries that the sender could not read are left out, and the user sees why.") {
  Receiver r;
  Talk& talk = r.zoe.offers(r.bob, "size=6 files=2 :photos/");
  talk.ask(
      "FILE :a.txt\nDATA offset=0 size=3\nhelMISSING :it became shorter\nFILE :b.txt\nDATA offset=3 size=3\nlo\nEND "
      "size=6 crc=" +
          crc("a.txt\nhelb.txt\nlo\n"),
      "OK :photos/");
  r.bob.prints("receive ... stored " + r.zoe.name + "@... 6 bytes in ..., not sent: a.txt (it became shorter): downloads/photos/");
  r.bob.has_stored("photos/b.txt", "lo\n");
  r.bob.has_not_stored("photos/a.txt");
}

CASE(R10, PathsThatAreNone, "P6.5, P9", "A path that leads out of the folder, or is malformed, is refused.") {
  Receiver r;
  for (const char* path : {"../x", "/x", "a/../../x", "", "..", "a//b", "./a", "tab\there"}) {
    Talk& talk = r.zoe.offers(r.bob, "size=6 files=2 :photos/", "OK...");
    talk.ask(std::string("FILE :") + path, "NO syntax...");
    talk.expect_end();
  }
  r.bob.has_not_stored("photos");
  r.bob.has_not_stored("x");
}

CASE(R10, WhatIsOutOfOrder, "P6.5, P7", "Entries that are out of order, come twice, or exceed the offer are refused.") {
  Receiver r;
  for (const char* lines :
       {"FILE :b\nFILE :a\n", "FILE :a\nFILE :a\n", "FILE :a\nFILE :b\nFILE :c\n", "DATA offset=0 size=1\n",
        "FILE :a/\nDATA offset=0 size=1\n", "FILE :a\nMISSING :x\nMISSING :x\n", "MISSING :x\n", "RESUME\n",
        "FILE :a\nMISSING :x\nFILE :b\nFILE :c\n"}) {
    Talk& talk = r.zoe.offers(r.bob, "size=6 files=2 :photos/", "OK...");
    talk.send(lines);
    talk.expect("NO syntax...");
    talk.expect_end();
  }
  r.bob.has_not_stored("photos");
}

CASE(R10, FoldersReplaceNothing, "P6.4, P6.5", "A folder that exists is not replaced, nor is anything put into it.") {
  Receiver r;
  r.bob.write("downloads/photos/mine", "mine");
  Talk& talk = r.zoe.offers(r.bob, "size=6 files=1 :photos/");
  talk.send("FILE :a.txt\n" + six_as_data() + "END size=6 crc=" + crc("a.txt\n" + six_bytes()) + "\n");
  const std::string name = Line(talk.expect("OK :.../")).text;
  check(name != "photos/", "another name than photos/", name);
  r.bob.has_stored(name + "a.txt", six_bytes());
  r.bob.has_stored("photos/mine", "mine");
  r.bob.has_not_stored("photos/a.txt");
}

CASE(R10, SendsAFolder, "P6.5, I3", "A folder is sent in the order of its paths, with one checksum for all of it.") {
  Sender s;
  for (const char* file : {"sub.txt", "sub/x", "a.txt", "sub-a/empty"})
    s.ann.write(std::string("photos/") + file, file == std::string("sub-a/empty") ? "" : six_bytes());
  ::chmod(s.ann.write("photos/sub/run.sh", kRun).c_str(), 0755);
  Talk& talk = s.offer("photos", {{"size", "30"}, {"files", "7"}}, "photos/");
  s.ann.prints("send 1 offered ..." + s.zoe.at() + " 30 bytes in 7 files and folders: photos/");
  talk.send("OK\n");
  const Received got(talk);
  const std::string order = "a.txt\nsub-a/\nsub-a/empty\nsub.txt\nsub/\nx sub/run.sh\nsub/x\n";
  check(got.entries == order, escaped(order), escaped(got.entries));
  check(got.crc == crc(got.bytes), "crc=" + crc(got.bytes), got.crc);
  talk.send("OK :photos/\n");
  s.ann.prints("send 1 delivered ..." + s.zoe.at() + " 30 bytes in 7 files and folders, cksum " + got.crc + ": photos/");
}

CASE(R10, SendsWhatItOffered, "P9, P6.5",
     "If a link replaces an offered subfolder, its target is not sent.") {
  Sender s;
  for (const char* file : {"photos/first/x", "photos/sub/x"}) s.ann.write(file, "public");
  s.ann.write("secret/x", "secret");
  const std::string sub = s.ann.path("photos/sub");
  Talk& talk = s.offer("photos", {{"size", "12"}, {"files", "4"}}, "photos/");
  check(::rename(sub.c_str(), s.ann.path("away").c_str()) == 0, "no subfolder", "one");
  check(::symlink(s.ann.path("secret").c_str(), sub.c_str()) == 0, "a link", "none");
  talk.send("OK\n");
  for (;;) {
    const Line line(talk.line("FILE, MISSING, DATA, END or STOP"));
    if (line.verb == "END" || line.verb == "STOP") return;
    if (line.verb != "DATA") continue;
    const std::string bytes = talk.bytes(static_cast<size_t>(std::atoll(line["size"].c_str())));
    check(bytes == "public", "nothing, or what was offered", escaped(bytes));
  }
}

CASE(R10, LinksAreNotSent, "P6.5, I3, I6", "Links in a folder are not sent; the sender's user is told.") {
  Sender s;
  s.ann.write("photos/a.txt", six_bytes());
  check(::symlink("/etc/passwd", s.ann.path("photos/link").c_str()) == 0, "a link", "none");
  Talk& talk = s.offer("photos", {{"size", "6"}, {"files", "1"}}, "photos/");
  talk.send("OK\n");
  const Received got(talk);
  check(got.entries == "a.txt\n", "a.txt alone", escaped(got.entries));
  talk.send("OK :photos/\n");
  s.ann.prints("send 1 delivered ..." + s.zoe.at() + " 6 bytes in ..., not sent: link (...): photos/");
}

CASE(R10, TwoOfItsKind, "P6.5", "Between two peers that run this program a folder arrives as it was. (Needs the list.)") {
  Program bob("bob", {"--accept", "always"}), ann("ann");
  bob.ready(), ann.ready();
  for (const char* file : {"1", "a/b/c/deep", "a b/文件", "z"})
    ann.write(std::string("photos/") + file, random_bytes(10'000, static_cast<unsigned>(file[0])));
  ann.prints("joined " + bob.name + "@...");
  ann.say("/send " + bob.name + " photos/");
  ann.prints("send 1 delivered " + bob.name + "@... 40000 bytes in 8 files and folders, cksum ...: photos/");
  check(std::system(("diff -r '" + ann.path("photos") + "' '" + bob.path("downloads/photos") + "'").c_str()) == 0,
        "the same folder", "a different one");
}

// ---- R10: going on -------------------------------------------------------------------------------------------------

CASE(R10, ABrokenFileGoesOn, "P6.6, I3",
     "The OK to the next offer names what has come of a broken file; RESUME goes on from there.") {
  Receiver r;
  Talk& first = r.zoe.offers(r.bob, "size=6 files=1 :" + the_file());
  first.send("DATA offset=0 size=6\n" + six_bytes().substr(0, 3));
  pause(0.3);
  first.half_close();
  r.bob.prints("receive ... failed " + r.zoe.who() + " 6 bytes, ...: " + the_file());
  Talk& second = r.asks("size=6 files=1 :" + the_file());
  second.request("OK", {{"entries", "1"}, {"offset", "3"}, {"crc", crc(six_bytes().substr(0, 3))}});
  second.ask("RESUME\nDATA offset=3 size=3\n" + six_bytes().substr(3) + six_as_end(), "OK :" + the_file());
  r.bob.has_stored(the_file(), six_bytes());
}

CASE(R10, OrBeginsAnew, "P6.6", "Without RESUME the file starts over, and contains nothing of the earlier try.") {
  Receiver r;
  Talk& first = r.zoe.offers(r.bob, "size=6 files=1 :" + the_file());
  first.send("DATA offset=0 size=6\nJEL");
  pause(0.3);
  first.half_close();
  r.bob.prints("receive ... failed " + r.zoe.who() + " 6 bytes, ...: " + the_file());
  r.zoe.offers(r.bob, "size=6 files=1 :" + the_file(), "OK...").ask(six_as_data() + six_as_end(), "OK :" + the_file());
  r.bob.has_stored(the_file(), six_bytes());
}

CASE(R10, ABrokenFolderComesAnew, "P6.6, P6.5",
     "A broken folder starts over: no beginning is named, and the stored one contains nothing of the earlier try.") {
  Receiver r;
  Talk& first = r.zoe.offers(r.bob, "size=18 files=3 :photos/");
  first.send("FILE :a.txt\n" + six_as_data() + "FILE :old.txt\nDATA offset=6 size=12\n#!/");
  pause(0.3);
  first.half_close();
  r.bob.prints("receive ... failed " + r.zoe.who() + " 18 bytes in ...: photos/");
  Talk& second = r.zoe.offers(r.bob, "size=6 files=1 :photos/");
  second.ask("FILE :a.txt\n" + six_as_data() + "END size=6 crc=" + crc("a.txt\n" + six_bytes()), "OK :photos/");
  r.bob.has_stored("photos/a.txt", six_bytes());
  r.bob.has_not_stored("photos/old.txt");
}

CASE(R10, ResumesAFile, "P6.6, I3", "When the receiver has the beginning, the sender says RESUME and sends the rest.") {
  Sender s;
  s.ann.write("a.txt", six_bytes());
  Talk& talk = s.offer("a.txt", {}, "a.txt");
  talk.send("OK entries=1 offset=3 crc=" + crc(six_bytes().substr(0, 3)) + "\n");
  talk.request("RESUME");
  const Received got(talk, 3);
  check(got.bytes == six_bytes().substr(3) && got.crc == crc(six_bytes()), "the last 3 bytes, crc=" + crc(six_bytes()),
        escaped(got.bytes) + ", crc=" + got.crc);
  s.ann.prints("send 1 started ..." + s.zoe.at() + " 6 bytes, resumed at 3: a.txt");
}

CASE(R10, NotWhatHasChanged, "P6.6, I3", "If the receiver has another beginning, the sender starts over.") {
  Sender s;
  s.ann.write("a.txt", six_bytes());
  Talk& talk = s.offer("a.txt", {}, "a.txt");
  talk.send("OK entries=1 offset=3 crc=" + crc("jel") + "\n");
  const Received got(talk);
  check(got.bytes == six_bytes() && got.crc == crc(six_bytes()), "all 6 bytes, crc=" + crc(six_bytes()),
        escaped(got.bytes) + ", crc=" + got.crc);
}

CASE(R10, SendsAFolderAnew, "P6.6", "A folder is sent from its first entry on, whatever beginning the OK names.") {
  Sender s;
  for (const char* file : {"1", "2"}) s.ann.write(std::string("photos/") + file, six_bytes());
  Talk& talk = s.offer("photos", {{"size", "12"}, {"files", "2"}}, "photos/");
  talk.send("OK entries=2 offset=9 crc=" + crc("1\n" + six_bytes() + "2\n" + six_bytes().substr(0, 3)) + "\n");
  const Received got(talk);
  check(got.entries == "1\n2\n", "both files", escaped(got.entries));
  check(got.crc == crc(got.bytes), "crc=" + crc(got.bytes), got.crc);
}
