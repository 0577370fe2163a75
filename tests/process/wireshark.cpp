// docs/wireshark/chatbyp2p.lua: what tshark shows with it of captures that these tests make.

#include <algorithm>
#include <filesystem>
#include <regex>

#include "support/testing.h"

namespace fs = std::filesystem;

namespace {

constexpr char kIntroduction[] =
    "ChatByP2P/1 HELLO id=0123456789abcdef ip=127.0.0.1 port=9 name=zoe group=lab\n";

// What one stranger says over TCP, and the breach that tshark reports ("" for none).
struct Session {
  std::string says;
  std::string breach;
};

std::string introduced(const std::string& lines) { return kIntroduction + lines; }

// A connection is told from another by the number of its stream.
struct Shown {
  size_t stream;
  std::string breaches;
};

}  // namespace

class Wireshark : public OneHost {
 protected:
  void SetUp() override {
    OneHost::SetUp();
    NEEDS_PROGRAM("tshark", "tshark");
    if (network) capture_ = folder_.path("capture.pcapng");
  }

  // From here on, what passes over loopback.
  void begin_capture() {
    const std::string folder = folder_.path();
    const std::vector<std::string> command{"/usr/bin/env", "dumpcap", "-B", "32", "-i", "lo", "-w",
                                           capture_};
    dumpcap_ = std::make_unique<Process>(network->descriptor(0), command, folder);
    dumpcap_->wait_for("File: .*");
  }

  // Until this text was captured: it is the last that was sent.
  void end_capture(const std::string& last) {
    EXPECT_TRUE(eventually([&] {
      return read_file(capture_).find(last) != std::string::npos;
    })) << last;
    dumpcap_->signal(SIGINT);
    dumpcap_->exit_status();
  }

  // Its lines, for this capture, without the warning to root. Since 4.4 it loads no script for root: in a user namespace
  // without a mapping it runs as nobody, and may still read what we may.
  std::vector<std::string> tshark(const std::string& options, const std::string& capture) {
    const std::string output = folder_.path("output");
    const std::string errors = folder_.path("errors");
    network->run(0, "unshare --user tshark -X lua_script:docs/wireshark/chatbyp2p.lua -r " + capture + " " +
                        options + " >" + output + " 2>" + errors);
    EXPECT_EQ(read_file(errors).find("ua:"), std::string::npos) << read_file(errors);
    return lines_of(read_file(output));
  }
  std::vector<std::string> tshark(const std::string& options) { return tshark(options, capture_); }

  void expect_no_lua_error(const std::string& capture) {
    const auto all = tshark("-V", capture);
    EXPECT_GT(all.size(), 10u);
    for (const std::string& line : all)
      EXPECT_EQ(line.find("Lua Error"), std::string::npos) << line;
  }

  // A stranger whose offer is accepted, and what he says then.
  void say_once_accepted(const std::string& offer, const Session& session) {
    Socket zoe = Socket::tcp(*network, 0, "127.0.0.1", 25253);
    zoe.send(kIntroduction);
    zoe.line();
    zoe.send(offer);
    EXPECT_EQ(zoe.line(), "OK") << session.breach;
    zoe.send(session.says);
    zoe.line();
  }

  std::vector<Shown> breaches() {
    std::vector<Shown> all;
    for (const std::string& line :
         tshark("-Y chatbyp2p.breach -T fields -e tcp.stream -e chatbyp2p.breach")) {
      const size_t tab = line.find('\t');
      const std::string stream = line.substr(0, tab);
      all.push_back({stream.empty() ? SIZE_MAX : std::stoul(stream), line.substr(tab + 1)});
    }
    return all;
  }

  Process& accepting_peer() {
    Process& ann = network->peer(0, "ann", {"--accept", "always", "--interface", "lo"});
    ann.wait_for("ready .*");
    return ann;
  }

  const Folder folder_;
  std::string capture_;
  std::unique_ptr<Process> dumpcap_;
};

TEST_F(Wireshark, ShowsEveryFieldOfAnAnnouncementAndMatchesItsAnswer) {
  begin_capture();
  accepting_peer();
  Socket zoe = Socket::udp(*network, 0, 40000);
  zoe.send_to("127.0.0.1", 25253,
              "ChatByP2P/1 HELLO id=0123456789abcdef ip=10.9.8.7 port=40000 name=Zoë group=图书馆 "
              "ask=host every=13 colour=red");
  const std::string here = zoe.datagram();
  ASSERT_EQ(here.find("ChatByP2P/1 HERE"), 0u) << here;
  zoe.send_to("127.0.0.1", 25253, "the last one");
  end_capture("the last one");
  const auto shown = tshark("-V -O chatbyp2p -Y 'chatbyp2p.id == \"0123456789abcdef\"'");
  for (const std::string field :
       {"    Version: ChatByP2P/1", "    Verb: HELLO", "    Id: 0123456789abcdef",
        "    IP address: 10.9.8.7", "    Port: 40000", "    Name: Zoë", "    Group: 图书馆",
        "    Ask: host", "    Every: 13", "    Unknown field: colour=red"})
    EXPECT_EQ(std::count(shown.begin(), shown.end(), field), 1) << field;
  const auto answers = tshark("-Y 'chatbyp2p.to == \"0123456789abcdef\"' -T fields "
                              "-e chatbyp2p.name -e chatbyp2p.request_in -e chatbyp2p.time");
  ASSERT_EQ(answers.size(), 1u);
  EXPECT_TRUE(std::regex_match(answers[0], std::regex("ann\t\\d+\t0\\.\\d+"))) << answers[0];
  EXPECT_EQ(tshark("-Y 'chatbyp2p.name == \"Zoë\"'").size(), 1u);
}

TEST_F(Wireshark, MatchesEachReplyToItsRequestAndPutsCutLinesTogether) {
  begin_capture();
  accepting_peer();
  Socket zoe = Socket::tcp(*network, 0, "127.0.0.1", 25253);
  for (const std::string line : {kIntroduction, "MSG number=1 :cut into pieces\r\n"}) {
    for (const char byte : line) zoe.send(std::string(1, byte));
    EXPECT_EQ(zoe.line().find("OK"), 0u);
  }
  zoe.send("MSG number=2 :the last one\n");
  EXPECT_EQ(zoe.line(), "OK");
  end_capture("the last one");
  const auto requests = tshark("-2 -Y 'tcp && chatbyp2p.reply_in' -T fields -e chatbyp2p.verb "
                               "-e chatbyp2p.text");
  EXPECT_EQ(requests, (std::vector<std::string>{"HELLO\t", "MSG\tcut into pieces",
                                                "MSG\tthe last one"}));
  EXPECT_EQ(tshark("-Y 'chatbyp2p.reply == \"OK\" && chatbyp2p.request_in && chatbyp2p.time'")
                .size(), 3u);
  EXPECT_EQ(breaches().size(), 0u);
}

TEST_F(Wireshark, ShowsAFileAsOneBlockAndVerifiesItsChecksum) {
  begin_capture();
  Process& ann = accepting_peer();
  Process& bob = network->peer(0, "bob", {"--interface", "lo"});
  bob.wait_for("joined ann.*");
  const std::string bytes = random_bytes(300'000, 7);
  network->folder("bob").write("file", bytes);
  fs::create_directories(network->folder("bob").path("folder/sub"));
  network->folder("bob").write("folder/a", "first");
  network->folder("bob").write("folder/sub/b", "second");
  fs::create_directories(network->folder("ann").path("downloads"));
  network->folder("ann").write("downloads/broken.127.0.0.1.part", "hel");
  network->folder("bob").write("broken", "hello");
  for (const std::string name : {"file", "folder", "broken"}) {
    bob.say("/send ann " + name);
    ann.wait_for("receive \\d stored .*");
  }
  bob.say("/msg ann the last one");
  bob.wait_for("delivered .*");
  end_capture("the last one");
  const auto ends = tshark("-Y 'chatbyp2p.verb == \"END\"' -T fields -e chatbyp2p.crc "
                           "-e chatbyp2p.crc.computed -e chatbyp2p.crc.status");
  ASSERT_EQ(ends.size(), 3u);
  for (const std::string& end : ends)
    EXPECT_TRUE(std::regex_match(end, std::regex("(\\d+)\t\\1\t1"))) << end;
  const std::string sum = cksum(network->folder("bob").path("file"));
  EXPECT_EQ(ends[0].substr(0, ends[0].find('\t')), sum.substr(0, sum.find(' ')));
  const auto titles = tshark("-V -O chatbyp2p -Y 'chatbyp2p.content'");
  for (const std::string title :
       {"    [Content of file: 300000 bytes]", "    [Content of a: 5 bytes]",
        "    [Content of sub/b: 6 bytes]", "    [Content of broken: 2 bytes, from byte 3 on]"})
    EXPECT_EQ(std::count(titles.begin(), titles.end(), title), 1) << title;
  EXPECT_EQ(breaches().size(), 0u);
}

TEST_F(Wireshark, MarksWhatBreaksTheSpecification) {
  const std::vector<Session> sessions{
      {"MSG number=1 :too early\n", "not introduced itself"},
      {"ChatByP2P/2 HELLO id=0123456789abcdef ip=127.0.0.1 port=9 name=zoe group=lab\n", "version"},
      {"ChatByP2P/1 HELLO id=0123456789ABCDEF ip=127.0.0.1 port=9 name=zoe group=lab\n", "id="},
      {"ChatByP2P/1 HELLO id=0123456789abcdef ip=127.0.0.01 port=9 name=zoe group=lab\n", "ip="},
      {"ChatByP2P/1 HELLO id=0123456789abcdef ip=127.0.0.1 port=0 name=zoe group=lab\n", "port="},
      {"ChatByP2P/1 HELLO id=0123456789abcdef ip=127.0.0.1 port=9 name=\u00ad group=lab\n", "name="},
      {"ChatByP2P/1 HELLO id=0123456789abcdef ip=127.0.0.1 port=9 name=zoe\n", "group= is missing"},
      {introduced("MSG number=1 :\x1b[2J\n"), "not text"},
      {introduced("MSG number=1 :\xff\n"), "not text"},
      {introduced("MSG number=9223372036854775808 :x\n"), "number="},
      {introduced("MSG number=1 number=2 :x\n"), "given twice"},
      {introduced("MSG number=1 private :x\n"), "no field"},
      {introduced("MSG number=1 :\n"), "text is missing"},
      {introduced("MSG number=1 :" + std::string(4001, 'x') + "\n"), "too long"},
      {introduced("MSG number=1 :" + std::string(6000, 'x')), "4,096 bytes at most"},
      {introduced("DATA offset=0 size=5\n"), "No offer is open"},
      {introduced("OFFER size=5 files=1 :..\n"), "this name"},
      {introduced("OFFER size=5 files=1 :early\nMSG number=1 :x\n"), "no reply to the OFFER"},
      {"ChatByP2P/1 HELLO id=0123456789abcdef ip=127.0.0.1 port=9 name=zoe group=lab\n"
       "ChatByP2P/1 HELLO id=fedcba9876543210 ip=127.0.0.1 port=9 name=zoe group=lab\n",
       "Another id"},
      {introduced("MSG number=1 :right\n"), ""},
  };
  begin_capture();
  accepting_peer();
  for (const Session& session : sessions) {
    Socket zoe = Socket::tcp(*network, 0, "127.0.0.1", 25253);
    std::string says = session.says;
    const bool is_introduced = says.find(kIntroduction) == 0;
    if (is_introduced) {
      zoe.send(kIntroduction);
      zoe.line();
      says.erase(0, sizeof kIntroduction - 1);
    }
    zoe.send(says);
    zoe.line();
  }
  // What comes of a file that is accepted.
  const std::vector<Session> transfers{
      {"DATA offset=1 size=5\nhello", "offset= is not"},
      {"DATA offset=0 size=6\nhello!", "More bytes than were offered"},
      {"DATA offset=0 size=5\nhelloEND size=5 crc=1\n", "checksum of what came is 3287646509"},
      {"DATA offset=0 size=5\nhelloEND size=4 crc=3287646509\n", "number of bytes that came"},
      {"FILE :a\n", "No folder was offered"},
      {"RESUME\n", "No beginning was named"},
      {"DATA offset=0 size=5\nhelloEND size=5 crc=3287646509\n", ""},
  };
  for (const Session& session : transfers) say_once_accepted("OFFER size=5 files=1 :hello\n", session);
  const std::vector<Session> folders{
      {"FILE :b\nFILE :a\n", "Out of the order"},
      {"FILE :../b\n", "not allowed"},
      {"FILE :sub/b\n", "Its subfolder did not come"},
      {"MISSING :why\n", "No entry has begun"},
  };
  for (const Session& session : folders) say_once_accepted("OFFER size=5 files=5 :folder/\n", session);
  Socket zoe = Socket::udp(*network, 0, 40000);
  zoe.send_to("127.0.0.1", 25253, "ChatByP2P/1 BYE id=0123456789abcdef ip=127.0.0.1 port=9 name=z group=g");
  zoe.send_to("127.0.0.1", 25253, "the last one");
  end_capture("the last one");

  std::vector<Session> all = sessions;
  all.insert(all.end(), transfers.begin(), transfers.end());
  all.insert(all.end(), folders.begin(), folders.end());
  std::vector<std::string> found(all.size());
  std::string of_datagrams;
  for (const Shown& shown : breaches()) {
    if (shown.stream < found.size()) found[shown.stream] += shown.breaches + "\n";
    else of_datagrams += shown.breaches + "\n";
  }
  for (size_t i = 0; i < all.size(); ++i) {
    EXPECT_NE(found[i].find(all[i].breach), std::string::npos)
        << all[i].says << "is expected to show: " << all[i].breach << "\nit shows:\n" << found[i];
    EXPECT_EQ(found[i].empty(), all[i].breach.empty()) << all[i].says << "shows:\n" << found[i];
  }
  EXPECT_NE(of_datagrams.find("A BYE from another port"), std::string::npos) << of_datagrams;
  EXPECT_NE(of_datagrams.find("A datagram is an announcement"), std::string::npos);
  expect_no_lua_error(capture_);
}

TEST_F(Wireshark, HasNoErrorOnAnyInputOfTheFuzzers) {
  const std::string dump = folder_.path("dump");
  network->run(0, "find tests/fuzz/corpus -type f -exec od -Ax -tx1 -v {} \\; >" + dump);
  for (const std::string ports : {"-u 25253,25252", "-T 40000,25253", "-T 25253,40000"}) {
    const std::string capture = folder_.path("corpus.pcap");
    network->run(0, "text2pcap -q " + ports + " " + dump + " " + capture + " 2>/dev/null");
    EXPECT_GT(tshark("-Y chatbyp2p", capture).size(), 100u) << ports;
    expect_no_lua_error(capture);
  }
}

// Nor on real sessions that are cut at every place, or of which the beginning was not captured.
TEST_F(Wireshark, HasNoErrorWhereACaptureBeginsLate) {
  begin_capture();
  accepting_peer();
  Socket zoe = Socket::tcp(*network, 0, "127.0.0.1", 25253);
  zoe.send(kIntroduction);
  zoe.line();
  zoe.send("OFFER size=5 files=1 :hello\n");
  zoe.line();
  zoe.send("DATA offset=0 size=5\nhel");
  zoe.send("loEND size=5 crc=3287646509\n");
  EXPECT_EQ(zoe.line(), "OK :hello");
  zoe.send("MSG number=1 :the last one\n");
  zoe.line();
  end_capture("the last one");
  const size_t packets = tshark("").size();
  ASSERT_GT(packets, 12u);
  for (size_t first = 2; first < packets; first += 3) {
    const std::string late = folder_.path("late.pcapng");
    network->run(0, "editcap -r " + capture_ + " " + late + " " + std::to_string(first) + "-9999");
    const auto shown = tshark("-V", late);
    for (const std::string& line : shown)
      EXPECT_EQ(line.find("Lua Error"), std::string::npos) << first << ": " << line;
  }
}

// As in Wireshark's window, where a packet is shown again whenever it is chosen.
TEST_F(Wireshark, ShowsTheSameWhenItShowsAPacketAgain) {
  const std::string capture = "docs/first-contact.pcap";
  const std::string columns = "-V -O chatbyp2p";
  std::vector<std::string> once;
  std::vector<std::string> twice;
  const auto is_reply_in = [](const std::string& line) {
    return line.find("[Reply in: ") != std::string::npos;  // is not known the first time
  };
  for (const std::string& line : tshark(columns, capture))
    if (!is_reply_in(line)) once.push_back(line);
  for (const std::string& line : tshark("-2 " + columns, capture))
    if (!is_reply_in(line)) twice.push_back(line);
  EXPECT_EQ(once, twice);
}

// But for the time, of which no two runs have the same; and only while the capture is of this
// year's protocol: docs/instructor.md, 5.
TEST_F(Wireshark, IsWhatTheDocumentShows) {
  const std::string capture = "docs/first-contact.pcap";
  std::smatch match;
  const std::string constants = read_file("protocol.h");
  ASSERT_TRUE(std::regex_search(constants, match, std::regex("kMagic = \"([^\"]+)\"")));
  const bool is_of_another_year = read_file(capture).find(match[1]) == std::string::npos;
  if (is_of_another_year) return;
  const auto listed = tshark("-2 -Y chatbyp2p -T fields -e frame.number -e ip.src "
                             "-e ip.dst -e _ws.col.Info", capture);
  const auto taken_apart = tshark("-2 -V -O chatbyp2p -Y chatbyp2p", capture);
  const std::string text = read_file("docs/first-contact.md");
  size_t rows = 0;
  size_t details = 0;
  for (const std::string& line : lines_of(text.substr(text.find("\n## 3.")))) {
    if (std::regex_match(line, match, std::regex(" +(\\d+)  [\\d.]+  (\\S+) > (\\S+)  (.*)"))) {
      const std::string row = match[1].str() + "\t" + match[2].str() + "\t" + match[3].str() +
                              "\t" + match[4].str();
      EXPECT_EQ(std::count(listed.begin(), listed.end(), row), 1) << line;
      ++rows;
    } else if (line.find("        ") == 0) {
      EXPECT_GE(std::count(taken_apart.begin(), taken_apart.end(), line.substr(4)), 1) << line;
      ++details;
    }
  }
  EXPECT_GE(rows, 15u);
  EXPECT_GE(details, 8u);
}
