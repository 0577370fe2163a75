// Many peers: a class of 30 hosts, a full segment (253 hosts and the router), and one host where a whole class is
// logged in. The tests check that nobody is missing and nothing is lost or shown twice. `make segment` measures time
// and cost: docs/performance.md.

#include <signal.h>

#include <iostream>
#include <map>
#include <sstream>

#include "support/testing.h"

namespace {

constexpr double kAllTogether = 300;  // seconds: all of them share the processor with the other tests

// As many as a full /24 has. A sanitizer takes some ten times the memory and the time.
int full_segment() {
  if (sanitizer() == "thread") return 40;
  return sanitizer().empty() ? 253 : 80;
}

// What was printed, and how often.
std::map<std::string, int> counted(Process& peer) {
  std::map<std::string, int> lines;
  for (const std::string& line : peer.lines()) ++lines[line];
  return lines;
}

// Each /list has everybody once: the names are u1, u2 and so on.
void expect_complete_lists(const std::vector<Process*>& peers) {
  ASSERT_NO_FATAL_FAILURE(expect_all_list_all(peers, kAllTogether));
  for (Process* peer : peers) peer->say("/list");
  for (Process* peer : peers) {
    ASSERT_NE(peer->wait_for("users " + std::to_string(peers.size()), kAllTogether), "");
    std::map<std::string, int> names;
    for (const std::string& line : peer->lines()) {
      std::istringstream words(line);
      std::string user, number, mark, name;
      words >> user >> number >> mark >> name;
      if (user == "user") ++names[name];
    }
    for (size_t i = 1; i <= peers.size(); ++i) ASSERT_EQ(names["u" + std::to_string(i)], 1) << peer->output();
    ASSERT_EQ(peer->count("left .*"), 0u) << peer->output();
  }
}

}  // namespace

TEST(Scale, AClassOfThirtyFindsItselfAndOfAllTheirMessagesEachArrivesOnce) {
  NEEDS_NAMESPACES();
  std::cout << class_size() << " hosts\n";
  Network network(class_size());
  const auto peers = network.peers();
  ASSERT_NO_FATAL_FAILURE(expect_complete_lists(peers));
  const auto text = [](int from, int to) { return "from " + std::to_string(from) + " to " + std::to_string(to); };
  const auto who = [](int host) { return "u" + std::to_string(host) + "@" + Network::address(host) + ":25253"; };
  for (int from = 1; from <= class_size(); ++from)
    for (int to = 1; to <= class_size(); ++to)
      if (from != to) peers[static_cast<size_t>(from - 1)]->say("/msg u" + std::to_string(to) + " " + text(from, to));
  const auto others = static_cast<size_t>(class_size() - 1);
  for (Process* peer : peers) {
    ASSERT_TRUE(eventually(kAllTogether, [&] { return peer->count("(delivered|failed) .*") >= others; }));
    peer->say("/all that is all");
  }
  // A copy that came late would have been shown before this: it goes the same way.
  for (Process* peer : peers) {
    const std::string all = std::to_string(others);
    ASSERT_NE(peer->wait_for("delivered " + all + " of " + all, kAllTogether), "");
    ASSERT_TRUE(eventually(kAllTogether, [&] { return peer->count("message \\S+ all: that is all") >= others; }));
  }
  for (int host = 1; host <= class_size(); ++host) {
    Process& peer = *peers[static_cast<size_t>(host - 1)];
    auto lines = counted(peer);
    for (int other = 1; other <= class_size(); ++other) {
      if (other == host) continue;
      EXPECT_EQ(lines["message " + who(other) + " private: " + text(other, host)], 1) << host;
      EXPECT_EQ(lines["message " + who(other) + " all: that is all"], 1) << host;
      EXPECT_EQ(lines["delivered " + who(other) + ": " + text(host, other)], 1) << host;
    }
    EXPECT_EQ(peer.count("message .*"), 2 * others);
    EXPECT_EQ(peer.count("failed .*"), 0u);
  }
}

TEST(Scale, OnAFullSegmentEverybodyIsListedAndAllReachesEverybodyAndTellsWhoIsNotThere) {
  NEEDS_NAMESPACES();
  std::cout << full_segment() << " hosts\n";
  Network network(full_segment());
  const auto peers = network.peers();
  ASSERT_NO_FATAL_FAILURE(expect_complete_lists(peers));
  const std::string others = std::to_string(full_segment() - 1);
  peers[0]->say("/all can you hear me");
  peers[0]->wait_for("delivered " + others + " of " + others, kAllTogether);
  for (size_t i = 1; i < peers.size(); ++i) {
    ASSERT_NE(peers[i]->wait_for("message u1@10.77.0.1:25253 all: can you hear me", kAllTogether), "");
    EXPECT_EQ(peers[i]->count("message .*"), 1u);
  }
  for (const size_t gone : {6u, 8u}) {
    peers[gone]->signal(SIGKILL);
    EXPECT_EQ(peers[gone]->exit_status(), 128 + SIGKILL);
  }
  peers[0]->say("/all who is left");
  const std::string seventh = "u7@10.77.0.7:25253", ninth = "u9@10.77.0.9:25253";
  peers[0]->wait_for("delivered " + std::to_string(full_segment() - 3) + " of " + others + "; not reached: (" + seventh + ", " +
                         ninth + "|" + ninth + ", " + seventh + ")",
                     kAllTogether);
}

TEST(Scale, AClassFindsItselfThoughAFifthOfAllPacketsIsLost) {
  NEEDS_NAMESPACES();
  Network network(class_size());
  network.run(0, "nft 'add table bridge f; add chain bridge f lose { type filter hook forward priority 0; }; "
                 "add rule bridge f lose numgen random mod 100 < 20 drop'");
  expect_all_list_all(network.peers(), kAllTogether);
}

TEST(Scale, AWholeClassOnOneHostListsItselfAndIsListedByAnother) {
  NEEDS_NAMESPACES();
  Network network(2);
  std::vector<Process*> peers = {&network.peer(2, "u1")};
  for (int i = 2; i <= 65; ++i) peers.push_back(&network.peer(1, "u" + std::to_string(i)));
  ASSERT_NO_FATAL_FAILURE(expect_complete_lists(peers));
  peers[0]->say("/all good morning");
  peers[0]->wait_for("delivered 64 of 64", kAllTogether);
  peers[64]->say("/all good morning to you");
  peers[64]->wait_for("delivered 64 of 64", kAllTogether);
}
