// Hostile peers, written by hand on raw sockets. Each test is one of them, and a comment says what the attacker would
// gain.
//
// They attack bob. Meanwhile ann, a real peer beside him, sends him a message and a file. After each test bob is alive,
// has shown no control character, has stored nothing outside his download folder, and has used no more memory than
// docs/performance.md allows. He accepts every file, as a careless user would, and may open 1,024 files, as usual.
//
// The attackers are at 127.0.0.2 and up: all of 127.0.0.0/8 is this host, so one test can use thousands of addresses.

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <optional>
#include <regex>
#include <thread>

#include "support/testing.h"

namespace {

const bool kSanitized = !sanitizer().empty();

// docs/performance.md, "What a stranger can make it use".
constexpr size_t kMemory = 40 * 1024;        // KiB
constexpr size_t kMemoryOfATransfer = 2560;  // KiB more, of each that was accepted

// What a peer says of himself, in a datagram or on a connection.
std::string mallory(unsigned id, int port, const std::string& verb = "HELLO") {
  char digits[17];
  std::snprintf(digits, sizeof digits, "%016x", id);
  return "ChatByP2P/1 " + verb + " id=" + digits + " ip=127.0.0.2 port=" + std::to_string(port) +
         " name=mallory group=lab";
}

std::string address(int number) {
  return "127." + std::to_string(1 + number / 250) + ".0." + std::to_string(2 + number % 250);
}

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
    const std::string command =
        "ulimit -Sn 1024 && " + environment + " exec \"$0\" --name bob --group lab --port 25301 --accept " + accept;
    bob = std::make_unique<Process>(network->descriptor(0),
                                    std::vector<std::string>{"/bin/sh", "-c", command, peer_program()}, home.path());
    bob->wait_for("ready .*");
  }

  void TearDown() override {
    if (IsSkipped()) return;
    neighbour_still_gets_through();
    EXPECT_EQ(bob->count("left ann.*"), 0u);
    bob->say("/list");
    bob->wait_for("users \\d+", 30);
    const auto steers = [](char c) {
      return (c >= 0 && c < ' ' && c != '\n') || c == 0x7F;
    };  // a TAB, too, though it is text
    const std::string shown = bob->output();
    EXPECT_EQ(std::count_if(shown.begin(), shown.end(), steers), 0);
    EXPECT_FALSE(std::regex_search(shown, std::regex("\xc2[\x80-\x9f]")));  // the other control characters of Unicode
    EXPECT_EQ(home.names(), std::vector<std::string>{"downloads"});
    if (!kSanitized) {
      RecordProperty("KiB", std::to_string(bob->uses("VmHWM")));
      RecordProperty("transfers", std::to_string(transfers));
      EXPECT_LT(bob->uses("VmHWM"), kMemory + transfers * kMemoryOfATransfer);
    }
    ann->end_input();
    EXPECT_EQ(ann->exit_status(30), 0);  // all that she sent was delivered
    bob->say("/quit");
    EXPECT_EQ(bob->exit_status(30), status);
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
  void besiege(
      int times, const std::function<void(int)>& strike, const std::function<void()>& more = [] {}) {
    std::atomic<int> struck{0};
    std::atomic<bool> through{false};
    std::thread attacker([&] {
      for (int i = 0; i < times || !through; ++i, ++struck) {
        strike(i);
        // A sanitized bob is slower than an attacker by an order of magnitude: all he did would be to read.
        if (kSanitized) std::this_thread::sleep_for(std::chrono::microseconds(50));
      }
    });
    EXPECT_TRUE(eventually(60, [&] { return struck > times / 10; }));
    neighbour_still_gets_through();
    more();
    through = true;
    attacker.join();
  }

  Socket connect(const std::string& from = "127.0.0.2") const {
    return Socket::tcp(*network, 0, "127.0.0.1", 25301, from);
  }

  // A connection on which somebody has said who he is.
  Socket introduced(unsigned id = 1, const std::string& from = "127.0.0.2") const {
    Socket socket = connect(from);
    socket.send(mallory(id, 40000 + static_cast<int>(id % 1000)) + "\n");
    EXPECT_EQ(socket.line().substr(0, 20), "OK ChatByP2P/1 HERE ");
    return socket;
  }

  // bob's next connection to us, and what he asks for after his introduction.
  static std::pair<Socket, std::string> asked(const Socket& listener, const std::string& in_advance = "") {
    Socket socket = listener.accept();
    socket.line();
    socket.send("OK " + mallory(2, 40001, "HERE") + "\n" + in_advance);
    const std::string request = socket.line();
    return {std::move(socket), request};
  }

  static bool is_refusal(const std::string& line, const std::string& word) {
    return line.substr(0, 3 + word.size()) == "NO " + word;
  }

  std::string environment;
  const Folder home;
  std::unique_ptr<Process> bob;
  Process* ann = nullptr;
  unsigned passes = 0;
  int status = 0;        // bob's, at the end
  size_t transfers = 0;  // that bob is made to accept
};

// ---- Over UDP ----------------------------------------------------------------------------------------

// Gains: bob's processor for as long as the storm lasts, and as many answers as he sent questions.
TEST_F(Hostile, ADatagramStormDisturbsNobody) {
  const Socket socket = Socket::udp(*network, 0, 40000, "127.0.0.2");
  const std::string garbage = random_bytes(600, 1);
  besiege(100'000, [&](int i) {
    const int port = i % 2 == 0 ? 25301 : 25252;
    if (i % 8 < 4)
      socket.send_to("127.0.0.1", port, mallory(1, 40000, i % 8 < 2 ? "HELLO" : "HERE"));
    else if (i % 8 < 6)
      socket.send_to("127.0.0.1", port, garbage.substr(0, static_cast<size_t>(i) % 600));
    else
      socket.send_to("127.0.0.1", port, mallory(1, 40000) + std::string(512, 'x'));
  });
  EXPECT_EQ(bob->count("joined mallory.*"), 0u);  // he has shown that he can send, not that he can hear
}

// Gains: one answer each, and 24 questions at most to the address that was forged. Nobody is listed for a HELLO,
// whoever is listed stays, and who is not makes room for who comes next: so somebody new is found even while it lasts.
TEST_F(Hostile, TenThousandForgedHellosKeepNobodyOut) {
  const auto come = [&](const std::string& name) {
    network->peer(0, name).wait_for("ready .*");
    // Sooner than what was forged is forgotten: after 15 s. Sanitized, bob is too slow for the flood, which drowns answers.
    bob->wait_for("joined " + name + "@.*", kSanitized ? 60 : 12);
  };
  const auto forge = [&](int i, const std::string& from) {
    const int port = 40000 + i % 1000;
    Socket::udp(*network, 0, port, from).send_to("127.0.0.1", 25301, mallory(static_cast<unsigned>(i), port));
  };
  besiege(
      10'000, [&](int i) { forge(i, "127.0.0.2"); }, [&] { come("cleo"); });
  besiege(
      20'000, [&](int i) { forge(i, address(i % 10'000)); }, [&] { come("dora"); });
  come("eve");
  EXPECT_EQ(bob->count("joined .*"), 4u);  // ann and these three
  EXPECT_EQ(bob->count("left .*"), 0u);
}

// Gains: nothing. That another id has taken a user's address is believed of who answers there, and not of who says so.
TEST_F(Hostile, AHelloThatClaimsAnothersAddressOustsNobody) {
  Socket cleo = Socket::udp(*network, 0, 40000, "127.0.0.2");
  cleo.meet("127.0.0.1", 25301, mallory(1, 40000).substr(18));
  bob->wait_for("joined mallory@127.0.0.2:40000 lab");
  cleo.send_to("127.0.0.1", 25301, mallory(2, 40000));  // forged: from her address, by somebody else
  EXPECT_FALSE(bob->prints("(left|joined) .*", 2));
  neighbour_still_gets_through();
  EXPECT_EQ(bob->count("left .*"), 0u);
}

// Gains: nothing. An answer to a broadcast address would go to a whole network, and be answered by each of its peers.
TEST_F(Hostile, ASourceThatIsNoPeersGetsNoAnswer) {
  bob = nullptr;
  start_bob("always --trace");
  ann->wait_for("joined bob.*");
  const auto forge = [&](const std::string& ip, int port) {
    Socket::forge(*network, 0, ip, port, "127.0.0.1", 25301, mallory(1, 40000));          // a question
    Socket::forge(*network, 0, ip, port, "127.0.0.1", 25301, mallory(2, 40001, "HERE"));  // and hearsay
  };
  for (const char* ip : {"127.255.255.255", "127.0.0.0", "255.255.255.255", "224.0.0.1"}) forge(ip, 40000);
  forge("127.0.0.9", 0);
  const Socket socket = Socket::udp(*network, 0, 40005, "127.0.0.2");
  socket.meet("127.0.0.1", 25301, mallory(3, 40005).substr(18));
  bob->wait_for("joined mallory@127.0.0.2:40005 lab");
  EXPECT_GE(bob->count(".* UDP \\S+ +<- 127.255.255.255:40000 .*"), 2u);  // they have arrived,
  EXPECT_EQ(bob->count(".* UDP \\S+ +-> \\S+:(0|4000[01]) .*"), 0u);      // and nothing was said to them
}

// Gains: time of bob's processor, who is watching all that passes; no memory.
TEST_F(Hostile, AnEndlessTransferOfSingleBytesDoesNotFillTheMemoryOfWhoTracesIt) {
  bob = nullptr;
  start_bob("always --trace");
  ann->wait_for("joined bob.*");
  bob->wait_for("joined ann.*");
  auto sender = std::make_optional(Socket::tcp(*network, 0, "127.0.0.1", 25301, "127.0.0.2"));
  sender->send(mallory(1, 9) + "\nOFFER size=1000000 files=1 :little\n");
  sender->line();
  EXPECT_EQ(sender->line(), "OK");
  int offset = 0;
  const auto thousand_lines = [&] {
    std::string lines;
    for (int i = 0; i < 1000; ++i) lines += "DATA offset=" + std::to_string(offset++) + " size=1\nx";
    return lines;
  };
  std::atomic<bool> over{false}, ended{false};
  std::thread flood([&] {
    for (int i = 0; i < (kSanitized ? 5 : 150) && !over && sender->send(thousand_lines()); ++i) {}
    ended = true;
  });
  // Nobody reads what bob prints, so his main thread stands still, and takes nothing out of the queue.
  EXPECT_FALSE(eventually(3, [&] { return !kSanitized && bob->uses("VmHWM") > kMemory; }));
  over = true;
  EXPECT_TRUE(eventually([&] { return bob->read_more(), ended.load(); }));
  flood.join();
  sender.reset();
  EXPECT_TRUE(eventually(60, [&] {  // bob has shown them all
    const auto& all = bob->lines();
    return std::any_of(all.end() - std::min<long>(50, static_cast<long>(all.size())), all.end(),
                       [](auto& line) { return line.find("receive 1 failed") == 0; });
  }));
}

// Gains: lines on bob's screen, and 128 places in bob's list for each address that he has. With seven, others still
// find room. With eight he would fill it.
TEST_F(Hostile, AThousandUsersWhoAreOneLeaveRoomForOthers) {
  for (int i = 0; i < 1024; ++i) {
    Socket socket = Socket::udp(*network, 0, 40000 + i, address(i % 7));
    socket.meet("127.0.0.1", 25301, mallory(static_cast<unsigned>(i), 40000 + i).substr(18));
  }
  neighbour_still_gets_through();
  network->peer(0, "cleo");
  bob->wait_for("joined cleo@.*");
  EXPECT_LE(bob->count("joined mallory@.*"), 7 * 128u);
  EXPECT_GT(bob->count("joined mallory@.*"), 800u);
}

// Gains: what fits into the pipe. Nobody reads what bob prints, and yet he goes on answering; later the last name is what
// is read, and of each user what has become of him.
TEST_F(Hostile, ChangesThatNobodyReadsDoNotStopTheProgram) {
  const auto at = [&](int i) { return Socket::udp(*network, 0, 41000 + i, address(i % 10)); };
  const auto fields_of = [](int i) { return mallory(static_cast<unsigned>(i), 41000 + i).substr(18); };
  for (int i = 1; i <= 600; ++i) at(i).meet("127.0.0.1", 25301, fields_of(i));
  EXPECT_TRUE(eventually([&] { return bob->count("joined mallory.*") == 600; }));
  const Socket eve = Socket::udp(*network, 0, 40000, "127.0.0.2");
  std::string group;  // as long as one may be: so that the pipe is soon full
  for (int i = 0; i < 32; ++i) group += "😀";
  const std::string eves = "id=ee00000000000000 ip=127.0.0.2 port=40000 group=" + group + " name=eve";
  eve.meet("127.0.0.1", 25301, eves);
  bob->wait_for("joined eve@127.0.0.2:40000 .*");
  for (int i = 0; i < 20'000; ++i) {
    const std::string renamed = eves + std::to_string(i);
    if (i % 65 != 0) eve.send_to("127.0.0.1", 25301, "ChatByP2P/1 HERE " + renamed);
    else eve.meet("127.0.0.1", 25301, renamed);  // he still answers; and has read what came before
  }
  for (int i = 1; i <= 600; ++i) at(i).send_to("127.0.0.1", 25301, "ChatByP2P/1 BYE " + fields_of(i));
  for (int i = 601; i <= 1200; ++i) at(i).meet("127.0.0.1", 25301, fields_of(i));
  EXPECT_TRUE(eventually([&] { return bob->count("joined mallory.*") == 1200; })) << bob->count("joined mallory.*");
  EXPECT_EQ(bob->count("left mallory.*"), 600u);
  EXPECT_LT(bob->count("changed .*"), 2000u);
}

// Gains: a HELLO of bob's to a port of his own host. Nobody is listed, moved or taken off for it.
TEST_F(Hostile, WhoAnswersASweepWithAnothersAddressSpeaksForHimselfOnly) {
  const Socket socket = Socket::udp(*network, 0, 40000, "127.0.0.9");
  bob->say("/scan 127.0.0.9:40000");
  const std::string question = socket.datagram();
  const std::string bob_id = id_in(question);
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

// Gains: a line of his own on bob's screen, with his own address. As long as ann is heard, neither a HELLO, a BYE nor
// an introduction under her id changes her entry; messages for her go to her, and his are shown with where they come
// from.
TEST_F(Hostile, WhoUsesAnothersIdTakesNothingFromIt) {
  const Socket witness = Socket::udp(*network, 0, 40000, "127.0.0.3");
  witness.send_to("127.0.0.1", 25302, mallory(3, 40000));
  const std::string answer = witness.datagram();
  const std::string id = id_in(answer);  // ids are no secret
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
  std::atomic<bool> cut_off{false};
  std::thread attacker([&] {
    while (socket.send(requests)) {}
    cut_off = true;
  });
  neighbour_still_gets_through();
  EXPECT_TRUE(eventually(60, [&] { return cut_off.load(); }));
  if (!cut_off) bob->signal(SIGKILL);  // or send() would never return
  attacker.join();
}

// Gains 128 connections for each address that he has; the others get `NO busy`. With four addresses he would keep out
// everybody else.
TEST_F(Hostile, AThousandConnectionsThatAreKeptLeaveRoomForOthers) {
  for (const unsigned addresses : {1u, 3u}) {
    std::vector<Socket> kept;
    size_t served = 0, busy = 0;
    for (int i = 0; i < 1000; ++i) {
      kept.push_back(connect(address(i % static_cast<int>(addresses))));
      kept.back().send(mallory(static_cast<unsigned>(i), 40000 + i) + "\n");
    }
    for (Socket& socket : kept) {
      const std::string line = socket.line();
      served += line.substr(0, 3) == "OK ";
      busy += is_refusal(line, "busy");
    }
    EXPECT_EQ(served + busy, 1000u);
    EXPECT_EQ(served, addresses * 128);
    neighbour_still_gets_through();
    kept.clear();
    EXPECT_TRUE(eventually([&] { return bob->uses("task") <= (kSanitized ? 3u : 2u); }));
  }
}

// Gains: a NO each. (What peers that know the protocol get for a wrong line is in messages.cpp.)
TEST_F(Hostile, RepliesThatNobodyAskedForAreUnknownRequests) {
  Socket socket = introduced();
  for (const std::string line :
       {"OK", "NO busy go away", "OK :../../x", "END size=0 crc=4294967295", "DATA offset=0 size=9", "RESUME"}) {
    socket.send(line + "\n");
    EXPECT_TRUE(std::regex_match(socket.line(), std::regex("NO (unknown|syntax) .*"))) << line;
  }
}

// Gains: that bob believes of a message to him that it arrived, which he could say of it anyway. What he says before he
// is asked the next time counts for nothing.
TEST_F(Hostile, RepliesSentInAdvanceDoNotDeliverTheNextMessage) {
  const Socket listener = Socket::tcp_listener(*network, 0, 40001);
  bob->say("/to 127.0.0.2:40001");
  bob->say("one");
  const auto first = asked(listener, "OK\nOK\nOK\nNO no no\n");
  bob->wait_for("delivered mallory@127.0.0.2:40001: one");
  bob->say("two");
  const auto second = asked(listener);
  EXPECT_EQ(second.second, "MSG number=2 scope=private :two");
  neighbour_still_gets_through();
  EXPECT_EQ(bob->count("delivered mallory@\\S+: two"), 0u);
  second.first.send("PERHAPS\n");
  const auto third = asked(listener);  // it is tried once more
  third.first.send("NO no not " + std::string(3000, '!') + "\n");
  bob->wait_for("failed mallory@127.0.0.2:40001: not !+; it may have arrived: two");
  status = 1;
}

// ---- Files -------------------------------------------------------------------------------------------

// Gains: files in the download folder, as bob has allowed, and each under a name of its own there.
TEST_F(Hostile, NamesLeadNowhereElse) {
  EXPECT_EQ(::symlink("/etc/passwd", home.path("downloads/link").c_str()), 0);
  EXPECT_EQ(::symlink("../outside", home.path("downloads/new").c_str()), 0);
  EXPECT_EQ(::symlink("..", home.path("downloads/up").c_str()), 0);
  EXPECT_EQ(::symlink("../outside", home.path("downloads/next.127.0.0.2.part").c_str()), 0);
  EXPECT_EQ(::symlink("..", home.path("downloads/folder.127.0.0.2.part").c_str()), 0);
  const std::string n(255, 'n');
  const std::vector<std::pair<std::string, std::string>> names = {{"../../outside", "OK :outside"},
                                                                  {"/etc/chatbyp2p", "OK :chatbyp2p"},
                                                                  {"up/x", "OK :x"},
                                                                  {"link", "OK :link (1)"},
                                                                  {"new", "OK :new (1)"},
                                                                  {"next", "OK :next"},
                                                                  {n, "OK :" + n},
                                                                  {"..\\x", "OK :..\\x"},
                                                                  {"%2e%2e%2fx", "OK :%2e%2e%2fx"},
                                                                  {n + "n", "NO name"},
                                                                  {"", "NO name"},
                                                                  {".", "NO name"},
                                                                  {"..", "NO name"},
                                                                  {"a/..", "NO name"},
                                                                  {"../", "NO name"},
                                                                  {"/", "NO name"},
                                                                  {"a//", "NO name"},
                                                                  {"a\x1b[2Jb", "NO text"},
                                                                  {"a\rb", "NO text"},
                                                                  {"a\xe2\x80\xae"
                                                                   "b",
                                                                   "NO text"},
                                                                  {"a\xc2\x9b"
                                                                   "2Jb",
                                                                   "NO text"},
                                                                  {"a\xff", "NO text"},
                                                                  {std::string("a\0b", 3), "NO text"},
                                                                  {"a\nb", "OK :a"}};
  for (const auto& [name, reply] : names) {
    Socket sender = introduced();
    sender.send("OFFER size=6 files=1 :" + name + "\n");
    std::string answer = sender.line();
    if (name == "a\nb") {  // what follows the LF is a line of its own, and not one that may come now
      EXPECT_TRUE(is_refusal(answer, "syntax") || answer == "OK") << answer;
      continue;
    }
    if (answer == "OK") {
      sender.send("DATA offset=0 size=6\nhello\nEND size=6 crc=3015617425\n");
      answer = sender.line();
    }
    EXPECT_EQ(answer.substr(0, reply.size()), reply) << name;
  }
  neighbour_still_gets_through();
  Socket sender = introduced();
  sender.send("OFFER size=6 files=2 :folder/\nFILE :../outside\n");
  sender.line();
  EXPECT_TRUE(is_refusal(sender.line(), "syntax"));
  EXPECT_NE(::access("/etc/chatbyp2p", F_OK), 0);
  EXPECT_EQ(read_file(home.path("downloads/x")), "hello\n");
}

// Gains: nothing. Could he store a file under the name of ann's unfinished one, his bytes, made to have the checksum of
// hers, would become the beginning of her file.
TEST_F(Hostile, NobodyCanPutTheBeginningOfAnothersFile) {
  for (const std::string name :
       {"x.127.0.0.1.part", "../x.127.0.0.1.part", "X.127.0.0.1.PART", "x (1).127.0.0.1.part", "x.127.0.0.1.part/"}) {
    Socket sender = introduced();
    sender.send("OFFER size=3 files=1 :" + name + "\n");
    EXPECT_TRUE(is_refusal(sender.line(), "name")) << name;
  }
  neighbour_still_gets_through();
  network->folder("ann").write("x.part", "hello\n");  // no such name
  ann->say("/send bob x.part");
  ann->wait_for("send \\d+ delivered .*: x.part");
}

// Gains: a NO each. Nothing is set aside for a size that was only said.
TEST_F(Hostile, WrongSizesAreRefusedBeforeAnythingIsSetAside) {
  const std::string huge = "9223372036854775807", beyond = "9223372036854775808";
  for (const auto& [offer, word] :
       std::vector<std::pair<std::string, std::string>>{{"size=-1 files=1", "syntax"},
                                                        {"size=" + beyond + " files=1", "syntax"},
                                                        {"size=6 files=-1", "syntax"},
                                                        {"size=6 files=" + beyond, "syntax"},
                                                        {"size=6", "syntax"},
                                                        {"size=0x6 files=1", "syntax"},
                                                        {"size=6e9 files=1", "syntax"},
                                                        {"size= files=1", "syntax"},
                                                        {"size=" + huge + " files=1", "space"}}) {
    Socket socket = introduced();
    socket.send("OFFER " + offer + " :x\n");
    EXPECT_TRUE(is_refusal(socket.line(), word)) << offer;
  }
  for (const std::string line :
       {"DATA offset=0 size=-1", "DATA offset=-1 size=1", "DATA offset=0 size=7", "DATA offset=1 size=1",
        "DATA offset=0 size=9223372036854775807", "DATA offset=9223372036854775807 size=9223372036854775807",
        "DATA offset=0 size=18446744073709551616", "DATA offset=0 size=0", "END size=-1 crc=0", "END size=0 crc=4294967296"}) {
    Socket socket = introduced();
    socket.send("OFFER size=6 files=1 :x\n");
    EXPECT_EQ(socket.line(), "OK");
    socket.send(line + "\n");
    EXPECT_TRUE(is_refusal(socket.line(), "syntax")) << line;
  }
}

// Gains: one connection, and a name in the download folder, for ten seconds; what has come stays, as after any break.
// Who sends a byte now and then keeps them for as long as he does.
TEST_F(Hostile, ASenderWhoNeverFinishesIsCutOff) {
  Socket socket = introduced();
  socket.send("OFFER size=1000000 files=1 :x\n");
  EXPECT_EQ(socket.line(), "OK");
  socket.send("DATA offset=0 size=1000000\nhel");
  neighbour_still_gets_through();
  const std::string failed = "receive \\d+ failed mallory@\\S+ 1000000 bytes, the sender fell silent; .*";
  EXPECT_TRUE(eventually([&] { return bob->prints(failed, 0); }));
  EXPECT_EQ(socket.line(), "NO failed the sender fell silent");
  EXPECT_EQ(read_file(home.path("downloads/x.127.0.0.2.part")), "hel");
}

// Gains: that bob's user takes a file for delivered, to him, which he did not keep: that is his own loss. A checksum
// that he makes up lets him have no less than the whole, and an OK before the END counts for nothing.
TEST_F(Hostile, AReceiverWhoAcknowledgesWhatHeDidNotGetFoolsHimselfOnly) {
  const Socket listener = Socket::tcp_listener(*network, 0, 40001);
  home.write("downloads/x", "hello\n");
  home.write("downloads/big", random_bytes(20'000'000, 1));
  const auto take = [&](const std::string& file, const std::string& answer) {
    bob->say("/send 127.0.0.2:40001 downloads/" + file);
    auto [receiver, offer] = asked(listener);
    EXPECT_EQ(offer.substr(0, 11), "OFFER size=");
    receiver.send(answer + "\n");
    return std::move(receiver);
  };
  const auto expect_end = [&](const std::string& end) { bob->wait_for("send \\d+ " + end, 30); };
  {
    const Socket early = take("big", "OK\nOK :big");
    expect_end("failed .*, it was acknowledged before it was complete: big");
    const Socket never = take("x", "YES");
    expect_end("failed .*, what came is not a reply: YES: x");
  }
  for (const std::string prefix :
       {"OK entries=1 offset=3 crc=1", "OK entries=9 offset=6 crc=3015617425",
        "OK entries=1 offset=9223372036854775807 crc=3015617425", "OK entries=-1 offset=x crc="}) {
    Socket receiver = take("x", prefix);
    EXPECT_EQ(receiver.line(), "DATA offset=0 size=6") << prefix;
    EXPECT_EQ(receiver.line(), "hello");
    EXPECT_EQ(receiver.line(), "END size=6 crc=3015617425");
    receiver.send("OK :../anything\n");  // his word for it, which is only shown
    expect_end("delivered .* 6 bytes, cksum 3015617425: ../anything");
  }
  {
    Socket receiver = take("x", "OK");
    for (int i = 0; i < 3; ++i) receiver.line();
    receiver.send("OK :\x1b[2J\n");
  }
  expect_end("failed .*");
  status = 1;
}

// Gains: where bob accepts every file, as here, 2.5 MiB for each connection, as long as a byte comes now and then.
TEST_F(Hostile, TransfersFromAllSidesThatStandStillAreBounded) {
  std::vector<Socket> all;
  for (int i = 0; i < 500; ++i) {
    all.push_back(connect(address(i % 3)));
    all.back().send(mallory(static_cast<unsigned>(i), 40000 + i) + "\nOFFER size=2000000 files=2 :f" +
                    std::to_string(i) + "/\n");
  }
  for (Socket& socket : all) {
    bob->read_more();
    if (socket.line().substr(0, 3) != "OK ") continue;  // busy
    EXPECT_EQ(socket.line(), "OK");
    if (HasFailure()) break;
    ++transfers;
    socket.send("FILE :x\nDATA offset=0 size=2000000\n" + std::string(1'100'000, 'x'));
  }
  EXPECT_GT(transfers, 300u);
  neighbour_still_gets_through();
}

// ---- The screen --------------------------------------------------------------------------------------

// Gains: lines that say what he likes, behind his own name and address.
TEST_F(Hostile, NothingAStrangerSaysSteersTheTerminal) {
  const Socket stranger = Socket::udp(*network, 0, 40000, "127.0.0.2");
  const std::string id = "id=00000000000000aa ip=127.0.0.2 port=40000 ", clear = "\x1b[2J", backwards = "\xe2\x80\xae";
  for (const std::string& name :
       {"a" + clear + "b", "a" + backwards + "b", std::string("a\nb"), std::string("a\0b", 3)})
    for (const std::string& fields : {"name=" + name + " group=lab", "name=x group=" + name})
      stranger.send_to("127.0.0.1", 25301, "ChatByP2P/1 HELLO " + id + fields);
  stranger.meet("127.0.0.1", 25301, id + "name=good group=lab");
  bob->wait_for("joined good@127.0.0.2:40000 lab");
  EXPECT_EQ(bob->count("joined .*"), 2u);
  for (const std::string& line :
       {"MSG number=1 :" + clear, "OFFER size=1 files=1 :" + clear, "MSG number=2 :" + backwards, clear,
        "OFFER size=1 files=1 :x\nSTOP :" + clear, "OFFER size=1 files=2 :x/\nFILE :a\nMISSING :" + clear}) {
    Socket socket = introduced();
    socket.send(line + "\n");
    std::string last;
    while (const auto reply = socket.line_or_end()) last = *reply;
    EXPECT_TRUE(is_refusal(last, "text")) << line << last;
  }
}

// ---- What is left when they have gone -----------------------------------------------------------------

// By itself the heap keeps some of what was freed, in an arena for each of many threads: memory grows for some rounds,
// of which nothing is lost. With one arena that gives all back, what stays is what was lost: 20 KiB a round, or 500
// with 400 bytes lost on each connection.
class Leaks : public Hostile {
 protected:
  Leaks() { environment = "MALLOC_ARENA_MAX=1 MALLOC_TRIM_THRESHOLD_=0 MALLOC_MMAP_THRESHOLD_=4096"; }
};

TEST_F(Leaks, AThousandConnectionsAndAHundredTransfersLeaveNothingBehind) {
  const size_t descriptors = bob->uses("fd"), threads = bob->uses("task") + kSanitized;  // ThreadSanitizer adds one
  const auto round = [&] {
    for (unsigned i = 0; i < 1000; ++i) {
      bob->read_more();
      Socket socket = i % 2 == 0 ? connect() : introduced(i);
      socket.send(i % 3 == 0 ? "MSG number=1 :half" : i % 3 == 1 ? "MSG number=1 :whole\n" : random_bytes(100, i));
    }
    const std::string content = random_bytes(100'000, 1);
    network->folder("ann").write("x", content);
    for (int i = 0; i < 50; ++i) {
      ann->say("/send bob x");
      ann->wait_for("send \\d+ delivered .*", 30);
      Socket cut = introduced();
      cut.send("OFFER size=1000000 files=1 :y\n");
      EXPECT_EQ(cut.line().substr(0, 2), "OK");
      cut.send("DATA offset=0 size=1000000\n" + content);
    }
    network->run(0, "rm -f " + home.path("downloads/*"));
    // All at once: what is still open for a moment is a question of bob's to a mallory who has gone.
    EXPECT_TRUE(eventually(60, [&] { return bob->uses("fd") == descriptors && bob->uses("task") <= threads; }))
        << bob->uses("fd") << " descriptors, were " << descriptors << "; " << bob->uses("task") << " threads, were "
        << threads;
  };
  round();  // the first brings what stays: the heap as large as was needed once
  const size_t memory = bob->uses("RssAnon");
  round();
  // KiB: a quarter of one for each connection.
  if (!kSanitized) {
    EXPECT_LT(bob->uses("RssAnon"), memory + 256);
  }
}
