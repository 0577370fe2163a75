// Networks fail while people talk and send files, in a virtual classroom whose links and machines fail on command.
// Whatever the fault: nothing is lost without a report, nothing is shown or stored twice, and the lists are right
// within three heartbeats after the repair. Class keeps an account of everything sent, and checks it at the end.

#include <signal.h>

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <set>
#include <sstream>

#include "support/testing.h"

namespace fs = std::filesystem;

namespace {

constexpr double kThreeHeartbeats = 15;
constexpr double kBusy = 30;  // what a busy machine may add to it

bool starts(const std::string& line, const std::string& with) { return line.compare(0, with.size(), with) == 0; }
bool ends(const std::string& line, const std::string& with) {
  return line.size() >= with.size() && line.compare(line.size() - with.size(), with.size(), with) == 0;
}
bool has(const std::string& line, const std::string& what) { return line.find(what) != std::string::npos; }

std::vector<std::string> words_of(const std::string& line) {
  std::istringstream stream(line);
  return {std::istream_iterator<std::string>(stream), {}};
}

// The time for which a fault lasts.
void pass(double seconds) {
  eventually(seconds, [] { return false; });
}

// Users u1 on host 1, u2 on host 2, and so on, all with --accept always, over links of 20 Mbit/s, on which a file of
// some megabytes lasts for seconds.
class Class {
 public:
  explicit Class(int hosts) : network(hosts), everybody_(static_cast<size_t>(hosts)) {
    for (int host = 1; host <= hosts; ++host) {
      everybody_[static_cast<size_t>(host - 1)] = host;
      addresses_.push_back({Network::address(host)});
      // A burst of little more than one frame: larger ones would travel, and be lost, many frames at once.
      network.run(host, "tc qdisc add dev eth0 root tbf rate 20mbit burst 3000 latency 400ms");
    }
  }

  Network network;

  void begin() { begin({everybody_}); }
  void begin(const std::vector<std::vector<int>>& parts, double patience = kThreeHeartbeats + kBusy) {
    for (const int host : everybody_) peers_.push_back(&network.peer(host, name(host), {"--accept", "always"}));
    expect_parts(parts, patience);
  }

  static std::string name(int host) { return "u" + std::to_string(host); }
  Process& peer(int host) const { return *peers_[static_cast<size_t>(host - 1)]; }
  const std::vector<int>& everybody() const { return everybody_; }
  std::string door(int host) const { return addresses_[static_cast<size_t>(host - 1)].back() + ":25253"; }
  void moves_to(int host, const std::string& address) { addresses_[static_cast<size_t>(host - 1)].push_back(address); }

  // ---- What people do; to an address, for somebody may have left the list ----

  std::string talk(int from, int to) {
    const std::string text = "message " + std::to_string(messages_.size()) + " from " + name(from);
    messages_.push_back({from, to, text});
    peer(from).say("/msg " + door(to) + " " + text);
    return text;
  }

  // The same by somebody whose address changes before the answer comes: a second try may be shown, too.
  std::string talk_and_move(int from, int to) {
    const std::string text = talk(from, to);
    messages_.back().may_be_shown_twice = true;
    return text;
  }

  void talk_all_to_all() {
    for (const int from : everybody_)
      for (const int to : everybody_)
        if (from != to) talk(from, to);
  }

  void send(int from, int to, size_t size) {
    files_.push_back({from, to, new_file(from, size)});
    send(files_.back());
  }

  void send_to_all(int from, size_t size) {
    const std::string file = new_file(from, size);
    for (const int to : everybody_)
      if (to != from) files_.push_back({from, to, file, 1});
    peer(from).say("/sendall " + file);
  }

  // So that what happens next happens in the middle of them.
  void expect_files_to_run() {
    for (const File& file : files_)
      EXPECT_TRUE(eventually([&] { return file_lines(file, "receive", "started") > 0; })) << peer(file.to).output();
  }

  // ---- What must come of it ----

  // Each lists those of its part, itself included, at their addresses, and nobody else.
  void expect_parts(const std::vector<std::vector<int>>& parts, double patience = kThreeHeartbeats + kBusy) {
    for (const auto& part : parts) {
      std::set<std::string> right;
      for (const int host : part) right.insert(name(host) + " " + door(host));
      for (const int host : part)
        EXPECT_TRUE(eventually(patience, [&] {
          pass(0.1);
          return list(host) == right;
        })) << peer(host).output();
    }
  }

  // Waits until each side has told the end of everything, and checks that it is the truth.
  void settle() {
    EXPECT_TRUE(eventually(90, [&] {
      pass(0.1);
      return unsettled().empty();
    })) << unsettled();
    for (const Message& message : messages_) check(message);
    for (const File& file : files_) check(file);
  }

  // What failed is sent again and arrives, from where it ended if anything of it had come.
  void send_again_what_failed() {
    std::vector<std::pair<const File*, bool>> again;
    for (File& file : files_) {
      if (file_lines(file, "send", "delivered") > 0) continue;
      const std::string from = addresses_[static_cast<size_t>(file.from - 1)].back();
      again.emplace_back(&file, fs::exists(stored(file) + "." + from + ".part"));
      send(file);
    }
    settle();
    for (const auto& [file, had_begun] : again) {
      EXPECT_EQ(file_lines(*file, "send", "delivered"), 1u) << peer(file->from).output();
      EXPECT_EQ(file_lines(*file, "send", "resumed"), had_begun ? 1u : 0u) << peer(file->from).output();
    }
  }

  // Of `from`'s messages to `to`, so many were delivered, and so many not.
  size_t delivered(int from, int to) const { return count(from, to, "delivered "); }
  size_t failed(int from, int to) const { return count(from, to, "failed "); }
  size_t all_delivered() const {
    size_t sum = 0;
    for (const int from : everybody_)
      for (const int to : everybody_) sum += delivered(from, to);
    return sum;
  }
  size_t all_messages() const { return messages_.size(); }
  size_t all_files_failed() const {
    return static_cast<size_t>(std::count_if(files_.begin(), files_.end(), [&](const File& file) {
      return file_lines(file, "send", "failed") > 0;
    }));
  }

 private:
  struct Message {
    int from, to;
    std::string text;
    bool may_be_shown_twice = false;
  };
  struct File {
    int from, to;
    std::string name;
    size_t times_sent = 0;
  };

  std::string new_file(int from, size_t size) {
    const std::string number = std::to_string(100 + files_.size());  // of one length: none begins like another
    const std::string path = network.folder(name(from)).path("file " + number);
    network.run(from, "head -c " + std::to_string(size) + " /dev/urandom > '" + path + "'");
    return "file " + number;
  }

  void send(File& file) {
    ++file.times_sent;
    peer(file.from).say("/send " + door(file.to) + " " + file.name);
  }

  std::vector<std::string> lines(int host) const { return peer(host).lines(); }

  bool is_about(const std::string& line, int host) const {
    const auto& all = addresses_[static_cast<size_t>(host - 1)];  // a line may be older than its present one
    return std::any_of(all.begin(), all.end(), [&](const std::string& one) { return has(line, one + ":25253"); });
  }

  std::set<std::string> list(int host) const {
    Process& p = peer(host);
    const size_t before = p.count("users \\d+");
    p.say("/list");
    EXPECT_TRUE(eventually([&] { return p.count("users \\d+") > before; })) << p.output();
    std::set<std::string> list;
    const std::vector<std::string> all = lines(host);
    auto line = std::find_if(all.rbegin(), all.rend(), [](auto& l) { return starts(l, "users "); });
    while (++line != all.rend() && starts(*line, "user ")) {
      const auto words = words_of(*line);
      list.insert(words.at(3) + " " + words.at(5));
    }
    return list;
  }

  size_t count(int from, int to, const std::string& how) const {
    const std::vector<std::string> all = lines(from);
    return static_cast<size_t>(std::count_if(all.begin(), all.end(), [&](const std::string& line) {
      return starts(line, how) && is_about(line.substr(0, line.find(": ")), to);
    }));
  }

  // How many lines of its sender or receiver say that of the file.
  size_t file_lines(const File& file, const std::string& direction, const std::string& what) const {
    const bool sends = direction == "send";
    const std::vector<std::string> all = lines(sends ? file.from : file.to);
    return static_cast<size_t>(std::count_if(all.begin(), all.end(), [&](const std::string& line) {
      return starts(line, direction + " ") && has(line, " " + what + " ") && ends(line, file.name) &&
             is_about(line, sends ? file.to : file.from);
    }));
  }

  std::string stored(const File& file) const {
    return network.folder(name(file.to)).path("downloads/" + file.name);
  }

  // The first thing of which the end has not been told; nothing if there is none.
  std::string unsettled() const {
    for (const int host : everybody_) {
      size_t open = 0;
      const std::vector<std::string> all = lines(host);
      for (const std::string& line : all) {
        const auto words = words_of(line);
        if (words.size() < 3 || words[0] != "receive") continue;
        if (words[2] == "offered") ++open;
        if (words[2] == "stored" || words[2] == "failed") --open;
      }
      if (open > 0) return name(host) + " receives a file:\n" + peer(host).output();
    }
    for (const Message& message : messages_) {
      const size_t delivered = count(message, message.from, "delivered ");
      if (delivered + count(message, message.from, "failed ") == 0)
        return message.text + " is on its way:\n" + peer(message.from).output();
      // The receiver says OK, and prints what it has when its main thread gets its turn.
      if (delivered > count(message, message.to, "message "))
        return message.text + " is not shown yet:\n" + peer(message.to).output();
    }
    for (const File& file : files_)
      if (file_lines(file, "send", "delivered") + file_lines(file, "send", "failed") < file.times_sent)
        return file.name + " is on its way:\n" + peer(file.from).output();
    return "";
  }

  // How many lines there say that of the message.
  size_t count(const Message& message, int host, const std::string& what) const {
    const std::vector<std::string> all = lines(host);
    return static_cast<size_t>(std::count_if(all.begin(), all.end(), [&](const std::string& line) {
      return starts(line, what) && ends(line, ": " + message.text);
    }));
  }

  void check(const Message& message) const {
    const size_t delivered = count(message, message.from, "delivered "), failed = count(message, message.from, "failed ");
    const size_t shown = count(message, message.to, "message ");
    size_t in_doubt = 0;
    for (const std::string& line : lines(message.from))
      in_doubt += starts(line, "failed ") && ends(line, "; it may have arrived: " + message.text);
    EXPECT_EQ(delivered + failed, 1u) << message.text << "\n" << peer(message.from).output();
    EXPECT_GE(shown, delivered) << message.text << "\n" << peer(message.to).output();
    EXPECT_LE(shown, delivered + in_doubt + (message.may_be_shown_twice ? 1 : 0)) << message.text << "\n"
                                           << peer(message.from).output() << "\n" << peer(message.to).output();
  }

  void check(const File& file) const {
    const size_t delivered = file_lines(file, "send", "delivered"), failed = file_lines(file, "send", "failed");
    EXPECT_EQ(delivered + failed, file.times_sent) << file.name << "\n" << peer(file.from).output();
    EXPECT_LE(delivered, 1u) << file.name << "\n" << peer(file.from).output();
    EXPECT_EQ(file_lines(file, "receive", "stored"), delivered) << file.name << "\n" << peer(file.to).output();
    size_t there = 0;  // under this name, or one like "file 100 (1)"; a .part is not there yet
    for (const std::string& name : network.folder(name(file.to)).names("downloads"))
      there += starts(name, file.name) && !ends(name, ".part");
    EXPECT_EQ(there, delivered) << file.name << "\n" << peer(file.to).output();
    const std::string sent = network.folder(name(file.from)).path(file.name);
    const bool is_whole = delivered == 0 || read_file(stored(file)) == read_file(sent);
    EXPECT_TRUE(is_whole) << file.name << " at " << name(file.to) << " is not what was sent";
  }

  std::vector<int> everybody_;
  std::vector<std::vector<std::string>> addresses_;  // of each host, the present one last
  std::vector<Process*> peers_;
  std::vector<Message> messages_;
  std::vector<File> files_;
};

}  // namespace

// ---- Links --------------------------------------------------------------------------------------

// A second goes unnoticed: TCP sends again. After 10 s of silence a transfer fails on both sides, and messages fail
// when a new connection cannot be had either; after 15 s the list shows it, too.
TEST(Faults, ALinkMayBeDownForOneTenOrThirtySecondsAmidTalkAndFiles) {
  NEEDS_NAMESPACES();
  Class c(4);
  c.begin();
  const std::vector<std::pair<int, int>> host_and_time = {{2, 1}, {3, 10}, {4, 30}};
  c.talk_all_to_all();
  c.send_to_all(1, 10'000'000);
  for (const auto& [host, time] : host_and_time) c.send(host, 1, 10'000'000);
  c.expect_files_to_run();
  for (const auto& [host, time] : host_and_time) c.network.run(0, "ip link set v" + std::to_string(host) + " down");
  for (int second = 1; second <= 30; ++second) {
    if (second % 2 == 1) for (const auto& [host, time] : host_and_time) c.talk(1, host), c.talk(host, 1);
    pass(1);
    for (const auto& [host, time] : host_and_time)
      if (time == second) c.network.run(0, "ip link set v" + std::to_string(host) + " up");
  }
  c.expect_parts({c.everybody()});
  c.settle();
  EXPECT_EQ(c.failed(1, 2) + c.failed(2, 1), 0u);
  EXPECT_EQ(c.peer(1).count("left u2@.*") + c.peer(2).count("left u1@.*"), 0u);
  EXPECT_EQ(c.peer(1).count("send \\d failed u2@.*") + c.peer(2).count("send \\d failed .*"), 0u);
  EXPECT_EQ(c.peer(1).count("left u4@\\S+: " + kSilent), 1u);
  EXPECT_EQ(c.peer(1).count("sent to \\d of 3, .*u2@\\S+; not reached: .*u4@\\S+ \\(.*\\): file 100"), 1u)
      << c.peer(1).output();
  c.send_again_what_failed();
}

// ---- Loss ---------------------------------------------------------------------------------------

// Each packet passes the bridge's forward hook once: what is lost is lost each way. They find each other under it, too.
void talk_and_send_under_loss(int percent) {
  Class c(4);
  c.network.run(0, "nft 'add table bridge f; add chain bridge f lose { type filter hook forward priority 0; }; "
                   "add rule bridge f lose numgen random mod 100 < " + std::to_string(percent) + " counter drop'");
  // Once in some thousand times two miss each other for 25 s: each question and its answer pass one time in three.
  c.begin({c.everybody()}, 90);
  for (const int from : c.everybody()) c.send(from, from % 4 + 1, 200'000);
  for (int round = 0; round < 10; ++round) {
    c.talk_all_to_all();
    pass(1);
  }
  for (const int host : c.everybody())  // neither a lost heartbeat nor a lost answer is taken for absence
    EXPECT_EQ(c.peer(host).count("left .*"), 0u) << c.peer(host).output();
  c.settle();
  EXPECT_GT(c.all_delivered(), c.all_messages() / 2);
  c.network.run(0, "nft list ruleset | grep -Eq 'packets [0-9]{3,}'");  // hundreds of packets were lost indeed
  c.network.run(0, "nft flush ruleset");
  c.expect_parts({c.everybody()});
  // Where ARP has just given up a neighbour, connect() fails at once: that is the system's loss.
  for (const int host : c.everybody()) c.network.run(host, "ip neigh flush all");
  c.send_again_what_failed();
}

TEST(Faults, AFifthOfAllPacketsMayBeLostEachWay) {
  NEEDS_NAMESPACES();
  talk_and_send_under_loss(20);
}

TEST(Faults, TwoFifthsOfAllPacketsMayBeLostEachWay) {
  NEEDS_NAMESPACES();
  talk_and_send_under_loss(40);
}

// ---- A network that falls apart -----------------------------------------------------------------

// With talk and files across and within its parts; then it is whole again.
void fall_apart(Class& c, const std::string& cut, const std::vector<std::vector<int>>& parts, const std::string& heal) {
  c.begin();
  for (const int from : c.everybody()) c.send(from, from % 4 + 1, 10'000'000);  // within a part, and across
  c.expect_files_to_run();
  c.talk_all_to_all();
  c.network.run(0, cut);
  c.talk_all_to_all();
  c.expect_parts(parts);
  EXPECT_TRUE(eventually([&] { return c.failed(1, 3) > 0 && c.failed(3, 1) > 0; })) << c.peer(1).output();
  c.talk_all_to_all();
  c.network.run(0, heal);
  c.talk_all_to_all();
  c.expect_parts({c.everybody()});
  c.settle();
  for (const auto& part : parts)
    for (const int from : part)
      for (const int to : part) EXPECT_EQ(c.failed(from, to), 0u) << c.peer(from).output();
  c.send_again_what_failed();
}

TEST(Faults, ANetworkMaySplitIntoHalvesThatGoOnAndJoinAgain) {
  NEEDS_NAMESPACES();
  Class c(4);
  fall_apart(c, "nft 'add table bridge f; add chain bridge f split { type filter hook forward priority 0; }; "
                "add rule bridge f split iifname { v1, v2 } oifname { v3, v4 } drop; "
                "add rule bridge f split iifname { v3, v4 } oifname { v1, v2 } drop'",
             {{1, 2}, {3, 4}}, "nft flush ruleset");
}

// As many access points do it, and some of a sudden: each client reaches the network, and none a neighbour.
TEST(Faults, AnAccessPointMayKeepItsClientsApartForAWhile) {
  NEEDS_NAMESPACES();
  Class c(4);
  const std::string each = "for port in v1 v2 v3 v4; do ip link set dev $port type bridge_slave isolated ";
  fall_apart(c, each + "on; done", {{1}, {2}, {3}, {4}}, each + "off; done");
}

// ---- A machine that stands still ----------------------------------------------------------------

// Longer than it takes to be forgotten, with a file half sent and one half received; the others must not notice.
TEST(Faults, APeerMayStandStillAndGoOnAndTheOthersDoNotNotice) {
  NEEDS_NAMESPACES();
  Class c(4);
  c.begin();
  c.send(4, 1, 15'000'000);
  c.send(2, 4, 15'000'000);
  c.send(1, 3, 4'000'000);
  c.expect_files_to_run();
  c.talk_all_to_all();
  c.peer(4).signal(SIGSTOP);
  c.peer(3).say("/all are you all there?");
  for (int second = 0; second < 16; ++second) {
    for (const auto& [from, to] : {std::pair(1, 2), {2, 3}, {3, 1}}) c.talk(from, to);
    if (second % 4 == 0) for (const int from : {1, 2, 3}) c.talk(from, 4);
    pass(1);
  }
  c.peer(3).wait_for("delivered 2 of 3; (not|may have) reached: u4@10.77.0.4:25253");
  c.peer(4).signal(SIGCONT);
  c.expect_parts({c.everybody()});
  c.settle();
  for (const int from : {1, 2, 3}) {
    for (const int to : {1, 2, 3}) EXPECT_EQ(c.failed(from, to), 0u) << c.peer(from).output();
    EXPECT_EQ(c.peer(from).count("left u4@\\S+: " + kSilent), 1u) << c.peer(from).output();
    EXPECT_EQ(c.peer(from).count("(left u[123]|changed|error|note).*"), 0u) << c.peer(from).output();
  }
  EXPECT_EQ(c.peer(1).count("send \\d delivered u3@.*"), 1u);
  EXPECT_EQ(c.all_files_failed(), 2u);  // so what follows shows that they go on where they ended
  c.send_again_what_failed();
}

// ---- Addresses and connections ------------------------------------------------------------------

// The answer to a message is lost, and the next try comes from another address: it may be shown twice.
TEST(Faults, AHostMayChangeItsAddressAmidTalkAndFiles) {
  NEEDS_NAMESPACES();
  Class c(3);
  c.begin();
  c.send(2, 1, 15'000'000);
  c.send(3, 2, 15'000'000);
  c.expect_files_to_run();
  c.talk_all_to_all();
  c.peer(2).wait_for("delivered u1@.*");
  c.network.run(2, "nft 'add table inet f; add chain inet f in { type filter hook input priority 0; }; "
                   "add rule inet f in ip saddr 10.77.0.1 tcp sport 25253 drop'");
  const std::string text = c.talk_and_move(2, 1);
  c.peer(1).wait_for("message u2@10.77.0.2:25253 private: " + text);
  c.network.run(2, "nft flush ruleset && ip addr flush dev eth0 && ip addr add 10.77.0.12/28 brd + dev eth0");
  c.moves_to(2, "10.77.0.12");
  c.talk_all_to_all();
  c.expect_parts({c.everybody()});
  c.talk_all_to_all();
  c.settle();
  EXPECT_EQ(c.peer(2).count("delivered u1@\\S+: " + text), 1u) << c.peer(2).output();
  EXPECT_EQ(c.failed(1, 3) + c.failed(3, 1), 0u);
  EXPECT_EQ(c.all_files_failed(), 2u);
  c.send_again_what_failed();
}

// The network loses the packets of one connection only, and then, late, one of them comes through.
TEST(Faults, AMessageThatWasSentOnceMoreDoesNotComeALongTimeAfterItsRepetition) {
  NEEDS_NAMESPACES();
  Class c(2);
  c.begin();
  c.talk(1, 2);
  c.peer(1).wait_for("delivered .*");
  const Folder scratch;
  const auto connections = [&](const std::string& which) {  // their ports at host 1
    c.network.run(1, "ss -tnH " + which + " | grep -o '10.77.0.1:[0-9]*' | sed 's/.*://' > " + scratch.path("ports"));
    return words_of(read_file(scratch.path("ports")));
  };
  const auto ports = connections("state established dport = :25253");
  ASSERT_EQ(ports.size(), 1u);
  c.network.run(2, "nft 'add table inet f; add chain inet f in { type filter hook input priority 0; }; "
                   "add rule inet f in ip saddr 10.77.0.1 tcp sport " + ports[0] + " drop'");
  for (int i = 0; i < 40; ++i) c.talk(1, 2);  // more than the 32 whose numbers the receiver remembers
  EXPECT_TRUE(eventually(40, [&] { return c.delivered(1, 2) == 41; })) << c.peer(1).output();
  // A receiver that remembers fewer numbers than ours would show what still comes over the old connection. So it must be
  // gone for good, not merely closed.
  EXPECT_EQ(connections("state all sport = :" + ports[0]), std::vector<std::string>{});
  c.network.run(2, "nft flush ruleset");
  EXPECT_TRUE(eventually(60, [&] {
    pass(0.2);
    return connections("state all sport = :" + ports[0]).empty();
  }));
  c.peer(2).wait_for("message .*: " + c.talk(1, 2));
  c.settle();
}

// ---- Two segments -------------------------------------------------------------------------------

// Broadcasts do not pass a router. Host 0, the switch, is one here, between two bridges.
// A connection to who does not answer is given up after 4 s: what ends before that did not wait for the network.
TEST(Faults, ACancelledTransferWaitsNeitherForASlowLinkNorForAnAnswer) {
  NEEDS_NAMESPACES();
  Network network(3);
  network.run(1, "tc qdisc add dev eth0 root tbf rate 500kbit burst 3000 latency 400ms");
  network.drop(3, "input", "meta l4proto tcp");
  Process& bob = network.peer(2, "bob", {"--accept", "always"});
  Process& ann = network.peer(1, "ann");
  ann.wait_for("joined bob.*");
  network.folder("ann").write("big", std::string(20'000'000, 'x'));
  ann.say("/send bob big");
  bob.wait_for("receive 1 started .*");
  ann.say("/send 10.77.0.3:25253 big");
  ann.wait_for("send 2 offered .*");
  ann.say("/cancel 1");
  ann.wait_for("send 1 failed bob@\\S+ 20000000 bytes, cancelled: big");
  ann.wait_for("send 2 failed 10.77.0.3:25253 20000000 bytes, cannot connect .*");
  bob.wait_for("receive 1 failed ann@\\S+ 20000000 bytes, .*; what has arrived is kept, and resumes when it is sent again: big");
  for (int i = 0; i < 2; ++i) ann.say("/send 10.77.0.3:25253 big");
  ann.wait_for("send 4 offered .*");
  ann.say("/cancel 4");
  ann.wait_for("send 4 failed 10.77.0.3:25253 20000000 bytes, cancelled: big");
  ann.wait_for("send 3 failed 10.77.0.3:25253 20000000 bytes, cannot connect .*");
}

TEST(Faults, TwoSegmentsThatARouterJoinsFindEachOtherByAScanAndAgainWhenItFailed) {
  NEEDS_NAMESPACES();
  Class c(4);
  c.network.run(0, "ip link add br1 type bridge stp_state 0 forward_delay 0 mcast_snooping 0 && ip link set br1 up && "
                   "ip link set v3 master br1 && ip link set v4 master br1 && "
                   "ip addr add 10.77.0.14/28 dev br0 && ip addr add 10.78.0.14/28 dev br1 && "
                   "echo 1 > /proc/sys/net/ipv4/ip_forward");
  for (const int host : {1, 2}) c.network.run(host, "ip route add default via 10.77.0.14");
  for (const int host : {3, 4}) {
    const std::string address = "10.78.0." + std::to_string(host);
    c.network.run(host, "ip addr flush dev eth0 && ip addr add " + address + "/28 brd + dev eth0 && "
                        "ip route add default via 10.78.0.14");
    c.moves_to(host, address);
  }
  const auto scan = [&] {
    for (const int host : {1, 2}) c.peer(host).say("/scan 10.78.0.0/28");
    for (const int host : {1, 2}) c.peer(host).wait_for("scanned 14 addresses; 3 users online");
    c.expect_parts({c.everybody()});
  };
  c.begin({{1, 2}, {3, 4}});
  scan();
  for (int second = 0; second < 16; ++second) {
    c.talk_all_to_all();
    pass(1);
  }
  for (const int host : c.everybody())  // though no heartbeat passes the router, which is a broadcast
    EXPECT_EQ(c.peer(host).count("left .*"), 0u) << c.peer(host).output();
  for (const int from : c.everybody()) c.send(from, from % 4 + 1, 15'000'000);
  c.expect_files_to_run();
  c.network.run(0, "echo 0 > /proc/sys/net/ipv4/ip_forward");
  c.talk_all_to_all();
  c.expect_parts({{1, 2}, {3, 4}});
  c.network.run(0, "echo 1 > /proc/sys/net/ipv4/ip_forward");
  c.talk_all_to_all();
  scan();
  c.settle();
  for (const auto& [a, b] : {std::pair(1, 2), {3, 4}}) EXPECT_EQ(c.failed(a, b) + c.failed(b, a), 0u);
  c.send_again_what_failed();
}
