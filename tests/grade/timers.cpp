// The times of protocol.md 2.3. The bounds leave room for a program in a slow language on a busy machine, but half or
// twice the time fails. Waiting costs nothing, so all of these run side by side; those of a minute and more only with
// LONG=1.

#include <unistd.h>

#include "grade.h"

using namespace grade;

namespace {

// The time at which the other side closed for good: whatever we send then comes back as a reset.
double until_it_is_deaf(Talk& talk, double most) {
  const double since = now();
  while (now() - since < most && talk.send("x")) pause(0.5);
  return now() - since;
}

// The connection over which ann has offered zoe six bytes.
Talk& offer_six_bytes(Program& ann, Stranger& zoe) {
  ann.write(the_file(), six_bytes());
  ann.say("/send " + zoe.at() + " " + the_file());
  Talk& talk = zoe.asked();
  talk.request("OFFER");
  return talk;
}

void write_large(const Program& program, const std::string& file, size_t size) {
  program.write(file, text_of(size));
}

}  // namespace

// ---- Seconds -------------------------------------------------------------------------------------------------------

CASE_OF(30, R6, Connecting, "P2.3, I3", "If nobody answers the attempt to connect, the message fails after 4 s.") {
  classroom(2);
  network().run(1, "ip neigh add 10.77.0.9 lladdr 02:00:00:00:00:99 dev eth0 nud permanent");
  Program ann("ann", {}, 1);
  ann.ready();
  const double since = now();
  ann.say("/msg 10.77.0.9:25253 " + words("hello"));
  ann.prints("failed ...10.77.0.9:25253: ...not delivered: " + words("hello"), 15);
  expect_took(since, 3.4, 7.6, ann.name + " gives up after 4 s");
}

CASE_OF(30, R9, BeforeTheIntroduction, "P2.3, P5.4",
        "A caller who has not introduced himself has 10 s, counted anew from each line.") {
  auto&& [ann, zoe] = Strangers();
  Talk &mute = zoe.call(ann), &wrong = zoe.call(ann);
  const double since = now();
  pause(6);
  check(!mute.has_ended(), "a caller who says nothing is cut off after 10 s", "after less than 6 s");
  wrong.ask("MSG number=1 :too early", "NO stranger...");
  const double again = now();
  mute.expect_end(14);
  expect_took(since, 6.5, 18, "a caller who says nothing is cut off after 10 s");
  wrong.expect_end(16);
  expect_took(again, 6.5, 18, "a caller who has said a line is cut off 10 s after that");
}

CASE_OF(40, R9, ALineThatDrips, "P2.3, P7",
        "A line may take 10 s from its first byte to its end, however steadily the bytes come.") {
  auto&& [ann, zoe] = Strangers();
  Talk& talk = zoe.introduced(ann);
  const double since = now();
  talk.send("MSG number=1 :");
  while (!talk.has_line() && !talk.has_ended() && now() - since < 19) {
    talk.send("x");
    pause(0.8);
  }
  talk.expect("NO failed...");
  expect_took(since, 6.5, 18, "NO failed, after 10 s");
  ann.prints_not("message ...");
}

CASE_OF(45, R8, ASenderThatFallsSilent, "P2.3, P7",
        "Within a transfer, 10 s may pass between two bytes; a slow sender that goes on is served.") {
  Program bob("bob", {"--accept", "always"});
  bob.ready();
  Stranger zoe("zoe");
  Talk &slow = zoe.offers(bob, "size=6 files=1 :slow" + the_file(), "OK..."),
       &silent = zoe.offers(bob, "size=6 files=1 :silent" + the_file(), "OK...");
  silent.send("DATA offset=0 size=6\nabc");
  const double since = now();
  slow.send("DATA offset=0 size=6\n");
  std::string rest = six_bytes();
  while (!silent.has_line() && !silent.has_ended() && now() - since < 19) {
    if (rest.size() > 1 && now() - since > 4.0 * static_cast<double>(7 - rest.size())) {
      slow.send(rest.substr(0, 1));
      rest.erase(0, 1);
    }
    pause(0.1);
  }
  silent.expect("NO failed...");
  expect_took(since, 6.5, 18, "NO failed, after 10 s of silence");
  slow.send(rest);
  slow.ask("END size=6 crc=" + crc(six_bytes()), "OK :slow" + the_file());
}

CASE_OF(45, R8, AReceiverThatReadsNoMore, "P2.3, I3",
        "When the other side takes no more bytes for 10 s, the transfer fails.") {
  Program ann("ann");
  ann.ready();
  Stranger zoe("zoe");
  write_large(ann, the_file(), 40'000'000);
  ann.say("/send " + zoe.at() + " " + the_file());
  Talk& talk = zoe.asked();
  talk.request("OFFER");
  talk.send("OK\n");
  talk.request("DATA");
  talk.stop_reading();
  const double since = now();
  ann.prints("send 1 failed ...: " + the_file(), 20);
  expect_took(since, 6.5, 18, ann.name + " gives up after 10 s");
}

CASE_OF(45, R7, ReadsOnAfterItsLastLine, "P5.1, P2.3",
        "A side that ends a connection half-closes it and reads on for 10 s, or a reset may overtake its last line.") {
  auto&& [ann, zoe] = Strangers();
  Talk& talk = zoe.introduced(ann);
  talk.send(text_of(20'000));
  talk.expect("NO long...");
  talk.expect_end();
  check(!talk.was_reset(), ann.name + " half-closes the connection, and takes what still comes", "it is reset");
  const double deaf = until_it_is_deaf(talk, 20);
  check(deaf > 7 && deaf < 18, ann.name + " reads on for 10 s (from 7 to 18 s are accepted)",
        "for " + std::to_string(deaf).substr(0, 4) + " s");
}

CASE_OF(45, R7, AFailedConversationIsReset, "P5.3, P2.3",
        "When no reply comes, the old connection ends by a reset: what was sent there must not arrive later.") {
  auto&& [ann, zoe] = Strangers();
  ann.say("/msg " + zoe.at() + " " + words("hello"));
  Talk& first = zoe.asked();
  first.request("MSG");
  const double since = now();
  Talk* second = nullptr;
  until(19, [&] { return first.has_ended(); }, ann.name + " gives up the old connection");
  expect_took(since, 6.5, 18, "it waits 10 s for a reply");
  first.expect_reset(4);
  second = &zoe.asked();
  second->request("MSG");
  second->send("OK\n");
  ann.prints("delivered ..." + zoe.at() + ": " + words("hello"));
}

// ---- Minutes -------------------------------------------------------------------------------------------------------

CASE_OF(110, R7, AnIdleCaller, "P2.3, P5.4",
        "If the opener says nothing for 60 s, the other side ends the conversation, without a line.") {
  auto&& [ann, zoe] = Strangers();
  Talk& talk = zoe.introduced(ann);
  talk.ask("MSG number=1 :" + words("hello"), "OK...");
  const double since = now();
  talk.expect_end(100);
  expect_took(since, 45, 90, "the connection ends after 60 s");
  check(!talk.has_line(), "no line", "one");
}

CASE_OF(170, R8, AnOfferNobodyAnswers, "P2.3, P6.2, P7, I3",
        "An offer that nobody answers for 120 s gets NO timeout.") {
  Program bob("bob");
  bob.ready();
  Stranger zoe("zoe");
  Talk& talk = zoe.introduced(bob);
  talk.send("OFFER size=6 files=1 :" + the_file() + "\n");
  const double since = now();
  bob.prints("receive 1 offered " + zoe.who() + " 6 bytes: " + the_file());
  until(160, [&] { return talk.has_line() || talk.has_ended(); }, zoe.name + " gets over TCP: NO timeout");
  talk.expect("NO timeout...");
  expect_took(since, 90, 155, "NO timeout, after 120 s");
  bob.prints("receive 1 failed " + zoe.who() + " 6 bytes, ...: " + the_file());
}

CASE_OF(190, R8, TheFirstLineAfterAnOk, "P2.3, P6.6",
        "After the OK to an offer, the sender has 130 s for the first line: it may have much to read again.") {
  Program bob("bob", {"--accept", "always"});
  bob.ready();
  Stranger zoe("zoe");
  Talk& talk = zoe.offers(bob, "size=6 files=1 :" + the_file(), "OK...");
  const double since = now();
  until(175, [&] { return talk.has_line() || talk.has_ended(); }, zoe.name + " gets over TCP: NO failed");
  talk.expect("NO failed...");
  expect_took(since, 97, 170, "NO failed, after 130 s");
}

CASE_OF(325, R8, NoReplyToAnOffer, "P2.3, P6.2, I3", "A sender waits 250 s for the reply to its offer.") {
  Program ann("ann");
  ann.ready();
  Stranger zoe("zoe");
  offer_six_bytes(ann, zoe);
  const double since = now();
  ann.prints("send 1 failed ...: " + the_file(), 315);
  expect_took(since, 188, 310, ann.name + " gives up after 250 s");
}

CASE_OF(325, R8, NoReplyToAnEnd, "P2.3, P6.4, I3", "A sender waits 300 s for the reply to END.") {
  Program ann("ann");
  ann.ready();
  Stranger zoe("zoe");
  Talk& talk = offer_six_bytes(ann, zoe);
  talk.send("OK\n");
  for (std::string verb; verb != "END";) {
    const Line line(talk.line("DATA or END"));
    verb = line.verb;
    if (verb == "DATA") talk.bytes(6);
  }
  const double since = now();
  ann.prints("send 1 failed ...it may have arrived: " + the_file(), 318);
  expect_took(since, 225, 318, ann.name + " gives up after 300 s");
}
