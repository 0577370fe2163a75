// How transfer.cpp answers: lines and bytes in, lines and bytes out, without another process. Nobody else needs its
// classes, so no header declares them: this includes the whole file.
//
// A worker with its thread has one end of a socket; the test has the other. The test also sets the clock: a wait of
// five minutes ends as soon as the worker looks at it, after a quarter of a second.

#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>

#include <regex>

#include "protocol.h"
#include "support/testing.h"

namespace {

Identity peer_at(const std::string& id, const std::string& address) {
  Identity who;
  who.id = id;
  who.address = *parse_address(address);
  return who;
}

}  // namespace

#include "../../transfer.cpp"  // not this file, which has its name

// A client that has given up by the time of accept(): it made us deaf for a quarter of a second.
TEST(Listening, GoesOnAtOnceWhenWhoeverWantedToConnectHasGivenUp) {
  transfer::open([](uint32_t) { return true; });
  fd_set readable;
  FD_ZERO(&readable);
  transfer::watch(readable);
  transfer::accept_connection(readable);  // where nobody is
  FD_ZERO(&readable);
  transfer::watch(readable);
  EXPECT_TRUE(FD_ISSET(listening_socket.get(), &readable));
  listening_socket = Descriptor();
}

// It was the one with the smallest id that was forgotten: for each newcomer the same.
TEST(Repeats, OfWhoeverWroteLastAreKnownHoweverManyHaveWritten) {
  const auto sender = [](int n) { return peer_at(to_string(1'000'000 + n), "10.0.0.1:25253"); };
  writers.clear();
  for (int n = 1; n <= 3072; ++n) EXPECT_TRUE(transfer::remember_message(sender(n), 1));
  EXPECT_TRUE(transfer::remember_message(sender(1), 2));  // by now the second has not written for longest
  EXPECT_TRUE(transfer::remember_message(sender(4000), 1));
  EXPECT_FALSE(transfer::remember_message(sender(1), 1));
  EXPECT_FALSE(transfer::remember_message(sender(1), 2));
  EXPECT_TRUE(transfer::remember_message(sender(2), 1));
  writers.clear();
}

namespace {

const string kBobsHello = "ChatByP2P/1 HELLO id=bbbbbbbbbbbbbbbb ip=127.0.0.1 port=25254 name=bob group=lab";
const string kHere = "OK ChatByP2P/1 HERE id=bbbbbbbbbbbbbbbb ip=127.0.0.1 port=25254 name=bob group=lab to=aaaaaaaaaaaaaaaa";

void pass(Clock::duration time) { Clock::ahead = Clock::ahead.load() + time; }

// The other end of a connection: bob's.
class Other {
 public:
  explicit Other(Descriptor fd, Clock::time_point since = Clock::now()) : fd_(std::move(fd)), said_(since) {}

  void put(const string& bytes) {
    said_ = Clock::now();
    ASSERT_EQ(::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
  }
  void say(const string& line) { put(line + "\n"); }

  // Whether something has come within that time, the end included.
  bool hears(double patience) const {
    pollfd arrival{fd_.get(), POLLIN, 0};
    return !bytes_.empty() || ::poll(&arrival, 1, static_cast<int>(patience * 1000)) == 1;
  }
  // Whether something comes before that limit, on the workers' clock, after what we said last; nearly all of it passes
  // here. The worker begins to wait before that, and looks at the clock after it. What comes while a busy machine stands
  // still for the rest of the time is not too early. Like the main thread, we join the threads that have ended: only then
  // are their sockets closed.
  bool hears_before(Clock::duration limit) const {
    const auto spare = std::min<Clock::duration>(10s, limit / 3);
    if (!hears(0.3)) {
      pass(limit - spare);
      if (!hears(0.6)) transfer::reap();
    }
    return hears(0) && Clock::now() - said_ < limit;
  }
  // As much time passes as it takes for something to come.
  bool hears_while_time_passes() const {
    return eventually([this] {
      transfer::reap();
      if (hears(0.02)) return true;
      pass(10s);
      return false;
    });
  }

  string line() {
    while (bytes_.find('\n') == string::npos && receive()) {}
    const size_t end = bytes_.find('\n');
    if (end == string::npos) return "(the end)";
    return take(end + 1).substr(0, end);
  }
  string bytes(size_t size) {
    while (bytes_.size() < size && receive()) {}
    return take(std::min(size, bytes_.size()));
  }

 private:
  bool receive() {
    if (!hears(30)) return false;
    std::array<char, 4096> some;
    const ssize_t got = ::recv(fd_.get(), some.data(), some.size(), 0);
    if (got > 0) bytes_.append(some.data(), static_cast<size_t>(got));
    return got > 0;
  }
  string take(size_t size) {
    const string taken = bytes_.substr(0, size);
    bytes_.erase(0, size);
    return taken;
  }

  Descriptor fd_;
  Clock::time_point said_;  // the last thing, or when it connected
  string bytes_;
};

class Transfers : public testing::Test {
 protected:
  Transfers() {
    events.open();
    myself = peer_at("aaaaaaaaaaaaaaaa", "127.0.0.1:25253");
    myself.name = "ann";
    myself.group = "lab";
    download_folder = folder.path("downloads");
    ::signal(SIGPIPE, SIG_IGN);
  }
  ~Transfers() override { workers.clear(); }

  // Bob connects to us.
  static Other connected() {
    const auto since = Clock::now();
    int ends[2];
    check(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends), "socketpair");
    start_worker(new Service(peer_at("", "127.0.0.1:40000"), Descriptor(ends[0])));
    return Other(Descriptor(ends[1]), since);
  }
  Other introduced() {
    Other bob = connected();
    bob.say(kBobsHello);
    bob.line();
    return bob;
  }
  // We connect to bob.
  Other accepted() {
    pollfd arrival{listener_.get(), POLLIN, 0};
    EXPECT_EQ(::poll(&arrival, 1, 30'000), 1);
    Other bob(Descriptor(::accept(listener_.get(), nullptr, nullptr)));
    EXPECT_EQ(bob.line(), "ChatByP2P/1 HELLO id=aaaaaaaaaaaaaaaa ip=127.0.0.1 port=25253 name=ann group=lab");
    bob.say(kHere);
    return bob;
  }
  Identity bob_listens() {
    listener_ = Descriptor(check(::socket(AF_INET, SOCK_STREAM, 0), "socket"));
    sockaddr_in raw = Address{INADDR_LOOPBACK, 0}.to_sockaddr();
    check(::bind(listener_.get(), generic(raw), sizeof raw), "bind");
    check(::listen(listener_.get(), 5), "listen");
    return peer_at("bbbbbbbbbbbbbbbb", local_address(listener_.get()).text());
  }
  void send_to_bob(const string& name, const string& content) {
    const string path = folder.write(name, content);
    start_worker(new Upload(bob_listens(), Descriptor(::open(path.c_str(), O_RDONLY)), name));
  }
  void write_to_bob(const string& text) {
    const Identity bob = bob_listens();
    can_reach = [](uint32_t) { return true; };
    transfer::send_message(bob, "private", text, 7);
  }

  // The next event of that kind.
  template <class Kind>
  Kind told() {
    Kind found{};
    const bool is_told = eventually([&] {
      for (Event& event : events.take_all()) told_.push_back(std::move(event));
      while (!told_.empty()) {
        const Event event = told_.front();
        told_.pop_front();
        if (!std::holds_alternative<Kind>(event)) continue;
        found = std::get<Kind>(event);
        return true;
      }
      return false;
    });
    EXPECT_TRUE(is_told);
    return found;
  }

  const ::Folder folder;  // not a class of transfer.cpp

 private:
  Descriptor listener_;
  std::deque<Event> told_;
};

}  // namespace

// ---- What is received ----------------------------------------------------------------

TEST_F(Transfers, TakeAFileInAndSayUnderWhichNameItIsStored) {
  Other bob = introduced();
  bob.say("OFFER size=5 files=1 :a.txt");
  const auto offered = told<FileOffered>();
  EXPECT_EQ(offered.offer.name, "a.txt");
  EXPECT_FALSE(bob.hears(0));
  transfer::decide(offered.ticket, Consent::given, "");
  EXPECT_EQ(bob.line(), "OK");
  bob.put("DATA offset=0 size=2\nheDATA offset=2 size=3\nllo");
  bob.say("END size=5 crc=3287646509");
  EXPECT_EQ(bob.line(), "OK :a.txt");
  EXPECT_EQ(told<FileStored>().crc, 3287646509u);
  EXPECT_EQ(read_file(folder.path("downloads/a.txt")), "hello");
  bob.say("MSG number=1 scope=private :that was it");
  EXPECT_EQ(bob.line(), "OK");
}

TEST_F(Transfers, RefuseAnOfferThatNobodyHasAnsweredFor120Seconds) {
  Other bob = introduced();
  bob.say("OFFER size=5 files=1 :a.txt");
  told<FileOffered>();
  EXPECT_FALSE(bob.hears_before(120s));
  ASSERT_TRUE(bob.hears_while_time_passes());
  EXPECT_EQ(bob.line(), "NO timeout nobody answered the offer within 120 s");
  EXPECT_EQ(told<FileFailed>().failure.reason, "you did not answer within 120 s");
}

TEST_F(Transfers, KeepWhatCameOfASenderWhoFallsSilentFor10Seconds) {
  accept_policy = Accept::always;
  Other bob = introduced();
  bob.say("OFFER size=5 files=1 :a.txt");
  EXPECT_EQ(bob.line(), "OK");
  bob.put("DATA offset=0 size=5\nhe");
  told<FileStarted>();
  EXPECT_FALSE(bob.hears_before(10s));
  ASSERT_TRUE(bob.hears_while_time_passes());
  EXPECT_EQ(bob.line(), "NO failed the sender fell silent");
  EXPECT_EQ(told<FileFailed>().failure.reason, "the sender fell silent; what has arrived is kept, and resumes when it is sent again");
  EXPECT_EQ(read_file(folder.path("downloads/a.txt.127.0.0.1.part")), "he");
}

TEST_F(Transfers, GiveALine10SecondsHoweverSlowlyItsBytesTrickleIn) {
  Other bob = introduced();
  for (int i = 0; i < 100 && !bob.hears(0.05); ++i) {
    bob.put("x");
    pass(3s);
  }
  EXPECT_EQ(bob.line(), "NO failed the sender fell silent");
}

TEST_F(Transfers, LetAStrangerWait10SecondsAndWhoHasSaidWhoHeIs60) {
  Other stranger = connected();
  EXPECT_FALSE(stranger.hears_before(10s));
  ASSERT_TRUE(stranger.hears_while_time_passes());
  EXPECT_EQ(stranger.line(), "(the end)");
  Other bob = introduced();
  EXPECT_FALSE(bob.hears_before(60s));
  ASSERT_TRUE(bob.hears_while_time_passes());
  EXPECT_EQ(bob.line(), "(the end)");
}

// ---- What is sent --------------------------------------------------------------------

TEST_F(Transfers, SendAFileAsOneStreamAndWaitForItsReceipt) {
  send_to_bob("a.txt", "hello");
  Other bob = accepted();
  EXPECT_EQ(bob.line(), "OFFER size=5 files=1 :a.txt");
  EXPECT_FALSE(bob.hears(0.1));
  bob.say("OK");
  EXPECT_EQ(bob.line(), "DATA offset=0 size=5");
  EXPECT_EQ(bob.bytes(5), "hello");
  EXPECT_EQ(bob.line(), "END size=5 crc=3287646509");
  bob.say("OK :a (1).txt");
  EXPECT_EQ(told<FileStored>().name, "a (1).txt");
}

// Its user has 120 s; to read an earlier try may take another 120, and the line 10.
TEST_F(Transfers, WaitForTheAnswerToAnOfferFor250Seconds) {
  send_to_bob("a.txt", "hello");
  Other bob = accepted();
  EXPECT_EQ(bob.line(), "OFFER size=5 files=1 :a.txt");
  EXPECT_FALSE(bob.hears_before(250s));
  ASSERT_TRUE(bob.hears_while_time_passes());
  const Failure failure = told<FileFailed>().failure;
  EXPECT_EQ(failure.reason, "no answer in time");
  EXPECT_FALSE(failure.in_doubt);
}

TEST_F(Transfers, GiveTheReceiver300SecondsToStoreAFileAndAreInDoubtThen) {
  for (const bool is_stored : {true, false}) {
    send_to_bob("a.txt", "hello");
    Other bob = accepted();
    bob.say("OK");
    bob.line();
    bob.line();
    bob.bytes(5);
    ASSERT_EQ(bob.line(), "END size=5 crc=3287646509");
    EXPECT_FALSE(bob.hears_before(300s));
    if (is_stored) {
      bob.say("OK :a.txt");
      EXPECT_EQ(told<FileStored>().name, "a.txt");
      continue;
    }
    ASSERT_TRUE(bob.hears_while_time_passes());
    const Failure failure = told<FileFailed>().failure;
    EXPECT_EQ(failure.reason, "no answer in time");
    EXPECT_TRUE(failure.in_doubt);
  }
}

TEST_F(Transfers, AreGivenUpWhereTheReceiverReadsNothingFor10Seconds) {
  send_to_bob("big", string(64 << 20, 'x'));  // more than fits into any buffer between the two
  Other bob = accepted();
  EXPECT_EQ(bob.line(), "OFFER size=67108864 files=1 :big");
  bob.say("OK");
  told<FileStarted>();
  EXPECT_TRUE(eventually([] {
    pass(1s);
    transfer::reap();
    return !transfer::is_open();
  }));
  EXPECT_EQ(told<FileFailed>().failure.reason, "the other side stopped reading");
}

// ---- Messages ------------------------------------------------------------------------

TEST_F(Transfers, OfAMessageAreTriedOnceMoreUnderItsNumberWhenNoReplyComesFor10Seconds) {
  write_to_bob("hello");
  Other bob = accepted();
  const string message = bob.line();
  EXPECT_TRUE(std::regex_match(message, std::regex("MSG number=\\d+ scope=private :hello"))) << message;
  EXPECT_FALSE(bob.hears_before(10s));
  ASSERT_TRUE(bob.hears_while_time_passes());
  Other again = accepted();
  EXPECT_EQ(again.line(), message);
  again.say("OK");
  EXPECT_EQ(told<MessageDelivered>().post, 7u);
}

TEST_F(Transfers, OfAMessageThatIsNeverAcknowledgedEndInDoubt) {
  write_to_bob("hello");
  for (int i = 0; i < 2; ++i) {
    Other bob = accepted();
    bob.line();
    ASSERT_TRUE(bob.hears_while_time_passes());
  }
  const auto failed = told<MessageFailed>();
  EXPECT_EQ(failed.failure.reason, "no answer in time");
  EXPECT_TRUE(failed.failure.in_doubt);
}
