// The X-ray: what --trace prints during a session, and what the documents show of it.

#include <cstdlib>
#include <regex>
#include <set>

#include "support/testing.h"

namespace {

constexpr char kLine[] =
    R"(\d\d:\d\d:\d\d\.\d{6} (UDP|TCP) \d+\.\d+\.\d+\.\d+:\d+ *(->|<-|--) \d+\.\d+\.\d+\.\d+:\d+  .+)";

// Drops what differs between runs: times, ids, the ports that the kernel chose, descriptors.
std::string timeless(std::string line) {
  for (const auto& [pattern, name] : std::vector<std::pair<std::string, std::string>>{
           {"^(\\d\\d:\\d\\d:\\d\\d)?\\d?\\.?\\d{6} ?", ""}, {"^ *\\d+\\.\\d{4} ", ""}, {"id=[0-9a-f]{10,16}", "id=ID"},
           {"to=[0-9a-f]{10,16}", "to=ID"}, {"\\b(3[2-9]|[45]\\d|60)\\d{3}\\b", "PORT"}, {"10.77.0.(3|15):25252", "BROADCAST"}})
    line = std::regex_replace(line, std::regex(pattern), name);
  return line;
}

// The lines of the block that follows `heading`, without its indentation.
std::vector<std::string> block_after(const std::string& document, const std::string& heading) {
  std::vector<std::string> block;
  bool is_after = false;
  for (const std::string& line : lines_of(read_file(document))) {
    is_after |= line == heading;
    const bool is_code = line.substr(0, 4) == "    ";
    if (is_after && !is_code && !block.empty()) break;
    if (is_after && is_code) block.push_back(line.substr(4));
  }
  return block;
}

// All blocks of the section: prose stands between them.
std::vector<std::string> blocks_of(const std::string& document, const std::string& heading) {
  std::vector<std::string> all;
  bool is_within = false;
  for (const std::string& line : lines_of(read_file(document))) {
    if (line.substr(0, 3) == "## ") is_within = line == heading;
    const bool is_code = line.substr(0, 6) == "      ";
    if (is_within && is_code) all.push_back(line.substr(4));
  }
  return all;
}

std::set<std::string> timeless_set(const std::vector<std::string>& lines) {
  std::set<std::string> all;
  for (const std::string& line : lines) all.insert(timeless(line));
  return all;
}

}  // namespace

class Trace : public OneHost {};

TEST_F(Trace, HasEveryDatagramAndLineWithTimeDirectionAndBothEndsAndFilesOnlyByTheirSize) {
  network = std::make_unique<Network>(2);
  Process& ann = network->peer(1, "ann", {"--trace=trace", "--interface", "eth0"});
  Process& bob = network->peer(2, "bob", {"--trace", "--accept", "always", "--interface", "eth0"});
  ann.wait_for("joined bob.*");
  bob.wait_for("joined ann.*");
  network->folder("ann").write("secret", "SECRET\n" + std::string(3'000'000, 'S'));
  ann.say("/msg bob hello");
  ann.wait_for("delivered bob.*");
  ann.say("/send bob secret");
  ann.wait_for("send 1 delivered bob.*");
  ann.say("/quit");
  bob.wait_for("left ann.*");
  EXPECT_EQ(ann.exit_status(), 0);
  bob.say("/quit");
  EXPECT_EQ(bob.exit_status(), 0);

  const std::string anns = read_file(network->folder("ann").path("trace")), bobs = bob.output();
  for (const std::string& line : lines_of(anns)) EXPECT_TRUE(std::regex_match(line, std::regex(kLine))) << line;
  EXPECT_EQ(ann.count(kLine), 0u);  // they are in the file alone
  EXPECT_EQ((anns + bobs).find("SECRET"), std::string::npos);
  const auto expect = [](const std::string& all, const std::string& pattern) {
    EXPECT_TRUE(std::regex_search(all, std::regex(pattern))) << pattern << "\nis not in\n" << all;
  };
  expect(anns, "UDP 10.77.0.1:25253 -> 10.77.0.\\d+:25252  ChatByP2P/1 HELLO id=");
  expect(bobs, "UDP 10.77.0.2:25253 -> 10.77.0.1:25253  ChatByP2P/1 HERE id=");
  expect(anns, "UDP 10.77.0.1:25253 <- 10.77.0.2:25253  ChatByP2P/1 HERE id=");
  expect(anns, "TCP 10.77.0.1:\\d+ -- 10.77.0.2:25253  connected\n");
  expect(bobs, "TCP 10.77.0.2:25253 -- 10.77.0.1:\\d+  accepted\n");
  expect(anns, "TCP 10.77.0.1:\\d+ -> 10.77.0.2:25253  MSG number=1 scope=private :hello\n");
  expect(bobs, "TCP 10.77.0.2:25253 <- 10.77.0.1:\\d+ +MSG number=1 scope=private :hello\n");
  expect(anns, "TCP 10.77.0.1:\\d+ -> 10.77.0.2:25253  \\(1048576 bytes\\)\n");
  expect(bobs, "TCP 10.77.0.2:25253 <- 10.77.0.1:\\d+ +\\(1048576 bytes\\)\n");
  expect(anns, "TCP 10.77.0.1:\\d+ -- 10.77.0.2:25253  closed\n");
  expect(bobs, "TCP 10.77.0.2:25253 -- 10.77.0.1:\\d+  closed\n");
}

TEST_F(Trace, IsAddedToAFileThatIsThere) {
  std::string before;
  for (int run = 1; run <= 2; ++run) {
    Process& ann = network->peer(0, "ann", {"--trace=trace"});
    ann.wait_for("ready .*");
    ann.say("/quit");
    EXPECT_EQ(ann.exit_status(), 0);
    const std::string traced = read_file(network->folder("ann").path("trace"));
    EXPECT_GT(traced.size(), before.size());
    EXPECT_EQ(traced.substr(0, before.size()), before);
    before = traced;
  }
}

TEST_F(Trace, HasNothingOfAConnectionThatDidNotOpen) {
  Process& ann = network->peer(0, "ann", {"--trace"});
  ann.wait_for("ready .*");
  ann.say("/msg 127.0.0.1:9 hello");
  ann.wait_for("failed 127.0.0.1:9: .*Connection refused.*");
  ann.say("/quit");
  EXPECT_EQ(ann.exit_status(), 1);
  EXPECT_EQ(ann.count("[\\d:.]+ TCP .*"), 0u) << ann.output();
}

TEST_F(Trace, LetsNoStrangerSteerTheTerminal) {
  Process& ann = network->peer(0, "ann", {"--trace"});
  ann.wait_for("ready .*");
  Socket stranger = Socket::udp(*network, 0, 40000);
  stranger.send_to("127.0.0.1", 25253, "\x1b[2J\nfaked");
  ann.wait_for(".* UDP 127.0.0.1:25253 <- 127.0.0.1:40000 +\\\\x1b\\[2J\\\\x0afaked");
}

TEST_F(Trace, IsWhatTheDocumentsShow) {
  const Folder scratch;
  network->run(0, "tests/first-contact.sh trace > " + scratch.path("picture"));
  const auto picture = lines_of(read_file(scratch.path("picture")));
  for (const std::string& row : picture) EXPECT_LE(row.size(), 80u) << row;
  const auto documented = blocks_of("docs/first-contact.md", "## 1. From inside");
  EXPECT_GT(documented.size(), 50u);
  const auto drawn = timeless_set(picture);
  for (const std::string& row : documented) EXPECT_EQ(drawn.count(timeless(row)), 1u) << row << "\n" << timeless(row);

  network = std::make_unique<Network>(2);
  Process& ann = network->peer(1, "ann", {"--trace", "--interface", "eth0"});
  Process& bob = network->peer(2, "bob", {"--interface", "eth0"});
  ann.wait_for("joined bob.*");
  bob.wait_for("joined ann.*");
  ann.say("/msg bob Hi Bob, here is the poem.");
  ann.wait_for("delivered bob.*");
  ann.say("/quit");
  EXPECT_EQ(ann.exit_status(), 0);
  const auto traced = timeless_set(ann.lines());
  const auto shown = block_after("docs/interface.md", "## 5. The X-ray");
  EXPECT_GT(shown.size(), 5u);
  for (const std::string& line : shown) EXPECT_EQ(traced.count(timeless(line)), 1u) << line;
}

TEST_F(Trace, AndThePacketsAreWhatTheDocumentsSay) {
  NEEDS_PROGRAM("tcpdump", "tcpdump");
  const Folder scratch;
  // In the user namespace that these tests are in where an ordinary user runs them, it fails to become another user.
  const std::string tcpdump = "unshare --user tcpdump ";
  network->run(0, tcpdump + "-#qnr - <docs/first-contact.pcap >" + scratch.path("kept") + " 2>/dev/null");
  const auto packets = lines_of(read_file(scratch.path("kept")));
  size_t compared = 0;
  for (const std::string& line : lines_of(read_file("docs/first-contact.md"))) {
    std::smatch match;
    if (!std::regex_search(line, match, std::regex("^\\| (\\d+)[^|]*\\| `([^`]+)` \\|"))) continue;
    const size_t number = std::stoul(match[1]);
    ASSERT_LE(number, packets.size()) << line;
    EXPECT_NE(packets[number - 1].find(match[2]), std::string::npos) << line << "\n" << packets[number - 1];
    ++compared;
  }
  EXPECT_GT(compared, 15u);
  network->run(0, "tests/first-contact.sh capture " + scratch.path("new"));
  network->run(0, tcpdump + "-Anr - <" + scratch.path("new") + " 2>/dev/null | grep -aq 'MSG number=1 scope=private :Hi Bob'");
  // The bytes of each segment, as FROM:TO: each line travels in one piece. What TCP sends anew is one more of the same.
  const auto segments = [&](const std::string& capture) {
    network->run(0, tcpdump + "-tnr - tcp <" + capture + " 2>/dev/null | grep -oE '^IP .* seq [0-9]+:[0-9]+' | sort -u | "
                       "sed 's/.* seq //' | sort >" + scratch.path("segments"));
    return read_file(scratch.path("segments"));
  };
  EXPECT_GT(segments("docs/first-contact.pcap").size(), 50u);
  EXPECT_EQ(segments(scratch.path("new")), segments("docs/first-contact.pcap"));
}
