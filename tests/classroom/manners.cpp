// Manners: what a class costs its network, and what it finds through firewalls [protocol.md 4.2,
// 4.3]. Managed switches cut off a port that sends more than 15 ARP requests a second, so the tests
// count them, as tcpdump sees them on the switch.
//
// Each test prints how long its lists took; docs/performance.md has the numbers of a quiet machine.
// The test itself waits longer, because the machine may be busy. With LONG=1 the firewalls stay up
// for ten minutes; otherwise a little longer than a firewall remembers a question.

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <deque>
#include <iostream>
#include <map>
#include <numeric>
#include <random>
#include <sstream>

#include "support/testing.h"

namespace {

using Clock = std::chrono::steady_clock;

constexpr double kPatience = 60;        // added for a busy machine
constexpr size_t kMostRequests = 15;    // for absent addresses, in any second, from one host
constexpr int kFiveMinutes = 300;       // of the clock on the wall: when sweeps are repeated

bool is_long() { return std::getenv("LONG") != nullptr; }

// 10.77.0.1 and so on.
std::vector<std::string> neighbours() {
  std::vector<std::string> addresses;
  for (int host = 1; host <= class_size(); ++host) addresses.push_back(Network::address(host));
  return addresses;
}

// As DHCP gives them where many have come and gone.
std::vector<std::string> scattered() {
  std::vector<int> hosts(254);
  std::iota(hosts.begin(), hosts.end(), 1);
  std::shuffle(hosts.begin(), hosts.end(), std::mt19937(15));
  std::vector<std::string> addresses;
  for (int i = 0; i < class_size(); ++i)
    addresses.push_back(Network::address(hosts[static_cast<size_t>(i)]));
  return addresses;
}

// A class in a /24, host 1 at the first of these addresses. They are known to all; for any other
// one the kernel asks by ARP, as in a real network.
void give_addresses(const Network& network, const std::vector<std::string>& addresses) {
  const Folder scratch;
  const auto mac = [&](int host) {
    network.run(host, "ip -brief link show eth0 | awk '{ print $3 }' >" + scratch.path("mac"));
    return lines_of(read_file(scratch.path("mac"))).at(0);
  };
  std::string neighbours;
  for (size_t i = 0; i < addresses.size(); ++i)
    neighbours += "neigh replace " + addresses[i] + " lladdr " + mac(static_cast<int>(i) + 1) +
                  " dev eth0 nud permanent\n";
  for (size_t i = 0; i < addresses.size(); ++i) {
    const std::string own = "neigh flush dev eth0 nud permanent\naddr flush dev eth0\naddr add " +
                            addresses[i] + "/24 brd + dev eth0\n";
    const std::string batch = scratch.write("batch", own + neighbours);
    network.run(static_cast<int>(i) + 1, "ip -batch " + batch);
  }
}

// What is broadcast on the switch, as tcpdump sees it: ARP requests (the kernel's checks of a
// neighbour that it knows are no broadcasts) and datagrams. Where tcpdump is root it wants to become
// another user to capture, and in the user namespace of somebody who is not root there is none. So
// dumpcap captures, and tcpdump, as nobody in particular, says what it was.
class Cable {
 public:
  explicit Cable(const Network& network)
      : tcpdump_(network.descriptor(0),
                 {"/bin/bash", "-c",
                  "exec dumpcap -q -i br0 -P -w - >"
                  " >(exec unshare --user tcpdump -lntt -r - 'ether broadcast')"},
                 folder_.path()) {
    tcpdump_.wait_for("reading from file -.*");
  }

  // How many datagrams that address has broadcast so far.
  size_t datagrams_of(const std::string& address) {
    const std::string from = " IP " + address + ".";
    const auto is_its = [&](const std::string& line) {
      return line.find(from) != std::string::npos;
    };
    return static_cast<size_t>(
        std::count_if(tcpdump_.lines().begin(), tcpdump_.lines().end(), is_its));
  }

  // When each address has asked for one that is not among `present`, in seconds.
  std::map<std::string, std::vector<double>> requests_for_others(
      const std::vector<std::string>& present) {
    std::map<std::string, std::vector<double>> times;
    for (const std::string& line : tcpdump_.lines()) {
      std::istringstream words(line);
      double time = 0;
      std::string arp, request, who_has, target, tell, sender;
      words >> time >> arp >> request >> who_has >> target >> tell >> sender;
      if (arp != "ARP," || who_has != "who-has") continue;
      sender = sender.substr(0, sender.find(','));
      const bool is_absent = std::count(present.begin(), present.end(), target) == 0;
      if (is_absent) times[sender].push_back(time);
    }
    return times;
  }

 private:
  const Folder folder_;
  Process tcpdump_;
};

// The most that fall into one second.
size_t most_in_a_second(const std::vector<double>& times) {
  size_t most = 0;
  std::deque<double> recent;
  for (const double time : times) {
    recent.push_back(time);
    while (recent.front() <= time - 1) recent.pop_front();
    most = std::max(most, recent.size());
  }
  return most;
}

void expect_good_manners(Cable& cable, const std::vector<std::string>& present) {
  size_t most = 0;
  for (const auto& [sender, times] : cable.requests_for_others(present)) {
    most = std::max(most, most_in_a_second(times));
    EXPECT_LE(most_in_a_second(times), kMostRequests) << sender;
  }
  std::cout << most << " ARP requests for absent addresses in a second, at most" << std::endl;
}

// Within `seconds` on a quiet machine. Prints how long it took.
void expect_complete_lists(const std::vector<Process*>& peers, double seconds) {
  const auto start = Clock::now();
  ASSERT_NO_FATAL_FAILURE(expect_all_list_all(peers, seconds + kPatience));
  const std::chrono::duration<double> taken = Clock::now() - start;
  std::cout << peers.size() << " lists complete after " << taken.count() << " s" << std::endl;
}

void drop_broadcasts(const Network& network, int hosts) {
  for (int host = 1; host <= hosts; ++host) network.drop(host, "input", "meta pkttype broadcast");
}

// A firewall as ufw and firewalld install it: nobody's broadcast or question gets in, only answers
// to what its owner asked.
void raise_firewall(const Network& network, int host) {
  network.drop(host, "input", "iifname eth0 ct state != { established, related }");
}

}  // namespace

// ---- Whom a class asks for ------------------------------------------------------------------

TEST(Manners, AClassThatHearsItsBroadcastsAsksForNoAbsentAddress) {
  NEEDS_NAMESPACES();
  NEEDS_PROGRAM("tcpdump", "tcpdump");
  NEEDS_PROGRAM("dumpcap", "tshark");
  const auto addresses = neighbours();
  Network network(class_size());
  give_addresses(network, addresses);
  Cable cable(network);
  const auto peers = network.peers();
  ASSERT_NO_FATAL_FAILURE(expect_complete_lists(peers, 1));
  // Three HELLOs, and four heartbeats: the last comes 9 s after the start at the earliest, and a
  // sweep would have begun by then.
  const auto is_settled = [&](const std::string& address) {
    return cable.datagrams_of(address) >= 7;
  };
  ASSERT_TRUE(eventually(kPatience, [&] {
    return std::all_of(addresses.begin(), addresses.end(), is_settled);
  }));
  EXPECT_TRUE(cable.requests_for_others(addresses).empty());
  for (Process* peer : peers) EXPECT_EQ(peer->count("left .*"), 0u) << peer->output();
}

TEST(Manners, NeighboursFindEachOtherWithoutBroadcastAndAskForFewAbsentAddresses) {
  NEEDS_NAMESPACES();
  NEEDS_PROGRAM("tcpdump", "tcpdump");
  NEEDS_PROGRAM("dumpcap", "tshark");
  const auto addresses = neighbours();
  Network network(class_size());
  give_addresses(network, addresses);
  drop_broadcasts(network, class_size());
  Cable cable(network);
  ASSERT_NO_FATAL_FAILURE(expect_complete_lists(network.peers(), 30));
  expect_good_manners(cable, addresses);
}

TEST(Manners, ScatteredHostsFindEachOtherWithoutBroadcastAndAskForFewAbsentAddresses) {
  NEEDS_NAMESPACES();
  NEEDS_PROGRAM("tcpdump", "tcpdump");
  NEEDS_PROGRAM("dumpcap", "tshark");
  const auto addresses = scattered();
  Network network(class_size());
  give_addresses(network, addresses);
  drop_broadcasts(network, class_size());
  Cable cable(network);
  ASSERT_NO_FATAL_FAILURE(expect_complete_lists(network.peers(), 150));
  expect_good_manners(cable, addresses);
}

// A switch counts what comes in at its port, whoever sends it.
TEST(Manners, SeveralInstancesOfAHostAreAsPoliteAsOne) {
  NEEDS_NAMESPACES();
  NEEDS_PROGRAM("tcpdump", "tcpdump");
  NEEDS_PROGRAM("dumpcap", "tshark");
  const std::string own = "10.77.0.100";
  Network network(1);
  give_addresses(network, {own});
  Cable cable(network);
  const auto requests = [&] { return cable.requests_for_others({own})[own].size(); };
  std::vector<Process*> peers;
  for (const char* name : {"ann", "bob", "carl"}) {
    const size_t before = requests();
    peers.push_back(&network.peer(1, name));
    // The next one a little later, or all of them would ask for the same addresses at once.
    ASSERT_TRUE(eventually(kPatience, [&] { return requests() >= before + 40; }));
  }
  ASSERT_NO_FATAL_FAILURE(expect_complete_lists(peers, 1));
  const size_t before = requests();
  ASSERT_TRUE(eventually(kPatience, [&] { return requests() >= before + 100; }));
  expect_good_manners(cable, {own});
}

// ---- Through firewalls ----------------------------------------------------------------------

class FirewallsThatLetInOnlyAnswers : public testing::TestWithParam<int> {};

TEST_P(FirewallsThatLetInOnlyAnswers, HideNobody) {
  NEEDS_NAMESPACES();
  Network network(5);
  for (int host = 1; host <= GetParam(); ++host) raise_firewall(network, host);
  const auto peers = network.peers();
  ASSERT_NO_FATAL_FAILURE(expect_complete_lists(peers, 30));
  const double seconds = is_long() ? 600 : 40;  // a firewall remembers a question for 30 s
  const auto somebody_left = [&] {
    return std::any_of(peers.begin(), peers.end(),
                       [](Process* peer) { return peer->prints("left .*", 0); });
  };
  EXPECT_FALSE(eventually(seconds, somebody_left));
  for (Process* peer : peers) EXPECT_EQ(peer->count("left .*"), 0u) << peer->output();
}

INSTANTIATE_TEST_SUITE_P(Manners, FirewallsThatLetInOnlyAnswers, testing::Values(1, 2, 5));

// All are behind firewalls, which have forgotten whom they asked. So they have to ask once more, at
// the same time as he does: the clock tells them.
TEST(Manners, WhoComesLaterIsFoundThroughAllFirewallsWhenTheClockSaysSo) {
  NEEDS_NAMESPACES();
  constexpr int kUntilFull = 60;  // seconds, from the start on
  const auto since_full = static_cast<int>(std::time(nullptr) % kFiveMinutes);
  const int date = 2 * kFiveMinutes - since_full - kUntilFull;
  Network network(4);
  std::vector<std::unique_ptr<ClockedPeer>> clocked;
  std::vector<Process*> peers;
  const auto start_peer = [&](int host) {
    const std::vector<std::string> options = {"--name", "u" + std::to_string(host)};
    clocked.push_back(std::make_unique<ClockedPeer>(network, host, options, date));
    peers.push_back(&clocked.back()->process());
  };
  for (int host = 1; host <= 4; ++host) raise_firewall(network, host);
  for (int host = 1; host <= 3; ++host) start_peer(host);
  ASSERT_NO_FATAL_FAILURE(expect_complete_lists(peers, 30));
  // They have swept for 10 s, and a firewall remembers for 30 s.
  const auto is_forgotten = [&] {
    return (std::time(nullptr) + date) % kFiveMinutes >= kFiveMinutes - 13;
  };
  ASSERT_TRUE(eventually(kPatience, is_forgotten));
  start_peer(4);
  ASSERT_NO_FATAL_FAILURE(expect_complete_lists(peers, 30));
}

// Who writes to whom: with a firewall, or without.
struct Direction {
  std::string name;
  bool is_sender_behind;
  bool is_receiver_behind;
};

const std::vector<Direction> kDirections = {{"open to open", false, false},
                                            {"firewalled to open", true, false},
                                            {"open to firewalled", false, true},
                                            {"firewalled to firewalled", true, true}};

// The table of docs/performance.md: what can arrive arrives, and of the rest it is said why it did
// not, and what to do.
TEST_P(FirewallsThatLetInOnlyAnswers, LetInNoMessageAndNoFileAndTheSenderReadsWhy) {
  NEEDS_NAMESPACES();
  constexpr int kHosts = 5;
  const int firewalls = GetParam();
  Network network(kHosts);
  for (int host = 1; host <= firewalls; ++host) raise_firewall(network, host);
  const auto peers = network.peers({"--accept", "always"});
  ASSERT_NO_FATAL_FAILURE(expect_complete_lists(peers, 30));
  const auto name = [](int host) { return "u" + std::to_string(host); };
  const auto sender = [&](int host) -> Process& { return *peers[static_cast<size_t>(host - 1)]; };
  for (int from = 1; from <= kHosts; ++from) {
    network.folder(name(from)).write("notes.txt", "from " + name(from));
    for (int to = 1; to <= kHosts; ++to) {
      if (to == from) continue;
      sender(from).say("/msg " + name(to) + " hello");
      sender(from).say("/send " + name(to) + " notes.txt");
    }
  }
  for (const Direction& direction : kDirections) {
    int pairs = 0, messages = 0, files = 0;
    for (int from = 1; from <= kHosts; ++from)
      for (int to = 1; to <= kHosts; ++to) {
        const bool is_sender_behind = from <= firewalls;
        const bool is_receiver_behind = to <= firewalls;
        if (to == from || is_sender_behind != direction.is_sender_behind) continue;
        if (is_receiver_behind != direction.is_receiver_behind) continue;
        ++pairs;
        const std::string whom = name(to) + "@\\S+";
        const std::string delivered = "delivered " + whom + ": hello";
        const std::string failed = "failed " + whom + ": .*firewall.*open TCP .*: hello";
        const std::string sent = "send \\d+ delivered " + whom + ".*";
        const std::string not_sent = "send \\d+ failed " + whom + ".*firewall.*open TCP .*";
        const auto has = [&](const std::string& line) { return sender(from).count(line) == 1; };
        EXPECT_TRUE(eventually(kPatience, [&] { return has(delivered) || has(failed); }))
            << direction.name << "\n" << sender(from).output();
        EXPECT_TRUE(eventually(kPatience, [&] { return has(sent) || has(not_sent); }))
            << direction.name << "\n" << sender(from).output();
        if (has(delivered)) ++messages;
        if (has(sent)) ++files;
        EXPECT_EQ(has(delivered), !is_receiver_behind) << from << " to " << to;
        EXPECT_EQ(has(sent), !is_receiver_behind) << from << " to " << to;
      }
    std::cout << firewalls << " of " << kHosts << " firewalled, " << direction.name << ": of " << pairs
              << " messages " << messages << " arrive, of " << pairs << " files " << files << std::endl;
  }
}
