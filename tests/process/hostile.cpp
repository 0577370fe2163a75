// Hostile peers, written by hand on raw sockets. Each test is one of them, and says in a comment what he gains.
//
// bob is attacked; ann, a real peer beside him, sends him a message and a file while that goes on. After each test bob is
// alive, has shown no control character, has stored nothing outside his download folder, and has used no more memory
// than docs/performance.md allows. He accepts every file, as a careless user would, and may open 1,024 files, as usual.
//
// The attackers are at 127.0.0.2 and further addresses: each of 127.0.0.0/8 is this host, so one test has thousands.

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <regex>
#include <thread>

#include "support/testing.h"

#ifdef __has_feature
#define HAS_SANITIZER (__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define HAS_SANITIZER true
#else
#define HAS_SANITIZER false
#endif

namespace {

// docs/performance.md, "What a stranger can make it use".
constexpr size_t kMemory = 40 * 1024;         // KiB
constexpr size_t kMemoryOfATransfer = 2560;  // KiB more, of each that was accepted

// What a peer says of himself, in a datagram or on a connection.
std::string mallory(unsigned id, int port, const std::string& verb = "HELLO") {
  char digits[17];
  std::snprintf(digits, sizeof digits, "%016x", id);
  return "ChatByP2P/1 " + verb + " id=" + digits + " ip=127.0.0.2 port=" + std::to_string(port) + " name=mallory group=lab";
}

std::string address(int number) { return "127." + std::to_string(1 + number / 250) + ".0." + std::to_string(2 + number % 250); }

}  // namespace

class Hostile : public OneHost {
 protected:
  void SetUp() override {
    OneHost::SetUp();
    if (IsSkipped()) return;
    start_bob("always");
    ann = &network->peer(0, "ann", {"--port", "25302"});
    ann->wait_for("joined bob.*");
    bob->wait_for("joined ann.*");
  }

  void start_bob(const std::string& accept) {
    const std::string command = "ulimit -n 1024 && exec \"$0\" --name bob --group lab --port 25301 --accept " + accept;
    bob = std::make_unique<Process>(network->descriptor(0), std::vector<std::string>{"/bin/sh", "-c", command, peer_program()}, home.path());
    bob->wait_for("ready .*");
  }

  void TearDown() override {
    if (IsSkipped()) return;
    neighbour_still_gets_through();
    EXPECT_EQ(bob->count("left ann.*"), 0u);
    bob->say("/list");
    bob->wait_for("users \\d+", 30);
    const auto steers = [](char c) { return (c >= 0 && c < ' ' && c != '\n') || c == 0x7F; };
    const std::string shown = bob->output();
    EXPECT_EQ(std::count_if(shown.begin(), shown.end(), steers), 0);
    EXPECT_FALSE(std::regex_search(shown, std::regex("\xc2[\x80-\x9f]")));  // the other control characters of Unicode
    EXPECT_EQ(home.names(), std::vector<std::string>{"downloads"});
    if (!HAS_SANITIZER) {
      std::printf("bob: at most %zu KiB resident\n", bob->uses("VmHWM"));
      EXPECT_LT(bob->uses("VmHWM"), kMemory + transfers * kMemoryOfATransfer);
    }
    ann->end_input();
    EXPECT_EQ(ann->exit_status(30), 0);  // all that she sent was delivered
    bob->say("/quit");
    EXPECT_EQ(bob->exit_status(30), 0);
  }

  void neighbour_still_gets_through() {
    const std::string number = std::to_string(++passes);
    ann->say("/msg bob message " + number);
    bob->wait_for("message ann@127.0.0.1:25302 private: message " + number, 30);
    ann->wait_for("delivered bob@127.0.0.1:25301: message " + number, 30);
    const std::string content = random_bytes(100'000, passes);
    network->folder("ann").write("file " + number, content);
    ann->say("/send bob file " + number);
    ann->wait_for("send \\d+ delivered bob@127.0.0.1:25301 100000 bytes, .*: file " + number, 30);
    EXPECT_TRUE(read_file(home.path("downloads/file " + number)) == content);
  }

  // Strikes so many times, and goes on until ann has got through meanwhile, and `more` is done.
  void besiege(int times, const std::function<void(int)>& strike, const std::function<void()>& more = [] {}) {
    std::atomic<int> struck{0};
    std::atomic<bool> through{false};
    std::thread attacker([&] {
      for (int i = 0; i < times || !through; ++i, ++struck) strike(i);
    });
    EXPECT_TRUE(eventually(60, [&] { return struck > times / 10; }));
    neighbour_still_gets_through();
    more();
    through = true;
    attacker.join();
  }

  Socket connect(const std::string& from = "127.0.0.2") const { return Socket::tcp(*network, 0, "127.0.0.1", 25301, from); }

  // A connection on which somebody has said who he is.
  Socket introduced(unsigned id = 1, const std::string& from = "127.0.0.2") const {
    Socket socket = connect(from);
    socket.send(mallory(id, 40000 + static_cast<int>(id % 1000)) + "\n");
    EXPECT_EQ(socket.line().substr(0, 20), "OK ChatByP2P/1 HERE ");
    return socket;
  }

  static bool is_refusal(const std::string& line, const std::string& word) { return line.substr(0, 3 + word.size()) == "NO " + word; }

  const Folder home;
  std::unique_ptr<Process> bob;
  Process* ann = nullptr;
  unsigned passes = 0;
  size_t transfers = 0;  // that bob is made to accept
};

// ---- Over UDP ----------------------------------------------------------------------------------------

// Gains: bob's processor for as long as the storm lasts, and as many answers as he sent questions.
TEST_F(Hostile, ADatagramStormDisturbsNobody) {
  const Socket socket = Socket::udp(*network, 0, 40000, "127.0.0.2");
  const std::string garbage = random_bytes(600, 1);
  besiege(100'000, [&](int i) {
    const int port = i % 2 == 0 ? 25301 : 25252;
    if (i % 8 < 4) socket.send_to("127.0.0.1", port, mallory(1, 40000, i % 8 < 2 ? "HELLO" : "HERE"));
    else if (i % 8 < 6) socket.send_to("127.0.0.1", port, garbage.substr(0, static_cast<size_t>(i) % 600));
    else socket.send_to("127.0.0.1", port, mallory(1, 40000) + std::string(512, 'x'));
  });
  EXPECT_EQ(bob->count("joined mallory.*"), 0u);  // he has shown that he can send, not that he can hear
}

// Gains: one answer each, and 24 questions at most to the address that was forged. Nobody is listed for a HELLO, whoever
// is listed stays, and who is not makes room for who comes next: so somebody new is found even while it lasts.
TEST_F(Hostile, TenThousandForgedHellosKeepNobodyOut) {
  const auto come = [&](const std::string& name) {
    network->peer(0, name);
    bob->wait_for("joined " + name + "@.*", 12);  // sooner than what was forged is forgotten: after 15 s
  };
  const auto forge = [&](int i, const std::string& from) {
    const int port = 40000 + i % 1000;
    Socket::udp(*network, 0, port, from).send_to("127.0.0.1", 25301, mallory(static_cast<unsigned>(i), port));
  };
  besiege(10'000, [&](int i) { forge(i, "127.0.0.2"); }, [&] { come("cleo"); });
  besiege(20'000, [&](int i) { forge(i, address(i % 10'000)); }, [&] { come("dora"); });
  come("eve");
  EXPECT_EQ(bob->count("joined .*"), 4u);  // ann and these three
  EXPECT_EQ(bob->count("left .*"), 0u);
}

// Gains: lines on bob's screen, and, from an address of his own for each, a place in bob's list. But from eight
// addresses he gets no more than eight ninths of the list, so that others still find room.
TEST_F(Hostile, AThousandUsersWhoAreOneLeaveRoomForOthers) {
  for (int i = 0; i < 1024; ++i) {
    Socket socket = Socket::udp(*network, 0, 40000 + i, address(i % 8));
    socket.meet("127.0.0.1", 25301, mallory(static_cast<unsigned>(i), 40000 + i).substr(18));
  }
  neighbour_still_gets_through();
  network->peer(0, "cleo");
  bob->wait_for("joined cleo@.*");
  EXPECT_LE(bob->count("joined mallory@.*"), 911u);
  EXPECT_GT(bob->count("joined mallory@.*"), 800u);
}

// Gains: a HELLO of bob's to a port of his own host. Nobody is listed, moved or taken off for it.
TEST_F(Hostile, WhoAnswersASweepWithAnothersAddressSpeaksForHimselfOnly) {
  const Socket socket = Socket::udp(*network, 0, 40000, "127.0.0.9");
  bob->say("/scan 127.0.0.9:40000");
  const std::string question = socket.datagram();
  const std::string bob_id = question.substr(question.find(" id=") + 4, 16);
  ASSERT_EQ(question.substr(0, 17), "ChatByP2P/1 HELLO");
  const std::string tail = " ip=127.0.0.1 port=25302 name=ann group=lab to=" + bob_id;
  socket.send_to("127.0.0.1", 25301, "ChatByP2P/1 HERE id=00000000000000aa" + tail);
  socket.send_to("127.0.0.1", 25301, "ChatByP2P/1 BYE id=00000000000000aa" + tail);
  socket.meet("127.0.0.1", 25301, "id=00000000000000ee ip=127.0.0.1 port=40000 name=mallory group=lab");
  bob->wait_for("joined mallory@127.0.0.9:40000 lab");
  bob->say("/list");
  bob->wait_for("user \\d - mallory lab 127.0.0.9:40000 says 127.0.0.1");
  EXPECT_EQ(bob->count("joined ann@.*"), 1u);
  EXPECT_EQ(bob->count("(changed|left) .*"), 0u);
}

// Gains: a line of his own on bob's screen, with his own address. As long as ann is heard, neither a HELLO, a BYE nor an
// introduction under her id changes her entry; messages for her go to her, and his are shown with where they come from.
TEST_F(Hostile, WhoUsesAnothersIdTakesNothingFromIt) {
  const Socket witness = Socket::udp(*network, 0, 40000, "127.0.0.3");
  witness.send_to("127.0.0.1", 25302, mallory(3, 40000));
  const std::string answer = witness.datagram();
  const std::string id = answer.substr(answer.find(" id=") + 4, 16);  // ids are no secret
  const std::string as_ann = " id=" + id + " ip=127.0.0.1 port=40000 name=ann group=lab";
  const Socket socket = Socket::udp(*network, 0, 40000, "127.0.0.2");
  socket.meet("127.0.0.1", 25301, as_ann.substr(1));
  socket.send_to("127.0.0.1", 25301, "ChatByP2P/1 BYE" + as_ann);
  std::vector<Socket> both;
  for (const char* from : {"127.0.0.2", "127.0.0.3"}) {
    both.push_back(connect(from));
    both.back().send("ChatByP2P/1 HELLO" + as_ann + "\nMSG number=1 :forged from " + from + "\n");
    bob->wait_for("message ann@" + std::string(from) + ":40000 private: forged from " + from);
  }
  bob->say("/msg ann for the real one");
  ann->wait_for("message bob@\\S+ private: for the real one");
  bob->wait_for("delivered ann@127.0.0.1:25302: .*");
  EXPECT_EQ(bob->count("(changed|left|joined) .*"), 1u);
}

// ---- Over TCP: what is no request --------------------------------------------------------------------

// Gains: a NO each, and the end of the connection.
TEST_F(Hostile, GarbageEndsItsConnectionAndNothingElse) {
  besiege(200, [&](int i) {
    Socket socket = connect();
    if (i % 2 == 0) socket.send(mallory(1, 40000) + "\n");
    socket.send(random_bytes(static_cast<size_t>(i) * 100, static_cast<unsigned>(i)) + "\n");
  });
  Socket socket = connect();
  socket.send(std::string("\0\n", 2));
  EXPECT_TRUE(is_refusal(socket.line(), "text"));
  EXPECT_TRUE(socket.is_closed());
}

// Gains: one of the 128 connections of his address, for ten seconds.
TEST_F(Hostile, HalfALineAndSilenceIsCutOff) {
  Socket stranger = connect(), half = introduced();
  half.send("MSG number=1 :and the");
  neighbour_still_gets_through();
  EXPECT_TRUE(stranger.is_closed());
  EXPECT_TRUE(is_refusal(half.line(), "failed"));
  EXPECT_TRUE(half.is_closed());
}

// Gains: what he sends is read, and forgotten; 4,096 bytes of it are kept.
TEST_F(Hostile, ALineWithoutEndIsNotCollected) {
  Socket socket = connect();
  const std::string piece(1'000'000, 'x');
  besiege(100, [&](int) { socket.send(piece); });
  EXPECT_TRUE(is_refusal(socket.line(), "long"));
}

// Gains: one connection for twenty seconds, and what the kernel keeps for it.
TEST_F(Hostile, WhoNeverReadsIsCutOff) {
  const Socket socket = introduced();
  std::string requests;
  for (int i = 0; i < 10'000; ++i) requests += "x\n";
  std::atomic<bool> is_closed{false};
  std::thread attacker([&] {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    // send() returns at once when the connection is closed, and blocks while it is full.
    while (!is_closed && std::chrono::steady_clock::now() < deadline) socket.send(requests);
  });
  neighbour_still_gets_through();
  EXPECT_TRUE(eventually(50, [&] { return bob->uses("task") <= 2; }));  // bob's main thread, and that of ann's conversation
  is_closed = true;
  attacker.join();
}

// Gains, from one address: 128 connections; 872 get `NO busy`. From eight: what is left is shared, and as much as each of
// them has is left free for somebody else. To keep out all others takes 512 addresses.
TEST_F(Hostile, AThousandConnectionsThatAreKeptLeaveRoomForOthers) {
  rlimit files{};
  ::getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = std::min<rlim_t>(files.rlim_max, 4096);
  ::setrlimit(RLIMIT_NOFILE, &files);
  for (const int addresses : {1, 8}) {
    std::vector<Socket> kept;
    size_t served = 0, busy = 0;
    for (int i = 0; i < 1000; ++i) {
      kept.push_back(connect(address(i % addresses)));
      kept.back().send(mallory(static_cast<unsigned>(i), 40000 + i) + "\n");
    }
    for (Socket& socket : kept) {
      const std::string line = socket.line();
      served += line.substr(0, 3) == "OK ";
      busy += is_refusal(line, "busy");
    }
    EXPECT_EQ(served + busy, 1000u);
    if (addresses == 1) EXPECT_EQ(served, 128u);
    else EXPECT_TRUE(served > 400 && served < 500) << served;
    neighbour_still_gets_through();
    kept.clear();
    EXPECT_TRUE(eventually(20, [&] { return bob->uses("task") <= 2; }));
  }
}
